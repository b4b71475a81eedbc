"""P14: from the signal of speech to a line that is silent, idle and beside user code that blocks the loop."""

from __future__ import annotations

import asyncio
import statistics
import time

from benchmarks.calls import Line, phone
from benchmarks.measure import Figure, Meter, Report
from benchmarks.peer_voice import compared
from roomkit.models.audio import SpeechStarted
from roomkit.models.voice import SpeechStart

TITLE = "interruption: speech signal to silent playout"
BLOCKING_S = 0.002
OBSERVERS = 10


async def run(meter: Meter) -> Report:
    idle = [await _interrupt(blocking=False) for _ in range(meter.size(15, 1))]
    behind = [await _interrupt(blocking=True) for _ in range(meter.size(10, 1))]
    meter.speed()
    report = Report(
        [
            Figure("idle, median", statistics.median(idle), "ms", 2.0),
            Figure(f"behind {OBSERVERS} observers that block {BLOCKING_S * 1000:.0f} ms each, median",
                   statistics.median(behind), "ms", 20.0),
            Figure("worst of all", max(*idle, *behind), "ms"),
        ],
        ("wall time on the live loop, from the pipeline's signal to the transport's clear",),
    )  # fmt: skip
    rows = {"cut": ("idle, ten stages or its session", "ms"), "behind": ("behind ten stages that block", "ms")}
    return compared(meter, report, "turn", 10, rows)


async def _interrupt(*, blocking: bool) -> float:
    line = Line()
    kit, channel = phone(line)
    async with kit:
        if blocking:
            for _ in range(OBSERVERS):
                kit.on(SpeechStart)(_block)
        session = line.call()
        await channel.answer(session)
        await channel.say(session, "A long announcement that somebody will interrupt before it has come to its end.")
        await asyncio.sleep(0.5)
        call = channel._calls[session.id]
        began = time.perf_counter()
        call.hearing.noticed(SpeechStarted(0))
        while not line.silent:
            await asyncio.sleep(0)
        return (line.silent - began) * 1000


async def _block(_: SpeechStart) -> None:
    time.sleep(BLOCKING_S)
