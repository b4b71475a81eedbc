"""Built-in channels. Names load on first use, so that a program pays only for the channels it has."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roomkit.channels.agent import Agent as Agent
    from roomkit.channels.ai import AIChannel as AIChannel
    from roomkit.channels.messaging import DiscordChannel as DiscordChannel
    from roomkit.channels.messaging import EmailChannel as EmailChannel
    from roomkit.channels.messaging import HTTPChannel as HTTPChannel
    from roomkit.channels.messaging import MessengerChannel as MessengerChannel
    from roomkit.channels.messaging import RCSChannel as RCSChannel
    from roomkit.channels.messaging import SlackChannel as SlackChannel
    from roomkit.channels.messaging import SMSChannel as SMSChannel
    from roomkit.channels.messaging import TeamsChannel as TeamsChannel
    from roomkit.channels.messaging import TelegramChannel as TelegramChannel
    from roomkit.channels.messaging import WhatsAppChannel as WhatsAppChannel
    from roomkit.channels.messaging import WhatsAppPersonalChannel as WhatsAppPersonalChannel
    from roomkit.channels.realtime import RealtimeVoiceChannel as RealtimeVoiceChannel
    from roomkit.channels.transport import TransportChannel as TransportChannel
    from roomkit.channels.voice import VoiceChannel as VoiceChannel
    from roomkit.channels.websocket import WebSocketChannel as WebSocketChannel

_HOMES = {
    "Agent": "agent",
    "AIChannel": "ai",
    "DiscordChannel": "messaging",
    "EmailChannel": "messaging",
    "HTTPChannel": "messaging",
    "MessengerChannel": "messaging",
    "RCSChannel": "messaging",
    "RealtimeVoiceChannel": "realtime",
    "SMSChannel": "messaging",
    "SlackChannel": "messaging",
    "TeamsChannel": "messaging",
    "TelegramChannel": "messaging",
    "TransportChannel": "transport",
    "VoiceChannel": "voice",
    "WebSocketChannel": "websocket",
    "WhatsAppChannel": "messaging",
    "WhatsAppPersonalChannel": "messaging",
}

__all__ = [
    "AIChannel",
    "Agent",
    "DiscordChannel",
    "EmailChannel",
    "HTTPChannel",
    "MessengerChannel",
    "RCSChannel",
    "RealtimeVoiceChannel",
    "SMSChannel",
    "SlackChannel",
    "TeamsChannel",
    "TelegramChannel",
    "TransportChannel",
    "VoiceChannel",
    "WebSocketChannel",
    "WhatsAppChannel",
    "WhatsAppPersonalChannel",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{home}"), name)
    except ModuleNotFoundError as error:
        from roomkit.errors import told_with_extra

        raise told_with_extra(name, error) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
