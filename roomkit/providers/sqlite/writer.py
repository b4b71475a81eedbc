"""The writing side: groups of batches, each group one transaction, on the writer's thread."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError

from roomkit.errors import Fenced, RoomKitError, StoreUnavailable, UsageError
from roomkit.models.event import RoomEvent
from roomkit.ports.store import Batch, Duplicate, Record, check_batch, json_of
from roomkit.runtime import crashpoint

Outcome = Duplicate | RoomKitError | None

ROOM_SHIFT = 32
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_event_json = RoomEvent.__pydantic_serializer__.to_json
_MAX_HEADS = 50_000
_SAME_FAILURE = 3
"""After this many failures in a row the store is broken rather than the batch, and the rest is not tried."""


class Encoded(NamedTuple):
    """A batch whose values are JSON already, so that nothing can fail or change later."""

    batch: Batch
    events: tuple[str, ...] = ()
    tombstones: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    probe: bool = False


def encode(batch: Batch) -> Encoded:
    """Raises `UsageError` for a batch that no store can apply or that holds something JSON cannot."""
    check_batch(batch)
    try:
        return Encoded(
            batch,
            tuple([_event_json(event).decode() for event in batch.events]),
            tuple([_event_json(event).decode() for event in batch.erase]),
            tuple(map(json_of, batch.put)),
        )
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"a batch for {batch.room_id or batch.tenant} holds what JSON cannot: {error}") from error


@dataclass(slots=True)
class _Head:
    """Where a room's log goes on. `activity` None leaves what is stored."""

    rid: int
    next_index: int
    activity: float | None = None


_RoomKey = tuple[str, str]
_RecordRow = tuple[str, str, str, str | None, float | None, str, str]


@dataclass(slots=True)
class _Group:
    """What one transaction is going to write."""

    epoch: int
    known: dict[tuple[str, str], tuple[str, str, int, float]] = field(default_factory=lambda: {})
    heads: dict[_RoomKey, _Head] = field(default_factory=lambda: {})
    changed: set[_RoomKey] = field(default_factory=set[Any])
    events: list[tuple[int, str, str, str | None, str]] = field(default_factory=lambda: [])
    erased: list[tuple[str | None, str, int]] = field(default_factory=lambda: [])
    dedupe: list[tuple[str, str, str, str, int, float]] = field(default_factory=lambda: [])
    records: dict[tuple[str, str, str], _RecordRow | None] = field(default_factory=lambda: {})
    erases: bool = False


