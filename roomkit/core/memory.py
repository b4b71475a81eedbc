"""MemoryStore: the default of `RoomKit()`. Everything is shared by reference and gone with the process.

Nothing here waits, so a commit is one turn of the loop. Reads cost what they return: events are sliced from a list
per room, records are found through postings (room, term), a heap (due) and a dict kept in order of activity.
"""

from __future__ import annotations

import heapq
import uuid
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice

from pydantic_core import PydanticSerializationError

from roomkit.errors import Fenced, StoreUnavailable, UsageError
from roomkit.models.content import TextContent, plain
from roomkit.models.event import RoomEvent
from roomkit.ports.store import (
    PLAIN_KINDS,
    Batch,
    Duplicate,
    EventQuery,
    ModelRecord,
    Record,
    RecordQuery,
    StoreHealth,
    StoreInfo,
    check_batch,
    check_query,
    json_of,
)

EXPIRING_S = 3600
FEW = 8
MANY = 64


class MemoryStore:
    """A `Store` that keeps nothing beyond the process. Opening it again after `aclose` finds the same data."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._due: dict[str, list[_Due]] = {}
        self._with_due: dict[str, int] = {}
        self._info = StoreInfo(incarnation=uuid.uuid4().hex, epoch=1, durable=False)
        self._closed = False
        self._commits = 0

    async def open(self) -> StoreInfo:
        """Idempotent; after `aclose` it opens a new epoch over the same data."""
        if self._closed:
            self._closed = False
            self.take_over()
        return self._info

    def take_over(self) -> StoreInfo:
        """Starts a new epoch, as a new owner would: from now on every older writer is fenced."""
        self._info = StoreInfo(incarnation=self._info.incarnation, epoch=self._info.epoch + 1, durable=False)
        return self._info

    async def commit(self, batch: Batch) -> Duplicate | None:
        """Applies the batch without suspending. Raises `Fenced`, `UsageError`, or `StoreUnavailable` once closed."""
        if self._closed:
            raise StoreUnavailable("the in-memory store is closed; open it again before writing")
        if batch.epoch < self._info.epoch:
            raise Fenced(f"epoch {batch.epoch} is over, {self._info.epoch} has begun; this writer must stop")
        check_batch(batch)
        _check_values(batch)
        tenant = self._tenants.get(batch.tenant)
        if tenant is None:
            tenant = self._tenants[batch.tenant] = _Tenant()
        for key in batch.dedupe:
            if (first := tenant.dedupe.get(f"{key.channel_id}\n{key.key}")) is not None:
                return Duplicate(*first[:3])
        tenant.check(batch)
        self._apply(tenant, batch)  # From here on nothing can fail.
        return None

    async def events(self, query: EventQuery) -> list[RoomEvent]:
        tenant = self._tenants.get(query.tenant)
        return [] if tenant is None else tenant.select(query)

    async def records(self, query: RecordQuery) -> list[Record]:
        check_query(query)
        if query.limit <= 0:
            return []
        if query.key is not None and query.tenant is not None:
            tenant = self._tenants.get(query.tenant)
            record = None if tenant is None else tenant.record(query.tenant, query.kind, query.key)
            return [] if record is None or query.offset > 0 or not _matches(record, query) else [record]
        if query.key is None and query.due_before is not None and query.kind in self._due:
            found = self._scan_due(query, query.due_before)
        else:
            found = self._scan(query)
        return list(islice(found, query.offset, query.offset + query.limit))

    def health(self) -> StoreHealth:
        reason = "the store is closed" if self._closed else ""
        return StoreHealth(not self._closed, reason, counters={"commits": self._commits})

    async def aclose(self) -> None:
        self._closed = True

    def _apply(self, tenant: _Tenant, batch: Batch) -> None:
        self._commits += 1
        if batch.room_id is not None and (batch.events or batch.activity_at is not None):
            tenant.append(batch.room_id, batch.events)
            if batch.activity_at is not None:
                tenant.touch(batch.room_id, batch.activity_at.timestamp())
        for event in batch.erase:
            tenant.erase(event)
        for key in batch.dedupe:
            joined = f"{key.channel_id}\n{key.key}"
            tenant.dedupe[joined] = (key.room_id, key.event_id, key.index, key.expires)
            tenant.expiring.setdefault(int(key.expires // EXPIRING_S), []).append(joined)
        if batch.put or batch.delete:
            self._apply_records(tenant, batch)
        if batch.prune_dedupe_before is not None:
            for one in self._tenants.values():
                one.prune(batch.prune_dedupe_before)

    def _apply_records(self, tenant: _Tenant, batch: Batch) -> None:
        for gone in batch.delete:
            table = tenant.tables.get(gone.kind)
            if table is not None and gone.key in table.records:
                old = table.replace(gone.key, None)
                if old is not None and old.due is not None:
                    self._index_due(old, None)
        for record in batch.put:
            kind, _, key, _, _, due, terms = record
            table = tenant.tables.get(kind)
            if table is None:
                table = tenant.tables[kind] = _Table()
            if due is None and not terms and kind != "room" and key not in table.records:  # Most are like that.
                table.add(record)
                continue
            old = table.replace(key, record)
            if (None if old is None else old.due) != due:
                self._index_due(old, record)
            if kind == "room" and key not in tenant.logs:
                tenant.logs[key] = []

    def _index_due(self, old: Record | None, new: Record | None) -> None:
        """Called when the due time has changed."""
        kind = new.kind if new is not None else old.kind if old is not None else ""
        was = None if old is None else old.due
        now = None if new is None else new.due
        heap = self._due.setdefault(kind, [])
        live = self._with_due.get(kind, 0) + (now is not None) - (was is not None)
        self._with_due[kind] = live
        if new is not None and now is not None:
            heapq.heappush(heap, (now, new.tenant, new.key))
        if len(heap) > 2 * live + 64:  # Replaced times stay in the heap until they are met or outnumber the others.
            heap[:] = {entry for entry in heap if self._holds(kind, entry) is not None}
            heapq.heapify(heap)

    def _holds(self, kind: str, entry: _Due) -> Record | None:
        due, tenant, key = entry
        table = self._tenants[tenant].tables.get(kind)
        record = None if table is None else table.records.get(key)
        return record if record is not None and record.due == due else None

    def _scan_due(self, query: RecordQuery, before: float) -> list[Record]:
        """Takes from the heap only what is due and wanted, and puts back what is still so."""
        heap = self._due[query.kind]
        wanted = query.offset + query.limit if query.order == "due" else None
        found: list[Record] = []
        kept: list[_Due] = []
        while heap and heap[0][0] <= before and (wanted is None or len(found) < wanted):
            entry = heapq.heappop(heap)
            if kept and kept[-1] == entry:
                continue
            record = self._holds(query.kind, entry)
            if record is not None:
                kept.append(entry)
                if _matches(record, query):
                    found.append(record)
        for entry in kept:
            heapq.heappush(heap, entry)
        if query.order == "key":
            found.sort(key=lambda record: (record.tenant, record.key))
        return found

    def _scan(self, query: RecordQuery) -> Iterable[Record]:
        names = [query.tenant] if query.tenant is not None else sorted(self._tenants)
        tenants = [(name, self._tenants[name]) for name in names if name in self._tenants]
        found = (record for name, tenant in tenants for record in tenant.records(name, query))
        if query.order == "due":
            return sorted(found, key=lambda r: (r.due is None, r.due or 0.0, r.tenant, r.key))
        return found


_Due = tuple[float, str, str]
"""(due, tenant, key); the kind is the heap's."""


