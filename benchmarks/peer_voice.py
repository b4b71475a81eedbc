"""The workloads of voice on Pipecat, in an environment of its own: pipelines whose stages do nothing."""

from __future__ import annotations

import json
import subprocess
import tempfile
from typing import Literal

from benchmarks.measure import Figure, Meter, Report

_CODE = """
import asyncio, gc, json, time
from loguru import logger
logger.remove()
from pipecat.frames.frames import EndFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.processors.frame_processor import FrameProcessor

class Straight(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)

class Counts(Straight):
    seen = 0
    async def process_frame(self, frame, direction):
        if isinstance(frame, OutputAudioRawFrame):
            self.seen += 1
        await super().process_frame(frame, direction)

def made(*stages):
    task = PipelineTask(Pipeline(list(stages)), idle_timeout_secs=None, enable_turn_tracking=False)
    return task, asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4

async def stage(stages, count):
    end = Counts()
    task, running = made(*(Straight() for _ in range(stages)), end)
    await asyncio.sleep(0.5)
    taken = []
    for _ in range(5):
        before, began = end.seen, time.process_time()
        for _ in range(count):
            await task.queue_frame(OutputAudioRawFrame(audio=bytes(640), sample_rate=16000, num_channels=1))
        while end.seen < before + count:
            await asyncio.sleep(0)
        taken.append((time.process_time() - began) / count * 1e6)
    await task.queue_frame(EndFrame())
    await running
    return sorted(taken)[2]

async def idle(count):
    runs = [made(*(Straight() for _ in range(10)))]
    await asyncio.sleep(1)
    before = resident()
    runs += [made(*(Straight() for _ in range(10))) for _ in range(count)]
    await asyncio.sleep(2)
    each = (resident() - before) / count
    for task, _ in runs:
        await task.cancel()
    await asyncio.gather(*(running for _, running in runs), return_exceptions=True)
    return each

async def main(what, count):
    if what == "idle":
        print(json.dumps(await idle(count)))
    else:
        print(json.dumps((await stage(6, count) - await stage(0, count)) / 6))
"""


def compared(
    meter: Meter, report: Report, what: Literal["stage", "idle"], count: int, figure: str, unit: str
) -> Report:
    """Adds Pipecat's figure and how many times ours it is, or why it is not compared."""
    found = _measure(meter, what, meter.size(count, 3))
    if isinstance(found, str):
        return Report(report.figures, (*report.notes, f"Pipecat: not compared ({found})"))
    ratio = Figure("times as much as here", found / max(report.figures[0].value, 1e-9), "x", better="higher")
    return Report([*report.figures, Figure(f"Pipecat: {figure}", found, unit), ratio], report.notes)


def _measure(meter: Meter, what: str, count: int) -> float | str:
    if meter.peer_python is None:
        return "give --peer-python with pipecat-ai in its environment"
    code = f"{_CODE}\nasyncio.run(main({what!r}, {count}))\n"
    try:
        done = subprocess.run(
            [meter.peer_python, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=tempfile.gettempdir(),
        )
        return float(json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError, TypeError) as error:
        return f"pipecat-ai is not there, or its run failed: {type(error).__name__}"
