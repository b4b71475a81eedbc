"""Erasing a person (D21): tombstones over what they wrote, in every room of a tenant; ids and indexes stay.

Who it is stays as a pseudonym per room. What others wrote stays as it is, also where it quotes. Doing it again
finishes what a crash has cut: the people are forgotten last.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from roomkit.core.actor import SYSTEM, Change, Entry, RoomActor
from roomkit.core.audit import forget_salts
from roomkit.core.consumers import DEAD
from roomkit.core.copying import blobs_in
from roomkit.core.digests import without_lines
from roomkit.core.identity import MERGED
from roomkit.core.inbox import KIND as INBOX
from roomkit.core.inbox import REFUSED
from roomkit.core.ledger import VALUE
from roomkit.core.state import ROOM, all_of, key, participant_record
from roomkit.errors import Elsewhere
from roomkit.models.addresses import PHONE, normal
from roomkit.models.content import Frozen, SystemContent, TextContent, ToolCallContent
from roomkit.models.event import EventDraft, EventType, RoomEvent
from roomkit.models.hooks import PersonErased
from roomkit.models.room import ChannelBinding, ChannelType, Identity, Membership, Participant, person_token
from roomkit.ports.store import Batch, EventQuery, Record, RecordKey

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

PAGE = 500
ERASING = "erasing"
"""A row per room that changes when an erasure begins in it and when it ends: an export under way sees it."""
TOLD_AT_ONCE = 500
"""So many ids stand in one record of what was erased."""
DROPPED = ("outbox", "held", "turn", "dead")
SCRUBBED = ("mutation", "delivery", "draft", "approval", "task", "observation", "journal", "stream", "words", "timer")


class Erasure(Frozen):
    """The receipt: what was erased, without saying whom. `rooms` maps the rooms to the number of events in each."""

    id: str
    tenant: str
    at: datetime
    rooms: dict[str, int] = {}
    events: int = 0
    records: int = 0
    blobs: int = 0
    identities: int = 0


@dataclass(slots=True)
class Person:
    """What somebody is known by: ids (of participants and of identities) and addresses."""

    ids: set[str]
    addresses: set[str]
    rooms: set[str] = field(default_factory=set[str])
    names: set[str] = field(default_factory=set[str])
    identities: list[Identity] = field(default_factory=list[Identity])

    def wrote(self, event: RoomEvent) -> bool:
        source = event.source
        return source.participant_id in self.ids or source.external_id in self.addresses


@dataclass(frozen=True, slots=True)
class _Log:
    """The rows of one room, or of what did not become one."""

    engine: Engine
    tenant: str
    room_id: str
    epoch: int
    size: int


EraseIn = Callable[[str, list[str], list[str]], Awaitable[dict[str, int]]]


async def erase_person(engine: Engine, tenant: str, who: str, erase_in: EraseIn) -> Erasure:
    """Erases whoever has this participant id, identity id or address. `erase_in` does it in one room."""
    person = await find_person(engine, tenant, who)
    totals = {"events": 0, "records": await _scrub_tenant(engine, tenant, person), "blobs": 0}
    rooms: dict[str, int] = {}
    while left := sorted(person.rooms - rooms.keys()):
        for room_id in left:
            done = await erase_in(room_id, sorted(person.ids), sorted(person.addresses))
            rooms[room_id] = done["events"]
            for name in totals:
                totals[name] += done[name]
        person.rooms |= (await find_person(engine, tenant, who)).rooms  # A fork may have been made meanwhile.
    names = person.ids | person.addresses
    for channel in tuple(engine.channels.values()):
        for keeper in getattr(channel, "keepers", ()):  # recordings of calls
            totals["blobs"] += await keeper.erase_person(tenant, names)
    totals["records"] += await _scrub_cut(engine, tenant, person)
    totals["records"] += await _scrub_tenant(engine, tenant, person)  # what was put there meanwhile
    receipt = Erasure(
        id=engine.new_id(), tenant=tenant, at=engine.now(), rooms=rooms, identities=len(person.identities), **totals
    )
    gone = tuple(RecordKey("identity", tenant, identity.id) for identity in person.identities)
    kept = Record("erasure", tenant, receipt.id, receipt.model_dump(mode="json"))
    await engine.store.commit(Batch(tenant, engine.epoch, put=(kept,), delete=gone))
    scrub: Callable[[], Awaitable[None]] | None = getattr(engine.store, "scrub", None)
    if scrub is not None:
        await scrub()
    return receipt


async def find_person(engine: Engine, tenant: str, who: str) -> Person:
    """Looks through all identities, participants and seats: it is done seldom, and must miss nobody. However an address
    is written, it is the same."""
    people = await all_of(engine.store, "participant", tenant)
    identities = [Identity.model_validate(r.value) for r in await all_of(engine.store, "identity", tenant)]
    person = Person({who}, _spellings(engine, who, identities, people))
    for one in identities:
        if one.id == who or any(not person.addresses.isdisjoint(addresses) for addresses in one.addresses.values()):
            person.identities.append(one)
    if len(person.identities) > 1:  # An address that several people share tells only of what came from it.
        person.identities = []
    person.ids.update(one.id for one in person.identities)
    listed = {a for one in person.identities for addresses in one.addresses.values() for a in addresses}
    shared = {a for one in identities if one not in person.identities for b in one.addresses.values() for a in b}
    person.addresses |= listed - shared
    seats = await all_of(engine.store, "binding", tenant)
    known = -1
    while known != (known := len(person.ids) + len(person.addresses)):
        for record in people:
            value, address = record.value, record.value.get("address")
            same = _same(engine, value["channel_id"], address)
            theirs = not person.addresses.isdisjoint((address, same))
            if value["id"] in person.ids or value.get("identity_id") in person.ids or theirs:
                person.rooms.add(record.room_id or "")
                person.ids.add(value["id"])
                person.names.add(value.get("display_name") or "")
                if address and shared.isdisjoint((address, same)):
                    person.addresses.update((address, same))
        for record in seats:
            address = record.value.get("metadata", {}).get("address")
            same = _same(engine, record.value["channel_id"], address)
            theirs = not person.addresses.isdisjoint((address, same))
            own = record.value.get("participant_id") in person.ids  # their way alone, whatever it is called
            if theirs or own:
                person.rooms.add(record.room_id or "")
            if theirs or (own and address and shared.isdisjoint((address, same))):
                person.addresses.update((address, same))
    return person


def _spellings(engine: Engine, who: str, identities: list[Identity], people: list[Record]) -> set[str]:
    """`who`, also as numbers and mail addresses are kept. Bare digits that are somebody's id as they stand are no
    number."""
    if who.isdigit() and not who.startswith("0"):
        known = {a for one in identities for addresses in one.addresses.values() for a in addresses}
        known.update(one.id for one in identities)
        known.update(r.value.get(name) or "" for r in people for name in ("id", "identity_id", "address"))
        if who in known:
            return {who}
    return {who, normal(ChannelType.EMAIL, who), normal(PHONE, who, engine.options.phone_region)}


def _same(engine: Engine, channel_id: str, address: Any) -> Any:
    """The address as the ledger and the address book have it; as it stands where the channel is not known."""
    channel = engine.channels.get(channel_id)
    if channel is None or not isinstance(address, str):
        return address
    return normal(channel.channel_type, address, engine.options.phone_region)


async def _scrub_tenant(engine: Engine, tenant: str, person: Person) -> int:
    """Rows of no room's own: what the host has enqueued in the person's name goes, also where it was refused; what a
    consumer's error told of their events is emptied, and of others' loses who it was."""
    scrub = Scrub(person, {}, person.names - {""})
    gone: list[RecordKey] = []
    put: list[Record] = []
    for kind in (INBOX, REFUSED):
        for record in await all_of(engine.store, kind, tenant):
            if record.value.get("by") in person.ids or record.value.get("by") in person.addresses:
                gone.append(RecordKey(kind, tenant, record.key))
            elif kind == REFUSED and (new := scrub.value(record.value)) != record.value:
                put.append(record._replace(value=new))
    for record in await all_of(engine.store, DEAD, tenant):
        room_id, index = record.value["room_id"], record.value["index"]
        found = await engine.store.events(EventQuery(tenant, room_id, start=index, stop=index + 1, limit=1))
        theirs = not found or found[0].metadata.get("erased") or person.wrote(found[0])
        told = "erased" if theirs else scrub.text(record.value["told"])
        if told != record.value["told"]:
            put.append(record._replace(value={**record.value, "told": told}))
    # What a channel remembers of a conversation has its address at the end of its name.
    kept = {
        one.key: one.key.rpartition("\n")[2].rpartition(" ")[2] for one in await all_of(engine.store, VALUE, tenant)
    }
    gone += [RecordKey(VALUE, tenant, name) for name, address in kept.items() if address in person.addresses]
    from roomkit.core import consent

    lines, over = await consent.erase(engine, tenant, person)
    put, gone = put + lines, gone + over
    merges = await all_of(engine.store, MERGED, tenant)
    gone += [RecordKey(MERGED, tenant, m.key) for m in merges if person.ids & {m.key, m.value["into"]}]
    for first in range(0, max(len(put), len(gone)), PAGE):
        kept, left = tuple(put[first : first + PAGE]), tuple(gone[first : first + PAGE])
        await engine.store.commit(Batch(tenant, engine.epoch, put=kept, delete=left))
    return len(put) + len(gone)


def erasing(actor: RoomActor) -> Record:
    return Record(ERASING, actor.tenant, actor.room_id, {"mark": actor.engine.new_id()}, actor.room_id)


async def erase_in_room(actor: RoomActor, ids: list[str], addresses: list[str]) -> dict[str, int]:
    """In the actor: the log says so first, then the records, the events, and the person's own at the end."""
    person, engine = Person(set(ids), set(addresses)), actor.engine
    engine.count("erasures")
    await engine.store.commit(Batch(actor.tenant, actor.epoch, actor.room_id, put=(erasing(actor),)))
    pseudonyms = {one: f"erased-{secrets.token_hex(6)}" for one in ids if one in actor.state.participants}
    scrub = Scrub(person, pseudonyms, {p.display_name for p in _people(actor, person) if p.display_name})
    log = _Log(engine, actor.tenant, actor.room_id, actor.epoch, actor.state.next_index)
    graves, replies, blobs = await _graves(log, scrub)
    erased = {grave.id: grave.index for grave in graves if grave.metadata.get("erased")}
    await _announce(actor, graves)
    await forget_salts(actor, graves)
    counts = {"events": len(erased), "blobs": 0, "records": await _scrub_records(log, scrub, erased, replies)}
    counts["blobs"] = await _delete_files(log, blobs)  # Before what names them is written over.
    await _write_over(log, graves)
    engine.lanes.drop_events(actor, erased)
    engine.turns.drop_events(actor, erased)
    await _forget(actor, scrub)
    engine.hooks.tell(PersonErased(actor.tenant, actor.room_id, tuple(sorted(erased))))
    return counts


