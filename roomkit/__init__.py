"""roomkit: conversations that cross channels. A room is a durable, ordered log of events with channels around it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roomkit.ai.tools import tool as tool
    from roomkit.channels.agent import Agent as Agent
    from roomkit.channels.ai import AIChannel as AIChannel
    from roomkit.channels.messaging import EmailChannel as EmailChannel
    from roomkit.channels.messaging import HTTPChannel as HTTPChannel
    from roomkit.channels.messaging import SMSChannel as SMSChannel
    from roomkit.channels.transport import TransportChannel as TransportChannel
    from roomkit.channels.voice import VoiceChannel as VoiceChannel
    from roomkit.channels.websocket import WebSocketChannel as WebSocketChannel
    from roomkit.core.engine import KitOptions as KitOptions
    from roomkit.core.hooks import Filter as Filter
    from roomkit.errors import RoomKitError as RoomKitError
    from roomkit.kit import RoomKit as RoomKit
    from roomkit.models.access import Principal as Principal
    from roomkit.models.audio import VoiceSession as VoiceSession
    from roomkit.models.content import TextContent as TextContent
    from roomkit.models.delivery import InboundMessage as InboundMessage
    from roomkit.models.event import EventDraft as EventDraft
    from roomkit.models.event import EventType as EventType
    from roomkit.models.event import RoomEvent as RoomEvent
    from roomkit.models.hooks import Allow as Allow
    from roomkit.models.hooks import BeforeCommit as BeforeCommit
    from roomkit.models.hooks import BeforeToolUse as BeforeToolUse
    from roomkit.models.hooks import Block as Block
    from roomkit.models.hooks import Committed as Committed
    from roomkit.models.hooks import Modify as Modify
    from roomkit.models.room import ChannelBinding as ChannelBinding
    from roomkit.models.room import ChannelCapabilities as ChannelCapabilities
    from roomkit.models.room import ChannelType as ChannelType
    from roomkit.models.room import Room as Room
    from roomkit.models.steering import Cancel as Cancel
    from roomkit.models.steering import InjectMessage as InjectMessage
    from roomkit.models.steering import SteeringDirective as SteeringDirective
    from roomkit.models.steering import UpdateSystemPrompt as UpdateSystemPrompt
    from roomkit.orchestration.pipeline import ConversationPipeline as ConversationPipeline
    from roomkit.ports.audio import VoiceBackend as VoiceBackend
    from roomkit.ports.channel import Channel as Channel
    from roomkit.ports.channel import ChannelOutput as ChannelOutput
    from roomkit.ports.channel import RoomContext as RoomContext
    from roomkit.ports.channel import TurnPolicy as TurnPolicy
    from roomkit.ports.speech import TurnDetector as TurnDetector
    from roomkit.voice.pipeline import AudioPipelineConfig as AudioPipelineConfig

_HOMES = {
    "Agent": "channels.agent",
    "VoiceChannel": "channels.voice",
    "ConversationPipeline": "orchestration.pipeline",
    "AudioPipelineConfig": "voice.pipeline",
    "VoiceSession": "models.audio",
    "VoiceBackend": "ports.audio",
    "TurnDetector": "ports.speech",
    "tool": "ai.tools",
    "AIChannel": "channels.ai",
    "EmailChannel": "channels.messaging",
    "HTTPChannel": "channels.messaging",
    "SMSChannel": "channels.messaging",
    "TransportChannel": "channels.transport",
    "WebSocketChannel": "channels.websocket",
    "KitOptions": "core.engine",
    "Filter": "core.hooks",
    "RoomKitError": "errors",
    "RoomKit": "kit",
    "Principal": "models.access",
    "TextContent": "models.content",
    "InboundMessage": "models.delivery",
    "EventDraft": "models.event",
    "EventType": "models.event",
    "RoomEvent": "models.event",
    "Allow": "models.hooks",
    "BeforeCommit": "models.hooks",
    "BeforeToolUse": "models.hooks",
    "Block": "models.hooks",
    "Committed": "models.hooks",
    "Modify": "models.hooks",
    "ChannelBinding": "models.room",
    "ChannelCapabilities": "models.room",
    "ChannelType": "models.room",
    "Room": "models.room",
    "Cancel": "models.steering",
    "InjectMessage": "models.steering",
    "SteeringDirective": "models.steering",
    "UpdateSystemPrompt": "models.steering",
    "Channel": "ports.channel",
    "ChannelOutput": "ports.channel",
    "RoomContext": "ports.channel",
    "TurnPolicy": "ports.channel",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'roomkit' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"roomkit.{home}"), name)
    except ModuleNotFoundError as error:
        from roomkit.errors import told_with_extra

        raise told_with_extra(name, error) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
