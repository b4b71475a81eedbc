"""SQLiteStore: the conformance kit, then what a disk, a second process and a crash do to it."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from roomkit.core.memory import MemoryStore
from roomkit.errors import ConfigError, Fenced, StoreError, StoreLocked, StoreUnavailable, UsageError
from roomkit.models.content import TextContent
from roomkit.ports.store import Batch, EventQuery, RecordKey, RecordQuery, Store
from roomkit.providers.sqlite import SQLiteOptions, SQLiteStore
from roomkit.providers.sqlite import schema as schemas
from roomkit.providers.sqlite.reader import select
from roomkit.runtime import CRASH_POINTS
from roomkit.testing.stores import CHECKS, START, Check, check_store, dedupe, event, record, run_check

MakeStore = Callable[[str], Store]


@pytest.fixture
def make(tmp_path: Path) -> MakeStore:
    return lambda name: SQLiteStore(tmp_path / f"{name}.db")


@asynccontextmanager
async def opened(folder: Path, options: SQLiteOptions | None = None) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(folder / "rooms.db", options)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Check, make: MakeStore) -> None:
    await run_check(check, make)


@pytest.mark.real_time
async def test_it_conforms_on_an_ordinary_loop(make: MakeStore) -> None:
    assert await check_store(make) == len(CHECKS)


# -- names and files


@pytest.mark.parametrize("path", ["sqlite:///rooms.db", "rooms.db", "./rooms.db"])
def test_a_relative_url_or_path_is_relative(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert SQLiteStore(path).path == tmp_path / "rooms.db"


def test_four_slashes_are_absolute() -> None:
    assert SQLiteStore("sqlite:////var/rooms.db").path == Path("/var/rooms.db")


@pytest.mark.parametrize("path", ["", "sqlite:///", ":memory:", "sqlite:///:memory:", "sqlite://rooms.db", "x://y"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="write"):
        SQLiteStore(path)


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; create it"):
        await SQLiteStore(tmp_path / "no" / "rooms.db").open()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\n" * 500)
    with pytest.raises(StoreError, match="cannot be opened as a store"):
        await SQLiteStore(path).open()
    assert path.read_text() == "dear diary\n" * 500


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "photos.db")) as other, other:
        other.execute("CREATE TABLE photos (x)")
    other.close()
    with pytest.raises(StoreError, match="another program"):
        await SQLiteStore(tmp_path / "photos.db").open()


async def test_the_files_belong_to_their_owner_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.commit(Batch("t", 1, "r", (event(0),)))
        for path in store.path.parent.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_unopened_and_closed_it_says_so(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "rooms.db")
    for _ in range(2):
        assert not store.health().writable
        with pytest.raises(StoreUnavailable, match="start the kit"):
            await store.commit(Batch("t", 1))
        with pytest.raises(StoreUnavailable, match="start the kit"):
            await store.events(EventQuery("t", "r"))
        await store.open()
        await store.aclose()
        await store.aclose()


# -- versions


async def test_a_newer_schema_is_refused_in_one_line(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.aclose()
        change(store.path, "INSERT INTO migrations VALUES (999, 'from the future')")
        told = f"has schema 999, this roomkit knows {schemas.SCHEMA_VERSION}; use a newer roomkit"
        with pytest.raises(StoreError, match=told) as refused:
            await store.open()
        assert "\n" not in str(refused.value)


async def test_migrations_run_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as store:
        await store.commit(Batch("t", 1, "r", (event(0),)))
        await store.aclose()
        more = (*schemas.MIGRATIONS, ("a note", ("CREATE TABLE notes (x)", "INSERT INTO notes VALUES (7)")))
        monkeypatch.setattr(schemas, "MIGRATIONS", more)
        for _ in range(2):
            await store.open()
            assert await store.events(EventQuery("t", "r")) == [event(0)]
            await store.aclose()
        names = [name for name, _ in more]
        assert change(store.path, "SELECT version, name FROM migrations") == list(enumerate(names, 1))
        assert change(store.path, "SELECT * FROM notes") == [(7,)]


async def test_a_migration_that_fails_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as store:
        await store.aclose()
        broken = (*schemas.MIGRATIONS, ("broken", ("CREATE TABLE half (x)", "NO SUCH STATEMENT")))
        with monkeypatch.context() as patch:
            patch.setattr(schemas, "MIGRATIONS", broken)
            with pytest.raises(StoreError):
                await store.open()
        assert change(store.path, "SELECT name FROM sqlite_master WHERE name = 'half'") == []
        await store.open()


# -- one process


async def test_a_second_opener_is_told_who_and_what_to_do(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}; stop that one first") as refused:
            await SQLiteStore(store.path).open()
        assert "\n" not in str(refused.value)
        await store.commit(Batch("t", 1, "r", (event(0),)))  # The first one is not disturbed.
        await store.aclose()
        second = SQLiteStore(store.path)
        await second.open()
        await second.aclose()


@pytest.mark.real_time
@pytest.mark.may_block
async def test_another_process_is_named_and_its_death_frees_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    child = subprocess.Popen([sys.executable, "-c", WORKER, str(path), "hold"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    with pytest.raises(StoreLocked, match=f"process {child.pid};"):
        await SQLiteStore(path).open()
    child.kill()
    child.wait()
    child.stdout.close()
    store = SQLiteStore(path)
    info = await store.open()
    assert info.epoch == 2
    await store.aclose()


async def test_a_writer_whose_file_has_a_newer_owner_is_fenced(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        change(store.path, "UPDATE meta SET value = value + 1 WHERE name = 'epoch'")  # As if the lock had been lost.
        with pytest.raises(Fenced, match="must stop"):
            await store.commit(Batch("t", 1, "r", (event(0),)))
        assert await store.events(EventQuery("t", "r")) == []


# -- groups


async def test_many_commits_share_a_transaction(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await asyncio.gather(*(store.commit(Batch("t", 1, f"r{n}", (event(0, f"r{n}"),))) for n in range(400)))
        counters = store.health().counters
        assert counters["commits"] == 400
        assert counters["transactions"] <= 4


async def test_closing_waits_for_what_is_being_written(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "rooms.db")
    await store.open()
    commits = asyncio.gather(*(store.commit(Batch("t", 1, f"r{n}", (event(0, f"r{n}"),))) for n in range(400)))
    await asyncio.sleep(0)
    await store.aclose()
    assert await commits == [None] * 400
    await store.open()
    assert len(await store.records(RecordQuery("head", "t", limit=2000))) == 400
    await store.aclose()


async def test_what_was_handed_in_is_read_by_whoever_waited_for_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:

        async def room(name: str) -> None:
            for index in range(20):
                await store.commit(Batch("t", 1, name, (event(index, name),)))
                (last,) = await store.events(EventQuery("t", name, newest_first=True, limit=1))
                assert last.index == index

        await asyncio.gather(*(room(f"r{n}") for n in range(10)))


@pytest.mark.parametrize(
    "value", [{"x": {1, 2}}, {"x": object()}, {("a", "b"): 1}, {"x": "\ud800"}], ids=["set", "object", "key", "text"]
)
async def test_what_json_cannot_hold_is_the_callers_mistake(tmp_path: Path, value: dict[str, Any]) -> None:
    async with opened(tmp_path) as store:
        good = [store.commit(Batch("t", 1, f"r{n}", (event(0, f"r{n}"),))) for n in range(5)]
        bad = store.commit(Batch("t", 1, "bad", (event(0, "bad"),), put=(record("k", "a", value),)))
        answers = await asyncio.gather(*good[:3], bad, *good[3:], return_exceptions=True)
        assert [type(answer) for answer in answers] == [type(None)] * 3 + [UsageError] + [type(None)] * 2
        assert store.health().writable
        assert await store.records(RecordQuery("head", "t", key="bad")) == []


async def test_a_key_that_sql_cannot_hold_fails_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        batches = [Batch("t", 1, put=(record("k", key),)) for key in ("a", "\ud800", "b")]
        answers = await asyncio.gather(*map(store.commit, batches), return_exceptions=True)
        assert [type(answer) for answer in answers] == [type(None), UsageError, type(None)]
        assert [one.key for one in await store.records(RecordQuery("k", "t"))] == ["a", "b"]


ONE, ROOM_ROWS, DUE = (
    "PRIMARY KEY (kind=? AND tenant=? AND key=?)",
    "records_by_room (kind=? AND tenant=?",
    "records_by_due",
)


@pytest.mark.parametrize(
    "query, leading, steps",
    [
        (RecordQuery("k", "t", key="a"), None, [ONE]),
        (RecordQuery("k", "t", key="a", room_id="r"), None, [ONE]),
        (RecordQuery("k", "t", after="a", prefix="a"), None, ["(kind=? AND tenant=? AND key>? AND key<?)"]),
        (RecordQuery("k", "t", room_id="r", after="a"), None, [f"{ROOM_ROWS} AND room_id=? AND key>?)"]),
        (
            RecordQuery("k", "t", room_id="r", terms=("x",)),
            None,
            [f"{ROOM_ROWS} AND room_id=?)", "AND term=? AND key=?"],
        ),
        (RecordQuery("delivery", "t", room_id="r"), None, ["PRIMARY KEY (kind=? AND tenant=? AND key>? AND key<?)"]),
        (RecordQuery("k", "t", terms=("x",), after="a"), "x", ["(kind=? AND tenant=? AND term=? AND key>?)", ONE]),
        (RecordQuery("k", None, due_before=1.0, order="due"), None, [DUE]),
        (RecordQuery("room", "t", order="activity"), None, ["heads_by_activity (tenant=?)", ONE]),
        (RecordQuery("room", "t", order="activity", terms=("x",)), "x", ["AND term=?)", ONE, "heads", "TEMP B-TREE"]),
        (RecordQuery("head", "t", key="r"), None, ["(tenant=? AND room_id=?)"]),
        (RecordQuery("dedupe", "t", key="m"), None, ["PRIMARY KEY (tenant=? AND key=?)"]),
    ],
    ids=str,
)
def test_no_question_walks_more_than_it_must(query: RecordQuery, leading: str | None, steps: list[str]) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schemas.migrate(connection, "x")
    sql, values = select(query, leading)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    connection.close()
    plan = [step for step in plan if not step.startswith("CORRELATED")]
    assert len(plan) == len(steps), plan
    assert all(expected in step for expected, step in zip(steps, plan, strict=True)), plan
    assert not any(step.startswith("SCAN") for step in plan)


@pytest.mark.parametrize("store", [MemoryStore, None], ids=["memory", "sqlite"])
async def test_rooms_with_a_rare_and_with_a_common_term_come_by_activity(store: Any, tmp_path: Path) -> None:
    kept: Store = store() if store else SQLiteStore(tmp_path / "rooms.db")
    info = await kept.open()
    for start in range(0, 1200, 100):
        rooms = [
            record("room", f"{n:04}", terms=("common", "rare") if n % 400 == 7 else ("common",))
            for n in range(start, start + 100)
        ]
        await kept.commit(Batch("t", info.epoch, put=tuple(rooms)))
    for seconds, room in enumerate(("0007", "0900", "0807", "0001")):
        await kept.commit(Batch("t", info.epoch, room, activity_at=START + timedelta(seconds=seconds)))
    for terms, expected in (
        (("rare",), ["0807", "0007", "0407"]),
        (("common",), ["0001", "0807", "0900", "0007", "0000"]),
        (("common", "rare"), ["0807", "0007", "0407"]),
    ):
        found = await kept.records(RecordQuery("room", "t", terms=terms, order="activity", limit=5))
        assert [one.key for one in found] == expected
        found = await kept.records(RecordQuery("room", "t", terms=terms, limit=2, after="0100"))
        assert [one.key for one in found] == (["0407", "0807"] if "rare" in terms else ["0101", "0102"])
    await kept.aclose()


# -- erasing


async def test_nothing_of_an_erased_text_is_left_in_the_files(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        secret = "4929-canary-1234"
        await store.commit(Batch("t", 1, "r", (event(0, content=TextContent(text=secret * 9)),)))
        assert found_in(store.path.parent, secret)
        await store.commit(Batch("t", 1, "r", erase=(event(0, content=TextContent(text="")),)))
        assert not found_in(store.path.parent, secret)


async def test_nothing_of_a_deleted_record_is_left_after_closing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        secret = "4929-canary-1234"
        kept = record("outbox", "a", {"text": secret * 500})
        await store.commit(Batch("t", 1, put=(kept,)))
        await store.commit(Batch("t", 1, delete=(RecordKey(kept.kind, kept.tenant, kept.key),)))
        await store.aclose()
        assert not found_in(store.path.parent, secret)


# -- a disk that refuses


class Faulty(sqlite3.Connection):
    """Fails where it is told to: a statement's beginning -> the error, and how many times."""

    faults: dict[str, tuple[sqlite3.Error, int]] = {}

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self._maybe_fail(sql)
        return super().execute(sql, *parameters)

    def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self._maybe_fail(sql)
        return super().executemany(sql, *parameters)

    def _maybe_fail(self, sql: str) -> None:
        for start, (error, times) in self.faults.items():
            if sql.startswith(start) and times > 0:
                self.faults[start] = (error, times - 1)
                raise error


