"""ElevenLabs over its wire format: words while they are written, times of characters, cuts, silence, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from roomkit.channels.providers import find_provider
from roomkit.errors import BadResponse, ConfigError, RateLimited, Refused, Unauthorized, Unavailable
from roomkit.models.audio import SpokenText
from roomkit.providers.elevenlabs.tts import ElevenLabsOptions, ElevenLabsTTS
from roomkit.testing.vendors.elevenlabs import CHAR_MS, FakeElevenLabs
from roomkit.testing.vendors.lines import Fault, text_of

RATE = 16_000
REPLY = "Your order is on its way. It comes tomorrow, before noon."


@pytest.fixture
def fake() -> FakeElevenLabs:
    return FakeElevenLabs()


def make(fake: FakeElevenLabs, **options: object) -> ElevenLabsTTS:
    settings = ElevenLabsOptions(rate=RATE, **options)  # type: ignore[arg-type]
    return ElevenLabsTTS(api_key=fake.key, options=settings, connect=fake.connect)


async def tokens(text: str, every_s: float = 0.05, pause_s: float = 0.0) -> AsyncIterator[str]:
    """As a model writes: pieces that respect no word; `pause_s` in the middle."""
    for at in range(0, len(text), 3):
        await asyncio.sleep(every_s)
        if pause_s and at in {30, 31, 32}:
            await asyncio.sleep(pause_s)
        yield text[at : at + 3]


async def say(tts: ElevenLabsTTS, text: AsyncIterator[str], **more: str) -> list[SpokenText]:
    spoken = [one async for one in tts.speak(text, **more)]
    await tts.aclose()
    return spoken


def heard(spoken: list[SpokenText]) -> str:
    return text_of([one.frame for one in spoken], CHAR_MS).strip()


async def test_whole_words_go_in_and_each_character_is_placed(fake: FakeElevenLabs) -> None:
    spoken = await say(make(fake, speed=1.1), tokens(REPLY))
    assert heard(spoken) == REPLY
    assert not fake.violations
    assert "".join(fake.texts[0]).strip() == REPLY
    assert fake.greetings[0]["voice_settings"] == {"speed": 1.1}
    for at, one in enumerate(spoken):
        if one.text_end is not None:
            sound = text_of([each.frame for each in spoken[: at + 1]], CHAR_MS)
            assert sound.rstrip() == REPLY[: one.text_end].rstrip()
    assert spoken[-1].text_end == len(REPLY) or heard(spoken[:-1]) == REPLY
    assert [one.frame.position for one in spoken] == [
        sum(each.frame.samples for each in spoken[:at]) for at in range(len(spoken))
    ]


async def test_the_first_sentence_sounds_before_the_second_is_written(fake: FakeElevenLabs) -> None:
    loop = asyncio.get_running_loop()
    async with aclosing(make(fake).speak(tokens(REPLY, pause_s=5))) as stream:
        await anext(stream)
        assert loop.time() < 2
        assert [one async for one in stream]


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 9])
async def test_after_a_cut_it_goes_on_with_the_first_character_not_spoken(fake: FakeElevenLabs, cut: int) -> None:
    fake.faults += [Fault(cut_after=cut), Fault(cut_after_answers=1, slow_s=0.1)]
    spoken = await say(make(fake), tokens(REPLY))
    assert heard(spoken).split() == REPLY.split()
    assert [one.text_end for one in spoken if one.text_end][-1] == len(REPLY)
    assert len(fake.urls) >= 2


async def test_without_times_a_cut_in_the_middle_is_told(fake: FakeElevenLabs) -> None:
    fake.aligned = False
    fake.faults.append(Fault(cut_after_answers=2, slow_s=0.1))
    with pytest.raises(Unavailable) as caught:
        await say(make(fake), tokens(REPLY))
    assert not caught.value.retryable
    await fake.aclose()


async def test_a_model_that_thinks_for_minutes_does_not_lose_the_line(fake: FakeElevenLabs) -> None:
    spoken = await say(make(fake), tokens(REPLY, pause_s=200))
    assert heard(spoken) == REPLY
    assert fake.alive >= 15
    assert len(fake.urls) == 1


async def test_an_empty_reply_is_no_error(fake: FakeElevenLabs) -> None:
    assert await say(make(fake), tokens("")) == []


@pytest.mark.parametrize(
    "code, kind, tries",
    [
        ("quota_exceeded", RateLimited, 1),
        ("voice_not_found", Refused, 1),
        ("invalid_api_key", Unauthorized, 1),
        ("system_busy", Unavailable, 4),
        ("something_new", BadResponse, 1),
    ],
)
async def test_what_it_tells_inside_the_socket(fake: FakeElevenLabs, code: str, kind: type, tries: int) -> None:
    fake.refuse = code
    with pytest.raises(kind) as caught:
        await say(make(fake), tokens(REPLY))
    assert caught.value.code == code
    assert len(fake.urls) == tries
    await fake.aclose()


async def test_the_key_is_never_shown(fake: FakeElevenLabs) -> None:
    tts = ElevenLabsTTS(api_key="xi-very-secret-key", connect=fake.connect)
    with pytest.raises(Unauthorized) as caught:
        await say(tts, tokens(REPLY))
    assert "xi-very-secret-key" not in str(caught.value) + repr(tts)


async def test_a_stopped_reply_hangs_up_at_once(fake: FakeElevenLabs) -> None:
    tts = make(fake)
    async with aclosing(tts.speak(tokens(REPLY, pause_s=60))) as stream:
        await anext(stream)
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - before < 0.02
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert fake.open == 0
    await tts.aclose()


async def test_voice_and_language_are_asked_for(fake: FakeElevenLabs) -> None:
    await say(make(fake), tokens("Guten Tag."), voice="my voice", language="de-AT")
    assert "/v1/text-to-speech/my%20voice/stream-input?" in fake.urls[0]
    assert "language_code=de" in fake.urls[0]


@pytest.mark.real_time
async def test_over_a_real_socket(fake: FakeElevenLabs) -> None:
    fake.faults.append(Fault(cut_after=2))
    async with fake.served() as url:
        tts = ElevenLabsTTS(api_key=fake.key, options=ElevenLabsOptions(rate=RATE), base_url=url)
        assert heard(await say(tts, tokens(REPLY, every_s=0))).split() == REPLY.split()
    assert not fake.violations


def test_by_name_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELEVENLABS_API_KEY", "a-key-of-the-environment")
    found = find_provider("elevenlabs:eleven_v3/abc", "tts")
    assert (found.model, found.voice) == ("eleven_v3", "abc")
    with pytest.raises(ConfigError, match="rate"):
        ElevenLabsOptions(rate=12_345)
