"""Rooms and their logs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from starlette.responses import Response

from roomkit.errors import UsageError
from roomkit.models.content import Content, TextContent
from roomkit.models.room import Room, RoomStatus, RoomTimers
from roomkit.servers import views
from roomkit.servers.access import Action
from roomkit.servers.inbound import refusal_of, write
from roomkit.servers.problems import TooMany, answer
from roomkit.servers.rest.api import Body, Call, Nothing, done, dump, endpoints, reply

API, endpoint = endpoints()
PREVIEWS = 50
"""How many rooms of a list are told with their last words."""


class RoomFilter(Body):
    """`q` finds words of people's names, addresses, external ids and channels."""

    q: str | None = Field(default=None, max_length=200)
    status: RoomStatus | None = None
    channel: str | None = None
    external_id: str | None = None
    attention: bool | None = None
    limit: int = Field(default=50, ge=1, le=200)
    offset: int = Field(default=0, ge=0, le=100_000)


class NewRoom(Body):
    room_id: str | None = Field(default=None, min_length=1, max_length=128)
    external_id: str | None = Field(default=None, max_length=256)
    metadata: dict[str, Any] = Field(default_factory=dict)
    channels: list[str] | None = None
    timers: RoomTimers | None = None


class RoomPatch(Body):
    metadata: dict[str, Any] | None = None
    timers: RoomTimers | None = None


class EventPage(Body):
    after: int | None = Field(default=None, ge=-1)
    before: int | None = Field(default=None, ge=0)
    limit: int = Field(default=50, ge=1, le=200)
    raw: bool = False


class Range(Body):
    start: int = Field(default=0, ge=0)
    stop: int | None = Field(default=None, ge=0)


class Proposal(Body):
    """Exactly one of `text` and `content`."""

    text: str | None = Field(default=None, min_length=1)
    content: Content | None = None
    client_id: str | None = Field(default=None, min_length=1, max_length=64)

    @property
    def body(self) -> Content:
        if (self.text is None) == (self.content is None):
            raise UsageError("give exactly one of text and content")
        return self.content if self.content is not None else TextContent(text=self.text or "")


class Message(Proposal):
    parent: str | None = Field(default=None, max_length=128)


class ReadUpTo(Body):
    index: int = Field(ge=0)


class Reason(Body):
    reason: str = Field(default="asked for a person", min_length=1, max_length=500)


@endpoint("GET", "/me", Action.REFRESH)
async def me(call: Call, _: Nothing) -> Response:
    """Who am I, and what are the limits"""
    limits = call.door.options.limits
    root = call.request.scope.get("root_path", "")
    return reply(
        principal=call.door.views.principal(call.principal),
        expires_at=call.principal.expires_at,
        limits={"text_chars": limits.text_chars, "media_bytes": call.door.options.media_bytes},
        socket=f"{root}/socket",
    )


@endpoint("GET", "/rooms", Action.LIST_ROOMS, RoomFilter)
async def list_rooms(call: Call, query: RoomFilter) -> Response:
    """Rooms, the latest activity first"""
    rooms: list[Room] = await call.rooms.list_rooms(
        q=query.q,
        status=query.status,
        channel=query.channel,
        external_id=query.external_id,
        attention=query.attention,
        limit=query.limit + 1,
        offset=query.offset,
    )
    more = len(rooms) > query.limit
    lines = [await views.summary(call.rooms, room, last=n < PREVIEWS) for n, room in enumerate(rooms[: query.limit])]
    return reply(rooms=lines, next_offset=query.offset + query.limit if more else None)


@endpoint("GET", "/attention", Action.LIST_ROOMS)
async def attention(call: Call, _: Nothing) -> Response:
    """Rooms waiting for a person, the longest waiting first"""
    return reply(rooms=[await views.summary(call.rooms, room) for room in await call.rooms.attention()])


@endpoint("POST", "/rooms", Action.CREATE_ROOM, NewRoom, status=201)
async def create_room(call: Call, body: NewRoom) -> Response:
    """Make a room"""
    room = await call.rooms.create_room(
        body.room_id,
        external_id=body.external_id,
        metadata=body.metadata,
        channels=body.channels,
        timers=body.timers,
    )
    return shown(call, room, 201)


@endpoint("GET", "/rooms/{room}", Action.READ_ROOM)
async def get_room(call: Call, _: Nothing) -> Response:
    """A room with its channels and people"""
    room = await call.rooms.get_room(call.room_id)
    people = await call.rooms.participants(call.room_id)
    fields: dict[str, Any] = {
        "room": call.door.views.room(room, staff=call.staff),
        "participants": [call.door.views.participant(person, staff=call.staff) for person in people],
    }
    if call.staff:
        fields["bindings"] = [views.binding_view(binding) for binding in await call.rooms.bindings(call.room_id)]
        fields["viewers"] = call.door.lobby.viewers((call.principal.tenant, call.room_id))
    return reply(**fields)