class Scrub:
    """Takes somebody's ids, addresses and names out of what stays."""

    def __init__(self, person: Person, pseudonyms: dict[str, str], names: Iterable[str]) -> None:
        self.person = person
        self.pseudonyms = pseudonyms
        self.names = frozenset(names)
        self.causes: dict[str, tuple[str, ...]] = {}
        """For each approval the events that it was asked about."""
        self._tokens = {person_token(one): person_token(pseudonyms.get(one, "erased")) for one in person.ids}
        self._inside = sorted({one for one in (*person.addresses, *person.ids) if len(one) > 4}, key=len, reverse=True)

    def text(self, text: str) -> str:
        if "person:" in text:  # a visibility, or what was made of one: the id stands in it as it may be
            text = ",".join(self._tokens.get(name.strip(), name) for name in text.split(","))
        if text in self.person.ids or text in self.person.addresses:
            return self.pseudonyms.get(text, "erased")
        if text in self.names:
            return "erased"
        for one in self._inside:
            if one in text:
                text = text.replace(one, self.pseudonyms.get(one, "erased"))
        return text

    def value(self, value: Any) -> Any:
        """What stands under "content" is somebody's own words."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            table = cast("dict[str, Any]", value)
            return {self.text(name): inner if name == "content" else self.value(inner) for name, inner in table.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in cast("list[Any]", value)]
        return value

    def grave(self, event: RoomEvent) -> RoomEvent:
        """What stays of an event of the person's own."""
        source = event.source.replaced(
            participant_id=self.pseudonyms.get(event.source.participant_id or "", "erased"),
            external_id=None,
            provider_message_id=None,
            raw_payload=None,
        )
        return event.replaced(
            source=source,
            content=SystemContent(code="deleted", data={"reason": "erased"}),
            metadata={"deleted": True, "erased": True},
            channel_data={},
            visibility=self.text(event.visibility),
            blocked_reason=None,
            idempotency_key=None,
        )

    def beside(self, event: RoomEvent, wrote: set[str]) -> RoomEvent:
        """An event of others: what they said stays, what the framework notes of the person does not. `wrote` has the
        ids of the person's events and calls."""
        content, metadata = event.content, event.metadata
        if isinstance(content, SystemContent):
            data = self.value(content.data)
            if "arguments" in data and not wrote.isdisjoint(self.causes.get(data.get("id", ""), ())):
                data["arguments"] = {}
            if data != content.data:
                content = content.replaced(data=data, message="")
        elif isinstance(content, TextContent) and event.source.channel_id == SYSTEM.channel_id and "digest" in metadata:
            content = without_lines(content, metadata["digest"], wrote)
        elif isinstance(content, ToolCallContent):
            caused_by = (metadata.get("cause"), event.correlation_id, metadata.get("voice_session_id"))
            if not wrote.isdisjoint(caused_by):
                content = content.replaced(result=None, error=None, arguments={})
        source = event.source
        known = {name: getattr(source, name) for name in ("participant_id", "external_id")}
        scrubbed = {name: self.text(one) if one else one for name, one in known.items()}
        visibility = self.text(event.visibility)
        if (to := metadata.get("whisper")) and self.text(to) != to:
            event = event.replaced(metadata={**metadata, "whisper": self.text(to)})
        if content is event.content and scrubbed == known and visibility == event.visibility:
            return event
        return event.replaced(content=content, visibility=visibility, source=source.replaced(**scrubbed))


