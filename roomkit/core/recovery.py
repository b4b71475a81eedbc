"""After a restart: deliveries go on, replies that were cut are closed with their durable text, questions are asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from roomkit.core import approvals, messages
from roomkit.core.actor import Change, Entry, RoomActor
from roomkit.core.checkpoint import WORDS
from roomkit.core.history import history_reader, recorded_answers
from roomkit.core.lanes import Item
from roomkit.core.replies import Reply
from roomkit.core.state import event_by_id
from roomkit.core.turn_port import Turn
from roomkit.errors import StateError, StoreError
from roomkit.models.content import TextContent, ToolCallContent
from roomkit.models.event import EventDraft, EventSource, EventType, RoomEvent
from roomkit.models.room import ChannelBinding, Observation
from roomkit.ports.channel import RoomContext
from roomkit.ports.store import Record, RecordKey, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
ALL = 10_000_000
MOST_ASKED = 5
"""Restarts that one question without a first word survives: it may be what stops the process."""


async def recover(engine: Engine) -> dict[str, int]:
    """Resumes everything unfinished; returns how much there was of each kind."""
    counts = {"streams": 0, "turns": 0, "outbox": 0}
    # Deliveries first: what the closing of a cut reply adds comes after them in their lanes, and is no row of theirs.
    for record in await engine.store.records(RecordQuery("outbox", None, limit=ALL)):
        actor = await engine.table.actor(record.tenant, record.room_id or "")
        if actor is not None:
            resume_delivery(actor, record)
            counts["outbox"] += 1
    for record in await engine.store.records(RecordQuery("stream", None, limit=ALL)):
        actor = await engine.table.actor(record.tenant, record.room_id or "")
        if actor is not None and await _closed(actor, record):
            counts["streams"] += 1
    for record in await engine.store.records(RecordQuery("turn", None, limit=ALL)):
        actor = await engine.table.actor(record.tenant, record.room_id or "")
        if actor is not None and await _ask_again(engine, actor, record):
            counts["turns"] += 1
    engine.lanes.dead = len(await engine.store.records(RecordQuery("dead", None, limit=ALL)))
    if any(counts.values()):
        log.info("resumed after restart: %(outbox)d deliveries, %(turns)d questions, %(streams)d cut replies", counts)
    return counts


def resume_delivery(actor: RoomActor, record: Record) -> None:
    """Puts one row of the outbox back into its lane."""
    value = record.value
    item = Item(None, value["index"], value["event_id"], None, value["attempts"])
    item.parts = tuple(value.get("parts", ()))
    item.way = {name: value[name] for name in ("via", "instead_of") if name in value} or None
    actor.engine.lanes.put(actor, value["channel"], item)


async def resume_replies(actor: RoomActor, streams: Sequence[Record], turns: Sequence[Record]) -> None:
    """One room's cut replies, then the questions that nobody has begun to answer: of those read before anybody could
    ask a new one. It waits for a store that does not work: nobody else would come back to them."""
    answered: set[str] = set()
    for record in streams:
        answered.update(record.value["turns"])
        await actor.engine.insist(partial(_closed, actor, record), f"the end of a cut reply in {actor.room_id}")
    for record in turns:
        await actor.engine.insist(partial(_asked, actor, record, answered), f"a question in {actor.room_id}")


async def _asked(actor: RoomActor, record: Record, answered: set[str]) -> None:
    if record.key in answered:
        found = await actor.engine.store.records(RecordQuery("turn", actor.tenant, key=record.key))
        if not found:
            return
    await _ask_again(actor.engine, actor, record)


async def _closed(actor: RoomActor, record: Record) -> bool:
    """One reply that cannot be closed must not keep everything else from starting."""
    try:
        # Outside the room: a tool that runs again may well speak in it.
        calls = await _cut_calls(actor, record)
        await actor.call(_close_stream, record, calls)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - told, and left for somebody to look at
        actor.engine.trouble(actor, "closing a cut reply", error)
        return False
    return True


async def _close_stream(actor: RoomActor, record: Record, calls: list[tuple[Record, ToolCallContent]]) -> None:
    """The reply ends as interrupted, with what is durable of it; every call gets its one answer (R7, R8). One that had
    not begun to say or do anything is asked again; none ends without a trace in the room."""
    value = record.value
    text, segments = await _kept_text(actor, record)
    channel = actor.engine.channels.get(value["channel"])
    by_policy = channel is not None and channel.turn_policy.on_crash == "ask_again"
    binding = actor.state.bindings.get(value["channel"])
    source = EventSource(
        channel_id=value["channel"],
        channel_type=binding.channel_type if binding else "ai",
        direction="outbound",
        participant_id=binding.participant_id if binding else None,
    )
    change = Change()
    silent = not text and not await _did_anything(actor, record)
    again = by_policy or (silent and await _count_again(actor, change, value["turns"]))
    _close_calls(actor, change, calls, source)
    stored = await event_by_id(actor.engine.store, actor.tenant, actor.room_id, value["id"])
    if text and stored is None and actor.state.room.open:
        draft = EventDraft(
            event_id=value["id"],
            source=source,
            content=TextContent(text=text),
            chain_depth=value["depth"],
            parent_event_id=value.get("parent"),
            correlation_id=value["cause"],
            metadata={"end_reason": "interrupted", "interrupted": "crash"},
        )
        await messages.cut_short(actor, change, draft, actor.state.room.floor.generation, None)
    change.delete.append(RecordKey("stream", actor.tenant, record.key))
    change.delete.extend(segments)
    if not again:
        if not text:
            _leave_word(actor, change, value)
        change.delete.extend(RecordKey("turn", actor.tenant, row) for row in value["turns"])
    await actor.commit(change)


async def _kept_text(actor: RoomActor, record: Record) -> tuple[str, list[RecordKey]]:
    """What is durable of a cut reply, and the rows beside its own in which it stands."""
    rows: list[Record] = []
    while True:
        after = rows[-1].key if rows else None
        query = RecordQuery(WORDS, actor.tenant, prefix=f"{record.key}\n", after=after, limit=500)
        page = await actor.engine.store.records(query)
        rows += page
        if len(page) < 500:
            break
    text = ""
    for part in (*(row.value for row in rows), record.value):
        start, end = part.get("start", 0), part.get("start", 0) + len(part["text"])
        if start <= len(text) < end:
            text = text[:start] + part["text"]
    return text, [RecordKey(WORDS, actor.tenant, row.key) for row in rows]


async def _did_anything(actor: RoomActor, record: Record) -> bool:
    """Whether a tool of the reply had been started, or waits for a person whose answer begins the next turn."""
    query = RecordQuery("journal", actor.tenant, prefix=f"{record.key}\n", limit=1)
    if await actor.engine.store.records(query):
        return True
    cause, channel = record.value["cause"], record.value["channel"]
    asked = [
        *await approvals.pending(actor.engine, actor.tenant, actor.room_id),
        *await approvals.pending(actor.engine, actor.tenant, actor.room_id, "granted"),
    ]
    return any(a.value["channel"] == channel and cause in a.value.get("causes", ()) for a in asked)


async def _count_again(actor: RoomActor, change: Change, rows: list[str]) -> bool:
    """Whether the questions may be asked once more; counts that they are."""
    turns: list[Record] = []
    for row in rows:
        turns += await actor.engine.store.records(RecordQuery("turn", actor.tenant, key=row))
    if any(turn.value.get("asked", 1) >= MOST_ASKED for turn in turns):
        return False
    for turn in turns:
        value = {**turn.value, "asked": turn.value.get("asked", 1) + 1}
        change.put.append(Record("turn", actor.tenant, turn.key, value, actor.room_id))
    return True


def _leave_word(actor: RoomActor, change: Change, value: dict[str, Any]) -> None:
    """A question that gets no answer is seen by whoever looks at the room."""
    if actor.state.room.open:
        told = {"channel_id": value["channel"], "cause": value["cause"], "reason": "crash"}
        change.system(EventType.SYSTEM, "reply_interrupted", visibility="transport", **told)
        text = f"{value['channel']} was interrupted before it answered"
        change.observations.append(
            Observation(id=actor.engine.new_id(), kind="reply_interrupted", content=text, event_id=value["cause"])
        )


async def _cut_calls(actor: RoomActor, record: Record) -> list[tuple[Record, ToolCallContent]]:
    """The rows of the calls without an answer, each with its answer."""
    engine = actor.engine
    prefix = f"{record.key}\n"
    calls: list[tuple[Record, ToolCallContent]] = []
    for journal in await engine.store.records(RecordQuery("journal", actor.tenant, prefix=prefix, limit=ALL)):
        value: dict[str, Any] = journal.value
        if value["status"] != "pending":
            continue
        call = ToolCallContent.model_validate({k: v for k, v in value.items() if k in ToolCallContent.model_fields})
        calls.append((journal, await _outcome(engine, actor, call, value, record)))
    return calls


def _close_calls(
    actor: RoomActor, change: Change, calls: list[tuple[Record, ToolCallContent]], source: EventSource
) -> None:
    for journal, call in calls:
        value: dict[str, Any] = journal.value
        kept = {**value, **call.model_dump(mode="json")}
        change.put.append(Record("journal", actor.tenant, journal.key, kept, actor.room_id))
        if actor.state.room.open:
            draft = EventDraft(
                source=source,
                content=call,
                type=EventType.TOOL_CALL_END,
                visibility="internal",
                correlation_id=value["reply"],
                metadata={"tool_record": True, "after_crash": True},
            )
            change.add(Entry(draft, targets=()))


async def _outcome(
    engine: Engine, actor: RoomActor, call: ToolCallContent, value: dict[str, Any], record: Record
) -> ToolCallContent:
    """An idempotent tool runs again under the same key; of any other nobody knows whether it ran."""
    rerun = getattr(engine.channels.get(value["channel"]), "rerun_tool", None)
    binding = actor.state.bindings.get(value["channel"])
    if value.get("idempotent") and rerun is not None and binding is not None and actor.state.room.open:
        try:
            context = await _context(engine, actor, binding, record)
            return await rerun(call, room_id=actor.room_id, tenant=actor.tenant, context=context)
        except Exception as error:  # noqa: BLE001 - a tool is user code
            return call.model_copy(update={"status": "failed", "error": f"{type(error).__name__}: {error}"})
    return call.model_copy(update={"status": "unknown_outcome", "error": "the process stopped while it was running"})


async def _context(engine: Engine, actor: RoomActor, binding: ChannelBinding, record: Record) -> RoomContext:
    """What the cut turn knew of its room, as the room is now. Raises `StateError` when a question of it is gone."""
    value = record.value
    wanted = [value["cause"]]
    for row in value["turns"]:
        found = await engine.store.records(RecordQuery("turn", actor.tenant, key=row))
        wanted += [turn.value["event_id"] for turn in found]
    events: dict[str, RoomEvent] = {}
    for event_id in wanted:
        event = await event_by_id(engine.store, actor.tenant, actor.room_id, event_id)
        if event is None:
            raise StateError("the question of the cut reply is gone")
        events[event_id] = event
    asked = sorted(events.values(), key=lambda event: event.index)
    reply = Reply(engine, actor, binding.channel_id, events[value["cause"]], depth=value["depth"])
    reply.id = value["id"]
    return RoomContext(
        room=actor.state.snapshot(),
        binding=binding,
        bindings=actor.state.seats,
        participants=actor.state.people,
        history=history_reader(engine, actor, binding.channel_id),
        turn=Turn(engine, actor, binding.channel_id, reply, asked),
        events=tuple(asked),
        answers=recorded_answers(actor),
    )


async def _ask_again(engine: Engine, actor: RoomActor, record: Record) -> bool:
    event = await event_by_id(engine.store, actor.tenant, actor.room_id, record.value["event_id"])
    if event is None or not actor.state.room.open:
        await engine.forget_row(actor, record)
        return False
    engine.turns.enqueue(actor, record.value["channel"], event, None)
    return True
