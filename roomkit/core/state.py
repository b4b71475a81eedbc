"""RoomState: one room as its actor holds it in memory, and its form in the store.

Rooms, bindings and participants are stored with their defaults left out, so that an idle room is small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from roomkit.models.content import Frozen
from roomkit.models.room import ChannelBinding, ChannelCapabilities, Participant, Role, Room
from roomkit.ports.store import EventQuery, ModelRecord, Record, RecordQuery, Store, model_of

ROOM, BINDING, PARTICIPANT = "room", "binding", "participant"
SEP = "\n"
_UNKNOWN = ChannelCapabilities()
"""What a channel can that is not there."""


@dataclass(slots=True)
class RoomState:
    """Everything the actor needs to decide. Values are frozen; the state swaps them after a commit."""

    room: Room
    bindings: dict[str, ChannelBinding] = field(default_factory=lambda: {})
    participants: dict[str, Participant] = field(default_factory=lambda: {})
    next_index: int = 0
    last_activity: datetime | None = None
    detached: frozenset[str] = frozenset()
    _seats: tuple[ChannelBinding, ...] | None = None
    _people: tuple[Participant, ...] | None = None
    _humans: int | None = None
    _holders: frozenset[str | None] | None = None

    @property
    def seats(self) -> tuple[ChannelBinding, ...]:
        if self._seats is None:
            self._seats = tuple(self.bindings.values())
        return self._seats

    @property
    def people(self) -> tuple[Participant, ...]:
        if self._people is None:
            self._people = tuple(self.participants.values())
        return self._people

    @property
    def humans(self) -> int:
        if self._humans is None:
            self._humans = sum(1 for person in self.participants.values() if person.role is not Role.BOT)
        return self._humans

    @property
    def holders(self) -> frozenset[str | None]:
        """Who has a seat of their own, where what they write is not sent to."""
        if self._holders is None:
            self._holders = frozenset({seat.participant_id for seat in self.bindings.values()} - {None})
        return self._holders

    def forget_views(self) -> None:
        """Bindings or participants are about to change."""
        self._seats = self._people = self._humans = self._holders = None

    def snapshot(self) -> Room:
        """The room with its live head filled in."""
        # Whoever gets it may write into its metadata.
        own = {"metadata": deepcopy(self.room.metadata)} if self.room.metadata else {}
        return self.room.replaced(latest_index=self.next_index - 1, last_activity_at=self.last_activity, **own)


def room_record(room: Room, bindings: Iterable[ChannelBinding], participants: Iterable[Participant]) -> Record:
    """The room with the terms by which a list or a search finds it."""
    terms = {*_common(room.status, room.floor.mode, tuple((one.channel_id, one.channel_type) for one in bindings))}
    if room.external_id is not None:
        terms.add(f"external:{room.external_id}")
    if room.waiting_since is not None:
        terms.add("attention:waiting")
    terms.update(f"meta:{k}={v}" for k, v in room.metadata.items() if isinstance(v, (str, int)))
    for person in participants:
        terms.add(f"person:{person.identity_id or person.id}")
        if person.address:
            terms.add(f"address:{person.address}")
        terms.update(f"name:{word}" for word in (person.display_name or "").casefold().split())
    return _record(ROOM, room.tenant, room.id, room, None, tuple(sorted(terms)))


@lru_cache(maxsize=256)
def _common(status: str, floor: str, seats: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """The terms that many rooms share, made once."""
    told = (term for channel, kind in seats for term in (f"channel:{channel}", f"type:{kind}"))
    return frozenset((f"status:{status}", f"floor:{floor}", *told))


@lru_cache(maxsize=256)
def _seated(channel_id: str) -> tuple[str]:
    return (f"in:{channel_id}",)


def _record(kind: str, tenant: str, key: str, model: Frozen, room_id: str | None, terms: tuple[str, ...]) -> Record:
    held: Any = model
    return ModelRecord(kind, tenant, key, held, room_id, None, terms)


def binding_record(binding: ChannelBinding) -> Record:
    address = binding.metadata.get("address")
    terms = (f"from:{binding.channel_id}:{address}",) if address else _seated(binding.channel_id)
    name = key(binding.room_id, binding.channel_id)
    return _record(BINDING, binding.tenant, name, binding, binding.room_id, terms)


def participant_record(person: Participant) -> Record:
    terms = (f"identity:{person.identity_id}",) if person.identity_id else ()
    return _record(PARTICIPANT, person.tenant, key(person.room_id, person.id), person, person.room_id, terms)


def event_key(room_id: str, index: int, channel_id: str) -> str:
    """`key()` for the commonest shape."""
    return f"{room_id}\n{index:010d}\n{channel_id}"


def turn_key(room_id: str, channel_id: str, index: int) -> str:
    """`key()` for a question to a brain."""
    return f"{room_id}\n{channel_id}\n{index:010d}"


def key(*parts: str | int) -> str:
    """A record key; numbers are padded so that keys sort as their numbers do."""
    return SEP.join(f"{part:010d}" if isinstance(part, int) else part for part in parts)


def room_of(value: dict[str, Any]) -> Room:
    return Room.model_validate(value)


LOADED = (ROOM, BINDING, PARTICIPANT, "head", "detached")
"""Kinds of the records that a room's state is made of."""


async def load(
    store: Store, tenant: str, room_id: str, capabilities: dict[str, ChannelCapabilities]
) -> RoomState | None:
    """Reads a room back; None when there is no such room in this tenant."""
    found = await store.records(RecordQuery(ROOM, tenant, key=room_id))
    if not found:
        return None
    records = {ROOM: found, "head": await store.records(RecordQuery("head", tenant, key=room_id))}
    for kind in (BINDING, PARTICIPANT, "detached"):
        records[kind] = await all_of(store, kind, tenant, room_id)
    return state_of(records, capabilities)


def state_of(records: Mapping[str, Sequence[Record]], capabilities: dict[str, ChannelCapabilities]) -> RoomState | None:
    """The state that a room's records, by kind, make; None without a room."""
    if not records.get(ROOM):
        return None
    state = RoomState(model_of(Room, records[ROOM][0]))
    for record in records.get(BINDING, ()):
        binding = model_of(ChannelBinding, record)
        caps = capabilities.get(binding.channel_id, _UNKNOWN)
        same = binding.capabilities is caps
        state.bindings[binding.channel_id] = binding if same else binding.replaced(capabilities=caps)
    for record in records.get(PARTICIPANT, ()):
        person = model_of(Participant, record)
        state.participants[person.id] = person
    for head in records.get("head", ()):
        state.next_index = head.value["next_index"]
        stamp = head.value["last_activity"]
        state.last_activity = datetime.fromtimestamp(stamp, UTC) if stamp is not None else None
    state.detached = frozenset(record.value["channel_id"] for record in records.get("detached", ()))
    return state


async def all_of(store: Store, kind: str, tenant: str, room_id: str | None = None) -> list[Record]:
    """Every record of a kind: of one room, or of all the tenant's."""
    found: list[Record] = []
    after: str | None = None
    while True:
        page = await store.records(RecordQuery(kind, tenant, room_id=room_id, after=after, limit=500))
        found += page
        if len(page) < 500:
            return found
        after = page[-1].key


async def event_by_id(store: Store, tenant: str, room_id: str, event_id: str) -> Any:
    """The event with this id, if it is one of this room's."""
    found = await store.events(EventQuery(tenant, room_id, ids=(event_id,), limit=1))
    return found[0] if found and found[0].room_id == room_id else None
