"""Calls from and into WAV files."""
