from __future__ import annotations

import asyncio

import pytest

from roomkit.errors import UsageError
from roomkit.runtime import Scope, Wakeup


async def test_a_signal_given_before_is_kept_and_consumed_once() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    await wakeup.wait()
    assert not wakeup.is_set()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wakeup.wait(), 1)


async def test_it_wakes_the_waiting_task() -> None:
    wakeup = Wakeup()
    async with Scope("s") as scope:
        waiter = scope.spawn(wakeup.wait(), name="waiter")
        await asyncio.sleep(1)
        assert not waiter.done()
        wakeup.set()
        await waiter


async def test_a_waiter_cancelled_after_the_signal_leaves_it_for_the_next() -> None:
    wakeup = Wakeup()
    async with Scope("s") as scope:
        waiter = scope.spawn(wakeup.wait(), name="waiter")
        await asyncio.sleep(1)
        wakeup.set()
        waiter.cancel()
        await asyncio.wait([waiter])
        await wakeup.wait()


async def test_a_second_waiter_is_refused() -> None:
    wakeup = Wakeup()
    async with Scope("s") as scope:
        scope.spawn(wakeup.wait(), name="waiter")
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="one waiting task"):
            await wakeup.wait()
