"""Google's Gemini Live API: commands to client messages, server messages to events. Sans-IO."""

from roomkit.protocols.gemini_live.codec import INPUT_RATE, OUTPUT_RATE, GeminiLiveCodec, WireTools

__all__ = ["INPUT_RATE", "OUTPUT_RATE", "GeminiLiveCodec", "WireTools"]
