"""PostgresStore: the conformance kit on a real server, then what a server, a second process and a pause do to it."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from roomkit.core.memory import MemoryStore
from roomkit.errors import ConfigError, StoreError, StoreUnavailable, UsageError
from roomkit.models.content import TextContent
from roomkit.ports.store import Batch, EventQuery, RecordKey, RecordQuery, Store
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
