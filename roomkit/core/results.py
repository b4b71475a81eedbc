"""What a caller gets back, and how it can wait for all that follows."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from roomkit.errors import UsageError
from roomkit.models.event import RoomEvent
from roomkit.runtime import bounded


class Line(Protocol):
    """A lane of deliveries or turns: what stands in it is done one after another."""

    def works_for(self, settlement: Settlement) -> bool: ...


@dataclass(slots=True, eq=False)
class _Waiter:
    future: asyncio.Future[None]
    lane: Line | None


def _itself() -> UsageError:
    return UsageError("settled() was awaited inside its own delivery or turn and would wait for itself; drop it")


def _each_other() -> UsageError:
    return UsageError("settled() was awaited by deliveries or turns that would wait for each other; drop one of them")


def _comes_back(lane: Line, settlement: Settlement, seen: set[Line]) -> bool:
    """Whether `lane` has to go on before `settlement` can be done, by way of lanes that wait themselves."""
    if lane.works_for(settlement):
        return True
    for other, awaited in tuple(_WAITING):
        if other is None or other is lane or other in seen or not other.works_for(settlement):
            continue
        if _comes_back(lane, awaited, {*seen, other}):
            return True
    return False


class Settlement:
    """Counts the deliveries and replies that one inbound event has set off, chains of replies included."""

    __slots__ = ("_pending", "_waiters", "errors")

    def __init__(self) -> None:
        self._pending = 0
        self._waiters: list[_Waiter] = []
        self.errors: list[str] = []

    def begin(self, lane: Line | None = None) -> None:
        """One more thing to wait for; `lane` is where it will be done."""
        self._pending += 1
        if self._waiters and lane is not None:
            self._look_for_circles(lane)

    def _look_for_circles(self, lane: Line) -> None:
        """Whoever waits here for a lane that, in the end, waits for them would wait for ever."""
        for waiter in self._waiters:
            if waiter.lane is None or waiter.future.done():
                continue
            if waiter.lane is lane:
                waiter.future.set_exception(_itself())
            elif any(at is lane and _comes_back(waiter.lane, awaited, {lane}) for at, awaited in tuple(_WAITING)):
                waiter.future.set_exception(_each_other())

    def end(self) -> None:
        self._pending -= 1
        if self._pending == 0:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.future.done():
                    waiter.future.set_result(None)

    @property
    def done(self) -> bool:
        return self._pending == 0

    async def wait(self) -> None:
        """Raises `UsageError` when what is waited for comes after the caller in its own lane."""
        lane = LANE.get()
        while self._pending:
            if lane is not None and lane.works_for(self):
                raise _itself()
            if lane is not None and _comes_back(lane, self, set()):
                raise _each_other()
            waiter = _Waiter(asyncio.get_running_loop().create_future(), lane)
            self._waiters.append(waiter)
            entry = (lane, self)
            _WAITING.append(entry)
            try:
                await waiter.future
            finally:
                _WAITING.remove(entry)
                if waiter in self._waiters:
                    self._waiters.remove(waiter)


_WAITING: list[tuple[Line | None, Settlement]] = []
"""Who waits for what: the lanes among them stand still meanwhile."""
CURRENT: ContextVar[Settlement | None] = ContextVar("roomkit_settlement", default=None)
"""The settlement whose lane or turn the running code is part of."""
LANE: ContextVar[Line | None] = ContextVar("roomkit_lane", default=None)
"""The lane that does nothing else until the running code is done."""


@dataclass(slots=True)
class InboundResult:
    """The answer at the commit point (D15). `event` is None when nothing was stored; `blocked` tells a refusal by
    policy or guard, with `reason`; `duplicate` that the first event of this key is returned again."""

    event: RoomEvent | None
    room_id: str | None = None
    blocked: bool = False
    reason: str | None = None
    duplicate: bool = False
    settlement: Settlement = field(default_factory=Settlement, repr=False)

    async def settled(self, timeout: float | None = None) -> InboundResult:
        """Waits until its deliveries and the replies to it (and theirs) are done, at most `timeout` seconds.

        Raises `TimeoutError`, or `UsageError` when called from inside a delivery or reply (a tool's, a handler's)
        that it would have to wait for, be it for a message just sent, or when several of them would wait for each
        other: that could never come true."""
        if CURRENT.get() is self.settlement:
            raise _itself()
        if timeout is None:
            await self.settlement.wait()
        else:
            await bounded(self.settlement.wait(), timeout, "settled()")
        return self
