"""Channels and people of a room."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from starlette.responses import Response

from roomkit.models.room import Access, ChannelBinding, Role
from roomkit.servers.access import Action
from roomkit.servers.problems import NotFound
from roomkit.servers.rest.api import Body, Call, Nothing, done, dump, endpoints, reply

API, endpoint = endpoints()


class Seat(Body):
    channel_id: str = Field(min_length=1, max_length=128)
    access: Access | None = None
    visibility: str | None = Field(default=None, min_length=1, max_length=512)
    participant_id: str | None = Field(default=None, max_length=128)
    metadata: dict[str, Any] = Field(default_factory=dict)


class SeatPatch(Body):
    access: Access | None = None
    muted: bool | None = None
    output_muted: bool | None = None
    visibility: str | None = Field(default=None, min_length=1, max_length=512)
    metadata: dict[str, Any] | None = None


class Person(Body):
    participant_id: str = Field(min_length=1, max_length=128)
    display_name: str | None = Field(default=None, max_length=200)
    role: Role = Role.MEMBER


class Rename(Body):
    display_name: str = Field(min_length=1, max_length=200)


@endpoint("GET", "/rooms/{room}/bindings", Action.READ_DESK)
async def list_bindings(call: Call, _: Nothing) -> Response:
    """The channels of a room"""
    return reply(bindings=[dump(binding) for binding in await call.rooms.bindings(call.room_id)])


@endpoint("POST", "/rooms/{room}/bindings", Action.MANAGE_CHANNELS, Seat, status=201)
async def attach(call: Call, body: Seat) -> Response:
    """Give a channel a seat"""
    binding = await call.rooms.attach_channel(
        call.room_id,
        body.channel_id,
        metadata=body.metadata,
        access=body.access,
        visibility=body.visibility,
        participant_id=body.participant_id,
    )
    return reply(201, binding=dump(binding))


@endpoint("PATCH", "/rooms/{room}/bindings/{channel}", Action.MANAGE_CHANNELS, SeatPatch)
async def change_binding(call: Call, body: SeatPatch) -> Response:
    """Mute or unmute, change access, visibility or metadata"""
    rooms, room_id, channel_id, by = call.rooms, call.room_id, call.path("channel"), call.principal.id
    if body.access is not None:
        await rooms.set_access(room_id, channel_id, body.access, by=by)
    if body.muted is not None:
        await (rooms.mute if body.muted else rooms.unmute)(room_id, channel_id, by=by)
    if body.output_muted is not None:
        await (rooms.mute if body.output_muted else rooms.unmute)(room_id, channel_id, by=by, output=True)
    if body.visibility is not None:
        await rooms.set_visibility(room_id, channel_id, body.visibility, by=by)
    if body.metadata is not None:
        await rooms.update_binding_metadata(room_id, channel_id, body.metadata)
    return reply(binding=dump(await _binding(call, channel_id)))


@endpoint("DELETE", "/rooms/{room}/bindings/{channel}", Action.MANAGE_CHANNELS, status=204)
async def detach(call: Call, _: Nothing) -> Response:
    """Take a channel's seat away"""
    await call.rooms.detach_channel(call.room_id, call.path("channel"))
    return done()


@endpoint("GET", "/rooms/{room}/participants", Action.READ_ROOM)
async def list_people(call: Call, _: Nothing) -> Response:
    """The people of a room"""
    people = await call.rooms.participants(call.room_id)
    return reply(participants=[call.door.views.participant(person, staff=call.staff) for person in people])


@endpoint("POST", "/rooms/{room}/participants", Action.MANAGE_PEOPLE, Person, status=201)
async def add_person(call: Call, body: Person) -> Response:
    """Add somebody"""
    person = await call.rooms.add_member(
        call.room_id, body.participant_id, display_name=body.display_name, role=body.role
    )
    return reply(201, participant=dump(person))


@endpoint("PATCH", "/rooms/{room}/participants/{person}", Action.MANAGE_PEOPLE, Rename)
async def rename_person(call: Call, body: Rename) -> Response:
    """Change somebody's name"""
    person = await call.rooms.rename_member(call.room_id, call.path("person"), body.display_name)
    return reply(participant=dump(person))


@endpoint("DELETE", "/rooms/{room}/participants/{person}", Action.MANAGE_PEOPLE, status=204)
async def remove_person(call: Call, _: Nothing) -> Response:
    """Remove somebody; what they wrote stays"""
    await call.rooms.remove_member(call.room_id, call.path("person"))
    return done()


async def _binding(call: Call, channel_id: str) -> ChannelBinding:
    for binding in await call.rooms.bindings(call.room_id):
        if binding.channel_id == channel_id:
            return binding
    raise NotFound(f'channel "{channel_id}" has no seat in room "{call.room_id}"')
