"""The data tools where several kits share one PostgreSQL: any of them may be asked, and one of them does it."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from roomkit import InboundMessage, KitOptions, RoomKit
from roomkit.models.consent import ConsentPolicy, QuietHours
from roomkit.models.event import RoomEvent
from roomkit.models.room import Identity
from roomkit.ports.store import RecordQuery
from roomkit.testing import FakeChannel
from roomkit.testing.postgres import PostgresCluster, find_binaries

if find_binaries() is None and os.environ.get("CI") != "true":
    pytest.skip("PostgreSQL is not installed (apt-get install postgresql)", allow_module_level=True)
asyncpg = pytest.importorskip("asyncpg") if os.environ.get("CI") != "true" else __import__("asyncpg")

from tests.core.test_nodes import House, counted, eventually, house  # noqa: E402 - it needs what was looked for above

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    with PostgresCluster() as running:
        yield running


async def lines(kit: RoomKit, room_id: str) -> list[str]:
    return [line async for line in kit.export_room(room_id)]


async def test_a_room_is_exported_forked_imported_and_erased_by_whoever_is_asked(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        for kit, name in ((one, "r1"), (two, "r2")):
            await kit.create_room(name, channels=["web"])
            await kit.add_member(name, "ann")
            await kit.send(name, "mine", by="ann")
            await kit.send(name, "not mine", by="bob")
        assert await lines(two, "r1") == await lines(one, "r1")
        copy = await two.fork("r1")
        assert [e.text for e in await one.events(copy.id) if e.text] == ["mine", "not mine"]
        moved = await two.tenant("acme").import_room(await lines(two, "r1"))
        assert (moved.tenant, moved.event_count) == ("acme", 4)
        receipt = await two.erase_person("ann")
        assert receipt.rooms == {"r1": 1, "r2": 1, copy.id: 1}
        for name in receipt.rooms:
            for kit in (one, two):
                assert [e.text for e in await kit.events(name) if e.text] == ["not mine"]
        await one.send("r1", "goes on", by="bob")
        assert (await two.audit_room("r1")).ok


async def only_three_takes_over(here: House, other: str) -> None:
    """The one that could run the consumer is too late for the leases of the dead."""

    async def late(_: str) -> None:
        await asyncio.sleep(0)

    nodes: Any = here.kits[other].engine.nodes
    nodes._take_over = late


async def test_one_of_several_runs_a_consumer_and_another_takes_over(cluster: PostgresCluster) -> None:
    got: dict[str, list[RoomEvent]] = defaultdict(list)

    def consume(name: str) -> None:
        async def take(event: RoomEvent) -> None:
            got[name].append(event)

        here.kits[name].consume("crm", take, kinds=["message"], look_every_s=3)

    def indexes() -> set[tuple[str, int]]:
        return {(e.room_id, e.index) for events in got.values() for e in events}

    async with house(cluster) as here:
        for name in ("one", "two"):
            await here.start(name)
            consume(name)
        await here.start("three")  # It consumes nothing, and is the one that takes over the leases.
        one, two = here.kits["one"], here.kits["two"]
        await one.create_room("r1", channels=["web"])
        await two.create_room("r2", channels=["web"])
        for number in range(5):
            await one.send("r1", f"{number}")
            await two.send("r2", f"{number}")
        await eventually(lambda: len(indexes()) == 10)
        assert len(got) == 1, "only one of them is at work"
        (first,) = got
        other = "two" if first == "one" else "one"
        await only_three_takes_over(here, other)
        await here.kill(first)
        left = here.kits["three"]
        for number in range(5):
            for room in ("r1", "r2"):
                await left.send(room, f"later {number}")
        await eventually(lambda: len(indexes()) == 20, 20)
        assert got[other], "the other one has taken over"
        for room in ("r1", "r2"):
            own = [e.index for e in got[other] if e.room_id == room]
            assert own == sorted(own)


async def test_a_consumer_that_was_closed_leaves_its_place_at_once(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r", channels=["web"])
        got: list[str] = []
        first = one.consume("crm", lambda event: got.append("one"), kinds=["message"], look_every_s=0.2)
        await one.send("r", "hello")
        await eventually(lambda: got == ["one"])
        await asyncio.sleep(0.3)
        await first.aclose()
        two.consume("crm", lambda event: got.append("two"), kinds=["message"], look_every_s=0.2)
        await one.send("r", "hello again")
        await eventually(lambda: got == ["one", "two"])


async def test_what_is_enqueued_becomes_one_event_whoever_has_the_room(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r1", channels=["web"])
        await two.create_room("r2", channels=["web"])
        connection: Any = await asyncpg.connect(cluster.url)
        try:
            async with connection.transaction():
                for number in range(10):
                    await one.enqueue(connection, "r1", f"{number}")
                    await one.enqueue(connection, "r2", f"{number}")
        finally:
            await connection.close()
        async with asyncio.timeout(20):
            while await one.engine.store.records(RecordQuery("inbox", None)):
                await asyncio.sleep(0.02)
        for name in ("r1", "r2"):
            assert [e.text for e in await two.events(name) if e.text] == [str(number) for number in range(10)]


async def test_a_room_out_of_reach_holds_up_no_other_and_keeps_its_order(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        two = await here.start("two", lease_s=5)
        await two.create_room("near", channels=["web"])
        connection: Any = await asyncpg.connect(cluster.url)
        try:
            await two.enqueue(connection, "near", "warm up")  # Now it is this one who takes them.
            await eventually(lambda: counted(two, "inbox_taken") == 1)
            one = await here.start("one", lease_s=5)
            await one.create_room("far", channels=["web"])
            here.wires.cut("http://one")
            for number in range(3):
                await two.enqueue(connection, "far", f"far {number}")
            await two.enqueue(connection, "near", "right here")
        finally:
            await connection.close()
        await eventually(lambda: counted(two, "inbox_taken") == 2)
        assert (await two.events("near"))[-1].text == "right here"
        here.wires.down.clear()
        await eventually(lambda: counted(two, "inbox_taken") == 5, 20)
        assert [e.text for e in await one.events("far") if e.text] == ["far 0", "far 1", "far 2"]


async def test_a_stop_at_one_node_holds_at_the_others_and_a_merge_reaches_all_rooms(cluster: PostgresCluster) -> None:
    sent: dict[str, FakeChannel] = {}
    async with house(cluster) as here:
        options = KitOptions(consent=ConsentPolicy(), quiet_hours=QuietHours(awake_s=1e9))
        for name in ("one", "two"):
            kit = here.make(name, options=options)
            sent[name] = FakeChannel("text", "sms")
            kit.register_channel(sent[name])
            await kit.start()
        one, two = here.kits["one"], here.kits["two"]
        for kit, room in ((one, "r1"), (two, "r2")):
            await kit.create_room(room, channels=[])
            await kit.attach_channel(room, "text", metadata={"address": "+15550123"}, participant_id="ann")
            await kit.add_member(room, "ann")
        stop = InboundMessage.text("text", "+15550123", "STOP")
        await one.process_inbound(stop, room_id="r2")
        for kit in (one, two):
            for room in ("r1", "r2"):
                await (await kit.send(room, "an offer", metadata={"purpose": "security"})).settled()
        assert [t for channel in sent.values() for t in channel.texts if t == "an offer"] == []
        assert not await one.consent.may("sms", "+15550123")
        await two.consent.allow("sms", "+15550123")
        await (await one.send("r1", "welcome", metadata={"purpose": "security"})).settled()
        assert sent["one"].texts[-1] == "welcome"
        for kit, who in ((one, "ann"), (two, "lea")):
            await kit.identities.put(Identity(id=who, addresses={"email": (f"{who}@example.com",)}))
        receipt = await two.merge_identities("lea", "ann")
        assert receipt.rooms == ("r1", "r2")
        for kit in (one, two):
            assert {seat.participant_id for room in receipt.rooms for seat in await kit.bindings(room)} == {"lea"}
