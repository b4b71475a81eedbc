"""What leaves the house about rooms, people and events: everything for staff, the public part for a guest (D34)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from roomkit.core.policy import visible
from roomkit.models.access import Principal
from roomkit.models.content import SystemContent
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import Category, ChannelBinding, Participant, Role, Room
from roomkit.models.stream import Ephemeral, StreamChunk, StreamStart
from roomkit.protocols.room_socket.codec import Chunk
from roomkit.protocols.room_socket.messages import OpenStream

if TYPE_CHECKING:
    from roomkit.rooms import Rooms

GUEST_METADATA = ("end_reason", "sender_name", "client_id", "edited", "deleted", "reactions")
GUEST_DATA = ("mode", "holder", "cause", "participant_id", "name", "role", "event_ids")
"""What a guest hears of a record of the room's life; reasons are for staff."""
MOST_NAMES = 1000
HOST = "host"
"""The channel of what people do through the host's own surface, such as the pages and REST of staff."""
STAFF = "staff-"
"""How the id begins that a guest knows somebody of the staff by."""
_STAFF_ROLES = (Role.AGENT, Role.OBSERVER)
_HOUSE = (*_STAFF_ROLES, Role.BOT)
LOOK_BACK = 10
"""Events among which the last words of a room are looked for."""
LAST_CHARS = 80
People = Callable[[str, str], Mapping[str, Participant]]
_ADDRESS = re.compile(r"[a-z_]+:")
_STAFF: Any = {"source": {"raw_payload"}}
_GUEST_SOURCE = {"channel_id", "channel_type", "direction", "participant_id"}
_GUEST_EVENT = {"id", "room_id", "index", "type", "status", "created_at", "content", "parent_event_id"}
_GUEST: dict[str, Any] = {**dict.fromkeys(_GUEST_EVENT, True), "source": _GUEST_SOURCE, "metadata": True}


class Views:
    """Events and people as a viewer may see them. Staff see everything but vendors' raw payloads. For guests, ids that
    hold somebody's address ("sms:+44...") and ids of staff are replaced by stable pseudonyms, `hide(room_id, id)`.
    `people(tenant, room_id)` are those of a room; guests come in by the channel `web`.

    The last few texts are kept, because one event goes to many sockets at once."""

    __slots__ = ("_chunk", "_hide", "_keep", "_names", "_people", "_texts", "_web")

    def __init__(self, hide: Callable[[str, str], str], people: People, web: str, keep: int = 64) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._hide = hide
        self._people = people
        self._web = web
        self._keep = keep
        self._chunk: tuple[StreamChunk, Chunk] | None = None
        self._texts: dict[tuple[int, bool], tuple[RoomEvent, str]] = {}

    def text(self, event: RoomEvent, *, staff: bool) -> str:
        """An event as JSON text."""
        key = (id(event), staff)
        found = self._texts.get(key)
        if found is not None:
            return found[1]
        text = event.model_dump_json(exclude=_STAFF) if staff else self._public(event).model_dump_json(include=_GUEST)
        while len(self._texts) >= self._keep:
            del self._texts[next(iter(self._texts))]
        # The event is kept beside its text: while it lives, nothing else can have its id().
        self._texts[key] = (event, text)
        return text

    def event(self, event: RoomEvent, *, staff: bool, raw: bool = False) -> dict[str, Any]:
        """An event as an object; `raw` adds the vendor's payload for staff."""
        if staff:
            return event.model_dump(mode="json", exclude=None if raw else _STAFF)
        return self._public(event).model_dump(mode="json", include=_GUEST)

    def chunk(self, message: StreamChunk) -> Chunk:
        """A delta on its way out; the same object for everybody who hears it."""
        last = self._chunk
        if last is not None and last[0] is message:
            return last[1]
        made = Chunk(message.room_id, message.stream_id, message.offset, message.delta)
        self._chunk = (message, made)
        return made

    def participant(self, person: Participant, *, staff: bool) -> dict[str, Any]:
        if staff:
            return person.model_dump(mode="json")
        return {
            "id": (self._alias if person.role in _STAFF_ROLES else self._unaddressed)(person.room_id, person.id),
            "display_name": person.display_name,
            "role": person.role.value,
            "status": person.status.value,
        }

    def principal(self, principal: Principal) -> dict[str, Any]:
        own = principal.id if principal.sees_internal else self._unaddressed(principal.room_id or "", principal.id)
        return {
            "id": own,
            "role": principal.role.value,
            "display_name": principal.display_name,
            "room_id": principal.room_id,
        }

    def room(self, room: Room, *, staff: bool) -> dict[str, Any]:
        holder = self._staff_name(room.tenant, room.id, room.floor.holder)
        asked = any(visible(one.visibility, self._web, Category.TRANSPORT) for one in room.approvals)
        return room_view(room, staff=staff, holder=holder, asked=asked)

    def remember(self, principal: Principal) -> None:
        """Keeps the name that somebody of the staff goes by, for guests to be told who answers."""
        if principal.display_name and principal.sees_internal:
            while len(self._names) >= MOST_NAMES:
                del self._names[next(iter(self._names))]
            self._names[principal.tenant, principal.id] = principal.display_name

    def _staff_name(self, tenant: str, room_id: str, who: object) -> str | None:
        if not isinstance(who, str):
            return None
        person = self._people(tenant, room_id).get(who)
        return self._names.get((tenant, who)) or (person.display_name if person is not None else None)

    def sign(self, tenant: str, sign: Ephemeral, *, staff: bool) -> dict[str, Any]:
        """A sign of life; those of staff say so in their data."""
        data, sender = sign.data, sign.sender
        if not staff:
            by_staff = data.get("staff") is True or self._is_staff(tenant, sign.room_id, sender, "")
            sender = self._alias(sign.room_id, sender) if by_staff else self._unaddressed(sign.room_id, sender)
            data = {key: value for key, value in data.items() if key != "staff"}
        return {"room_id": sign.room_id, "kind": sign.kind, "sender": sender, "data": data}

    def name(self, tenant: str, room_id: str, who: str, *, staff: bool, channel: str = HOST) -> str:
        """Somebody's id as this viewer may know it; `channel` is where they wrote, if that is known."""
        if staff:
            return who
        if self._is_staff(tenant, room_id, who, channel):
            return self._alias(room_id, who)
        return self._unaddressed(room_id, who)

    def _is_staff(self, tenant: str, room_id: str, who: str, channel: str) -> bool:
        """Who has a part in the room says by their role what they are; who has none and writes from the house is of the
        house."""
        person = self._people(tenant, room_id).get(who)
        return channel == HOST if person is None else person.role in _STAFF_ROLES

    def _alias(self, room_id: str, who: str) -> str:
        return f"{STAFF}{self._hide(room_id, who).removeprefix('p-')}"

    def _unaddressed(self, room_id: str, who: str) -> str:
        return self._hide(room_id, who) if _ADDRESS.match(who) else who

    def _public(self, event: RoomEvent) -> RoomEvent:
        metadata = {key: event.metadata[key] for key in GUEST_METADATA if key in event.metadata}
        update: dict[str, Any] = {"metadata": metadata}
        writer, where = event.source.participant_id, (event.tenant, event.room_id)
        if writer is not None:
            shown = self.name(*where, writer, staff=False, channel=event.source.channel_id)
            if shown != writer:
                update["source"] = event.source.model_copy(update={"participant_id": shown})
            if shown.startswith(STAFF) and "sender_name" not in metadata and (name := self._staff_name(*where, writer)):
                metadata["sender_name"] = name
        reactions = event.metadata.get("reactions")
        if isinstance(reactions, dict):
            told = cast("dict[str, list[str]]", reactions)
            metadata["reactions"] = {
                emoji: [self.name(*where, who, staff=False) for who in people] for emoji, people in told.items()
            }
        if isinstance(event.content, SystemContent):
            data = {key: event.content.data[key] for key in GUEST_DATA if key in event.content.data}
            if isinstance(data.get("participant_id"), str):
                data["participant_id"] = self.name(*where, data["participant_id"], staff=False)
            if "holder" in data:
                data["holder"] = self._staff_name(*where, data["holder"])
            update["content"] = event.content.model_copy(update={"data": data})
        return event.model_copy(update=update)


