"""AgoraEngine: channels of Agora's network for the realtime agent, through `agora-realtime-ai-api`.

A thin adapter. It is tested against the names and parameters of version 1.1.0 of that package, not against the network:
that takes an account. The package brings a native library of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import import_module
from typing import Any

from roomkit.errors import ConfigError, Unavailable, UsageError
from roomkit.ports.rtc import ChatMessage, RtcEvent, RtcOptions
from roomkit.runtime.observers import Observers

log = logging.getLogger(__name__)
DISCONNECTED = 1
"""`conn_info.state` of a connection that is no more."""


def _package() -> Any:
    try:
        return import_module("agora_realtime_ai_api.rtc")
    except ImportError as error:
        # No extra: its native library is the vendor's own business, and no part of a complete installation of ours.
        raise UsageError(
            'AgoraEngine needs the package "agora-realtime-ai-api": pip install agora-realtime-ai-api'
        ) from error


class AgoraEngine:
    """An `RtcEngine`. `appid` and `appcert` are AGORA_APP_ID and AGORA_APP_CERT unless given. `package` is Agora's own
    module, for tests. Raises `ConfigError` without an app id, `UsageError` without the package."""

    def __init__(self, appid: str | None = None, appcert: str | None = None, *, package: Any = None) -> None:
        appid = appid or os.environ.get("AGORA_APP_ID")
        if not appid:
            raise ConfigError("AgoraEngine needs an app id: set AGORA_APP_ID or pass appid=")
        self._package = package or _package()
        self._engine = self._package.RtcEngine(appid=appid, appcert=appcert or os.environ.get("AGORA_APP_CERT", ""))

    def create_channel(self, options: RtcOptions) -> AgoraChannel:
        theirs = self._package.RtcOptions(
            channel_name=options.channel_name,
            uid=options.uid,
            sample_rate=options.sample_rate,
            channels=options.channels,
            enable_pcm_dump=options.enable_pcm_dump,
        )
        return AgoraChannel(self._engine.create_channel(theirs), self._package)

    async def aclose(self) -> None:
        self._engine.destroy()


class AgoraChannel:
    """An `RtcChannel`: the vendor's events as ours, its frames as bytes."""

    def __init__(self, channel: Any, package: Any) -> None:
        self._channel = channel
        self._package = package
        self._observers = Observers[RtcEvent]()
        self._listeners = {
            "user_joined": self._user_joined,
            "user_left": self._user_left,
            "connection_state_changed": self._state_changed,
            "stream_message": self._stream_message,
        }
        for name, listener in self._listeners.items():
            channel.on(name, listener)

    @property
    def remote_users(self) -> Mapping[int, Any]:
        return {int(uid): user for uid, user in self._channel.remote_users.items()}

    def observe(self, observer: Callable[[RtcEvent], None]) -> Callable[[], None]:
        return self._observers.join(observer)

    async def connect(self) -> None:
        try:
            await self._channel.connect()
        except Exception as error:
            raise Unavailable("agora", f"the channel cannot be joined ({type(error).__name__})") from error

    async def disconnect(self) -> None:
        for name, listener in self._listeners.items():
            self._channel.off(name, listener)
        await self._channel.disconnect()

    async def subscribe_audio(self, uid: int) -> None:
        await self._channel.subscribe_audio(uid)

    async def get_audio_frames(self, uid: int) -> AsyncIterator[bytes]:
        frames = self._channel.get_audio_frames(uid)
        if frames is not None:
            async for frame in frames:
                yield bytes(frame.data)

    async def push_audio_frame(self, frame: bytes) -> None:
        await self._channel.push_audio_frame(frame)

    async def clear_sender_audio_buffer(self) -> None:
        await self._channel.clear_sender_audio_buffer()

    async def send_message(self, message: ChatMessage) -> None:
        theirs = self._package.ChatMessage(message=message.message, msg_id=message.msg_id)
        await self._channel.chat.send_message(theirs)

    def _tell(self, event: RtcEvent) -> None:
        self._observers.tell(event)

    def _user_joined(self, _connection: Any, user_id: Any) -> None:
        self._tell(RtcEvent("user_joined", int(user_id)))

    def _user_left(self, _connection: Any, user_id: Any, _reason: Any) -> None:
        self._tell(RtcEvent("user_left", int(user_id)))

    def _state_changed(self, _connection: Any, info: Any, _reason: Any) -> None:
        state = "disconnected" if info.state == DISCONNECTED else "connected"
        self._tell(RtcEvent("connection_state_changed", data=state))

    def _stream_message(self, _user: Any, user_id: Any, _stream: Any, data: Any, _length: Any) -> None:
        text = bytes(data).decode("utf-8", "replace") if isinstance(data, bytes | bytearray) else str(data)
        self._tell(RtcEvent("chat_message", int(user_id), text))


def provider(_account: str | None = None, **options: Any) -> AgoraEngine:
    """What the name `"agora"` makes."""
    return AgoraEngine(**options)
