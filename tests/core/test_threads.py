"""Other threads and blocking code (D42): the loop turns on, whoever calls and whatever a handler does."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from roomkit import Allow, BeforeCommit, Block, Committed, InboundMessage, KitOptions
from roomkit.errors import StateError, UsageError
from roomkit.runtime import WorkerThread
from roomkit.testing.channels import FakeChannel
from tests.core.rooms import kit_with, said


@pytest.mark.real_time
async def test_a_view_in_another_thread_sends_and_reads_through_the_kit() -> None:
    kit = kit_with(FakeChannel("sms"))
    async with kit:
        await kit.create_room("r", channels=["sms"])
        seen: list[Any] = []

        def view() -> None:
            result = kit.call(kit.send, "r", "from a thread").result(10)
            seen.append(result.event.text)
            seen.append(len(kit.call(kit.list_rooms).result(10)))
            with pytest.raises(StateError, match="nowhere"):
                kit.call(kit.send, "nowhere", "x").result(10)

        django = WorkerThread("django")
        await django.submit(view)
        await django.aclose()
        assert seen == ["from a thread", 1]


@pytest.mark.real_time
async def test_many_threads_at_once_are_put_in_one_order() -> None:
    kit = kit_with(FakeChannel("sms"))
    async with kit:
        await kit.create_room("r", channels=["sms"])
        futures: list[Future[Any]] = []

        def view(number: int) -> None:
            for n in range(20):
                futures.append(kit.call(kit.send, "r", f"{number}-{n}"))  # noqa: PERF401 - from four threads

        workers = [WorkerThread(f"view {number}") for number in range(4)]
        await asyncio.gather(*(worker.submit(view, number) for number, worker in enumerate(workers)))
        await asyncio.gather(*map(asyncio.wrap_future, futures))
        for worker in workers:
            await worker.aclose()
        texts = [text for _, text, _ in await said(kit, "r")]
        assert len(texts) == len(set(texts)) == 80
        for number in range(4):
            assert [t for t in texts if t.startswith(f"{number}-")] == [f"{number}-{n}" for n in range(20)]


async def test_the_wrong_moment_and_the_wrong_thread_are_told_in_one_line() -> None:
    kit = kit_with(FakeChannel("sms"))
    with pytest.raises(StateError, match=r"await kit.start\(\)"):
        kit.call(kit.list_rooms)
    async with kit:
        with pytest.raises(UsageError, match="await the coroutine"):
            kit.call(kit.list_rooms)


async def test_a_cancelled_call_from_a_thread_changes_nothing() -> None:
    kit = kit_with(FakeChannel("sms"))
    async with kit:
        started, stopped = asyncio.Event(), asyncio.Event()

        async def long() -> None:
            started.set()
            try:
                await asyncio.sleep(1000)
            finally:
                stopped.set()

        worker = WorkerThread("caller")
        future = await worker.submit(kit.call, long)
        await started.wait()
        future.cancel()
        await stopped.wait()
        await worker.aclose()
        assert future.cancelled()
        assert await kit.list_rooms() == [], "the kit goes on"


@pytest.mark.real_time
@pytest.mark.parametrize("place", ["guard", "observer", "on_message"])
async def test_a_handler_that_blocks_does_not_block_the_loop(place: str) -> None:
    """The handler waits in its thread until the loop has turned a hundred times meanwhile."""
    release, entered = threading.Event(), threading.Event()
    names: list[str] = []
    kit = kit_with(FakeChannel("sms"), FakeChannel("mail", "email"))

    def handler(*_: Any) -> None:
        names.append(threading.current_thread().name)
        entered.set()
        assert release.wait(30)

    if place == "guard":
        kit.before(BeforeCommit, budget_s=30)(handler)
    elif place == "observer":
        kit.on(Committed)(handler)
    else:
        kit.on_message(handler)
    async with kit:
        await kit.create_room("other", channels=["mail"])
        sending = asyncio.ensure_future(kit.process_inbound(InboundMessage.text("sms", "+44", "hello")))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        for _ in range(100):
            await asyncio.sleep(0)
        if place != "guard":  # which would be asked about this one as well
            await kit.send("other", "the rest goes on")
        release.set()
        await (await sending).settled(30)
    assert names
    assert all(name.startswith("roomkit-pool") for name in names)


@pytest.mark.real_time
async def test_at_most_so_many_handlers_run_at_once_and_the_others_wait() -> None:
    release = threading.Event()
    lock, inside, most = threading.Lock(), 0, 0
    kit = kit_with(FakeChannel("sms"), options=KitOptions(sync_workers=3))

    @kit.on(Committed)
    def slow(notice: Committed) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        release.wait(30)
        with lock:
            inside -= 1

    async with kit:
        await kit.create_room("r", channels=["sms"])
        for n in range(30):
            await kit.send("r", f"{n}")
        assert len(await said(kit, "r")) == 30
        while most < 3:
            await asyncio.sleep(0.001)
        release.set()
    assert most == 3


async def test_what_a_synchronous_guard_decides_counts() -> None:
    kit = kit_with(FakeChannel("sms"))

    @kit.before(BeforeCommit)
    def guard(moment: BeforeCommit) -> Allow | Block:
        return Block("rude") if "rude" in str(moment.value.content) else Allow()

    async with kit:
        await kit.create_room("r", channels=["sms"])
        polite = await kit.process_inbound(InboundMessage.text("sms", "+44", "good morning"), room_id="r")
        rude = await kit.process_inbound(InboundMessage.text("sms", "+44", "something rude"), room_id="r")
        assert (polite.blocked, rude.blocked, rude.reason) == (False, True, "rude")


@pytest.mark.real_time
async def test_a_synchronous_guard_that_never_ends_costs_its_budget_only() -> None:
    release = threading.Event()
    kit = kit_with(FakeChannel("sms"))

    @kit.before(BeforeCommit, budget_s=0.05, on_error="block")
    def guard(moment: BeforeCommit) -> None:
        release.wait(30)

    async with kit:
        await kit.create_room("r", channels=["sms"])
        result = await kit.process_inbound(InboundMessage.text("sms", "+44", "hello"), room_id="r")
        assert (result.blocked, result.reason) == (True, "guard_failed")
        release.set()
