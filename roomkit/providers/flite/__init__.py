"""Flite: text to speech without a network, clearer than eSpeak NG, English only."""
