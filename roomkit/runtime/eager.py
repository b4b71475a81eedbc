"""Eager: runs a coroutine at once, in the caller's turn of the loop, and needs a task only if it really suspends.

Most deliveries and socket writes finish without waiting for anything, and a task wake-up costs more than they do.
A parked *carrier* task lends its identity for the first step (through asyncio's documented hooks for task
implementations), so that `asyncio.timeout`, `current_task()` and cancellation bind to the task that will go on
driving the coroutine if it suspends.
"""

from __future__ import annotations

import asyncio
from asyncio import tasks as _tasks
from collections.abc import Coroutine, Generator
from typing import Any

from roomkit.runtime.scope import Scope

_Coro = Coroutine[Any, Any, Any]
_enter: Any = _tasks._enter_task  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
_leave: Any = _tasks._leave_task  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
MAX_PARKED = 64


class _Resume:
    """Goes on driving a coroutine that has already yielded `waiting`."""

    __slots__ = ("coro", "waiting")

    def __init__(self, coro: _Coro, waiting: Any) -> None:
        self.coro = coro
        self.waiting = waiting

    def __await__(self) -> Generator[Any, Any, Any]:
        waiting = self.waiting
        while True:
            try:
                sent = yield waiting
            except BaseException as error:
                step, value = self.coro.throw, error
            else:
                step, value = self.coro.send, sent
            try:
                waiting = step(value)
            except StopIteration as stop:
                return stop.value


class _Carrier:
    """A parked task. `task` is None until the first coroutine that needs it is about to run."""

    __slots__ = ("job", "owner", "task", "wake")

    def __init__(self, owner: Eager) -> None:
        self.owner = owner
        self.job: _Resume | None = None
        self.wake: asyncio.Future[None] | None = None
        self.task = owner.scope.spawn(self._run(), name="eager")

    async def _run(self) -> None:
        while True:
            while self.job is None:
                self.wake = asyncio.get_running_loop().create_future()
                try:
                    await self.wake
                except asyncio.CancelledError as cancelled:
                    if self.job is None:
                        raise
                    job, self.job = self.job, None
                    job.waiting = _Cancelled(cancelled)
                    self.job = job
            job, self.job = self.job, None
            await _drive(job)
            if not self.owner.park(self):
                return


class _Cancelled:
    """Stands for a wait that was cancelled before the carrier could take it over."""

    def __init__(self, error: asyncio.CancelledError) -> None:
        self.error = error


async def _drive(job: _Resume) -> Any:
    if isinstance(job.waiting, _Cancelled):
        try:
            job.waiting = job.coro.throw(job.waiting.error)
        except StopIteration as stop:
            return stop.value
    return await job


class Eager:
    """Starts coroutines in place. Failures of suspended ones reach the scope like those of any task."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._parked: list[_Carrier] = []

    def start(self, coro: _Coro) -> bool:
        """Runs `coro` up to its first suspension; True when it has finished. What it raises in that first step is
        raised here; what it raises later reaches the scope. The coroutine's result is dropped: let it report itself."""
        loop = asyncio.get_running_loop()
        carrier = self._parked.pop() if self._parked else _Carrier(self)
        current = asyncio.current_task(loop)
        if current is not None:
            _leave(loop, current)
        _enter(loop, carrier.task)
        try:
            waiting = coro.send(None)
        except StopIteration:
            self.park(carrier)
            return True
        except BaseException:
            self.park(carrier)
            raise
        finally:
            _leave(loop, carrier.task)
            if current is not None:
                _enter(loop, current)
        carrier.job = _Resume(coro, waiting)
        if carrier.wake is not None and not carrier.wake.done():
            carrier.wake.set_result(None)
        return False

    def park(self, carrier: _Carrier) -> bool:
        """Keeps an idle carrier for the next coroutine; False when there are enough."""
        if carrier.task.done() or len(self._parked) >= MAX_PARKED:
            return False
        self._parked.append(carrier)
        return True
