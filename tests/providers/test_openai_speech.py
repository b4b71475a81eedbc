"""OpenAI's speech through its real SDK against the fake vendor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from roomkit.channels.providers import find_provider
from roomkit.errors import BadResponse, ConfigError, ProviderError, RateLimited, Unauthorized
from roomkit.models.audio import AudioFrame, SpokenText, Transcript
from roomkit.providers.openai.stt import OpenAISTT
from roomkit.providers.openai.tts import OpenAITTS
from roomkit.testing.vendors.lines import text_of
from roomkit.testing.vendors.openai_speech import CHAR_MS, FakeOpenAISpeech
from roomkit.testing.vendors.script import Cut, Garbage, Pause, Say, Vanish


@pytest.fixture
def fake() -> FakeOpenAISpeech:
    return FakeOpenAISpeech()


def ears(fake: FakeOpenAISpeech, **options: object) -> OpenAISTT:
    return OpenAISTT(**{"api_key": fake.key, "transport": fake.transport(), **options})  # type: ignore[arg-type]


def mouth(fake: FakeOpenAISpeech, **options: object) -> OpenAITTS:
    return OpenAITTS(**{"api_key": fake.key, "transport": fake.transport(), **options})  # type: ignore[arg-type]


async def second(count: float = 1.0) -> AsyncIterator[AudioFrame]:
    for at in range(int(count * 50)):
        yield AudioFrame(bytes(640), 16_000, at * 320)


async def texts(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def hear(stt: OpenAISTT, frames: AsyncIterator[AudioFrame], **more: str) -> list[Transcript]:
    heard = [one async for one in stt.transcribe(frames, **more)]
    await stt.aclose()
    return heard


async def say(tts: OpenAITTS, *pieces: str) -> list[SpokenText]:
    spoken = [one async for one in tts.speak(texts(*pieces))]
    await tts.aclose()
    return spoken


async def test_it_hears_a_segment_and_tells_while_it_writes(fake: FakeOpenAISpeech) -> None:
    fake.reply("Where is my order?")
    heard = await hear(ears(fake, prompt="roomkit"), second(2), language="en-GB")
    assert [one.text for one in heard] == [
        "Where",
        "Where is",
        "Where is my",
        "Where is my order?",
        "Where is my order?",
    ]
    assert [one.final for one in heard] == [False] * 4 + [True]
    assert heard[-1].end_ms == 2000
    assert fake.seconds == [2.0]
    assert fake.requests[0]["language"] == "en"
    assert fake.requests[0]["prompt"] == "roomkit"


async def test_whisper_and_compatible_servers_answer_at_once(fake: FakeOpenAISpeech) -> None:
    fake.reply("Hello")
    fake.reply("Hello")
    assert [one.text for one in await hear(ears(fake, model="whisper-1"), second())] == ["Hello"]
    assert [one.text for one in await hear(ears(fake, base_url="http://localhost/v1"), second())] == ["Hello"]
    assert all("stream" not in request for request in fake.requests)


async def test_too_little_sound_is_nothing_and_costs_nothing(fake: FakeOpenAISpeech) -> None:
    assert await hear(ears(fake), second(0.04)) == []
    assert not fake.seconds


async def test_of_an_endless_segment_the_end_is_heard(fake: FakeOpenAISpeech, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roomkit.providers.openai.stt.MOST_S", 3)
    fake.reply("the end")
    await hear(ears(fake), second(8))
    assert fake.seconds == [3.0]


@pytest.mark.parametrize("step", [Cut(), Vanish(), Garbage()])
async def test_a_transcript_cut_in_the_middle_is_no_transcript(fake: FakeOpenAISpeech, step: object) -> None:
    fake.reply("Where is", step, *([Vanish()] if isinstance(step, Garbage) else []))  # type: ignore[arg-type]
    with pytest.raises(BadResponse):
        await hear(ears(fake), second())


async def test_what_the_vendor_refuses(fake: FakeOpenAISpeech) -> None:
    fake.fail(429, "rate_limit_exceeded", retry_after="3")
    with pytest.raises(RateLimited) as limited:
        await hear(ears(fake), second())
    assert limited.value.retry_after == 3
    with pytest.raises(Unauthorized) as refused:
        await say(mouth(fake, api_key="sk-a-very-secret-key"), "Hello")
    assert "sk-a-very-secret-key" not in str(refused.value)


async def test_each_sentence_is_spoken_and_its_end_known(fake: FakeOpenAISpeech) -> None:
    fake.speak(Say("a"), Pause(0.1), Say("b"), Say("c"))
    fake.speak()
    spoken = await say(mouth(fake, instructions="friendly"), "It is on its way. ", " ", "Tomorrow!")
    assert text_of([one.frame for one in spoken], CHAR_MS) == "It is on its way. Tomorrow!"
    assert [one.text_end for one in spoken if one.text_end] == [18, 28]
    assert [one.frame.position for one in spoken] == [at * 480 for at in range(len(spoken))]
    assert fake.requests[0]["instructions"] == "friendly"
    assert not fake.violations


async def test_sound_comes_while_it_is_made_and_stops_at_once(fake: FakeOpenAISpeech) -> None:
    fake.speak(Say("a"), Pause(60), Say("b"))
    tts = mouth(fake)
    async with aclosing(tts.speak(texts("A long sentence, of which only half is heard."))) as stream:
        await anext(stream)
        assert asyncio.get_running_loop().time() < 1
    await asyncio.sleep(0.1)
    assert fake.streaming == 0
    assert fake.abandoned == 1
    await tts.aclose()


async def test_a_vendor_that_is_too_slow_or_breaks_is_told(fake: FakeOpenAISpeech) -> None:
    fake.speak(Pause(1), Cut())
    with pytest.raises(ProviderError):
        await say(mouth(fake), "Hello")
    fake.speak(Say("a"), Cut(), Say("b"))
    with pytest.raises(BadResponse):
        await say(mouth(fake), "Hello there")


def test_by_name_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    assert find_provider("openai:gpt-4o-mini-transcribe", "stt").model == "gpt-4o-mini-transcribe"
    assert find_provider("openai", "tts").model == "gpt-4o-mini-tts"
    with pytest.raises(ConfigError, match="speed"):
        OpenAITTS(speed=9)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAISTT()
