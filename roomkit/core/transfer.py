"""A room as lines of JSON, to take it elsewhere, and back from them.

The first line says what follows, the last one seals it: how many lines there were, and the SHA-256 of them. In between
stand the events in order, the records beside them, and the files that they name. What is still to be done (outbox,
turns, timers, replies in the making, dead letters) stays behind: nothing is ever sent because of an import.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import ValidationError

from roomkit.core.copying import blobs_in, breathing, drop, renamed, write_room
from roomkit.core.erasure import ERASING
from roomkit.core.policy import require_room_id
from roomkit.core.state import BINDING, PARTICIPANT, ROOM, SEP
from roomkit.errors import RoomNotFound, StateError, UsageError
from roomkit.models.event import SCHEMA_VERSION, RoomEvent
from roomkit.models.room import ChannelBinding, Participant, Room
from roomkit.ports.store import Batch, EventQuery, Record, RecordQuery, check_batch

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine
    from roomkit.ports.blob import BlobStore

VERSION = 1
TAKEN = ("mutation", "delivery", "journal", "draft", "approval", "task", "observation", "detached")
"""Kinds of records that go with a room, beside the room, its seats and its people."""
LEFT = ("outbox", "held", "turn", "stream", "words", "timer", "dead")
"""What is still to be done, and is done where it began."""
_OWNED = ("task", "observation")
"""Those that say whose they are."""
MAX_BLOB = 25_000_000
MAX_LINE = 64_000_000
MAX_EVENTS = 1_000_000
PAGE = 500
Media = Literal["inline", "none"]


async def export_room(
    engine: Engine, tenant: str, room_id: str, media: Media, max_blob_bytes: int
) -> AsyncIterator[str]:
    """The lines, each without its line break. Files larger than `max_blob_bytes`, or all, are left out."""
    digest, count = hashlib.sha256(), 0

    def line(kind: str, value: Any) -> str:
        nonlocal count
        if engine.redactions is not None:
            value = engine.redactions.exported(tenant, kind, value)
        text = json.dumps({kind: value}, ensure_ascii=False, separators=(",", ":"))
        digest.update(text.encode() + b"\n")
        count += 1
        return text

    state = await engine.table.look(tenant, room_id)
    if state is None:
        raise RoomNotFound(room_id, await engine.table.ids(tenant))
    whole = _Whole(engine, tenant, room_id)
    await whole.begin()
    actor = engine.table.loaded(tenant, room_id)
    if actor is not None:  # Within the room, so that its log does not go on meanwhile.
        records, state = await actor.call(_records), actor.state
    else:
        records = await _read_records(engine, tenant, room_id)
    heading = {"version": VERSION, "events": state.next_index, "room_id": room_id, "schema": SCHEMA_VERSION}
    last = state.last_activity
    yield line("roomkit", {**heading, "last_activity_at": last.isoformat() if last else None})
    blobs: dict[str, None] = {}
    stop = cast("int", heading["events"])
    for start in range(0, stop, PAGE):
        query = EventQuery(tenant, room_id, start=start, stop=min(start + PAGE, stop), limit=PAGE)
        events = await engine.store.events(query)
        await whole.check()
        for event in events:
            await whole.glance()
            text = line("event", event.model_dump(mode="json", exclude={"tenant"}))
            blobs.update(dict.fromkeys(blobs_in(text)))
            yield text
    for number, record in enumerate(records):
        await (whole.glance() if number % PAGE else whole.check())
        value = {name: inner for name, inner in record.value.items() if name != "tenant"}
        text = line("record", {"kind": record.kind, "key": record.key, "value": value, "terms": record.terms})
        blobs.update(dict.fromkeys(blobs_in(text)))
        yield text
    if media == "inline" and blobs and engine.blobs is not None:
        for blob_id in blobs:
            if (blob := await _blob(engine.blobs(), tenant, room_id, blob_id, max_blob_bytes)) is not None:
                await whole.check()
                yield line("blob", blob)
    await whole.check()
    yield json.dumps({"end": {"lines": count, "sha256": digest.hexdigest()}})


class _Whole:
    """Ends an export when somebody is erased from the room meanwhile: what it has read before says too much."""

    def __init__(self, engine: Engine, tenant: str, room_id: str) -> None:
        self._engine = engine
        self._query = RecordQuery(ERASING, tenant, key=room_id)
        self._room_id = room_id
        self._mark: list[Record] = []
        self._here = 0.0

    async def begin(self) -> None:
        self._here = self._engine.counters.get("erasures", 0)
        self._mark = await self._engine.store.records(self._query)

    async def check(self) -> None:
        """Sees what any process has done. Raises `StateError`."""
        if await self._engine.store.records(self._query) != self._mark:
            raise StateError(
                f'somebody was erased from room "{self._room_id}" during this export; throw it away and export again'
            )

    async def glance(self) -> None:
        """Sees what this process has done."""
        if (here := self._engine.counters.get("erasures", 0)) != self._here:
            self._here = here
            await self.check()


async def _records(actor: RoomActor) -> list[Record]:
    return await _read_records(actor.engine, actor.tenant, actor.room_id)


async def _read_records(engine: Engine, tenant: str, room_id: str) -> list[Record]:
    store = engine.store
    found = await store.records(RecordQuery(ROOM, tenant, key=room_id))
    for kind in (BINDING, PARTICIPANT, *TAKEN):
        after: str | None = None
        while True:
            page = await store.records(RecordQuery(kind, tenant, room_id=room_id, after=after, limit=PAGE))
            found += page
            if len(page) < PAGE:
                break
            after = page[-1].key
    return found


async def _blob(blobs: BlobStore, tenant: str, room_id: str, blob_id: str, most: int) -> dict[str, Any] | None:
    info = await blobs.info(tenant, blob_id)
    if info is None or info.size_bytes > most or info.room_id not in (None, room_id):
        return None
    data = b"".join([chunk async for chunk in blobs.read(tenant, blob_id)])
    return {
        "id": blob_id,
        "mime_type": info.mime_type,
        "filename": info.filename,
        "data": base64.b64encode(data).decode(),
    }


@dataclass(slots=True)
class _File:
    """What the lines of a file come to, before anything is written."""

    room_id: str = ""
    last_activity: str | None = None
    expected: int = 0
    events: list[dict[str, Any]] = field(default_factory=lambda: [])
    records: list[dict[str, Any]] = field(default_factory=lambda: [])
    blobs: list[dict[str, Any]] = field(default_factory=lambda: [])


async def import_room(
    engine: Engine, tenant: str, lines: Iterable[str] | AsyncIterable[str], room_id: str | None
) -> Room:
    """Reads and checks the whole file, then writes it. Raises `UsageError` for what is no whole, unaltered export."""
    file = await _read(lines)
    target = room_id or file.room_id
    require_room_id(target)
    room, bindings, people, records = _parts(file, tenant, target)
    if await engine.table.look(tenant, target) is not None:
        raise StateError(f'room "{target}" exists already; import it under another id with room_id= (--room)')

    async def written() -> RoomActor:
        before = await _named_before(engine, tenant, target, file.events)
        put = await _put_blobs(
            engine, tenant, target, [blob for blob in file.blobs if f"blob:{blob['id']}" not in before]
        )
        names = before | put
        try:
            made = (_event(renamed(value, names), index, tenant, target) for index, value in enumerate(file.events))
            events = [event async for event in breathing(made)]
            own = [record._replace(value=renamed(record.value, names)) for record in records]
            check_batch(Batch(tenant, 0, target, put=tuple(own)))
            return await write_room(engine, room, bindings, people, events, own)
        except (StateError, UsageError):  # refused: what is cut by anything else the next attempt goes on with
            await drop(engine, tenant, put.values())
            raise

    return (await engine.scope.complete(written(), name=f"import {target}")).state.snapshot()


async def _named_before(engine: Engine, tenant: str, target: str, events: list[dict[str, Any]]) -> dict[str, str]:
    """What files are called in the events that an earlier attempt has written, and are still there."""
    names: dict[str, str] = {}
    start = 0
    while page := await engine.store.events(EventQuery(tenant, target, start=start, limit=PAGE)):
        for event, value in zip(page, events[start:], strict=False):
            if '"blob:' in (text := event.model_dump_json()):
                names.update(_paired(value, json.loads(text)))
        start = page[-1].index + 1
    if not names or engine.blobs is None:
        return {}
    found = {old: await engine.blobs().info(tenant, new.removeprefix("blob:")) for old, new in names.items()}
    return {old: names[old] for old, info in found.items() if info is not None and info.room_id == target}


def _paired(old: Any, new: Any) -> Iterator[tuple[str, str]]:
    """The URLs of stored files that stand in the same places of two values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name, inner in cast("dict[str, Any]", old).items():
            yield from _paired(inner, cast("dict[str, Any]", new).get(name))
    elif isinstance(old, list) and isinstance(new, list):
        for one, other in zip(cast("list[Any]", old), cast("list[Any]", new), strict=False):
            yield from _paired(one, other)
    elif isinstance(old, str) and isinstance(new, str) and old.startswith("blob:") and new.startswith("blob:"):
        yield old, new