def _check_values(batch: Batch) -> None:
    """Refuses what a store on disk cannot keep, so that what runs in memory runs there as well."""
    try:
        for event in (*batch.events, *batch.erase) if batch.erase else batch.events:
            content = event.content
            words = type(content) is TextContent and content.text.isascii() and content.language is None
            if not (
                (words or plain(content.__dict__))
                and (not event.metadata or plain(event.metadata))
                and (not event.channel_data or plain(event.channel_data))
                and (event.source.raw_payload is None or plain(event.source.raw_payload))
            ):
                event.model_dump_json()
        for record in batch.put:
            if record.kind in PLAIN_KINDS:
                continue
            if not (record.plain if isinstance(record, ModelRecord) else plain(record.value)):
                json_of(record)
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"a batch for {batch.room_id or batch.tenant} holds what JSON cannot: {error}") from error


class _Tenant:
    """All data of one tenant: tenants share no container that is looked up by key."""

    __slots__ = ("_in_order", "_latest", "activity", "dedupe", "expiring", "ids", "logs", "tables", "threads")

    def __init__(self) -> None:
        self.logs: dict[str, list[RoomEvent]] = {}
        self.ids: dict[str, RoomEvent] = {}
        self.threads: dict[tuple[str, str], list[int]] = {}
        self.dedupe: dict[str, tuple[str, str, int, float]] = {}
        """Room, event, index and expiry: of plain tuples the garbage collector need not keep track."""
        self.expiring: dict[int, list[str]] = {}
        """The names of the keys that expire within the same `EXPIRING_S`."""
        self.tables: dict[str, _Table] = {}
        self.activity: dict[str, float] = {}
        self._latest = float("-inf")
        self._in_order = True

    def check(self, batch: Batch) -> None:
        if batch.events:
            index = start = len(self.logs.get(batch.room_id or "", ()))
            fresh: set[str] = set()
            for event in batch.events:
                if event.index != index:
                    raise Fenced(
                        f'room "{batch.room_id}" goes on at {start}, not at {event.index}: another writer was here'
                    )
                if event.id in self.ids or event.id in fresh:
                    raise UsageError(f"event id {event.id} is taken; give every event an id of its own")
                fresh.add(event.id)
                index += 1
        for event in batch.erase:
            stored = self.ids.get(event.id)
            if stored is None or stored.index != event.index or stored.room_id != event.room_id:
                raise UsageError(f"event {event.id} is not stored at this place; a tombstone keeps id, room and index")

    def append(self, room_id: str, events: tuple[RoomEvent, ...]) -> None:
        log = self.logs.get(room_id)
        if log is None:
            log = self.logs[room_id] = []
        log.extend(events)
        for event in events:
            self.ids[event.id] = event
            if event.parent_event_id is not None:
                self.threads.setdefault((room_id, event.parent_event_id), []).append(event.index)

    def touch(self, room_id: str, at: float) -> None:
        """The dict is kept in order of activity by putting the room at its end."""
        self.activity.pop(room_id, None)
        self.activity[room_id] = at
        if at >= self._latest:
            self._latest = at
        else:  # The clock has stepped back.
            self._in_order = False

    def prune(self, before: float) -> None:
        for span in [span for span in self.expiring if span * EXPIRING_S < before]:
            left: list[str] = []
            for joined in self.expiring.pop(span):  # One that was named twice may be gone already.
                if (kept := self.dedupe.get(joined)) is None:
                    continue
                if kept[3] < before:
                    del self.dedupe[joined]
                else:
                    left.append(joined)
            if left:
                self.expiring[span] = left

    def erase(self, event: RoomEvent) -> None:
        old = self.ids[event.id]
        self.ids[event.id] = event
        self.logs[event.room_id][event.index] = event
        if old.parent_event_id != event.parent_event_id:
            if old.parent_event_id is not None:
                self.threads[event.room_id, old.parent_event_id].remove(event.index)
            if event.parent_event_id is not None:
                insort(self.threads.setdefault((event.room_id, event.parent_event_id), []), event.index)

    def select(self, query: EventQuery) -> list[RoomEvent]:
        if query.ids:
            return [self.ids[key] for key in dict.fromkeys(query.ids) if key in self.ids]
        log = self.logs.get(query.room_id)
        if log is None or query.limit <= 0:
            return []
        start, stop = max(query.start, 0), len(log) if query.stop is None else min(max(query.stop, 0), len(log))
        if query.parent is None:
            if query.newest_first:
                return log[max(start, stop - query.limit) : stop][::-1]
            return log[start : min(stop, start + query.limit)]
        replies = self.threads.get((query.room_id, query.parent), [])
        replies = replies[bisect_left(replies, start) : bisect_left(replies, stop)]
        replies = replies[: -query.limit - 1 : -1] if query.newest_first else replies[: query.limit]
        return [log[index] for index in replies]

    def records(self, name: str, query: RecordQuery) -> Iterator[Record]:
        """What matches, in order of key (or of activity)."""
        if query.key is not None:
            one = self.record(name, query.kind, query.key)
            source = iter(() if one is None else (one,))
        elif query.kind in ("head", "dedupe"):
            keys = sorted(self.logs if query.kind == "head" else self.dedupe)
            source = (one for key in keys if (one := self.record(name, query.kind, key)) is not None)
        elif query.kind not in self.tables:
            return iter(())
        elif query.order == "activity":
            source = self._by_activity(query)
        else:
            source = self.tables[query.kind].candidates(query)
        return (record for record in source if _matches(record, query))

    def record(self, name: str, kind: str, key: str) -> Record | None:
        """The one with this key; `name` is this tenant's own."""
        if (table := self.tables.get(kind)) is not None:
            return table.records.get(key)
        if kind == "dedupe" and (kept := self.dedupe.get(key)) is not None:
            room_id, event_id, index, expires = kept
            value = {"room_id": room_id, "event_id": event_id, "index": index}
            return Record("dedupe", name, key, value, room_id=room_id, due=expires)
        if kind == "head" and (log := self.logs.get(key)) is not None:
            return Record(
                "head", name, key, {"next_index": len(log), "last_activity": self.activity.get(key)}, room_id=key
            )
        return None

    def _by_activity(self, query: RecordQuery) -> Iterator[Record]:
        """Rooms, newest activity first, equals by key; read only as far as the caller goes on."""
        rooms, activity = self.tables["room"].records, self.activity
        if not self._in_order:
            self.activity = activity = dict(sorted(activity.items(), key=lambda item: item[1]))
            self._in_order = True
            self._latest = next(reversed(activity.values()), float("-inf"))
        few = self.tables["room"].with_terms(query) if query.terms else None
        if few is not None and len(few) * 8 < len(rooms):
            never = float("-inf")
            yield from (rooms[key] for key in sorted(few, key=lambda key: (-activity.get(key, never), key)))
            return
        equals: list[str] = []
        at = float("nan")
        for room_id, when in reversed(activity.items()):
            if when != at:
                yield from (rooms[key] for key in sorted(equals))
                equals.clear()
                at = when
            if room_id in rooms:
                equals.append(room_id)
        yield from (rooms[key] for key in sorted(equals))
        yield from (rooms[key] for key in self.tables["room"].sorted_keys() if key not in activity)


