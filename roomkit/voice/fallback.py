"""A second provider where the first fails, within the same utterance: nothing said is lost or written twice."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

from roomkit.dsp.resample import Resampler
from roomkit.errors import ConfigError, ProviderError, Refused, Unavailable
from roomkit.models.audio import AudioFrame, SpokenText, Transcript
from roomkit.net.breaker import BreakerOpen, BreakerOptions, Breakers, BreakerState
from roomkit.ports.speech import STT, TTS
from roomkit.runtime import BlockingBuffer, BufferClosed, Scope

log = logging.getLogger(__name__)
KEPT_S = 60.0
"""How much audio is kept for the next recogniser; of more, the oldest is lost to it."""


def name_of(part: object) -> str:
    return str(getattr(part, "name", type(part).__name__))


class _Order:
    """Which provider is asked, and what the breakers remember of each."""

    def __init__(self, parts: tuple[Any, ...], breaker: BreakerOptions | None) -> None:
        if len(parts) < 2:
            raise ConfigError("a fallback needs at least two providers: the first and the one to fall back to")
        self.parts = parts
        # Few failures: each of them was a caller who waited.
        self.breakers = Breakers(breaker or BreakerOptions(failures=2, open_s=30.0))

    def key(self, at: int) -> str:
        return f"{at}:{name_of(self.parts[at])}"

    def is_open(self, at: int) -> bool:
        """Whether it is not asked now. The last one always is: there is nobody else."""
        return at < len(self.parts) - 1 and self.breakers.state(self.key(at)) is BreakerState.OPEN

    def failed(self, at: int, error: ProviderError) -> None:
        if not isinstance(error, Refused):  # it may well take what others say
            try:
                self.breakers.acquire(self.key(at)).failed(Unavailable(error.provider, "it failed"))
            except BreakerOpen:
                pass  # known already
        if at < len(self.parts) - 1:
            log.warning("%s failed and %s takes over: %s", name_of(self.parts[at]), name_of(self.parts[at + 1]), error)

    def succeeded(self, at: int) -> None:
        self.breakers.reset(self.key(at))

    async def each(self, method: str) -> None:
        for part in self.parts:
            call = cast("Callable[[], Awaitable[None]] | None", getattr(part, method, None))
            if call is not None:
                await call()


class FallbackSTT:
    """An `STT` of several, asked in this order. When one fails, the next hears everything since the last final
    transcript again, and then goes on live. One that failed twice in a row is left out for half a minute.

    The callers give audio at the first one's rate; it is resampled for the others."""

    def __init__(self, *recognisers: STT, breaker: BreakerOptions | None = None) -> None:
        self._order = _Order(recognisers, breaker)
        self._recognisers = recognisers
        self.name = " or ".join(map(name_of, recognisers))

    @property
    def streaming(self) -> bool:
        return self._recognisers[0].streaming

    @property
    def rate(self) -> int:
        return self._recognisers[0].rate

    async def start(self) -> None:
        await self._order.each("start")

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], *, language: str | None = None, call: str | None = None
    ) -> AsyncGenerator[Transcript]:
        kept = _Kept(self.rate)
        async with Scope("fallback") as scope:
            gathering = scope.spawn(kept.gather(frames), name="gather audio", awaited=True)
            for at, recogniser in enumerate(self._recognisers):
                if self._order.is_open(at):
                    continue
                start_ms = kept.start_ms
                stream = recogniser.transcribe(kept.replayed(recogniser.rate), language=language, call=call)
                try:
                    async with aclosing(cast("Any", stream)) as heard:
                        async for transcript in heard:
                            self._order.succeeded(at)
                            shifted = _shifted(transcript, start_ms)
                            if transcript.final:
                                kept.confirm(shifted.end_ms)
                            yield shifted
                    await gathering
                    return
                except ProviderError as failure:
                    self._order.failed(at, failure)
                    if at == len(self._recognisers) - 1:
                        raise

    async def aclose(self) -> None:
        await self._order.each("aclose")


