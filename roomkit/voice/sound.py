"""Sounds to be played in a call, as frames: key tones, WAV files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from roomkit.dsp.framing import Reblock
from roomkit.dsp.pcm import silence
from roomkit.dsp.sound import read_wav, tone
from roomkit.models.audio import FRAME_MS, AudioFrame

PAUSE_MS = 80


async def tones(keys: str, duration_ms: int, rate: int) -> AsyncIterator[AudioFrame]:
    """The tones of `keys`, with pauses between them, as 20 ms frames."""
    pcm = b"".join(tone(key, duration_ms, rate) + silence(rate * PAUSE_MS // 1000) for key in keys)
    async for frame in frames(pcm, rate):
        yield frame


async def frames(pcm: bytes, rate: int) -> AsyncIterator[AudioFrame]:
    """Samples as 20 ms frames; the last one filled up with silence."""
    cutter = Reblock(rate * FRAME_MS // 1000 * 2)
    position = 0
    for block in (*cutter.push(pcm), cutter.flush()):
        if block:
            yield AudioFrame(block, rate, position)
            position += len(block) // 2


async def frames_of(path: str | Path, rate: int) -> AsyncIterator[AudioFrame]:
    """A WAV file as 20 ms frames at `rate` Hz, read by a thread."""
    pcm = await asyncio.to_thread(read_wav, path, rate)
    async for frame in frames(pcm, rate):
        yield frame
