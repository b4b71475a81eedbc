"""What one transaction is going to write: a group of batches against what the store holds, without any waiting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import PydanticSerializationError

from roomkit.errors import Fenced, RoomKitError, UsageError
from roomkit.ports.store import Batch, Duplicate, Record, check_batch, json_of

Outcome = Duplicate | RoomKitError | None
RoomKey = tuple[str, str]

Column = Sequence[Any]
SEPARATOR, NULL = "\x1e", "\x1d"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Item:
    """A batch whose values are JSON already, so that nothing can fail or change later. `keys` is all it touches: two
    batches that share one keep their order. `alone`: it is written
    while nothing else is. `separators`: a key has a
    control character that `join` uses."""

    batch: Batch
    fence: RoomKey
    keys: frozenset[tuple[str, ...]]
    events: tuple[str, ...] = ()
    tombstones: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    alone: bool = False
    separators: bool = False

    @property
    def size(self) -> int:
        """About how many characters go to the server."""
        return sum(map(len, self.events)) + sum(map(len, self.values))


def encode(batch: Batch, fence: RoomKey) -> Item:
    """Raises `UsageError` for a batch that no store can apply or that holds something JSON or SQL cannot."""
    check_batch(batch)
    tenant = batch.tenant
    try:
        events = tuple([event.model_dump_json() for event in batch.events])
        tombstones = tuple([event.model_dump_json() for event in batch.erase])
        values = tuple(map(json_of, batch.put))
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"a batch for {batch.room_id or tenant} holds what JSON cannot: {error}") from error
    keys: list[tuple[str, ...]] = [("event", event.id) for event in batch.events]
    keys += [("dedupe", tenant, key.channel_id, key.key) for key in batch.dedupe]
    keys += [record[:3] for record in batch.put]
    keys += [(tenant, record.room_id) for record in batch.put if record.room_id is not None]
    keys += [(gone.kind, tenant, gone.key) for gone in batch.delete]
    if batch.room_id is not None:
        keys.append((tenant, batch.room_id))
    keys += [(tenant, event.room_id) for event in batch.erase]
    keys += [(tenant, record.key) for record in batch.put if record.kind == "room"]
    separators = _check_texts(batch, keys)
    alone = bool(batch.erase) or batch.prune_dedupe_before is not None
    return Item(batch, fence, frozenset(keys), events, tombstones, values, alone, separators)


def _check_texts(batch: Batch, keys: Iterable[tuple[str, ...]]) -> bool:
    """A text column holds neither NUL nor lone surrogates. Found here, such a batch disturbs no group."""
    texts = [text for key in keys for text in key]
    texts += [text for event in batch.events for text in (event.id, event.parent_event_id or "")]
    texts += [text for record in batch.put for text in (record.room_id or "", *record.terms)]
    joined = "".join(texts)
    try:
        if not joined.isascii():
            joined.encode()
    except UnicodeEncodeError as error:
        raise UsageError("a batch has a key or an id that is no valid text; replace its surrogates") from error
    if "\0" in joined:
        raise UsageError("a batch has a key or an id with a NUL in it, which PostgreSQL cannot keep; remove it")
    return SEPARATOR in joined or NULL in joined


@dataclass(slots=True)
class Head:
    """Where a room's log goes on. `start` None: it has no row yet. `activity` None leaves what is stored."""

    start: int | None
    next_index: int
    activity: float | None = None


