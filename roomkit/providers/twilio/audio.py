"""Telephones by Twilio's Media Streams, under the name that every transport has: `VoiceChannel(backend="twilio")`."""

from __future__ import annotations

from roomkit.providers.twilio.media_streams import provider

__all__ = ["provider"]