async def whole(lines: Iterable[str] | AsyncIterable[str]) -> list[str]:
    """All lines of a file, checked. Raises `UsageError` for what is no whole, unaltered export."""
    kept: list[str] = []

    async def keeping() -> AsyncIterator[str]:
        async for line in _each(lines):
            kept.append(line)
            yield line

    await _read(keeping())
    return kept


async def _read(lines: Iterable[str] | AsyncIterable[str]) -> _File:
    digest, number, ended, file = hashlib.sha256(), 0, False, _File()
    async for written in _each(lines):
        text = written.rstrip("\r\n")
        if not text:
            continue
        if ended:
            raise _wrong(number + 1, "there are lines after the end")
        kind, value = _line(text, number + 1)
        if number == 0:
            _head(file, kind, value)
        elif kind == "end":
            ended = True
            if value != {"lines": number, "sha256": digest.hexdigest()}:
                raise UsageError("the export was altered or is not whole: its seal does not fit; export the room again")
            continue
        elif kind in ("event", "record", "blob"):
            getattr(file, f"{kind}s").append(value)
            if len(file.events) > MAX_EVENTS:
                raise UsageError(f"the export has more than {MAX_EVENTS} events; that is no room of ours")
        else:
            raise _wrong(number + 1, f'nobody knows what "{kind[:40]}" is')
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
        number += 1
    if not ended:
        raise UsageError("the export is not whole: its last line is missing; export the room again")
    if len(file.events) != file.expected:
        raise UsageError(f"the export has {len(file.events)} events and speaks of {file.expected}; export it again")
    return file