FAULTY = SQLiteOptions(connect=functools.partial(sqlite3.connect, factory=Faulty))


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    yield
    Faulty.faults = {}


@pytest.mark.parametrize("where", ["BEGIN", "INSERT INTO events", "INSERT INTO records", "COMMIT"])
async def test_a_full_disk_refuses_says_so_and_recovers(tmp_path: Path, where: str) -> None:
    async with opened(tmp_path, FAULTY) as faulty:
        batch = Batch("t", 1, "r", (event(0),), (dedupe("m", event(0)),), (record("k", "a"),))
        Faulty.faults = {where: (sqlite3.OperationalError("database or disk is full"), 1)}
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await faulty.commit(batch)
        health = faulty.health()
        assert (health.writable, health.reason) == (False, "database or disk is full")
        assert await faulty.events(EventQuery("t", "r")) == []
        assert await faulty.commit(batch) is None
        assert faulty.health().writable
        assert await faulty.events(EventQuery("t", "r")) == [event(0)]


async def test_it_finds_out_by_itself_that_the_disk_is_well_again(tmp_path: Path) -> None:
    async with opened(tmp_path, FAULTY) as faulty:
        Faulty.faults = {"BEGIN": (sqlite3.OperationalError("disk I/O error"), 4)}
        with pytest.raises(StoreUnavailable):
            await faulty.commit(Batch("t", 1, "r", (event(0),)))
        await asyncio.sleep(2.5)
        assert not faulty.health().writable
        await asyncio.sleep(2)
        assert faulty.health().writable


