"""An event loop on which waiting costs nothing: an hour of timers in well under a second, the same way every run.

The clock stands still while anything can run and jumps to the next timer when nothing can. While work is outstanding
in a thread it stands still as well and the loop really waits. When nothing can ever happen again it says so, and names
who waits for what (`Deadlock`); the housekeeping of a kit is no reason to go on. With a seed, ready tasks run in a
shuffled order which the seed alone decides.

Repeatable are tasks, timers, and work in threads, as long as one piece of it takes no longer than `THREAD_GRACE_S`
while tasks are ready, and pieces in different threads do not race each other. Sockets and threads which the loop does
not know of live in real time, and a thread which waits for a timer of this loop waits for ever: test those on an
ordinary loop (`@pytest.mark.real_time`).
"""

from __future__ import annotations

import asyncio
import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, TypeVar, cast
from weakref import WeakSet

from roomkit.runtime.bounded import resume

T = TypeVar("T")

THREAD_GRACE_S = 0.05  # Real time for which ready tasks wait for a piece of work in a thread, so that it ends in order.
_POLL_S = 0.05
_LAST_POLL_S = 0.1  # Before a deadlock is declared: a thread unknown to the loop may be about to call.
_LAST_SOCKET_POLL_S = 2.0
_SOCKET_POLL_S = 0.001
_CLEANUP_S = 5.0
_CLEANUP_STEPS = 10_000


class Deadlock(AssertionError):
    """Tasks are waiting, and there is no timer, no thread and no socket left that could wake them."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A callback which kept the loop from turning for `seconds` of real time."""

    what: str
    seconds: float


def _queued_s() -> float:
    """How long this thread has waited for a core so far, where the system tells (Linux)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class _Soon(asyncio.Handle):
    """As its parent, made for less: it does not ask whether the loop is being debugged."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: Any, loop: VirtualLoop, context: Context | None) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = self._source_traceback = None


