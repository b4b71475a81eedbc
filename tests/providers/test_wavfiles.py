"""A recorded caller: what it hears is written beside what it said, at its place in time."""

from __future__ import annotations

import asyncio
import itertools
import wave
from pathlib import Path

import numpy as np

from roomkit.dsp.pcm import silence
from roomkit.dsp.sound import tone
from roomkit.models.audio import AudioFrame
from roomkit.providers.wavfiles.audio import WavBackend
from roomkit.testing.voice import FarEnd, check_voice_backend, loud


def write(path: Path, pcm: bytes, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)
    return path


async def test_a_call_ends_when_nothing_is_said_any_more_and_both_sides_are_kept(tmp_path: Path) -> None:
    backend = WavBackend(linger_s=1)
    session = backend.call(write(tmp_path / "in.wav", tone("1", 500, 16_000)), out=tmp_path / "out.wav")
    loop = asyncio.get_running_loop()
    began, frames = loop.time(), 0
    async for frame in backend.receive(session):
        frames += 1
        if frames == 50:
            await backend.send_audio(session, AudioFrame(tone("5", 20, 16_000), 16_000))
            assert backend.played(session) == 0
        if frames == 60:
            assert backend.played(session) == 320
        assert frame.samples == 320
    assert 2.0 <= loop.time() - began <= 2.1
    await backend.hang_up(session)
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 16_000)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.abs(both[:8_000, 0]).max() > 10_000
    loud = np.nonzero(both[:, 1])[0] / 16_000
    assert 0.95 <= loud.min() <= 1.0
    assert loud.max() <= 1.02


class Caller:
    """The far end of one call: says more of its file, and knows what has sounded."""

    def __init__(self, backend: WavBackend, path: Path, *, listen_only: bool) -> None:
        self.session = backend.call(path, session_id=f"wav-{next(_numbers)}")
        self.session.listen_only = listen_only
        self._call = backend._calls[self.session.id]
        self._backend = backend

    async def say(self, pcm: bytes) -> None:
        now = int((asyncio.get_running_loop().time() - self._call.began) * 50) * 640
        self._call.pcm = self._call.pcm.ljust(now + 640, b"\0")[: now + 640] + pcm

    def heard(self) -> int:
        self._backend.played(self.session)
        return sum(loud(pcm) for _, pcm in self._call.heard)

    async def hang_up(self) -> None:
        self._call.linger_s = 0.0


_numbers = itertools.count()


async def test_it_is_a_transport_like_any_other(tmp_path: Path) -> None:
    path = write(tmp_path / "in.wav", silence(320))

    async def connect(listen_only: bool) -> tuple[WavBackend, FarEnd]:
        backend = WavBackend()
        caller = Caller(backend, path, listen_only=listen_only)
        caller._call.out = tmp_path / "out.wav"  # so that what is heard is kept
        return backend, caller

    await check_voice_backend(connect, slack_ms=20, share=0.9)


async def test_clear_forgets_what_is_not_played(tmp_path: Path) -> None:
    backend = WavBackend()
    session = backend.call(write(tmp_path / "in.wav", silence(16_000)))
    for _ in range(10):
        await backend.send_audio(session, AudioFrame(silence(320), 16_000))
    await asyncio.sleep(0.1)
    await backend.clear(session)
    await asyncio.sleep(1)
    assert backend.played(session) == 5 * 320