async def test_a_group_that_fails_is_redone_one_by_one(tmp_path: Path) -> None:
    async with opened(tmp_path, FAULTY) as faulty:
        Faulty.faults = {"COMMIT": (sqlite3.OperationalError("disk I/O error"), 1)}
        answers = await asyncio.gather(
            *(faulty.commit(Batch("t", 1, f"r{n}", (event(0, f"r{n}"),))) for n in range(20)), return_exceptions=True
        )
        assert answers.count(None) >= 19  # The first one may have been a group of one.
        heads = await faulty.records(RecordQuery("head", "t"))
        assert len(heads) == answers.count(None)


async def test_a_broken_disk_is_not_tried_for_every_batch(tmp_path: Path) -> None:
    async with opened(tmp_path, FAULTY) as faulty:
        Faulty.faults = {"BEGIN": (sqlite3.OperationalError("disk I/O error"), 10**6)}
        answers = await asyncio.gather(
            *(faulty.commit(Batch("t", 1, f"r{n}", (event(0, f"r{n}"),))) for n in range(200)), return_exceptions=True
        )
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        assert 10**6 - Faulty.faults["BEGIN"][1] < 20


async def test_room_goes_on_right_after_a_failed_group(tmp_path: Path) -> None:
    async with opened(tmp_path, FAULTY) as faulty:
        await faulty.commit(Batch("t", 1, "r", (event(0),)))
        Faulty.faults = {"COMMIT": (sqlite3.OperationalError("disk I/O error"), 1)}
        with pytest.raises(StoreUnavailable):
            await faulty.commit(Batch("t", 1, "r", (event(1), event(2))))
        await faulty.commit(Batch("t", 1, "r", (event(1),)))
        assert [one.index for one in await faulty.events(EventQuery("t", "r"))] == [0, 1]


