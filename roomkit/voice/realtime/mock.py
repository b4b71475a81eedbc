"""A model and a line that do as they are told, for trying speech-to-speech without a vendor and without a sound card.

provider, transport = MockRealtimeProvider(), MockRealtimeTransport()
channel = RealtimeVoiceChannel("voice", provider=provider, transport=transport)
session = await channel.start_session(room.id, "caller", connection=None)
model = provider.session
model.hears("where is my order?")
model.says("It is on its way.", ms=900)
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from roomkit.errors import ProviderError, SessionEnded, Unavailable
from roomkit.models import realtime as rt
from roomkit.models.ai import ToolCallPart, Usage
from roomkit.models.audio import FRAME_MS, AudioFrame, VoiceSession
from roomkit.models.realtime import RealtimeCommand, RealtimeConfig, RealtimeEvent
from roomkit.ports.audio import BackendEvent, BackendTraits
from roomkit.ports.realtime import RealtimeTraits
from roomkit.runtime import BlockingBuffer, BufferClosed, DropOldestBuffer, monotonic
from roomkit.runtime.observers import Observers

IN_BAND = frozenset({"system_prompt", "tools", "temperature", "responds", "voice", "extra"})


class MockSession:
    """One connection: `told` is every command, in order; the other methods are what the model does."""

    def __init__(self, config: RealtimeConfig, resume: str | None, number: int = 1) -> None:
        self.number = number
        self.config = config
        self.resume = resume
        self.told: list[RealtimeCommand] = []
        self.closed = False
        self._events: BlockingBuffer[RealtimeEvent] = BlockingBuffer(10_000)
        self._broken: ProviderError | None = None
        self._numbers = itertools.count(1)
        self.emit(rt.SessionReady(f"mock-{number}", resumed=resume is not None))

    # -- what the model does ------------------------------------------------------------------------

    def emit(self, *events: RealtimeEvent) -> None:
        for event in events:
            self._events.try_put(event)

    def name(self, kind: str) -> str:
        """A new name for an item or a reply."""
        return f"{kind}-{self.number}-{next(self._numbers)}"

    def hears(self, text: str, *, item_id: str = "") -> str:
        """The caller speaks, falls silent, and was heard to say `text`."""
        item_id = item_id or self.name("user")
        self.emit(rt.SpeechBegan(item_id), rt.SpeechStopped(item_id), rt.UserText(item_id, text))
        return item_id

    def says(self, text: str, *, ms: int = 1_000, value: int = 1_000, over: bool = True) -> str:
        """A reply of `ms` milliseconds, all of whose samples are `value`; without `over` it goes on."""
        reply, item = self.name("reply"), self.name("item")
        rate = self.config.output_rate
        self.emit(rt.ReplyBegan(reply))
        words = text.split(" ")
        size = rate * 100 // 1000
        pcm = value.to_bytes(2, "little", signed=True) * (rate * ms // 1000)
        pieces = [pcm[at : at + size * 2] for at in range(0, len(pcm), size * 2)]
        for number, word in enumerate(words):
            self.emit(rt.ReplyText(reply, item, word if number == 0 else f" {word}"))
        for number, piece in enumerate(pieces):
            self.emit(rt.ReplyAudio(reply, item, AudioFrame(piece, rate, number * size)))
        if over:
            self.emit(rt.ReplySaid(reply, item, text), rt.ReplyOver(reply, usage=Usage(10, 20)))
        return reply

    def calls(self, *calls: tuple[str, dict[str, Any]], reply_id: str = "") -> list[str]:
        """Asks for tools; the ids of the calls."""
        reply = reply_id or self.name("reply")
        if not reply_id:
            self.emit(rt.ReplyBegan(reply))
        ids = [self.name("call") for _ in calls]
        for call_id, (name, arguments) in zip(ids, calls, strict=True):
            self.emit(rt.ToolAsked(reply, ToolCallPart(call_id=call_id, name=name, arguments=arguments)))
        self.emit(rt.ReplyOver(reply))
        return ids

    def breaks(self, error: ProviderError | None = None) -> None:
        """The connection is cut."""
        self._broken = error or Unavailable("mock", "the connection was cut")
        self._events.close()

    def of(self, kind: type[Any]) -> list[Any]:
        """The commands of one kind."""
        return [command for command in self.told if isinstance(command, kind)]

    # -- RealtimeConnection -------------------------------------------------------------------------

    async def send(self, command: RealtimeCommand) -> None:
        if self.closed or self._broken is not None:
            raise self._broken or Unavailable("mock", "the session is closed")
        self.told.append(command)
        if isinstance(command, rt.Reconfigure):
            self.config = command.config

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        while True:
            try:
                event = await self._events.get()
            except BufferClosed:
                if self._broken is not None and not self.closed:
                    raise self._broken from None
                return
            yield event

    async def aclose(self) -> None:
        self.closed = True
        self._events.clear()
        self._events.close()


class MockRealtimeProvider:
    """A `RealtimeVoiceProvider` that does nothing by itself. `sessions` are its connections, oldest first; `refusals`
    are raised by the next connections, one each."""

    name = "mock"

    def __init__(self, *, traits: RealtimeTraits | None = None) -> None:
        self.traits = traits or RealtimeTraits(reconfigures=IN_BAND)
        self.sessions: list[MockSession] = []
        self.refusals: deque[Exception] = deque()
        self.closed = False

    @property
    def session(self) -> MockSession:
        """The newest connection."""
        return self.sessions[-1]

    async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> MockSession:
        if self.refusals:
            raise self.refusals.popleft()
        session = MockSession(config, resume, len(self.sessions) + 1)
        self.sessions.append(session)
        return session

    async def aclose(self) -> None:
        self.closed = True
        for session in self.sessions:
            await session.aclose()


class _Line:
    def __init__(self, session: VoiceSession) -> None:
        self.session = session
        self.frames: DropOldestBuffer[AudioFrame] = DropOldestBuffer(100)
        self.queue: deque[tuple[float, AudioFrame]] = deque()
        self.position = 0
        self.free_at = 0.0
        self.done = 0
        self.heard = bytearray()
        self.over = False

    def play(self) -> None:
        now = monotonic()
        while self.queue and self.queue[0][0] <= now + 1e-9:
            _, frame = self.queue.popleft()
            self.done += frame.samples
            self.heard += frame.pcm


_REMEMBERED = 16
"""Calls that are over of which the transport still knows what was heard."""


class MockRealtimeTransport:
    """A `VoiceBackend` without a wire. What it is given sounds at the pace of the loop's clock; `say` is the caller."""

    def __init__(self, *, rate: int = 16_000) -> None:
        self.traits = BackendTraits(rate=rate)
        self.clears = 0
        self.refusals: deque[Exception] = deque()
        self.connections: list[Any] = []
        self._lines: dict[str, _Line] = {}
        self._ended: dict[str, _Line] = {}
        self._observers = Observers[BackendEvent]()

    def __len__(self) -> int:
        return len(self._lines)

    async def accept(self, session: VoiceSession, connection: Any) -> None:
        """The far end of `session` is there."""
        if self.refusals:
            raise self.refusals.popleft()
        session.rate = self.traits.rate
        self.connections.append(connection)
        self._lines[session.id] = _Line(session)

    def say(self, session: VoiceSession, pcm: bytes) -> None:
        """The caller's voice, at the transport's rate."""
        line = self._lines[session.id]
        if not session.listen_only:
            line.frames.push(AudioFrame(pcm, session.rate, line.position))
        line.position += len(pcm) // 2

    async def speak(self, session: VoiceSession, ms: int, value: int = 500) -> None:
        """The caller says something for `ms`, at the pace of sound."""
        size = session.rate * FRAME_MS // 1000
        for _ in range(ms // FRAME_MS):
            self.say(session, value.to_bytes(2, "little", signed=True) * size)
            await asyncio.sleep(FRAME_MS / 1000)

    def heard(self, session: VoiceSession) -> bytes:
        """Everything that has sounded at the caller's ear, also when they have been hung up since."""
        line = self._lines.get(session.id) or self._ended[session.id]
        line.play()
        return bytes(line.heard)

    def disconnects(self, session: VoiceSession) -> None:
        """The far end goes away."""
        self._end(session)
        self._observers.tell(BackendEvent("disconnected", session))

    def _end(self, session: VoiceSession) -> None:
        line = self._lines.get(session.id)
        if line is not None:
            line.over = True
            line.frames.close()

    # -- VoiceBackend -------------------------------------------------------------------------------

    async def receive(self, session: VoiceSession) -> AsyncIterator[AudioFrame]:
        line = self._lines.get(session.id)
        if line is not None:
            async for frame in line.frames:
                yield frame

    async def send_audio(self, session: VoiceSession, frame: AudioFrame) -> None:
        line = self._lines.get(session.id)
        if line is None or line.over:
            raise SessionEnded(f"call {session.id} is over")
        line.free_at = max(line.free_at, monotonic()) + frame.duration_ms / 1000
        line.queue.append((line.free_at, frame))

    async def clear(self, session: VoiceSession) -> None:
        self.clears += 1
        line = self._lines.get(session.id)
        if line is not None:
            line.play()
            line.queue.clear()
            line.free_at = monotonic()

    def played(self, session: VoiceSession) -> int:
        line = self._lines.get(session.id)
        if line is None:
            return 0
        line.play()
        return line.done

    def on_event(self, observer: Callable[[BackendEvent], None]) -> Callable[[], None]:
        return self._observers.join(observer)

    async def hang_up(self, session: VoiceSession) -> None:
        self._end(session)
        line = self._lines.pop(session.id, None)
        if line is not None:
            line.play()
            line.queue.clear()
            self._ended[session.id] = line
            if len(self._ended) > _REMEMBERED:
                del self._ended[next(iter(self._ended))]

    async def aclose(self) -> None:
        for line in tuple(self._lines.values()):
            await self.hang_up(line.session)
