"""P19: speech-to-speech: what we add to the delay both ways, how soon the model falls silent, CPU a call."""

from __future__ import annotations

import asyncio
import statistics
import time
import tracemalloc
from typing import Any

from benchmarks.measure import Figure, Meter, Report
from benchmarks.peer_voice import compared
from roomkit import RoomKit
from roomkit.channels import RealtimeVoiceChannel
from roomkit.models import realtime as rt
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.models.realtime import RealtimeCommand
from roomkit.ports.realtime import RealtimeTraits
from roomkit.voice.realtime.mock import IN_BAND, MockRealtimeProvider, MockRealtimeTransport, MockSession

TITLE = "speech-to-speech calls: our share of the delay, barge-in, CPU"
ROWS = {
    "up": ("a caller's frame to the model", "ms"),
    "down": ("the model's first sound to the line", "ms"),
    "cut": ("the caller speaks, until the line is cleared", "ms"),
}


class _Stamped(MockRealtimeTransport):
    """Notes when sound leaves, and when it is called back."""

    def __init__(self) -> None:
        super().__init__()
        self.sent_at = self.cleared_at = 0.0

    async def send_audio(self, session: VoiceSession, frame: AudioFrame) -> None:
        self.sent_at = self.sent_at or time.perf_counter()
        await super().send_audio(session, frame)

    async def clear(self, session: VoiceSession) -> None:
        self.cleared_at = time.perf_counter()
        await super().clear(session)


class _Ear(MockSession):
    heard_at = 0.0

    async def send(self, command: RealtimeCommand) -> None:
        if isinstance(command, rt.AppendAudio):
            self.heard_at = time.perf_counter()
        else:
            await super().send(command)


class _Model(MockRealtimeProvider):
    async def connect(self, config: Any, *, resume: str | None = None) -> MockSession:
        self.sessions.append(_Ear(config, resume, len(self.sessions) + 1))
        return self.session


async def run(meter: Meter) -> Report:
    up: list[float] = []
    down: list[float] = []
    cut: list[float] = []
    for _ in range(meter.size(20, 2)):
        for times, took in zip((up, down, cut), await _delays(), strict=True):
            times.append(took)
    slow = meter.speed()
    calls, seconds = meter.size(20, 2), meter.size(6, 1)
    share = await _live(calls, seconds)
    cost = share / calls * 100
    figures = [
        Figure(name, statistics.median(times), "ms", target, reference=statistics.median(times) / slow)
        for name, times, target in (
            ("a caller's frame to the model", up, 2.0),
            ("the model's first sound to the line", down, 5.0),
            ("the caller speaks, until the line is cleared", cut, 20.0),
        )
    ]
    figures.append(Figure("one live call, both ways, 16 and 24 kHz", cost, "% core", 2.0, reference=cost / slow))
    figures.append(Figure("one more idle session, what it allocates", await _memory(meter.size(40, 3)), "KB", 1024.0))
    report = Report(figures, (f"{calls} calls at once in real time took {share:.0%} of a core",))
    report = compared(meter, report, "realtime", 10, ROWS)
    return compared(meter, report, "live", 20, {"share": ("one live call, both ways", "% core")})


async def _house(line: MockRealtimeTransport) -> tuple[RoomKit, RealtimeVoiceChannel, _Model]:
    model = _Model(traits=RealtimeTraits(reconfigures=IN_BAND))
    channel = RealtimeVoiceChannel("voice", provider=model, transport=line)
    kit = RoomKit()
    return kit, channel, model


async def _delays() -> tuple[float, float, float]:
    line = _Stamped()
    kit, channel, model = await _house(line)
    async with kit:
        kit.register_channel(channel)
        room = await kit.create_room()
        session = await channel.start_session(room.id, "caller", None)
        ear = model.session
        assert isinstance(ear, _Ear)
        line.say(session, b"\1\0" * 320)
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        ear.heard_at = 0.0
        line.say(session, b"\1\0" * 320)
        await asyncio.sleep(0.05)
        up = (ear.heard_at - began) * 1000
        began = time.perf_counter()
        ear.says("some words that take a while to be said", ms=4_000)
        await asyncio.sleep(0.5)
        down = (line.sent_at - began) * 1000
        line.cleared_at = 0.0
        began = time.perf_counter()
        ear.emit(rt.SpeechBegan("u"))
        await asyncio.sleep(0.1)
        return up, down, (line.cleared_at - began) * 1000


async def _memory(count: int) -> float:
    kit, channel, _ = await _house(MockRealtimeTransport())
    async with kit:
        kit.register_channel(channel)
        room = await kit.create_room()
        await channel.start_session(room.id, "first", None)  # what is loaded once is nobody's own
        rooms = [await kit.create_room() for _ in range(count)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for room in rooms:
            await channel.start_session(room.id, f"p-{room.id}", None)
        await asyncio.sleep(0.1)
        each = (tracemalloc.get_traced_memory()[0] - before) / count / 1024
        tracemalloc.stop()
        return each


async def _live(count: int, seconds: int) -> float:
    line = MockRealtimeTransport()
    kit, channel, model = await _house(line)
    async with kit:
        kit.register_channel(channel)
        sessions: list[VoiceSession] = []
        for number in range(count):
            room = await kit.create_room()
            sessions.append(await channel.start_session(room.id, f"p{number}", None))
        for ear in model.sessions:
            ear.says("words " * 40, ms=seconds * 1000 + 1_000)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(seconds * 50):
            for session in sessions:
                line.say(session, b"\1\0" * 320)
            await asyncio.sleep(0.0185)
        return (time.process_time() - cpu) / (time.perf_counter() - wall)
