"""The workloads of voice on LiveKit Agents: a script for a Python that has it (`--peer-python`), never imported here.

Recogniser, brain and voice answer at once; there is no room and no network. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession, inference, llm, stt, tts
from livekit.agents.voice import io

logging.disable(logging.CRITICAL)
RATE = 16_000


def frame(rate: int = RATE) -> Any:
    return rtc.AudioFrame(b"\1\0" * (rate // 50), rate, 1, rate // 50)


class Line(io.AudioInput):
    def __init__(self) -> None:
        super().__init__(label="line")
        self.frames: asyncio.Queue[Any] = asyncio.Queue()

    async def __anext__(self) -> Any:
        return await self.frames.get()


class Mouth(io.AudioOutput):
    """Notes when sound comes, and when it is called back."""

    def __init__(self) -> None:
        super().__init__(label="mouth", capabilities=io.AudioOutputCapabilities(pause=False))
        self.sent_at = self.cleared_at = 0.0

    async def capture_frame(self, frame: Any) -> None:
        await super().capture_frame(frame)
        self.sent_at = self.sent_at or time.perf_counter()

    def flush(self) -> None:
        super().flush()

    def clear_buffer(self) -> None:
        self.cleared_at = time.perf_counter()
        self.flush()
        self.on_playback_finished(playback_position=0.1, interrupted=True)


class Brain(llm.LLM):
    def chat(self, **_: Any) -> Any:
        raise NotImplementedError


class Stt(stt.STT):
    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))

    async def _recognize_impl(self, buffer: Any, **_: Any) -> Any:
        raise NotImplementedError


class Tts(tts.TTS):
    def __init__(self) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=RATE, num_channels=1)

    def synthesize(self, text: str, **_: Any) -> Any:
        raise NotImplementedError


class Talks(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="none")
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    async def stt_node(self, audio: Any, settings: Any) -> Any:
        async def drain() -> None:
            async for _ in audio:
                pass

        draining = asyncio.create_task(drain())
        try:
            while True:
                yield await self.heard.get()
        finally:
            draining.cancel()

    async def llm_node(self, ctx: Any, tools: Any, settings: Any) -> Any:
        yield "This is an answer of some length, so that there is something to interrupt. "
        yield "It has a second sentence, too, and that goes on for a while."

    async def tts_node(self, text: Any, settings: Any) -> Any:
        async for _ in text:
            for _ in range(100):
                yield frame()


class Model(llm.RealtimeModel):
    def __init__(self) -> None:
        yes, no = True, False
        super().__init__(
            capabilities=llm.RealtimeCapabilities(
                message_truncation=yes,
                turn_detection=yes,
                user_transcription=no,
                auto_tool_reply_generation=no,
                audio_output=yes,
                manual_function_calls=no,
            )
        )
        self.sessions: list[Any] = []

    def session(self, **_: Any) -> Any:
        self.sessions.append(Ear(self))
        return self.sessions[-1]

    async def aclose(self) -> None: ...


class Ear(llm.RealtimeSession):
    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.heard_at = 0.0
        self._context, self._tools = llm.ChatContext.empty(), llm.ToolContext.empty()

    chat_ctx = property(lambda self: self._context)
    tools = property(lambda self: self._tools)

    def push_audio(self, frame: Any) -> None:
        self.heard_at = time.perf_counter()

    async def update_chat_ctx(self, chat_ctx: Any) -> None:
        self._context = chat_ctx

    async def update_instructions(self, instructions: str) -> None: ...
    async def update_tools(self, tools: Any) -> None: ...
    async def aclose(self) -> None: ...
    def update_options(self, **_: Any) -> None: ...
    def push_video(self, frame: Any) -> None: ...
    def commit_audio(self) -> None: ...
    def clear_audio(self) -> None: ...
    def interrupt(self) -> None: ...
    def truncate(self, **_: Any) -> None: ...
    def generate_reply(self, **_: Any) -> Any:
        raise NotImplementedError

    def says(self, seconds: float, *, paced: bool) -> None:
        async def text() -> Any:
            yield "some words that take a while to be said"

        async def audio() -> Any:
            for _ in range(int(seconds * 50)):
                yield frame(24_000)
                if paced:
                    await asyncio.sleep(0.0185)

        async def messages() -> Any:
            kinds = asyncio.get_running_loop().create_future()
            kinds.set_result(["audio", "text"])
            yield llm.MessageGeneration("m", text(), audio(), kinds)

        async def functions() -> Any:
            for nothing in ():
                yield nothing

        self.emit("generation_created", llm.GenerationCreatedEvent(messages(), functions(), False))


async def begun(model: Model | None = None, **more: Any) -> tuple[Any, Any, Line, Mouth]:
    if model is None:
        turns = {"turn_detection": "stt", "endpointing": {"min_delay": 0, "max_delay": 0}}
        more = {"stt": Stt(), "tts": Tts(), "turn_handling": turns, **more}
    session: Any = AgentSession(llm=model or Brain(), **{"vad": None, **more})
    line, mouth = Line(), Mouth()
    session.input.audio, session.output.audio = line, mouth
    agent = Agent(instructions="none") if model else Talks()
    await session.start(agent, record=False)
    return session, agent, line, mouth


async def turn(count: int) -> dict[str, float]:
    """Milliseconds from the end of speech to the first sound, and from `interrupt` to the silence."""
    session, agent, _, mouth = await begun()
    await asyncio.sleep(0.2)
    first, cut = list[float](), list[float]()
    for _ in range(count):
        mouth.sent_at = mouth.cleared_at = 0.0
        began = time.perf_counter()
        said = [stt.SpeechData(language="en", text="a question")]
        agent.heard.put_nowait(stt.SpeechEvent(type=stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=said))
        agent.heard.put_nowait(stt.SpeechEvent(type=stt.SpeechEventType.END_OF_SPEECH))
        await asyncio.sleep(0.4)
        first.append((mouth.sent_at - began) * 1000)
        began = time.perf_counter()
        session.interrupt()
        await asyncio.sleep(0.2)
        cut.append((mouth.cleared_at - began) * 1000)
    return {"first": statistics.median(first), "cut": statistics.median(cut)}


async def realtime(count: int) -> dict[str, float]:
    """Speech-to-speech, in milliseconds: caller to model, model to line, caller speaks until silence."""
    up, down, cut = list[float](), list[float](), list[float]()
    for _ in range(count):
        model = Model()
        session, _, line, mouth = await begun(model)
        await asyncio.sleep(0.1)
        ear = model.sessions[0]
        line.frames.put_nowait(frame())
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        line.frames.put_nowait(frame())
        await asyncio.sleep(0.05)
        up.append((ear.heard_at - began) * 1000)
        began, mouth.sent_at = time.perf_counter(), 0.0
        ear.says(4, paced=False)
        await asyncio.sleep(0.5)
        down.append((mouth.sent_at - began) * 1000)
        began, mouth.cleared_at = time.perf_counter(), 0.0
        ear.emit("input_speech_started", llm.InputSpeechStartedEvent())
        await asyncio.sleep(0.1)
        cut.append((mouth.cleared_at - began) * 1000)
        await session.aclose()
    return {"up": statistics.median(up), "down": statistics.median(down), "cut": statistics.median(cut)}


async def live(count: int) -> dict[str, float]:
    """Speech-to-speech: the share of a core that one call takes, by the sound that went up in it."""
    model = Model()
    calls = [await begun(model) for _ in range(count)]
    for ear in model.sessions:
        ear.says(10, paced=True)
    cpu = time.process_time()
    for _ in range(200):
        for _, _, line, _ in calls:
            line.frames.put_nowait(frame())
        await asyncio.sleep(0.0185)
    return {"share": (time.process_time() - cpu) / (200 * 0.02) / count * 100}


async def idle(count: int) -> dict[str, float]:
    """KB of memory for one more session that waits, with its speech detection."""
    kept = [await begun(vad=inference.VAD())]
    await asyncio.sleep(0.5)
    before = resident()
    kept += [await begun(vad=inference.VAD()) for _ in range(count)]
    await asyncio.sleep(1)
    return {"each": (resident() - before) / count}


async def chain(count: int) -> dict[str, float]:
    """Microseconds of CPU a 20 ms frame: resample, echo, gain, noise and speech in, resample out."""
    # The order and the work of benchmarks/p13.py, by the parts that LiveKit brings: its sound comes on standard input.
    near, far = sys.stdin.buffer.read(2 * 48_000 * 2), sys.stdin.buffer.read(2 * RATE * 2)
    down, up = rtc.AudioResampler(48_000, RATE), rtc.AudioResampler(RATE, 48_000)
    apm = rtc.AudioProcessingModule(
        echo_cancellation=True, noise_suppression=True, high_pass_filter=True, auto_gain_control=True
    )
    speech = inference.VAD().stream()

    async def listen() -> None:
        async for _ in speech:
            pass

    listening = asyncio.create_task(listen())
    tens = bytearray()
    began = time.process_time()
    for number in range(count):
        at = number % 100
        said = rtc.AudioFrame(far[640 * at : 640 * at + 640], RATE, 1, 320)
        up.push(said)
        for half in (0, 320):
            apm.process_reverse_stream(rtc.AudioFrame(bytearray(said.data.tobytes()[half : half + 320]), RATE, 1, 160))
        for heard in down.push(rtc.AudioFrame(near[1920 * at : 1920 * at + 1920], 48_000, 1, 960)):
            tens += heard.data.tobytes()
        while len(tens) >= 320:
            clean = rtc.AudioFrame(tens[:320], RATE, 1, 160)
            del tens[:320]
            apm.process_stream(clean)
            speech.push_frame(clean)
        await asyncio.sleep(0)
    await asyncio.sleep(0.5)
    listening.cancel()
    return {"frame": (time.process_time() - began) / count * 1e6}


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4


async def main(what: str, count: int) -> None:
    known = {"turn": turn, "realtime": realtime, "live": live, "idle": idle, "chain": chain}
    print(json.dumps(await known[what](count) if what in known else {}), flush=True)
    os._exit(0)  # the native library's threads would be waited for


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