def room_view(room: Room, *, staff: bool, holder: str | None = None, asked: bool = False) -> dict[str, Any]:
    """`holder` is what a guest hears of who holds the floor: the name they go by, never the id. `asked` tells a guest
    that something waits for a person's yes."""
    waiting = room.attention is not None
    if staff:
        return {**room.model_dump(mode="json"), "waiting": waiting}
    return {
        "id": room.id,
        "status": room.status.value,
        "floor": {"mode": room.floor.mode.value, "holder": holder},
        "waiting": waiting,
        "approval": asked,
        "language": room.language,
        "latest_index": room.latest_index,
    }


def binding_view(binding: ChannelBinding) -> dict[str, Any]:
    return binding.model_dump(mode="json")


def stream_view(start: StreamStart, text: str) -> dict[str, Any]:
    source = start.source.model_dump(include=_GUEST_SOURCE)
    return OpenStream(
        stream_id=start.stream_id, source=source, parent_event_id=start.parent_event_id, text=text, offset=len(text)
    ).model_dump()


async def summary(rooms: Rooms, room: Room, *, last: bool = True) -> dict[str, Any]:
    """A line in a list of rooms; with `last`, the last words that were said there."""
    people = await rooms.participants(room.id)
    guests = [person for person in people if person.role not in _HOUSE] or people
    line = {
        **room_view(room, staff=True),
        "channels": [binding.channel_id for binding in await rooms.bindings(room.id)],
        "people": [person.display_name or person.address or person.id for person in guests],
    }
    if last:
        newest = await rooms.events(room.id, newest_first=True, limit=LOOK_BACK)
        said = (event.text for event in newest if event.type is EventType.MESSAGE and not event.blocked)
        line["last"] = next((shortened(text) for text in said if text), None)
    return line


def shortened(text: str) -> str:
    """The beginning of a text, in one line."""
    text = " ".join(text[: LAST_CHARS * 2].split())
    return text if len(text) <= LAST_CHARS else f"{text[: LAST_CHARS - 1]}…"
