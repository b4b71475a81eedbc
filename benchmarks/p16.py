"""P16: what one more idle call costs in memory, and how many live calls one core carries in real time."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from benchmarks.calls import phone
from benchmarks.measure import Figure, Meter, Report
from benchmarks.peer_voice import compared
from benchmarks.voice_sound import babble, frames
from roomkit import AudioPipelineConfig
from roomkit.models.audio import FRAME_MS, AudioFrame, VoiceSession
from roomkit.testing.calls import FRAME, RATE, ScriptedBackend

TITLE = "idle voice sessions, and live ones on one core"
PAGE_KB = 4


async def run(meter: Meter) -> Report:
    pipeline = AudioPipelineConfig()
    each = await _memory(pipeline, meter.size(40, 3))
    slow = meter.speed()
    calls = meter.size(50, 2)
    each_s, pace = await _live(pipeline, calls, meter.size(6, 1))
    cost = each_s * 100
    report = Report(
        [
            Figure("one more idle session, with Silero", each, "KB", 1024.0),
            Figure("one live call, both ways heard", cost, "% core", 2.0, reference=cost / slow),
            Figure("calls a core carries at that", 1 / each_s, "calls", 50.0, better="higher"),
        ],
        (f"{calls} calls ran at once, the caller speaking half of the time; they kept {pace:.0%} of the pace of time",),
    )
    return compared(meter, report, "idle", 20, {"each": ("one more idle session or pipeline", "KB")})


class Babbling(ScriptedBackend):
    """Callers who make the sound of speech for the first half of the time and are in a quiet room in the other."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.given = 0
        room = np.random.default_rng(1).normal(0, 15, int(RATE * seconds / 2))
        self._sound = frames(np.concatenate((babble(RATE, seconds / 2, 1), room)), RATE)

    async def receive(self, session: VoiceSession) -> AsyncIterator[AudioFrame]:
        async for frame in super().receive(session):
            said = self._sound[frame.position // FRAME % len(self._sound)]
            self.given += 1
            yield AudioFrame(said.pcm, RATE, frame.position)


def _resident_kb() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KB


async def _memory(pipeline: AudioPipelineConfig, count: int) -> float:
    line = ScriptedBackend()
    kit, channel = phone(line, pipeline)
    async with kit:
        await channel.answer(line.call("first"))  # what is loaded once is nobody's own
        await asyncio.sleep(0.5)
        before = _resident_kb()
        for number in range(count):
            await channel.answer(line.call(f"idle-{number}", participant_id=f"p{number}"))
        await asyncio.sleep(1)
        return (_resident_kb() - before) / count


async def _live(pipeline: AudioPipelineConfig, count: int, seconds: float) -> tuple[float, float]:
    """(core time for a second of one call, share of real time that was kept up with)."""
    line = Babbling(seconds)
    kit, channel = phone(line, pipeline)

    async def begin(number: int) -> None:
        session = line.call(f"live-{number}", participant_id=f"p{number}")
        await channel.answer(session)
        await channel.say(session, "An announcement that lasts about as long as this workload does, word for word.")

    async with kit:
        await asyncio.gather(*(begin(number) for number in range(count)))
        cpu, wall, given = time.process_time(), time.perf_counter(), line.given
        await asyncio.sleep(seconds)
        # By the sound that was worked on, not by the clock: on a busy machine less of it is done than time passes.
        heard = (line.given - given) * FRAME_MS / 1000
        return (time.process_time() - cpu) / heard, heard / count / (time.perf_counter() - wall)
