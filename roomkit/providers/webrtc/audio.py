"""WebRTCBackend: calls of browsers and apps by WebRTC, with aiortc: Opus at 48 kHz both ways, over UDP.

An offer comes as `POST /voice/{channel}` (`{"type": "offer", "sdp": ..., "room_id": ...}` with a token of the room) and
its answer goes back with all candidates. Only host candidates are used unless `ice_servers` names STUN or TURN servers.
aiortc restores the order of packets; `JitterBuffer` gives them a pace, and makes up what never came.
"""

from __future__ import annotations

import asyncio
import fractions
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from roomkit.dsp.framing import Reblock
from roomkit.dsp.jitter import JitterBuffer
from roomkit.dsp.pcm import silence
from roomkit.errors import MissingExtra, ProtocolError
from roomkit.models.audio import FRAME_MS, AudioFrame, VoiceSession
from roomkit.ports.audio import BackendTraits
from roomkit.providers.live_audio import LiveBackend, LiveCall
from roomkit.runtime import Scope, bounded, monotonic

log = logging.getLogger(__name__)
RATE = 48_000
FRAME = RATE * FRAME_MS // 1000
_BASE = fractions.Fraction(1, RATE)
_WRAP = 1 << 32
MOST_QUEUED = 100
OVER = ("failed", "closed")
SILENT_S = 6.0
"""A sender that sends nothing at all for so long is gone: even silence is a packet every 400 ms."""


@dataclass(frozen=True, slots=True)
class WebRTCOptions:
    """`ice_servers` are URLs such as "stun:stun.example.org:3478"; for TURN give `username` and `credential`, too. A
    call that is not connected after `connect_s` seconds is given up. `browser` says that the far end takes out echo and
    noise itself."""

    ice_servers: Sequence[str] = ()
    username: str | None = None
    credential: str | None = field(default=None, repr=False)
    connect_s: float = 20.0
    browser: bool = True


class Wire:
    """One peer connection and what is to be played over it."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.queue: deque[bytes] = deque()
        self.blocks = Reblock(FRAME * 2)
        self.pulled = 0
        self.jitter = JitterBuffer(RATE)
        self.call: LiveCall[Wire] | None = None
        self.came_at = 0.0

    def pull(self) -> bytes:
        """The next 20 ms of our voice: it sounds now, but for the way there."""
        if not self.queue:
            return silence(FRAME)
        pcm = self.queue.popleft()
        self.pulled += FRAME
        if self.call is not None:
            self.call.sound.confirm(self.call.sound.epoch, self.pulled)
        return pcm


class WebRTCBackend(LiveBackend[Wire]):
    """A `VoiceBackend` for WebRTC. Raises `MissingExtra` without aiortc."""

    def __init__(self, options: WebRTCOptions | None = None) -> None:
        options = options or WebRTCOptions()
        own = options.browser
        super().__init__(BackendTraits(rate=RATE, native_aec=own, native_agc=own, native_noise_suppression=own))
        self._options = options
        self._rtc = _aiortc()
        self._scope = Scope("webrtc")
        self.unreadable = (ValueError, KeyError, IndexError, AttributeError, AssertionError, *self._rtc.errors)
        """What aiortc raises for descriptions of which it can make nothing."""

    async def offer(
        self, session: VoiceSession, description: dict[str, str], answer: Callable[[], Awaitable[None]]
    ) -> dict[str, str]:
        """The reply to a caller's offer. It may carry sound only, once."""
        sdp = description.get("sdp", "")
        if [line for line in sdp.splitlines() if line.startswith("m=")] != [
            line for line in sdp.splitlines() if line.startswith("m=audio ")
        ][:1]:
            raise ProtocolError("an offer carries one stream of sound and nothing else")
        return await self.agree(session, sdp, answer)

    async def agree(
        self,
        session: VoiceSession,
        sdp: str,
        answer: Callable[[], Awaitable[None]],
        prepare: Callable[[Wire], None] = lambda _: None,
    ) -> dict[str, str]:
        """The reply to an offer whose first stream is sound. `prepare` sees the wire before the answer is made."""
        peer = self._peer()
        wire = Wire(peer)
        try:
            await peer.setRemoteDescription(self._rtc.RTCSessionDescription(sdp, "offer"))
            peer.addTrack(_mouth()(wire))
            if session.listen_only:  # no uplink at all, not even on the wire
                peer.getTransceivers()[0].direction = "sendonly"
            prepare(wire)
            await peer.setLocalDescription(await peer.createAnswer())
        except self.unreadable as error:
            await peer.close()
            raise ProtocolError("the offer cannot be read") from error
        except BaseException:
            await peer.close()
            raise
        call = wire.call = self.opened(session, wire, FRAME_MS / 1000)
        self._scope.spawn(self._carry(call, answer), name=f"call {session.id}")
        local = peer.localDescription
        return {"type": local.type, "sdp": local.sdp}

    def _peer(self) -> Any:
        options = self._options
        servers = [
            self._rtc.RTCIceServer(urls=url, username=options.username, credential=options.credential)
            for url in options.ice_servers
        ]
        # An empty list, not None: that would mean somebody else's STUN server.
        return self._rtc.RTCPeerConnection(self._rtc.RTCConfiguration(iceServers=servers))

    async def _carry(self, call: LiveCall[Wire], answer: Callable[[], Awaitable[None]]) -> None:
        """One call from its connection to its end."""
        peer, over = call.wire.peer, asyncio.Event()
        connected = asyncio.Event()

        def changed() -> None:
            if peer.connectionState == "connected":
                connected.set()
            elif peer.connectionState in OVER:
                connected.set()
                over.set()

        peer.on("connectionstatechange", changed)
        changed()
        async with Scope(f"peer {call.session.id}") as scope:
            try:
                await bounded(connected.wait(), self._options.connect_s, "connecting by WebRTC")
                if not over.is_set():
                    scope.spawn(self.introduce(call, answer), name="answer")
                    track = peer.getReceivers()[0].track
                    if not call.session.listen_only and track is not None:
                        scope.spawn(self._hear(call, track, over), name="hear")
                        scope.spawn(self._pace(call, over), name="pace")
                    await over.wait()
            except TimeoutError:
                log.info("call %s was never connected", call.session.id)
            finally:
                self.gone(call)
                await peer.close()
                await scope.aclose()
                self._calls.pop(call.session.id, None)

    async def _hear(self, call: LiveCall[Wire], track: Any, over: asyncio.Event) -> None:
        """What comes, by its time stamps, into the jitter buffer."""
        first, position, blocks = None, 0, call.wire.blocks
        try:
            while True:
                frame = await track.recv()
                call.wire.came_at = monotonic()
                pcm = _mono(frame)
                if first is None:
                    first = frame.pts
                at = _unwrapped(frame.pts - first, position)
                if at != position:
                    blocks.reset()
                for number, block in enumerate(blocks.push(pcm)):
                    start = at + number * FRAME
                    call.wire.jitter.put(start - start % FRAME, block)
                position = at + len(pcm) // 2
        except self._rtc.MediaStreamError:
            over.set()

    async def _pace(self, call: LiveCall[Wire], over: asyncio.Event) -> None:
        due = call.wire.came_at = monotonic()
        while not over.is_set():
            if due - call.wire.came_at > SILENT_S:
                over.set()
            due = max(due + FRAME_MS / 1000, monotonic() - 0.1)
            await asyncio.sleep(max(due - monotonic(), 0))
            self.take(call, call.wire.jitter.pull())

    async def put(self, call: LiveCall[Wire], frame: AudioFrame) -> None:
        if len(call.wire.queue) < MOST_QUEUED:
            call.wire.queue.append(frame.pcm)

    async def forget(self, call: LiveCall[Wire], epoch: int) -> None:
        call.wire.queue.clear()
        call.wire.pulled = 0

    async def leave(self, call: LiveCall[Wire]) -> None:
        await call.wire.peer.close()

    async def aclose(self) -> None:
        await super().aclose()
        await self._scope.drain(5)
        await self._scope.aclose()


