"""A time limit which costs next to nothing when nothing has to be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from types import CoroutineType, coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")


async def bounded(awaitable: Awaitable[T], seconds: float | None, what: str) -> T:
    """Awaits under a limit of `seconds` (None: none) and raises `TimeoutError` naming `what` when it is exceeded.

    A coroutine runs in the caller's task; the timer is armed only if it really suspends. On time-out the awaited
    thing is cancelled first, and a cancellation from outside always wins, as with `asyncio.timeout`.
    """
    if type(awaitable) is not CoroutineType:
        awaitable = _as_coroutine(awaitable)
    coro: Any = awaitable  # pyright: ignore[reportUnknownVariableType] - a type test leaves it half known
    try:
        waiting_for = coro.send(None)
    except StopIteration as stop:
        return stop.value
    if seconds is None:
        return await resume(coro, waiting_for)
    return await _limited(coro, waiting_for, seconds, what)


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def _limited(coro: Coroutine[Any, Any, T], waiting_for: Any, seconds: float, what: str) -> T:
    task = asyncio.current_task()
    assert task is not None, "a suspended coroutine is always driven by a task"
    cancelling = task.cancelling()
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        return await resume(coro, waiting_for)
    except asyncio.CancelledError as cancelled:
        if expired and task.uncancel() <= cancelling:
            expired = False
            raise TimeoutError(f"{what} took longer than {seconds:g} s") from cancelled
        expired = False
        raise
    finally:
        timer.cancel()
        if expired:  # It ended otherwise after the limit had asked for cancellation: take the request back.
            task.uncancel()


class Step:
    """What `first_steps` has come to: the result of a coroutine that is over. `last` says that it goes on with the one
    that it was sent last, because that one has to wait."""

    __slots__ = ("last", "result")

    def __init__(self) -> None:
        self.result: Any = None
        self.last = False


@coroutine
def first_steps(at: Step) -> Generator[Any, Any, Any]:
    """Begins one coroutine after another: `send` it, and get `at` when it is over, otherwise what it waits for. An
    exception to tell the end of each would cost as much as all the rest of its step."""
    while True:
        coro = yield at
        result = cast("Any", (yield from coro))
        if at.last:
            return result
        at.result = result


@coroutine
def resume(coro: Coroutine[Any, Any, T], waiting_for: Any) -> Generator[Any, Any, T]:
    """Drives a coroutine on whose first step, already taken, yielded `waiting_for`."""
    while True:
        try:
            value = yield waiting_for
        except GeneratorExit:
            coro.close()
            raise
        except BaseException as error:  # noqa: BLE001 - whatever is thrown in belongs to the driven coroutine
            step, argument = coro.throw, error
        else:
            step, argument = coro.send, value
        try:
            waiting_for = step(argument)
        except StopIteration as stop:
            return stop.value
