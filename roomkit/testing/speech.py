"""`check_stt` and `check_tts`, the conformance kits of the two ports; `word_errors`, which measures a recogniser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from roomkit.models.audio import AudioFrame, SpokenText, Transcript

_RATES = range(8_000, 48_001)


def word_errors(said: str, heard: str) -> tuple[int, int]:
    """(wrong, missing and superfluous words, words said). Case and punctuation do not count."""
    wanted, got = _words(said), _words(heard)
    row = list(range(len(got) + 1))
    for at, word in enumerate(wanted, 1):
        before, row = row, [at, *[0] * len(got)]
        for to, other in enumerate(got, 1):
            row[to] = min(before[to] + 1, row[to - 1] + 1, before[to - 1] + (word != other))
    return row[-1], len(wanted)


async def check_stt(
    make: Callable[[], Any],
    speech: Sequence[AudioFrame],
    says: str,
    *,
    most_errors: float = 0.0,
    pace_s: float = 0.0,
    streams_open: Callable[[], int] | None = None,
    reopens: bool = True,
) -> None:
    """Checks that what `make()` returns is an STT as the port wants it; raises AssertionError with the reason.

    `speech` says `says`; `most_errors` is the share of words that may be wrong. `pace_s` is waited before each frame.
    `streams_open` counts connections, to see that closing the iterator closes its own. `reopens` is False for one that
    was given a transport to use up.
    """
    stt = make()
    assert stt.rate in _RATES, f"rate={stt.rate} is no sample rate"
    assert isinstance(stt.streaming, bool), "streaming is True or False"
    assert speech[0].rate == stt.rate, f"the test's speech is not at the recogniser's rate, {stt.rate} Hz"
    heard = await _hear(stt, speech, pace_s)
    _check_transcripts(heard, says, most_errors)
    assert not any(one.text for one in await _hear(stt, (), 0.0)), "of no audio at all something was heard"
    both = await asyncio.gather(_hear(stt, speech, pace_s), _hear(stt, speech, pace_s))
    for each in both:  # two callers at once
        _check_transcripts(each, says, most_errors)
    stream = stt.transcribe(_frames(speech, pace_s))
    async with aclosing(stream):
        await anext(stream)
    await _gone(streams_open)
    await stt.aclose()
    await stt.aclose()
    if reopens:  # a kit that starts again
        _check_transcripts(await _hear(stt, speech, pace_s), says, most_errors)
        await stt.aclose()


async def check_tts(
    make: Callable[[], Any],
    text: str = "Your order is on its way. It comes tomorrow.",
    *,
    least_s: float = 0.5,
    streams_open: Callable[[], int] | None = None,
    reopens: bool = True,
) -> None:
    """The same for a TTS, which is to speak `text` for at least `least_s` seconds."""
    tts = make()
    assert tts.rate in _RATES, f"rate={tts.rate} is no sample rate"
    assert isinstance(tts.streaming_input, bool), "streaming_input is True or False"
    pieces = re.findall(r"\S+\s*" if tts.streaming_input else r"[^.!?]*[.!?]\s*", text)
    assert "".join(pieces) == text, "the test's text is made of whole sentences"
    _check_spoken(await _say(tts, pieces), tts.rate, len(text.rstrip()), least_s)
    assert await _say(tts, ()) == [], "of no text at all something was spoken"
    assert await _say(tts, (" ", "\n")) == [], "spaces are not spoken"
    both = await asyncio.gather(_say(tts, pieces), _say(tts, pieces))
    for each in both:  # two calls at once
        _check_spoken(each, tts.rate, len(text.rstrip()), least_s)
    stream = tts.speak(_texts(pieces))
    async with aclosing(stream):
        await anext(stream)
    await _gone(streams_open)
    await tts.aclose()
    await tts.aclose()
    if reopens:  # a kit that starts again
        _check_spoken(await _say(tts, pieces), tts.rate, len(text.rstrip()), least_s)
        await tts.aclose()


def _check_transcripts(heard: Sequence[Transcript], says: str, most_errors: float) -> None:
    finals = [one for one in heard if one.final]
    assert finals, "no final transcript came"
    assert heard[-1].final, "the last transcript of a stream is final"
    text = " ".join(one.text for one in finals)
    wrong, count = word_errors(says, text)
    assert wrong <= most_errors * count, f"{wrong} of {count} words are wrong: {text!r}"
    ends = [one.end_ms for one in finals if one.end_ms is not None]
    assert ends == sorted(ends), "the ends of final transcripts go back in time"
    for one in heard:
        assert one.confidence is None or 0 <= one.confidence <= 1, f"confidence={one.confidence} is not 0 to 1"
        assert one.start_ms is None or one.end_ms is None or one.start_ms <= one.end_ms, (
            "a segment ends before it starts"
        )


def _check_spoken(spoken: Sequence[SpokenText], rate: int, length: int, least_s: float) -> None:
    assert spoken, "nothing was spoken"
    position, said = 0, 0
    for one in spoken:
        assert one.frame.rate == rate, "a frame has another rate than the synthesiser says"
        assert len(one.frame.pcm) % 2 == 0, "a frame cuts a sample"
        assert one.frame.pcm, "a frame is empty"
        assert one.frame.position == position, (
            f"a frame starts at {one.frame.position}, the one before ends at {position}"
        )
        position = one.frame.end
        if one.text_end is not None:
            assert one.text_end >= said, "text_end goes back"
            said = one.text_end
    assert said >= length, f"text_end says that {said} of {length} characters were spoken"
    assert position / rate >= least_s, f"only {position / rate:.2f} s were spoken"


async def _hear(stt: Any, speech: Sequence[AudioFrame], pace_s: float) -> list[Transcript]:
    return [transcript async for transcript in stt.transcribe(_frames(speech, pace_s))]


async def _say(tts: Any, pieces: Sequence[str]) -> list[SpokenText]:
    return [spoken async for spoken in tts.speak(_texts(pieces))]


async def _frames(speech: Sequence[AudioFrame], pace_s: float) -> AsyncIterator[AudioFrame]:
    for frame in speech:
        await asyncio.sleep(pace_s)
        yield frame


async def _texts(pieces: Sequence[str]) -> AsyncIterator[str]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


async def _gone(streams_open: Callable[[], int] | None) -> None:
    if streams_open is not None:
        await asyncio.sleep(0.1)
        assert streams_open() == 0, "closing a stream left its connection open"


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())
