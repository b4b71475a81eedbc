"""RTVIBackend: the sound of the clients that come through RTVI's door: over its web socket, or by WebRTC.

A client's web socket transport plays what comes the moment it comes, at one rate, and can forget nothing: so sound is
sent at its own pace, never more than `LEAD_MS` ahead, and an interruption simply sends no more. What has been sent
counts as heard. The door (`roomkit.servers.rtvi`) has the wires; this is only what flows through them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from roomkit.dsp.framing import Reblock
from roomkit.dsp.pcm import dbfs
from roomkit.dsp.resample import Resampler
from roomkit.errors import ConfigError, ProtocolError
from roomkit.models.audio import FRAME_MS, AudioFrame, DtmfDigit, VoiceSession
from roomkit.ports.audio import BackendEvent, BackendTraits, VoiceBackend
from roomkit.ports.rtvi import PeerSound, SoundWire
from roomkit.providers.live_audio import LiveBackend, LiveCall
from roomkit.runtime import Scope, monotonic
from roomkit.runtime.observers import Observers

LEAD_MS = 80.0
MOST_WAITING = 500
"""Frames: ten seconds. Whoever paces, as a channel does, never has so many."""
MOST_S, FASTER = 5.0, 1.2
"""A client keeps what it records until it is ready, and then sends it at once; beyond that, sound comes at its own
pace, and what comes faster is dropped before it costs anything."""
LEVEL_S = 0.15
QUIET_DBFS = -60.0
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_RATES = ", ".join(map(str, RATES))


@dataclass(eq=False)
class _Out:
    """One client's way out: what waits for its time, and until when the client has sound to play."""

    wire: SoundWire
    waiting: deque[AudioFrame] = field(default_factory=deque[AudioFrame])
    written: int = 0
    heard_s: float = 0.0
    until: float = 0.0
    pacing: asyncio.Task[None] | None = None
    down: Resampler | None = None
    up: tuple[int, Resampler] | None = None
    blocks: Reblock | None = None


