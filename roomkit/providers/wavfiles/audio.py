"""WavBackend: a recorded caller. What is played to the caller is kept, and written as a WAV file when the call ends."""

from __future__ import annotations

import asyncio
import wave
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from roomkit.dsp.pcm import silence
from roomkit.dsp.sound import read_wav
from roomkit.errors import SessionEnded
from roomkit.models.audio import FRAME_MS, AudioFrame, VoiceSession
from roomkit.ports.audio import BackendEvent, BackendTraits
from roomkit.runtime import monotonic
from roomkit.runtime.observers import Observers


@dataclass(eq=False, slots=True)
class _Call:
    session: VoiceSession
    pcm: bytes
    out: Path | None
    linger_s: float
    began: float
    heard: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])
    queue: deque[tuple[float, AudioFrame]] = field(default_factory=deque[tuple[float, AudioFrame]])
    free_at: float = 0.0
    played: int = 0
    stays_until: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)


class WavBackend:
    """A `VoiceBackend` that plays files to a room at the pace of sound, under whatever clock its loop has.

    After its file a caller stays on the line, silent, until nothing has been played to it for `linger_s` seconds, nor
    within the time that `stay` asked for.
    """

    def __init__(self, *, rate: int = 16_000, linger_s: float = 4.0) -> None:
        self.traits = BackendTraits(rate=rate)
        self._linger_s = linger_s
        self._calls: dict[str, _Call] = {}
        self._observers = Observers[BackendEvent]()

    def call(
        self, path: str | Path, *, out: str | Path | None = None, session_id: str = "", participant_id: str = "caller"
    ) -> VoiceSession:
        """A caller who says what is in `path`; what it hears goes to `out`: stereo, the caller left, the room right.
        Reads the whole file, in a blocking way."""
        rate = self.traits.rate
        session = VoiceSession(session_id or f"wav-{len(self._calls) + 1}", participant_id=participant_id, rate=rate)
        pcm = read_wav(path, rate)
        target = Path(out) if out is not None else None
        self._calls[session.id] = _Call(session, pcm, target, self._linger_s, monotonic())
        return session

    async def receive(self, session: VoiceSession) -> AsyncIterator[AudioFrame]:
        call = self._calls.get(session.id)
        if call is None:
            return
        size = self.traits.rate * FRAME_MS // 1000
        call.began = monotonic()
        position = 0
        while not call.over.is_set():
            delay = call.began + position / self.traits.rate - monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            chunk = call.pcm[position * 2 : (position + size) * 2]
            if not chunk and self._done(call):
                call.over.set()
                self._observers.tell(BackendEvent("disconnected", session))
                return
            if session.listen_only:
                chunk = b""
            yield AudioFrame(chunk + silence(size - len(chunk) // 2), self.traits.rate, position)
            position += size

    def stay(self, session: VoiceSession, seconds: float) -> None:
        """The caller waits for an answer: `seconds` from now, and `linger_s` after them; said again it counts anew, so
        that 0 ends the waiting."""
        if (call := self._calls.get(session.id)) is not None:
            call.stays_until = monotonic() + seconds

    def _done(self, call: _Call) -> bool:
        self._play(call)
        last = max(call.began + len(call.pcm) / 2 / self.traits.rate, call.free_at, call.stays_until)
        return monotonic() - last > call.linger_s

    async def send_audio(self, session: VoiceSession, frame: AudioFrame) -> None:
        call = self._calls.get(session.id)
        if call is None or call.over.is_set():
            raise SessionEnded(f"call {session.id} is over")
        start = max(call.free_at, monotonic())
        call.free_at = start + frame.duration_ms / 1000
        call.queue.append((start, frame))

    async def clear(self, session: VoiceSession) -> None:
        call = self._calls.get(session.id)
        if call is not None:
            self._play(call)
            call.queue.clear()
            call.free_at = monotonic()

    def played(self, session: VoiceSession) -> int:
        call = self._calls.get(session.id)
        if call is None:
            return 0
        self._play(call)
        return call.played

    def _play(self, call: _Call) -> None:
        now = monotonic()
        while call.queue and call.queue[0][0] + call.queue[0][1].duration_ms / 1000 <= now + 1e-9:
            start, frame = call.queue.popleft()
            call.played += frame.samples
            if call.out is not None:
                call.heard.append((int((start - call.began) * self.traits.rate), frame.pcm))

    def on_event(self, observer: Callable[[BackendEvent], None]) -> Callable[[], None]:
        return self._observers.join(observer)

    async def hang_up(self, session: VoiceSession) -> None:
        call = self._calls.pop(session.id, None)
        if call is None:
            return
        call.over.set()
        self._play(call)
        if call.out is not None:
            await asyncio.to_thread(_write, call.out, call.pcm, call.heard, self.traits.rate)

    async def aclose(self) -> None:
        for call in tuple(self._calls.values()):
            await self.hang_up(call.session)


def _write(path: Path, said: bytes, heard: list[tuple[int, bytes]], rate: int) -> None:
    length = max([len(said) // 2, *(at + len(pcm) // 2 for at, pcm in heard)])
    both = np.zeros((length, 2), dtype="<i2")
    both[: len(said) // 2, 0] = np.frombuffer(said, "<i2")
    for at, pcm in heard:
        both[at : at + len(pcm) // 2, 1] = np.frombuffer(pcm, "<i2")
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(both.tobytes())


def provider(_account: str | None = None, **options: Any) -> WavBackend:
    return WavBackend(**options)
