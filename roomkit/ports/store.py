"""Store: the durable log and the records beside it, written in one transaction.

A store keeps four things. **Events**: the log, unique by (tenant, room, index) and by (tenant, id). **Heads**: per
room the next index and the time of the last activity. **Dedupe keys**: unique by (tenant, channel, key), each pointing
to the event that the first delivery made. **Records**: everything else as (kind, tenant, key) -> JSON object, with an
optional room, an optional due time and search terms. One `commit` applies a whole `Batch` or nothing.

Values handed in and out are shared, never copied: treat them as immutable. The commonest are tuples with names, because
a frozen dataclass costs four times as much to make.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from pydantic_core import to_json

from roomkit.errors import UsageError
from roomkit.models.content import Frozen, plain
from roomkit.models.event import RoomEvent

BUILT_IN_KINDS = frozenset({"head", "dedupe"})
"""Kinds of records that can be read and never put."""
PLAIN_KINDS = frozenset({"outbox", "turn", "delivery"})
"""Kinds that hold nothing but texts, numbers and lists of them, and whose keys begin with their room's id and a line
feed: a store finds those of a room without an index of rooms, which would cost a page of disk for each row."""


class Record(NamedTuple):
    """A JSON object stored under (kind, tenant, key). `due` is a Unix time in seconds; `terms` are exact-match
    search terms such as "status:active" or "address:+441632960961". Read `value` by its name, not by its place: some
    records make it only then."""

    kind: str
    tenant: str
    key: str
    value: dict[str, Any]
    room_id: str | None = None
    due: float | None = None
    terms: tuple[str, ...] = ()


class ModelRecord(Record):
    """A record of a frozen model. Its value is made when somebody reads it, so that a store in memory keeps nothing but
    what the room itself uses."""

    __slots__ = ()

    @property
    def value(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride] - read as in any other
        held: Any = self[3]
        return held.stored() if isinstance(held, Frozen) else held

    @property
    def plain(self) -> bool:
        """Whether JSON surely takes the value as it is."""
        held: Any = self[3]
        return _plain_model(held, held.NOT_STORED) if isinstance(held, Frozen) else plain(held)


_HARMLESS: set[type] = {type(None), bool, int, float, datetime}


def _plain_model(model: Frozen, left_out: frozenset[str] = frozenset()) -> bool:
    for name, value in model.__dict__.items():
        kind = type(value)  # pyright: ignore[reportUnknownVariableType] - whatever it is
        if kind in _HARMLESS or name in left_out:
            continue
        if kind is str:
            if not value.isascii():
                return False
        elif kind is dict or kind is tuple:
            if value and not plain(value):
                return False
        elif isinstance(value, Enum):
            _HARMLESS.add(value.__class__)
        elif not (isinstance(value, Frozen) and _plain_model(value)):
            return False
    return True


_M = TypeVar("_M", bound=Frozen)


def model_of(kind: type[_M], record: Record) -> _M:
    """The model that a record holds, or that its value makes."""
    held: Any = record[3]
    return held if isinstance(held, kind) else kind.model_validate(held).lean()


class RecordKey(NamedTuple):
    kind: str
    tenant: str
    key: str


@dataclass(slots=True)
class DedupeKey:
    """(tenant of the batch, channel, key) -> the event it made. `expires` is a Unix time in seconds."""

    channel_id: str
    key: str
    room_id: str
    event_id: str
    index: int
    expires: float


class Batch(NamedTuple):
    """One transaction. With events: `room_id` is set, their indexes run on from the room's head without a gap
    (otherwise `Fenced`), and the head moves together with `activity_at`. `epoch` is the writer's; a store
    whose current epoch is newer refuses with `Fenced`. `erase` replaces stored events in place by
    tombstones with the same id and index (D21); `prune_dedupe_before` forgets the keys, of every tenant, that expired
    before it. Deletions come before puts; of two puts of one key the later one stays. Events, records and keys
    carry the batch's tenant (`UsageError` otherwise, see `check_batch`). Putting a record of kind "room" gives the
    room a head."""

    tenant: str
    epoch: int
    room_id: str | None = None
    events: tuple[RoomEvent, ...] = ()
    dedupe: tuple[DedupeKey, ...] = ()
    put: tuple[Record, ...] = ()
    delete: tuple[RecordKey, ...] = ()
    activity_at: datetime | None = None
    erase: tuple[RoomEvent, ...] = ()
    prune_dedupe_before: float | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The batch was not applied: this dedupe key already has an event."""

    room_id: str
    event_id: str
    index: int


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """`incarnation` identifies the log itself (the socket epoch, D33); `epoch` this opening of it (the fence).
    `durable` is false where everything ends with the process: deliveries that end in the event's own turn of the loop
    have no row there."""

    incarnation: str
    epoch: int
    durable: bool
    schema_version: int = 1


class EventQuery(NamedTuple):
    """Events of one room with start <= index < stop, oldest or newest first; or exactly those with `ids` (any room
    of the tenant, in the order asked, unknown ones left out, no limit); or, of one room, the replies in thread
    `parent`."""

    tenant: str
    room_id: str
    start: int = 0
    stop: int | None = None
    limit: int = 100
    newest_first: bool = False
    ids: tuple[str, ...] = ()
    parent: str | None = None