class SocketSound(LiveBackend[_Out]):
    """The half of it that goes over web sockets."""

    def __init__(self, traits: BackendTraits, player_rate: int) -> None:
        super().__init__(traits)
        self._player_rate = player_rate
        self._scope = Scope("rtvi sound")

    def open(self, session: VoiceSession, wire: SoundWire) -> LiveCall[_Out]:
        """A client is there whose sound goes through `wire`; `hear` and `gone` follow."""
        out, rate = _Out(wire), self.traits.rate
        out.blocks = Reblock(rate * FRAME_MS // 1000 * 2)
        if rate != self._player_rate:
            out.down = Resampler(rate, self._player_rate)
        return self.opened(session, out, 0.0)

    def hear(self, call: LiveCall[_Out], pcm: bytes, rate: int, channels: int) -> None:
        """Sound of the client's. Raises `ProtocolError` for what is none."""
        if rate not in RATES or channels not in (1, 2) or len(pcm) % (2 * channels):
            raise ProtocolError(f"sound is 16-bit PCM, one or two channels, at one of {_RATES} Hz")
        seconds, wire = len(pcm) / (2 * channels * rate), call.wire
        if seconds > MOST_S:
            raise ProtocolError(f"a piece of sound has at most {MOST_S:g} s")
        wire.heard_s += seconds
        if wire.heard_s > (monotonic() - call.began) * FASTER + MOST_S:
            wire.heard_s -= seconds
            call.flooded += 1
            return
        mono = _mono(pcm, channels)
        if rate != self.traits.rate:
            if wire.up is None or wire.up[0] != rate:
                wire.up = (rate, Resampler(rate, self.traits.rate))
            mono = wire.up[1].process(mono)
        assert wire.blocks is not None
        for block in wire.blocks.push(mono):
            self.take(call, block)

    async def put(self, call: LiveCall[_Out], frame: AudioFrame) -> None:
        out = call.wire
        if len(out.waiting) < MOST_WAITING:
            out.waiting.append(frame)
        if out.pacing is None or out.pacing.done():
            out.pacing = self._scope.spawn(self._pace(call), name="pace")

    async def _pace(self, call: LiveCall[_Out]) -> None:
        out = call.wire
        while out.waiting and not call.over:
            now = monotonic()
            ahead = out.until - now
            if ahead > LEAD_MS / 1000 - 0.0001:
                await asyncio.sleep(ahead - LEAD_MS / 1000 + 0.001)
                continue
            frame = out.waiting.popleft()
            out.until = max(out.until, now) + frame.duration_ms / 1000
            out.written += frame.samples
            out.wire.play(out.down.process(frame.pcm) if out.down is not None else frame.pcm)
            call.sound.confirm(call.sound.epoch, out.written)

    async def forget(self, call: LiveCall[_Out], epoch: int) -> None:
        call.wire.waiting.clear()
        call.wire.written = 0
        call.wire.wire.forget()

    async def leave(self, call: LiveCall[_Out]) -> None:
        call.wire.wire.leave()

    async def aclose(self) -> None:
        await super().aclose()
        await self._scope.aclose()


@dataclass(slots=True)
class _Meter:
    """Tells how loud a direction is, at most every `LEVEL_S`, and once that it has fallen silent."""

    at: float = 0.0
    last: float = 0.0

    def of(self, pcm: bytes) -> float | None:
        now = monotonic()
        if now - self.at < LEVEL_S:
            return None
        value = round(min(max(1 - dbfs(pcm)[0] / QUIET_DBFS, 0.0), 1.0), 3)
        if not value and not self.last:
            return None
        self.at, self.last = now, value
        return value


class RTVIBackend:
    """A `VoiceBackend` for `RTVIServer`: `VoiceChannel("voice", backend=RTVIBackend(), ...)`, and then
    `RTVIOptions(voice="voice")`.

    `rate` is that of its sound inside, in Hz: 16,000 suits recognisers, 24,000 sounds better. `player_rate` is what the
    clients' web socket transport plays; 24,000 unless the app says otherwise (`playerSampleRate`). `peers` takes those
    who come by WebRTC: `PeerBackend()` of `roomkit.providers.webrtc.peers`. Raises `ConfigError` for other rates."""

    entry: Literal["rtvi"] = "rtvi"

    def __init__(self, rate: int = 16_000, *, player_rate: int = 24_000, peers: PeerSound | None = None) -> None:
        if rate not in RATES or player_rate not in RATES:
            raise ConfigError(f"RTVIBackend takes rates of {_RATES} Hz, not {rate} and {player_rate}")
        self.traits = BackendTraits(rate=rate, native_aec=True, native_agc=True, native_noise_suppression=True)
        self.player_rate = player_rate
        self.sockets = SocketSound(self.traits, player_rate)
        self.peers = peers
        self._observers = Observers[BackendEvent]()
        self._meters: dict[str, tuple[Callable[[str, float], None], _Meter, _Meter]] = {}
        self.sockets.on_event(self._told)
        if peers is not None:
            peers.on_event(self._told)

    def pressed(self, session: VoiceSession, keys: str) -> None:
        """The client pressed keys."""
        for key in keys:
            self._told(BackendEvent("dtmf", session, DtmfDigit(key)))

    def meter(self, session: VoiceSession, told: Callable[[str, float], None]) -> None:
        """Tells how loud "user" and "bot" are, 0 to 1, until the call ends."""
        self._meters[session.id] = (told, _Meter(), _Meter())

    # -- VoiceBackend -------------------------------------------------------------------------------

    async def receive(self, session: VoiceSession) -> AsyncIterator[AudioFrame]:
        async for frame in self._of(session).receive(session):
            self._measure(session, "user", frame.pcm)
            yield frame

    async def send_audio(self, session: VoiceSession, frame: AudioFrame) -> None:
        await self._of(session).send_audio(session, frame)
        self._measure(session, "bot", frame.pcm)

    async def clear(self, session: VoiceSession) -> None:
        await self._of(session).clear(session)

    def played(self, session: VoiceSession) -> int:
        return self._of(session).played(session)

    def on_event(self, observer: Callable[[BackendEvent], None]) -> Callable[[], None]:
        return self._observers.join(observer)

    async def hang_up(self, session: VoiceSession) -> None:
        self._meters.pop(session.id, None)
        await self._of(session).hang_up(session)

    async def aclose(self) -> None:
        await self.sockets.aclose()
        if self.peers is not None:
            await self.peers.aclose()

    def _of(self, session: VoiceSession) -> VoiceBackend:
        if self.peers is not None and session.metadata.get("by") == "webrtc":
            return self.peers
        return self.sockets

    def _told(self, event: BackendEvent) -> None:
        if event.kind == "disconnected":
            self._meters.pop(event.session.id, None)
        self._observers.tell(event)

    def _measure(self, session: VoiceSession, who: str, pcm: bytes) -> None:
        found = self._meters.get(session.id)
        if found is not None:
            told, user, bot = found
            value = (user if who == "user" else bot).of(pcm)
            if value is not None:
                told(who, value)


def _mono(pcm: bytes, channels: int) -> bytes:
    if channels == 1:
        return pcm
    from roomkit.dsp.pcm import samples, to_pcm

    return to_pcm(samples(pcm).astype("float32").reshape(-1, 2).mean(axis=1))


def provider(_account: str | None = None, **options: Any) -> RTVIBackend:
    return RTVIBackend(**options)
