"""Deepgram over its wire format: both directions, against a vendor that cuts, stalls, refuses and repeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from roomkit.channels.providers import find_provider
from roomkit.errors import BadResponse, ConfigError, ProviderTimeout, RateLimited, Refused, Unauthorized, Unavailable
from roomkit.models.audio import AudioFrame, SpokenText, Transcript
from roomkit.net.redial import DialOptions
from roomkit.providers.deepgram.stt import DeepgramOptions, DeepgramSTT
from roomkit.providers.deepgram.tts import DeepgramTTS
from roomkit.testing.vendors.deepgram import CHAR_MS, FakeDeepgram
from roomkit.testing.vendors.lines import Fault, text_of

RATE = 16_000


@pytest.fixture
def fake() -> FakeDeepgram:
    return FakeDeepgram()


def make(fake: FakeDeepgram, **options: object) -> DeepgramSTT:
    return DeepgramSTT(api_key=fake.key, options=DeepgramOptions(**options), connect=fake.connect)  # type: ignore[arg-type]


async def live(frames: list[AudioFrame], pause_s: float = 0.0, after: int = 0) -> AsyncIterator[AudioFrame]:
    """At the pace of speech; after `after` frames nothing comes for `pause_s`."""
    for at, frame in enumerate(frames):
        await asyncio.sleep(0.02)
        if pause_s and at == after:
            await asyncio.sleep(pause_s)
        yield frame


async def hear(stt: DeepgramSTT, frames: AsyncIterator[AudioFrame], **more: object) -> list[Transcript]:
    heard = [transcript async for transcript in stt.transcribe(frames, **more)]  # type: ignore[arg-type]
    await stt.aclose()
    return heard


def finals(heard: list[Transcript]) -> list[str]:
    return [one.text for one in heard if one.final]


async def test_partial_then_final_with_times_and_the_end_of_the_utterance(fake: FakeDeepgram) -> None:
    frames = fake.lexicon.speech("where is my order", RATE) + fake.lexicon.speech("number ten", RATE)
    heard = await hear(make(fake), live(frames))
    assert [one.text for one in heard if not one.final] == ["where is", "where is my order", "number ten"]
    assert finals(heard) == ["where is my order", "number ten"]
    first = next(one for one in heard if one.final)
    assert first.endpoint
    assert first.start_ms == 0
    assert first.end_ms == pytest.approx(1100)
    assert first.confidence == pytest.approx(0.98)
    assert not fake.violations
    assert "language=de" not in fake.urls[0]


async def test_the_language_and_key_terms_are_asked_for(fake: FakeDeepgram) -> None:
    await hear(make(fake, keyterms=("Tretyakov", "SKU"), utterance_end_ms=1000), live([]), language="de")
    assert "language=de" in fake.urls[0]
    assert "keyterm=Tretyakov&keyterm=SKU" in fake.urls[0]
    assert not fake.violations


@pytest.mark.parametrize("cut", [1, 2, 5, 8, 12])
async def test_audio_that_was_not_confirmed_is_told_again_after_a_cut(fake: FakeDeepgram, cut: int) -> None:
    fake.faults += [Fault(cut_after=cut), Fault(cut_after=2 * cut)]
    frames = fake.lexicon.speech("one two three", RATE) + fake.lexicon.speech("four five six seven", RATE)
    heard = await hear(make(fake), live(frames))
    assert " ".join(finals(heard)) == "one two three four five six seven"
    ends = [one.end_ms for one in heard if one.final]
    assert ends == sorted(ends, key=lambda end: end or 0)  # times go on, although the vendor's began anew
    assert ends[-1] == pytest.approx(len(frames) * 20, abs=200)
    assert len(fake.urls) >= 2


async def test_an_answer_told_twice_counts_once(fake: FakeDeepgram) -> None:
    fake.faults.append(Fault(twice=True))
    frames = fake.lexicon.speech("one two", RATE) + fake.lexicon.speech("three", RATE)
    assert finals(await hear(make(fake), live(frames))) == ["one two", "three"]


async def test_silence_on_the_line_is_kept_alive_and_what_was_said_is_finalised(fake: FakeDeepgram) -> None:
    frames = fake.lexicon.speech("one two", RATE, silence_ms=0) + fake.lexicon.speech("three", RATE)
    heard = await hear(make(fake), live(frames, pause_s=60, after=20))
    assert finals(heard) == ["one two", "three"]
    assert fake.finalised == 1
    assert fake.alive >= 10
    assert len(fake.urls) == 1  # without a sign of life the vendor hangs up after ten seconds


async def test_a_vendor_that_hangs_up_for_silence_is_dialled_again(fake: FakeDeepgram) -> None:
    frames = fake.lexicon.speech("one two", RATE) + fake.lexicon.speech("three", RATE)
    stt = make(fake, dialling=DialOptions(keepalive_s=3600))
    assert finals(await hear(stt, live(frames, pause_s=30, after=50))) == ["one two", "three"]
    assert len(fake.urls) > 1


async def test_a_vendor_that_never_answers_is_given_up_in_time(fake: FakeDeepgram) -> None:
    fake.faults += [Fault(silent=True)] * 4
    started = asyncio.get_running_loop().time()
    with pytest.raises(ProviderTimeout):
        await hear(make(fake, dialling=DialOptions(answer_s=2)), live(fake.lexicon.speech("one", RATE)))
    assert asyncio.get_running_loop().time() - started < 20
    await fake.aclose()


async def test_a_slow_first_answer_is_waited_for(fake: FakeDeepgram) -> None:
    fake.faults.append(Fault(slow_s=4))
    assert finals(await hear(make(fake), live(fake.lexicon.speech("one", RATE)))) == ["one"]


@pytest.mark.parametrize(
    "fault, kind",
    [
        (Fault(status=402), Refused),
        (Fault(status=429, headers={"retry-after": "30"}), RateLimited),
        (Fault(garbage=True), BadResponse),
        (Fault(close=(1008, "DATA-0000: The payload cannot be decoded as audio.")), BadResponse),
    ],
)
async def test_what_will_not_get_better_is_not_tried_again(fake: FakeDeepgram, fault: Fault, kind: type) -> None:
    fake.faults.append(fault)
    with pytest.raises(kind):
        await hear(make(fake), live(fake.lexicon.speech("one", RATE)))
    assert len(fake.urls) == 1
    await fake.aclose()


async def test_a_vendor_that_is_down_is_tried_a_few_times(fake: FakeDeepgram) -> None:
    fake.faults += [Fault(status=503)] * 2
    assert finals(await hear(make(fake), live(fake.lexicon.speech("one two", RATE)))) == ["one two"]
    fake.faults += [Fault(status=503)] * 9
    with pytest.raises(Unavailable):
        await hear(make(fake), live(fake.lexicon.speech("one two", RATE)))
    assert len(fake.urls) == 3 + 4


async def test_a_wrong_key_is_said_and_never_shown(fake: FakeDeepgram, caplog: pytest.LogCaptureFixture) -> None:
    stt = DeepgramSTT(api_key="dg-very-secret-key", connect=fake.connect)
    with pytest.raises(Unauthorized) as caught:
        await hear(stt, live([]))
    assert "dg-very-secret-key" not in str(caught.value) + repr(stt) + caplog.text


async def test_closing_the_iterator_hangs_up_at_once(fake: FakeDeepgram) -> None:
    stt = make(fake)
    started = asyncio.get_running_loop().time()
    async with aclosing(stt.transcribe(live(fake.lexicon.speech("one two three four", RATE)))) as stream:
        await anext(stream)
    assert asyncio.get_running_loop().time() - started < 0.5
    await asyncio.sleep(0.02)
    assert fake.open == 0
    assert fake.left == 1
    await stt.aclose()


async def test_an_error_of_the_callers_own_source_comes_out_as_it_is(fake: FakeDeepgram) -> None:
    async def broken() -> AsyncIterator[AudioFrame]:
        for frame in fake.lexicon.speech("one two", RATE):
            yield frame
        raise LookupError("the microphone is gone")

    with pytest.raises(LookupError):
        await hear(make(fake), broken())
    assert len(fake.urls) == 1


@pytest.mark.real_time
async def test_over_a_real_socket_cut_once(fake: FakeDeepgram) -> None:
    fake.faults.append(Fault(cut_after=3))
    frames = fake.lexicon.speech("where is my order", RATE)

    async def given() -> AsyncIterator[AudioFrame]:
        for frame in frames:
            yield frame

    async with fake.served() as url:
        assert finals(await hear(DeepgramSTT(api_key=fake.key, base_url=url), given())) == ["where is my order"]
        with pytest.raises(Unauthorized):
            await hear(DeepgramSTT(api_key="another-key", base_url=url), given())
    with pytest.raises(Unavailable):
        await hear(DeepgramSTT(api_key=fake.key, base_url="ws://127.0.0.1:9"), given())
    assert not fake.violations


# -- speaking ---------------------------------------------------------------------------------------------------------


def voice(fake: FakeDeepgram, **options: object) -> DeepgramTTS:
    return DeepgramTTS(api_key=fake.key, rate=RATE, connect=fake.connect, **options)  # type: ignore[arg-type]


async def texts(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def say(tts: DeepgramTTS, *pieces: str) -> list[SpokenText]:
    spoken = [one async for one in tts.speak(texts(*pieces))]
    await tts.aclose()
    return spoken


async def test_each_sentence_is_spoken_and_its_end_known(fake: FakeDeepgram) -> None:
    spoken = await say(voice(fake), "It is on its way. ", "Tomorrow!")
    assert text_of([one.frame for one in spoken], CHAR_MS) == "It is on its way. Tomorrow!"
    assert [one.text_end for one in spoken if one.text_end] == [18, 27]
    assert [one.frame.position for one in spoken] == [at * 320 for at in range(len(spoken))]
    assert not fake.violations


async def test_an_empty_text_is_no_error(fake: FakeDeepgram) -> None:
    assert await say(voice(fake)) == []
    assert await say(voice(fake), " ") == []


async def test_a_cut_before_the_first_sound_is_not_heard(fake: FakeDeepgram) -> None:
    fake.faults += [Fault(cut_after_answers=1), Fault(cut_after=1)]
    spoken = await say(voice(fake), "It is on its way. ", "Tomorrow!")
    assert text_of([one.frame for one in spoken], CHAR_MS) == "It is on its way. Tomorrow!"


async def test_a_cut_within_a_sentence_is_told(fake: FakeDeepgram) -> None:
    fake.faults.append(Fault(cut_after_answers=3, slow_s=0.05))
    with pytest.raises(Unavailable) as caught:
        await say(voice(fake), "It is on its way and comes tomorrow.")
    assert caught.value.code == "cut"
    assert not caught.value.retryable
    await fake.aclose()


async def test_a_listener_who_takes_his_time_breaks_nothing(fake: FakeDeepgram) -> None:
    tts = voice(fake)
    frames: list[AudioFrame] = []
    async for one in tts.speak(texts("Slowly, please, and to the end. ", "Thanks.")):
        await asyncio.sleep(0.5)
        frames.append(one.frame)
    assert text_of(frames, CHAR_MS) == "Slowly, please, and to the end. Thanks."
    assert len(fake.urls) == 1
    await tts.aclose()


def test_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "a-key-of-the-environment")
    assert find_provider("deepgram:nova-2", "stt").model == "nova-2"
    assert find_provider("deepgram:aura-2-thalia-en", "tts").rate == 24_000
    monkeypatch.delenv("DEEPGRAM_API_KEY")
    with pytest.raises(ConfigError, match="DEEPGRAM_API_KEY"):
        find_provider("deepgram", "stt")
