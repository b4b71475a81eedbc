"""Time has two sources only: the loop's clock for durations, one injected `Clock` for stamps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the calendar time that is written into records."""

    def now(self) -> datetime:
        """The present moment, timezone-aware, in UTC."""
        ...


class SystemClock:
    """The machine's own calendar time."""

    __slots__ = ()

    def now(self) -> datetime:
        return datetime.now(UTC)


def monotonic() -> float:
    """Seconds on the running loop's clock, for durations. Raises `RuntimeError` outside a running loop."""
    return asyncio.get_running_loop().time()


async def idle(seconds: float) -> None:
    """Sleeps, for housekeeping that comes round for ever: where nothing else is left to happen, a loop with virtual
    time does not go on for its sake."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(seconds, _end, over)
    idly: Callable[[asyncio.TimerHandle], None] | None = getattr(loop, "idly", None)
    if idly is not None:
        idly(timer)
    try:
        await over
    finally:
        timer.cancel()


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
