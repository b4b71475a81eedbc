"""What leaves the house about rooms, people and events: everything for staff, the public part for a guest (D34)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from roomkit.models.access import Principal
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding, Participant, Room
from roomkit.models.stream import StreamChunk, StreamStart
from roomkit.protocols.room_socket.codec import Chunk
from roomkit.protocols.room_socket.messages import OpenStream

GUEST_METADATA = ("end_reason", "sender_name", "client_id", "edited", "deleted", "reactions")
_STAFF = {"source": {"raw_payload"}}
_GUEST_SOURCE = {"channel_id", "channel_type", "direction", "participant_id"}
_GUEST_EVENT = {"id", "room_id", "index", "type", "status", "created_at", "content", "parent_event_id"}
_GUEST: dict[str, Any] = {**dict.fromkeys(_GUEST_EVENT, True), "source": _GUEST_SOURCE, "metadata": True}


class EventTexts:
    """Events as JSON text. The last few are kept, because one event goes to many sockets at once."""

    __slots__ = ("_chunk", "_keep", "_texts")

    def __init__(self, keep: int = 64) -> None:
        self._keep = keep
        self._chunk: tuple[StreamChunk, Chunk] | None = None
        self._texts: dict[tuple[int, bool], tuple[RoomEvent, str]] = {}

    def __call__(self, event: RoomEvent, *, staff: bool) -> str:
        key = (id(event), staff)
        found = self._texts.get(key)
        if found is not None:
            return found[1]
        text = event_text(event, staff=staff)
        while len(self._texts) >= self._keep:
            del self._texts[next(iter(self._texts))]
        # The event is kept beside its text: while it lives, nothing else can have its id().
        self._texts[key] = (event, text)
        return text

    def chunk(self, message: StreamChunk) -> Chunk:
        """A delta on its way out; the same object for everybody who hears it."""
        last = self._chunk
        if last is not None and last[0] is message:
            return last[1]
        made = Chunk(message.room_id, message.stream_id, message.offset, message.delta)
        self._chunk = (message, made)
        return made


def event_text(event: RoomEvent, *, staff: bool) -> str:
    if staff:
        return event.model_dump_json(exclude=_STAFF)  # pyright: ignore[reportArgumentType]
    kept = {key: event.metadata[key] for key in GUEST_METADATA if key in event.metadata}
    return event.model_copy(update={"metadata": kept}).model_dump_json(include=_GUEST)


def event_view(event: RoomEvent, *, staff: bool, raw: bool = False) -> dict[str, Any]:
    """As `event_text`, as an object; `raw` adds the vendor's payload for staff."""
    if staff:
        return event.model_dump(mode="json", exclude=None if raw else _STAFF)  # pyright: ignore[reportArgumentType]
    kept = {key: event.metadata[key] for key in GUEST_METADATA if key in event.metadata}
    view = event.model_dump(mode="json", include=_GUEST_EVENT | {"source"})
    view["source"] = {key: view["source"][key] for key in sorted(_GUEST_SOURCE)}
    return {**view, "metadata": kept}


def room_view(room: Room, *, staff: bool) -> dict[str, Any]:
    waiting = room.attention is not None
    if staff:
        return {**room.model_dump(mode="json"), "waiting": waiting}
    return {
        "id": room.id,
        "status": room.status.value,
        "floor": {"mode": room.floor.mode.value, "holder": room.floor.holder},
        "waiting": waiting,
        "language": room.language,
        "latest_index": room.latest_index,
    }


def participant_view(person: Participant, *, staff: bool) -> dict[str, Any]:
    if staff:
        return person.model_dump(mode="json")
    return {
        "id": person.id,
        "display_name": person.display_name,
        "role": person.role.value,
        "status": person.status.value,
    }


def binding_view(binding: ChannelBinding) -> dict[str, Any]:
    return binding.model_dump(mode="json")


def principal_view(principal: Principal) -> dict[str, Any]:
    return {
        "id": principal.id,
        "role": principal.role.value,
        "display_name": principal.display_name,
        "room_id": principal.room_id,
    }


def stream_view(start: StreamStart, text: str) -> dict[str, Any]:
    source = start.source.model_dump(include=_GUEST_SOURCE)
    return OpenStream(
        stream_id=start.stream_id, source=source, parent_event_id=start.parent_event_id, text=text, offset=len(text)
    ).model_dump()


def summary(room: Room, bindings: Iterable[ChannelBinding], people: Iterable[Participant]) -> dict[str, Any]:
    """A line in a list of rooms."""
    return {
        **room_view(room, staff=True),
        "channels": [binding.channel_id for binding in bindings],
        "people": [person.display_name or person.address or person.id for person in people],
    }
