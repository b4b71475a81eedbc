"""pytest plug-in: `async def` tests run in virtual time, and end clean or fail.

Every async test gets a fresh `VirtualLoop`. It fails if an exception of a task went unobserved, if a task is left
running at the end, or if one callback kept the loop from turning for more than a second of real time.

    @pytest.mark.real_time       an ordinary loop and real seconds, for sockets and processes
    @pytest.mark.seed(7)         ready tasks run in the shuffled order which this seed decides
    @pytest.mark.may_block       callbacks of this test may block the loop
    @pytest.mark.time_limit(5)   seconds of real time for this test (default 60); 0 for none

Fixtures: `virtual_loop` is the loop of the test, `clock` the calendar that follows it (a real one under `real_time`).
The ini option `roomkit_time_limit` changes the default limit, and sets it for synchronous tests too, which have none
otherwise. Tests marked `asyncio`, `anyio` or `trio` are left to those plug-ins.
"""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import inspect
import math
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from roomkit.runtime.clock import Clock, SystemClock
from roomkit.runtime.watchdog import Stall, StallWatchdog
from roomkit.testing.clock import VirtualClock
from roomkit.testing.loop import Blocked, VirtualLoop, where

_DEFAULT_LIMIT_S = 60.0
_BLOCKED_S = 2.0  # A first import takes a busy machine a second.
_STALL_S = 3.0  # On a real loop nothing tells a blocked callback from a machine that is busy elsewhere.
_AGAIN_S = 5.0  # The alarm repeats: the first one may have hit a task, which only stored it.
_LAST_RESORT_S = 30.0
_TURNS = 20  # Turns which tasks already ending get after the test, to end.
_REAL_GRACE_S = 0.25

_loop_key: pytest.StashKey[VirtualLoop] = pytest.StashKey()
_stderr_key: pytest.StashKey[int] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("roomkit_time_limit", "seconds of real time for every test, 0 for none (async tests: 60)", default="")


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "real_time: run this async test on an ordinary event loop",
        "seed(n): shuffle the ready tasks of this async test as the seed decides",
        "may_block: callbacks of this async test may block the loop for more than a second",
        "time_limit(seconds): real time after which this test fails; 0 for none",
    ):
        config.addinivalue_line("markers", line)
    try:
        config.stash[_stderr_key] = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)
    except (OSError, ValueError):
        pass  # No usable stderr: a hanging test is ended by the alarm alone.


def pytest_unconfigure(config: pytest.Config) -> None:
    if _stderr_key in config.stash:
        os.close(config.stash[_stderr_key])
        del config.stash[_stderr_key]


