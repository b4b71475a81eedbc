"""Options of voice vendors and of sources that change what goes over the line: each fails when its option is
ignored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from websockets.asyncio.server import serve

from roomkit.errors import ProviderError
from roomkit.models.audio import AudioFrame
from roomkit.providers.deepgram.stt import DeepgramOptions, DeepgramSTT
from roomkit.providers.elevenlabs.tts import ElevenLabsOptions, ElevenLabsTTS
from roomkit.providers.local.audio import LocalBackend, LocalOptions
from roomkit.providers.sse.source import SSESource, SSESourceOptions
from roomkit.providers.websocket.source import WebSocketSource, WebSocketSourceOptions
from roomkit.testing.vendors.deepgram import FakeDeepgram
from roomkit.testing.vendors.elevenlabs import FakeElevenLabs


async def nothing() -> AsyncIterator[AudioFrame]:
    return
    yield  # the type of a stream, without anything in it


@pytest.mark.parametrize(
    "options, asked",
    [
        ({"endpointing_ms": 450}, {"endpointing": ["450"]}),
        ({"endpointing_ms": 300}, {"endpointing": ["300"]}),
        ({"smart_format": True}, {"smart_format": ["true"]}),
        ({"smart_format": False}, {"smart_format": ["false"]}),
        ({"rate": 8000}, {"sample_rate": ["8000"]}),
        ({"extra": (("numerals", "true"),)}, {"numerals": ["true"]}),
    ],
)
async def test_what_deepgram_is_asked_for(options: dict[str, Any], asked: dict[str, list[str]]) -> None:
    fake = FakeDeepgram()
    stt = DeepgramSTT(api_key=fake.key, options=DeepgramOptions(**options), connect=fake.connect)
    assert [one async for one in stt.transcribe(nothing())] == []
    await stt.aclose()
    query = parse_qs(urlsplit(fake.urls[0]).query)
    assert {name: query.get(name) for name in asked} == asked


@pytest.mark.parametrize(
    "options, voice", [({"similarity": 0.8}, {"similarity_boost": 0.8}), ({"stability": 0.4}, {"stability": 0.4})]
)
async def test_how_elevenlabs_is_to_sound(options: dict[str, Any], voice: dict[str, float]) -> None:
    fake = FakeElevenLabs()
    tts = ElevenLabsTTS(api_key=fake.key, options=ElevenLabsOptions(**options), connect=fake.connect)

    async def words() -> AsyncIterator[str]:
        yield "Good morning."

    assert [one async for one in tts.speak(words())]
    await tts.aclose()
    assert fake.greetings[0]["voice_settings"] == voice


class Devices:
    """A sound card that has opened nothing yet, and opens nothing."""

    class PortAudioError(Exception): ...

    def __init__(self) -> None:
        self.opened: list[dict[str, Any]] = []

    def RawInputStream(self, **shape: Any) -> Any:  # noqa: N802 - sounddevice's name
        return self._open(shape)

    def RawOutputStream(self, **shape: Any) -> Any:  # noqa: N802 - sounddevice's name
        return self._open(shape)

    def _open(self, shape: dict[str, Any]) -> Any:
        self.opened.append(shape)
        return self

    def start(self) -> None:
        raise self.PortAudioError("unplugged")

    def abort(self) -> None: ...

    def close(self) -> None: ...


async def test_which_microphone_and_loudspeaker_are_opened() -> None:
    devices = Devices()
    options = LocalOptions(rate=8000, microphone="desk", loudspeaker=3)
    backend = LocalBackend(options, sounddevice=devices)
    with pytest.raises(Exception, match="unplugged"):
        backend.call()
    await backend.aclose()
    assert [(one["device"], one["samplerate"]) for one in devices.opened] == [("desk", 8000), (3, 8000)]


@pytest.mark.parametrize("last_id, asked", [("", None), ("e-41", "e-41")])
async def test_where_a_stream_of_events_begins(last_id: str, asked: str | None) -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=b"")

    async def take(message: Any) -> None: ...

    options = SSESourceOptions(last_id=last_id, transport=httpx2.MockTransport(answer))
    source = SSESource("https://feed.example/events", lambda event: None, options=options)
    with pytest.raises(ProviderError):  # the stream ends
        await source.run(take, lambda: None)
    assert seen[0].headers.get("last-event-id") == asked


@pytest.mark.real_time
async def test_what_a_web_socket_of_others_is_asked_to_speak() -> None:
    seen: list[str | None] = []

    async def feed(socket: Any) -> None:
        seen.append(socket.request.headers.get("sec-websocket-protocol"))
        await socket.close()

    async def take(message: Any) -> None: ...

    async with serve(feed, "127.0.0.1", 0, subprotocols=["orders.v2"]) as server:  # type: ignore[list-item]
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        options = WebSocketSourceOptions(subprotocols=("orders.v2",))
        source = WebSocketSource(url, json.loads, options=options)
        await asyncio.wait_for(source.run(take, lambda: None), 20)
    assert seen == ["orders.v2"]


async def test_webrtc_asks_the_servers_it_is_given_and_says_what_the_far_end_does() -> None:
    pytest.importorskip("aiortc")
    from roomkit.providers.webrtc.audio import WebRTCBackend, WebRTCOptions

    options = WebRTCOptions(ice_servers=("turn:turn.example",), username="me", credential="mine", browser=False)
    backend = WebRTCBackend(options)
    assert not backend.traits.native_aec
    assert WebRTCBackend().traits.native_aec
    peer = backend._peer()
    (server,) = peer._RTCPeerConnection__configuration.iceServers
    assert (server.urls, server.username, server.credential) == ("turn:turn.example", "me", "mine")
    assert "mine" not in repr(options)
    await peer.close()
