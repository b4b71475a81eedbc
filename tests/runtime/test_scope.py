from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest

from roomkit.errors import StateError
from roomkit.runtime import Scope, TaskFailure
from roomkit.testing import VirtualLoop


async def _fail(text: str) -> None:
    raise ValueError(text)


async def test_spawn_names_runs_and_forgets() -> None:
    scope = Scope("s")
    task = scope.spawn(asyncio.sleep(1, "done"), name="one")
    assert (task.get_name(), len(scope), scope.names) == ("one", 1, ("one",))
    assert await task == "done"
    await asyncio.sleep(0)
    assert len(scope) == 0
    assert scope, "an empty scope is not false"


async def test_a_failure_is_logged_once_and_handed_over_and_siblings_go_on(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[TaskFailure] = []
    scope = Scope("s", on_failure=failures.append)
    sibling = scope.spawn(asyncio.sleep(5, "still here"), name="sibling")
    scope.spawn(_fail("broken"), name="bad")
    assert await sibling == "still here"
    assert [(f.scope, f.name, str(f.error)) for f in failures] == [("s", "bad", "broken")]
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == ['task "bad" of scope "s" failed']


async def test_a_failure_nobody_asked_for_goes_to_the_loop(virtual_loop: VirtualLoop) -> None:
    reported: list[dict[str, object]] = []
    virtual_loop.set_exception_handler(lambda _, context: reported.append(context))
    scope = Scope("s")
    task = scope.spawn(_fail("broken"), name="bad")
    await scope.drain()
    await asyncio.sleep(0)
    assert [(c["message"], str(c["exception"]), c["task"]) for c in reported] == [
        ('task "bad" of scope "s" failed', "broken", task)
    ]


async def test_an_awaited_task_reports_to_who_awaits_it_only() -> None:
    failures: list[TaskFailure] = []
    scope = Scope("s", on_failure=failures.append)
    with pytest.raises(ValueError, match="broken"):
        await scope.spawn(_fail("broken"), name="bad", awaited=True)
    await asyncio.sleep(0)
    assert (failures, len(scope)) == ([], 0)


async def test_aclose_cancels_waits_and_may_be_called_again() -> None:
    log: list[str] = []

    async def worker() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(2)
            log.append("cleaned up")

    scope = Scope("s")
    scope.spawn(worker(), name="w")
    await asyncio.sleep(0)
    await scope.aclose()
    assert log == ["cleaned up"]
    await scope.aclose()
    with pytest.raises(StateError, match='"s" is closed and cannot start "late"'):
        scope.spawn(asyncio.sleep(0), name="late")


async def test_aclose_names_who_does_not_end_in_time() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(10)

    scope = Scope("s")
    task = scope.spawn(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError, match=r'"s" could not be closed in 3 s; still running: stubborn'):
        await scope.aclose(timeout=3)
    await asyncio.wait([task])


async def test_a_cancelled_closer_gets_its_cancellation_and_the_tasks_end() -> None:
    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(5)

    scope, outside = Scope("s"), Scope("outside")
    task = scope.spawn(slow_to_end(), name="t")
    await asyncio.sleep(0)
    closer = outside.spawn(scope.aclose(), name="closer")
    await asyncio.sleep(1)
    closer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closer
    assert not task.done()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_task_may_close_its_own_scope() -> None:
    scope = Scope("s")
    sibling = scope.spawn(asyncio.sleep(60), name="sibling")

    async def closer() -> str:
        await scope.aclose()
        return "closed it"

    assert await scope.spawn(closer(), name="closer") == "closed it"
    assert sibling.cancelled()


async def test_cancel_leaves_the_scope_usable() -> None:
    scope = Scope("s")
    task = scope.spawn(asyncio.sleep(60), name="t")
    scope.cancel()
    assert await scope.drain()
    assert task.cancelled()
    assert await scope.spawn(asyncio.sleep(0, 1), name="again") == 1


async def test_drain_waits_for_tasks_spawned_meanwhile(virtual_loop: VirtualLoop) -> None:
    scope = Scope("s")

    async def parent() -> None:
        await asyncio.sleep(1)
        scope.spawn(asyncio.sleep(1), name="child")

    scope.spawn(parent(), name="parent")
    assert await scope.drain(timeout=5)
    assert (len(scope), virtual_loop.time()) == (0, 2)


async def test_drain_gives_up_in_time_and_cancels_nothing(virtual_loop: VirtualLoop) -> None:
    scope = Scope("s")
    task = scope.spawn(asyncio.sleep(9, "mine"), name="t")
    assert not await scope.drain(timeout=3)
    assert virtual_loop.time() == 3
    assert await task == "mine"


async def test_leaving_the_block_closes() -> None:
    async with Scope("s") as scope:
        task = scope.spawn(asyncio.sleep(60), name="t")
    assert task.cancelled()
    assert scope.closed


async def test_an_ended_task_is_not_kept_alive() -> None:
    scope = Scope("s")
    task = scope.spawn(asyncio.sleep(0), name="t")
    await task
    await asyncio.sleep(0)
    ref = weakref.ref(task)
    del task
    gc.collect(0)  # The youngest are enough; the heap of a whole run takes a second.
    assert ref() is None


async def test_work_that_must_not_be_cut_goes_on_without_its_caller() -> None:
    scope, may, done = Scope("s"), asyncio.Event(), list[str]()

    async def work() -> str:
        await may.wait()
        done.append("work")
        return "result"

    def after() -> None:
        done.append("after")

    caller = asyncio.ensure_future(scope.complete(work(), name="w", then=after))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert done == []
    may.set()
    await scope.drain()
    await asyncio.sleep(0)
    assert done == ["work", "after"]
    assert await scope.complete(work(), name="w", then=after) == "result"
    assert done == ["work", "after"] * 2

    may.clear()
    caller = asyncio.ensure_future(scope.complete(work(), name="w", then=after))
    await asyncio.sleep(0)
    await scope.aclose()
    for late in (caller, scope.complete(work(), name="w", then=after)):
        with pytest.raises(StateError, match="closed"):
            await late
    assert done == ["work", "after"] * 2 + ["after"] * 2
