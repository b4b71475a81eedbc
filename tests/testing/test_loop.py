from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkit import RoomKit
from roomkit.models.room import RoomTimers
from roomkit.runtime import Scope, WorkerThread, bounded, call_from_thread
from roomkit.testing import Deadlock, VirtualClock, VirtualLoop, run


def test_an_hour_of_timers_costs_no_hour() -> None:
    async def hour() -> float:
        for _ in range(3600):
            await asyncio.sleep(1)
        return asyncio.get_running_loop().time()

    started = time.perf_counter()
    assert run(hour()) == 3600
    assert time.perf_counter() - started < 60


def test_timers_fire_in_order_and_at_their_time() -> None:
    async def main() -> list[tuple[str, float]]:
        loop, fired = asyncio.get_running_loop(), list[tuple[str, float]]()
        for name, delay in (("late", 86_400 * 40), ("soon", 0.001), ("now", 0)):
            loop.call_later(delay, lambda name=name: fired.append((name, loop.time())))
        loop.call_later(5, fired.append, ("never", 5)).cancel()
        await asyncio.sleep(86_400 * 40 + 1)
        return fired

    assert run(main()) == [("now", 0), ("soon", 0.001), ("late", 86_400 * 40)]


def test_cancelled_timers_do_not_pile_up() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.call_later(1800, print)  # A live one before them, or they would be dropped from the front.
        for _ in range(2000):
            loop.call_later(3600, print).cancel()
            await asyncio.sleep(0.001)
        return len(loop._scheduled)

    assert run(main()) < 500


def _order(seed: int | None, tasks: int = 5, rounds: int = 3) -> list[tuple[str, int]]:
    order: list[tuple[str, int]] = []

    async def work(name: str) -> None:
        for number in range(rounds):
            order.append((name, number))
            await asyncio.sleep(0)

    async def main() -> None:
        scope = Scope("test")
        for number in range(tasks):
            scope.spawn(work(str(number)), name=str(number))
        for number in range(tasks):
            asyncio.get_running_loop().call_soon(order.append, ("callback", number))
        await scope.drain()

    run(main(), seed=seed)
    return order


def test_without_a_seed_first_in_is_first_out() -> None:
    names = [name for name, _ in _order(None) if name != "callback"]
    assert names == ["0", "1", "2", "3", "4"] * 3


def test_seeds_differ() -> None:
    assert len({str(_order(seed)) for seed in range(10)}) > 5


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_a_seed_decides_the_whole_order_and_keeps_each_ones_own(seed: int) -> None:
    order = _order(seed)
    assert order == _order(seed)
    for name in ("0", "1", "2", "3", "4", "callback"):
        own = [number for who, number in order if who == name]
        assert own == sorted(own)


def test_a_deadlock_names_who_waits_where() -> None:
    async def on_nothing() -> None:
        await asyncio.Event().wait()

    async def under_a_limit_without_end() -> None:
        await bounded(on_nothing(), None, "it")

    async def main() -> None:
        scope = Scope("test")
        scope.spawn(on_nothing(), name="first")
        scope.spawn(under_a_limit_without_end(), name="second")
        await scope.drain()

    with pytest.raises(Deadlock) as caught:
        run(main())
    lines = {line.split('"')[1]: line for line in str(caught.value).splitlines() if "waits at" in line}
    assert "in on_nothing" in lines["first"]
    assert "in under_a_limit_without_end" in lines["second"]
    assert lines["second"].endswith("in on_nothing"), "it looks through the time limit"
    assert len(lines) == 3


def test_the_housekeeping_of_a_kit_hides_no_deadlock() -> None:
    async def main() -> None:
        async with RoomKit(clock=VirtualClock()) as kit:
            await kit.create_room("r", channels=(), timers=RoomTimers(inactive_after_seconds=5))
            await asyncio.sleep(100_000)
            assert (await kit.get_room("r")).status == "paused"
            await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="in main"):
        run(main(), limit_s=20)


