"""Calls without sound cards: a caller who speaks by script, under virtual time, and remembers what was heard.

A caller's speech is a script of (text, start, length); its samples carry the number of the text, so that the recogniser
of the house (`ScriptedSTT`) knows what was said, and when. What the kit says is made by `ScriptedTTS` at a fixed number
of characters a second, each utterance with samples of its own, so that a test can tell from the line alone which one
sounded when. The line plays in real time of its loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from roomkit.errors import SessionEnded
from roomkit.models.audio import (
    FRAME_MS,
    AudioFrame,
    AudioSignal,
    DtmfDigit,
    SessionState,
    SpeechEnded,
    SpeechStarted,
    SpokenText,
    Transcript,
    VoiceSession,
)
from roomkit.ports.audio import BackendEvent, BackendTraits
from roomkit.runtime import monotonic
from roomkit.runtime.observers import Observers

RATE = 16_000
FRAME = RATE * FRAME_MS // 1000


def _tone(value: int, samples: int) -> bytes:
    return value.to_bytes(2, "little", signed=True) * samples


@dataclass(slots=True)
class Played:
    """One stretch of sound at the caller's ear, in ms from the start of the call."""

    value: int
    start_ms: float
    end_ms: float


@dataclass(eq=False)
class _Line:
    session: VoiceSession
    began: float
    speech: list[tuple[int, float, float]] = field(default_factory=list[tuple[int, float, float]])
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    queue: deque[tuple[float, AudioFrame]] = field(default_factory=deque[tuple[float, AudioFrame]])
    free_at: float = 0.0
    done: int = 0
    heard: list[Played] = field(default_factory=list[Played])


class ScriptedBackend:
    """A `VoiceBackend` whose callers follow a script. `clear_ms` is how long the far end takes to obey `clear`."""

    def __init__(self, *, clear_ms: float = 0.0) -> None:
        self.traits = BackendTraits(rate=RATE)
        self.clears = 0
        self._clear_ms = clear_ms
        self._lines: dict[str, _Line] = {}
        self._observers = Observers[BackendEvent]()
        self._texts: list[str] = [""]

    def call(self, session_id: str = "call-1", *, participant_id: str = "caller") -> VoiceSession:
        """A new call; its script begins now."""
        session = VoiceSession(session_id, participant_id=participant_id, rate=RATE)
        self._lines[session_id] = _Line(session, monotonic())
        return session

    def speaks(self, session: VoiceSession, text: str, at_ms: float, for_ms: float) -> None:
        """The caller says `text` from `at_ms` of the call, for `for_ms`; "" is a noise without words."""
        self._texts.append(text)
        self._lines[session.id].speech.append((len(self._texts) - 1, at_ms, at_ms + for_ms))

    def text_of(self, value: int) -> str:
        return self._texts[value] if 0 <= value < len(self._texts) else ""

    def heard(self, session: VoiceSession) -> list[Played]:
        """What has sounded at the caller's ear so far, neighbouring sounds of one value joined."""
        line = self._lines[session.id]
        self._play(line)
        return list(line.heard)

    # -- VoiceBackend -------------------------------------------------------------------------------

    async def receive(self, session: VoiceSession) -> AsyncIterator[AudioFrame]:
        line = self._lines[session.id]
        number = 0
        while not line.ended.is_set():
            at_ms = number * FRAME_MS
            delay = line.began + at_ms / 1000 - monotonic()
            if delay > 0:
                try:
                    async with asyncio.timeout(delay):
                        await line.ended.wait()
                    return
                except TimeoutError:
                    pass
            value = next((v for v, start, end in line.speech if start <= at_ms < end), 0)
            yield AudioFrame(_tone(value, FRAME), RATE, number * FRAME)
            number += 1

    async def send_audio(self, session: VoiceSession, frame: AudioFrame) -> None:
        line = self._lines[session.id]
        if line.ended.is_set():
            raise SessionEnded(f"call {session.id} is over")
        now = monotonic()
        line.free_at = max(line.free_at, now) + frame.duration_ms / 1000
        line.queue.append((line.free_at, frame))

    async def clear(self, session: VoiceSession) -> None:
        line = self._lines[session.id]
        self.clears += 1
        if self._clear_ms:
            await asyncio.sleep(self._clear_ms / 1000)
        self._play(line)
        line.queue.clear()
        line.free_at = monotonic()

    def played(self, session: VoiceSession) -> int:
        line = self._lines[session.id]
        self._play(line)
        return line.done

    def on_event(self, observer: Callable[[BackendEvent], None]) -> Callable[[], None]:
        return self._observers.join(observer)

    async def hang_up(self, session: VoiceSession) -> None:
        line = self._lines.get(session.id)
        if line is not None:
            line.ended.set()

    def presses(self, session: VoiceSession, key: str) -> None:
        """The caller presses a key, now."""
        self._observers.tell(BackendEvent("dtmf", session, DtmfDigit(key)))

    def disconnects(self, session: VoiceSession) -> None:
        """The far end goes away."""
        self._lines[session.id].ended.set()
        self._observers.tell(BackendEvent("disconnected", session))

    async def aclose(self) -> None:
        for line in self._lines.values():
            line.ended.set()

    @staticmethod
    def _play(line: _Line) -> None:
        now = monotonic()
        while line.queue and line.queue[0][0] <= now + 1e-9:
            end, frame = line.queue.popleft()
            line.done += frame.samples
            value = int.from_bytes(frame.pcm[:2], "little", signed=True)
            end_ms = (end - line.began) * 1000
            start_ms = end_ms - frame.duration_ms
            last = line.heard[-1] if line.heard else None
            if last is not None and last.value == value and start_ms - last.end_ms < 1:
                last.end_ms = end_ms
            else:
                line.heard.append(Played(value, start_ms, end_ms))