async def test_a_really_full_file(tmp_path: Path) -> None:
    """No fault is planted here: SQLite itself refuses to let the file grow."""

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connections.append(sqlite3.connect(*args, **kwargs))
        return connections[-1]

    connections: list[sqlite3.Connection] = []
    store = SQLiteStore(tmp_path / "rooms.db", SQLiteOptions(connect=connect))
    await store.open()
    connections[0].execute("PRAGMA max_page_count = 60")
    count = 0

    async def fill() -> None:
        nonlocal count
        while True:
            await store.commit(Batch("t", 1, "r", (event(count, content=TextContent(text="x" * 3000)),)))
            count += 1

    with pytest.raises(StoreUnavailable, match="full"):
        await fill()
    assert not store.health().writable
    assert len(await store.events(EventQuery("t", "r"))) == count > 5
    connections[0].execute("PRAGMA max_page_count = 100000")
    await store.commit(Batch("t", 1, "r", (event(count, content=TextContent(text="x" * 3000)),)))
    assert store.health().writable
    await store.aclose()
    await store.open()
    assert [one.index for one in await store.events(EventQuery("t", "r"))] == list(range(count + 1))
    await store.aclose()


def test_a_full_file_system(tmp_path: Path) -> None:
    """The kernel refuses the bytes (RLIMIT_FSIZE); when it gives way, the same process goes on."""
    answer = run(tmp_path / "rooms.db", "fill")
    report = json.loads(answer.stdout)
    assert report["refused"] > 0
    assert report["reason"]
    assert report["recovered"]
    assert report["indexes"] == list(range(report["acknowledged"]))