def test_the_clock_stands_still_while_a_thread_works() -> None:
    async def main() -> tuple[str, float]:
        worker, loop = WorkerThread("worker"), asyncio.get_running_loop()
        slow = worker.submit(lambda: time.sleep(0.2) or "done")
        result = await asyncio.wait_for(slow, 0.1)  # In real time this would run out.
        await worker.aclose()
        return result, loop.time()

    assert run(main()) == ("done", 0)


def test_ready_tasks_go_on_beside_slow_work_in_a_thread() -> None:
    async def main() -> bool:
        release = threading.Event()
        blocked = asyncio.to_thread(release.wait, 30)
        async with Scope("test") as scope:
            waiting = scope.spawn(blocked, name="blocked")
            await asyncio.sleep(0)
            release.set()
            return await waiting

    assert run(main())


def test_work_in_a_thread_has_its_place_in_the_order() -> None:
    async def main() -> list[str]:
        order: list[str] = []
        worker, scope = WorkerThread("worker"), Scope("test")

        async def in_thread(number: int) -> None:
            await worker.submit(time.sleep, 0.001)
            order.append(f"thread {number}")

        async def beside() -> None:
            for number in range(10):
                order.append(f"turn {number}")
                await asyncio.sleep(0)

        for number in range(3):
            scope.spawn(in_thread(number), name=f"thread {number}")
        scope.spawn(beside(), name="beside")
        await scope.drain()
        await worker.aclose()
        return order

    first = run(main(), seed=5)
    assert first.index("thread 2") < first.index("turn 9"), "quick work ends before ready tasks go on"
    assert all(run(main(), seed=5) == first for _ in range(10))


def test_executors_and_calls_from_threads_work() -> None:
    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()

        async def on_loop(number: int) -> int:
            await asyncio.sleep(0)
            return number + 1

        called = await asyncio.to_thread(lambda: call_from_thread(loop, on_loop, 1).result(10))
        return called, await loop.run_in_executor(None, lambda: 5)

    assert run(main()) == (2, 5)


def test_sockets_of_the_same_loop_work() -> None:
    async def main() -> tuple[bytes, float]:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            async with Scope("test") as scope:
                scope.spawn(loop.sock_sendall(near, b"hello"), name="send")
                return await asyncio.wait_for(loop.sock_recv(far, 10), 1), loop.time()

    assert run(main()) == (b"hello", 0)


def test_an_endless_test_is_stopped_in_real_time() -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            while True:
                await asyncio.sleep(1)
        finally:
            ended.append("cleaned up")

    with pytest.raises(TimeoutError, match=r"more than 0\.05 s of real time(.|\n)*in endless"):
        run(endless(), limit_s=0.05)
    assert ended == ["cleaned up"]


def test_an_endless_test_is_stopped_after_the_same_steps_everywhere() -> None:
    async def endless() -> None:
        while True:
            await asyncio.sleep(0)

    def steps() -> int:
        loop = VirtualLoop(limit_steps=500)
        with (
            asyncio.Runner(loop_factory=lambda: loop) as runner,
            pytest.raises(TimeoutError, match="more than 500 steps"),
        ):
            runner.run(endless())
        return loop.steps

    assert 500 < steps() == steps()


def test_a_callback_that_blocks_is_kept_in_mind() -> None:
    loop = VirtualLoop(blocked_s=0.01)

    async def blocks() -> None:
        await asyncio.sleep(1)
        time.sleep(0.02)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(blocks())
    assert len(loop.blocked) == 1
    assert "blocks" in loop.blocked[0].what


def test_errors_and_results_pass_through() -> None:
    async def fail() -> None:
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        run(fail())
    assert run(asyncio.sleep(1, "value")) == "value"


def test_timers_of_one_moment_are_taken_in_order_and_never_compared() -> None:
    """Their arguments may be arrays, which are neither equal nor unequal."""
    loop = VirtualLoop()
    heard: list[int] = []

    def hear(sound: Any) -> None:
        heard.append(int(sound[0]))

    for number in range(20):
        loop.call_later(1, hear, np.full(160, number))
    loop.run_until_complete(asyncio.sleep(2))
    loop.close()
    assert heard == list(range(20))
