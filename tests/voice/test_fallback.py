"""A second provider takes over within the utterance, and the first is left alone for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from roomkit.errors import ConfigError, ProviderError, Refused, Unavailable
from roomkit.models.audio import AudioFrame, SpokenText, Transcript
from roomkit.net.breaker import BreakerOptions
from roomkit.providers.deepgram.stt import DeepgramOptions, DeepgramSTT
from roomkit.testing.vendors.deepgram import FakeDeepgram
from roomkit.testing.vendors.lines import Fault, spoken, text_of
from roomkit.voice.fallback import FallbackSTT, FallbackTTS

RATE, CHAR_MS = 16_000, 20
REPLY = ("Your order is on its way. ", "It comes tomorrow.")


class Voice:
    """A synthesiser whose sound can be read; fails with `error` after `after` characters in all."""

    streaming_input = False

    def __init__(self, name: str, error: Exception | None = None, after: int = 0, rate: int = RATE) -> None:
        self.name = name
        self.rate = rate
        self.error = error
        self.after = after
        self.asked: list[str] = []
        self.voices: list[str | None] = []
        self.closed = False

    async def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncIterator[SpokenText]:
        self.voices.append(voice)
        said = 0
        async for piece in text:
            self.asked.append(piece)
            for at, char in enumerate(piece, 1):
                if self.error is not None and said + at > self.after:
                    raise self.error
                await asyncio.sleep(0.001)
                frame = AudioFrame(spoken(char, self.rate, CHAR_MS), self.rate)
                yield SpokenText(frame, said + at if at == len(piece) else None)
            said += len(piece)

    async def aclose(self) -> None:
        self.closed = True


async def texts(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        await asyncio.sleep(0.01)
        yield piece


async def say(tts: FallbackTTS, *pieces: str, **more: str) -> list[SpokenText]:
    return [one async for one in tts.speak(texts(*pieces), **more)]


def heard(said: Sequence[SpokenText]) -> str:
    return text_of([one.frame for one in said], CHAR_MS)


DOWN = Unavailable("first", "down")


async def test_before_the_first_sound_nobody_notices() -> None:
    first, second = Voice("first", DOWN), Voice("second")
    said = await say(FallbackTTS(first, second), *REPLY)
    assert heard(said) == "".join(REPLY)
    assert [one.text_end for one in said if one.text_end] == [26, 44]
    assert [one.frame.position for one in said] == [at * 320 for at in range(len(said))]


async def test_a_sentence_cut_in_the_middle_begins_anew_and_the_text_counts_once() -> None:
    first, second = Voice("first", DOWN, after=30), Voice("second")
    said = await say(FallbackTTS(first, second), *REPLY)
    assert heard(said) == "Your order is on its way. It cIt comes tomorrow."
    assert [one.text_end for one in said if one.text_end] == [26, 44]
    assert second.asked == [REPLY[1]]


async def test_one_that_failed_twice_is_left_alone_for_half_a_minute() -> None:
    first, second = Voice("first", DOWN), Voice("second")
    tts = FallbackTTS(first, second)
    for _ in range(5):
        await say(tts, "Hello.")
    assert len(first.asked) == 2
    await asyncio.sleep(31)
    first.error = None
    second.asked.clear()
    for _ in range(3):
        assert heard(await say(tts, "Hello.")) == "Hello."
    assert second.asked == []


async def test_a_refusal_of_one_text_condemns_nobody() -> None:
    first, second = Voice("first", Refused("first", "not this language")), Voice("second")
    tts = FallbackTTS(first, second)
    for _ in range(5):
        await say(tts, "Hallo.")
    assert len(first.asked) == 5


async def test_the_last_error_comes_out_and_the_last_is_always_asked() -> None:
    first, second = Voice("first", DOWN), Voice("second", Unavailable("second", "down too"))
    tts = FallbackTTS(first, second, breaker=BreakerOptions(failures=1, open_s=60))
    for _ in range(3):
        with pytest.raises(ProviderError, match="second"):
            await say(tts, "Hello.")
    assert (len(first.asked), len(second.asked)) == (1, 3)
    await tts.aclose()
    assert first.closed
    assert second.closed


async def test_rates_and_voices_are_each_ones_own() -> None:
    first, second = Voice("first", DOWN, rate=24_000), Voice("second", rate=8_000)
    said = await say(FallbackTTS(first, second, voices=("nova", "aura")), "Hello.", voice="echo")
    assert {one.frame.rate for one in said} == {24_000}
    assert sum(one.frame.samples for one in said) == pytest.approx(6 * 480, abs=200)
    assert (first.voices, second.voices) == (["nova"], ["aura"])
    with pytest.raises(ConfigError):
        FallbackTTS(first)


# -- hearing ----------------------------------------------------------------------------------------------------------


def ears(fake: FakeDeepgram, rate: int = RATE) -> DeepgramSTT:
    return DeepgramSTT(api_key=fake.key, options=DeepgramOptions(rate=rate), connect=fake.connect)


async def live(frames: Sequence[AudioFrame]) -> AsyncIterator[AudioFrame]:
    for frame in frames:
        await asyncio.sleep(0.02)
        yield frame


async def hear(stt: FallbackSTT, frames: Sequence[AudioFrame]) -> list[Transcript]:
    heard = [one async for one in stt.transcribe(live(frames))]
    await stt.aclose()
    return [one for one in heard if one.final]


async def test_the_next_recogniser_hears_what_was_not_written_yet() -> None:
    one, two = FakeDeepgram(), FakeDeepgram()
    two.lexicon = one.lexicon
    # It understands the first utterance, is cut in the second, and is down for good.
    one.faults += [Fault(cut_after=70), *[Fault(status=503)] * 9]
    frames = one.lexicon.speech("one two three", RATE) + one.lexicon.speech("four five six seven", RATE)
    heard = await hear(FallbackSTT(ears(one), ears(two)), frames)
    assert [each.text for each in heard] == ["one two three", "four five six seven"]
    assert [each.end_ms for each in heard] == [pytest.approx(900, abs=40), pytest.approx(2200, abs=40)]
    assert one.heard == ["one two three"]
    assert two.heard == ["four five six seven"]


async def test_a_recogniser_that_is_down_is_left_out_and_asked_again_later() -> None:
    one, two = FakeDeepgram(), FakeDeepgram()
    two.lexicon = one.lexicon
    one.faults += [Fault(status=401)] * 2
    stt = FallbackSTT(ears(one), ears(two))
    for at in range(4):
        frames = one.lexicon.speech(f"word{at}", RATE)
        assert [each.text async for each in stt.transcribe(live(frames)) if each.final] == [f"word{at}"]
    assert len(one.urls) == 2
    await asyncio.sleep(31)
    assert [each.text for each in await hear(stt, one.lexicon.speech("again", RATE))] == ["again"]
    assert one.heard == ["again"]


async def test_what_the_callers_source_raises_comes_out() -> None:
    one, two = FakeDeepgram(), FakeDeepgram()

    async def broken() -> AsyncIterator[AudioFrame]:
        for frame in one.lexicon.speech("one", RATE):
            yield frame
        raise LookupError("the microphone is gone")

    stt = FallbackSTT(ears(one), ears(two))
    with pytest.raises(LookupError):
        async for _ in stt.transcribe(broken()):
            pass
    await stt.aclose()