def _unwrapped(stamp: int, near: int) -> int:
    """A 32-bit time stamp as the position next to `near`."""
    return near + ((stamp - near + _WRAP // 2) % _WRAP) - _WRAP // 2


def _mono(frame: Any) -> bytes:
    values = frame.to_ndarray().reshape(-1)
    channels = frame.layout.nb_channels
    if channels > 1:
        values = values.reshape(-1, channels).astype(np.int32).sum(axis=1) // channels
    return values.astype("<i2").tobytes()


class _Names:
    """What is used of aiortc."""

    def __init__(self) -> None:
        rtc: Any = import_module("aiortc")
        self.RTCPeerConnection = rtc.RTCPeerConnection
        self.RTCConfiguration = rtc.RTCConfiguration
        self.RTCIceServer = rtc.RTCIceServer
        self.RTCSessionDescription = rtc.RTCSessionDescription
        self.errors = (rtc.InvalidStateError, import_module("aiortc.exceptions").OperationError)
        self.MediaStreamError: Any = import_module("aiortc.mediastreams").MediaStreamError


@lru_cache(maxsize=1)
def _aiortc() -> _Names:
    try:
        return _Names()
    except ImportError as error:
        raise MissingExtra("WebRTCBackend", "aiortc", "webrtc") from error


@lru_cache(maxsize=1)
def _mouth() -> Any:
    """The track that plays a wire's queue at the pace of sound; a class of aiortc's, made when it is there."""
    av: Any = import_module("av")
    streams: Any = import_module("aiortc.mediastreams")

    class Mouth(streams.MediaStreamTrack):
        kind = "audio"

        def __init__(self, wire: Wire) -> None:
            super().__init__()  # pyright: ignore[reportUnknownMemberType]
            self._wire = wire
            self._pts = 0
            self._due = 0.0

        async def recv(self) -> Any:
            if self.readyState != "live":
                raise streams.MediaStreamError
            now = monotonic()
            self._due = self._due + FRAME_MS / 1000 if self._due > now - 0.2 else now
            await asyncio.sleep(max(self._due - now, 0))
            frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME)
            frame.planes[0].update(self._wire.pull())
            frame.pts, frame.sample_rate, frame.time_base = self._pts, RATE, _BASE
            self._pts += FRAME
            return frame

    return Mouth


def provider(_account: str | None = None, **options: Any) -> WebRTCBackend:
    return WebRTCBackend(WebRTCOptions(**options))
