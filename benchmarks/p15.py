"""P15: from the end of speech to the first sound of the answer, when recogniser, brain and voice answer at once."""

from __future__ import annotations

import asyncio
import statistics
import time

from benchmarks.calls import Line, phone
from benchmarks.measure import Figure, Meter, Report
from benchmarks.peer_voice import compared
from roomkit.models.audio import SpeechEnded, SpeechStarted

TITLE = "end of speech to first reply audio, our share"


async def run(meter: Meter) -> Report:
    times = [await _turn() for _ in range(meter.size(40, 2))]
    slow = meter.speed()
    median = statistics.median(times)
    report = Report(
        [
            Figure("median", median, "ms", 10.0, reference=median / slow),
            Figure("p90", sorted(times)[int(len(times) * 0.9)], "ms"),
        ],
        ("beyond the silence that ends a turn; message, guards, commit, turn, reply, splitting and pacing included",),
    )
    return compared(meter, report, "turn", 10, {"first": ("last transcript to first sound", "ms")})


async def _turn() -> float:
    line = Line()
    kit, channel = phone(line)
    async with kit:
        session = line.call()
        line.speaks(session, "a question", 0, 400)
        await channel.answer(session)
        hearing = channel._calls[session.id].hearing
        hearing.noticed(SpeechStarted(0))
        await asyncio.sleep(0.3)
        began = time.perf_counter()
        hearing.noticed(SpeechEnded(0, 500, 300))
        while not line.first_sound:
            await asyncio.sleep(0)
        return (line.first_sound - began) * 1000