class _Table:
    """The records of one kind and tenant."""

    __slots__ = ("_sorted", "records", "rooms", "terms")

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.rooms = _Postings(self.records, lambda record, room_id: record.room_id == room_id)
        self.terms = _Postings(self.records, lambda record, term: term in record.terms)
        self._sorted: list[str] | None = None

    def add(self, record: Record) -> None:
        """A first one of its key, without terms."""
        self.records[record.key] = record
        self._sorted = None
        if record.room_id is not None:
            self.rooms.add(record.room_id, record.key)

    def replace(self, key: str, new: Record | None) -> Record | None:
        """Puts or (None) removes; returns what was there."""
        if new is not None:
            old = self.records.get(key)
            self.records[key] = new
            now, others = new.room_id, new.terms
        else:
            old = self.records.pop(key, None)
            now, others = None, ()
        if old is not None:
            was, terms = old.room_id, old.terms
        else:
            was, terms = None, ()
        if old is None or new is None:
            self._sorted = None
        if was != now:
            if was is not None:
                self.rooms.remove(was, key)
            if now is not None:
                self.rooms.add(now, key)
        if terms != others:
            for term in set(terms).difference(others):
                self.terms.remove(term, key)
            for term in set(others).difference(terms):
                self.terms.add(term, key)
        return old

    def sorted_keys(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self.records)
        return self._sorted

    def with_terms(self, query: RecordQuery) -> Collection[str] | None:
        """The keys that have the rarest of what is asked for: a term or the room; None where all of that is common."""
        postings = [self.terms.get(term) for term in query.terms]
        if query.room_id is not None:
            postings.append(self.rooms.get(query.room_id))
        return min((few for few in postings if few is not None), key=len, default=None)

    def candidates(self, query: RecordQuery) -> Iterator[Record]:
        """A superset of what matches, in order of key, found through the narrowest index."""
        few = self.with_terms(query)
        if few is not None:
            keys: Iterable[str] = sorted(few)
        else:
            ordered = self.sorted_keys()
            start = bisect_left(ordered, query.prefix or "")
            if query.after is not None:
                start = max(start, bisect_right(ordered, query.after))
            keys = (ordered[at] for at in range(start, len(ordered)))
            if query.prefix:
                keys = _while_prefix(keys, query.prefix)
        return (self.records[key] for key in keys)


