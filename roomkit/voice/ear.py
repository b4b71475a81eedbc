"""Ear: one caller's audio to a recogniser, segment by segment, in all three modes (S89-S92)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

from roomkit.dsp.resample import Resampler
from roomkit.errors import ProviderError
from roomkit.models.audio import AudioFrame, Transcript
from roomkit.ports.speech import STT
from roomkit.runtime import BufferClosed, DropOldestBuffer, Scope

log = logging.getLogger(__name__)
_calls = itertools.count(1)
MOST_FRAMES = 3_000
"""A minute of 20 ms frames: a recogniser that is further behind loses the oldest."""


class Segment:
    """One piece of speech on its way to the recogniser. `told` hears partial transcripts, `done` exactly once the whole
    of it: an empty text when nothing was recognised, or the recogniser failed."""

    def __init__(
        self, ear: Ear, language: str | None, told: Callable[[Transcript], None], done: Callable[[Transcript], None]
    ) -> None:
        self._ear = ear
        self._language = language
        self._told = told
        self._done = done
        self._frames: DropOldestBuffer[AudioFrame] = DropOldestBuffer(MOST_FRAMES)
        self._position = 0
        self._resampler = Resampler(ear.rate, ear.stt.rate) if ear.rate != ear.stt.rate else None

    def push(self, pcm: bytes) -> None:
        if self._resampler is not None:
            pcm = self._resampler.process(pcm)
        if pcm:
            self._frames.push(AudioFrame(pcm, self._ear.stt.rate, self._position))
            self._position += len(pcm) // 2

    def end(self) -> None:
        """Nothing more comes; the recogniser tells what it has."""
        self._frames.close()

    @property
    def dropped(self) -> int:
        return self._frames.stats.dropped

    async def _heard(self) -> AsyncIterator[AudioFrame]:
        while True:
            try:
                yield await self._frames.get()
            except BufferClosed:
                return

    async def run(self) -> None:
        texts: list[str] = []
        last: Transcript | None = None
        try:
            transcripts = self._ear.stt.transcribe(self._heard(), language=self._language, call=self._ear.call)
            async with aclosing(cast("Any", transcripts)) as stream:
                async for transcript in stream:
                    if transcript.final:
                        last = transcript
                        if transcript.text.strip():
                            texts.append(transcript.text.strip())
                        if transcript.endpoint and self._ear.continuous:
                            self._done(_joined(texts, last))
                            texts, last = [], None
                    else:
                        self._told(_joined([*texts, transcript.text.strip()], transcript))
        except ProviderError as error:
            self._ear.failed(error)
        finally:
            self._frames.close()
            if not self._ear.continuous or texts:
                self._done(_joined(texts, last))


def _joined(texts: list[str], last: Transcript | None) -> Transcript:
    text = " ".join(texts)
    if last is None:
        return Transcript(text)
    return Transcript(text, final=last.final, language=last.language, confidence=last.confidence, end_ms=last.end_ms)


class Ear:
    """The recogniser of one call at the pipeline's rate. `continuous` hears everything as one endless segment and takes
    its ends from the recogniser."""

    def __init__(
        self, stt: STT, rate: int, scope: Scope, *, continuous: bool, failed: Callable[[Exception], None]
    ) -> None:
        self.stt = stt
        self.rate = rate
        self.continuous = continuous
        self.failed = failed
        self.call = f"call-{next(_calls)}"
        """Its segments belong together: a recogniser may remember how the line sounds."""
        self._scope = scope

    def begin(
        self, *, language: str | None, told: Callable[[Transcript], None], done: Callable[[Transcript], None]
    ) -> Segment:
        segment = Segment(self, language, told, done)
        self._scope.spawn(segment.run(), name="recognise")
        return segment

    async def once(self, pcm: bytes, language: str | None) -> str:
        """Batch: everything at once. Raises `ProviderError`."""
        found: list[Transcript] = []
        segment = Segment(self, language, lambda _: None, found.append)
        segment.push(pcm)
        segment.end()
        await segment.run()
        return found[0].text if found else ""