class _Kept:
    """The audio of one stream since the last final transcript, and a way to hear it again from there."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._frames: deque[AudioFrame] = deque()
        self._seconds = 0.0
        self._live: BlockingBuffer[AudioFrame] | None = None
        self._ended = False
        self._end_ms = 0.0
        self.start_ms = 0.0

    async def gather(self, frames: AsyncIterator[AudioFrame]) -> None:
        try:
            async for frame in frames:
                self._frames.append(frame)
                self._end_ms += frame.duration_ms
                while self._end_ms - self.start_ms > KEPT_S * 1000:
                    self._drop()
                if self._live is not None:
                    try:
                        await self._live.put(frame)
                    except BufferClosed:
                        pass  # the next recogniser finds it among the kept ones
        finally:
            self._ended = True
            if self._live is not None:
                self._live.close()

    def replayed(self, rate: int) -> AsyncIterator[AudioFrame]:
        """Everything kept, then what comes. Whoever listened before gets no more."""
        if self._live is not None:
            self._live.clear()
            self._live.close()
        live: BlockingBuffer[AudioFrame] = BlockingBuffer(100)
        self._live = live
        again = tuple(self._frames)
        if self._ended:
            live.close()
        return self._play(again, live, rate)

    def confirm(self, end_ms: float | None) -> None:
        """A final transcript covers the audio up to `end_ms`; one that tells no time, everything so far."""
        end_ms = self._end_ms if end_ms is None else end_ms
        while self._frames and self.start_ms + self._frames[0].duration_ms <= end_ms + 0.5:
            self._drop()

    def _drop(self) -> None:
        self.start_ms += self._frames.popleft().duration_ms

    async def _play(
        self, again: tuple[AudioFrame, ...], live: BlockingBuffer[AudioFrame], rate: int
    ) -> AsyncIterator[AudioFrame]:
        resampler = Resampler(self._rate, rate)
        position = 0

        def made(frame: AudioFrame) -> AudioFrame:
            return AudioFrame(resampler.process(frame.pcm), rate, position)

        for frame in again:
            out = made(frame)
            position = out.end
            yield out
        while True:
            try:
                frame = await live.get()
            except BufferClosed:
                return
            out = made(frame)
            position = out.end
            yield out


def _shifted(transcript: Transcript, by_ms: float) -> Transcript:
    if not by_ms:
        return transcript
    return Transcript(
        transcript.text,
        final=transcript.final,
        language=transcript.language,
        confidence=transcript.confidence,
        start_ms=None if transcript.start_ms is None else transcript.start_ms + by_ms,
        end_ms=None if transcript.end_ms is None else transcript.end_ms + by_ms,
        endpoint=transcript.endpoint,
    )


class FallbackTTS:
    """A `TTS` of several, asked in this order. When one fails, the next speaks everything that is not known to have
    been spoken: before the first sound nobody notices, in the middle of a sentence that sentence begins anew.

    The sound has the first one's rate. `voices` are the voice of each provider by its place, since no two vendors know
    the same names; without them the voice that is asked for goes to the first."""

    def __init__(
        self, *voices_of: TTS, voices: tuple[str | None, ...] = (), breaker: BreakerOptions | None = None
    ) -> None:
        self._order = _Order(voices_of, breaker)
        self._synthesisers = voices_of
        self._voices = voices
        self.name = " or ".join(map(name_of, voices_of))

    @property
    def streaming_input(self) -> bool:
        """Only when all take text while it is written: the others would speak words one by one."""
        return all(synthesiser.streaming_input for synthesiser in self._synthesisers)

    @property
    def rate(self) -> int:
        return self._synthesisers[0].rate

    async def start(self) -> None:
        await self._order.each("start")

    async def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenText]:
        told = _Told()
        position = 0
        async with Scope("fallback") as scope:
            gathering = scope.spawn(told.gather(text), name="gather text", awaited=True)
            for at, synthesiser in enumerate(self._synthesisers):
                if self._order.is_open(at):
                    continue
                before = told.spoken
                chosen = self._voices[at] if at < len(self._voices) else (voice if at == 0 else None)
                resampler = Resampler(synthesiser.rate, self.rate)
                stream = synthesiser.speak(told.replayed(), voice=chosen, language=language)
                try:
                    async with aclosing(cast("Any", stream)) as spoken:
                        async for piece in spoken:
                            self._order.succeeded(at)
                            frame = AudioFrame(resampler.process(piece.frame.pcm), self.rate, position)
                            position = frame.end
                            if piece.text_end is not None:
                                told.spoken = before + piece.text_end
                            yield SpokenText(frame, None if piece.text_end is None else told.spoken)
                    await gathering
                    return
                except ProviderError as failure:
                    self._order.failed(at, failure)
                    if at == len(self._synthesisers) - 1:
                        raise

    async def aclose(self) -> None:
        await self._order.each("aclose")


class _Told:
    """The text of one reply and how much of it is known to have been spoken."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._live: BlockingBuffer[str] | None = None
        self._ended = False
        self.spoken = 0

    async def gather(self, text: AsyncIterator[str]) -> None:
        try:
            async for piece in text:
                self._pieces.append(piece)
                if self._live is not None:
                    try:
                        await self._live.put(piece)
                    except BufferClosed:
                        pass  # the next voice finds it among the pieces
        finally:
            self._ended = True
            if self._live is not None:
                self._live.close()

    async def replayed(self) -> AsyncIterator[str]:
        if self._live is not None:
            self._live.clear()
            self._live.close()
        live: BlockingBuffer[str] = BlockingBuffer(100)
        self._live = live
        if self._ended:
            live.close()
        skip = self.spoken
        for piece in tuple(self._pieces):
            rest = piece[skip:]
            skip = max(skip - len(piece), 0)
            if rest:
                yield rest
        while True:
            try:
                yield await live.get()
            except BufferClosed:
                return