@endpoint("PATCH", "/rooms/{room}", Action.MANAGE_ROOM, RoomPatch)
async def patch_room(call: Call, body: RoomPatch) -> Response:
    """Change metadata (keys given replace, null removes) or timers"""
    room = await call.rooms.get_room(call.room_id)
    if body.metadata is not None:
        room = await call.rooms.update_room_metadata(call.room_id, body.metadata)
    if body.timers is not None:
        room = await call.rooms.set_room_timers(call.room_id, body.timers)
    return shown(call, room)


@endpoint("POST", "/rooms/{room}/close", Action.MANAGE_ROOM)
async def close_room(call: Call, _: Nothing) -> Response:
    """Close: nothing more is taken until it is reopened"""
    return shown(call, await call.rooms.close_room(call.room_id, by=call.principal.id))


@endpoint("POST", "/rooms/{room}/reopen", Action.MANAGE_ROOM)
async def reopen_room(call: Call, _: Nothing) -> Response:
    """Open a closed room again"""
    return shown(call, await call.rooms.reopen_room(call.room_id, by=call.principal.id))


@endpoint("POST", "/rooms/{room}/archive", Action.MANAGE_ROOM)
async def archive_room(call: Call, _: Nothing) -> Response:
    """Archive: closed for good"""
    return shown(call, await call.rooms.archive_room(call.room_id, by=call.principal.id))


@endpoint("POST", "/rooms/{room}/pause", Action.MANAGE_ROOM)
async def pause_room(call: Call, _: Nothing) -> Response:
    """Pause: the next message resumes it"""
    return shown(call, await call.rooms.pause_room(call.room_id, by=call.principal.id))


@endpoint("GET", "/rooms/{room}/events", Action.READ_ROOM, EventPage)
async def list_events(call: Call, query: EventPage) -> Response:
    """A page of the log, oldest first; without `after` the newest"""
    if query.after is not None and query.before is not None:
        raise UsageError("give after or before, not both")
    raw = query.raw and call.staff  # to a guest, what was deleted is gone
    events, more = await call.door.page(
        call.principal, call.room_id, after=query.after, before=query.before, limit=query.limit, raw=raw
    )
    return reply(events=[call.door.views.event(event, staff=call.staff, raw=raw) for event in events], more=more)


@endpoint("POST", "/rooms/{room}/messages", Action.WRITE, Message, status=201)
async def send_message(call: Call, body: Message) -> Response:
    """Write into the room; a repeated client_id is answered with the first event"""
    result = await write(
        call.door, call.principal, call.room_id, body.body, client_id=body.client_id, parent=body.parent
    )
    event = None if result.event is None else call.door.views.event(result.event, staff=call.staff)
    if result.blocked or event is None:
        refusal = refusal_of(result, staff=call.staff)
        if refusal.retry_after is not None:
            raise TooMany(refusal.message, retry_after=refusal.retry_after)
        return answer(409, refusal.code, refusal.message, event=event)
    return reply(200 if result.duplicate else 201, event=event, duplicate=result.duplicate)


@endpoint("GET", "/rooms/{room}/deliveries", Action.READ_DESK, Range)
async def deliveries(call: Call, query: Range) -> Response:
    """What became of events on their way to each channel, and why"""
    records = await call.rooms.deliveries(call.room_id, query.start, query.stop)
    return reply(deliveries=[dump(record) for record in records])


@endpoint("GET", "/rooms/{room}/events/{event}/shown", Action.READ_DESK)
async def shown_on(call: Call, _: Nothing) -> Response:
    """What each channel was sent of an event: changed for what it can show, and in how many parts"""
    return reply(shown=await call.rooms.shown(call.room_id, call.path("event")))


@endpoint("POST", "/rooms/{room}/read", Action.READ_ROOM, ReadUpTo, status=204)
async def mark_read(call: Call, body: ReadUpTo) -> Response:
    """I have read up to this index"""
    await call.door.mark_read(call.principal, call.room_id, body.index)
    return done()


@endpoint("POST", "/rooms/{room}/request-human", Action.REQUEST_HUMAN, Reason)
async def request_human(call: Call, body: Reason) -> Response:
    """Ask for a person: the room goes into the waiting queue"""
    return shown(call, await call.rooms.request_human(call.room_id, body.reason, by=call.principal.id))


def shown(call: Call, room: Room, status: Literal[200, 201] = 200) -> Response:
    return reply(status, room=call.door.views.room(room, staff=call.staff))
