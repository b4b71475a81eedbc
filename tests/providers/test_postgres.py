"""PostgresStore: the conformance kit on a real server, then what a server, a second process and a pause do to it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import IO, Any, Self

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from roomkit import InboundMessage, RoomKit, WebSocketChannel
from roomkit.core.memory import MemoryStore
from roomkit.errors import ConfigError, Fenced, StoreError, StoreLocked, StoreUnavailable, UsageError
from roomkit.models.content import TextContent
from roomkit.ports.ownership import Held, Lease, NodeSilent, Woken
from roomkit.ports.store import Batch, EventQuery, RecordKey, RecordQuery, Store
from roomkit.runtime import CRASH_POINTS, Scope
from roomkit.testing.postgres import PostgresCluster, find_binaries
from roomkit.testing.stores import CHECKS, Check, dedupe, event, record, run_check
from tests.property.test_store_machine import Stores

if find_binaries() is None and os.environ.get("CI") != "true":
    pytest.skip("PostgreSQL is not installed (apt-get install postgresql)", allow_module_level=True)

asyncpg = pytest.importorskip("asyncpg") if os.environ.get("CI") != "true" else __import__("asyncpg")

from roomkit.providers.postgres import PostgresOptions, PostgresStore  # noqa: E402
from roomkit.providers.postgres import schema as schemas  # noqa: E402
from roomkit.providers.postgres.reader import select_events, select_records  # noqa: E402

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]
QUICK = PostgresOptions(lease_s=0.6, retry_s=0.05)
ROOMS = PostgresOptions(ownership="rooms", lease_s=0.6, retry_s=0.05)
PAUSED = PostgresOptions(lease_s=600)
PAUSED_ROOMS = PostgresOptions(ownership="rooms", lease_s=600)
"""Of a store that will not renew while the test lasts."""
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE"
_names = itertools.count()


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    with PostgresCluster() as running:
        yield running


@pytest.fixture
def url(cluster: PostgresCluster) -> str:
    """A schema of this test's own."""
    return f"{cluster.url}?schema=s{next(_names)}"


@asynccontextmanager
async def opened(url: str, options: PostgresOptions = QUICK) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, options)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Any]:
    """A connection beside the store's, in the same schema."""
    plain, _, schema = url.partition("?schema=")
    connection = await asyncpg.connect(plain, server_settings={"search_path": schema})
    try:
        yield connection
    finally:
        await connection.close()


async def change(url: str, sql: str) -> list[tuple[Any, ...]]:
    async with session(url) as connection:
        return [tuple(row) for row in await connection.fetch(sql)]


def message(index: int, room_id: str = "r", **rest: Any) -> Batch:
    """An event, its key and its delivery, as a webhook makes them."""
    one = event(index, room_id)
    put = (record("outbox", f"{room_id}:{index}", room_id=room_id),)
    return Batch("t", rest.pop("epoch", 1), room_id, (one,), (dedupe(f"{room_id}:{index}", one, expires=1e12),), put)


async def indexes(store: PostgresStore, room_id: str = "r") -> list[int]:
    return [one.index for one in await store.events(EventQuery("t", room_id, limit=10_000))]


