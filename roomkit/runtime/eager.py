"""Eager: runs a coroutine at once, in the caller's turn of the loop, and needs a task only if it really suspends.

Most deliveries and socket writes finish without waiting for anything, and a task wake-up costs more than they do.
A parked *carrier* task lends its identity for the first step, so that `asyncio.timeout`, `current_task()` and
cancellation bind to the task that will go on driving the coroutine if it suspends. All steps of a coroutine run in one
context of its own, a copy of the caller's, so that a context variable set in the first step is still there in the last
one, and nowhere else.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import tasks as _tasks
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Protocol, Self, TypeVar, cast

from roomkit.runtime.bounded import Step, first_steps, resume
from roomkit.runtime.scope import Scope

T = TypeVar("T")
_Coro = Coroutine[Any, Any, Any]
_asyncio: Any = _tasks

if sys.version_info >= (3, 12):
    running: Any = asyncio.current_task
    _swap = _asyncio._swap_current_task
else:
    _running = _asyncio._current_tasks
    running = _running.get
    """(loop) -> the task that runs in it, or None: `asyncio.current_task` is plain Python before 3.12."""

    def _swap(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> asyncio.Task[Any] | None:
        """Makes `task` the one that runs in `loop`, and returns the one that was."""
        before = _running.get(loop)
        if task is None:
            del _running[loop]
        else:
            _running[loop] = task
        return before


MAX_PARKED = 64


class Rest(Protocol):
    """What is to be done around a coroutine only if it has to wait."""

    def go_on(self, begun: _Coro, waiting: Any) -> _Coro:
        """The coroutine that goes on with one whose first step waits for `waiting`: it awaits `resume(begun, waiting)`
        before anything else."""
        ...


class _Job:
    """A coroutine that has already yielded `waiting`; `cancelled` while nobody was driving it. Its steps run in
    `context`."""

    __slots__ = ("cancelled", "context", "coro", "waiting")

    def __init__(self, coro: _Coro, waiting: Any, context: Context) -> None:
        self.coro = coro
        self.waiting = waiting
        self.context = context
        self.cancelled: asyncio.CancelledError | None = None

    def send(self, value: Any) -> Any:
        return self.context.run(self.coro.send, value)

    def throw(self, error: BaseException) -> Any:
        return self.context.run(self.coro.throw, error)

    def close(self) -> None:
        self.context.run(self.coro.close)


class _Carrier:
    """A parked task. `task` is None until the first coroutine that needs it is about to run."""

    __slots__ = ("at", "job", "owner", "steps", "task", "wake")

    def __init__(self, owner: Eager) -> None:
        self.owner = owner
        self.at = Step()
        self.steps: Any = None
        self.job: _Job | None = None
        self.wake: asyncio.Future[None] | None = None
        self.task = owner.scope.spawn(self._run(), name="eager")
        self.task.add_done_callback(self._abandoned)

    def begin(self) -> Any:
        """Makes what takes the first steps here, and tells of them by `at`."""
        self.at = Step()
        steps: Any = first_steps(self.at)
        self.steps = steps
        next(steps)
        return steps

    def go_on(self, waiting: Any, context: Context, rest: Rest | None) -> None:
        """Takes over what `steps` has begun, and waits for `waiting`."""
        begun, self.steps = self.steps, None
        self.at.last = True
        if rest is not None:
            begun = rest.go_on(begun, waiting)
            context.run(begun.send, None)
        self.job = _Job(begun, waiting, context)
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)

    def _abandoned(self, task: asyncio.Task[None]) -> None:
        """Cancelled before its first turn, the task cannot pass the cancellation on: it is done here."""
        job, self.job = self.job, None
        if job is not None:
            try:
                job.throw(asyncio.CancelledError())
            except (StopIteration, asyncio.CancelledError):  # swallows cancellation: it was made here, for the job
                return
            job.close()

    async def _run(self) -> None:
        while True:
            while self.job is None:
                self.wake = asyncio.get_running_loop().create_future()
                try:
                    await self.wake
                except asyncio.CancelledError as cancelled:
                    if self.job is None:
                        raise
                    self.job.cancelled = cancelled
            job, self.job = self.job, None
            await _drive(job)
            if not self.owner.park(self):
                return


async def _drive(job: _Job) -> Any:
    if job.cancelled is not None:
        try:
            job.waiting = job.throw(job.cancelled)
        except StopIteration as stop:
            return stop.value
    return await resume(cast("_Coro", job), job.waiting)


class Eager:
    """Starts coroutines in place. Failures of suspended ones reach the scope like those of any task."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._parked: list[_Carrier] = []

    def start(self, coro: _Coro) -> bool:
        """Runs `coro` up to its first suspension; True when it has finished. What it raises in that first step is
        raised here; what it raises later reaches the scope. The coroutine's result is dropped: let it report itself."""
        return self.launch(coro) is None

    def launch(self, coro: _Coro, rest: Rest | None = None) -> asyncio.Task[Any] | None:
        """As `start`, but returns the task that goes on with `coro`, or None when it has finished."""
        loop = asyncio.get_running_loop()
        parked = self._parked
        carrier = parked.pop() if parked else _Carrier(self)
        steps, task = carrier.steps or carrier.begin(), carrier.task
        context = copy_context()
        caller = _swap(loop, task)
        try:
            waiting = context.run(steps.send, coro)
        except BaseException:
            carrier.steps = None
            self.park(carrier)
            raise
        finally:
            _swap(loop, caller)
        if waiting is not carrier.at:
            carrier.go_on(waiting, context, rest)
            return task
        if not task.done() and len(parked) < MAX_PARKED:
            parked.append(carrier)
        return None

    def burst(self) -> Burst:
        """`start` for many coroutines in a row: `with eager.burst() as burst: burst.run(coro)`."""
        return Burst(self)

    def take(self) -> _Carrier:
        return self._parked.pop() if self._parked else _Carrier(self)

    def park(self, carrier: _Carrier) -> bool:
        """Keeps an idle carrier for the next coroutine; False when there are enough, or will be none."""
        if carrier.task.done() or len(self._parked) >= MAX_PARKED or self.scope.closed:
            return False
        self._parked.append(carrier)
        return True