def _people(actor: RoomActor, person: Person) -> list[Participant]:
    return [actor.state.participants[one] for one in person.ids if one in actor.state.participants]


async def _graves(log: _Log, scrub: Scrub) -> tuple[list[RoomEvent], set[str], list[str]]:
    """The events to be written over; the replies that answered the person; the files that nobody else named."""
    wrote: set[str] = set()
    replies: set[str] = set()
    for asked in await all_of(log.engine.store, "approval", log.tenant, log.room_id):
        scrub.causes[asked.value["id"]] = tuple(asked.value.get("causes", ()))
    changed: list[RoomEvent] = []
    mine: dict[str, None] = {}
    others: set[str] = set()
    for start in range(0, log.size, PAGE):
        query = EventQuery(log.tenant, log.room_id, start=start, limit=PAGE)
        for event in await log.engine.store.events(query):
            found = blobs_in(json.dumps(event.model_dump(mode="json", include={"content", "metadata", "source"})))
            if scrub.person.wrote(event):
                wrote.update((event.id, event.metadata.get("voice_session_id", event.id)))
                mine.update(dict.fromkeys(found))
                new = scrub.grave(event)
            else:
                if event.metadata.get("erased"):  # perhaps by an attempt at this that a crash has cut
                    wrote.add(event.id)
                others.update(found)
                if event.metadata.get("cause") in wrote and event.correlation_id:
                    replies.add(event.correlation_id)
                new = scrub.beside(event, wrote)
            if new != event:
                changed.append(new)
    return changed, replies, [blob for blob in mine if blob not in others]


