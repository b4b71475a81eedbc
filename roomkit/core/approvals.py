"""Approvals: a person's yes or no to one tool call or one draft, durable, bound to its arguments, expiring (D36)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from roomkit.core.actor import SYSTEM, Change, Entry, RoomActor
from roomkit.core.policy import ai_may_answer
from roomkit.core.state import key
from roomkit.errors import StateError
from roomkit.models.content import SystemContent, ToolCallContent
from roomkit.models.event import EventDraft, EventType, RoomEvent
from roomkit.models.room import OpenQuestion, Room
from roomkit.ports.channel import ApprovalAnswer
from roomkit.ports.store import Record, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

KIND = "approval"


def fingerprint(name: str, arguments: dict[str, Any]) -> str:
    """What an approval is bound to: the same tool with the same arguments, and nothing else."""
    canonical = json.dumps([name, arguments], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom a turn asks: its channel, the people and events that it answers, and the approvals whose answer woke
    it. A permission is theirs and nobody else's."""

    channel_id: str
    people: frozenset[str]
    causes: frozenset[str]
    answered: frozenset[str]

    @classmethod
    def of(cls, channel_id: str, events: Iterable[RoomEvent]) -> Asker:
        people: set[str] = set()
        causes: set[str] = set()
        answered: set[str] = set()
        for event in events:
            content, source = event.content, event.source
            if event.type is EventType.APPROVAL_ANSWERED and source == SYSTEM and isinstance(content, SystemContent):
                answered.add(content.data["id"])
                people.update(content.data.get("people", ()))
                causes.update(content.data.get("causes", ()))
            else:
                people.add(source.participant_id or f"{source.channel_id}:{source.external_id or ''}")
                causes.add(event.id)
        return cls(channel_id, frozenset(people), frozenset(causes), frozenset(answered))

    def owns(self, value: dict[str, Any], call: ToolCallContent) -> bool:
        if value["channel"] != self.channel_id or value["fingerprint"] != fingerprint(call.name, call.arguments):
            return False
        mine = value["id"] in self.answered or self.people == frozenset(value.get("people", ()))
        return mine or self.causes == frozenset(value.get("causes", ()))


async def ask(
    engine: Engine, actor: RoomActor, asker: Asker, call: ToolCallContent, expires_s: float
) -> ApprovalAnswer:
    """Asks and waits. Cancelling the wait leaves the question open: its answer then starts a new turn."""
    waiting: asyncio.Future[ApprovalAnswer] = asyncio.get_running_loop().create_future()
    approval_id = await actor.call(_begin, asker, call, expires_s, waiting)
    try:
        return await waiting
    finally:
        if engine.answers.get(approval_id) is waiting:
            del engine.answers[approval_id]


async def _begin(
    actor: RoomActor,
    asker: Asker,
    call: ToolCallContent,
    expires_s: float,
    waiting: asyncio.Future[ApprovalAnswer],
) -> str:
    """Looks, asks and waits in one step of the room, so that no answer can fall in between."""
    if _closed(actor):
        waiting.set_result(ApprovalAnswer(False, "system", "the room is closed"))
        return ""
    if not ai_may_answer(actor.state.room.floor):
        waiting.set_result(ApprovalAnswer(False, "system", "a person has taken over"))
        return ""
    given = await _use_given(actor, asker, call)
    if given is not None:
        waiting.set_result(given)
        return ""
    asked = await _asked_before(actor, asker, call)
    approval_id = asked or actor.engine.new_id()
    actor.engine.answers[approval_id] = waiting
    try:
        if asked is None:
            await _open(actor, asker, call, expires_s, approval_id)
    except BaseException:
        del actor.engine.answers[approval_id]
        raise
    return approval_id


def _closed(actor: RoomActor) -> bool:
    """A room may close while a question is on its way to it."""
    return not actor.state.room.open


async def _asked_before(actor: RoomActor, asker: Asker, call: ToolCallContent) -> str | None:
    """The same question, left open by a turn that is gone: asked again, it is still one question."""
    engine = actor.engine
    for record in await pending(engine, actor.tenant, actor.room_id):
        value = record.value
        if asker.owns(value, call) and value["id"] not in engine.answers and not _late(actor, value):
            return value["id"]
    return None


