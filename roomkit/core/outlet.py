"""Outlet: what one connection still has to be told, written at once while it keeps up, buffered while it does not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Generic, TypeVar

from roomkit.runtime import CoalescingBuffer, Scope, TaskFailure, monotonic
from roomkit.runtime.bounded import resume
from roomkit.runtime.eager import Eager

T = TypeVar("T")
Launch = Callable[..., asyncio.Task[Any] | None]
"""`Eager.launch`, or that of a burst."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutletOptions(Generic[T]):
    """What the outlets of one group have in common.

    `capacity` bounds the backlog in the unit of `size`; `merge` joins two adjacent items or returns None. A write
    that takes longer than `timeout_s` seconds is a strike, and another one after each further `timeout_s`. An outlet
    ends at once when others wait behind such a write, and otherwise at `strikes` in a row.
    """

    capacity: int
    merge: Callable[[T, T], T | None]
    size: Callable[[T], int]
    timeout_s: float = 5.0
    strikes: int = 3


class Outlet(Generic[T]):
    """One connection's way out. `push` never waits: it writes inline as long as the connection takes it (D50); under
    back-pressure one writer goes on while later items wait in a bounded buffer, merged where they can be.

    Whatever `send(item)` raises ends the outlet, as do a full buffer and a stalled write: then `on_end` is called,
    once, with "failed: ...", "overflow", "stalled" or "slow", and with the items that were not, or not surely, taken.
    After `close` it is not.
    """

    __slots__ = (
        "_buffer",
        "_due",
        "_group",
        "_on_end",
        "_pending",
        "_send",
        "_slow",
        "_strikes",
        "_task",
        "_writing",
        "closed",
    )

    def __init__(
        self,
        group: Outlets[T],
        send: Callable[[T], Awaitable[None]],
        on_end: Callable[[str, list[T]], None],
    ) -> None:
        self._group = group
        self._send = send
        self._on_end = on_end
        self._buffer: CoalescingBuffer[T] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._pending: T | None = None
        self._due = 0.0
        self._strikes = 0
        self._slow = False
        self._writing = False
        self.closed = False

    @property
    def idle(self) -> bool:
        """Whether everything pushed so far has been taken."""
        return not self._writing

    @property
    def backlog(self) -> int:
        """What waits behind the write under way, in the unit of `size`."""
        return 0 if self._buffer is None else self._buffer.filled

    def push(self, item: T, launch: Launch | None = None) -> None:
        """Writes `item` after everything pushed before, by a `launch` of the caller's; dropped once closed."""
        if self._writing:
            self._keep(item)
        elif not self.closed:
            self._writing = True
            launch = launch or self._group.eager.launch
            try:
                writing = self._send(item)
                if type(writing) is not CoroutineType:
                    writing = _as_coroutine(writing)
                task = launch(writing, self)
            except BaseException as error:
                self._writing = False
                if not isinstance(error, Exception):
                    raise
                self._failed(error, item)
                return
            if task is None and not self._buffer:
                self._writing = False
                self._strikes = 0
            else:
                self._waits(task, item, launch)

    def _waits(self, task: asyncio.Task[Any] | None, item: T, launch: Launch) -> None:
        """The write of `item` is under way in a task, or has made others that are still to be written."""
        if task is not None:
            self._begins(item)
        else:
            task = launch(self.go_on())
        self._task = task
        if task is not None and not self.closed:
            self._group.watch(self)

    def _begins(self, item: T) -> None:
        """The write of `item` is under way, and takes its time."""
        self._due = monotonic() + self._group.options.timeout_s
        self._pending = None if self.closed else item

    def close(self) -> None:
        """Drops what waits and stops the write under way, unless that is the one that closes."""
        self.closed = True
        if self._buffer is not None:
            self._buffer.clear()
        self._group.forget(self)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def look(self, now: float) -> float:
        """Judges the write under way at loop time `now`; returns when to look again."""
        if now >= self._due:
            options = self._group.options
            self._due += options.timeout_s
            self._slow = True
            self._strikes += 1
            if self.backlog or self._strikes >= options.strikes:
                self._end("stalled" if self.backlog else "slow")
        return self._due

    def _keep(self, item: T) -> None:
        if self.closed:
            return
        if self._buffer is None:  # made only for those who need it: most connections never do
            options = self._group.options
            self._buffer = CoalescingBuffer(options.capacity, merge=options.merge, size=options.size)
        if not self._buffer.offer(item):
            self._end("overflow", last=item)

    def _end(self, reason: str, *, last: T | None = None) -> None:
        if self.closed:
            return
        unsent = [] if self._pending is None else [self._pending]
        while self._buffer is not None and len(self._buffer):
            item = self._buffer.take_nowait()
            if item is not None:
                unsent.append(item)
        if last is not None:
            unsent.append(last)
        self.close()
        self._on_end(reason, unsent)

    async def go_on(self, begun: Coroutine[Any, Any, None] | None = None, waiting: Any = None) -> None:
        """Writes until nothing is left, after the write that has `begun` and had to wait."""
        try:
            if begun is not None:
                await resume(begun, waiting)
            self._judged()
            while self._buffer is not None and (left := self._next(self._buffer)) is not None:
                await self._send(left)
                self._judged()
        except Exception as error:  # noqa: BLE001 - a connection's boundary: whatever its send raises ends it, and only it
            self._failed(error)
        finally:
            self._writing = False
            self._task = self._pending = None
            self._group.forget(self)

    def _failed(self, error: Exception, item: T | None = None) -> None:
        log.debug("a connection could not be written to", exc_info=error)
        if self._pending is None:
            self._pending = item
        self._end(f"failed: {type(error).__name__}")

    def _judged(self) -> None:
        """A write has been taken; one in time makes good for slow ones before it."""
        if not self._slow:
            self._strikes = 0
        self._slow = False

    def _next(self, buffer: CoalescingBuffer[T]) -> T | None:
        """What is written next."""
        left = None if self.closed else buffer.take_nowait()
        if left is not None:
            self._begins(left)
        return left


class Outlets(Generic[T]):
    """The outlets of one owner: they share options, the tasks that wait, and one watcher while any write is pending."""

    def __init__(self, name: str, options: OutletOptions[T]) -> None:
        self.options = options
        self._scope = Scope(name, on_failure=_ignore)
        self.eager = Eager(self._scope)
        self._waiting: dict[Outlet[T], None] = {}
        self._watcher: asyncio.Task[None] | None = None

    def push(self, outlets: Sequence[Outlet[T]], item: T) -> None:
        """Pushes `item` to each of them."""
        if len(outlets) > 1:
            with self.eager.burst() as burst:
                launch = burst.run
                for outlet in outlets:
                    outlet.push(item, launch)
        elif outlets:
            outlets[0].push(item)

    def watch(self, outlet: Outlet[T]) -> None:
        """A write of this outlet is under way from now on."""
        self._waiting[outlet] = None
        if self._watcher is None and not self._scope.closed:
            self._watcher = self._scope.spawn(self._watch(), name="slow connections")

    def forget(self, outlet: Outlet[T]) -> None:
        self._waiting.pop(outlet, None)

    async def aclose(self) -> None:
        """Stops every write under way."""
        await self._scope.aclose()

    async def _watch(self) -> None:
        try:
            while self._waiting:
                now = monotonic()
                due = min(outlet.look(now) for outlet in tuple(self._waiting))
                await asyncio.sleep(max(due - now, 0.05))
        finally:
            self._watcher = None


async def _as_coroutine(writing: Awaitable[None]) -> None:
    await writing


def _ignore(_: TaskFailure) -> None:
    """The scope has logged it; an outlet reports its own end."""
