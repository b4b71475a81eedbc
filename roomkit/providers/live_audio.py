"""What the live audio transports have in common: their calls, who observes them, and how much has really sounded."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from roomkit.errors import RoomKitError, SessionEnded
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.ports.audio import BackendEvent, BackendTraits
from roomkit.runtime import DropOldestBuffer, monotonic
from roomkit.runtime.observers import Observers

log = logging.getLogger(__name__)
MOST_FRAMES = 100
"""Two seconds of 20 ms: a call that is heard later than that has lost the oldest."""
STEP_S = 0.1
"""How far beyond the last report of the far end the clock is trusted."""
FLOOD = 60
"""Frames a second on average (real time is 50) and `BURST` at once; what comes faster is dropped unread."""
BURST = 200
W = TypeVar("W")


class SentSound:
    """Samples handed over, and samples that have sounded, by reports of the far end. A report counts from the last
    `clear` on, and names it (`epoch`), so that one which crosses a `clear` on the wire is known as old."""

    __slots__ = ("_at", "_base", "_confirmed", "_played", "_step_s", "epoch", "rate", "sent")

    def __init__(self, rate: int, step_s: float = STEP_S) -> None:
        self.rate = rate
        self._step_s = step_s
        self.sent = 0
        self.epoch = 0
        self._base = 0
        self._confirmed = 0
        self._at = 0.0
        self._played = 0

    @property
    def position(self) -> int:
        """Samples handed over since the last `clear`: what a report will name when they have sounded."""
        return self.sent - self._base

    def confirm(self, epoch: int, position: int) -> None:
        """The far end has played `position` samples since `clear` number `epoch`."""
        if epoch == self.epoch and self._confirmed < position:
            self._confirmed = min(position, self.position)
            self._at = monotonic()

    def played(self) -> int:
        """By the last report, and by the clock for a little while since."""
        since = min(monotonic() - self._at, self._step_s) * self.rate if self._confirmed else 0.0
        self._played = max(self._played, min(self.sent, self._base + self._confirmed + int(since)))
        return self._played

    def clear(self) -> int:
        """What is not played is forgotten; the number of the new epoch."""
        self._base = self.sent = self.played()
        self._confirmed = 0
        self.epoch += 1
        return self.epoch


@dataclass(eq=False)
class LiveCall(Generic[W]):
    """One call and its wire. `lost` counts frames that came too fast or too late to be heard."""

    session: VoiceSession
    wire: W
    sound: SentSound
    frames: DropOldestBuffer[AudioFrame]
    began: float
    came: int = 0
    position: int = 0
    flooded: int = 0
    over: bool = False

    @property
    def lost(self) -> int:
        return self.flooded + self.frames.stats.dropped


class LiveBackend(Generic[W]):
    """Half of a `VoiceBackend`: a transport adds how sound leaves, how the far end forgets it, and how it hangs up."""

    def __init__(self, traits: BackendTraits) -> None:
        self.traits = traits
        self._calls: dict[str, LiveCall[W]] = {}
        self._observers = Observers[BackendEvent]()

    def __len__(self) -> int:
        return len(self._calls)

    # -- for the transport --------------------------------------------------------------------------

    def opened(self, session: VoiceSession, wire: W, step_s: float = STEP_S) -> LiveCall[W]:
        """A call is there. `session.rate` becomes the transport's."""
        session.rate = self.traits.rate
        frames: DropOldestBuffer[AudioFrame] = DropOldestBuffer(MOST_FRAMES)
        call = LiveCall(session, wire, SentSound(session.rate, step_s), frames, monotonic())
        self._calls[session.id] = call
        self.tell("connected", session)
        return call

    def take(self, call: LiveCall[W], pcm: bytes, position: int | None = None) -> None:
        """One frame of the caller's. What a monitor sends is dropped here, before anything has looked at it."""
        if call.session.listen_only or call.over:
            return
        call.came += 1
        if call.came > (monotonic() - call.began) * FLOOD + BURST:
            call.flooded += 1
            return
        at = call.position if position is None else position
        call.position = at + len(pcm) // 2
        call.frames.push(AudioFrame(pcm, call.session.rate, at))

    def gone(self, call: LiveCall[W]) -> None:
        """The far end has hung up. Idempotent."""
        if not call.over:
            call.over = True
            call.frames.close()
            self.tell("disconnected", call.session)

    async def introduce(self, call: LiveCall[W], answer: Callable[[], Awaitable[None]]) -> None:
        """Has the call taken into its room, and hangs up when the room does not take it, whatever the reason."""
        taken = False
        try:
            await answer()
            taken = True
        except RoomKitError as error:
            log.info("call %s: %s", call.session.id, error)
        finally:
            if not taken:
                call.session.refused = True
                await self.hang_up(call.session)
            if call.over:  # it went before it was taken: nobody else will hang up
                self._calls.pop(call.session.id, None)

    def tell(self, kind: str, session: VoiceSession, data: Any = None) -> None:
        self._observers.tell(BackendEvent(kind, session, data))

    async def put(self, call: LiveCall[W], frame: AudioFrame) -> None:
        """Sends one frame; `call.sound` has counted it."""
        raise NotImplementedError

    async def forget(self, call: LiveCall[W], epoch: int) -> None:
        """Makes the far end forget what it has not played."""
        raise NotImplementedError

    async def leave(self, call: LiveCall[W]) -> None:
        """Hangs up towards the far end."""
        raise NotImplementedError

    # -- VoiceBackend ---------------------------------------------------------------------------------

    async def receive(self, session: VoiceSession) -> AsyncIterator[AudioFrame]:
        call = self._calls.get(session.id)
        if call is not None:
            async for frame in call.frames:
                yield frame

    async def send_audio(self, session: VoiceSession, frame: AudioFrame) -> None:
        call = self._calls.get(session.id)
        if call is None or call.over:
            raise SessionEnded(f"call {session.id} is over")
        call.sound.sent += frame.samples
        await self.put(call, frame)

    async def clear(self, session: VoiceSession) -> None:
        call = self._calls.get(session.id)
        if call is not None and not call.over:
            epoch = call.sound.clear()
            try:
                await self.forget(call, epoch)
            except SessionEnded:
                self.gone(call)

    def played(self, session: VoiceSession) -> int:
        call = self._calls.get(session.id)
        return call.sound.played() if call is not None else 0

    def on_event(self, observer: Callable[[BackendEvent], None]) -> Callable[[], None]:
        return self._observers.join(observer)

    async def hang_up(self, session: VoiceSession) -> None:
        call = self._calls.pop(session.id, None)
        if call is not None and not call.over:
            call.over = True
            call.frames.close()
            await self.leave(call)

    async def aclose(self) -> None:
        for call in tuple(self._calls.values()):
            await self.hang_up(call.session)
