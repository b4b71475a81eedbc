"""kit.enqueue: in the host's own transaction; after its commit an event, exactly once; rolled back, never."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from roomkit import BeforeCommit, KitOptions, RoomKit
from roomkit.core.memory import MemoryStore
from roomkit.errors import UsageError
from roomkit.models.content import MediaContent
from roomkit.models.redaction import Redaction
from roomkit.ports.node import NodeOptions
from roomkit.ports.store import Batch, Record, RecordQuery
from roomkit.runtime import Wakeup
from roomkit.testing.postgres import PostgresCluster, find_binaries

asyncpg = pytest.importorskip("asyncpg") if os.environ.get("CI") != "true" else __import__("asyncpg")
pytestmark = [pytest.mark.real_time, pytest.mark.may_block]
_names = itertools.count()


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    if find_binaries() is None and os.environ.get("CI") != "true":
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with PostgresCluster() as running:
        yield running


@pytest.fixture
def url(cluster: PostgresCluster) -> str:
    return f'{cluster.url}?schema="in%25box{next(_names)}'


@asynccontextmanager
async def host(cluster: PostgresCluster) -> AsyncIterator[Any]:
    """A connection of the host's own, with a table of its own."""
    connection = await asyncpg.connect(cluster.url)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS orders (id text)")
        yield connection
    finally:
        await connection.close()


async def texts(kit: RoomKit, room_id: str = "r") -> list[str]:
    return [e.text for e in await kit.events(room_id, limit=1000) if e.text]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def empty(kit: RoomKit) -> bool:
    return not await kit.engine.store.records(RecordQuery("inbox", None))


async def test_committed_it_becomes_events_in_order_rolled_back_it_never_was(
    cluster: PostgresCluster, url: str
) -> None:
    async with RoomKit(url) as kit, host(cluster) as connection:
        await kit.create_room("r", channels=())
        async with connection.transaction():
            await connection.execute("INSERT INTO orders VALUES ('1')")
            for number in range(20):
                await kit.enqueue(connection, "r", f"order {number} \u00fc\U0001f600 %s $1", by="shop")
            await asyncio.sleep(0.1)
            assert await texts(kit) == [], "not before the commit"
        undone = connection.transaction()
        await undone.start()
        await kit.enqueue(connection, "r", "never")
        await undone.rollback()
        await until(lambda: empty(kit))
        assert await texts(kit) == [f"order {number} \u00fc\U0001f600 %s $1" for number in range(20)]
        events = await kit.events("r")
        assert {e.source.participant_id for e in events[1:]} == {"shop"}


async def test_what_it_is_told_goes_along_and_other_tenants_are_kept_apart(cluster: PostgresCluster, url: str) -> None:
    async with RoomKit(url) as kit, host(cluster) as connection:
        acme = kit.tenant("acme")
        for rooms in (kit, acme):
            await rooms.create_room("r", channels=())
        picture = MediaContent(url="https://x.y/a.png", mime_type="image/png", caption="a picture")
        await acme.enqueue(connection, "r", picture, visibility="internal", metadata={"order": 7})
        await until(lambda: empty(kit))
        (event,) = [e for e in await acme.events("r") if e.text]
        assert (event.content, event.visibility, event.metadata) == (picture, "internal", {"order": 7})
        assert await texts(kit) == []


async def test_a_crash_between_sending_and_forgetting_sends_nothing_twice(cluster: PostgresCluster, url: str) -> None:
    async with RoomKit(url) as kit, host(cluster) as connection:
        await kit.create_room("r", channels=())
        commit = kit.engine.store.commit
        lost: list[Any] = []

        async def forgets_not(batch: Any) -> Any:
            if batch.delete and batch.delete[0].kind == "inbox" and not lost:
                lost.append(batch)
                raise asyncio.CancelledError  # As if the process had ended here.
            return await commit(batch)

        kit.engine.store.commit = forgets_not  # type: ignore[method-assign]
        await kit.enqueue(connection, "r", "once")

        async def crashed() -> bool:
            return bool(lost)

        await until(crashed)
        assert await texts(kit) == ["once"]
        assert not await empty(kit)
    async with RoomKit(url) as kit:
        await until(lambda: empty(kit))
        assert await texts(kit) == ["once"]


async def test_what_was_written_while_no_kit_ran_is_taken_at_the_start(cluster: PostgresCluster, url: str) -> None:
    async with RoomKit(url) as kit:
        await kit.create_room("r", channels=())
        inbox = kit.engine.inbox
        assert inbox is not None
    async with host(cluster) as connection:
        value = {"by": "shop", "content": {"type": "text", "text": "while you slept"}}
        await inbox.insert(connection, "default", "k1", "r", value)
    async with RoomKit(url) as kit:
        await until(lambda: empty(kit))
        assert await texts(kit) == ["while you slept"]


