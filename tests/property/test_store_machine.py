"""Every store beside a model that is too simple to be wrong: the same batches, the same answers to any question."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from roomkit.core.memory import MemoryStore
from roomkit.errors import Fenced, UsageError
from roomkit.models.content import TextContent
from roomkit.models.event import RoomEvent
from roomkit.ports.store import Batch, DedupeKey, Duplicate, EventQuery, Record, RecordKey, RecordQuery, Store
from roomkit.providers.sqlite import SQLiteOptions, SQLiteStore
from roomkit.testing.stores import event, record


@dataclass
class Model:
    """The Store port's words as loops over lists."""

    logs: dict[tuple[str, str], list[RoomEvent]] = field(default_factory=dict)
    activity: dict[tuple[str, str], float] = field(default_factory=dict)
    dedupe: dict[tuple[str, str], DedupeKey] = field(default_factory=dict)
    kept: dict[tuple[str, str, str], Record] = field(default_factory=dict)

    def all_events(self, tenant: str) -> list[RoomEvent]:
        return [one for (owner, _), log in self.logs.items() if owner == tenant for one in log]

    def commit(self, batch: Batch, epoch: int) -> Any:
        refusal = self.refusal(batch, epoch)
        if refusal is None:
            self.apply(batch)
        return refusal

    def refusal(self, batch: Batch, epoch: int) -> Any:
        if batch.epoch < epoch:
            return Fenced
        for key in batch.dedupe:
            if first := self.dedupe.get((batch.tenant, f"{key.channel_id}\n{key.key}")):
                return Duplicate(first.room_id, first.event_id, first.index)
        here = (batch.tenant, batch.room_id or "")
        log = self.logs.get(here, [])
        if [one.index for one in batch.events] != list(range(len(log), len(log) + len(batch.events))):
            return Fenced
        stored = {one.id: one for one in self.all_events(batch.tenant)}
        ids = [one.id for one in batch.events]
        if len(set(ids)) < len(ids) or set(ids) & set(stored):
            return UsageError
        for grave in batch.erase:
            old = stored.get(grave.id)
            if old is None or (old.room_id, old.index) != (grave.room_id, grave.index):
                return UsageError
        return None

    def apply(self, batch: Batch) -> None:
        here = (batch.tenant, batch.room_id or "")
        if batch.events or batch.activity_at:
            self.logs[here] = [*self.logs.get(here, []), *batch.events]
        if batch.activity_at:
            self.activity[here] = batch.activity_at.timestamp()
        for grave in batch.erase:
            self.logs[batch.tenant, grave.room_id][grave.index] = grave
        for key in batch.dedupe:
            self.dedupe[batch.tenant, f"{key.channel_id}\n{key.key}"] = key
        for gone in batch.delete:
            self.kept.pop((gone.kind, gone.tenant, gone.key), None)
        for one in batch.put:
            self.kept[one.kind, one.tenant, one.key] = one
            if one.kind == "room":
                self.logs.setdefault((one.tenant, one.key), [])
        if batch.prune_dedupe_before is not None:
            self.dedupe = {k: v for k, v in self.dedupe.items() if v.expires >= batch.prune_dedupe_before}

    def events(self, query: EventQuery) -> list[RoomEvent]:
        if query.ids:
            by_id = {one.id: one for one in self.all_events(query.tenant)}
            return [by_id[key] for key in dict.fromkeys(query.ids) if key in by_id]
        found = [
            one
            for one in self.logs.get((query.tenant, query.room_id), [])
            if one.index >= query.start
            and (query.stop is None or one.index < query.stop)
            and (query.parent is None or one.parent_event_id == query.parent)
        ]
        return (found[::-1] if query.newest_first else found)[: query.limit]

    def records(self, query: RecordQuery) -> list[Record]:
        heads = [
            Record("head", t, r, {"next_index": len(log), "last_activity": self.activity.get((t, r))}, r)
            for (t, r), log in self.logs.items()
        ]
        keys = [
            Record(
                "dedupe", t, k, {"room_id": d.room_id, "event_id": d.event_id, "index": d.index}, d.room_id, d.expires
            )
            for (t, k), d in self.dedupe.items()
        ]
        found = [
            one
            for one in (*self.kept.values(), *heads, *keys)
            if one.kind == query.kind
            and query.tenant in (None, one.tenant)
            and query.key in (None, one.key)
            and one.key.startswith(query.prefix or "")
            and query.room_id in (None, one.room_id)
            and set(query.terms) <= set(one.terms)
            and (query.due_before is None or (one.due is not None and one.due <= query.due_before))
            and (query.after is None or one.key > query.after)
        ]
        found.sort(key=lambda one: (one.tenant, one.key))
        if query.order == "due":
            found.sort(key=lambda one: float("inf") if one.due is None else one.due)
        elif query.order == "activity":
            found.sort(key=lambda one: -self.activity.get((one.tenant, one.key), float("-inf")))
        return found[query.offset :][: query.limit]


TENANTS = st.sampled_from(["t", "t", "u"])
ROOMS = st.sampled_from(["a", "b", "c"])
KEYS = st.sampled_from(["a", "b", "ab", "c", "é"])
KINDS = st.sampled_from(["k", "room"])
TERMS = st.lists(st.sampled_from(["x", "y", "z"]), unique=True, max_size=2).map(tuple)
PARENTS = st.sampled_from([None, None, "p", "q"])
TIMES = st.integers(1, 5).map(float)
rarely = st.integers(0, 9).map(lambda number: number == 0)


