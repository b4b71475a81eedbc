"""The audit chain: what shows that a row of a log was altered or deleted behind the back of roomkit.

A sealer comes by behind the commits and seals what is new in each room: one leaf per event, a hash of its content under
a salt of its own, and over the leaves a chain in which every hash contains the one before. Erasing a person forgets
the salts of what was written over: the chain goes on to hold, the leaf tells nothing any more, the seal says as what
each event was left, under the key like all of it, and the record of the erasure, itself in the chain, which they are.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from typing import TYPE_CHECKING, Any

from roomkit.core.copying import marks
from roomkit.core.state import key
from roomkit.errors import RoomKitError, RoomNotFound
from roomkit.models.content import Frozen, SystemContent
from roomkit.models.event import EventType, RoomEvent
from roomkit.ports.store import Batch, EventQuery, Record, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine

KIND = "seal"
FORM = 1
"""How an event becomes bytes. Fields that are None are left out: a new one with that default needs no new form."""
PAGE = 256


class Audit(Frozen):
    """What the chain of one room says. `index` is the first event that is not as it was sealed, and `problem` what is
    wrong with it. `head` is the chain's last hash, over events 0 to `sealed` - 1: written down elsewhere, it also shows
    when a log was replaced as a whole. `unsealed` events at the end are not covered yet. `signed` is false where
    there was no key to check the seals with."""

    room_id: str
    sealed: int
    unsealed: int
    head: str
    erased: int = 0
    signed: bool = False
    index: int | None = None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


def _erased_by(event: RoomEvent) -> list[str]:
    """The events that this one says were written over."""
    content = event.content
    if event.type is not EventType.SYSTEM or not isinstance(content, SystemContent) or content.code != "person_erased":
        return []
    return [*content.data.get("event_ids", ()), *content.data.get("scrubbed", ())]


# -- sealing ----------------------------------------------------------------------------------------------------------


class Sealer:
    """Seals the rooms in memory every few seconds, each within the room, when it has nothing else to do."""

    def __init__(self, engine: Engine, every_s: float) -> None:
        self._engine = engine
        self._every_s = every_s
        self._sealed: dict[tuple[str, str], tuple[int, str]] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self.seal_all()

    async def seal_all(self) -> None:
        """What cannot be sealed now is sealed the next time."""
        actors = self._engine.table.actors()
        for gone in self._sealed.keys() - {(actor.tenant, actor.room_id) for actor in actors}:
            del self._sealed[gone]
        for actor in actors:
            known = self._sealed.get((actor.tenant, actor.room_id))
            if actor.depth or actor.retired or (known is not None and known[0] >= actor.state.next_index):
                continue
            try:
                self._sealed[actor.tenant, actor.room_id] = await actor.call(seal_room, known)
            except RoomKitError as error:
                self._sealed.pop((actor.tenant, actor.room_id), None)
                self._engine.count("seal_errors")
                self._engine.warn(actor, f"could not be sealed: {error}")


async def seal_room(actor: RoomActor, known: tuple[int, str] | None) -> tuple[int, str]:
    """In the actor. `known` is where the chain ended; an erasure may have sealed more since."""
    engine, tenant, room_id = actor.engine, actor.tenant, actor.room_id
    if known and await engine.store.records(RecordQuery(KIND, tenant, key=key(room_id, known[0]))):
        known = None
    done, head = known or await _last(actor)
    while done < actor.state.next_index:
        events = await engine.store.events(EventQuery(tenant, room_id, start=done, limit=PAGE))
        salts = [secrets.token_hex(16) for _ in events]
        leaves = [leaf(event, salt) for event, salt in zip(events, salts, strict=True)]
        before, head = head, chained(head, leaves)
        value = {"form": FORM, "first": done, "leaves": leaves, "salts": salts, "before": before, "head": head}
        row = Record(KIND, tenant, key(room_id, done), _signed(engine, value), room_id)
        await engine.store.commit(Batch(tenant, actor.epoch, room_id, put=(row,)))
        engine.count("sealed", len(events))
        done += len(events)
    return done, head


async def _last(actor: RoomActor) -> tuple[int, str]:
    done, head = 0, _origin(actor.tenant, actor.room_id)
    async for seal in _seals(actor.engine, actor.tenant, actor.room_id):
        done, head = seal.value["first"] + len(seal.value["leaves"]), seal.value["head"]
    return done, head


def leaf(event: RoomEvent, salt: str) -> str:
    value = event.model_dump(mode="json", exclude_none=True, exclude={"tenant", "room_id"})
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.digest(bytes.fromhex(salt), text.encode(), "sha256").hex()


def chained(head: str, leaves: Sequence[str]) -> str:
    for one in leaves:
        head = hashlib.sha256(bytes.fromhex(head) + bytes.fromhex(one)).hexdigest()
    return head


def signature(audit_key: str, value: dict[str, Any]) -> str:
    """Over all of a seal that can change a report, the salts and what was written over included."""
    told = [value.get(name) for name in ("form", "first", "head", "salts", "graves")]
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hmac.digest(b"roomkit audit " + audit_key.encode(), text.encode(), "sha256").hex()


def _signed(engine: Engine, value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "mac": signature(engine.audit_key, value)} if engine.audit_key else value


def _origin(tenant: str, room_id: str) -> str:
    return hashlib.sha256(f"roomkit\n{tenant}\n{room_id}".encode()).hexdigest()


async def _seals(engine: Engine, tenant: str, room_id: str) -> AsyncIterator[Record]:
    after: str | None = None
    while True:
        page = await engine.store.records(RecordQuery(KIND, tenant, room_id=room_id, after=after, limit=50))
        for record in page:
            yield record
        if len(page) < 50:
            return
        after = page[-1].key


async def forget_salts(actor: RoomActor, graves: Collection[RoomEvent]) -> None:
    """What these events said is being written over: from now on nobody can tell a guess at it from a wrong one, and the
    seals say as what they are left. What the log says of the erasure is sealed first."""
    engine, left = actor.engine, {grave.index: grave for grave in graves}
    if left and engine.options.audit:
        await seal_room(actor, None)
    async for seal in _seals(engine, actor.tenant, actor.room_id):
        first, salts = seal.value["first"], list(seal.value["salts"])
        over: dict[str, tuple[str, str]] = dict(seal.value.get("graves", {}))
        for index in left.keys() & range(first, first + len(salts)):
            salt = secrets.token_hex(16)
            over[str(index)] = (salt, leaf(left[index], salt))
            salts[index - first] = None
        if over != seal.value.get("graves", {}):
            named = {name: list(pair) for name, pair in over.items()}
            row = seal._replace(value=_signed(engine, {**seal.value, "salts": salts, "graves": named}))
            await engine.store.commit(Batch(actor.tenant, actor.epoch, actor.room_id, put=(row,)))


# -- checking ---------------------------------------------------------------------------------------------------------


class _Wrong(Exception):
    def __init__(self, index: int, problem: str) -> None:
        self.index = index
        self.problem = problem


async def audit_room(engine: Engine, tenant: str, room_id: str, anchor: str | None) -> Audit:
    """Checks the whole chain. With `anchor`, a head that was written down, also that the log still contains it."""
    state = await engine.table.look(tenant, room_id)
    if state is None:
        raise RoomNotFound(room_id, await engine.table.ids(tenant))
    check = _Check(engine, tenant, room_id, state.next_index)
    try:
        await check.run(anchor)
    except _Wrong as wrong:
        return check.report(wrong.index, wrong.problem)
    return check.report(None, None)


class _Check:
    def __init__(self, engine: Engine, tenant: str, room_id: str, size: int) -> None:
        self._engine = engine
        self._tenant = tenant
        self._room_id = room_id
        self._size = size
        self._done = 0
        self._head = _origin(tenant, room_id)
        self._heads: set[str] = set()
        self._erased: dict[int, RoomEvent] = {}
        self._sealed_says: set[str] = set()
        self._says: set[str] = set()
        self._signed = bool(engine.audit_key)

    def report(self, index: int | None, problem: str | None) -> Audit:
        return Audit(
            room_id=self._room_id,
            sealed=self._done,
            unsealed=max(self._size - self._done, 0),
            head=self._head,
            erased=len(self._erased),
            signed=self._signed,
            index=index,
            problem=problem,
        )

    async def run(self, anchor: str | None) -> None:
        events: list[RoomEvent] = []
        async for seal in _seals(self._engine, self._tenant, self._room_id):
            events += await self._seal(seal.value)
        for start in range(self._done, self._size, PAGE):
            events += await self._events(start, min(start + PAGE, self._size))
        for index, event in self._erased.items():
            if event.id not in self._says:
                raise _Wrong(index, "it was written over, and no erasure in the log says so")
            if event.id not in self._sealed_says:
                raise _Wrong(index, "it was written over, and the erasure that says so is not sealed: not verified")
        await self._marks(events)
        if anchor is not None and anchor not in self._heads:
            raise _Wrong(0, "the chain that was written down is not this one: the log was replaced or cut short")

    async def _seal(self, value: dict[str, Any]) -> list[RoomEvent]:
        first: int = value.get("first", -1)
        leaves: list[str] = value.get("leaves", [])
        salts: list[str | None] = value.get("salts", [])
        if first != self._done or value.get("before") != self._head or len(leaves) != len(salts) or not leaves:
            raise _Wrong(self._done, "the seal over it was altered, or one before it is missing")
        head = chained(self._head, leaves)
        if head != value.get("head"):
            raise _Wrong(self._done, "the seal over it was altered")
        if self._engine.audit_key and not hmac.compare_digest(
            signature(self._engine.audit_key, value), str(value.get("mac", ""))
        ):
            raise _Wrong(self._done, "the seal over it was not made with the key of this kit")
        events = await self._events(first, first + len(leaves))
        graves: dict[str, list[str]] = value.get("graves", {})
        for event, one, salt in zip(events, leaves, salts, strict=True):
            if salt is None:
                self._erased[event.index] = event
                left = graves.get(str(event.index))
                if left is None:
                    raise _Wrong(event.index, "it was written over, and no erasure in the log says so")
                if not hmac.compare_digest(leaf(event, left[0]), left[1]):
                    told = "it is not as its erasure was to leave it: that was cut off (erase again), or it was altered"
                    raise _Wrong(event.index, told)
            elif not hmac.compare_digest(leaf(event, salt), one):
                raise _Wrong(event.index, "it was altered after it was sealed")
            self._head = chained(self._head, [one])
            self._heads.add(self._head)
            self._sealed_says.update(_erased_by(event))
        self._done = first + len(leaves)
        return events

    async def _events(self, start: int, stop: int) -> list[RoomEvent]:
        """Raises for the first one that is not there or cannot be read."""
        query = EventQuery(self._tenant, self._room_id, start=start, stop=stop, limit=stop - start)
        try:
            found = await self._engine.store.events(query)
        except (ValueError, RoomKitError):
            if stop - start == 1:
                raise _Wrong(start, "it cannot be read: it was altered") from None
            found = [event for one in range(start, stop) for event in await self._events(one, one + 1)]
        for index, event in enumerate(found, start):
            if event.index != index:
                raise _Wrong(index, "it was deleted")
            self._says.update(_erased_by(event))
        if len(found) < stop - start:
            raise _Wrong(start + len(found), "it was deleted")
        return found

    def _written_over(self, event: RoomEvent) -> bool:
        """For what is sealed the seal decides, for the rest the log."""
        if event.metadata.get("erased") or event.index in self._erased:
            return True
        return event.index >= self._done and event.id in self._says

    async def _marks(self, events: Sequence[RoomEvent]) -> None:
        """Edits, deletions and reactions are applied from rows that must follow from the log."""
        stored: dict[str, Any] = {}
        after: str | None = None
        while True:
            query = RecordQuery("mutation", self._tenant, room_id=self._room_id, after=after, limit=PAGE)
            page = await self._engine.store.records(query)
            stored.update({record.key: record.value for record in page})
            if len(page) < PAGE:
                break
            after = page[-1].key
        for record in marks(self._tenant, self._room_id, events):
            index: int = record.value["index"]
            found = stored.pop(record.key, None)
            if found != record.value and not self._written_over(events[index]):
                raise _Wrong(index, "how it reads today does not follow from the log: its mark was altered")
        for value in stored.values():
            index = value["index"]
            if not 0 <= index < len(events) or not self._written_over(events[index]):
                raise _Wrong(index, "how it reads today does not follow from the log: a mark was added")
