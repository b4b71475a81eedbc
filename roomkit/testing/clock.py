"""Calendar time that follows the virtual loop."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class VirtualClock:
    """Says `start` (default 2030-01-01 00:00 UTC) plus the time of the loop.

    Without `loop` it follows the running one; give the loop if it is also read from threads or outside a loop.
    """

    __slots__ = ("_loop", "start")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, *, start: datetime = EPOCH) -> None:
        self._loop = loop
        self.start = start

    def now(self) -> datetime:
        return self.start + timedelta(seconds=(self._loop or asyncio.get_running_loop()).time())
