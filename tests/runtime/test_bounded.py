from __future__ import annotations

import asyncio

import pytest

from roomkit.runtime import Scope, bounded
from roomkit.testing import VirtualLoop


async def _answer(value: object, after: float | None = None) -> object:
    if after is not None:
        await asyncio.sleep(after)
    return value


async def test_what_does_not_suspend_needs_no_timer(virtual_loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[float] = []
    monkeypatch.setattr(virtual_loop, "call_later", lambda delay, *_: armed.append(delay))
    assert await bounded(_answer(1), 5, "it") == 1
    assert armed == []


async def test_what_suspends_gives_its_result_and_disarms(virtual_loop: VirtualLoop) -> None:
    assert await bounded(_answer("late", 4), 5, "it") == "late"
    assert virtual_loop.time() == 4
    await asyncio.sleep(10)  # A timer left behind would cancel this.


async def test_too_slow_is_cancelled_and_named() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cleaned up")

    with pytest.raises(TimeoutError, match=r"the slow one took longer than 2\.5 s"):
        await bounded(slow(), 2.5, "the slow one")
    assert ended == ["cleaned up"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_no_limit() -> None:
    assert await bounded(_answer("x", 1e6), None, "it") == "x"


async def test_errors_pass_through_before_and_after_suspending() -> None:
    async def fail(after: float | None) -> None:
        await _answer(None, after)
        raise ValueError("its own")

    for after in (None, 1):
        with pytest.raises(ValueError, match="its own"):
            await bounded(fail(after), 5, "it")


async def test_a_time_out_of_its_own_is_not_mistaken_for_ours() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise TimeoutError("inner")

    with pytest.raises(TimeoutError, match=r"^inner$"):
        await bounded(fail(), 5, "it")


async def test_futures_and_tasks_are_awaited_and_cancelled_at_the_limit(virtual_loop: VirtualLoop) -> None:
    future: asyncio.Future[int] = virtual_loop.create_future()
    virtual_loop.call_later(1, future.set_result, 7)
    assert await bounded(future, 5, "it") == 7
    never: asyncio.Future[int] = virtual_loop.create_future()
    with pytest.raises(TimeoutError):
        await bounded(never, 5, "it")
    assert never.cancelled()


async def test_the_inner_of_two_limits_fires_alone() -> None:
    async def inner() -> str:
        with pytest.raises(TimeoutError, match="inner"):
            await bounded(_answer(1, 60), 1, "inner")
        await asyncio.sleep(1)
        return "went on"

    assert await bounded(inner(), 10, "outer") == "went on"


async def test_the_outer_of_two_limits_passes_through_the_inner() -> None:
    with pytest.raises(TimeoutError, match="outer"):
        await bounded(bounded(_answer(1, 60), 30, "inner"), 1, "outer")


async def test_cancellation_from_outside_wins_over_a_limit_of_the_same_moment() -> None:
    scope = Scope("test")
    task = scope.spawn(bounded(_answer(1, 60), 1, "it"), name="t", awaited=True)
    asyncio.get_running_loop().call_later(1, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancellation_from_outside_reaches_the_coroutine() -> None:
    seen: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    scope = Scope("test")
    task = scope.spawn(bounded(slow(), 30, "it"), name="t")
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


async def test_one_that_ends_in_spite_of_the_limit_leaves_no_cancellation_behind() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "anyway"
        return "never"

    assert await bounded(stubborn(), 1, "it") == "anyway"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


def test_closing_closes_the_coroutine() -> None:
    closed: list[str] = []

    async def slow(future: asyncio.Future[None]) -> None:
        try:
            await future
        finally:
            closed.append("closed")

    loop = VirtualLoop()
    inner = slow(loop.create_future())
    driven = bounded(inner, None, "it")
    driven.send(None)
    driven.close()
    loop.close()
    assert closed == ["closed"]