async def _delete_files(log: _Log, blob_ids: list[str]) -> int:
    engine, count = log.engine, 0
    if engine.blobs is not None:
        for blob_id in blob_ids:
            info = await engine.blobs().info(log.tenant, blob_id)
            if info is not None and info.room_id in (None, log.room_id):
                count += await engine.blobs().delete(log.tenant, blob_id)
    return count


async def _write_over(log: _Log, graves: list[RoomEvent]) -> None:
    for first in range(0, len(graves), PAGE):
        page = tuple(graves[first : first + PAGE])
        await log.engine.store.commit(Batch(log.tenant, log.epoch, log.room_id, erase=page))


async def _scrub_cut(engine: Engine, tenant: str, person: Person) -> int:
    """Copies that a crash has cut before they became rooms: in none of them anybody has a seat."""
    rooms = {one.key for one in await all_of(engine.store, ROOM, tenant)}
    count = 0
    for head in await all_of(engine.store, "head", tenant):
        if head.key in rooms:
            continue
        if engine.nodes is None:
            count += await _scrub_log(_Log(engine, tenant, head.key, engine.epoch, head.value["next_index"]), person)
            continue
        with contextlib.suppress(Elsewhere):  # somebody makes a room of it right now
            epoch = await engine.nodes.acquire(tenant, head.key)
            count += await _scrub_log(_Log(engine, tenant, head.key, epoch, head.value["next_index"]), person)
            await engine.nodes.held.release([(tenant, head.key)])
    return count


