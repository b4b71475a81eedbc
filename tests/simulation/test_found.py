"""What the simulation has found in the core, each in the shortest form that shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from roomkit.core import recovery
from roomkit.core.actor import RoomActor
from roomkit.errors import Fenced
from roomkit.models.room import RoomTimers
from roomkit.ports.store import Batch, Duplicate, RecordQuery
from roomkit.testing import FakeChannel, VirtualClock
from roomkit.testing.simulation import World, simulate
from roomkit.testing.simulation.nodes import Leases
from tests.core.faults import FaultyStore, drops, puts
from tests.core.rooms import Brain, kit_with, say, stream


class Detached(FaultyStore):
    """As the stores on disk: cancelling the caller does not undo a commit under way."""

    async def commit(self, batch: Batch) -> Duplicate | None:
        return await asyncio.shield(asyncio.ensure_future(super().commit(batch)))


async def test_a_redelivery_to_a_room_that_has_closed_meanwhile_gets_the_first_answer() -> None:
    kit = kit_with(FakeChannel("sms"))
    await kit.create_room("r", channels=["sms"])
    first = await say(kit, "hello", "r", external_id="m1")
    await kit.close_room("r")
    again = await say(kit, "hello", "r", external_id="m1")
    assert again.duplicate
    assert again.event == first.event
    fresh = await say(kit, "hello?", "r", external_id="m2")
    assert fresh.event is None
    assert fresh.reason == "room_closed"
    await kit.aclose()


async def test_a_timer_that_rings_a_rounding_error_early_does_not_ring_for_ever() -> None:
    """On the virtual loop time stands still while something can run: a timer armed again for "in 0 s" never ends."""
    kit = kit_with(FakeChannel("sms"))
    for number in range(40):
        await kit.create_room(f"r{number}", channels=["sms"], timers=RoomTimers(inactive_after_seconds=2.0))
        await asyncio.sleep(0.0001 + number / 7_919)
        await say(kit, "hello", f"r{number}")
        await kit.take_over(f"r{number}", "ann", lease_s=1.0 + number / 104_729)
    await asyncio.sleep(10)
    rooms = [await kit.get_room(f"r{number}") for number in range(40)]
    assert {(room.status.value, room.floor.mode.value) for room in rooms} == {("paused", "waiting")}
    assert isinstance(kit.engine.clock, VirtualClock)
    await kit.aclose()


async def test_the_beginning_of_a_reply_that_was_refused_does_not_come_back_after_its_end() -> None:
    store = Detached()
    kit = kit_with(FakeChannel("sms"), Brain(script=lambda context, event: stream("hm", every=9.0)), store=store)
    await kit.start()
    await kit.create_room("r", channels=["sms", "ai"])
    store.down(puts("stream"))
    await say(kit, "hello", "r")
    await asyncio.sleep(1.1)  # The beginning waits for the store.
    store.delay = 0.6
    store.up()
    await kit.take_over("r", "ann")  # Meanwhile it is tried again, and would land after what takes it away.
    await asyncio.sleep(5)
    assert await store.rows() == {}
    await kit.aclose()


async def test_a_timer_that_the_store_refused_does_not_come_back_after_it_has_rung() -> None:
    store = FaultyStore()
    kit = kit_with(FakeChannel("sms"), store=store)
    await kit.start()
    await kit.create_room("r", channels=["sms"], timers=RoomTimers(inactive_after_seconds=2.0))
    await asyncio.sleep(1)
    await say(kit, "hello", "r")
    store.down(puts("timer"))
    await asyncio.sleep(5)  # It looked too early, was to ring again later, and has rung; only its row was refused.
    assert (await kit.get_room("r")).status == "paused"
    store.up()
    await asyncio.sleep(2)
    assert await store.records(RecordQuery("timer", None)) == []
    await kit.aclose()


async def test_a_reply_cut_before_a_take_over_is_closed_although_the_store_refuses_at_first() -> None:
    store = FaultyStore()
    kit = kit_with(FakeChannel("sms"), Brain(script=lambda context, event: stream("hm", " so", every=1.0)), store=store)
    await kit.start()
    await kit.create_room("r", channels=["sms", "ai"])
    await say(kit, "hello", "r")
    await asyncio.sleep(1.5)
    cut = await store.records(RecordQuery("stream", None)), await store.records(RecordQuery("turn", None))
    actor = await kit.engine.table.require("default", "r")
    await kit.take_over("r", "ann")
    await kit.release("r")
    await store.commit(Batch("default", kit.engine.epoch, "r", put=(*cut[0], *cut[1])))
    store.down(drops("stream"))
    resuming = asyncio.ensure_future(recovery.resume_replies(actor, *cut))
    await asyncio.sleep(3)
    store.up()
    await resuming
    await asyncio.sleep(5)
    assert await store.rows() == {}
    await kit.aclose()


async def test_a_room_that_is_lost_while_others_are_still_loaded_is_looked_for_again() -> None:
    kit = kit_with(FakeChannel("sms"))
    for room in ("a", "b"):
        await kit.create_room(room, channels=["sms"])
    table = kit.engine.table
    lost = [await table.require("default", room) for room in ("a", "b")]
    for actor in lost:
        table.remove(actor)
    loaded = asyncio.Event()

    async def read(keys: list[tuple[str, str]]) -> AsyncIterator[RoomActor]:
        for actor in lost:
            fresh = RoomActor(kit.engine, actor.state)
            yield fresh
            table.remove(fresh)  # Taken over from us, in this very moment.
            await loaded.wait()

    loading = asyncio.ensure_future(table.load([("default", "a"), ("default", "b")], read))
    await asyncio.sleep(0)
    note = await kit.note("a", "hm", "ann")
    assert note.index == 1
    loaded.set()
    await loading
    await kit.aclose()


@pytest.mark.parametrize("seed", [6, 11])
def test_a_store_that_fences_a_writer_and_leaves_it_the_lease_is_not_asked_without_end(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, the node asks for the lease, gets the one it has, and is refused again: without a pause for ever, since
    nothing in it waits."""
    check, refused = Leases.check, 0
    worlds: list[World] = []

    def lying(self: Leases, node: str, batch: Batch) -> None:
        nonlocal refused
        check(self, node, batch)
        if batch.room_id is not None and batch.events and 1.0 < worlds[0].loop.time() < 14.0:
            refused += 1
            assert refused < 1_000
            raise Fenced("so it says")

    monkeypatch.setattr(Leases, "check", lying)
    outcome = simulate(seed, nodes=2, prepare=worlds.append)
    assert outcome.wrong == []
    assert refused > 10


def test_a_room_that_is_lost_while_it_is_made_does_not_lead_to_itself() -> None:
    """Its node was taken over from while the commit was under way: who held the lost actor was led to it for ever."""
    assert simulate(377).wrong == []
