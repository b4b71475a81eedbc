"""Audio transports in tests: the far ends of calls, with loudspeakers that play in real time of their loop, and the
conformance kit for `VoiceBackend`.

    await check_voice_backend(connect)      # connect(listen_only) -> (backend, far end)

The kit needs no pytest: it raises `AssertionError` with what is wrong.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from roomkit.errors import SessionEnded, StateError
from roomkit.models.audio import FRAME_MS, AudioFrame, VoiceSession
from roomkit.ports.audio import BackendEvent, VoiceBackend
from roomkit.runtime import Scope, Wakeup, monotonic
from roomkit.voice.courtesy import turn_away


class Loudspeaker:
    """Plays what it is given, one piece after the other, at the pace of its loop's clock. A piece without samples is a
    mark. `heard` is everything that has sounded."""

    def __init__(self, rate: int, told: Callable[[Any], None] = lambda _: None) -> None:
        self.rate = rate
        self._told = told
        self._queue: deque[tuple[bytes, Any]] = deque()
        self._heard = bytearray()
        self._at = 0.0
        """Until when it has played."""

    def add(self, pcm: bytes, mark: Any = None) -> None:
        self.play()
        if not self._queue:
            self._at = max(self._at, monotonic())
        self._queue.append((pcm, mark))
        self.play()

    def clear(self) -> list[Any]:
        """Falls silent; the marks that were never reached."""
        self.play()
        marks = [mark for _, mark in self._queue if mark is not None]
        self._queue.clear()
        return marks

    def play(self) -> None:
        """Whole samples that have sounded by now are heard; marks that were reached are told."""
        now = monotonic()
        while self._queue:
            pcm, mark = self._queue[0]
            count = min(int((now - self._at) * self.rate + 1e-6), len(pcm) // 2)
            if count < len(pcm) // 2:
                if count > 0:
                    self._heard += pcm[: count * 2]
                    self._at += count / self.rate
                    self._queue[0] = (pcm[count * 2 :], mark)
                return
            self._heard += pcm
            self._at += count / self.rate
            self._queue.popleft()
            if mark is not None:
                self._told(mark)

    @property
    def heard(self) -> bytes:
        self.play()
        return bytes(self._heard)


class FarEnd(Protocol):
    """The other side of one call of the transport under test."""

    session: VoiceSession

    async def say(self, pcm: bytes) -> None:
        """One 20 ms frame at the session's rate."""
        ...

    def heard(self) -> int:
        """How many samples that were not silence have sounded at the caller's ear."""
        ...

    async def hang_up(self) -> None: ...