class Writer:
    """Owns the writing connection. Everything here runs on one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._heads: dict[_RoomKey, _Head] = {}
        ((self._last_rid,),) = connection.execute("SELECT coalesce(max(rid), 0) FROM heads")
        self._termed = {
            kind
            for (kind,) in connection.execute(
                """WITH RECURSIVE k (kind) AS (SELECT min(kind) FROM terms UNION ALL
                   SELECT (SELECT min(kind) FROM terms WHERE terms.kind > k.kind) FROM k WHERE k.kind IS NOT NULL)
                   SELECT kind FROM k WHERE kind IS NOT NULL"""
            )
        }
        self.failing: str = ""
        self.counters: dict[str, float] = dict.fromkeys(("commits", "transactions", "duplicates", "failures"), 0)

    def write(self, items: list[Encoded]) -> list[Outcome]:
        """One transaction for all; if that fails one for each, so that only those fail which must."""
        try:
            return self._transaction(items)
        except (sqlite3.Error, ValueError, OverflowError) as error:
            if len(items) == 1:
                return [self._failed(error)]
        outcomes: list[Outcome] = []
        in_a_row = 0
        for item in items:
            if in_a_row >= _SAME_FAILURE:
                outcomes.append(StoreUnavailable(f"nothing can be written now: {self.failing}; it is tried again"))
                continue
            outcomes += self.write([item])
            in_a_row = in_a_row + 1 if isinstance(outcomes[-1], StoreUnavailable) else 0
        return outcomes

    def _transaction(self, items: list[Encoded]) -> list[Outcome]:
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            ((epoch,),) = run("SELECT value FROM meta WHERE name = 'epoch'")
            group = _Group(epoch)
            self._find_known(group, items)
            outcomes = [self._take(group, item) for item in items]
            self._flush(group)
            crashpoint("store.before_commit")
            run("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        crashpoint("store.after_commit")
        self._remember(group)
        self._count(outcomes)
        if group.erases:
            self.forget_changes()
        return outcomes

    def forget_changes(self) -> None:
        """What was erased must not live on in the log of changes."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:  # The commit stands; the next checkpoint does it.
            self.failing = str(error)

    def _take(self, group: _Group, item: Encoded) -> Outcome:
        """Adds a batch to the group, or says why not; then nothing of it is added."""
        batch, tenant = item.batch, item.batch.tenant
        head = self._head(group, tenant, batch.room_id) if batch.room_id is not None else None
        if (refusal := self._refusal(group, batch, head)) is not None:
            return refusal
        if batch.erase and (refusal := self._take_erased(group, item)) is not None:
            return refusal
        if head is not None and (batch.events or batch.activity_at is not None):
            self._take_events(group, head, item)
        for key in batch.dedupe:
            joined, where = f"{key.channel_id}\n{key.key}", (key.room_id, key.event_id, key.index, key.expires)
            group.known[tenant, joined] = where
            group.dedupe.append((tenant, joined, *where))
        if batch.put or batch.delete:
            self._take_records(group, item)
        if batch.prune_dedupe_before is not None:
            self._prune(group, batch.prune_dedupe_before)
        if item.probe:
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', random())")
        return None

    def _refusal(self, group: _Group, batch: Batch, head: _Head | None) -> Outcome:
        if batch.epoch < group.epoch:
            return Fenced(f"epoch {batch.epoch} is over, {group.epoch} has begun; this writer must stop")
        for key in batch.dedupe:
            if (first := group.known.get((batch.tenant, f"{key.channel_id}\n{key.key}"))) is not None:
                return Duplicate(first[0], first[1], first[2])
        start = head.next_index if head is not None else 0
        for index, event in enumerate(batch.events, start):
            if event.index != index:
                return Fenced(
                    f'room "{batch.room_id}" goes on at {start}, not at {event.index}: another writer was here'
                )
        return None

    def _take_events(self, group: _Group, head: _Head, item: Encoded) -> None:
        batch = item.batch
        first = head.rid << ROOM_SHIFT
        group.events += [
            (first + event.index, batch.tenant, event.id, event.parent_event_id, body)
            for event, body in zip(batch.events, item.events, strict=True)
        ]
        head.next_index += len(batch.events)
        if batch.activity_at is not None:
            head.activity = batch.activity_at.timestamp()
        group.changed.add((batch.tenant, batch.room_id or ""))

    def _take_erased(self, group: _Group, item: Encoded) -> UsageError | None:
        self._flush(group)
        rows: list[tuple[str | None, str, int]] = []
        for event, body in zip(item.batch.erase, item.tombstones, strict=True):
            pos = (self._head(group, event.tenant, event.room_id).rid << ROOM_SHIFT) + event.index
            found = self._connection.execute(
                "SELECT 1 FROM events WHERE pos = ? AND id = ?", (pos, event.id)
            ).fetchone()
            if found is None:
                return UsageError(f"event {event.id} is not stored at this place; a tombstone keeps id, room and index")
            rows.append((event.parent_event_id, body, pos))
        group.erased += rows
        group.erases = True
        return None

    def _take_records(self, group: _Group, item: Encoded) -> None:
        batch = item.batch
        for gone in batch.delete:
            group.records[gone.kind, gone.tenant, gone.key] = None
        for record, value in zip(batch.put, item.values, strict=True):
            group.records[record.kind, record.tenant, record.key] = _row(record, value)
            if record.kind == "room":
                self._head(group, record.tenant, record.key)
                group.changed.add((record.tenant, record.key))

    def _prune(self, group: _Group, before: float) -> None:
        self._flush(group)
        self._connection.execute("DELETE FROM dedupe WHERE expires < ?", (before,))
        group.known = {key: first for key, first in group.known.items() if first[3] >= before}

    def _find_known(self, group: _Group, items: list[Encoded]) -> None:
        """The dedupe keys of the group that the store has already, in one look-up per tenant."""
        asked: dict[str, list[str]] = {}
        for item in items:
            for key in item.batch.dedupe:
                asked.setdefault(item.batch.tenant, []).append(f"{key.channel_id}\n{key.key}")
        for tenant, keys in asked.items():
            rows = self._connection.execute(
                "SELECT key, room_id, event_id, idx, expires FROM dedupe"
                " WHERE tenant = ? AND key IN (SELECT value FROM json_each(?))",
                (tenant, _encode(keys)),
            )
            group.known.update(
                ((tenant, key), (room_id, event_id, idx, at)) for key, room_id, event_id, idx, at in rows
            )

    def _head(self, group: _Group, tenant: str, room_id: str) -> _Head:
        """The room's head as this transaction sees it; a room without one gets a number, and a row once it is used."""
        key = (tenant, room_id)
        if (head := group.heads.get(key)) is not None:
            return head
        if (kept := self._heads.get(key)) is not None:
            head = _Head(kept.rid, kept.next_index)
        else:
            row = self._connection.execute(
                "SELECT rid, next_index FROM heads WHERE tenant = ? AND room_id = ?", key
            ).fetchone()
            if row is None:
                self._last_rid += 1
                row = (self._last_rid, 0)
            head = _Head(*row)
        group.heads[key] = head
        return head

    def _flush(self, group: _Group) -> None:
        many = self._connection.executemany
        if group.changed:
            rows = [
                (group.heads[key].rid, *key, group.heads[key].next_index, group.heads[key].activity)
                for key in group.changed
            ]
            many(
                """INSERT INTO heads VALUES (?, ?, ?, ?, ?) ON CONFLICT (rid) DO UPDATE SET
                   next_index = excluded.next_index, last_activity = coalesce(excluded.last_activity, last_activity)""",
                rows,
            )
            group.changed.clear()
        if group.events:
            many("INSERT INTO events VALUES (?, ?, ?, ?, ?)", group.events)
            group.events.clear()
        if group.erased:
            many("UPDATE events SET parent = ?, body = ? WHERE pos = ?", group.erased)
            group.erased.clear()
        if group.dedupe:
            many("INSERT OR REPLACE INTO dedupe VALUES (?, ?, ?, ?, ?, ?)", group.dedupe)
            group.dedupe.clear()
        if group.records:
            self._flush_records(group.records)
            group.records.clear()

    def _flush_records(self, records: dict[tuple[str, str, str], _RecordRow | None]) -> None:
        many = self._connection.executemany
        self._flush_terms(records)
        gone = [key for key, row in records.items() if row is None]
        if gone:
            many("DELETE FROM records WHERE kind = ? AND tenant = ? AND key = ?", gone)
        rows = [row for row in records.values() if row is not None]
        if rows:
            many(
                """INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, tenant, key) DO UPDATE SET
                   room_id = excluded.room_id, due = excluded.due, terms = excluded.terms, value = excluded.value""",
                rows,
            )

    def _flush_terms(self, records: dict[tuple[str, str, str], _RecordRow | None]) -> None:
        """Changes only the terms that differ; kinds which never had any are not looked at."""
        removed: list[tuple[str, str, str, str]] = []
        added: list[tuple[str, str, str, str]] = []
        for key, row in records.items():
            kind, tenant, name = key
            text = row[5] if row is not None else ""
            if text:
                self._termed.add(kind)
            elif kind not in self._termed:
                continue
            was = self._connection.execute(
                "SELECT terms FROM records WHERE kind = ? AND tenant = ? AND key = ?", key
            ).fetchone()
            if was is not None and was[0] == text:
                continue
            old = terms_of(was[0]) if was is not None else ()
            new = terms_of(text)
            removed += [(kind, tenant, term, name) for term in set(old).difference(new)]
            added += [(kind, tenant, term, name) for term in set(new).difference(old)]
        if removed:
            self._connection.executemany(
                "DELETE FROM terms WHERE kind = ? AND tenant = ? AND term = ? AND key = ?", removed
            )
        if added:
            self._connection.executemany("INSERT INTO terms VALUES (?, ?, ?, ?)", added)

    def _remember(self, group: _Group) -> None:
        self.failing = ""
        if len(self._heads) > _MAX_HEADS:
            self._heads.clear()
        self._heads.update(group.heads)

    def _count(self, outcomes: list[Outcome]) -> None:
        refused = sum(outcome is not None for outcome in outcomes)
        self.counters["commits"] += len(outcomes) - refused
        self.counters["duplicates"] += sum(isinstance(outcome, Duplicate) for outcome in outcomes)
        self.counters["transactions"] += 1

    def _failed(self, error: Exception) -> RoomKitError:
        if isinstance(error, sqlite3.IntegrityError):
            return UsageError(f"the batch repeats what must be unique ({error}); give every event an id of its own")
        if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
            self.failing = str(error)
            self.counters["failures"] += 1
            return StoreUnavailable(f"the rooms cannot be written ({error}); free or repair the disk, then it goes on")
        return UsageError(f"the batch holds what SQLite cannot keep: {error}")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                self.failing = str(error)


def terms_of(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text else ()


def _row(record: Record, value: str) -> _RecordRow:
    terms = _encode(record.terms) if record.terms else ""
    return (record.kind, record.tenant, record.key, record.room_id, record.due, terms, value)