@dataclass(slots=True)
class Plan:
    """`fences`, `known` and `heads` are filled with what the store holds; `take` adds batch after batch."""

    fences: dict[RoomKey, int] = field(default_factory=lambda: {})
    known: dict[RoomKey, tuple[str, str, int]] = field(default_factory=lambda: {})
    heads: dict[RoomKey, Head] = field(default_factory=lambda: {})
    changed: set[RoomKey] = field(default_factory=set[Any])
    events: list[tuple[str, str, int, str, str | None, str]] = field(default_factory=lambda: [])
    dedupe: dict[RoomKey, tuple[str, str, str, str, int, float]] = field(default_factory=lambda: {})
    records: dict[tuple[str, str, str], tuple[Record, str] | None] = field(default_factory=lambda: {})
    taken: int = 0

    def take(self, item: Item) -> Outcome:
        """Adds a batch, or says why not; then nothing of it is added."""
        batch, tenant = item.batch, item.batch.tenant
        head = None
        if batch.room_id is not None:
            head = self._head(tenant, batch.room_id)
        if (refusal := self._refusal(item, head)) is not None:
            return refusal
        self.taken += 1
        if head is not None and (batch.events or batch.activity_at is not None):
            self._take_events(head, item)
        for key in batch.dedupe:
            joined = f"{key.channel_id}\n{key.key}"
            self.known[tenant, joined] = (key.room_id, key.event_id, key.index)
            self.dedupe[tenant, joined] = (tenant, joined, key.room_id, key.event_id, key.index, key.expires)
        for gone in batch.delete:
            self.records[gone.kind, tenant, gone.key] = None
        for record, value in zip(batch.put, item.values, strict=True):
            self.records[record.kind, tenant, record.key] = (record, value)
            if record.kind == "room":
                self._head(tenant, record.key)
                self.changed.add((tenant, record.key))
        return None

    def columns(self) -> list[Column]:
        """The values of `writer.WRITE` in its order: one list per column."""
        heads = [(key, self.heads[key]) for key in sorted(self.changed)]
        new = [(*key, head.next_index, head.activity) for key, head in heads if head.start is None]
        old = [(*key, head.start, head.next_index, head.activity) for key, head in heads if head.start is not None]
        records = sorted(self.records.items())
        gone = [key for key, row in records if row is None]
        put = [
            (*key, row[0].room_id, row[0].due, _encode(row[0].terms) if row[0].terms else "", row[1])
            for key, row in records
            if row is not None
        ]
        return [
            *turned(self.events, 6),
            *turned(new, 4),
            *turned(old, 5),
            *turned(sorted(self.dedupe.values()), 6),
            *turned(gone, 3),
            *turned(put, 7),
        ]

    @property
    def moved(self) -> int:
        """How many heads that the store has are going to change."""
        return sum(self.heads[key].start is not None for key in self.changed)

    def _head(self, tenant: str, room_id: str) -> Head:
        key = (tenant, room_id)
        if (head := self.heads.get(key)) is None:
            head = self.heads[key] = Head(None, 0)
        return head

    def _refusal(self, item: Item, head: Head | None) -> Outcome:
        batch = item.batch
        epoch = self.fences.get(item.fence)
        if epoch is None or batch.epoch < epoch:
            now = f"{epoch} has begun" if epoch is not None else "another process has taken over"
            return Fenced(f"epoch {batch.epoch} is over, {now}; this writer must stop")
        if self.known:
            for key in batch.dedupe:
                if (first := self.known.get((batch.tenant, f"{key.channel_id}\n{key.key}"))) is not None:
                    return Duplicate(*first)
        start = head.next_index if head is not None else 0
        for index, event in enumerate(batch.events, start):
            if event.index != index:
                return Fenced(
                    f'room "{batch.room_id}" goes on at {start}, not at {event.index}: another writer was here'
                )
        return None

    def _take_events(self, head: Head, item: Item) -> None:
        batch, room_id = item.batch, item.batch.room_id or ""
        self.events += [
            (batch.tenant, room_id, event.index, event.id, event.parent_event_id, body)
            for event, body in zip(batch.events, item.events, strict=True)
        ]
        head.next_index += len(batch.events)
        if batch.activity_at is not None:
            head.activity = batch.activity_at.timestamp()
        self.changed.add((batch.tenant, room_id))


def turned(rows: Sequence[tuple[Any, ...]], width: int) -> list[Column]:
    """Rows as columns."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


def join(column: Column) -> str:
    """A column as one text: each value after a separator, which no JSON and no checked key contains."""
    return "".join([f"{SEPARATOR}{NULL if value is None else value}" for value in column])


def wanted(items: Iterable[Item]) -> list[Column]:
    """What `writer.READ` asks for, as columns: fences, heads and dedupe keys."""
    fences: set[RoomKey] = set()
    heads: set[RoomKey] = set()
    keys: set[RoomKey] = set()
    for item in items:
        batch, tenant = item.batch, item.batch.tenant
        fences.add(item.fence)
        if batch.room_id is not None:
            heads.add((tenant, batch.room_id))
        for record in batch.put:
            if record.kind == "room":
                heads.add((tenant, record.key))
        for key in batch.dedupe:
            keys.add((tenant, f"{key.channel_id}\n{key.key}"))
    return [column for some in (fences, heads, keys) for column in turned(sorted(some), 2)]
