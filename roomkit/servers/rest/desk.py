"""What agents and supervisors do in a room: floor, whispers, notes, drafts, steering, approvals."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field
from starlette.responses import Response

from roomkit.errors import UsageError
from roomkit.models.content import DeleteContent, EditContent, ReactionContent
from roomkit.models.room import FloorMode
from roomkit.models.steering import Cancel, InjectMessage, SteeringDirective, UpdateSystemPrompt
from roomkit.servers.access import Action
from roomkit.servers.inbound import check
from roomkit.servers.problems import answer
from roomkit.servers.rest.api import Body, Call, Nothing, done, dump, endpoints, reply
from roomkit.servers.rest.rooms import Proposal, shown

API, endpoint = endpoints()


class Take(Body):
    force: bool = False


class Release(Body):
    note: str | None = Field(default=None, min_length=1, max_length=4_000)


class SetFloor(Body):
    mode: Literal["ai", "both", "none"]


class Text(Body):
    text: str = Field(min_length=1, max_length=8_000)
    client_id: str | None = Field(default=None, min_length=1, max_length=64)


class Note(Text):
    for_ai: bool = False


class Whisper(Text):
    to: str = Field(min_length=1, max_length=128)


class Steer(Body):
    directive: Literal["cancel", "inject", "update_prompt"]
    text: str | None = Field(default=None, min_length=1, max_length=8_000)
    channel_id: str | None = Field(default=None, max_length=128)

    def build(self) -> SteeringDirective:
        if self.directive == "cancel":
            return Cancel(self.text or "cancelled")
        if self.text is None:
            raise UsageError(f"{self.directive} needs text")
        return InjectMessage(self.text) if self.directive == "inject" else UpdateSystemPrompt(self.text)


class Decision(Body):
    granted: bool
    reason: str | None = Field(default=None, max_length=1_000)


@endpoint("POST", "/rooms/{room}/floor/take", Action.TAKE_FLOOR, Take)
async def take_floor(call: Call, body: Take) -> Response:
    """Take over: the running AI turn ends in the same step; refused when somebody else holds the floor"""
    return shown(call, await call.rooms.take_over(call.room_id, call.principal.id, force=body.force))


@endpoint("POST", "/rooms/{room}/floor/release", Action.TAKE_FLOOR, Release)
async def release_floor(call: Call, body: Release) -> Response:
    """Hand back to the AI, with a note that it reads"""
    return shown(call, await call.rooms.release(call.room_id, call.principal.id, note=body.note))


@endpoint("PUT", "/rooms/{room}/floor", Action.SET_FLOOR, SetFloor)
async def set_floor(call: Call, body: SetFloor) -> Response:
    """Say who answers here, whoever holds the floor"""
    return shown(call, await call.rooms.set_floor(call.room_id, FloorMode(body.mode)))


def _once(call: Call, what: str, client_id: str | None) -> str | None:
    """Nobody else, no other room and nothing else that is written at a desk can have the same key."""
    return None if client_id is None else json.dumps([call.room_id, call.principal.id, what, client_id])


@endpoint("POST", "/rooms/{room}/whisper", Action.NOTE, Whisper, status=201)
async def whisper(call: Call, body: Whisper) -> Response:
    """Words for one channel or person only; a repeated client_id is answered with the first event"""
    once = _once(call, "whisper", body.client_id)
    event = await call.rooms.whisper(call.room_id, body.text, to=body.to, by=call.principal.id, idempotency_key=once)
    shown_event = call.door.views.event(event, staff=True)
    if event.blocked:
        reason = event.blocked_reason or event.blocked_by or "a rule stopped it"
        return answer(409, "blocked", reason, event=shown_event)
    return reply(201, event=shown_event)


@endpoint("POST", "/rooms/{room}/notes", Action.NOTE, Note, status=201)
async def note(call: Call, body: Note) -> Response:
    """A note between colleagues; with `for_ai` the AI reads it too"""
    once = _once(call, "note", body.client_id)
    event = await call.rooms.note(call.room_id, body.text, call.principal.id, for_ai=body.for_ai, idempotency_key=once)
    return reply(201, event=call.door.views.event(event, staff=True))


@endpoint("GET", "/rooms/{room}/drafts", Action.READ_DESK)
async def list_drafts(call: Call, _: Nothing) -> Response:
    """Messages that wait for approval"""
    return reply(drafts=await call.rooms.drafts(call.room_id))


@endpoint("POST", "/rooms/{room}/drafts", Action.NOTE, Proposal, status=201)
async def draft(call: Call, body: Proposal) -> Response:
    """Propose a message"""
    if isinstance(body.body, (EditContent, DeleteContent, ReactionContent)):
        raise UsageError(f"a draft is a message; {body.body.type} is not one")
    check(call.principal, body.body, call.door.options.limits)
    once = _once(call, "draft", body.client_id)
    event = await call.rooms.draft(call.room_id, body.body, by=call.principal.id, idempotency_key=once)
    return reply(201, draft=call.door.views.event(event, staff=True))


@endpoint("POST", "/rooms/{room}/drafts/{draft}/approve", Action.APPROVE)
async def approve_draft(call: Call, _: Nothing) -> Response:
    """Send a draft"""
    result = await call.rooms.settle_draft(call.room_id, call.path("draft"), True, by=call.principal.id)
    event = None if result.event is None else call.door.views.event(result.event, staff=True)
    return reply(event=event, blocked=result.blocked, reason=result.reason)


@endpoint("POST", "/rooms/{room}/drafts/{draft}/discard", Action.APPROVE, status=204)
async def discard_draft(call: Call, _: Nothing) -> Response:
    """Throw a draft away"""
    await call.rooms.settle_draft(call.room_id, call.path("draft"), False, by=call.principal.id)
    return done()


@endpoint("POST", "/rooms/{room}/steer", Action.STEER, Steer, status=202)
async def steer(call: Call, body: Steer) -> Response:
    """Cancel the running AI turn, say something to it, or add to its instructions"""
    await call.rooms.steer(call.room_id, body.build(), channel_id=body.channel_id)
    return reply(202)


@endpoint("GET", "/rooms/{room}/tasks", Action.READ_DESK)
async def tasks(call: Call, _: Nothing) -> Response:
    """Tasks and observations noted beside the conversation"""
    return reply(
        tasks=[dump(task) for task in await call.rooms.tasks(call.room_id)],
        observations=[dump(seen) for seen in await call.rooms.observations(call.room_id)],
    )


@endpoint("GET", "/rooms/{room}/approvals", Action.READ_DESK)
async def approvals(call: Call, _: Nothing) -> Response:
    """Tool calls that wait for a yes or no"""
    return reply(approvals=await call.rooms.approvals(call.room_id))


@endpoint("POST", "/rooms/{room}/approvals/{approval}", Action.APPROVE, Decision)
async def answer_approval(call: Call, body: Decision) -> Response:
    """Say yes or no to a tool call"""
    answered = await call.rooms.answer_approval(
        call.path("approval"), body.granted, by=call.principal.id, reason=body.reason, room_id=call.room_id
    )
    return reply(approval=answered)
