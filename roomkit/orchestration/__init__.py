"""Agents arranged around rooms. Above the kit: nothing below knows of it."""

from roomkit.orchestration.pipeline import ConversationPipeline

__all__ = ["ConversationPipeline"]
