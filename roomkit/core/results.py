"""What a caller gets back, and how it can wait for all that follows."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field

from roomkit.errors import UsageError
from roomkit.models.event import RoomEvent
from roomkit.runtime import bounded


class Settlement:
    """Counts the deliveries and replies that one inbound event has set off, chains of replies included."""

    __slots__ = ("_pending", "_waiters", "errors")

    def __init__(self) -> None:
        self._pending = 0
        self._waiters: list[asyncio.Future[None]] = []
        self.errors: list[str] = []

    def begin(self) -> None:
        self._pending += 1

    def end(self) -> None:
        self._pending -= 1
        if self._pending == 0:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    @property
    def done(self) -> bool:
        return self._pending == 0

    async def wait(self) -> None:
        while self._pending:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter


CURRENT: ContextVar[Settlement | None] = ContextVar("roomkit_settlement", default=None)
"""The settlement whose lane or turn the running code is part of."""


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

        Raises `TimeoutError`, or `UsageError` when called from inside its own delivery or reply, where it
        could never come true."""
        if CURRENT.get() is self.settlement:
            raise UsageError("settled() was awaited inside its own delivery or turn and would wait for itself; drop it")
        if timeout is None:
            await self.settlement.wait()
        else:
            await bounded(self.settlement.wait(), timeout, "settled()")
        return self