def _late(actor: RoomActor, value: dict[str, Any]) -> bool:
    return datetime.fromisoformat(value["expires_at"]) <= actor.engine.now()


async def _use_given(actor: RoomActor, asker: Asker, call: ToolCallContent) -> ApprovalAnswer | None:
    """Uses up an approval that was granted after the asking turn had gone: once, for whom it was asked, in time."""
    for record in await pending(actor.engine, actor.tenant, actor.room_id, status="granted"):
        value = record.value
        if asker.owns(value, call) and not _late(actor, value):
            change = Change(activity=False)
            change.put.append(_record(actor, record.key, {**value, "status": "used"}))
            await actor.commit(change)
            return ApprovalAnswer(True, value.get("by"), value.get("reason"))
    return None


async def _open(actor: RoomActor, asker: Asker, call: ToolCallContent, expires_s: float, approval_id: str) -> None:
    expires = actor.engine.now() + timedelta(seconds=expires_s)
    value: dict[str, Any] = {
        "id": approval_id,
        "room_id": actor.room_id,
        "channel": asker.channel_id,
        "people": sorted(asker.people),
        "causes": sorted(asker.causes),
        "call_id": call.call_id,
        "name": call.name,
        "arguments": call.arguments,
        "fingerprint": fingerprint(call.name, call.arguments),
        "status": "pending",
        "asked_at": actor.engine.now().isoformat(),
        "expires_at": expires.isoformat(),
    }
    change = Change()
    change.put.append(_record(actor, key(actor.room_id, approval_id), value))
    room = actor.state.room
    asking = OpenQuestion(id=approval_id, name=call.name, since=actor.engine.now(), visibility=_audible(actor, asker))
    change.room = room.replaced(approvals=(*room.approvals, asking))
    change.system(
        EventType.APPROVAL_REQUESTED, "approval_requested", id=approval_id, name=call.name, arguments=call.arguments
    )
    timer = actor.engine.timers.plan(actor, f"approval:{approval_id}", expires_s, {"id": approval_id})
    change.timers.append(timer)
    await actor.commit(change)
    actor.engine.attention.changed(actor)


def _audible(actor: RoomActor, asker: Asker) -> str:
    """Who may know that a channel asks: whoever would hear its words."""
    seat = actor.state.bindings.get(asker.channel_id)
    return "internal" if seat is None or seat.muted or not seat.can_write else seat.visibility


def _without(actor: RoomActor, approval_id: str) -> Room | None:
    """The room as it is when this question is open no more; None when nothing changes."""
    room = actor.state.room
    left = tuple(one for one in room.approvals if one.id != approval_id)
    return room.replaced(approvals=left) if len(left) < len(room.approvals) else None


async def withdraw(actor: RoomActor, change: Change, channel_id: str | None = None) -> None:
    """Adds to `change` that nothing is asked any more, by this channel or by any: no answer could lead to anything."""
    gone: set[str] = set()
    for record in await pending(actor.engine, actor.tenant, actor.room_id):
        if channel_id in (None, record.value["channel"]):
            gone.add(record.value["id"])
            change.put.append(_record(actor, record.key, {**record.value, "status": "withdrawn"}))
    room = change.room or actor.state.room
    left = tuple(one for one in room.approvals if one.id not in gone)
    if len(left) < len(room.approvals):
        change.room = room.replaced(approvals=left)