# -- death


@pytest.mark.real_time
@pytest.mark.may_block
@pytest.mark.parametrize("point", [name for name in CRASH_POINTS if name.startswith("store.")])
@pytest.mark.parametrize("nth", [1, 3])
async def test_a_crash_loses_nothing_acknowledged(tmp_path: Path, point: str, nth: int) -> None:
    path = tmp_path / "rooms.db"
    answer = run(path, "write", ROOMKIT_CRASH_AT=f"{point}:{nth}")
    assert answer.returncode == -signal.SIGKILL
    acknowledged = [tuple(json.loads(line)) for line in answer.stdout.splitlines()]
    store = SQLiteStore(path)
    info = await store.open()
    assert info.epoch == 2
    for room in range(8):
        name = f"r{room}"
        events = await store.events(EventQuery("t", name, limit=10_000))
        indexes = [one.index for one in events]
        assert indexes == list(range(len(indexes)))
        assert {index for acked, index in acknowledged if acked == name} <= set(indexes)
        keys = await store.records(RecordQuery("dedupe", "t", room_id=name, limit=10_000))
        rows = await store.records(RecordQuery("outbox", "t", room_id=name, limit=10_000))
        assert len(keys) == len(rows) == len(indexes)
    await store.aclose()


WORKER = """
import asyncio, json, resource, signal, sys
from roomkit.errors import StoreUnavailable
from roomkit.models.content import TextContent
from roomkit.ports.store import Batch, EventQuery
from roomkit.providers.sqlite import SQLiteStore
from roomkit.testing.stores import dedupe, event, record

store = SQLiteStore(sys.argv[1])

async def hold(info):
    print("ready", flush=True)
    await asyncio.sleep(60)

async def write(info):
    async def room(name):
        for index in range(200):
            one = event(index, name)
            row = record("outbox", f"{name}\\n{index}", room_id=name)
            key = dedupe(f"{name}:{index}", one, expires=1e12)
            await store.commit(Batch("t", info.epoch, name, (one,), (key,), (row,)))
            print(json.dumps([name, index]), flush=True)
    await asyncio.gather(*(room(f"r{number}") for number in range(8)))

async def fill(info):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    acknowledged = refused = 0
    async def one():
        await store.commit(Batch("t", info.epoch, "r", (event(acknowledged, content=TextContent(text="x" * 3000)),)))
    while refused < 3:
        try:
            await one()
            acknowledged += 1
        except StoreUnavailable:
            refused += 1
    reason = store.health().reason
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await one()
    acknowledged += 1
    indexes = [one.index for one in await store.events(EventQuery("t", "r", limit=10_000))]
    recovered = store.health().writable
    report = dict(acknowledged=acknowledged, refused=refused, reason=reason, indexes=indexes, recovered=recovered)
    print(json.dumps(report))

async def main():
    await {"hold": hold, "write": write, "fill": fill}[sys.argv[2]](await store.open())
    await store.aclose()

asyncio.run(main())
"""


def run(path: Path, what: str, **environment: str) -> subprocess.CompletedProcess[str]:
    answer = subprocess.run(
        [sys.executable, "-c", WORKER, str(path), what],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert answer.returncode in (0, -signal.SIGKILL), answer.stderr
    return answer


def change(path: Path, sql: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(sql).fetchall()
    finally:
        connection.close()


def found_in(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.iterdir() if text.encode() in path.read_bytes()]