class MemoryLine:
    """A `SocketLine` without a network; `put` is the far end's side, `on_sent` hears what our side sends."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.on_sent: Callable[[str | bytes], None] = lambda _: None
        self._came: deque[str | bytes | None] = deque()
        self._wake = Wakeup()

    def put(self, message: str | bytes | None) -> None:
        self._came.append(message)
        self._wake.set()

    async def receive(self) -> str | bytes | None:
        while not self._came:
            await self._wake.wait()
        return self._came.popleft()

    async def send(self, data: str | bytes) -> None:
        if self.code is not None:
            raise SessionEnded("the far end has gone")
        self.on_sent(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.code is None:
            self.code = code
            self.put(None)


class FakePage:
    """A browser's half of `WebAudioBackend`, as `voice.js` behaves: it plays, forgets at `clear` and reports what has
    sounded every `report_s` seconds. `put` takes what it says to the server."""

    def __init__(
        self, put: Callable[[str | bytes], None], session: VoiceSession | None = None, report_s: float = 0.04
    ) -> None:
        self.session = session or VoiceSession("page")
        self.speaker = Loudspeaker(16_000)
        self.clears = 0
        self.told: list[dict[str, Any]] = []
        self._put = put
        self._position = 0
        self._before = 0
        self._reported = -1
        self._report_s = report_s

    def take(self, message: str | bytes) -> None:
        """What the server says."""
        if isinstance(message, bytes):
            self.speaker.add(message)
            return
        frame = json.loads(message)
        self.told.append(frame)
        if frame["type"] == "clear":
            self.speaker.clear()
            self._before, self.clears, self._reported = len(self.speaker.heard) // 2, frame["epoch"], -1

    async def report(self) -> None:
        """Reports until cancelled."""
        while True:
            await asyncio.sleep(self._report_s)
            position = len(self.speaker.heard) // 2 - self._before
            if position != self._reported:
                self._reported = position
                self._put(json.dumps({"type": "played", "epoch": self.clears, "position": position}))

    async def say(self, pcm: bytes) -> None:
        self._put(struct.pack("<I", self._position) + pcm)
        self._position += len(pcm) // 2

    def heard(self) -> int:
        return loud(self.speaker.heard)

    async def hang_up(self) -> None:
        self._put(json.dumps({"type": "bye"}))


def loud(pcm: bytes) -> int:
    """How many samples are louder than the noise of a telephone line."""
    values = memoryview(pcm).cast("h")
    return sum(1 for value in values if abs(value) > 200)


def sound(samples: int, rate: int) -> bytes:
    """A square wave of 250 Hz: every sample is loud."""
    half = rate // 500
    return b"".join(struct.pack("<h", 8_000 if at // half % 2 else -8_000) for at in range(samples))


Connect = Callable[[bool], Awaitable[tuple[VoiceBackend, FarEnd]]]


async def check_voice_backend(connect: Connect, *, slack_ms: float = 120.0, share: float = 0.9) -> None:
    """Proves that a transport carries sound both ways, knows what has really sounded, falls silent when told, lets
    callers hear that they are turned away, and ends calls. `connect(listen_only)` makes a live call; each is hung up.
    `slack_ms` is how late the transport may know what has sounded; `share` is how much of a sound must arrive (codecs
    and resamplers take a little)."""
    await _hears(connect, share)
    await _plays(connect, slack_ms, share)
    await _falls_silent(connect, slack_ms, share)
    await _keeps_monitors_silent(connect)
    await _turns_away(connect, share)
    await _ends(connect)


async def _hears(connect: Connect, share: float) -> None:
    backend, far = await connect(False)
    rate, size = far.session.rate, far.session.rate * FRAME_MS // 1000
    assert rate == backend.traits.rate, f"session.rate is {rate}, the transport's is {backend.traits.rate}"
    got: list[AudioFrame] = []
    async with Scope("check") as scope:
        scope.spawn(_collect(backend, far.session, got), name="receive")
        for _ in range(25):
            await far.say(sound(size, rate))
            await asyncio.sleep(FRAME_MS / 1000)
        await asyncio.sleep(0.3)
        came = sum(loud(frame.pcm) for frame in got)
        assert came >= share * 25 * size, f"of {25 * size} samples that were said {came} came"
        assert all(frame.rate == rate for frame in got), "a frame has another rate than the session"
        ends = [frame.position for frame in got]
        assert ends == sorted(set(ends)), "positions of what was heard do not grow"
        await backend.hang_up(far.session)


async def _plays(connect: Connect, slack_ms: float, share: float) -> None:
    backend, far = await connect(False)
    rate, size = far.session.rate, far.session.rate * FRAME_MS // 1000
    assert backend.played(far.session) == 0, "something has sounded before anything was sent"
    counts = [0]
    for number in range(50):
        await backend.send_audio(far.session, AudioFrame(sound(size, rate), rate, number * size))
        await asyncio.sleep(FRAME_MS / 1000)
        counts.append(backend.played(far.session))
        assert counts[-1] <= (number + 1) * size, "more has sounded than was sent"
    assert counts == sorted(counts), "the count of what has sounded goes back"
    late = 50 * size - counts[-1]
    assert late <= (slack_ms + 100) * rate / 1000, f"what has sounded is known {late * 1000 / rate:.0f} ms late"
    await asyncio.sleep(0.5)
    assert backend.played(far.session) == 50 * size, "what was sent is never played to its end"
    assert far.heard() >= share * 50 * size, f"of {50 * size} samples {far.heard()} sounded"
    await backend.hang_up(far.session)


async def _falls_silent(connect: Connect, slack_ms: float, share: float) -> None:
    backend, far = await connect(False)
    rate, size = far.session.rate, far.session.rate * FRAME_MS // 1000
    for number in range(40):
        await backend.send_audio(far.session, AudioFrame(sound(size, rate), rate, number * size))
    await asyncio.sleep(0.3)
    known, before = backend.played(far.session), far.heard()
    assert known <= before / share + slack_ms * rate / 1000, f"{before} samples sounded, {known} are said to have"
    await backend.clear(far.session)
    at_clear, before = backend.played(far.session), far.heard()
    assert before < 30 * size, "sound is played faster than it lasts"
    assert abs(at_clear - before / share) <= slack_ms * rate / 1000 + (1 - share) * before, (
        f"{before} samples sounded before clear, {at_clear} are said to have"
    )
    await asyncio.sleep(0.6)
    more = far.heard() - before
    assert more <= size + slack_ms * rate / 1000 * (share < 1), f"{more} more samples sounded after clear"
    assert backend.played(far.session) == at_clear, "what clear forgot counts as played"
    for number in range(20):
        await backend.send_audio(far.session, AudioFrame(sound(size, rate), rate, number * size))
    await asyncio.sleep(0.9)
    done = backend.played(far.session) - at_clear
    assert done == 20 * size, f"after clear, {done} of {20 * size} samples count as played"
    await backend.clear(far.session)
    await backend.hang_up(far.session)


async def _keeps_monitors_silent(connect: Connect) -> None:
    backend, far = await connect(True)
    rate, size = far.session.rate, far.session.rate * FRAME_MS // 1000
    got: list[AudioFrame] = []
    async with Scope("check") as scope:
        scope.spawn(_collect(backend, far.session, got), name="receive")
        for _ in range(10):
            await far.say(sound(size, rate))
            await asyncio.sleep(FRAME_MS / 1000)
        await backend.send_audio(far.session, AudioFrame(sound(size, rate), rate))
        await asyncio.sleep(0.3)
        assert not any(any(frame.pcm) for frame in got), "a monitor is heard"
        await backend.hang_up(far.session)


async def _turns_away(connect: Connect, share: float) -> None:
    backend, far = await connect(False)
    told: list[AudioFrame] = []
    async with Scope("check") as scope:
        reading = scope.spawn(_collect(backend, far.session, told), name="receive")
        await asyncio.sleep(0)
        await turn_away(backend, far.session, StateError("nobody takes it"))
        heard = far.heard() * 1000 / far.session.rate
        assert heard > 150 * share, f"who is turned away hears {heard:.0f} ms of the notes that say so"
        await asyncio.wait_for(reading, 10)
        await _refuses(backend, far.session)


async def _ends(connect: Connect) -> None:
    backend, far = await connect(False)
    got: list[AudioFrame] = []
    async with Scope("check") as scope:
        reading = scope.spawn(_collect(backend, far.session, got), name="receive")
        await asyncio.sleep(0)
        await backend.hang_up(far.session)
        await backend.hang_up(far.session)
        await asyncio.wait_for(reading, 2)
        await _refuses(backend, far.session)
        await backend.clear(far.session)
        backend, far = await connect(False)
        told: list[BackendEvent] = []
        leave = backend.on_event(told.append)
        reading = scope.spawn(_collect(backend, far.session, got), name="receive")
        await asyncio.sleep(0)
        await far.hang_up()
        await asyncio.wait_for(reading, 10)
        assert "disconnected" in [event.kind for event in told], "nobody is told that the caller has gone"
        await _refuses(backend, far.session)
        leave()
        leave()
        await backend.hang_up(far.session)
    await backend.aclose()
    await backend.aclose()


async def _refuses(backend: VoiceBackend, session: VoiceSession) -> None:
    try:
        await backend.send_audio(session, AudioFrame(bytes(session.rate * FRAME_MS // 500), session.rate))
    except SessionEnded:
        return
    raise AssertionError("send_audio does not raise SessionEnded after the end of the call")


async def _collect(backend: VoiceBackend, session: VoiceSession, into: list[AudioFrame]) -> None:
    async for frame in backend.receive(session):
        into += (frame,)