@pytest.fixture
def virtual_loop(request: pytest.FixtureRequest) -> Iterator[VirtualLoop]:
    """The loop this test runs on."""
    if request.node.get_closest_marker("real_time"):
        pytest.fail("virtual_loop does not exist in a test marked real_time; drop one of the two")
    loop = request.node.stash[_loop_key] = _virtual_loop(request.node)
    yield loop
    if not loop.is_closed():
        loop.close()


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> Clock:
    """The calendar time of this test's loop."""
    if request.node.get_closest_marker("real_time"):
        return SystemClock()
    return VirtualClock(request.getfixturevalue("virtual_loop"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    if not _is_ours(pyfuncitem):
        return None
    given = getattr(pyfuncitem.obj, "hypothesis", None)
    if given is not None:  # Hypothesis calls the function many times itself: each example gets a loop of its own.
        given.inner_test = _synchronous(pyfuncitem, given.inner_test)
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    _synchronous(pyfuncitem, pyfuncitem.obj)(**arguments)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with _time_limit(item, "setting up"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with _time_limit(item, "running"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with _time_limit(item, "tearing down"):
        return (yield)


def _is_ours(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or any(item.get_closest_marker(n) for n in ("asyncio", "anyio", "trio")):
        return False
    given = getattr(item.obj, "hypothesis", None)
    return inspect.iscoroutinefunction(item.obj if given is None else given.inner_test)


def _virtual_loop(item: pytest.Item) -> VirtualLoop:
    seed = item.get_closest_marker("seed")
    return VirtualLoop(seed=seed.args[0] if seed else None, limit_s=_limit(item) or None, blocked_s=_BLOCKED_S)


def _synchronous(item: pytest.Function, test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def call(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        if item.get_closest_marker("real_time"):
            loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        else:
            made = item.stash.get(_loop_key, None)
            loop = _virtual_loop(item) if made is None or made.is_closed() else made
        problems = _Problems(loop)
        stalls: list[Stall] = []
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(_supervised(test(*args, **kwargs), problems, stalls))
        except BaseException as error:
            if trouble := problems.failures():
                error.add_note("besides, while the test ran:\n" + "\n".join(trouble))
            raise
        trouble = problems.failures() + problems.left_running
        if not item.get_closest_marker("may_block"):
            trouble += _blocking(getattr(loop, "blocked", []), stalls)
        if trouble:
            pytest.fail("the test did not end clean:\n" + "\n".join(trouble), pytrace=False)

    return call


async def _supervised(test: Coroutine[Any, Any, None], problems: _Problems, stalls: list[Stall]) -> None:
    """Runs the test, then gives tasks already ending a moment, and notes those that go on."""
    watchdog = StallWatchdog(_STALL_S, report=stalls.append)
    watchdog.start()  # Idle in virtual time, where the loop measures its callbacks itself.
    try:
        await test
        for turn in range(_TURNS):
            if not problems.others():
                break
            await asyncio.sleep(0 if isinstance(problems.loop, VirtualLoop) or turn < 5 else _REAL_GRACE_S / _TURNS)
        problems.left_running = [
            f'task "{task.get_name()}" was left running, at {where(task)}; close what started it'
            for task in sorted(problems.others(), key=lambda task: task.get_name())
        ]
    finally:
        watchdog.stop()


class _Problems:
    """Collects what goes wrong on a loop beside the test function itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.left_running: list[str] = []
        self._reported: list[str] = []
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        loop.set_exception_handler(self._report)
        loop.set_task_factory(self._make_task)

    def others(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks(self.loop) - {asyncio.current_task()}

    def failures(self) -> list[str]:
        """What the loop reported, and exceptions of ended tasks which nobody has looked at."""
        unseen = [task for task in self._tasks if task.done() and getattr(task, "_log_traceback", False)]
        for task in sorted(unseen, key=lambda task: task.get_name()):
            self._reported.append(_tell(f'nobody observed how task "{task.get_name()}" failed', task.exception()))
        return self._reported

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if str(context.get("exception")) == _SERVER_HUNG_UP:
            return
        self._reported.append(_tell(context.get("message", "the event loop reports"), context.get("exception")))

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        self._tasks.add(task)
        return task


def _tell(what: str, error: BaseException | None) -> str:
    if error is None:
        return what
    return f"{what}:\n" + "".join(traceback.format_exception(error)).rstrip()


def _blocking(blocked: list[Blocked], stalls: list[Stall]) -> list[str]:
    told = [f"{one.what} blocked the loop for {one.seconds:.1f} s" for one in blocked]
    told += [f"the loop was blocked for {stall.seconds:.1f} s, here:\n{stall.stack}" for stall in stalls]
    return [f"{line}\n(mark the test may_block if that is intended)" for line in told]


def _limit(item: pytest.Item) -> float:
    """Seconds of real time for each phase of the test; 0 is none."""
    if item.config.getoption("usepdb", False):
        return 0.0
    marker = item.get_closest_marker("time_limit")
    if marker is not None:
        return float(marker.args[0])
    setting = item.config.getini("roomkit_time_limit")
    if setting:
        return float(setting)
    return _DEFAULT_LIMIT_S if _is_ours(item) else 0.0


_SERVER_HUNG_UP = "unexpected connection_lost() call"
"""What asyncpg leaves in a future of its own that nobody can ask, when the server ends a session while it is idle."""


@contextmanager
def _time_limit(item: pytest.Item, doing: str) -> Generator[None]:
    """Fails the test from an alarm; should even that not get through, dumps all stacks and ends the process."""
    limit = _limit(item)
    alarms = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not limit or not alarms or signal.getitimer(signal.ITIMER_REAL)[0]:  # Somebody else's alarm is running.
        yield
        return

    def expire(_number: int, _frame: FrameType | None) -> None:
        faulthandler.dump_traceback(file=sys.__stderr__ or 2)
        pytest.fail(f"{doing} {item.name} took more than {math.ceil(limit)} s of real time")

    before = signal.signal(signal.SIGALRM, expire)
    # A virtual loop stops itself at the limit and then names its tasks, so the alarm gives it a moment.
    signal.setitimer(signal.ITIMER_REAL, limit + 0.5, _AGAIN_S)
    last_resort = _stderr_key in item.config.stash and not item.config.getini("faulthandler_timeout")
    if last_resort:
        faulthandler.dump_traceback_later(limit + _LAST_RESORT_S, exit=True, file=item.config.stash[_stderr_key])
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if last_resort:
            faulthandler.cancel_dump_traceback_later()