class RecordQuery(NamedTuple):
    """Records of one kind: by `key`, or all that match every given filter. `tenant` None means every tenant (due
    scans and recovery). `due_before` is inclusive. `after` is the last key of the page before; it goes with one
    tenant and order "key", the other listings page with `limit` and `offset`. Order "due" puts records without a due
    time last; order "activity" is for kind "room": by the head's last activity, newest first, never active last.

    Kind "head" is built in: key = room id, value = {"next_index": int, "last_activity": Unix seconds or None}.
    Kind "dedupe" is built in: key = channel id + "\\n" + key, value = {"room_id", "event_id", "index"}, due = expiry.
    """

    kind: str
    tenant: str | None
    key: str | None = None
    prefix: str | None = None
    room_id: str | None = None
    terms: tuple[str, ...] = ()
    due_before: float | None = None
    after: str | None = None
    offset: int = 0
    limit: int = 100
    order: Literal["key", "due", "activity"] = "key"


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """`writable` is false after a failed write until one works again. `reason` says why."""

    writable: bool
    reason: str = ""
    pending: int = 0
    counters: dict[str, float] = field(default_factory=lambda: {})


class Store(Protocol):
    """Six methods (waiver in docs/decisions): the log of every room of every tenant."""

    async def open(self) -> StoreInfo:
        """Migrates, locks and opens. Raises `StoreLocked` when another process owns it. Idempotent."""
        ...

    async def commit(self, batch: Batch) -> Duplicate | None:
        """Applies the batch atomically and, in a durable store, returns only after it is safe against power loss.

        Returns a `Duplicate` (nothing applied) when one of its dedupe keys exists. Raises `Fenced` or
        `StoreUnavailable`; then nothing was applied. Cancelling the caller does not undo a commit under way."""
        ...

    async def events(self, query: EventQuery) -> list[RoomEvent]: ...

    async def records(self, query: RecordQuery) -> list[Record]: ...

    def health(self) -> StoreHealth: ...

    async def aclose(self) -> None: ...


def check_batch(batch: Batch) -> None:
    """What every store asks of a batch before it looks at its data. Raises `UsageError`."""
    tenant, room_id = batch.tenant, batch.room_id
    sound = tenant.isascii() and (room_id is None or room_id.isascii())
    for kind, owner, key, _, _, _, terms in batch.put:
        if owner != tenant or kind in BUILT_IN_KINDS:
            raise _no_record_of(kind, key, foreign=owner != tenant)
        sound = sound and key.isascii() and (not terms or "".join(terms).isascii())
    for kind, owner, key in batch.delete:
        if owner != tenant or kind in BUILT_IN_KINDS:
            raise _no_record_of(kind, key, foreign=owner != tenant)
        sound = sound and key.isascii()
    for dedupe in batch.dedupe:
        sound = sound and dedupe.key.isascii()
    if not sound:
        _check_names(batch)
    if (batch.events or batch.activity_at is not None) and room_id is None:
        raise UsageError("a batch with events or activity needs a room_id; set Batch.room_id")
    for event in batch.events:
        if event.tenant != tenant or event.room_id != room_id:
            raise UsageError(f"event {event.id} is not of the batch's tenant and room; commit it in a batch of its own")
    for event in batch.erase:
        if event.tenant != tenant:
            raise UsageError(f"tombstone {event.id} is of another tenant; commit it in a batch of its own")


def _no_record_of(kind: str, key: str, *, foreign: bool) -> UsageError:
    if foreign:
        return UsageError(f"{kind} record {key} is of another tenant; commit it in a batch of its own")
    return UsageError(f'records of kind "{kind}" are written by the store itself; choose another kind')


def _check_names(batch: Batch) -> None:
    names = [batch.tenant, batch.room_id or "", *(key.key for key in batch.delete), *(key.key for key in batch.dedupe)]
    for record in batch.put:
        names += (record.key, *record.terms)
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        raise UsageError("a key or an id is no valid text; replace its lone surrogates") from error


def json_of(record: Record) -> str:
    """What a store on disk keeps of a record's value. Raises `TypeError` or `ValueError` for what JSON cannot hold."""
    value = record.value
    if record.kind in PLAIN_KINDS or plain(value):
        return to_json(value).decode()
    text = _encode(value)
    if not text.isascii():
        text.encode()  # Found here, a lone surrogate disturbs no other batch.
    return text


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def check_query(query: RecordQuery) -> None:
    """What every store asks of a record query. Raises `UsageError`."""
    if query.order == "activity" and (query.kind != "room" or query.tenant is None):
        raise UsageError('order "activity" is for kind "room" of one tenant; use order "key"')
    if query.after is not None and (query.order != "key" or query.tenant is None):
        raise UsageError('`after` pages one tenant in order "key"; use `offset` here')


def end_of_prefix(prefix: str) -> str | None:
    """The first text, in order of code points, that is after everything with this prefix; None if there is none."""
    while prefix:
        point = ord(prefix[-1]) + 1
        if 0xD800 <= point <= 0xDFFF:  # These cannot be stored.
            point = 0xE000
        if point <= 0x10FFFF:
            return prefix[:-1] + chr(point)
        prefix = prefix[:-1]
    return None
