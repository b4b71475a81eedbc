"""The Agora adapter against the names and parameters of agora-realtime-ai-api 1.1.0, written down from that package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from roomkit.errors import ConfigError, Unavailable, UsageError
from roomkit.models import realtime as rt
from roomkit.ports.rtc import ChatMessage, RtcEvent, RtcOptions
from roomkit.providers.agora.rtc import AgoraEngine
from roomkit.servers.realtime_agent.agent import InferenceConfig, RealtimeKitAgent
from roomkit.voice.realtime.mock import MockRealtimeProvider


class TheirOptions:
    def __init__(
        self,
        *,
        channel_name: str | None = None,
        uid: int = 0,
        sample_rate: int = 24_000,
        channels: int = 1,
        enable_pcm_dump: bool = False,
        enable_vad: bool = False,
        vad_configs: Any = None,
    ) -> None:
        self.channel_name, self.uid, self.sample_rate = channel_name, uid, sample_rate


class TheirMessage:
    def __init__(self, message: str, msg_id: str) -> None:
        self.message, self.msg_id = message, msg_id


class TheirChannel:
    def __init__(self, options: TheirOptions) -> None:
        self.options = options
        self.remote_users: dict[int, Any] = {}
        self.chat = SimpleNamespace(send_message=self._chat)
        self.listeners: dict[str, list[Callable[..., None]]] = {}
        self.said: list[TheirMessage] = []
        self.pushed: list[bytes] = []
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.fails = False
        self.calls: list[str] = []

    async def _chat(self, item: TheirMessage) -> None:
        self.said.append(item)

    def on(self, event_name: str, callback: Callable[..., None]) -> None:
        self.listeners.setdefault(event_name, []).append(callback)

    def off(self, event_name: str, callback: Callable[..., None]) -> None:
        self.listeners[event_name].remove(callback)

    def emit(self, event_name: str, *given: Any) -> None:
        for listener in tuple(self.listeners.get(event_name, ())):
            listener(*given)

    async def connect(self) -> None:
        if self.fails:
            raise Exception("failed to connect: token secret")
        self.calls.append("connect")

    async def disconnect(self) -> None:
        self.calls.append("disconnect")

    async def subscribe_audio(self, uid: int) -> None:
        self.calls.append(f"subscribe {uid}")

    def get_audio_frames(self, uid: int) -> AsyncIterator[Any] | None:
        async def frames() -> AsyncIterator[Any]:
            while (frame := await self.frames.get()) is not None:
                yield frame

        return frames()

    async def push_audio_frame(self, frame: bytes) -> None:
        self.pushed.append(frame)

    async def clear_sender_audio_buffer(self) -> None:
        self.calls.append("clear")


class TheirEngine:
    def __init__(self, appid: str, appcert: str) -> None:
        self.made: list[TheirChannel] = []

    def create_channel(self, options: TheirOptions) -> TheirChannel:
        self.made.append(TheirChannel(options))
        return self.made[-1]

    def destroy(self) -> None: ...


PACKAGE = SimpleNamespace(RtcEngine=TheirEngine, RtcOptions=TheirOptions, ChatMessage=TheirMessage)


def _engine() -> tuple[AgoraEngine, Callable[[], TheirChannel]]:
    engine = AgoraEngine("app", "cert", package=PACKAGE)
    return engine, lambda: engine._engine.made[-1]


async def test_an_agent_serves_a_user_of_the_network() -> None:
    engine, theirs = _engine()
    provider = MockRealtimeProvider()
    options = RtcOptions(channel_name="room", uid=9)
    running = asyncio.ensure_future(
        RealtimeKitAgent.setup_and_run_agent(engine, options, InferenceConfig(), None, provider=provider)
    )
    await asyncio.sleep(0.1)
    channel = theirs()
    assert (channel.options.channel_name, channel.options.uid) == ("room", 9)
    channel.emit("user_joined", None, "7")
    await asyncio.sleep(0.1)
    assert channel.calls == ["connect", "subscribe 7"]
    channel.frames.put_nowait(SimpleNamespace(data=bytearray(b"\1\0" * 480)))
    await asyncio.sleep(0.1)
    assert provider.session.of(rt.AppendAudio)[0].pcm == b"\1\0" * 480
    provider.session.says("hello", ms=100)
    await asyncio.sleep(0.5)
    assert sum(map(len, channel.pushed)) == 4_800
    assert channel.said[0].msg_id.startswith("item")
    channel.frames.put_nowait(None)
    channel.emit("user_left", None, 7, 0)
    assert await running == "user_left"
    assert channel.calls[-1] == "disconnect"
    assert not any(channel.listeners.values())


async def test_events_and_texts_of_the_vendor_s() -> None:
    engine, theirs = _engine()
    channel = engine.create_channel(RtcOptions(channel_name="room", uid=9))
    seen: list[RtcEvent] = []
    leave = channel.observe(seen.append)
    theirs().emit("connection_state_changed", None, SimpleNamespace(state=3), 0)
    theirs().emit("connection_state_changed", None, SimpleNamespace(state=1), 0)
    theirs().emit("stream_message", None, "7", 1, b"hello", 5)
    leave()
    theirs().emit("user_joined", None, 1)
    assert [(event.kind, event.uid, event.data) for event in seen] == [
        ("connection_state_changed", 0, "connected"),
        ("connection_state_changed", 0, "disconnected"),
        ("chat_message", 7, "hello"),
    ]
    await channel.send_message(ChatMessage("text", "m1"))
    await channel.clear_sender_audio_buffer()
    assert (theirs().said[0].message, theirs().said[0].msg_id) == ("text", "m1")


async def test_a_network_that_does_not_answer_is_told_without_its_secrets() -> None:
    engine, theirs = _engine()
    channel = engine.create_channel(RtcOptions(channel_name="room", uid=9))
    theirs().fails = True
    with pytest.raises(Unavailable) as told:
        await channel.connect()
    assert "secret" not in str(told.value)


def test_without_an_app_id_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGORA_APP_ID", raising=False)
    with pytest.raises(ConfigError, match="AGORA_APP_ID"):
        AgoraEngine()
    with pytest.raises(UsageError, match="agora-realtime-ai-api"):
        AgoraEngine("app")