class Stores(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.stores = self.made()
        self.model = Model()
        self.count = 0
        self.open()

    def made(self) -> list[Store]:
        path = Path(self.folder.name) / "rooms.db"
        return [MemoryStore(), SQLiteStore(path, SQLiteOptions(synchronous="normal"))]

    def open(self) -> None:
        infos = [self.loop.run_until_complete(store.open()) for store in self.stores]
        assert len({info.epoch for info in infos}) == 1
        self.epoch = infos[0].epoch

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for store in self.stores:
                self.loop.run_until_complete(store.aclose())
            self.loop.close()
            self.folder.cleanup()

    def batch(self, draw: Any) -> Batch:
        tenant, room_id = draw(TENANTS), draw(ROOMS)
        head = len(self.model.logs.get((tenant, room_id), [])) + (draw(rarely) and draw(st.sampled_from([-1, 1])))
        events = tuple(self.event(draw, max(head, 0) + n, room_id, tenant) for n in range(draw(st.integers(0, 2))))
        graves: tuple[RoomEvent, ...] = ()
        if draw(rarely) and (stored := self.model.all_events(tenant)):
            old = draw(st.sampled_from(stored))
            where = old.index + draw(rarely)
            graves = (event(where, old.room_id, tenant=tenant, id=old.id, parent_event_id=draw(PARENTS)),)
        expires = draw(TIMES)
        keys = draw(st.lists(KEYS, max_size=2))
        return Batch(
            tenant,
            self.epoch - draw(rarely),
            room_id,
            events,
            tuple(
                DedupeKey("sms", key, room_id, f"e{self.count}", head, expires) for key in keys if draw(st.booleans())
            ),
            tuple(
                record(
                    draw(KINDS),
                    draw(KEYS),
                    {"n": self.count},
                    tenant=tenant,
                    room_id=draw(st.none() | ROOMS),
                    due=draw(st.none() | TIMES),
                    terms=draw(TERMS),
                )
                for _ in range(draw(st.integers(0, 2)))
            ),
            tuple(RecordKey(draw(KINDS), tenant, draw(KEYS)) for _ in range(draw(st.integers(0, 1)))),
            draw(st.none() | st.integers(0, 5).map(at)),
            graves,
            draw(TIMES) if draw(rarely) else None,
        )

    def event(self, draw: Any, index: int, room_id: str, tenant: str) -> RoomEvent:
        self.count += 1
        name = f"e{draw(st.integers(1, self.count)) if draw(rarely) else self.count}"
        text = TextContent(text=f"{tenant} {self.count}")
        return event(index, room_id, tenant=tenant, id=name, parent_event_id=draw(PARENTS), content=text)

    @rule(data=st.data(), size=st.integers(1, 4))
    def commit(self, data: st.DataObject, size: int) -> None:
        batches: list[Batch] = []
        expected: list[Any] = []
        for _ in range(size):
            batches.append(self.batch(data.draw))
            expected.append(self.model.commit(batches[-1], self.epoch))
        for store in self.stores:
            answers = self.loop.run_until_complete(gather(store, batches))
            got = [type(answer) if isinstance(answer, Exception) else answer for answer in answers]
            assert got == expected, (store, answers, expected)

    @rule(
        tenant=TENANTS,
        room_id=ROOMS,
        start=st.integers(0, 4),
        stop=st.none() | st.integers(0, 6),
        limit=st.integers(0, 4),
        newest_first=st.booleans(),
        ids=st.just(()) | st.lists(st.integers(1, 9).map("e{}".format), max_size=3).map(tuple),
        parent=PARENTS,
    )
    def read_events(self, **query: Any) -> None:
        self.compare_events(EventQuery(**query))

    @rule(
        kind=st.sampled_from(["k", "room", "head", "dedupe"]),
        tenant=TENANTS | st.none(),
        key=st.none() | KEYS | KEYS.map("sms\n{}".format),
        prefix=st.none() | st.sampled_from(["", "a", "sms\n", "é"]),
        room_id=st.none() | ROOMS,
        terms=TERMS,
        due_before=st.none() | TIMES,
        after=st.none() | KEYS,
        offset=st.integers(0, 2),
        limit=st.integers(0, 4),
        order=st.sampled_from(["key", "due", "activity"]),
        wide=st.booleans(),
    )
    def read_records(self, *, wide: bool, **query: Any) -> None:
        if wide:  # Most questions of a room kit have one filter; with all of them few answers are left.
            query |= {"key": None, "prefix": None, "limit": 9, "offset": 0}
        if query["order"] == "activity":
            query |= {"kind": "room", "tenant": query["tenant"] or "t"}
        if query["order"] != "key" or query["tenant"] is None:
            query["after"] = None
        self.compare_records(RecordQuery(**query))

    @rule()
    def open_again(self) -> None:
        for store in self.stores:
            self.loop.run_until_complete(store.aclose())
        self.open()
        for tenant in ("t", "u"):
            for room_id in ("a", "b", "c"):
                self.compare_events(EventQuery(tenant, room_id))
            for kind in ("k", "room", "head", "dedupe"):
                self.compare_records(RecordQuery(kind, tenant))

    def compare_events(self, query: EventQuery) -> None:
        expected = self.model.events(query)
        for store in self.stores:
            assert self.loop.run_until_complete(store.events(query)) == expected, (store, query)

    def compare_records(self, query: RecordQuery) -> None:
        expected = self.model.records(query)
        for store in self.stores:
            assert self.loop.run_until_complete(store.records(query)) == expected, (store, query)


async def gather(store: Store, batches: list[Batch]) -> list[Any]:
    return await asyncio.gather(*map(store.commit, batches), return_exceptions=True)


def at(seconds: int) -> Any:
    from roomkit.testing.stores import START

    return START.replace(second=seconds)


def test_every_store_does_as_the_model() -> None:
    run_state_machine_as_test(
        Stores,
        settings=settings(
            max_examples=40,
            database=None,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
