"""Deepgram: streaming speech to text and text to speech."""
