"""WebRTC against aiortc's own other half, over real UDP on this machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any

import pytest

pytest.importorskip("aiortc")

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from roomkit.errors import ProtocolError
from roomkit.models.audio import VoiceSession
from roomkit.providers.webrtc.audio import WebRTCBackend, _unwrapped
from roomkit.testing.voice import FarEnd, check_voice_backend


def real(test: Callable[[], Awaitable[None]]) -> None:
    """UDP and aiortc's threads have their own time: a real loop, in a thread beside the virtual one."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(test())  # type: ignore[arg-type]
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


class Voice(MediaStreamTrack):
    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._pts = 0
        self._due = 0.0

    async def recv(self) -> av.AudioFrame:
        now = asyncio.get_running_loop().time()
        self._due = max(self._due + 0.02, now)
        await asyncio.sleep(self._due - now)
        pcm = self.frames.get_nowait() if not self.frames.empty() else bytes(1_920)
        frame = av.AudioFrame(format="s16", layout="mono", samples=960)
        frame.planes[0].update(pcm)
        frame.pts, frame.sample_rate, frame.time_base = self._pts, 48_000, Fraction(1, 48_000)
        self._pts += 960
        return frame


class Caller:
    """A peer that speaks and hears."""

    def __init__(self, session: VoiceSession) -> None:
        self.session = session
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.voice = Voice()
        self._heard = 0
        self._hearing: asyncio.Task[None] | None = None
        self.peer.addTrack(self.voice)
        self.peer.on("track", self._track)

    def _track(self, track: Any) -> None:
        async def hear() -> None:
            try:
                while True:
                    frame = await track.recv()
                    values = frame.to_ndarray().reshape(-1)[::2]
                    self._heard += int((np.abs(values.astype(int)) > 200).sum())
            except MediaStreamError:
                pass

        self._hearing = asyncio.get_running_loop().create_task(hear())

    async def call(self, backend: WebRTCBackend) -> None:
        connected = asyncio.Event()

        async def answer() -> None:
            connected.set()

        await self.peer.setLocalDescription(await self.peer.createOffer())
        local = self.peer.localDescription
        reply = await backend.offer(self.session, {"type": local.type, "sdp": local.sdp}, answer)
        await self.peer.setRemoteDescription(RTCSessionDescription(reply["sdp"], reply["type"]))
        await asyncio.wait_for(connected.wait(), 10)

    async def say(self, pcm: bytes) -> None:
        self.voice.frames.put_nowait(pcm)

    def heard(self) -> int:
        return self._heard

    async def hang_up(self) -> None:
        await self.peer.close()


def test_conformance() -> None:
    async def run() -> None:
        made: list[Caller] = []

        async def connect(listen_only: bool) -> tuple[WebRTCBackend, FarEnd]:
            backend = WebRTCBackend()
            caller = Caller(VoiceSession("call", listen_only=listen_only))
            made.append(caller)
            await caller.call(backend)
            await asyncio.sleep(0.2)
            return backend, caller

        await check_voice_backend(connect, slack_ms=250, share=0.8)
        for caller in made:
            await caller.peer.close()

    real(run)


def test_offers_that_are_none() -> None:
    async def run() -> None:
        backend = WebRTCBackend()

        async def answer() -> None: ...

        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTransceiver("audio")
        peer.addTransceiver("video")
        await peer.setLocalDescription(await peer.createOffer())
        video = peer.localDescription.sdp
        audio = video[: video.index("m=video")]
        await peer.close()
        broken = audio.replace("a=fingerprint", "a=nothing").replace("a=ice-ufrag", "a=nothing")
        for sdp in ("", "nonsense", "v=0\r\nm=audio", video, audio + audio[audio.index("m=audio") :], broken):
            with pytest.raises(ProtocolError):
                await backend.offer(VoiceSession("x"), {"type": "offer", "sdp": sdp}, answer)
        assert len(backend) == 0
        await backend.aclose()

    real(run)


def test_time_stamps_wrap_around() -> None:
    assert _unwrapped(5, (1 << 32) - 3) == (1 << 32) + 5
    assert _unwrapped((1 << 32) - 3 - (1 << 32), 10) == -3
    assert _unwrapped(960, 960) == 960
