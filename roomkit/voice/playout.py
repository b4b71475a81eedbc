"""Playout: paces one call's outgoing audio, knows what has really been played, and falls silent within a frame.

It runs a little ahead of real time (`LEAD_MS`), so that a late turn of the loop is not heard, and keeps what it has
handed over until it is played: after a false alarm it goes on from exactly there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from roomkit.dsp.pcm import mix
from roomkit.errors import SessionEnded
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.ports.audio import VoiceBackend
from roomkit.runtime import Wakeup, monotonic
from roomkit.voice.pipeline import Pipeline

LEAD_MS = 80.0
LIVE_FRAMES = 5
"""What others on the line say is worth hearing within 100 ms; later it is dropped, the oldest first."""
AHEAD_MS = 4_000.0
"""How much speech may wait here; a synthesiser that is faster waits."""
_SOON_S = 0.0005
_LOST_MS = 1_500.0
"""A transport that has not confirmed the last sample by then has lost it."""


@dataclass(slots=True)
class _Piece:
    """One frame of one generation at the working rate; `end` counts the samples of its generation."""

    generation: int
    frame: AudioFrame
    end: int
    sent_end: int = 0
    """The transport's own count of samples once this frame is handed over."""


class Playout:
    """One call's way out. `put` frames of a generation in order, `finish` it; `pause`, `resume` and `stop` take effect
    at once, from any task. `run` is the pacing task."""

    def __init__(
        self,
        session: VoiceSession,
        backend: VoiceBackend,
        pipeline: Pipeline,
        *,
        moved: Callable[[int], None],
        played_out: Callable[[int], None],
    ) -> None:
        self._session = session
        self._backend = backend
        self._pipeline = pipeline
        self._moved = moved
        self._played_out = played_out
        self._waiting: deque[_Piece] = deque()
        self._sent: deque[_Piece] = deque()
        self._count = 0
        """Samples handed to the transport, at its rate."""
        self._ends: dict[int, int] = {}
        self._finished: set[int] = set()
        self._heard: dict[int, int] = {}
        self._samples = 0
        self._live: deque[AudioFrame] = deque(maxlen=LIVE_FRAMES)
        self._paused = False
        self._clearing = False
        self._clock_at = 0.0
        self._clock_sent = 0
        self._wake = Wakeup()
        self._room = asyncio.Event()
        self._room.set()
        self._sent_all = asyncio.Event()
        self._sent_all.set()

    # -- what goes in -----------------------------------------------------------------------------------------------

    async def put(self, generation: int, frame: AudioFrame) -> None:
        """Adds a frame at the working rate; waits while enough waits already. Nothing is taken of a generation that was
        stopped or finished."""
        await self._room.wait()
        if generation in self._finished:
            return
        end = self._ends.get(generation, 0) + frame.samples
        self._ends[generation] = end
        self._waiting.append(_Piece(generation, frame, end))
        self._sent_all.clear()
        self._measure(frame.samples)
        self._wake.set()

    def live(self, frame: AudioFrame) -> None:
        """What others on the line say just now: under a reply that is being spoken, or by itself. Never waits, and is
        not interrupted."""
        self._live.append(frame)
        self._wake.set()

    def finish(self, generation: int) -> None:
        """Nothing more comes of this generation: `played_out` is told when its last sample has sounded."""
        self._finished.add(generation)
        self._wake.set()

    def stop(self, generation: int) -> int:
        """Silences a generation for good; how many of its samples had been played."""
        self._note_played()
        heard = self._heard.pop(generation, 0)
        self._finished.add(generation)
        self._ends.pop(generation, None)
        silenced = any(piece.generation == generation for piece in self._sent)
        if silenced:
            self._take_back()
        self._waiting = deque(piece for piece in self._waiting if piece.generation != generation)
        self._paused = False
        self._measure()
        self._wake.set()
        return heard

    def heard(self, generation: int) -> int:
        """How many of its samples have been played."""
        return self._heard.get(generation, 0)

    def pause(self) -> None:
        """Falls silent and keeps what has not been played."""
        if self._paused:
            return
        self._note_played()
        self._paused = True
        self._take_back()

    def resume(self) -> None:
        self._paused = False
        self._wake.set()

    def played(self, generation: int) -> int:
        """Samples of this generation, at the working rate, that have sounded."""
        self._note_played()
        return self._heard.get(generation, 0)

    @property
    def active(self) -> bool:
        return bool(self._waiting or self._sent)

    async def sent(self) -> None:
        """Waits until everything has been handed to the transport (which is before its echo has died away)."""
        await self._sent_all.wait()

    # -- the pacing -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hands frames over at the pace of sound until the call ends."""
        while True:
            if self._clearing:
                self._clearing = False
                await self._backend.clear(self._session)
                self._clock_sent = 0
                self._count = self._backend.played(self._session)
                continue
            speech = bool(self._waiting) and not self._paused
            if not speech and not self._live:
                if not self._waiting:
                    self._sent_all.set()
                await self._idle()
                continue
            delay = self._due()
            if delay > _SOON_S:
                await asyncio.sleep(delay)
                self._note_played()
                continue
            piece = self._waiting.popleft() if speech else _Piece(0, self._live.popleft(), 0)
            if not await self._send(piece, under=speech):
                return

    async def _send(self, piece: _Piece, *, under: bool) -> bool:
        """`under` lets the live line be heard beneath the frame."""
        sound = piece.frame
        if under and self._live:
            both = (sound.pcm, self._live.popleft().pcm)
            if len(both[0]) == len(both[1]):
                sound = AudioFrame(mix(both), sound.rate, sound.position)
        frame = self._pipeline.to_transport(sound)
        self._count += frame.samples
        self._clock_sent += frame.samples
        piece.sent_end = self._count
        self._sent.append(piece)
        if piece.generation:
            self._measure(-piece.frame.samples)
        self._pipeline.played(sound)
        try:
            await self._backend.send_audio(self._session, frame)
        except SessionEnded:
            self._sent_all.set()
            return False
        self._note_played()
        return True

    def _due(self) -> float:
        """Seconds until the next frame may go: sound runs at its own pace, and a pause begins the count anew."""
        now = monotonic()
        ahead = self._clock_at + self._clock_sent / self._session.rate - now
        if not self._clock_sent or ahead < -LEAD_MS / 1000:
            self._clock_at, self._clock_sent, ahead = now, 0, 0.0
        return ahead - LEAD_MS / 1000

    async def _idle(self) -> None:
        """Until something is put in; meanwhile the last samples are awaited."""
        began = monotonic()
        while not self._clearing and not self._live and (self._paused or not self._waiting):
            self._note_played()
            if not self._sent or self._paused:
                await self._wake.wait()
                began = monotonic()
                continue
            if monotonic() - began > (LEAD_MS + _LOST_MS) / 1000:
                self._heard_all()
                continue
            await asyncio.sleep(0.02)

    def _note_played(self) -> None:
        """Takes over from the transport what has sounded by now, and tells what came of it."""
        played = self._backend.played(self._session)
        moved = 0
        while self._sent and self._sent[0].sent_end <= played:
            piece = self._sent.popleft()
            if piece.generation:  # 0 is the live line's
                self._heard[piece.generation] = piece.end
                moved = piece.generation
        if moved:
            self._moved(moved)
        self._tell_ended()

    def _heard_all(self) -> None:
        while self._sent:
            piece = self._sent.popleft()
            self._heard[piece.generation] = piece.end
        self._tell_ended()

    def _tell_ended(self) -> None:
        busy = {piece.generation for piece in (*self._sent, *self._waiting)} if self._finished else set[int]()
        for generation in [g for g in self._finished if g not in busy and g in self._ends]:
            del self._ends[generation]
            self._played_out(generation)

    def _take_back(self) -> None:
        """What the transport has not played is to be played later, if at all; the transport forgets it."""
        self._waiting.extendleft(piece for piece in reversed(self._sent) if piece.generation)
        self._sent.clear()
        self._measure()
        self._clearing = True
        self._wake.set()

    def _measure(self, more: int | None = None) -> None:
        """Counts what waits: by what came or went, or anew."""
        if more is None:
            self._samples = sum(piece.frame.samples for piece in self._waiting)
        else:
            self._samples += more
        (self._room.clear if self._samples > AHEAD_MS * self._pipeline.rate / 1000 else self._room.set)()