async def _scrub_log(log: _Log, person: Person) -> int:
    scrub = Scrub(person, {}, ())
    graves, replies, blobs = await _graves(log, scrub)
    erased = {grave.id: grave.index for grave in graves if grave.metadata.get("erased")}
    count = await _scrub_records(log, scrub, erased, replies)
    await _delete_files(log, blobs)
    await _write_over(log, graves)
    return count + len(graves)


async def _scrub_records(log: _Log, scrub: Scrub, erased: dict[str, int], replies: set[str]) -> int:
    """Rows beside the log: those about an erased event are emptied or dropped, the others lose only who it was."""
    put: list[Record] = []
    gone: list[RecordKey] = []
    places = set(erased.values())
    for kind in (*DROPPED, *SCRUBBED):
        for record in await all_of(log.engine.store, kind, log.tenant, log.room_id):
            value = record.value
            about = not erased.keys().isdisjoint((value.get("event_id"), value.get("id"), *value.get("causes", ())))
            about = (
                about
                or value.get("reply") in replies
                or (kind == "mutation" and "of" not in value and value["index"] in places)
            )
            if about and kind in DROPPED:
                gone.append(RecordKey(kind, record.tenant, record.key))
            new = scrub.value(_emptied(kind, value) if about else value)
            terms = tuple(scrub.text(term) for term in record.terms)
            if kind not in DROPPED and (new != value or terms != record.terms):
                put.append(record._replace(value=new, terms=terms))
    for first in range(0, max(len(put), len(gone)), PAGE):
        kept, left = tuple(put[first : first + PAGE]), tuple(gone[first : first + PAGE])
        await log.engine.store.commit(Batch(log.tenant, log.epoch, log.room_id, put=kept, delete=left))
    return len(put) + len(gone)


