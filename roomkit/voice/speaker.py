"""Speaker: the text of one reply, while it is written, to sound: filtered, cut, guarded, spoken, put into a playout."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

from roomkit.dsp.framing import Reblock
from roomkit.dsp.resample import Resampler
from roomkit.models.audio import FRAME_MS, AudioFrame
from roomkit.ports.speech import TTS
from roomkit.voice.ledger import HeardLedger
from roomkit.voice.sentences import FilterChoice, SentenceSplitter, TextFilter

Put = Callable[[AudioFrame], Awaitable[None]]
Guard = Callable[[str], Awaitable[str | None]]


def _nobody(_: str) -> None:
    pass


async def _one(text: str) -> AsyncIterator[str]:
    yield text


class _Plain:
    """A plain function as a filter: it sees sentences, because that is where it is applied."""

    def __init__(self, change: Callable[[str], str]) -> None:
        self._change = change

    def push(self, delta: str) -> str:
        return self._change(delta)

    def flush(self) -> str:
        return ""


class Speaker:
    """One reply's way to sound. `ledger` ties its text to samples at the working rate.

    `on_stage` hears "first_sentence" and "tts_first_byte" once each. Cancelling `speak` stops the synthesiser at once.
    """

    def __init__(
        self,
        tts: TTS,
        rate: int,
        put: Put,
        *,
        guard: Guard | None = None,
        tts_filter: FilterChoice = None,
        voice: str | None = None,
        language: str | None = None,
        on_stage: Callable[[str], None] = _nobody,
    ) -> None:
        self.ledger = HeardLedger(rate)
        self._tts = tts
        self._rate = rate
        self._put = put
        self._guard = guard
        self._voice = voice
        self._language = language
        self._on_stage = on_stage
        self._whole, self._growing = _filters(tts_filter)
        self._resampler = Resampler(tts.rate, rate)
        self._frames = Reblock(rate * FRAME_MS // 1000 * 2)
        self._position = 0

    async def speak(self, deltas: AsyncIterator[str]) -> None:
        """Speaks everything and returns when its last frame is in the playout. Raises `ProviderError`."""
        if self._tts.streaming_input and self._guard is None and self._whole is None:
            await self._voice_of(self._grown(deltas))
            self.ledger.settle()
        else:
            async for sentence in self._sentences(deltas):
                await self._sentence(sentence)
        await self._rest()

    async def _grown(self, deltas: AsyncIterator[str]) -> AsyncIterator[str]:
        first = True
        async for delta in _clean(deltas, self._growing):
            if first:
                self._on_stage("first_sentence")
                first = False
            self.ledger.say(delta)
            yield delta

    async def _sentences(self, deltas: AsyncIterator[str]) -> AsyncIterator[str]:
        splitter = SentenceSplitter(self._language)
        async for delta in _clean(deltas, self._growing):
            for sentence in splitter.push(delta):
                yield sentence
        for sentence in splitter.flush():
            yield sentence

    async def _sentence(self, sentence: str) -> None:
        if self._guard is not None:
            kept = await self._guard(sentence)
            if not kept:
                return
            sentence = kept
        if self._whole is not None:
            sentence = self._whole.push(sentence)
        if not sentence.strip():
            return
        self._on_stage("first_sentence")
        before = len(self.ledger.text)
        self.ledger.say(sentence)
        await self._voice_of(_one(sentence), before)
        self.ledger.settle()

    async def _voice_of(self, text: AsyncIterator[str], before: int = 0) -> None:
        """`before` is the length of what was given to earlier streams: the synthesiser counts from its own start."""
        stream = self._tts.speak(text, voice=self._voice, language=self._language)
        async with aclosing(cast("Any", stream)) as spoken:
            async for piece in spoken:
                self._on_stage("tts_first_byte")
                end = piece.text_end
                await self._audio(piece.frame.pcm, None if end is None else end + before)

    async def _audio(self, pcm: bytes, text_end: int | None) -> None:
        data = self._resampler.process(pcm)
        self.ledger.audio(len(data) // 2, text_end)
        for block in self._frames.push(data):
            await self._frame(block)

    async def _rest(self) -> None:
        block = self._frames.flush()
        if block:
            await self._frame(block)

    async def _frame(self, block: bytes) -> None:
        frame = AudioFrame(block, self._rate, self._position)
        self._position += frame.samples
        await self._put(frame)


def _filters(choice: FilterChoice) -> tuple[TextFilter | None, TextFilter | None]:
    """(one for whole sentences, one for the growing text)."""
    if choice is None:
        return None, None
    if isinstance(choice, type):
        return None, choice()
    return _Plain(choice), None


async def _clean(deltas: AsyncIterator[str], growing: TextFilter | None) -> AsyncIterator[str]:
    async for delta in deltas:
        kept = growing.push(delta) if growing is not None else delta
        if kept:
            yield kept
    if growing is not None and (rest := growing.flush()):
        yield rest