class Burst:
    """Starts many coroutines in a row for little more than they cost themselves: as long as they finish at once they
    share one carrier and one context. Nothing may be awaited inside."""

    __slots__ = ("_caller", "_carrier", "_context", "_loop", "_owner")

    def __init__(self, owner: Eager) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._carrier = owner.take()
        self._context = copy_context()

    def __enter__(self) -> Self:
        self._caller = _swap(self._loop, self._carrier.task)
        return self

    def __exit__(self, *_: object) -> None:
        _swap(self._loop, self._caller)
        self._owner.park(self._carrier)

    def set(self, variable: ContextVar[T], value: T) -> None:
        """What the next coroutines see, until one suspends: that one keeps this context."""
        self._context.run(variable.set, value)

    def within(self, work: Callable[..., T], *args: Any) -> T:
        """Does some work where the next coroutines run: it may take first steps of some by itself, up to one that
        suspends, which then goes on within `run`."""
        return self._context.run(work, *args)

    def run(self, coro: _Coro, rest: Rest | None = None) -> asyncio.Task[Any] | None:
        """As `Eager.launch`."""
        carrier = self._carrier
        steps = carrier.steps or carrier.begin()
        try:
            waiting = self._context.run(steps.send, coro)
        except BaseException:
            carrier.steps = None
            raise
        if waiting is carrier.at:
            return None
        self._carrier = fresh = self._owner.take()
        context, self._context = self._context, copy_context()
        _swap(self._loop, fresh.task)
        carrier.go_on(waiting, context, rest)
        return carrier.task
