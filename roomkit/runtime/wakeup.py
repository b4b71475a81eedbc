"""A level-triggered signal for one waiting task."""

from __future__ import annotations

import asyncio

from roomkit.errors import UsageError


class Wakeup:
    """`set()` any number of times wakes the one waiter once; a signal given while nobody waits is kept.

    Waiting consumes the signal. A waiter cancelled after the signal leaves it in place for the next wait.
    """

    __slots__ = ("_set", "_waiter")

    def __init__(self) -> None:
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        """Gives the signal. Must be called on the waiter's loop thread."""
        self._set = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """Returns when the signal is there, at once if it was given before, and clears it.

        Raises `UsageError` if another task is waiting already.
        """
        if not self._set:
            if self._waiter is not None:
                raise UsageError(
                    "a Wakeup serves one waiting task, and one is waiting already; give each its own Wakeup"
                )
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._set = False
