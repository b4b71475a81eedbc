"""Mouth: everything that one call is to be told, one utterance after another, and how much of each was heard."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from roomkit.errors import ProviderError
from roomkit.models.audio import AudioFrame, AudioSignal
from roomkit.runtime import BufferClosed, CoalescingBuffer, Scope
from roomkit.voice.ledger import HeardText
from roomkit.voice.speaker import Speaker

if TYPE_CHECKING:
    from roomkit.voice.pipeline import Pipeline
    from roomkit.voice.playout import Playout

log = logging.getLogger(__name__)
MOST_WAITING = 32
_MOST_TEXT = 1_000_000


def _joined(last: str, new: str) -> str:
    return last + new


def _buffer() -> CoalescingBuffer[str]:
    return CoalescingBuffer(_MOST_TEXT, merge=_joined, size=len)


@dataclass(eq=False, slots=True)
class Utterance:
    """Something to be said: a reply that may still be written, or a text. `event_id` is its event in the room, None for
    what is not written down. `frames` instead of text plays a sound."""

    source: str
    event_id: str | None = None
    text: CoalescingBuffer[str] = field(default_factory=_buffer)
    frames: AsyncIterator[AudioFrame] | None = None
    generation: int = 0
    speaker: Speaker | None = None
    task: asyncio.Task[None] | None = None
    before: int = 0
    """Samples of its generation that were played before it: a filler's."""
    withdrawn: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """It was played out or stopped, or will never be said."""
    failed_at: int | None = None
    """Samples of its own that the synthesiser had made when it gave up; what is played after them is the clip."""

    def write(self, delta: str) -> None:
        self.text.offer(delta)

    def close(self) -> None:
        self.text.close()

    async def deltas(self) -> AsyncIterator[str]:
        while True:
            try:
                yield await self.text.take()
            except BufferClosed:
                return


class Mouth:
    """`ended(generation, spoke)` hears that everything of a generation is in the playout; `failed` of a synthesiser
    that gave up. `speaker_for(utterance, put)` makes what turns it into sound. `clip` is played where a voice fails."""

    def __init__(
        self,
        playout: Playout,
        pipeline: Pipeline,
        scope: Scope,
        *,
        speaker_for: Callable[[Utterance, Callable[[AudioFrame], Awaitable[None]]], Speaker],
        ended: Callable[[int, bool], None],
        failed: Callable[[Exception], None],
        noticed: Callable[[AudioSignal], None],
        clip: Callable[[], AsyncIterator[AudioFrame]] | None = None,
    ) -> None:
        self._playout = playout
        self._pipeline = pipeline
        self._scope = scope
        self._speaker_for = speaker_for
        self._ended = ended
        self._failed = failed
        self._noticed = noticed
        self._clip = clip
        self._put: dict[int, int] = {}
        self._filling: asyncio.Task[None] | None = None
        self.waiting: deque[Utterance] = deque()
        self.current: Utterance | None = None

    def add(self, utterance: Utterance) -> bool:
        """Queues something to be said when the call is free; False when too much waits already."""
        if len(self.waiting) >= MOST_WAITING:
            return False
        self.waiting.append(utterance)
        return True

    def begin(self, utterance: Utterance, generation: int) -> None:
        """Says it now, as this generation."""
        utterance.generation = generation
        self.current = utterance
        utterance.task = self._scope.spawn(self._say(utterance), name="speak")

    def fill(self, utterance: Utterance, generation: int) -> None:
        """Says a few words in front of a reply that is late."""
        utterance.generation = generation
        self._filling = self._scope.spawn(self._fill(utterance), name="filler")

    def stop(self, generation: int) -> tuple[Utterance | None, HeardText]:
        """Silences a generation at once: what was said in it, and how much of it was heard."""
        samples = self._playout.stop(generation)
        self._put.pop(generation, None)
        if self._filling is not None:
            self._filling.cancel()
        utterance = self.current
        if utterance is None or utterance.generation != generation:
            return None, HeardText("", 0.0)
        self.drop()
        if utterance.task is not None:
            utterance.task.cancel()
        return utterance, self._heard(utterance, samples)

    def played_out(self, generation: int) -> Utterance | None:
        """Its last sample has sounded."""
        self._put.pop(generation, None)
        utterance = self.current
        if utterance is None or utterance.generation != generation:
            return None
        self.drop()
        return utterance

    def drop(self) -> None:
        """Nothing is being said any more."""
        if self.current is not None:
            self.current.over.set()
        self.current = None

    def close(self) -> None:
        """The call is over: what waits will never be said."""
        while self.waiting:
            self.waiting.popleft().over.set()
        self.drop()

    @staticmethod
    def heard_of(utterance: Utterance) -> HeardText:
        """Of one that has been played out: all of it, or what there was when its voice failed."""
        if utterance.speaker is None or utterance.failed_at is None:
            return HeardText("", 1.0)
        return utterance.speaker.ledger.heard(utterance.failed_at)

    @staticmethod
    def _heard(utterance: Utterance, samples: int) -> HeardText:
        if utterance.speaker is None:
            return HeardText("", 0.0)
        own = samples - utterance.before
        return utterance.speaker.ledger.heard(own if utterance.failed_at is None else min(own, utterance.failed_at))

    async def _fill(self, utterance: Utterance) -> None:
        try:
            await self._speaker(utterance).speak(utterance.deltas())
        except ProviderError as error:
            self._failed(error)

    async def _say(self, utterance: Utterance) -> None:
        generation = utterance.generation
        try:
            if self._filling is not None and not self._filling.done():
                await asyncio.wait([self._filling])
            utterance.before = self._put.get(generation, 0)
            if utterance.frames is not None:
                await self._play(generation, utterance.frames)
            else:
                await self._speaker(utterance).speak(utterance.deltas())
        except ProviderError as error:
            self._failed(error)
            utterance.failed_at = self._put.get(generation, 0) - utterance.before
            if self._clip is not None:
                await self._play(generation, self._clip())
        if self.current is utterance:
            spoke = self._put.get(generation, 0) > 0
            self._playout.finish(generation)
            self._ended(generation, spoke)

    async def _play(self, generation: int, sound: AsyncIterator[AudioFrame]) -> None:
        async with aclosing(cast("Any", sound)) as frames:
            async for frame in frames:
                await self._frame(generation, frame)

    def _speaker(self, utterance: Utterance) -> Speaker:
        async def put(frame: AudioFrame) -> None:
            await self._frame(utterance.generation, frame)

        utterance.speaker = self._speaker_for(utterance, put)
        return utterance.speaker

    async def _frame(self, generation: int, frame: AudioFrame) -> None:
        ready, signals = self._pipeline.outbound(frame)
        for signal in signals:
            self._noticed(signal)
        if ready is not None:
            self._put[generation] = self._put.get(generation, 0) + ready.samples
            await self._playout.put(generation, ready)
