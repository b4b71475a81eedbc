"""The conformance kit of the Store port: what every store must do, checked on yours, with or without pytest.

    import asyncio
    from roomkit.testing.stores import check_store

    asyncio.run(check_store(lambda name: MyStore(f"/tmp/{name}.db")))

The function gets a name and returns a store that is not open yet; under a new name it must be empty, and a durable
store must find under the same name what was committed before. Under pytest: `@pytest.mark.parametrize("check", CHECKS)`
and `await run_check(check, make_store)`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from roomkit.errors import Fenced, RoomKitError, UsageError
from roomkit.models.content import SystemContent, TextContent
from roomkit.models.event import EventSource, RoomEvent
from roomkit.ports.store import (
    Batch,
    DedupeKey,
    Duplicate,
    EventQuery,
    Record,
    RecordKey,
    RecordQuery,
    Store,
    StoreInfo,
)

MakeStore = Callable[[str], Store]
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Bench:
    """An open store under test, and short words for what is done with it. The tenant is "t" unless named."""

    make: MakeStore
    name: str
    store: Store
    info: StoreInfo

    async def commit(self, room_id: str | None = "r", *events: RoomEvent, **rest: Any) -> Duplicate | None:
        rest.setdefault("tenant", "t")
        rest.setdefault("epoch", self.info.epoch)
        return await self.store.commit(Batch(room_id=room_id, events=events, **rest))

    async def refused(self, kind: type[RoomKitError], batch: Awaitable[Any], what: str) -> None:
        try:
            answer = await batch
        except kind:
            return
        raise AssertionError(f"{what}: expected {kind.__name__}, got {answer!r}")

    async def events(self, room_id: str = "r", *, tenant: str = "t", **query: Any) -> list[RoomEvent]:
        return await self.store.events(EventQuery(tenant, room_id, **query))

    async def indexes(self, room_id: str = "r", **query: Any) -> list[int]:
        return [event.index for event in await self.events(room_id, **query)]

    async def records(self, kind: str, *, tenant: str | None = "t", **query: Any) -> list[Record]:
        return await self.store.records(RecordQuery(kind, tenant, **query))

    async def keys(self, kind: str, **query: Any) -> list[str]:
        return [record.key for record in await self.records(kind, **query)]

    async def head(self, room_id: str = "r") -> int | None:
        found = await self.records("head", key=room_id)
        return found[0].value["next_index"] if found else None

    async def reopen(self) -> None:
        await self.store.aclose()
        self.store = self.make(self.name)
        self.info = await self.store.open()


def event(index: int, room_id: str = "r", *, tenant: str = "t", **rest: Any) -> RoomEvent:
    rest.setdefault("content", TextContent(text=f"{room_id} {index}"))
    return RoomEvent(
        id=rest.pop("id", f"{room_id}-{index}"),
        room_id=room_id,
        index=index,
        tenant=tenant,
        source=rest.pop("source", EventSource(channel_id="sms", channel_type="sms")),
        created_at=START,
        **rest,
    )


def record(kind: str, key: str, value: dict[str, Any] | None = None, *, tenant: str = "t", **rest: Any) -> Record:
    return Record(kind, tenant, key, {} if value is None else value, **rest)


def dedupe(key: str, first: RoomEvent, *, expires: float = 1000.0, channel_id: str = "sms") -> DedupeKey:
    return DedupeKey(channel_id, key, first.room_id, first.id, first.index, expires)


def same(actual: Any, expected: Any, what: str) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


Check = Callable[[Bench], Awaitable[None]]
CHECKS: list[Check] = []


def _check(function: Check) -> Check:
    CHECKS.append(function)
    return function


async def run_check(check: Check, make: MakeStore) -> None:
    """Runs one check on a fresh store. Raises `AssertionError`."""
    name = f"{getattr(check, '__name__', 'check')}-{uuid.uuid4().hex[:8]}"
    store = make(name)
    bench = Bench(make, name, store, await store.open())
    try:
        await check(bench)
    finally:
        await bench.store.aclose()


async def check_store(make: MakeStore) -> int:
    """Runs every check; returns how many. Raises `AssertionError`, naming the check, at the first that fails."""
    for check in CHECKS:
        try:
            await run_check(check, make)
        except AssertionError as error:
            raise AssertionError(f"{getattr(check, '__name__', check)}: {error}") from error
    return len(CHECKS)


@_check
async def opening_again_tells_the_same(bench: Bench) -> None:
    same(await bench.store.open(), bench.info, "a second open()")
    same(bench.store.health().writable, True, "health().writable of an open store")


@_check
async def indexes_run_on_from_the_head(bench: Bench) -> None:
    same(await bench.head(), None, "the head of a room that nothing is in")
    await bench.commit("r", event(0), event(1))
    await bench.commit("r", event(2))
    same(await bench.indexes(), [0, 1, 2], "indexes")
    same(await bench.head(), 3, "next index")
    for index in (2, 4):
        await bench.refused(Fenced, bench.commit("r", event(index, id="x")), f"index {index} after 2")
    await bench.refused(Fenced, bench.commit("r", event(3), event(5)), "a gap inside a batch")
    await bench.refused(Fenced, bench.commit("new", event(1, "new")), "a room that begins at 1")
    same((await bench.indexes(), await bench.head()), ([0, 1, 2], 3), "the log after refusals")


@_check
async def an_older_epoch_is_fenced(bench: Bench) -> None:
    stale = bench.info.epoch - 1
    await bench.refused(Fenced, bench.commit("r", event(0), epoch=stale), "a batch of an older epoch")
    await bench.refused(Fenced, bench.commit(None, put=(record("k", "a"),), epoch=stale), "records of an older epoch")
    same((await bench.events(), await bench.records("k")), ([], []), "what a fenced writer left")


@_check
async def a_duplicate_applies_nothing(bench: Bench) -> None:
    first = event(0)
    same(await bench.commit("r", first, dedupe=(dedupe("m1", first),)), None, "the first delivery")
    again = event(1)
    answer = await bench.commit(
        "r", again, dedupe=(dedupe("m1", again),), put=(record("k", "a"),), activity_at=START, delete=()
    )
    same(answer, Duplicate("r", first.id, 0), "the second delivery")
    two = (dedupe("m2", again), dedupe("m1", again))
    same(await bench.commit("r", again, dedupe=two), Duplicate("r", first.id, 0), "two keys, one of them known")
    same((await bench.indexes(), await bench.records("k"), await bench.head()), ([0], [], 1), "after duplicates")
    same(await bench.commit("r", again, dedupe=(dedupe("m2", again),)), None, "the key that was never applied")
    same(await bench.commit("r", event(9), dedupe=(dedupe("m1", again),)), Duplicate("r", first.id, 0), "with a gap")
    other = event(2)
    same(await bench.commit("r", other, dedupe=(dedupe("m1", other, channel_id="web"),)), None, "another channel")
    (known,) = await bench.records("dedupe", key="sms\nm1")
    same((known.value, known.due), ({"room_id": "r", "event_id": first.id, "index": 0}, 1000.0), "the kept key")


@_check
async def of_many_at_once_one_is_first(bench: Bench) -> None:
    rooms = [event(0, f"r{number}") for number in range(40)]
    answers = await asyncio.gather(
        *(bench.commit(first.room_id, first, dedupe=(dedupe("same", first),)) for first in rooms)
    )
    winners = [first for first, answer in zip(rooms, answers, strict=True) if answer is None]
    same(len(winners), 1, "commits that won")
    expected = Duplicate(winners[0].room_id, winners[0].id, 0)
    same([answer for answer in answers if answer is not None], [expected] * 39, "what the others were told")
    same(sum([len(await bench.events(first.room_id)) for first in rooms]), 1, "events kept")


@_check
async def commits_under_way_together_keep_their_order(bench: Bench) -> None:
    await asyncio.gather(*(bench.commit(f"r{n % 5}", event(n // 5, f"r{n % 5}")) for n in range(100)))
    for room in range(5):
        same(await bench.indexes(f"r{room}"), list(range(20)), f"room {room}")


@_check
async def a_batch_is_all_or_nothing(bench: Bench) -> None:
    await bench.commit("r", event(0), put=(record("k", "old", {"n": 1}),))
    whole = {"put": (record("k", "a"),), "delete": (RecordKey("k", "t", "old"),), "activity_at": START}
    bad: dict[str, dict[str, Any]] = {
        "a record of another tenant": {"put": (record("k", "a"), record("k", "b", tenant="u"))},
        "a record of a built-in kind": {"put": (record("k", "a"), record("head", "r"))},
        "a tombstone of nothing": {"erase": (event(7, id="nothing"),)},
        "a tombstone at another place": {"erase": (event(1, id="r-0"),)},
    }
    if bench.info.durable:
        bad["a value that JSON cannot hold"] = {"put": (record("k", "a"), record("k", "b", {"x": object()}))}
    for what, parts in bad.items():
        fresh = event(1)
        batch = bench.commit("r", fresh, dedupe=(dedupe("m", fresh),), **{**whole, **parts})
        await bench.refused(UsageError, batch, what)
    await bench.refused(UsageError, bench.commit("r", event(1, id="r-0"), **whole), "an event id that is taken")
    await bench.refused(UsageError, bench.commit("r", event(1), event(2, id="r-1"), **whole), "one id twice")
    await bench.refused(UsageError, bench.commit("r", event(1, "other")), "an event of another room")
    await bench.refused(UsageError, bench.commit(None, event(1)), "events without a room")
    same((await bench.indexes(), await bench.keys("k"), await bench.head()), ([0], ["old"], 1), "after bad batches")
    same(await bench.records("dedupe"), [], "dedupe keys of bad batches")


@_check
async def a_bad_batch_in_a_group_fails_alone(bench: Bench) -> None:
    await bench.commit("taken", event(0, "taken"))
    bad = event(0, "bad", id="taken-0")
    answers = await asyncio.gather(
        *(bench.commit(f"r{n}", bad if n == 7 else event(0, f"r{n}"), put=(record("k", f"{n:02}"),)) for n in range(7)),
        bench.commit("bad", bad, put=(record("k", "bad"),)),
        *(bench.commit(f"r{n}", event(0, f"r{n}"), put=(record("k", f"{n:02}"),)) for n in range(7, 20)),
        return_exceptions=True,
    )
    same([index for index, answer in enumerate(answers) if answer is not None], [7], "which commits failed")
    same(isinstance(answers[7], UsageError), True, f"the failure {answers[7]!r} is a UsageError")
    same(await bench.keys("k"), [f"{n:02}" for n in range(20)], "what the others put")
    same(await bench.head("bad"), None, "the head of the room that failed")


@_check
async def windows_are_of_the_right_end(bench: Bench) -> None:
    for start in range(0, 250, 50):
        await bench.commit("r", *(event(index) for index in range(start, start + 50)))
    await bench.commit("next", event(0, "next"))
    same(await bench.indexes(limit=3), [0, 1, 2], "the oldest three")
    same(await bench.indexes(limit=3, newest_first=True), [249, 248, 247], "the newest three")
    same(len(await bench.events()), 100, "the default limit")
    same((await bench.indexes(newest_first=True))[0], 249, "the newest of more than a page")
    same(await bench.indexes(start=100, stop=103), [100, 101, 102], "a range")
    same(await bench.indexes(start=100, stop=200, limit=2, newest_first=True), [199, 198], "the end of a range")
    same(await bench.indexes(start=248), [248, 249], "the rest")
    same(await bench.indexes(start=250), [], "beyond the end")
    same(await bench.indexes(start=5, stop=5), [], "an empty range")
    same(await bench.indexes("nowhere"), [], "a room that is not there")
    same(await bench.indexes(limit=0), [], "limit 0")


@_check
async def events_come_back_as_they_were(bench: Bench) -> None:
    source = EventSource(channel_id="c", channel_type="sms", raw_payload={"a": [1, None, "é\n\u2028 🎈"]})
    first = event(0, source=source, metadata={"x": {"y": 1.5}}, addressed_to=("ai",), visibility="internal")
    await bench.commit("r", first)
    same(await bench.events(), [first], "an event")
    value: dict[str, Any] = {"text": "é 🎈", "list": [1, 2.5, None, True], "nested": {"a": {}}}
    await bench.commit(None, put=(record("k", "a", value, room_id="r", due=1.5, terms=("x:1", "y:é")),))
    same(await bench.records("k"), [record("k", "a", value, room_id="r", due=1.5, terms=("x:1", "y:é"))], "a record")


@_check
async def ids_and_threads_are_found(bench: Bench) -> None:
    await bench.commit("a", event(0, "a"), event(1, "a", parent_event_id="a-0"), event(2, "a"))
    await bench.commit("b", event(0, "b"), event(1, "b", parent_event_id="a-0"))
    await bench.commit("a", *(event(index, "a", parent_event_id="a-0") for index in range(3, 8)))
    found = await bench.events("", ids=("b-0", "nothing", "a-2", "b-0"))
    same([one.id for one in found], ["b-0", "a-2"], "ids, in the order asked")
    many = tuple(f"a-{index}" for index in range(8)) * 30
    same(len(await bench.events("", ids=many, limit=1)), 8, "ids are not limited")
    same(await bench.indexes("a", parent="a-0"), [1, 3, 4, 5, 6, 7], "a thread")
    same(await bench.indexes("a", parent="a-0", limit=2, newest_first=True), [7, 6], "its newest")
    same(await bench.indexes("a", parent="a-0", start=2, stop=5), [3, 4], "a range of it")
    same(await bench.indexes("b", parent="a-0"), [1], "the same thread in another room")


@_check
async def a_tombstone_takes_the_place(bench: Bench) -> None:
    first = event(1, parent_event_id="r-0", content=TextContent(text="secret"))
    await bench.commit("r", event(0), first, event(2), dedupe=(dedupe("m", first),), activity_at=START)
    grave = event(1, id=first.id, content=SystemContent(code="erased"))
    await bench.commit("r", erase=(grave,))
    same((await bench.events())[1], grave, "the event at the place")
    same(await bench.events("", ids=(first.id,)), [grave], "the event by id")
    same(await bench.indexes(parent="r-0"), [], "the thread it was in")
    (head,) = await bench.records("head", key="r")
    same(head.value, {"next_index": 3, "last_activity": START.timestamp()}, "the head after erasing")
    later = event(3)
    same(await bench.commit("r", later, dedupe=(dedupe("m", later),)), Duplicate("r", first.id, 1), "its dedupe key")
    same(await bench.commit("r", event(3)), None, "the log goes on")


@_check
async def records_are_replaced_and_deleted(bench: Bench) -> None:
    await bench.commit(None, put=(record("k", "a", {"n": 1}), record("k", "b"), record("other", "a")))
    await bench.commit(None, put=(record("k", "a", {"n": 2}), record("k", "a", {"n": 3})))
    same([one.value for one in await bench.records("k", key="a")], [{"n": 3}], "of two puts the later one")
    both = {"delete": (RecordKey("k", "t", "b"), RecordKey("k", "t", "a")), "put": (record("k", "a", {"n": 4}),)}
    await bench.commit(None, **both)
    same([one.value for one in await bench.records("k")], [{"n": 4}], "deletions come before puts")
    await bench.commit(None, delete=(RecordKey("k", "t", "a"), RecordKey("k", "t", "nothing")))
    same((await bench.keys("k"), await bench.keys("other")), ([], ["a"]), "after deleting")


@_check
async def every_term_must_match(bench: Bench) -> None:
    terms = {"a": ("x", "y"), "b": ("x",), "c": ("y", "x"), "d": ()}
    await bench.commit(None, put=tuple(record("k", key, terms=words) for key, words in terms.items()))
    same(await bench.keys("k", terms=("x",)), ["a", "b", "c"], "one term")
    same(await bench.keys("k", terms=("x", "y")), ["a", "c"], "two terms")
    same(await bench.keys("k", terms=("x", "z")), [], "an unknown term")
    same(await bench.keys("other", terms=("x",)), [], "another kind")
    await bench.commit(None, put=(record("k", "a", terms=("z",)),), delete=(RecordKey("k", "t", "b"),))
    same(await bench.keys("k", terms=("x",)), ["c"], "after replacing and deleting")
    same(await bench.keys("k", terms=("z",)), ["a"], "a new term")
    await bench.commit(None, put=(record("k", "b"),))
    same(await bench.keys("k", terms=("x",)), ["c"], "a key that comes back without its terms")


@_check
async def records_are_found_by_room(bench: Bench) -> None:
    put = (record("k", "1", room_id="r"), record("k", "2", room_id="s", terms=("x",)), record("k", "3", room_id="r"))
    await bench.commit(None, put=(*put, record("k", "4"), record("l", "5", room_id="r")))
    same(await bench.keys("k", room_id="r"), ["1", "3"], "by room")
    same(await bench.keys("k", room_id="s", terms=("x",)), ["2"], "by room and term")
    same(await bench.keys("k", room_id="r", terms=("x",)), [], "by another room and term")
    await bench.commit(None, put=(record("k", "3", room_id="s"),))
    same(await bench.keys("k", room_id="s"), ["2", "3"], "after moving")
    same(await bench.keys("k", room_id="r", limit=5, after="1"), [], "the page after the last")


@_check
async def keys_are_paged_in_order(bench: Bench) -> None:
    keys = ["", "a", "a b", "a\nb", "ab", "abc", "b", "B", "é", "\ufffd", "🎈", "🎈x", "%", "_"]
    await bench.commit(None, put=tuple(record("k", key) for key in keys))
    same(await bench.keys("k"), sorted(keys), "the order of code points")
    for limit in (1, 3):
        pages: list[str] = []
        while page := await bench.keys("k", limit=limit, after=pages[-1] if pages else None):
            pages += page
            if len(pages) > len(keys):
                break
        same(pages, sorted(keys), f"pages of {limit}")
    for prefix in ("a", "a%", "🎈", "B", "\U0010ffff"):
        same(await bench.keys("k", prefix=prefix), sorted(k for k in keys if k.startswith(prefix)), f"with {prefix!r}")
    same(await bench.keys("k", prefix="a", after="a b", limit=2), ["ab", "abc"], "a prefix, paged")
    same(await bench.keys("k", offset=2, limit=2), sorted(keys)[2:4], "by offset")


@_check
async def what_is_due_comes_by_its_time(bench: Bench) -> None:
    times = {"a": 30.0, "b": 10.0, "c": 20.0, "d": None, "e": 10.0}
    await bench.commit(None, put=tuple(record("k", key, due=due) for key, due in times.items()))
    await bench.commit(None, put=(record("k", "z", tenant="u", due=15.0),), tenant="u")
    same(await bench.keys("k", due_before=20.0, order="due"), ["b", "e", "c"], "what is due, the time included")
    same(await bench.keys("k", due_before=9.0, order="due"), [], "before anything is due")
    same(await bench.keys("k", tenant=None, due_before=25.0, order="due"), ["b", "e", "z", "c"], "of every tenant")
    same(await bench.keys("k", tenant=None, due_before=25.0, order="due", limit=2), ["b", "e"], "limited")
    same(await bench.keys("k", tenant=None, due_before=25.0, order="due", limit=2, offset=1), ["e", "z"], "by offset")
    same(await bench.keys("k", due_before=25.0), ["b", "c", "e"], "by key")
    same(await bench.keys("k", order="due"), ["b", "e", "c", "a", "d"], "all, those without a time last")
    await bench.commit(None, put=(record("k", "b", due=40.0), record("k", "c")), delete=(RecordKey("k", "t", "e"),))
    same(await bench.keys("k", due_before=50.0, order="due"), ["a", "b"], "after changes")
    for due in (5.0, 45.0, 5.0):
        await bench.commit(None, put=(record("k", "b", due=due),))
    same(await bench.keys("k", due_before=50.0, order="due"), ["b", "a"], "a time that comes back is there once")


@_check
async def rooms_come_by_activity(bench: Bench) -> None:
    for number, room in enumerate(("a", "b", "c")):
        await bench.commit(
            room, put=(record("room", room, terms=("even",) if number % 2 == 0 else ()),), activity_at=_at(number)
        )
    await bench.commit(None, put=(record("room", "quiet"),))
    same(await bench.keys("room", order="activity"), ["c", "b", "a", "quiet"], "newest first, never active last")
    same(await bench.head("quiet"), 0, "the head of a new room")
    await bench.commit("a", event(0, "a"), activity_at=_at(10))
    await bench.commit("b", event(0, "b"))
    same(await bench.keys("room", order="activity"), ["a", "c", "b", "quiet"], "after a message")
    same(await bench.keys("room", order="activity", limit=2, offset=1), ["c", "b"], "a page")
    same(await bench.keys("room", order="activity", terms=("even",)), ["a", "c"], "with a term")
    await bench.commit("b", activity_at=_at(10))
    same(await bench.keys("room", order="activity"), ["a", "b", "c", "quiet"], "equals by key")
    await bench.commit("a", activity_at=_at(-5))
    same(await bench.keys("room", order="activity"), ["b", "c", "a", "quiet"], "after the clock stepped back")
    await bench.commit(None, delete=(RecordKey("room", "t", "b"),))
    same(await bench.keys("room", order="activity"), ["c", "a", "quiet"], "without a deleted room")
    same(await bench.head("b"), 1, "the head of a deleted room")


@_check
async def queries_that_make_no_sense_are_refused(bench: Bench) -> None:
    await bench.refused(UsageError, bench.records("k", order="activity"), "activity of another kind")
    await bench.refused(UsageError, bench.records("room", order="activity", after="x"), "activity after a key")
    await bench.refused(UsageError, bench.records("k", tenant=None, after="x"), "every tenant after a key")


@_check
async def tenants_that_share_all_ids_never_meet(bench: Bench) -> None:
    for tenant in ("t", "u"):
        first = event(0, tenant=tenant, parent_event_id="p", content=TextContent(text=tenant))
        answer = await bench.commit(
            "r",
            first,
            tenant=tenant,
            dedupe=(dedupe("m", first),),
            put=(
                record("k", "a", {"of": tenant}, tenant=tenant, room_id="r", terms=("x",), due=1.0),
                record("room", "r", {"of": tenant}, tenant=tenant),
            ),
            activity_at=START,
        )
        same(answer, None, f"the same ids for tenant {tenant}")
    await bench.commit("r", event(1, tenant="u"), tenant="u")
    for tenant, count in (("t", 1), ("u", 2)):
        queries: list[dict[str, Any]] = [{}, {"ids": ("r-0",)}, {"parent": "p"}]
        for query in queries:
            texts = {one.text for one in await bench.events(tenant=tenant, stop=1, **query)}
            same(texts, {tenant}, f"events of {tenant} by {query}")
        same(len(await bench.events(tenant=tenant)), count, f"the log of {tenant}")
        filters: list[dict[str, Any]] = [{}, {"key": "a"}, {"room_id": "r"}, {"terms": ("x",)}, {"due_before": 9.0}]
        for query in filters:
            found = await bench.records("k", tenant=tenant, **query)
            same([one.value for one in found], [{"of": tenant}], f"records of {tenant} by {query}")
        rooms = await bench.records("room", tenant=tenant, order="activity")
        same([one.value for one in rooms], [{"of": tenant}], f"rooms of {tenant}")
        same([one.value["next_index"] for one in await bench.records("head", tenant=tenant)], [count], "heads")
    same(len(await bench.records("k", tenant=None, due_before=9.0)), 2, "what is due, of every tenant")
    await bench.commit("r", tenant="t", delete=(RecordKey("k", "t", "a"),), erase=(event(0),))
    same(len(await bench.records("k", tenant="u")), 1, "the other's record after deleting one's own")
    same((await bench.events(tenant="u"))[0].text, "u", "the other's event after erasing one's own")


@_check
async def expired_keys_are_forgotten_when_told(bench: Bench) -> None:
    for number in range(6):
        first = event(number)
        await bench.commit("r", first, dedupe=(dedupe(f"m{number}", first, expires=10.0 * number),))
    other = event(0, tenant="u")
    await bench.commit("r", other, tenant="u", dedupe=(dedupe("m", other, expires=5.0),))
    await bench.commit(None, prune_dedupe_before=30.0)
    same(await bench.keys("dedupe"), ["sms\nm3", "sms\nm4", "sms\nm5"], "keys that did not expire before")
    same(await bench.keys("dedupe", tenant="u"), [], "expired keys of the other tenant")
    again = event(6)
    same(await bench.commit("r", again, dedupe=(dedupe("m0", again, expires=99.0),)), None, "a forgotten key")
    last = event(7)
    answer = await bench.commit("r", last, dedupe=(dedupe("m0", last),), prune_dedupe_before=50.0)
    same(answer, Duplicate("r", "r-6", 6), "the key used again")
    same(len(await bench.records("dedupe")), 4, "a duplicate prunes nothing")


@_check
async def a_cancelled_caller_leaves_no_half(bench: Bench) -> None:
    whole = bench.commit("r", event(0), put=(record("k", "a"),))
    task = asyncio.get_running_loop().create_task(_as_coroutine(whole))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await bench.commit("r", put=(record("other", "barrier"),))  # Rooms need not wait for each other.
    count = len(await bench.events())
    same((count, len(await bench.records("k")), await bench.head()), (1, 1, 1), "a batch handed in and cancelled")


@_check
async def a_durable_store_keeps_everything(bench: Bench) -> None:
    if not bench.info.durable:
        return
    first = event(0, parent_event_id="p")
    kept = record("k", "a", {"n": 1}, room_id="r", due=5.0, terms=("x",))
    put = (kept, record("room", "r"), record("room", "s"))
    await bench.commit("r", first, event(1), dedupe=(dedupe("m", first),), put=put, activity_at=START)
    before = bench.info
    await bench.reopen()
    same(bench.info.incarnation, before.incarnation, "the incarnation")
    same(bench.info.epoch > before.epoch, True, "the epoch has risen")
    same(await bench.events(), [first, event(1)], "events")
    same(await bench.indexes(parent="p"), [0], "threads")
    same(await bench.records("k", terms=("x",), room_id="r", due_before=5.0), [kept], "records")
    same(await bench.keys("room", order="activity"), ["r", "s"], "rooms by activity")
    again = event(2)
    same(await bench.commit("r", again, dedupe=(dedupe("m", again),)), Duplicate("r", "r-0", 0), "dedupe keys")
    await bench.refused(Fenced, bench.commit("r", again, epoch=before.epoch), "the writer of before")
    same(await bench.commit("r", again, put=(kept._replace(terms=()),)), None, "the log goes on")
    same(await bench.keys("k", terms=("x",)), [], "terms replaced after reopening")


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)
