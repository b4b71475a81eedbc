"""Time has two sources only: the loop's clock for durations, one injected `Clock` for stamps."""

from __future__ import annotations

import asyncio
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
