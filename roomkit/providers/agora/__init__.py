"""Agora's real-time network, through its own Python package."""
