"""Approvals: a person's yes or no to one tool call or one draft, durable, bound to its arguments, expiring (D36)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from roomkit.core.actor import SYSTEM, Change, Entry, RoomActor
from roomkit.core.state import key
from roomkit.errors import StateError
from roomkit.models.content import SystemContent, ToolCallContent
from roomkit.models.event import EventDraft, EventType
from roomkit.ports.channel import ApprovalAnswer
from roomkit.ports.store import Record, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

KIND = "approval"


def fingerprint(name: str, arguments: dict[str, Any]) -> str:
    """What an approval is bound to: the same tool with the same arguments, and nothing else."""
    canonical = json.dumps([name, arguments], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


async def ask(
    engine: Engine, actor: RoomActor, channel_id: str, call: ToolCallContent, expires_s: float
) -> ApprovalAnswer:
    """Asks and waits. Cancelling the wait leaves the question open: its answer then starts a new turn."""
    waiting: asyncio.Future[ApprovalAnswer] = asyncio.get_running_loop().create_future()
    approval_id = await actor.call(_begin, channel_id, call, expires_s, waiting)
    try:
        return await waiting
    finally:
        if engine.answers.get(approval_id) is waiting:
            del engine.answers[approval_id]


async def _begin(
    actor: RoomActor,
    channel_id: str,
    call: ToolCallContent,
    expires_s: float,
    waiting: asyncio.Future[ApprovalAnswer],
) -> str:
    """Looks, asks and waits in one step of the room, so that no answer can fall in between."""
    given = await _use_given(actor, channel_id, call)
    if given is not None:
        waiting.set_result(given)
        return ""
    asked = await _asked_before(actor.engine, actor, channel_id, call)
    approval_id = asked or actor.engine.new_id()
    actor.engine.answers[approval_id] = waiting
    try:
        if asked is None:
            await _open(actor, channel_id, call, expires_s, approval_id)
    except BaseException:
        del actor.engine.answers[approval_id]
        raise
    return approval_id


async def _asked_before(engine: Engine, actor: RoomActor, channel_id: str, call: ToolCallContent) -> str | None:
    """The same question, left open by a turn that is gone: asked again, it is still one question."""
    mark = fingerprint(call.name, call.arguments)
    for record in await pending(engine, actor.tenant, actor.room_id):
        value = record.value
        if value["fingerprint"] == mark and value["channel"] == channel_id and value["id"] not in engine.answers:
            return value["id"]
    return None


async def _use_given(actor: RoomActor, channel_id: str, call: ToolCallContent) -> ApprovalAnswer | None:
    """Uses up an approval that was granted after the asking turn had gone."""
    mark = fingerprint(call.name, call.arguments)
    for record in await pending(actor.engine, actor.tenant, actor.room_id, status="granted"):
        value = record.value
        if value["fingerprint"] == mark and value["channel"] == channel_id:
            change = Change(activity=False)
            change.put.append(_record(actor, record.key, {**value, "status": "used"}))
            await actor.commit(change)
            return ApprovalAnswer(True, value.get("by"), value.get("reason"))
    return None


async def _open(actor: RoomActor, channel_id: str, call: ToolCallContent, expires_s: float, approval_id: str) -> None:
    expires = actor.engine.now() + timedelta(seconds=expires_s)
    value: dict[str, Any] = {
        "id": approval_id,
        "room_id": actor.room_id,
        "channel": channel_id,
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
    change.system(
        EventType.APPROVAL_REQUESTED, "approval_requested", id=approval_id, name=call.name, arguments=call.arguments
    )
    await actor.commit(change)
    actor.engine.timers.set(actor, f"approval:{approval_id}", expires_s, {"id": approval_id})


async def answer(
    actor: RoomActor, approval_id: str, granted: bool, by: str, reason: str | None, expired: bool = False
) -> dict[str, Any]:
    """Answers once; a second answer is refused. Runs in the actor. Returns the approval as it now stands."""
    engine = actor.engine
    found = await engine.store.records(RecordQuery(KIND, actor.tenant, key=key(actor.room_id, approval_id)))
    if not found:
        raise StateError(
            f'approval "{approval_id}" does not exist in room "{actor.room_id}"; list them with kit.approvals()'
        )
    asked = found[0].value
    late = datetime.fromisoformat(asked["expires_at"]) <= engine.now()
    if asked["status"] != "pending" or (late and not expired):
        state = "expired" if late and asked["status"] == "pending" else asked["status"]
        raise StateError(f'approval "{approval_id}" is already {state}; nothing was changed')
    waiting = engine.answers.get(approval_id)
    live = waiting is not None and not waiting.done()
    status = "expired" if expired else "denied" if not granted else "used" if live else "granted"
    value: dict[str, Any] = {
        **asked,
        "status": status,
        "by": by,
        "reason": reason,
        "answered_at": engine.now().isoformat(),
    }
    change = Change()
    change.put.append(_record(actor, found[0].key, value))
    data = {
        "id": approval_id,
        "name": value["name"],
        "arguments": value["arguments"],
        "granted": granted,
        "by": by,
        "reason": reason,
        "expired": expired,
    }
    message = _told(value["name"], granted, by, reason, expired)
    content = SystemContent(code="approval_answered", message=message, data=data)
    wake = () if live or expired or not actor.state.room.open else (value["channel"],)
    draft = EventDraft(source=SYSTEM, content=content, type=EventType.APPROVAL_ANSWERED, visibility="internal")
    if wake:
        draft = draft.model_copy(update={"visibility": value["channel"]})
    if actor.state.room.open:
        change.add(Entry(draft, wake=wake))
    await actor.commit(change)
    if waiting is not None and not waiting.done():
        waiting.set_result(ApprovalAnswer(granted, by, reason, expired))
    elif live and granted:
        # The turn that asked ended in this very moment: the permission stays for the next one that asks the same.
        value = {**value, "status": "granted"}
        late_change = Change(activity=False)
        late_change.put.append(_record(actor, found[0].key, value))
        await actor.commit(late_change)
    return value


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