async def test_what_no_room_can_take_is_put_aside_and_holds_up_nothing(cluster: PostgresCluster, url: str) -> None:
    async with RoomKit(url) as kit, host(cluster) as connection:
        await kit.create_room("r", channels=())
        await kit.create_room("shut", channels=())
        await kit.close_room("shut")
        await kit.enqueue(connection, "none", "to nobody")
        await kit.enqueue(connection, "shut", "too late")
        await kit.enqueue(connection, "r", "fine")
        await until(lambda: empty(kit))
        assert await texts(kit) == ["fine"]
        aside = await kit.engine.store.records(RecordQuery("inbox_refused", "default"))
        assert [(r.value["room_id"], r.value["error"].partition(":")[0]) for r in aside] == [
            ("none", "RoomNotFound"),
            ("shut", "room_closed"),
        ]
        assert kit.stats()["inbox_refused"] == 2


async def test_a_row_keeps_nothing_that_the_store_is_not_to_keep(cluster: PostgresCluster, url: str) -> None:
    options = KitOptions(redaction=Redaction(store=True))
    async with RoomKit(url, options=options) as kit, host(cluster) as connection:
        about = {"subject": "of ann@example.com", "order": "4711"}
        await kit.enqueue(connection, "none", "write to ann@example.com", metadata=about)
        await until(lambda: empty(kit))
        (aside,) = await kit.engine.store.records(RecordQuery("inbox_refused", "default"))
        assert aside.value["content"]["text"] == "write to [email]"
        assert aside.value["metadata"] == {"subject": "of [email]", "order": "4711"}


async def test_psycopg_works_as_well(cluster: PostgresCluster, url: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    async with RoomKit(url) as kit:
        await kit.create_room("r", channels=())
        async with await psycopg.AsyncConnection.connect(cluster.url) as connection:
            await kit.enqueue(connection, "r", "from psycopg 100 %")
        with psycopg.connect(cluster.url) as connection:
            await kit.enqueue(connection, "r", "and without await")
        with psycopg.connect(cluster.url) as connection:
            await kit.enqueue(connection, "r", "never")
            connection.rollback()
        await until(lambda: empty(kit))
        assert await texts(kit) == ["from psycopg 100 %", "and without await"]


async def test_wrong_use_is_told(cluster: PostgresCluster, url: str) -> None:
    async with RoomKit() as kit:
        with pytest.raises(UsageError, match="needs the PostgreSQL store"):
            await kit.enqueue(object(), "r", "x")
    async with RoomKit(url) as kit:
        with pytest.raises(UsageError, match="asyncpg or psycopg, not object"):
            await kit.enqueue(object(), "r", "x")


class Shelf:
    """An inbox of nothing but memory: rows are there as soon as they are inserted."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.news = Wakeup()

    async def insert(self, connection: Any, tenant: str, key: str, room_id: str, value: dict[str, Any]) -> None:
        await self.store.commit(Batch(tenant, 1, put=(Record("inbox", tenant, key, value, room_id),)))
        self.news.set()

    async def wait(self, seconds: float) -> None:
        await self.news.wait()

    async def aclose(self) -> None: ...


class Shop(MemoryStore):
    def inbox(self) -> Shelf:
        return Shelf(self)


async def test_a_room_that_hangs_holds_up_neither_its_tenant_nor_another() -> None:
    never = asyncio.Event()
    async with RoomKit(Shop()) as kit:

        @kit.before(BeforeCommit, budget_s=60)
        async def guard(moment: BeforeCommit) -> None:
            if moment.value.text == "hang":
                await never.wait()

        acme = kit.tenant("acme")
        for rooms, names in ((kit, ["stuck", *(f"r{n}" for n in range(40))]), (acme, ["r"])):
            for name in names:
                await rooms.create_room(name, channels=())
        for number in range(300):
            await kit.enqueue(None, "stuck", "hang" if number == 0 else "later")
        for number in range(40):
            await kit.enqueue(None, f"r{number}", "hello")
        await acme.enqueue(None, "r", "hello")
        await until(lambda: only_from(kit, "stuck"))
        assert await texts(acme, "r") == ["hello"]
        assert [await texts(kit, f"r{number}") for number in range(40)] == [["hello"]] * 40
        never.set()
        await until(lambda: empty(kit))
        assert await texts(kit, "stuck") == ["hang", *["later"] * 299]


async def test_who_has_lost_the_inbox_takes_no_row_away(cluster: PostgresCluster, url: str) -> None:
    node = NodeOptions("http://one", secrets=("so that nodes know each other",))
    async with RoomKit(url, options=KitOptions(node=node)) as kit, host(cluster) as connection:
        await kit.create_room("r", channels=())
        await kit.enqueue(connection, "r", "one")
        await until(lambda: empty(kit))
        store: Any = kit.engine.store
        await store.ownership._run(lambda c: c.execute("UPDATE leases SET epoch = epoch + 1 WHERE room_id = '~inbox'"))
        await kit.enqueue(connection, "r", "two")
        await until(lambda: said(kit, "two"))
        await asyncio.sleep(0.3)
        assert not await empty(kit), "the row is another's to take away"


async def only_from(kit: RoomKit, room_id: str) -> bool:
    return {row.room_id for row in await kit.engine.store.records(RecordQuery("inbox", None, limit=1000))} == {room_id}


async def said(kit: RoomKit, text: str) -> bool:
    return text in await texts(kit)