class _Postings:
    """Word -> keys, as small as it gets. Most words (an address, a room) have one key, which is kept as it is, or a few
    in a tuple: a set each costs 200 B. What a good part of all records have (that a room is open) helps nobody to find
    one: of such a word only their number is kept, until it is asked for when it has become rare."""

    __slots__ = ("_common", "_has", "_keys", "_records")

    def __init__(self, records: dict[str, Record], has: Callable[[Record, str], bool]) -> None:
        self._records = records
        self._has = has
        self._keys: dict[str, str | tuple[str, ...] | set[str]] = {}
        self._common: dict[str, int] = {}

    def get(self, word: str) -> Collection[str] | None:
        """The keys that have the word; None of a common one."""
        if (number := self._common.get(word)) is not None:
            if number > MANY // 2 and number * 8 > len(self._records):
                return None
            del self._common[word]
            if found := {key for key, record in self._records.items() if self._has(record, word)}:
                self._keys[word] = found
        kept = self._keys.get(word, ())
        return (kept,) if isinstance(kept, str) else kept

    def add(self, word: str, key: str) -> None:
        if word in self._common:
            self._common[word] += 1
            return
        kept = self._keys.setdefault(word, key)
        if kept is key:
            return
        if isinstance(kept, str):
            self._keys[word] = (kept, key)
        elif isinstance(kept, set):
            kept.add(key)
            if len(kept) > MANY and len(kept) * 4 > len(self._records):
                self._common[word] = len(self._keys.pop(word))
        else:
            self._keys[word] = (*kept, key) if len(kept) < FEW else {*kept, key}

    def remove(self, word: str, key: str) -> None:
        if word in self._common:
            self._common[word] -= 1
            return
        kept = self._keys[word]
        if isinstance(kept, set):
            kept.discard(key)
        else:
            kept = () if isinstance(kept, str) else tuple(one for one in kept if one != key)
            self._keys[word] = kept
        if not kept:
            del self._keys[word]


def _while_prefix(keys: Iterable[str], prefix: str) -> Iterator[str]:
    for key in keys:
        if not key.startswith(prefix):
            return
        yield key


def _matches(record: Record, query: RecordQuery) -> bool:
    return (
        (query.tenant is None or record.tenant == query.tenant)
        and (query.key is None or record.key == query.key)
        and (query.prefix is None or record.key.startswith(query.prefix))
        and (query.room_id is None or record.room_id == query.room_id)
        and (query.after is None or record.key > query.after)
        and (query.due_before is None or (record.due is not None and record.due <= query.due_before))
        and all(term in record.terms for term in query.terms)
    )