class ScriptedVad:
    """A stage that hears speech in every sample that is not zero. `make` fits `AudioPipelineConfig.vad`."""

    name = "vad"

    def __init__(self, rate: int, *, end_ms: float = 500.0, start_ms: float = 60.0) -> None:
        self._rate = rate
        self._start = int(start_ms / FRAME_MS)
        self._end = int(end_ms / FRAME_MS)
        self._loud: deque[bytes] = deque(maxlen=max(self._start, 1))
        self._quiet = 0
        self._speech = False
        self._began = 0

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        loud = any(frame.pcm[:2])
        if not self._speech:
            if not loud:
                self._loud.clear()
                return frame, ()
            self._loud.append(frame.pcm)
            if len(self._loud) < self._start:
                return frame, ()
            self._speech, self._quiet, self._began = True, 0, frame.position
            return frame, (SpeechStarted(frame.position, b"".join(tuple(self._loud)[:-1])),)
        self._quiet = 0 if loud else self._quiet + 1
        if self._quiet < self._end:
            return frame, ()
        self._speech = False
        self._loud.clear()
        silence = self._quiet * float(FRAME_MS)
        spoken = (frame.position - self._began) / self._rate * 1000 - silence
        return frame, (SpeechEnded(frame.position, silence, spoken),)

    def reset(self) -> None:
        self._speech = False


class ScriptedSTT:
    """Knows from the samples what was said. It tells a partial transcript per word while the caller speaks, and the
    final one `delay_ms` after the segment has ended."""

    streaming = True
    rate = RATE

    def __init__(self, backend: ScriptedBackend, *, delay_ms: float = 100.0, partials: bool = True) -> None:
        self._backend = backend
        self._delay_ms = delay_ms
        self._partials = partials

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], *, language: str | None = None, call: str | None = None
    ) -> AsyncIterator[Transcript]:
        heard: list[int] = []
        told = 0
        async for frame in frames:
            for at in range(0, len(frame.pcm), FRAME * 2):
                value = int.from_bytes(frame.pcm[at : at + 2], "little", signed=True)
                if value and value not in heard:
                    heard.append(value)
            words = self._text(heard).split()
            if self._partials and words and told < len(words) and frame.position // FRAME % 10 == 9:
                told += 1
                yield Transcript(" ".join(words[:told]), final=False)
        await asyncio.sleep(self._delay_ms / 1000)
        yield Transcript(self._text(heard), final=True, language=language)

    def _text(self, heard: list[int]) -> str:
        return " ".join(text for value in heard if (text := self._backend.text_of(value)))

    async def aclose(self) -> None: ...


class ScriptedTTS:
    """Speaks `chars_per_s` characters a second, its first sound after `first_ms`, `speed` times faster than real time.
    Each utterance has samples of its own value, from 1,001 on; `said` has their texts."""

    streaming_input = False
    rate = RATE

    def __init__(self, *, chars_per_s: float = 15.0, first_ms: float = 100.0, speed: float = 10.0) -> None:
        self.said: list[str] = []
        self._chars_per_s = chars_per_s
        self._first_ms = first_ms
        self._speed = speed

    async def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncIterator[SpokenText]:
        whole = "".join([part async for part in text])
        self.said.append(whole)
        value = 1_000 + len(self.said)
        await asyncio.sleep(self._first_ms / 1000)
        count = max(round(len(whole) / self._chars_per_s * 1000 / FRAME_MS), 1)
        for number in range(count):
            yield SpokenText(AudioFrame(_tone(value, FRAME), RATE, number * FRAME))
            await asyncio.sleep(FRAME_MS / 1000 / self._speed)

    async def aclose(self) -> None: ...


def ended(session: VoiceSession) -> bool:
    return session.state is SessionState.ENDED
