"""Blocking work off the loop, and calls into the loop from other threads.

A loop with virtual time offers `thread_started()` and `thread_finished(token)`: it keeps its clock still while work
is outstanding. An ordinary loop does not, and nothing happens.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import logging
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, TypeVarTuple, runtime_checkable

from roomkit.errors import StateError, UsageError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log = logging.getLogger("roomkit.runtime")


@runtime_checkable
class CountsThreads(Protocol):
    """What a loop with virtual time offers besides."""

    def thread_started(self) -> object: ...

    def thread_finished(self, token: object) -> None: ...


class WorkerThread:
    """One dedicated thread which runs what it is given, one after the other, in order (a store's writer).

    Work that was submitted always runs, also when nobody waits for its result any more: a commit is not undone by a
    cancelled caller. The thread starts with the first piece of work.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, fn: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Queues `fn(*args)`; the future belongs to the running loop. Raises `StateError` once closed."""
        if self._closed:
            raise StateError(f'worker thread "{self.name}" is closed; submit before closing it')
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        token = loop.thread_started() if isinstance(loop, CountsThreads) else None

        def job() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = fn(*args)
            except BaseException as caught:  # noqa: BLE001 - every outcome belongs to the waiting task
                error = caught
            _post(loop, token, _settle, future, result, error)

        self._jobs.put(job)
        return future

    def close(self) -> None:
        """Refuses new work and lets the thread end after the work it has. Does not wait. May be called again."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)

    async def aclose(self) -> None:
        """`close()`, then waits until everything submitted has run. Errors stay with their own futures."""
        if self._thread is not None and not self._closed:
            last = self.submit(_nothing)
            self.close()
            await last
        self.close()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # The closure keeps arguments and result alive otherwise, until the next job.


class WorkerPool:
    """Runs synchronous handlers in at most `max_workers` threads, with the caller's context variables."""

    def __init__(self, max_workers: int = 8, *, name: str = "roomkit-pool") -> None:
        if max_workers < 1:
            raise UsageError(f"a pool needs at least one worker, not {max_workers}; raise max_workers")
        self.max_workers = max_workers
        self.name = name
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None
        self._closed = False

    async def run(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Awaits `fn(*args)` run in a thread. A cancelled caller stops waiting; a started call runs to its end.

        Raises `StateError` once closed.
        """
        if self._closed:
            raise StateError(f'worker pool "{self.name}" is closed; run before closing it')
        if self._executor is None:
            self._executor = concurrent.futures.ThreadPoolExecutor(self.max_workers, thread_name_prefix=self.name)
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: context.run(fn, *args))

    def close(self) -> None:
        """Refuses new work, drops work not started, and lets running calls end. Does not wait."""
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def call_from_thread(
    loop: asyncio.AbstractEventLoop, fn: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts
) -> concurrent.futures.Future[T]:
    """Runs `await fn(*args)` on `loop` from another thread; wait with `.result(timeout)`, stop with `.cancel()`.

    Raises `UsageError` on the loop's own thread, where waiting for the result would block the loop for ever.
    """
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        raise UsageError("call_from_thread was called on the loop's own thread; await the coroutine instead")

    async def call() -> T:
        return await fn(*args)

    return asyncio.run_coroutine_threadsafe(call(), loop)


def _nothing() -> None:
    pass


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():  # The caller was cancelled; the work is done all the same.
        if error is not None:
            _log.error("work whose caller had been cancelled failed", exc_info=error)
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # A future refuses it, as a coroutine does.
        future.set_exception(RuntimeError("work in a thread raised StopIteration"))
    else:
        future.set_exception(error)


def _post(loop: asyncio.AbstractEventLoop, token: object, callback: Callable[..., object], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        _log.warning("the result of work in a thread is lost: its event loop has been closed")
    if isinstance(loop, CountsThreads):
        loop.thread_finished(token)