@contextmanager
def worker(url: str, what: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A process of its own with a store, and what it prints."""
    with subprocess.Popen([sys.executable, "-c", WORKER, url, what], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child, child.stdout
        finally:
            child.kill()


async def eventually(what: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            answer = what()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.02)


# -- the port


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Check, cluster: PostgresCluster) -> None:
    await run_check(check, lambda name: PostgresStore(f"{cluster.url}?schema={name[-63:]}", QUICK))


def test_it_does_as_the_model(cluster: PostgresCluster) -> None:
    class Beside(Stores):
        def made(self) -> list[Store]:
            return [MemoryStore(), PostgresStore(f"{cluster.url}?schema=m{next(_names)}", QUICK)]

    run_state_machine_as_test(
        Beside,
        settings=settings(
            max_examples=6,
            database=None,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# -- URLs and people


@pytest.mark.parametrize(
    "url", ["sqlite:///x", "postgresql://h/d?schema=", f"postgresql://h/d?schema={'x' * 64}", "mysql://h/d"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="write postgresql://"):
        PostgresStore(url)


@pytest.mark.parametrize("password", ["hun/ter2", "hun?ter2", "hun#ter2"])
def test_a_password_with_odd_characters_is_refused_unseen(password: str) -> None:
    with pytest.raises(ConfigError, match=r"write / . # @ in it as %2F") as refused:
        PostgresStore(f"postgresql://ann:{password}@db/rooms")
    assert "ter2" not in str(refused.value)


async def test_a_password_is_never_shown(cluster: PostgresCluster) -> None:
    store = PostgresStore("postgresql://ann:hunter2@127.0.0.1:1/rooms", QUICK)
    assert "hunter2" not in repr(store)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/rooms cannot be reached") as refused:
        await store.open()
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_missing_database_and_a_forbidden_one_are_told(cluster: PostgresCluster) -> None:
    with pytest.raises(StoreError, match=r"does not exist .*; create it with: createdb"):
        await PostgresStore(cluster.url.removesuffix("/postgres") + "/nowhere", QUICK).open()
    await change(f"{cluster.url}?schema=public", "CREATE ROLE guest LOGIN")
    theirs = cluster.url.replace("postgresql://postgres@", "postgresql://guest@")
    with pytest.raises(StoreError, match='run: CREATE SCHEMA "theirs" AUTHORIZATION'):
        await PostgresStore(f"{theirs}?schema=theirs", QUICK).open()
    await change(f"{cluster.url}?schema=public", "CREATE SCHEMA theirs AUTHORIZATION guest")
    async with opened(f"{theirs}?schema=theirs") as store:
        await store.commit(message(0))


async def test_unopened_and_closed_it_says_so(url: str) -> None:
    store = PostgresStore(url, QUICK)
    for _ in range(2):
        assert not store.health().writable
        with pytest.raises(StoreUnavailable, match="start the kit"):
            await store.commit(Batch("t", 1))
        with pytest.raises(StoreUnavailable, match="start the kit"):
            await store.events(EventQuery("t", "r"))
        await store.open()
        await store.aclose()
        await store.aclose()


async def test_nothing_is_left_behind_on_the_server(url: str) -> None:
    async with opened(url) as store:
        await asyncio.gather(*(store.commit(message(0, f"r{n}")) for n in range(50)))
    kept = "SELECT (SELECT count(*) FROM nodes), (SELECT count(*) FROM writers), "
    kept += "(SELECT count(*) FROM leases WHERE node IS NOT NULL)"
    assert await change(url, kept) == [(0, 0, 0)]
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'roomkit-%' AND state <> 'idle'"
    assert await change(url, left) == [(0,)]


# -- versions


async def test_a_newer_schema_is_refused_in_one_line(url: str) -> None:
    async with opened(url):
        pass
    await change(url, "INSERT INTO migrations VALUES (999, 'from the future')")
    with pytest.raises(StoreError, match="has schema 999, this roomkit knows 1; use a newer roomkit") as refused:
        await PostgresStore(url, QUICK).open()
    assert "\n" not in str(refused.value)


async def test_another_programs_tables_are_refused(url: str) -> None:
    schema = url.partition("=")[2]
    await change(url, f"CREATE SCHEMA {schema}")
    await change(url, "CREATE TABLE photos (x int)")
    with pytest.raises(StoreError, match="another program"):
        await PostgresStore(url, QUICK).open()


async def test_migrations_run_once_in_order(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PostgresStore(url, QUICK)
    assert await store.migrate() == (0, 1)
    async with opened(url) as running:
        await running.commit(message(0))
        more = (*schemas.MIGRATIONS, ("a note", ("CREATE TABLE notes (x int)", "INSERT INTO notes VALUES (7)")))
        monkeypatch.setattr(schemas, "MIGRATIONS", more)
        assert await asyncio.gather(*(PostgresStore(url).migrate() for _ in range(4))) != []
        assert await store.migrate() == (2, 2)
        assert await indexes(running) == [0]
    assert await change(url, "SELECT version, name FROM migrations") == [(1, "the first tables"), (2, "a note")]
    assert await change(url, "SELECT * FROM notes") == [(7,)]


async def test_many_may_start_at_once_on_an_empty_database(url: str) -> None:
    answers = await asyncio.gather(*(PostgresStore(url, QUICK).migrate() for _ in range(6)))
    assert sorted(answers) == [(0, 1), *[(1, 1)] * 5]


async def test_a_migration_that_fails_leaves_the_old_version(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(url):
        pass
    broken = (*schemas.MIGRATIONS, ("broken", ("CREATE TABLE half (x int)", "NO SUCH STATEMENT")))
    with monkeypatch.context() as patch:
        patch.setattr(schemas, "MIGRATIONS", broken)
        with pytest.raises(StoreError):
            await PostgresStore(url, QUICK).open()
    assert await change(url, "SELECT to_regclass('half')::text") == [(None,)]
    async with opened(url):
        pass


# -- groups


async def test_many_commits_share_a_transaction(url: str) -> None:
    async with opened(url) as store:
        await asyncio.gather(*(store.commit(message(0, f"r{n}")) for n in range(400)))
        counters = store.health().counters
        assert counters["commits"] == 400
        assert counters["transactions"] <= 12


async def test_a_rooms_batches_keep_their_order_over_all_connections(url: str) -> None:
    async with opened(url, PostgresOptions(writers=3, group=20)) as store:
        await asyncio.gather(*(store.commit(message(n // 30, f"r{n % 30}")) for n in range(600)))
        for room in range(30):
            assert await indexes(store, f"r{room}") == list(range(20))
        puts = [Batch("t", 1, put=(record("k", "a", {"n": n}),)) for n in range(100)]
        await asyncio.gather(
            *(store.commit(batch) for batch in puts), *(store.commit(message(20, f"r{n}")) for n in range(30))
        )
        assert [one.value for one in await store.records(RecordQuery("k", "t"))] == [{"n": 99}]


async def test_what_waits_for_one_thing_holds_back_those_that_share_another(url: str) -> None:
    async with opened(url) as store, Scope("committers") as scope:
        long = Batch("t", 1, put=(record("k", "a", {"text": "x" * 3_000_000}),))
        first = scope.spawn(store.commit(long), name="long", awaited=True)
        for _ in range(5):
            await asyncio.sleep(0)
        both = Batch("t", 1, put=(record("k", "a", {"n": 1}), record("k", "b", {"n": 1})))
        await asyncio.gather(first, store.commit(both), store.commit(Batch("t", 1, put=(record("k", "b", {"n": 2}),))))
        assert [one.value for one in await store.records(RecordQuery("k", "t"))] == [{"n": 1}, {"n": 2}]


async def test_what_comes_after_a_clearance_finds_it_done(url: str) -> None:
    async with opened(url) as store:
        for number in range(8):
            first = event(number)
            again = Batch("t", 1, "r", (first,), (dedupe("m", first, expires=5.0),))
            answers = await asyncio.gather(store.commit(Batch("t", 1, prune_dedupe_before=9.0)), store.commit(again))
            assert answers == [None, None]


async def test_closing_waits_for_what_is_being_written(url: str) -> None:
    store = PostgresStore(url, QUICK)
    await store.open()
    commits = asyncio.gather(*(store.commit(message(0, f"r{n}")) for n in range(400)))
    await asyncio.sleep(0)
    await store.aclose()
    assert await commits == [None] * 400
    async with opened(url) as store:
        assert len(await store.records(RecordQuery("head", "t", limit=2000))) == 400


async def test_what_was_committed_is_read_by_whoever_waited_for_it(url: str) -> None:
    async with opened(url) as store:

        async def room(name: str) -> None:
            for index in range(10):
                await store.commit(message(index, name))
                (last,) = await store.events(EventQuery("t", name, newest_first=True, limit=1))
                assert last.index == index

        await asyncio.gather(*(room(f"r{n}") for n in range(10)))


@pytest.mark.parametrize(
    "bad",
    [
        Batch("t", 1, put=(record("k", "a", {"x": object()}),)),
        Batch("t", 1, put=(record("k", "a", {"x": "\ud800"}),)),
        Batch("t", 1, put=(record("k", "\ud800"),)),
        Batch("t", 1, put=(record("k", "a\0b"),)),
        Batch("t", 1, put=(record("k", "a", terms=("\0",)),)),
        Batch("t", 1, put=(record("k", "".join(random.sample("abcdefghijklmnopqrstuvwxyz" * 200, 5000))),)),
    ],
    ids=["object", "surrogate", "key", "nul", "term", "long"],
)
async def test_what_the_server_cannot_keep_is_the_callers_mistake(url: str, bad: Batch) -> None:
    async with opened(url) as store:
        good = [store.commit(message(0, f"r{n}")) for n in range(5)]
        answers = await asyncio.gather(*good[:3], store.commit(bad), *good[3:], return_exceptions=True)
        assert [type(answer) for answer in answers] == [type(None)] * 3 + [UsageError] + [type(None)] * 2
        assert store.health().writable


async def test_any_text_a_key_may_have_comes_back(url: str) -> None:
    keys = ["", "\x1d", "\x1e", "a\x1eb", "\\", '"', "{a,b}", "NULL", "\n", "é🎈", "'; DROP TABLE records"]
    async with opened(url) as store:
        put = [record("k", key, {"key": key, "nul": "\0"}, terms=(f"t{key}", "all"), room_id=key) for key in keys]
        await asyncio.gather(*(store.commit(Batch("t", 1, put=(one,))) for one in put))
        assert await store.records(RecordQuery("k", "t")) == sorted(put, key=lambda one: one.key)
        for one in put:
            assert await store.records(RecordQuery("k", "t", terms=one.terms, room_id=one.key)) == [one]
        odd = event(0, "a\x1eb", content=TextContent(text="\x1e\x1d\0"))
        await store.commit(Batch("t", 1, "a\x1eb", (odd,)))
        assert await store.events(EventQuery("t", "a\x1eb")) == [odd]
        assert await store.records(RecordQuery("k", "t", key="\0")) == []
        assert await store.events(EventQuery("t", "\ud800")) == []


async def test_terms_follow_their_records_also_by_hand(url: str) -> None:
    async with opened(url) as store:
        await store.commit(Batch("t", 1, put=(record("k", "a", terms=("x", "y", "x")),)))
        await change(url, """UPDATE records SET terms = '["y","z"]'""")
        assert await change(url, "SELECT term FROM terms ORDER BY term") == [("y",), ("z",)]
        await store.commit(Batch("t", 1, delete=(RecordKey("k", "t", "a"),)))
        assert await change(url, "SELECT term FROM terms") == []


QUESTIONS = [
    (EventQuery("t", "r"), 0),
    (EventQuery("t", "r", newest_first=True, limit=5), 0),
    (EventQuery("t", "r", parent="r-1"), 0),
    (EventQuery("t", "", ids=("r-1", "r-2")), 0),
    (RecordQuery("k", "t", key="a"), 1),
    (RecordQuery("k", "t", after="a", prefix="a"), 0),
    (RecordQuery("k", "t", room_id="r", after="a"), 0),
    (RecordQuery("k", "t", terms=("x",), after="a"), 0),
    (RecordQuery("k", None, due_before=1.0, order="due"), 0),
    (RecordQuery("room", "t", order="activity"), 0),
    (RecordQuery("room", "t", order="activity", terms=("x",)), 0),
    (RecordQuery("head", "t", key="r"), 1),
    (RecordQuery("dedupe", "t", key="m"), 1),
]


@pytest.mark.parametrize("query, sorts", QUESTIONS, ids=str)
async def test_every_question_has_its_index(query: Any, sorts: int, filled: str) -> None:
    sql, values = select_events(query) if isinstance(query, EventQuery) else select_records(query)
    async with session(filled) as connection:
        await connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
        rows = await connection.fetch(f"EXPLAIN {sql}", *values)
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan
    assert plan.count("Sort") <= 2 * sorts, plan


@pytest.fixture(scope="module")
def filled(cluster: PostgresCluster) -> str:
    url = f"{cluster.url}?schema=filled"

    async def fill() -> None:
        async with opened(url) as store:
            await store.commit(Batch("t", 1, "r", tuple(event(n, parent_event_id="r-1") for n in range(200))))
        await change(url, "ANALYZE")

    asyncio.run(fill())
    return url


# -- one process


async def test_a_second_opener_is_told_who_and_what_to_do(url: str) -> None:
    async with opened(url) as store:
        with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()} on .*; stop that one first") as refused:
            await PostgresStore(url, QUICK).open()
        assert "\n" not in str(refused.value)
        await store.commit(message(0))  # The first one is not disturbed.
    async with opened(url) as store:
        assert (await store.open()).epoch == 2


async def test_the_death_of_an_owner_frees_the_rooms_within_its_lease(url: str) -> None:
    with worker(url, "hold") as (child, said):
        assert said.readline() == "ready\n"
        with pytest.raises(StoreLocked, match=f"process {child.pid} on"):
            await PostgresStore(url, QUICK).open()
        child.kill()
    async with asyncio.timeout(10), opened(url) as store:
        assert (await store.open()).epoch == 2


async def test_a_writer_whose_store_has_a_newer_owner_is_fenced(url: str) -> None:
    async with opened(url, PAUSED) as old:
        await old.commit(message(0))
        await expire(url)
        async with opened(url) as new:
            answers = await asyncio.gather(
                *(old.commit(message(0, f"r{n}")) for n in range(50)), old.commit(message(1)), return_exceptions=True
            )
            assert {type(answer) for answer in answers} == {Fenced}
            await new.commit(message(1, epoch=2))
            assert await indexes(new) == [0, 1]
            await old.aclose()
            await new.commit(message(2, epoch=2))  # What the old one frees is not the new one's.


async def test_an_owner_finds_out_by_itself_that_it_is_none_any_more(url: str) -> None:
    async with opened(url) as store:
        await change(url, "UPDATE leases SET node = 'another', epoch = epoch + 1")
        await eventually(lambda: "taken over" in store.health().reason)
        with pytest.raises(Fenced, match="this writer must stop"):
            await store.commit(message(0))
        assert await indexes(store) == []


async def expire(url: str) -> None:
    """As if no node had renewed for long."""
    await change(url, "UPDATE nodes SET expires = now() - interval '1 second'")


# -- several processes


async def test_a_room_has_one_owner_and_others_are_told_who(url: str) -> None:
    there = PostgresOptions(ownership="rooms", address="http://10.0.0.1:8000")
    async with opened(url, there) as one, opened(url, ROOMS) as two:
        assert await one.ownership.acquire("t", "r") == Lease("t", "r", 1)
        assert await one.ownership.acquire("t", "r") == Lease("t", "r", 1)
        assert await two.ownership.acquire("t", "r") == Held(one.ownership.node, "http://10.0.0.1:8000")
        assert await two.ownership.acquire("u", "r") == Lease("u", "r", 1)
        await one.commit(message(0))
        with pytest.raises(Fenced):
            await two.commit(message(1))
        await two.ownership.release([("t", "r")])  # Not its own: nothing happens.
        await one.commit(message(1))
        await one.ownership.release([("t", "r")])
        with pytest.raises(Fenced):
            await one.commit(message(2))
        assert await two.ownership.acquire("t", "r") == Lease("t", "r", 2)
        with pytest.raises(Fenced, match="epoch 1 is over, 2 has begun"):
            await two.commit(message(2))
        await two.commit(message(2, epoch=2))
        assert await indexes(one) == [0, 1, 2]


async def test_of_many_that_want_a_room_one_gets_it(url: str) -> None:
    async with opened(url, ROOMS) as one, opened(url, ROOMS) as two, opened(url, ROOMS) as three:
        for room in range(10):
            answers = await asyncio.gather(
                *(store.ownership.acquire("t", f"r{room}") for store in (one, two, three) for _ in range(3))
            )
            leases = [answer for answer in answers if isinstance(answer, Lease)]
            assert leases == [Lease("t", f"r{room}", 1)] * 3  # One node asked three times.


async def test_a_silent_owner_is_taken_over_and_writes_nothing_more(url: str) -> None:
    async with opened(url, PAUSED_ROOMS) as old, opened(url, ROOMS) as new:
        for room in range(20):
            await old.ownership.acquire("t", f"r{room}")
            await old.commit(message(0, f"r{room}"))
        await expire(url)
        await new.ownership.renew()
        held = await new.ownership.acquire("t", "r0")
        assert isinstance(held, Held), "all at once or none: one that is taken alone would not be missed by its owner"
        assert held.node == old.ownership.node
        leases = await new.ownership.take_over(old.ownership.node)
        assert sorted(lease.room_id for lease in leases) == sorted(f"r{room}" for room in range(20))
        assert {lease.epoch for lease in leases} == {2}
        assert await new.ownership.take_over(old.ownership.node) == []
        tries = [old.commit(message(1, f"r{room}")) for room in range(20)]
        tries += [old.commit(Batch("t", 1, put=(record("k", f"{n}"),))) for n in range(20)]
        answers = await asyncio.gather(*tries, return_exceptions=True)
        assert {type(answer) for answer in answers} == {Fenced}
        with pytest.raises(Fenced, match="start it again"):
            await old.ownership.renew()
        with pytest.raises(Fenced, match="start it again"):
            await old.ownership.acquire("t", "other")
        assert not old.health().writable
        for room in range(20):
            await new.commit(message(1, f"r{room}", epoch=2))
            assert await indexes(new, f"r{room}") == [0, 1]
        assert await new.records(RecordQuery("k", "t")) == []


async def test_who_misses_renewals_and_cannot_be_reached_is_not_waited_for(url: str) -> None:
    there = PostgresOptions(ownership="rooms", lease_s=600, address="http://there")
    async with opened(url, there) as old, opened(url, ROOMS) as new:
        await old.ownership.acquire("t", "r")
        assert not await new.ownership.suspect("http://there"), "it renews: perhaps it is only out of our reach"
        assert await new.ownership.take_over(old.ownership.node) == []
        await change(url, "UPDATE nodes SET expires = now() + interval '0.2 seconds' WHERE address = 'http://there'")
        assert not await new.ownership.suspect("http://elsewhere")
        assert await new.ownership.suspect("http://there")
        assert await new.ownership.take_over(old.ownership.node) == [Lease("t", "r", 2)]


async def test_a_thousand_rooms_are_taken_over_at_once(url: str) -> None:
    async with opened(url, PAUSED_ROOMS) as old, opened(url, ROOMS) as new, opened(url, ROOMS) as other:
        await change(
            url,
            f"INSERT INTO leases SELECT 't', 'r' || n, '{old.ownership.node}', 7 FROM generate_series(1, 1000) AS n",
        )
        await change(url, f"UPDATE nodes SET expires = now() - interval '1 s' WHERE id = '{old.ownership.node}'")
        both = await asyncio.gather(
            new.ownership.take_over(old.ownership.node), other.ownership.take_over(old.ownership.node)
        )
        assert sorted(map(len, both)) == [0, 1000]
        assert {lease.epoch for lease in both[0] or both[1]} == {8}


async def test_a_living_node_is_not_taken_over(url: str) -> None:
    async with opened(url, ROOMS) as one, opened(url, ROOMS) as two:
        await one.ownership.acquire("t", "r")
        assert await two.ownership.take_over(one.ownership.node) == []
        await asyncio.sleep(2 * ROOMS.lease_s)  # It renews by itself.
        assert await two.ownership.take_over(one.ownership.node) == []
        await one.commit(message(0))


async def test_watchers_hear_of_commits_and_of_silent_nodes(url: str) -> None:
    async with opened(url, PAUSED_ROOMS) as one, opened(url, ROOMS) as two:
        await one.ownership.acquire("t", "r")
        heard: list[Any] = []

        async def listen() -> None:
            async for sign in two.ownership.watch():
                heard.append(sign)  # noqa: PERF401 - it is looked at meanwhile

        async with Scope("listener") as scope:
            scope.spawn(listen(), name="listen")
            await eventually(lambda: heard == [Woken()])  # It may have missed something before it came.
            await one.commit(message(0))
            await eventually(lambda: heard == [Woken()] * 2)
            await change(
                url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%/watch'"
            )
            await eventually(lambda: len(heard) == 3)
            await expire(url)
            await eventually(lambda: any(isinstance(sign, NodeSilent) for sign in heard))
        assert heard[:3] == [Woken()] * 3
        assert {sign.node for sign in heard if isinstance(sign, NodeSilent)} == {one.ownership.node}


async def test_two_ways_of_owning_do_not_mix(url: str) -> None:
    async with opened(url):
        with pytest.raises(StoreLocked, match="in use by process"):
            await PostgresStore(url, ROOMS).open()
    async with opened(url, PAUSED_ROOMS) as rooms:
        await rooms.ownership.acquire("t", "r")
        with pytest.raises(StoreLocked, match="in use by process"):
            await PostgresStore(url, QUICK).open()
        await rooms.commit(message(0))
        await expire(url)
        async with opened(url) as whole:
            with pytest.raises(Fenced):
                await rooms.commit(message(1))
            await whole.commit(message(1, epoch=(await whole.open()).epoch))


async def test_of_one_message_at_two_nodes_one_event_is_made(url: str) -> None:
    """Each makes a room of its own for it, as webhooks of a new sender do."""
    async with opened(url, ROOMS) as one, opened(url, ROOMS) as two:
        for number in range(15):
            batches: list[Awaitable[Any]] = []
            for name, store in (("a", one), ("b", two)):
                first = event(0, f"{name}{number}")
                await store.ownership.acquire("t", first.room_id)
                key = dedupe(f"m{number}", first, expires=1e12)
                batches.append(store.commit(Batch("t", 1, first.room_id, (first,), (key,))))
            answers = await asyncio.gather(*batches)
            (winner,) = [name for name, answer in zip("ab", answers, strict=True) if answer is None]
            assert {answer.room_id for answer in answers if answer is not None} == {f"{winner}{number}"}
        assert len(await one.records(RecordQuery("head", "t", limit=1000))) == 15


async def test_a_stopped_process_that_wakes_up_writes_nothing(url: str) -> None:
    with worker(url, "zombie") as (child, said):
        assert said.readline() == "0\n"
        child.send_signal(signal.SIGSTOP)
        store = PostgresStore(url, ROOMS)
        await store.open()
        ((node,),) = await change(url, f"SELECT id FROM nodes WHERE id <> '{store.ownership.node}'")
        leases: list[Lease] = []

        async def taken() -> bool:
            leases.extend(await store.ownership.take_over(node))
            return bool(leases)

        await eventually(taken)
        assert leases == [Lease("t", "r", 2)]
        head = len(await indexes(store))
        await store.commit(message(head, epoch=2))
        child.send_signal(signal.SIGCONT)
        written = said.read().split()
        assert child.wait() == 0
        assert written[-1] == "fenced"
        assert await indexes(store) == list(range(head + 1))
        assert int(written[-2] if len(written) > 1 else 0) < head
        await store.aclose()


# -- a server that goes away


async def test_it_goes_on_after_a_restart_of_the_server(url: str, cluster: PostgresCluster) -> None:
    async with opened(url) as store:
        for crash in (False, True):
            await store.commit(message(2 * crash))
            cluster.stop(crash=crash)
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="cannot be reached or written"):
                    await store.commit(message(2 * crash + 1))
                with pytest.raises(StoreUnavailable):
                    await store.events(EventQuery("t", "r"))
            assert not store.health().writable
            cluster.start()
            await eventually(lambda: store.health().writable)  # Nobody had to ask.
            assert await store.commit(message(2 * crash + 1)) is None
            assert await indexes(store) == list(range(2 * crash + 2))


async def test_acknowledged_is_there_after_the_server_is_killed_under_load(url: str, cluster: PostgresCluster) -> None:
    acknowledged: dict[str, int] = {}
    repeated = 0

    async def room(name: str) -> None:
        nonlocal repeated
        for index in range(60):
            while True:
                try:
                    answer = await store.commit(message(index, name))
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
            assert answer is None, "what was refused is not there"
            acknowledged[name] = index + 1

    async def killer() -> None:
        for _ in range(2):
            before = sum(acknowledged.values())
            await eventually(lambda before=before: sum(acknowledged.values()) > before + 40)
            cluster.kill()
            cluster.start()

    async with opened(url) as store:
        await asyncio.gather(killer(), *(room(f"r{n}") for n in range(12)))
        for name, count in acknowledged.items():
            assert await indexes(store, name) == list(range(count))
        rows = await store.records(RecordQuery("outbox", "t", limit=10_000))
        assert len(rows) == sum(acknowledged.values()) == 720


async def test_sessions_that_were_ended_are_made_again_unnoticed(url: str) -> None:
    async with opened(url) as store:
        for index in range(3):
            await store.commit(message(index))
            await store.events(EventQuery("t", "r"))
            await change(url, f"{END_SESSIONS} 'roomkit-%'")
        await store.commit(message(3))
        assert await indexes(store) == [0, 1, 2, 3]


async def test_a_full_disk_refuses_says_so_and_recovers(url: str) -> None:
    async with opened(url) as store:
        await store.commit(message(0))
        await change(
            url,
            """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$""",
        )
        for table in ("events", "writers"):
            await change(url, f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION full_disk()")
        answers = await asyncio.gather(*(store.commit(message(0, f"r{n}")) for n in range(40)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        assert "No space left on device" in str(answers[0])
        assert not store.health().writable
        assert store.health().counters["failures"] <= 3  # Not tried batch by batch.
        await asyncio.sleep(QUICK.lease_s)
        assert not store.health().writable
        await change(url, "DROP FUNCTION full_disk CASCADE")
        await eventually(lambda: store.health().writable)
        assert len(await store.records(RecordQuery("head", "t", limit=1000))) == 1
        await store.commit(message(1))


# -- a commit without an answer


class Proxy:
    """Stands between a store and its server; `cut` says what is lost where the store says `at`."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.cut = ""
        self.at = b"COMMIT\0"
        self.cuts = 0
        self.open = True
        self._target = port
        self._scope = Scope("proxy")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._scope.aclose()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        there_in, there_out = await asyncio.open_connection("127.0.0.1", self._target)
        back = self._scope.spawn(self._copy(there_in, writer), name="answers")
        self._scope.spawn(self._serve(reader, there_out, writer, back), name="questions")

    async def _serve(self, reader: Any, there: Any, client: Any, back: asyncio.Task[None]) -> None:
        try:
            await self._ask(reader, there, client, back)
        except ConnectionError:
            pass
        finally:
            client.transport.abort()
            there.transport.abort()

    async def _ask(self, reader: Any, there: Any, client: Any, back: asyncio.Task[None]) -> None:
        while data := await reader.read(65536):
            if self.cut and self.at in data:
                cut, self.cut = self.cut, ""
                self.cuts += 1
                if cut != "question":
                    back.cancel()
                    there.write(data)
                    await there.drain()
                if cut == "answer, then silence":
                    self.open = False
                elif cut == "answer":
                    await asyncio.sleep(0.2)
                client.transport.abort()
                if cut == "half open":  # The server does not learn that the client is gone.
                    await asyncio.sleep(30)
                return
            there.write(data)
            await there.drain()

    async def _copy(self, reader: Any, writer: Any) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        writer.close()


@pytest.mark.parametrize("cut", ["question", "answer", "answer, then silence", "half open"])
async def test_a_commit_whose_answer_is_lost_is_looked_up(cluster: PostgresCluster, url: str, cut: str) -> None:
    schema = url.partition("?")[2]
    async with Proxy(cluster.port) as proxy, opened(f"{cluster.url_of(proxy.port)}?{schema}") as store:
        for index in range(3):
            proxy.cut = cut
            batch = message(index)
            task = asyncio.gather(store.commit(batch), *(store.commit(message(index, f"r{n}")) for n in range(5)))
            if cut == "answer, then silence":
                await eventually(lambda: not proxy.open)
                await eventually(lambda: not store.health().writable)
                assert not task.done()  # It is durable, but nobody can know yet.
                proxy.open = True
            assert await task == [None] * 6
            assert proxy.cuts == index + 1
            again = await store.commit(batch._replace(events=(), put=()))
            assert again is not None
            assert again.index == index
        assert await indexes(store) == [0, 1, 2]
        assert store.health().counters["resolved"] == 3


@pytest.mark.parametrize("at", [b"BEGIN", b"outbox"])
async def test_a_connection_that_breaks_before_the_commit_is_not_noticed(
    cluster: PostgresCluster, url: str, at: bytes
) -> None:
    schema = url.partition("?")[2]
    one = PostgresOptions(writers=1, lease_s=0.6)
    async with Proxy(cluster.port) as proxy, opened(f"{cluster.url_of(proxy.port)}?{schema}", one) as store:
        await store.commit(message(0))
        proxy.at, proxy.cut = at, "question"
        assert await store.commit(message(1)) is None
        assert await indexes(store) == [0, 1]
        assert proxy.cuts == 1
        assert store.health().counters["failures"] == 0


async def test_closing_does_not_wait_for_a_server_that_is_gone(cluster: PostgresCluster, url: str) -> None:
    schema = url.partition("?")[2]
    async with Proxy(cluster.port) as proxy:
        async with opened(f"{cluster.url_of(proxy.port)}?{schema}") as store:
            proxy.cut = "answer, then silence"
            task = asyncio.gather(store.commit(message(0)), return_exceptions=True)
            await eventually(lambda: not proxy.open)
        (answer,) = await task
        assert isinstance(answer, StoreUnavailable)
        assert "unknown whether" in str(answer)
    async with opened(url) as store:  # Sent again, its key tells.
        info = await store.open()
        answer = await store.commit(message(0, epoch=info.epoch))
        assert answer is None or answer.event_id == "r-0"
        assert await indexes(store) == [0]


# -- death


@pytest.mark.parametrize("point", [name for name in CRASH_POINTS if name.startswith("store.")])
async def test_a_crash_loses_nothing_acknowledged(url: str, point: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", WORKER, url, "write"],
        env={**os.environ, "ROOMKIT_CRASH_AT": f"{point}:3"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert answer.returncode == -signal.SIGKILL, answer.stderr
    acknowledged = [tuple(json.loads(line)) for line in answer.stdout.splitlines()]
    async with opened(url) as store:
        assert (await store.open()).epoch == 2
        for room in range(8):
            kept = await indexes(store, f"r{room}")
            assert kept == list(range(len(kept)))
            assert {index for name, index in acknowledged if name == f"r{room}"} <= set(kept)
            keys = await store.records(RecordQuery("dedupe", "t", room_id=f"r{room}", limit=10_000))
            rows = await store.records(RecordQuery("outbox", "t", room_id=f"r{room}", limit=10_000))
            assert len(keys) == len(rows) == len(kept)


WORKER = """
import asyncio, json, sys
from roomkit.errors import Fenced
from roomkit.ports.store import Batch
from roomkit.providers.postgres import PostgresOptions, PostgresStore
from roomkit.testing.stores import dedupe, event, record

async def hold(store, info):
    print("ready", flush=True)
    await asyncio.sleep(60)

def message(info, name, index):
    one = event(index, name)
    row = record("outbox", f"{name}:{index}", room_id=name)
    return Batch("t", info.epoch, name, (one,), (dedupe(f"{name}:{index}", one, expires=1e12),), (row,))

async def write(store, info):
    async def room(name):
        for index in range(200):
            await store.commit(message(info, name, index))
            print(json.dumps([name, index]), flush=True)
    await asyncio.gather(*(room(f"r{number}") for number in range(8)))

async def zombie(store, info):
    await store.ownership.acquire("t", "r")
    for index in range(100000):
        try:
            await store.commit(message(info, "r", index))
        except Fenced:
            print("fenced", flush=True)
            return
        print(index, flush=True)

async def main():
    ownership = "rooms" if sys.argv[2] == "zombie" else "store"
    store = PostgresStore(sys.argv[1], PostgresOptions(ownership, lease_s=0.6))
    await {"hold": hold, "write": write, "zombie": zombie}[sys.argv[2]](store, await store.open())
    await store.aclose()

asyncio.run(main())
"""


# -- with a kit on top


async def test_a_kit_goes_on_where_it_was(url: str) -> None:
    for number in range(3):
        kit = RoomKit(url)
        kit.register_channel(WebSocketChannel("web"))
        async with kit:
            if number == 0:
                await kit.create_room("lobby", channels=["web"])
            for again in (False, True):
                inbound = InboundMessage.text("web", "ann", f"message {number}", external_id=f"m{number}")
                result = await kit.process_inbound(inbound, room_id="lobby")
                await result.settled()
                assert result.duplicate == again
            texts = [one.text for one in await kit.events("lobby") if one.text]
            assert texts == [f"message {n}" for n in range(number + 1)]


@pytest.mark.parametrize(
    "settings, replicas, told",
    [
        ({"fsync": "off"}, [], "a power cut loses what was acknowledged"),
        ({"full_page_writes": "off"}, [], "can damage the tables"),
        ({"synchronous_commit": "off"}, [], ""),
        ({}, [("standby", "async")], r"1 replicas \(standby\), none synchronous"),
        ({}, [("one", "async"), ("two", "sync")], ""),
        ({}, [(None, None)], "unnamed"),
    ],
)
def test_what_a_servers_settings_make_of_the_promise(
    settings: dict[str, str], replicas: list[tuple[str | None, str | None]], told: str
) -> None:
    from roomkit.providers.postgres.store import judged

    broken = [text for kept, text in judged(settings, replicas) if not kept]
    assert len(broken) == bool(told)
    assert all(re.search(told, text) for text in broken)


async def test_a_server_tells_what_it_keeps(url: str) -> None:
    assert await PostgresStore(url).promises() == [
        (True, "what is acknowledged is on the server's disk, and on its synchronous replicas")
    ]
