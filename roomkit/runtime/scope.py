"""Every task has an owner. `Scope.spawn` is the only place of the house that creates tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from roomkit.errors import StateError

T = TypeVar("T")

_log = logging.getLogger("roomkit.runtime")


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task of a scope ended with an exception that nobody was waiting for."""

    scope: str
    name: str
    error: BaseException


class Scope:
    """Owns the tasks it spawns: they end with it, and a failure among them is never silent.

    A failing task is logged once and handed to `on_failure`; without `on_failure` it goes to the loop's exception
    handler (which logs it, and fails a test). Its siblings keep running.
    """

    __slots__ = ("_closed", "_on_failure", "_tasks", "name")

    def __init__(self, name: str, *, on_failure: Callable[[TaskFailure], object] | None = None) -> None:
        self.name = name
        self._on_failure = on_failure
        self._tasks: dict[asyncio.Task[Any], None] = {}  # A dict keeps their order, so that closing repeats itself.
        self._closed = False

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str, awaited: bool = False) -> asyncio.Task[T]:
        """Starts `coro` as a task of this scope on the running loop.

        `awaited=True` says that the caller awaits the task and takes its exception itself, so the scope does not
        report it. Raises `StateError` once the scope is closed.
        """
        if self._closed:
            coro.close()
            raise StateError(f'scope "{self.name}" is closed and cannot start "{name}"; spawn before closing it')
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._forget if awaited else self._done)
        return task

    async def complete(
        self, coro: Coroutine[Any, Any, T], *, name: str, then: Callable[[], object] = lambda: None
    ) -> T:
        """Runs `coro` to its end, for work that must not be left half done: a cancelled caller leaves it running.

        `then` is called once it has ended and the caller, if there still is one, goes on. Raises `StateError` when the
        scope is closed, also meanwhile.
        """
        try:
            task = self.spawn(coro, name=name, awaited=True)
        except StateError:
            then()
            raise
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task.cancelled() and (current is None or not current.cancelling()):
                raise StateError(f'"{name}" was not completed: scope "{self.name}" has been closed') from None
            raise
        finally:
            if task.done():
                then()
            else:
                task.add_done_callback(lambda ended: (ended.cancelled() or ended.exception(), then()))

    def cancel(self) -> None:
        """Asks every running task to stop, and returns at once. The scope stays usable."""
        for task in tuple(self._tasks):
            task.cancel()

    async def aclose(self, timeout: float | None = None) -> None:
        """Refuses new tasks, cancels the running ones and waits until they have ended. May be called again.

        A task which closes its own scope is spared. Raises `TimeoutError`, naming them, if tasks are still running
        after `timeout` seconds. A caller cancelled meanwhile gets its `CancelledError`; the tasks stay cancelled.
        """
        self._closed = True
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            _, running = await asyncio.wait(tasks, timeout=timeout)
            if running:
                names = ", ".join(sorted(task.get_name() for task in running))
                raise TimeoutError(f'scope "{self.name}" could not be closed in {timeout} s; still running: {names}')

    async def drain(self, timeout: float | None = None) -> bool:
        """Waits until no task is left, those spawned meanwhile included; cancels nothing.

        Returns False if some are still running after `timeout` seconds (None: no limit).
        """
        loop = asyncio.get_running_loop()
        current = asyncio.current_task()
        deadline = None if timeout is None else loop.time() + timeout
        while tasks := [task for task in self._tasks if task is not current]:
            left = None if deadline is None else max(0.0, deadline - loop.time())
            _, running = await asyncio.wait(tasks, timeout=left)
            if running:
                return False
        return True

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the running tasks."""
        return tuple(sorted(task.get_name() for task in self._tasks))

    def __len__(self) -> int:
        return len(self._tasks)

    def __bool__(self) -> bool:
        """An empty scope is still a scope, so that `scope or default` keeps it."""
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Scope({self.name!r}, running={len(self._tasks)}{', closed' if self._closed else ''})"

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._forget(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if self._on_failure is None:
            message = f'task "{task.get_name()}" of scope "{self.name}" failed'
            task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})
            return
        _log.error('task "%s" of scope "%s" failed', task.get_name(), self.name, exc_info=error)
        self._on_failure(TaskFailure(self.name, task.get_name(), error))