def _emptied(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    match kind:
        case "mutation":
            return {"index": value["index"]}
        case "draft":
            return {**value, "content": {"type": "text", "text": ""}, "status": "erased"}
        case "task":
            return {**value, "title": "erased", "description": "", "metadata": {}}
        case "observation":
            return {**value, "content": "", "metadata": {}}
        case "approval":
            return {**value, "arguments": {}, "erased": True}
        case "journal":
            return {**value, "arguments": {}, "result": None, "error": None}
        case "delivery":
            return {name: inner for name, inner in value.items() if name not in ("reason", "parts", "part_states")}
        case _:
            return value


async def _announce(actor: RoomActor, graves: list[RoomEvent]) -> None:
    """The log says first what is going to be written over, so that nothing ever is without its saying so; and who looks
    on takes it off the screen."""
    change = Change(activity=False)
    for ids, data_name, visibility in _told(graves):
        for first in range(0, len(ids), TOLD_AT_ONCE):
            content = SystemContent(code="person_erased", data={data_name: ids[first : first + TOLD_AT_ONCE]})
            draft = EventDraft(source=SYSTEM, content=content, type=EventType.SYSTEM, visibility=visibility)
            change.add(Entry(draft, targets=()))
    if change.entries:
        await actor.commit(change)


async def _forget(actor: RoomActor, scrub: Scrub) -> None:
    """The person's seats and their record become nobody's."""
    state, change = actor.state, Change(activity=False)
    change.put.append(erasing(actor))
    for person in _people(actor, scrub.person):
        change.delete.append(RecordKey("participant", actor.tenant, key(actor.room_id, person.id)))
        change.put.append(participant_record(_nobody(person, scrub.pseudonyms[person.id])))
    for binding in state.seats:
        if (new := _seat(binding, scrub)) is not binding:
            change.bindings[binding.channel_id] = new
    room = state.room
    attention = room.attention
    if attention is not None and attention.requested_by in scrub.person.ids:
        attention = attention.replaced(requested_by="erased", reason="erased")
    floor = room.floor.replaced(holder=scrub.text(room.floor.holder)) if room.floor.holder else room.floor
    change.room = room.replaced(metadata=scrub.value(room.metadata), floor=floor, attention=attention)
    before = dict(state.participants)
    for person in _people(actor, scrub.person):
        del state.participants[person.id]
        state.participants[scrub.pseudonyms[person.id]] = _nobody(person, scrub.pseudonyms[person.id])
    state.forget_views()
    try:
        await actor.commit(change)
    except BaseException:
        state.participants.clear()
        state.participants.update(before)
        state.forget_views()
        raise


def _told(graves: list[RoomEvent]) -> list[tuple[list[str], str, str]]:
    """What the log says of the erasure: to everybody of what everybody saw, to staff of the rest."""
    erased = [grave for grave in graves if grave.metadata.get("erased")]
    public = sorted(grave.id for grave in erased if grave.visibility == "all")
    inner = sorted(grave.id for grave in erased if grave.visibility != "all")
    beside = sorted(grave.id for grave in graves if not grave.metadata.get("erased"))
    return [(public, "event_ids", "all"), (inner, "event_ids", "internal"), (beside, "scrubbed", "internal")]


def _nobody(person: Participant, pseudonym: str) -> Participant:
    """The place in the room that somebody had."""
    return Participant(
        id=pseudonym,
        room_id=person.room_id,
        tenant=person.tenant,
        channel_id=person.channel_id,
        role=person.role,
        status=Membership.LEFT if person.status is not Membership.BANNED else person.status,
        joined_at=person.joined_at,
    )


def _seat(binding: ChannelBinding, scrub: Scrub) -> ChannelBinding | None:
    """None for a seat that reaches the person alone."""
    if binding.metadata.get("address") in scrub.person.addresses:
        return None
    if binding.participant_id in scrub.person.ids:
        binding = binding.replaced(participant_id=None, metadata=scrub.value(binding.metadata))
    visibility = scrub.text(binding.visibility)
    return binding if visibility == binding.visibility else binding.replaced(visibility=visibility)
