"""OpenAI's Realtime API (and what speaks it): commands to client events, server events to ours. Sans-IO."""

from roomkit.protocols.openai_realtime.codec import RATE, OpenAIRealtimeCodec, WireTools
from roomkit.protocols.openai_realtime.session import session_of

__all__ = ["RATE", "OpenAIRealtimeCodec", "WireTools", "session_of"]
