"""eSpeak NG and Flite: real processes, and none left behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import psutil
import pytest

from roomkit.channels.providers import find_provider
from roomkit.errors import BadResponse, ConfigError, Unavailable
from roomkit.models.audio import SpokenText
from roomkit.providers.espeak.tts import EspeakTTS, voice_for
from roomkit.providers.flite.tts import FliteTTS
from roomkit.providers.program import output_of
from roomkit.testing.speech import check_tts

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(not (which("espeak-ng") and which("flite")), reason="needs espeak-ng and flite (.ci/voice)"),
]


async def texts(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def say(tts: Any, *pieces: str, **more: str) -> list[SpokenText]:
    return [one async for one in tts.speak(texts(*pieces), **more)]


def children() -> int:
    return len(psutil.Process().children())


@pytest.mark.parametrize("make", [EspeakTTS, FliteTTS])
async def test_they_speak_as_the_port_wants(make: Callable[[], Any]) -> None:
    await check_tts(make, least_s=1.5, streams_open=children)


@pytest.mark.parametrize("make", [EspeakTTS, FliteTTS])
async def test_it_is_loud_enough_to_be_heard(make: Callable[[], Any]) -> None:
    sound = b"".join(one.frame.pcm for one in await say(make(), "Your order is on its way."))
    assert np.abs(np.frombuffer(sound, dtype="<i2")).max() > 3000


async def test_languages_speak_differently() -> None:
    english = await say(EspeakTTS(), "Nine. ", language="en-US")
    german = await say(EspeakTTS(), "Nine. ", language="de-AT")
    assert [one.frame.pcm for one in english] != [one.frame.pcm for one in german]
    assert (voice_for("de-AT"), voice_for("en"), voice_for("fr-CA"), voice_for("pt_BR")) == (
        "de",
        "en-us",
        "fr-fr",
        "pt-br",
    )


async def test_a_stopped_sentence_leaves_no_process() -> None:
    async with aclosing(EspeakTTS().speak(texts("word " * 5000))) as stream:
        await anext(stream)
        assert children() == 1
    assert children() == 0


async def test_a_cancelled_sentence_leaves_no_process() -> None:
    started = asyncio.Event()

    async def speak() -> None:
        async for _ in EspeakTTS().speak(texts("word " * 5000)):
            started.set()

    task = asyncio.get_running_loop().create_task(speak())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == 0


async def test_text_is_never_an_option_or_a_command() -> None:
    sound = await say(EspeakTTS(), "--help; rm -rf $(HOME)")
    assert sum(one.frame.duration_ms for one in sound) > 500
    with pytest.raises(ConfigError, match="no voice"):
        await say(EspeakTTS(), "Hello.", voice="-w/tmp/elsewhere.wav")


async def test_what_they_do_not_have() -> None:
    with pytest.raises(BadResponse, match="does not exist"):
        await say(EspeakTTS("klingon7"), "Hello.")
    with pytest.raises(BadResponse, match="English only"):
        await say(FliteTTS(), "Hallo.", language="de")
    with pytest.raises(ConfigError, match="no voice of flite"):
        FliteTTS("nobody")
    with pytest.raises(Unavailable):
        async for _ in output_of("espeak", ("/nowhere/espeak-ng",), "Hello."):
            pass


@pytest.mark.time_limit(50)
async def test_a_program_that_never_speaks_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roomkit.providers.program.FIRST_BYTE_S", 0.2)
    with pytest.raises(Unavailable, match="does not speak"):
        async for _ in output_of("espeak", ("sleep", "60"), "Hello."):
            pass
    assert children() == 0


def test_a_missing_program_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt-get install espeak-ng"):
        EspeakTTS()


def test_by_name() -> None:
    assert find_provider("espeak:de", "tts").name == "espeak"
    assert find_provider("flite:rms", "tts").rate == 16_000


async def test_who_stops_listening_in_the_middle_of_much_sound_is_not_kept_waiting() -> None:
    """The process is ahead, with its pipe full: that is how a caller hangs up on a long reply."""
    async with aclosing(EspeakTTS().speak(texts("A long story about a small town by the sea. " * 20))) as stream:
        async for _ in stream:
            break
        await asyncio.sleep(0.5)
        await asyncio.wait_for(stream.aclose(), 5)  # type: ignore[attr-defined]
    assert children() == 0


async def test_a_program_that_has_ended_before_it_was_heard_out_leaves_no_pipe_open() -> None:
    """Its process is gone, but what it has said waits in a pipe that nobody reads."""
    pipes = psutil.Process().num_fds()
    stream = output_of("python", [sys.executable, "-c", "print('x' * 180_000)"], "")
    await anext(stream)
    while children():  # It fits into the pipe and the reader's own buffer: the program does not wait for us.
        await asyncio.sleep(0.01)
    await stream.aclose()
    await asyncio.sleep(0.05)
    assert psutil.Process().num_fds() == pipes
