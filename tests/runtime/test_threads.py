from __future__ import annotations

import asyncio
import contextvars
import logging
import threading

import pytest

from roomkit.errors import StateError, UsageError
from roomkit.runtime import Scope, WorkerPool, WorkerThread, call_from_thread


def _fail(error: BaseException) -> None:
    raise error


async def test_one_thread_runs_everything_in_order() -> None:
    worker, order, threads = WorkerThread("writer"), list[int](), set[str]()

    def work(number: int) -> int:
        order.append(number)
        threads.add(threading.current_thread().name)
        return number * 2

    results = await asyncio.gather(*(worker.submit(work, number) for number in range(50)))
    assert results == [number * 2 for number in range(50)]
    assert (order, threads) == (list(range(50)), {"writer"})
    await worker.aclose()


async def test_an_error_reaches_the_waiting_task_and_the_thread_goes_on() -> None:
    worker = WorkerThread("writer")
    with pytest.raises(ValueError, match="broken"):
        await worker.submit(_fail, ValueError("broken"))
    with pytest.raises(RuntimeError, match="StopIteration"):
        await worker.submit(_fail, StopIteration())
    assert await worker.submit(lambda: "alive") == "alive"
    await worker.aclose()


async def test_submitted_work_runs_although_its_caller_was_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    worker, done, release = WorkerThread("writer"), list[str](), threading.Event()
    first = worker.submit(release.wait)
    second = worker.submit(done.append, "second")
    third = worker.submit(_fail, ValueError("nobody hears it"))
    second.cancel()
    third.cancel()
    release.set()
    await first
    await worker.aclose()
    assert done == ["second"]
    assert [r.levelno for r in caplog.records if "cancelled" in r.getMessage()] == [logging.ERROR]


async def test_aclose_lets_all_work_end_and_may_be_called_again() -> None:
    worker, done = WorkerThread("writer"), list[int]()
    futures = [worker.submit(done.append, number) for number in range(5)]
    await worker.aclose()
    assert done == [0, 1, 2, 3, 4]
    await asyncio.gather(*futures)
    await worker.aclose()
    with pytest.raises(StateError, match='"writer" is closed'):
        worker.submit(print)


async def test_an_unused_worker_closes_without_a_thread() -> None:
    await WorkerThread("never used").aclose()
    assert "never used" not in {thread.name for thread in threading.enumerate()}


async def test_the_pool_runs_at_most_so_many_at_once_with_the_callers_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    pool, lock = WorkerPool(2), threading.Lock()
    both = threading.Barrier(2)
    running, most = 0, 0

    def work() -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait(10)
        with lock:
            running -= 1
        return variable.get()

    variable.set("the caller's")
    results = await asyncio.gather(*(pool.run(work) for _ in range(6)))
    assert (results, most) == (["the caller's"] * 6, 2)
    pool.close()


async def test_the_pool_hands_errors_over_and_ends() -> None:
    pool = WorkerPool(1)
    with pytest.raises(ValueError, match="broken"):
        await pool.run(_fail, ValueError("broken"))
    pool.close()
    with pytest.raises(StateError, match="closed"):
        await pool.run(print)
    with pytest.raises(UsageError):
        WorkerPool(0)


async def test_a_cancelled_caller_stops_waiting_for_the_pool() -> None:
    pool, release = WorkerPool(1), threading.Event()
    async with Scope("s") as scope:
        caller = scope.spawn(pool.run(release.wait), name="caller")
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
    release.set()
    pool.close()


async def test_a_thread_calls_into_the_loop() -> None:
    loop, worker = asyncio.get_running_loop(), WorkerThread("caller")

    async def on_loop(number: int) -> int:
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        return number + 1

    assert await worker.submit(lambda: call_from_thread(loop, on_loop, 1).result(10)) == 2
    await worker.aclose()


async def test_calling_from_the_loops_own_thread_is_refused() -> None:
    with pytest.raises(UsageError, match="await the coroutine instead"):
        call_from_thread(asyncio.get_running_loop(), asyncio.sleep, 0)
