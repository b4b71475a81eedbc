"""PocketSphinx in its own process: real recordings, real processes, real seconds."""

from __future__ import annotations

import asyncio
import os
import signal
import wave
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from roomkit.channels.providers import find_provider
from roomkit.errors import ConfigError, Refused, Unavailable
from roomkit.models.audio import AudioFrame, Transcript
from roomkit.providers.sphinx.stt import SphinxOptions, SphinxSTT
from roomkit.testing.speech import check_stt

DATA = Path("/usr/share/pocketsphinx/test/data")
pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(not DATA.exists(), reason="needs pocketsphinx-testdata (.ci/voice installs it)"),
]
GRAMMAR = "#JSGF V1.0; grammar move; public <move> = go (forward | backward) (one | two | ten) (meters | miles);"


def recorded(name: str = "goforward.raw") -> list[AudioFrame]:
    path = DATA / name
    if path.suffix == ".raw":
        pcm = path.read_bytes()
    else:
        with wave.open(str(path)) as sound:
            pcm = sound.readframes(sound.getnframes())
    return [AudioFrame(pcm[at : at + 640], 16_000, at // 2) for at in range(0, len(pcm) // 640 * 640, 640)]


async def given(frames: list[AudioFrame], pace_s: float = 0.0) -> AsyncIterator[AudioFrame]:
    for frame in frames:
        await asyncio.sleep(pace_s)
        yield frame


async def hear(stt: SphinxSTT, frames: AsyncIterator[AudioFrame], **more: str) -> list[Transcript]:
    return [one async for one in stt.transcribe(frames, **more)]


def text(heard: list[Transcript]) -> str:
    return " ".join(one.text for one in heard if one.final)


async def test_it_hears_as_the_port_wants() -> None:
    await check_stt(lambda: SphinxSTT(SphinxOptions(grammar=GRAMMAR)), recorded(), "go forward ten meters")


async def test_partial_hypotheses_come_while_it_listens_and_the_pause_ends_a_segment() -> None:
    silence = [AudioFrame(bytes(640), 16_000)] * 60
    stt = SphinxSTT(SphinxOptions(grammar=GRAMMAR))
    heard = await hear(stt, given([*recorded(), *silence, *recorded()]))
    finals = [one for one in heard if one.final]
    assert [one.text for one in finals] == ["go forward ten meters"] * 2
    assert finals[0].endpoint
    assert not heard[0].final
    assert finals[1].start_ms is not None
    assert 3000 < finals[1].start_ms < 4500
    await stt.aclose()
    assert stt.pids == ()


async def test_a_process_that_dies_is_replaced_and_hears_it_again() -> None:
    stt = SphinxSTT(SphinxOptions(grammar=GRAMMAR))
    await stt.start()
    (first,) = stt.pids
    heard: list[Transcript] = []
    async for one in stt.transcribe(given(recorded(), 0.01)):
        if not heard:
            os.kill(first, signal.SIGKILL)
        heard.append(one)
    assert text(heard) == "go forward ten meters"
    assert first not in stt.pids
    await stt.aclose()


async def test_a_process_that_hangs_is_killed_and_replaced() -> None:
    stt = SphinxSTT(SphinxOptions(grammar=GRAMMAR, hang_s=2))
    await stt.start()
    (first,) = stt.pids
    os.kill(first, signal.SIGSTOP)
    assert text(await hear(stt, given(recorded()))) == "go forward ten meters"
    assert stt.pids
    assert first not in stt.pids
    await stt.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


async def test_one_process_hears_several_and_refuses_more_than_it_can() -> None:
    stt = SphinxSTT(SphinxOptions(grammar=GRAMMAR, streams=2))
    streams = [stt.transcribe(given(recorded(), 0.005)) for _ in range(3)]
    for stream in streams[:2]:
        await anext(stream)
    with pytest.raises(Unavailable, match="all 2 streams"):
        await anext(streams[2])
    assert len(stt.pids) == 1
    assert [text([one async for one in stream]) for stream in streams[:2]] == ["go forward ten meters"] * 2
    await stt.aclose()


async def test_a_second_process_is_started_where_two_are_allowed() -> None:
    stt = SphinxSTT(SphinxOptions(grammar=GRAMMAR, streams=2, processes=2))
    streams = [stt.transcribe(given(recorded(), 0.005)) for _ in range(2)]
    for stream in streams:
        await anext(stream)
    assert len(stt.pids) == 2
    for stream in streams:
        await stream.aclose()
    await stt.aclose()


async def test_a_language_model_of_ones_own_is_what_it_reads(tmp_path: Path) -> None:
    (tmp_path / "spoilt").write_bytes(b"no such thing")
    stt = SphinxSTT(SphinxOptions(language_model=str(tmp_path / "spoilt")))
    with pytest.raises(ConfigError, match="check the model, dictionary and grammar"):
        await stt.start()
    await stt.aclose()


async def test_only_the_words_of_a_dictionary_of_ones_own_are_heard(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("ten T EH N\nmeters M IY T ER Z\n")
    stt = SphinxSTT(SphinxOptions(dictionary=str(tmp_path / "words")))
    heard = text(await hear(stt, given(recorded())))
    assert set(heard.split()) <= {"ten", "meters"}
    await stt.aclose()


async def test_a_left_stream_makes_room_at_once() -> None:
    stt = SphinxSTT(SphinxOptions(grammar=GRAMMAR, streams=1))
    for _ in range(3):
        async with aclosing(stt.transcribe(given(recorded()))) as stream:
            await anext(stream)
    assert text(await hear(stt, given(recorded()))) == "go forward ten meters"
    await stt.aclose()


async def test_within_a_call_it_remembers_how_the_line_sounds() -> None:
    """Cold it mishears the recording; once it knows the line it does not. Another call's line is another."""
    stt = SphinxSTT()
    cold = text(await hear(stt, given(recorded()), call="one"))
    warm = text(await hear(stt, given(recorded()), call="one"))
    other = text(await hear(stt, given(recorded()), call="another"))
    assert warm == "go forward ten meters"
    assert cold == other != warm
    await stt.aclose()


async def test_it_says_what_it_cannot() -> None:
    stt = SphinxSTT()
    with pytest.raises(Refused, match='"de"'):
        await hear(stt, given(recorded()), language="de")
    bad = SphinxSTT(SphinxOptions(grammar="this is no grammar"))
    with pytest.raises(ConfigError, match="grammar"):
        await bad.start()
    await stt.aclose()
    await bad.aclose()
    with pytest.raises(ConfigError, match="does not exist"):
        SphinxOptions(model="/nowhere")


def test_by_name() -> None:
    assert find_provider("sphinx", "stt").name == "sphinx"
