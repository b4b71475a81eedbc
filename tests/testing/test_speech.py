"""The conformance kits of speech: every provider passes, and each rule of theirs can be broken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from roomkit.models.audio import AudioFrame, SpokenText, Transcript
from roomkit.providers.deepgram.stt import DeepgramSTT
from roomkit.providers.deepgram.tts import DeepgramTTS
from roomkit.providers.elevenlabs.tts import ElevenLabsTTS
from roomkit.providers.openai.stt import OpenAISTT
from roomkit.providers.openai.tts import OpenAITTS
from roomkit.testing.speech import check_stt, check_tts, word_errors
from roomkit.testing.vendors.deepgram import FakeDeepgram
from roomkit.testing.vendors.elevenlabs import FakeElevenLabs
from roomkit.testing.vendors.lines import spoken
from roomkit.testing.vendors.openai_speech import FakeOpenAISpeech
from roomkit.voice.fallback import FallbackSTT, FallbackTTS

SAYS = "where is my order"


def test_word_errors() -> None:
    assert word_errors("Where is my order?", "where is my order") == (0, 4)
    assert word_errors("one two three", "one too three four") == (2, 3)
    assert word_errors("one two three", "") == (3, 3)
    assert word_errors("it's on", "it's off") == (1, 2)


async def test_deepgram_hears() -> None:
    fake = FakeDeepgram()
    speech = fake.lexicon.speech(SAYS, 16_000)
    await check_stt(
        lambda: DeepgramSTT(api_key=fake.key, connect=fake.connect),
        speech,
        SAYS,
        pace_s=0.02,
        streams_open=lambda: fake.open,
    )
    assert not fake.violations


async def test_openai_hears() -> None:
    fake = FakeOpenAISpeech()
    for _ in range(5):
        fake.reply(SAYS)
    speech = [AudioFrame(bytes(640), 16_000, at * 320) for at in range(50)]
    await check_stt(lambda: OpenAISTT(api_key=fake.key, transport=fake.transport()), speech, SAYS, reopens=False)


async def test_a_fallback_hears_as_its_first() -> None:
    fake = FakeDeepgram()
    speech = fake.lexicon.speech(SAYS, 16_000)
    await check_stt(
        lambda: FallbackSTT(*(DeepgramSTT(api_key=fake.key, connect=fake.connect) for _ in range(2))),
        speech,
        SAYS,
        pace_s=0.02,
        streams_open=lambda: fake.open,
    )


async def test_deepgram_speaks() -> None:
    fake = FakeDeepgram()
    await check_tts(lambda: DeepgramTTS(api_key=fake.key, connect=fake.connect), streams_open=lambda: fake.open)
    assert not fake.violations


async def test_elevenlabs_speaks() -> None:
    fake = FakeElevenLabs()
    await check_tts(lambda: ElevenLabsTTS(api_key=fake.key, connect=fake.connect), streams_open=lambda: fake.open)
    assert not fake.violations


async def test_openai_speaks() -> None:
    fake = FakeOpenAISpeech()
    for _ in range(10):
        fake.speak()
    await check_tts(
        lambda: OpenAITTS(api_key=fake.key, transport=fake.transport()),
        streams_open=lambda: fake.streaming,
        reopens=False,
    )


async def test_a_fallback_speaks_as_its_first() -> None:
    fake = FakeElevenLabs()
    await check_tts(
        lambda: FallbackTTS(*(ElevenLabsTTS(api_key=fake.key, connect=fake.connect) for _ in range(2))),
        streams_open=lambda: fake.open,
    )


class BadEars:
    streaming = True
    rate = 16_000

    def __init__(self, *told: Transcript) -> None:
        self.told = told

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], *, language: str | None = None, call: str | None = None
    ) -> AsyncIterator[Transcript]:
        heard = [frame async for frame in frames]
        for one in self.told if heard else ():
            yield one

    async def aclose(self) -> None:
        pass


GOOD = Transcript(SAYS, start_ms=0, end_ms=800, confidence=0.5)


@pytest.mark.parametrize(
    "told, why",
    [
        ((), "no final"),
        ((GOOD, Transcript("more", final=False)), "last transcript"),
        ((replace(GOOD, text="where is my otter"),), "1 of 4"),
        ((replace(GOOD, text="where is"), replace(GOOD, text="my order", end_ms=400)), "back in time"),
        ((replace(GOOD, confidence=98),), "confidence"),
        ((replace(GOOD, start_ms=900),), "ends before"),
    ],
)
async def test_each_rule_of_hearing_can_be_broken(told: tuple[Transcript, ...], why: str) -> None:
    speech = [AudioFrame(bytes(640), 16_000)]
    await check_stt(lambda: BadEars(GOOD), speech, SAYS)
    with pytest.raises(AssertionError, match=why):
        await check_stt(lambda: BadEars(*told), speech, SAYS)


class BadVoice:
    streaming_input = False
    rate = 16_000

    def __init__(self, **wrong: object) -> None:
        self.wrong = wrong

    async def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncIterator[SpokenText]:
        position = said = 0
        async for piece in text:
            said += len(piece)
            if piece.strip() or "blank" in self.wrong:
                frame = AudioFrame(spoken(piece, 16_000, 20), 16_000, position)
                position = frame.end
                end = said - 30 * (said > 30) if "back" in self.wrong else said
                yield SpokenText(
                    AudioFrame(
                        frame.pcm[1:] if "cut" in self.wrong else frame.pcm,
                        8_000 if "rate" in self.wrong else 16_000,
                        0 if "position" in self.wrong else frame.position,
                    ),
                    None if "silent" in self.wrong else end,
                )

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    "wrong, why",
    [
        ("blank", "spaces"),
        ("back", "goes back"),
        ("cut", "cuts a sample"),
        ("rate", "another rate"),
        ("position", "starts at"),
        ("silent", "0 of 44"),
    ],
)
async def test_each_rule_of_speaking_can_be_broken(wrong: str, why: str) -> None:
    await check_tts(BadVoice)
    with pytest.raises(AssertionError, match=why):
        await check_tts(lambda: BadVoice(**{wrong: True}))
