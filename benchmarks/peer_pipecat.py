"""The workloads of voice on Pipecat: a script for a Python that has it (`--peer-python`), never imported here.

Its pipelines have stages that do nothing, and parts that answer at once; there is no network. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from loguru import logger
from pipecat.audio.utils import create_stream_resampler
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    OutputAudioRawFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

logger.remove()
RATE, STAGES = 16_000, 10
ANSWER = (
    "This is an answer of some length, so that there is something to interrupt. ",
    "It has a second sentence, too, and that goes on for a while.",
)


def sound(kind: Any, rate: int = RATE, **more: Any) -> Any:
    return kind(audio=b"\1\0" * (rate // 50), sample_rate=rate, num_channels=1, **more)


class Straight(FrameProcessor):
    async def process_frame(self, frame: Any, direction: Any) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Blocks(Straight):
    """Keeps the loop for 2 ms with every frame of sound."""

    async def process_frame(self, frame: Any, direction: Any) -> None:
        if isinstance(frame, OutputAudioRawFrame):
            time.sleep(0.002)
        await super().process_frame(frame, direction)


class End(Straight):
    """Notes what comes out."""

    seen = 0
    sent_at = cut_at = 0.0

    async def process_frame(self, frame: Any, direction: Any) -> None:
        if isinstance(frame, OutputAudioRawFrame):
            self.seen += 1
            self.sent_at = self.sent_at or time.perf_counter()
        elif isinstance(frame, InterruptionFrame):
            self.cut_at = self.cut_at or time.perf_counter()
        await super().process_frame(frame, direction)


class Brain(Straight):
    async def process_frame(self, frame: Any, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            await self.push_frame(LLMFullResponseStartFrame())
            for words in ANSWER:
                await self.push_frame(LLMTextFrame(words))
            await self.push_frame(LLMFullResponseEndFrame())


class Voice(TTSService):
    def __init__(self) -> None:
        settings = TTSSettings(model="none", voice="none", language="en")
        super().__init__(sample_rate=RATE, push_start_frame=True, push_stop_frames=True, settings=settings)

    async def run_tts(self, text: str, context_id: str) -> Any:
        for _ in range(100):
            yield sound(TTSAudioRawFrame, context_id=context_id)


class Model(Straight):
    """Stands where a speech-to-speech service does."""

    heard_at = 0.0

    async def process_frame(self, frame: Any, direction: Any) -> None:
        if isinstance(frame, InputAudioRawFrame):
            self.heard_at = time.perf_counter()
            await FrameProcessor.process_frame(self, frame, direction)
        else:
            await super().process_frame(frame, direction)

    async def says(self, seconds: float, *, paced: bool) -> None:
        for _ in range(int(seconds * 50)):
            await self.push_frame(sound(TTSAudioRawFrame, 24_000))
            if paced:
                await asyncio.sleep(0.0185)


async def begun(*stages: Any) -> tuple[Any, Any]:
    task = PipelineTask(Pipeline(list(stages)), idle_timeout_secs=None, enable_turn_tracking=False)
    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    await asyncio.sleep(0.3)
    return task, running


async def stage(count: int) -> dict[str, float]:
    """Microseconds of CPU that a stage which does nothing takes for a frame."""
    return {"each": (await _through(6, count) - await _through(0, count)) / 6}


async def _through(stages: int, count: int) -> float:
    end, taken = End(), list[float]()
    task, _ = await begun(*(Straight() for _ in range(stages)), end)
    for _ in range(5):
        before, began = end.seen, time.process_time()
        for _ in range(count):
            await task.queue_frame(sound(OutputAudioRawFrame))
        while end.seen < before + count:
            await asyncio.sleep(0)
        taken.append((time.process_time() - began) / count * 1e6)
    return sorted(taken)[2]


async def idle(count: int) -> dict[str, float]:
    """KB of memory for one more pipeline of ten stages that do nothing."""
    kept = [await begun(*(Straight() for _ in range(STAGES)))]
    await asyncio.sleep(1)
    before = resident()
    kept += [await begun(*(Straight() for _ in range(STAGES))) for _ in range(count)]
    await asyncio.sleep(2)
    return {"each": (resident() - before) / count}


async def turn(count: int) -> dict[str, float]:
    """Milliseconds from the last transcript to the first sound, and from an interruption to the end of ten stages, idle
    and with half a second of sound in stages that block."""
    first, cut, behind = list[float](), list[float](), list[float]()
    for _ in range(count):
        end = End()
        task, _ = await begun(Brain(), Voice(), end)
        began = time.perf_counter()
        await task.queue_frame(TranscriptionFrame("a question", "caller", "now"))
        await asyncio.sleep(0.5)
        first.append((end.sent_at - began) * 1000)
        for kind, times in ((Straight, cut), (Blocks, behind)):
            end = End()
            task, _ = await begun(*(kind() for _ in range(STAGES)), end)
            for _ in range(25):
                await task.queue_frame(sound(OutputAudioRawFrame))
            await asyncio.sleep(0.3 if kind is Straight else 0.01)
            began = time.perf_counter()
            await task.queue_frame(InterruptionFrame())
            while not end.cut_at:
                await asyncio.sleep(0.001)
            times.append((end.cut_at - began) * 1000)
    return {name: statistics.median(times) for name, times in (("first", first), ("cut", cut), ("behind", behind))}


async def realtime(count: int) -> dict[str, float]:
    """Speech-to-speech, in milliseconds: caller to model, model to line, caller speaks until silence."""
    up, down, cut = list[float](), list[float](), list[float]()
    for _ in range(count):
        model, end = Model(), End()
        task, _ = await begun(model, end)
        await task.queue_frame(sound(InputAudioRawFrame))
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        await task.queue_frame(sound(InputAudioRawFrame))
        await asyncio.sleep(0.05)
        up.append((model.heard_at - began) * 1000)
        began = time.perf_counter()
        await model.says(4, paced=False)
        await asyncio.sleep(0.2)
        down.append((end.sent_at - began) * 1000)
        began = time.perf_counter()
        await model.broadcast_interruption()
        await asyncio.sleep(0.1)
        cut.append((end.cut_at - began) * 1000)
    return {"up": statistics.median(up), "down": statistics.median(down), "cut": statistics.median(cut)}


async def live(count: int) -> dict[str, float]:
    """Speech-to-speech: the share of a core that one call takes, by the sound that went up in it."""
    models = [Model() for _ in range(count)]
    tasks = [(await begun(model, End()))[0] for model in models]
    speaking = [asyncio.create_task(model.says(10, paced=True)) for model in models]
    cpu = time.process_time()
    for _ in range(200):
        for task in tasks:
            await task.queue_frame(sound(InputAudioRawFrame))
        await asyncio.sleep(0.0185)
    share = (time.process_time() - cpu) / (200 * 0.02) / count * 100
    for one in speaking:
        one.cancel()
    return {"share": share}


async def chain(count: int) -> dict[str, float]:
    """Microseconds of CPU a 20 ms frame: resample and speech in, resample out; it brings no echo cancellation."""
    near, far = sys.stdin.buffer.read(2 * 48_000 * 2), sys.stdin.buffer.read(2 * RATE * 2)
    down, up, speech = create_stream_resampler(), create_stream_resampler(), SileroVADAnalyzer(sample_rate=RATE)
    speech.set_sample_rate(RATE)
    began = time.process_time()
    for number in range(count):
        at = number % 100
        await up.resample(far[640 * at : 640 * at + 640], RATE, 48_000)
        heard = await down.resample(near[1920 * at : 1920 * at + 1920], 48_000, RATE)
        if heard:
            await speech.analyze_audio(heard)
    return {"frame": (time.process_time() - began) / count * 1e6}


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4


async def main(what: str, count: int) -> None:
    known = {"stage": stage, "idle": idle, "turn": turn, "realtime": realtime, "live": live, "chain": chain}
    print(json.dumps(await known[what](count) if what in known else {}), flush=True)
    os._exit(0)  # pipelines that nobody ended would be complained about


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
