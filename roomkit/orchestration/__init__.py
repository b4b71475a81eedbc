"""Agents arranged around rooms. Above the kit: nothing below knows of it."""

from roomkit.orchestration.pipeline import ConversationPipeline
from roomkit.orchestration.realtime import RealtimeAgents

__all__ = ["ConversationPipeline", "RealtimeAgents"]