async def _each(lines: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    if isinstance(lines, AsyncIterable):
        async for text in lines:
            yield text
    else:
        async for text in breathing(lines):
            yield text


def _line(text: str, number: int) -> tuple[str, dict[str, Any]]:
    try:
        found: Any = json.loads(text) if len(text) <= MAX_LINE else None
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and len(cast("dict[str, Any]", found)) == 1:
        kind, value = next(iter(cast("dict[str, Any]", found).items()))
        if isinstance(value, dict):
            return kind, cast("dict[str, Any]", value)
    raise _wrong(number, "it is no line of an export")


def _head(file: _File, kind: str, value: dict[str, Any]) -> None:
    if kind != "roomkit":
        raise UsageError("that is no export of a room; make one with kit.export_room() or roomkit export")
    for name, known in (("version", VERSION), ("schema", SCHEMA_VERSION)):
        if not isinstance(value.get(name), int) or value[name] > known:
            raise UsageError(
                f"the export has {name} {value.get(name)}, this roomkit knows {known}; use a newer roomkit"
            )
    try:
        file.room_id, file.expected = str(value["room_id"]), int(value["events"])
        file.last_activity = value["last_activity_at"]
    except (KeyError, ValueError, TypeError):
        raise _wrong(1, "the heading is not whole") from None


def _parts(file: _File, tenant: str, target: str) -> tuple[Room, list[ChannelBinding], list[Participant], list[Record]]:
    rooms: list[Room] = []
    bindings: list[ChannelBinding] = []
    people: list[Participant] = []
    records: list[Record] = []
    for number, one in enumerate(file.records):
        try:
            kind, old_key, value = str(one["kind"]), str(one["key"]), dict(one["value"])
            own = {**value, "tenant": tenant, **({"room_id": target} if "room_id" in value else {})}
            if kind == ROOM:
                rooms.append(Room.model_validate({**own, "id": target, "last_activity_at": file.last_activity}))
            elif kind == BINDING:
                bindings.append(ChannelBinding.model_validate(own))
            elif kind == PARTICIPANT:
                people.append(Participant.model_validate(own))
            elif kind in TAKEN and old_key.startswith(file.room_id + SEP):
                if kind not in _OWNED:
                    own.pop("tenant")
                terms = tuple(str(term) for term in one.get("terms", ()))
                records.append(Record(kind, tenant, target + old_key[len(file.room_id) :], own, target, None, terms))
            else:
                raise UsageError(f'a record of kind "{kind[:40]}" is no part of an export')
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise UsageError(f"record {number} of the export is not as roomkit writes it: {_short(error)}") from None
    if len(rooms) != 1:
        raise UsageError(f"the export has {len(rooms)} rooms instead of one; export it again")
    return rooms[0], bindings, people, records


def _event(value: dict[str, Any], index: int, tenant: str, target: str) -> RoomEvent:
    try:
        event = RoomEvent.model_validate({**value, "room_id": target, "tenant": tenant})
    except ValidationError as error:
        raise UsageError(f"event {index} of the export is not as roomkit writes it: {_short(error)}") from None
    if event.index != index:
        raise UsageError(f"the export has event {event.index} where {index} should stand; its log has a gap")
    return event


async def _put_blobs(engine: Engine, tenant: str, target: str, blobs: list[dict[str, Any]]) -> dict[str, str]:
    """Stores the files; returns what their URLs are called now."""
    names: dict[str, str] = {}
    for blob in blobs:
        try:
            data = base64.b64decode(blob["data"], validate=True)
            old, mime_type, filename = str(blob["id"]), str(blob["mime_type"]), blob["filename"]
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise UsageError("a file in the export is not as roomkit writes it; export the room again") from None
        if engine.blobs is not None:
            info = await engine.blobs().put(tenant, _once(data), mime_type=mime_type, filename=filename, room_id=target)
            names[f"blob:{old}"] = f"blob:{info.id}"
    return names


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _wrong(number: int, what: str) -> UsageError:
    return UsageError(f"line {number} of the export cannot be read: {what}; export the room again")


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