async def answer(
    actor: RoomActor, approval_id: str, granted: bool, by: str, reason: str | None, expired: bool = False
) -> dict[str, Any]:
    """Answers once; a second answer is refused. Runs in the actor. Returns the approval as it now stands.

    While a person has the floor no turn begins: the permission waits for the release (`let_go`), until it expires."""
    engine = actor.engine
    found = await engine.store.records(RecordQuery(KIND, actor.tenant, key=key(actor.room_id, approval_id)))
    if not found:
        raise StateError(
            f'approval "{approval_id}" does not exist in room "{actor.room_id}"; list them with kit.approvals()'
        )
    asked = found[0].value
    late = _late(actor, asked)
    if expired and asked["status"] == "granted":
        return await _lapse(actor, found[0])
    if asked["status"] != "pending" or (late and not expired):
        state = "expired" if late and asked["status"] == "pending" else asked["status"]
        raise StateError(f'approval "{approval_id}" is already {state}; nothing was changed')
    if granted and asked.get("erased"):
        raise StateError(
            f'what approval "{approval_id}" was asked for is erased, so that nobody can see what a yes would allow; '
            "answer no"
        )
    waiting = engine.answers.get(approval_id)
    may_go_on = ai_may_answer(actor.state.room.floor)
    live = waiting is not None and not waiting.done() and may_go_on
    status = "expired" if expired else "denied" if not granted else "used" if live else "granted"
    value: dict[str, Any] = {
        **asked,
        "status": status,
        "by": by,
        "reason": reason,
        "answered_at": engine.now().isoformat(),
        "held": status == "granted" and not may_go_on,
    }
    change = Change(room=_without(actor, approval_id))
    change.put.append(_record(actor, found[0].key, value))
    if actor.state.room.open:
        change.add(_answered(value, wake=not live and not expired and may_go_on))
    await actor.commit(change)
    engine.attention.changed(actor)
    if waiting is not None and not waiting.done() and (live or not granted):
        waiting.set_result(ApprovalAnswer(granted, by, reason, expired))
    elif live and granted:
        # The turn that asked ended in this very moment: the permission stays for the next one that asks the same.
        value = {**value, "status": "granted"}
        late_change = Change(activity=False)
        late_change.put.append(_record(actor, found[0].key, value))
        await actor.commit(late_change)
    return value


def _answered(value: dict[str, Any], *, wake: bool) -> Entry:
    """The record of an answer; one that is to begin a turn is seen by the channel that asked."""
    granted, expired = value["status"] in ("used", "granted"), value["status"] == "expired"
    data = {name: value.get(name) for name in ("id", "name", "arguments", "by", "reason", "people", "causes")}
    data |= {"granted": granted, "expired": expired}
    message = _told(value["name"], granted, value["by"], value["reason"], expired)
    draft = EventDraft(
        source=SYSTEM,
        content=SystemContent(code="approval_answered", message=message, data=data),
        type=EventType.APPROVAL_ANSWERED,
        visibility=value["channel"] if wake else "internal",
    )
    return Entry(draft, wake=(value["channel"],) if wake else ())


async def _lapse(actor: RoomActor, record: Record) -> dict[str, Any]:
    """A permission that nobody has used in time is worth nothing any more."""
    value = {**record.value, "status": "expired", "held": False}
    change = Change(activity=False)
    change.put.append(_record(actor, record.key, value))
    if actor.state.room.open:
        change.system(EventType.SYSTEM, "approval_lapsed", id=value["id"], name=value["name"])
    await actor.commit(change)
    return value


async def let_go(actor: RoomActor, change: Change) -> None:
    """The AI may answer again: what was granted while a person had the floor begins its turn with `change`."""
    if ai_may_answer(actor.state.room.floor):
        return
    for record in await pending(actor.engine, actor.tenant, actor.room_id, status="granted"):
        value = record.value
        if value.get("held") and not _late(actor, value):
            value = {**value, "held": False}
            change.put.append(_record(actor, record.key, value))
            change.add(_answered(value, wake=True))


def _told(name: str, granted: bool, by: str, reason: str | None, expired: bool) -> str:
    if expired:
        return f"Nobody answered in time whether {name} may run."
    verdict = "approved" if granted else "denied"
    return f"{by} {verdict} {name}" + (f": {reason}" if reason else "") + "."


async def pending(engine: Engine, tenant: str, room_id: str | None, status: str = "pending") -> list[Record]:
    query = RecordQuery(KIND, tenant, room_id=room_id, terms=(f"approval:{status}",), limit=500)
    return await engine.store.records(query)


def _record(actor: RoomActor, record_key: str, value: dict[str, Any]) -> Record:
    return Record(KIND, actor.tenant, record_key, value, actor.room_id, None, (f"approval:{value['status']}",))
