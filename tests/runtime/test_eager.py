"""A coroutine that is started in place keeps one context of its own from its first step to its last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar

import pytest

from roomkit.runtime import Scope
from roomkit.runtime.eager import Eager

WHO: ContextVar[str] = ContextVar("who", default="nobody")


async def test_what_finishes_at_once_needs_no_turn_of_the_loop() -> None:
    seen: list[str] = []

    async def quick() -> None:
        seen.append("done")

    async with Scope("eager") as scope:
        assert Eager(scope).start(quick())
        assert seen == ["done"]


async def test_a_context_variable_lives_through_a_suspension_and_does_not_leak() -> None:
    seen: list[str] = []
    go_on = asyncio.Event()

    async def job(name: str) -> None:
        token = WHO.set(name)
        try:
            await go_on.wait()
            seen.append(WHO.get())
        finally:
            WHO.reset(token)  # fails in another context than the one it was set in
        seen.append(WHO.get())

    WHO.set("caller")
    failed: list[object] = []
    async with Scope("eager", on_failure=failed.append) as scope:
        eager = Eager(scope)
        assert not eager.start(job("first"))
        assert WHO.get() == "caller"
        with eager.burst() as burst:
            burst.run(job("second"))
            burst.run(job("third"))
        assert WHO.get() == "caller"
        go_on.set()
        await asyncio.sleep(1)
    assert sorted(seen) == ["caller", "caller", "caller", "first", "second", "third"]
    assert not failed


async def test_a_carrier_does_not_carry_the_context_of_its_first_job_to_the_next() -> None:
    seen: list[str] = []

    async def job() -> None:
        await asyncio.sleep(0.1)
        seen.append(WHO.get())

    async with Scope("eager") as scope:
        eager = Eager(scope)
        WHO.set("one")
        eager.start(job())
        await asyncio.sleep(1)
        WHO.set("two")
        eager.start(job())
        await asyncio.sleep(1)
    assert seen == ["one", "two"]


async def test_cancelling_reaches_a_suspended_job() -> None:
    seen: list[str] = []

    async def job() -> None:
        token = WHO.set("job")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append(WHO.get())
            raise
        finally:
            WHO.reset(token)

    async with Scope("eager") as scope:
        Eager(scope).start(job())
        await scope.aclose()
    assert seen == ["job"]


@pytest.mark.parametrize("how", ["launch", "burst"])
async def test_who_fails_or_waits_costs_the_next_one_nothing(how: str) -> None:
    seen: list[object] = []
    me = asyncio.current_task()

    async def quick() -> None:
        seen.append(asyncio.current_task())

    async def wrong() -> None:
        raise ValueError("wrong")

    async def slow() -> None:
        before = asyncio.current_task()
        async with asyncio.timeout(5):
            await asyncio.sleep(1)
        seen.append(asyncio.current_task() is before)

    def run(eager: Eager, make: Callable[[], Coroutine[object, object, None]]) -> object:
        if how == "launch":
            return eager.launch(make())
        with eager.burst() as burst:
            return burst.run(make())

    async with Scope("eager") as scope:
        eager = Eager(scope)
        for _ in range(2):
            assert run(eager, quick) is None
            with pytest.raises(ValueError, match="wrong"):
                run(eager, wrong)
            assert asyncio.current_task() is me
            assert run(eager, quick) is None
            assert run(eager, slow) is not None
            assert run(eager, quick) is None
            assert asyncio.current_task() is me
            await asyncio.sleep(2)
        assert [one for one in seen if one is not True].count(me) == 0
        assert seen.count(True) == 2