class VirtualLoop(asyncio.SelectorEventLoop):
    """A selector loop whose `time()` is virtual and starts at 0.

    `seed` shuffles ready tasks (None: first in, first out). `limit_s` is the real time after which it gives up with
    `TimeoutError` (None: never), `limit_steps` the number of callbacks, which is the same on every machine. Callbacks
    taking longer than `blocked_s` of real time are kept in `blocked`.
    """

    virtual_time: ClassVar[bool] = True
    # Inherited, and unknown to the type stubs.
    _ready: deque[Any]
    _scheduled: list[tuple[float, int, Any]]
    _closed: bool
    _debug: bool
    _selector: Any
    _ssock: Any
    _stopping: bool
    _default_executor: Any
    _clock_resolution: float
    _timer_cancelled_count: int
    _check_closed: Callable[[], None]
    _write_to_self: Callable[[], None]
    _read_from_self: Callable[[], None]
    _process_events: Callable[[list[Any]], None]

    def __init__(
        self,
        *,
        seed: int | None = None,
        limit_s: float | None = None,
        limit_steps: int | None = None,
        blocked_s: float = 1.0,
    ) -> None:
        self._now = 0.0
        self._timers = 0
        self._random = None if seed is None else random.Random(seed)
        self._arrivals: deque[asyncio.Handle] = deque()
        self._jobs: dict[object, float] = {}
        self._jobs_lock = threading.Lock()
        self._idle: WeakSet[asyncio.TimerHandle] = WeakSet()
        self._limit_s = limit_s
        self._limit_steps = limit_steps
        self._deadline = None if limit_s is None else time.perf_counter() + limit_s
        self._blocked_s = blocked_s
        self._queued = _queued_s()
        self.seed = seed
        self.steps = 0
        self.blocked: list[Blocked] = []
        super().__init__()
        self._files = self._selector.get_map()

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        if self._debug or self._closed:
            return super().call_soon(callback, *args, context=context)
        handle = _Soon(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._check_closed()
        timer: Any = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers += 1  # Of timers at one moment the older comes first, and no two are ever compared.
        heapq.heappush(self._scheduled, (when, self._timers, timer))
        timer._scheduled = True
        return timer

    def idly(self, timer: asyncio.TimerHandle) -> None:
        """A timer of housekeeping (`runtime.idle`), which wakes nobody who waits for something else."""
        self._idle.add(timer)

    # Threads

    def thread_started(self) -> object:
        """Work has been handed to a thread: the clock stands still until `thread_finished` gets the returned token."""
        token = object()
        with self._jobs_lock:
            self._jobs[token] = time.perf_counter() + THREAD_GRACE_S
        return token

    def thread_finished(self, token: object) -> None:
        """To be called, from any thread, after the outcome has been passed to `call_soon_threadsafe`."""
        with self._jobs_lock:
            self._jobs.pop(token, None)
        self._write_to_self()

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        self._check_closed()
        handle = asyncio.Handle(callback, args, self, context)
        self._arrivals.append(handle)
        self._write_to_self()
        return handle

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        self._check_closed()
        if executor is None:
            executor = self._default_executor
        if executor is None:
            executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
            self.set_default_executor(executor)
        work = executor.submit(func, *args)
        token = self.thread_started()
        outcome = asyncio.wrap_future(work, loop=self)
        work.add_done_callback(lambda _: self.thread_finished(token))
        return outcome

    async def shutdown_default_executor(self, *args: Any) -> None:
        token = self.thread_started()
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self.thread_finished(token)

    # One turn

    def _run_once(self) -> None:
        """Takes what arrived, moves the clock if nothing can run, and runs everything that is ready now."""
        now = time.perf_counter
        if self._deadline is not None and now() > self._deadline:
            self._deadline += _CLEANUP_S
            raise TimeoutError(f"the test ran for more than {self._limit_s:g} s of real time\n{self.waiting()}")
        if self._limit_steps is not None and self.steps > self._limit_steps:
            steps, self._limit_steps = self._limit_steps, self._limit_steps + _CLEANUP_STEPS
            raise TimeoutError(f"the test ran for more than {steps} steps\n{self.waiting()}")
        timers = self._scheduled
        if timers and (timers[0][2]._cancelled or self._timer_cancelled_count > 100):
            self._drop_cancelled_timers()
        self._gather()
        ready = self._ready
        if not ready and not self._stopping:
            self._advance()
        if self._scheduled:
            self._release_timers()
        if self._random is not None and len(ready) > 1:
            self._shuffle(self._random)
        started = now()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            self.steps += 1
            handle._run()
            ended = now()
            if ended - started > self._blocked_s:
                # What this thread spent waiting for a free core is the machine's fault, not the callback's.
                queued = _queued_s()
                own = ended - started - (queued - self._queued)
                self._queued = queued
                if own > self._blocked_s:
                    self.blocked.append(Blocked(_describe(handle), own))
            started = ended

    def _drop_cancelled_timers(self) -> None:
        timers = self._scheduled
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)[2]._scheduled = False
            self._timer_cancelled_count -= 1
        if self._timer_cancelled_count > max(100, len(timers) // 2):  # Dead ones deep inside would pile up.
            for _, _, timer in timers:
                timer._scheduled = not timer._cancelled
            self._scheduled = [entry for entry in timers if entry[2]._scheduled]
            heapq.heapify(self._scheduled)
            self._timer_cancelled_count = 0

    def _gather(self) -> None:
        if self._jobs:
            self._wait_for_threads()
        elif len(self._files) > 1 or getattr(self, "_signal_handlers", None):
            self._poll(0)
        if self._arrivals:
            self._accept()

    def _wait_for_threads(self) -> None:
        """Lets quick work end before anything else happens; without anything to run, waits for slow work too."""
        self._poll(0)
        while self._jobs:
            with self._jobs_lock:
                left = max(self._jobs.values(), default=0.0) - time.perf_counter()
            if left > 0:
                self._poll(min(left, _POLL_S))
            elif self._ready or self._arrivals or self._stopping or self._due():
                return
            else:
                self._poll(_POLL_S)
                if self._deadline is not None and time.perf_counter() > self._deadline:
                    return

    def _due(self) -> bool:
        return bool(self._scheduled) and self._scheduled[0][0] <= self._now

    def _accept(self) -> None:
        arrivals = self._arrivals
        while arrivals:
            self._ready.append(arrivals.popleft())

    def _poll(self, seconds: float) -> None:
        """Really waits up to `seconds` for file descriptors and for calls from other threads."""
        events = self._selector.select(seconds)
        wake = self._ssock.fileno()
        if any(key.fd == wake for key, _ in events):  # Not a turn of its own: how many there are is chance.
            self._read_from_self()
        self._process_events([event for event in events if event[0].fd != wake])

    def _advance(self) -> None:
        """Nothing can run at this moment of the clock: goes to the next timer."""
        if self._jobs:
            return
        sockets = len(self._selector.get_map()) > 1
        if self._scheduled and (sockets or self._awaited()):
            if sockets:
                self._poll(_SOCKET_POLL_S)
            self._accept()
            if not self._ready:
                self._now = max(self._now, self._scheduled[0][0])
            return
        self._poll(0)  # Takes old wake-up bytes away, which would end the real wait at once.
        if not self._arrivals:
            self._poll(_LAST_SOCKET_POLL_S if sockets else _LAST_POLL_S)
        self._accept()
        if not self._ready and not self._jobs:
            raise Deadlock(f"every task waits, and nothing is left that could wake one\n{self.waiting()}")

    def _awaited(self) -> bool:
        """Whether a timer is left that somebody waits for."""
        if len(self._scheduled) > len(self._idle) + self._timer_cancelled_count:
            return True
        return any(not timer._cancelled and timer not in self._idle for _, _, timer in self._scheduled)

    def _release_timers(self) -> None:
        horizon = self._now + self._clock_resolution
        timers = self._scheduled
        while timers and timers[0][0] < horizon:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False
            self._ready.append(timer)

    def _shuffle(self, chance: random.Random) -> None:
        """Permutes ready tasks; callbacks which belong to no task keep their order among themselves."""
        task = asyncio.Task
        handles = [(one, isinstance(getattr(one._callback, "__self__", None), task)) for one in self._ready]
        others = iter([one for one, owned in handles if not owned])
        chance.shuffle(handles)
        self._ready.clear()
        self._ready.extend([one if owned else next(others) for one, owned in handles])

    def waiting(self) -> str:
        """The tasks that have not ended, one a line, with the places where they wait."""
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        return "\n".join(f'  task "{task.get_name()}" waits at {where(task)}' for task in tasks) or "  (no task)"


def run(coro: Coroutine[Any, Any, T], *, seed: int | None = None, limit_s: float | None = 60.0) -> T:
    """Runs `coro` to its end on a fresh `VirtualLoop` and returns its result, like `asyncio.run`.

    Raises `Deadlock` if it can never end, and `TimeoutError` after `limit_s` seconds of real time (None: no limit).
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(seed=seed, limit_s=limit_s)) as runner:
        return runner.run(coro)


def where(task: asyncio.Task[Any]) -> str:
    """The innermost places in which a task waits, outermost first, without asyncio's own."""
    places: list[str] = []
    inner: Any = task.get_coro()
    while inner is not None:
        frame: FrameType | None = None
        following: Any = None
        for frame_name, next_name in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
            if hasattr(inner, frame_name):
                frame, following = getattr(inner, frame_name), getattr(inner, next_name)
        if frame is None:
            break
        if frame.f_code is resume.__code__:  # A coroutine under a time limit is driven by hand.
            following = frame.f_locals.get("coro")
        elif not frame.f_code.co_filename.startswith(_ASYNCIO):
            places.append(f"{_short(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}")
        inner = following
    return " > ".join(places[-3:]) or "an unknown place"


_ASYNCIO = str(Path(asyncio.__file__).parent)


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def _owner(handle: Any) -> asyncio.Task[Any] | None:
    owner: object = getattr(handle._callback, "__self__", None)
    return cast("asyncio.Task[Any]", owner) if isinstance(owner, asyncio.Task) else None


def _describe(handle: Any) -> str:
    task = _owner(handle)
    if task is None:
        return f"callback {getattr(handle._callback, '__qualname__', handle._callback)!s}"
    return f'task "{task.get_name()}" ({getattr(task.get_coro(), "__qualname__", "?")})'
