"""Events on their way into the log: open? duplicate? guards, may-write, commit (D20). All of it runs in the actor.

Inbound messages, host messages, injected events and replies pass the same gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roomkit.core import membership, policy
from roomkit.core.actor import Change, Entry, RoomActor
from roomkit.core.results import InboundResult, Settlement
from roomkit.core.state import event_by_id, key
from roomkit.errors import UsageError
from roomkit.models.content import DeleteContent, EditContent, ReactionContent, valid
from roomkit.models.event import EventDraft, EventStatus, EventType, RoomEvent
from roomkit.models.hooks import BeforeCommit, ChainDepthExceeded, Injected, RoomRefused
from roomkit.models.room import Participant, Room, RoomStatus
from roomkit.ports.channel import ChannelOutput
from roomkit.ports.store import Duplicate, Record, RecordKey, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.hooks import Outcome
    from roomkit.models.delivery import InboundMessage

_ACTIONS = {EventType.EDIT, EventType.DELETE, EventType.REACTION}
_REPLACING = {EventType.EDIT, EventType.DELETE}
_MESSAGE, _PAUSED = EventType.MESSAGE, RoomStatus.PAUSED  # Looked up once: in Python 3.11 that is a call each time.
_KINDS: dict[type[Any], EventType] = {
    EditContent: EventType.EDIT,
    DeleteContent: EventType.DELETE,
    ReactionContent: EventType.REACTION,
}
"""What content makes of an event that says nothing else about itself."""


@dataclass(slots=True)
class Submission:
    """One event that wants in. `binding_required` is false for the host's own writing."""

    draft: EventDraft
    settlement: Settlement
    binding_required: bool = True
    dedupe: tuple[str, str, float] | None = None
    """As `Change.dedupe_for`."""
    person: Participant | None = None
    joins: bool = False
    """Whether the person was not in the room yet when this was made."""
    status: EventStatus = EventStatus.COMMITTED
    targets: tuple[str, ...] | None = None
    wake: tuple[str, ...] = ()
    guards: bool = True
    stream_id: str | None = None
    rows: Sequence[RecordKey] = ()
    put: Sequence[Record] = ()
    put_blocked: Sequence[Record] = ()
    """Written instead of `put` when the event is blocked."""
    output: ChannelOutput | None = None
    blocked: tuple[str, str] | None = None
    sides: Outcome | None = None
    """What guards have asked for already."""
    valid: bool = False
    """Whether its texts have been looked at."""
    origin: InboundMessage | None = None
    """The message that it was made of."""


def stamped(draft: EventDraft, channel_id: str, channel_type: str) -> EventDraft:
    """The same as this channel's own: a channel speaks as itself, whatever it claims."""
    source = draft.source
    if source.channel_id == channel_id and source.channel_type == channel_type:
        return draft
    return draft.replaced(source=source.replaced(channel_id=channel_id, channel_type=channel_type))


async def submit(actor: RoomActor, sub: Submission) -> InboundResult:
    """Takes one event through the gate and commits it, blocked ones as blocked."""
    closed, guarded = not actor.state.room.open, sub.guards and actor.engine.hooks.guarded(BeforeCommit)
    if sub.dedupe is not None and (closed or guarded):
        known = await known_duplicate(actor, *sub.dedupe[:2])
        if known is not None:
            return known
    if closed:
        return await _refuse_closed(actor, sub)
    draft, target = _typed(sub.draft if sub.valid else _whole(sub.draft)), None
    joining = await _joining(actor, sub, alone=guarded or draft.type in _ACTIONS)
    if draft.parent_event_id is not None:
        draft = await _thread_root(actor, draft)
    if draft.type in _ACTIONS:
        refusal, draft, target = await _aim(actor, draft)
        if refusal:
            await forget(actor, sub.rows, sub.output)
            return InboundResult(None, actor.room_id, blocked=True, reason=refusal, settlement=sub.settlement)
    change = _begun(sub, joining)
    outcome = await _guard(actor, draft) if guarded else None
    entry = _verdict(actor, sub, outcome.value if outcome else draft, outcome)
    change.add(entry)
    change.put.extend(sub.put_blocked if entry.blocked_by else sub.put)
    if target is not None and not entry.blocked_by:
        await _mutate(actor, change, target, entry.draft)
    _side_records(change, sub.output, outcome, sub.sides)
    _wake_up(actor, sub, change)
    consent, courtesy = actor.engine.consent, actor.engine.options.courtesy
    heard = consent is not None and await consent.attend(actor, entry, change, sub.origin)
    if courtesy is not None and not heard and not entry.blocked_by:
        courtesy.attend(actor, entry, change)
    before = actor.state.room
    _renew(actor, change, draft.source.participant_id)
    done = await actor.commit(change)
    if actor.state.room is not before:
        _room_changed(actor, before)
    if isinstance(done, Duplicate):
        return await _first_of(actor, done)
    event = done[change.first]
    if event.blocked_by == "event_chain_depth_limit":
        actor.engine.hooks.tell(ChainDepthExceeded(actor.tenant, actor.room_id, event))
    reason = event.blocked_reason or event.blocked_by
    return InboundResult(event, actor.room_id, blocked=event.blocked, reason=reason, settlement=sub.settlement)


async def _joining(actor: RoomActor, sub: Submission, *, alone: bool) -> Participant | None:
    """Who is new to the room and joins it with what they write: before it where somebody looks at it first."""
    if not sub.joins or sub.person is None:
        return None
    if sub.person.id in actor.state.participants:  # With another message meanwhile; they may even be out again.
        sub.person = None
    elif alone or actor.engine.consent is not None or actor.engine.options.courtesy is not None:
        await membership.add_person(actor, sub.person)
    else:
        return sub.person
    return None


def _begun(sub: Submission, joining: Participant | None) -> Change:
    change = Change(settlement=sub.settlement, dedupe_for=sub.dedupe)
    change.delete.extend(sub.rows)
    if joining is not None:
        membership.join(change, joining)
        change.first = 1
    return change


def _renew(actor: RoomActor, change: Change, who: str | None) -> None:
    """Whatever way its holder writes, the lease of the floor begins anew."""
    room = change.room or actor.state.room
    if room.floor.holder is None:
        return
    now = actor.engine.now()
    floor = policy.renewed(room.floor, who, now)
    if floor is not None:
        change.room = room.replaced(floor=floor, updated_at=now)


def _room_changed(actor: RoomActor, before: Room) -> None:
    if actor.state.room.attention is not before.attention:
        actor.engine.attention.changed(actor)


def _whole(draft: EventDraft) -> EventDraft:
    try:
        return valid(draft)
    except RecursionError:
        raise UsageError("the event is nested too deep to be looked through; make its data flatter") from None


def _typed(draft: EventDraft) -> EventDraft:
    kind = _KINDS.get(type(draft.content)) if draft.type is _MESSAGE else None
    return draft if kind is None else draft.replaced(type=kind)


async def _refuse_closed(actor: RoomActor, sub: Submission) -> InboundResult:
    """Nothing grows a closed room: not even a blocked event is stored."""
    actor.engine.hooks.tell(RoomRefused(actor.tenant, actor.room_id, "room_closed", sub.draft.source.channel_id))
    actor.engine.count("refused_room_closed")
    channel = actor.engine.channels.get(sub.draft.source.channel_id)
    if actor.engine.consent is not None and sub.origin is not None and channel is not None:
        await actor.engine.consent.overheard(actor.tenant, channel, sub.origin)
    await forget(actor, sub.rows)
    return InboundResult(None, actor.room_id, blocked=True, reason="room_closed", settlement=sub.settlement)


def _verdict(actor: RoomActor, sub: Submission, draft: EventDraft, outcome: Outcome | None) -> Entry:
    entry = Entry(draft, status=sub.status, targets=sub.targets, stream_id=sub.stream_id, wake=sub.wake)
    if sub.blocked is not None:
        entry.blocked_by, entry.blocked_reason = sub.blocked
        return entry
    if outcome is not None and outcome.blocked_by:
        entry.blocked_by, entry.blocked_reason = outcome.blocked_by, outcome.reason
        return entry
    binding = actor.state.bindings.get(draft.source.channel_id)
    if binding is None and sub.binding_required:
        entry.blocked_by = "source_not_attached"
        return entry
    writer = actor.state.participants.get(draft.source.participant_id or "")
    if writer is not None and writer.status in membership.GONE:
        entry.blocked_by = membership.GONE[writer.status]
        return entry
    entry.blocked_by = policy.may_write(binding, draft.chain_depth, actor.engine.options.max_chain_depth).blocked_by
    return entry


async def _guard(actor: RoomActor, draft: EventDraft) -> Outcome:
    source = draft.source
    moment = BeforeCommit(actor.state.snapshot, draft, source.channel_id, source.channel_type, source.direction)
    outcome = await actor.engine.hooks.run(moment)
    if outcome.metadata:
        merged = {**outcome.value.metadata, **outcome.metadata}
        outcome.value = outcome.value.model_copy(update={"metadata": merged})
    if outcome.value.source.raw_payload is not None and outcome.value.content != draft.content:
        # What a guard takes out of the words is not to stay in the vendor's copy of them.
        kept = outcome.value.source.model_copy(update={"raw_payload": None})
        outcome.value = outcome.value.model_copy(update={"source": kept})
    return outcome


def _injected(injected: Injected) -> Entry:
    """Shown where it is delivered: history and live views must not tell others what `targets` keeps from them."""
    draft, targets = valid(injected.draft), injected.targets or ()
    if draft.visibility == "all":
        draft = draft.replaced(visibility=",".join(targets) or "internal")
    return Entry(draft, targets=targets, wakes=False)


def _side_records(change: Change, output: ChannelOutput | None, *outcomes: Outcome | None) -> None:
    """Tasks and observations always flow: muting silences the voice, not the brain."""
    if output is not None:
        change.tasks.extend(output.tasks)
        change.observations.extend(output.observations)
    for outcome in outcomes:
        if outcome is not None:
            change.tasks.extend(outcome.tasks)
            change.observations.extend(outcome.observations)
            change.entries.extend(map(_injected, outcome.inject))


async def keep_sides(actor: RoomActor, outcome: Outcome) -> None:
    """Commits what the guards of a moment that commits nothing itself have asked for (D20)."""
    change = Change(activity=False)
    if actor.state.room.open:
        _side_records(change, None, outcome)
    if change.entries or change.tasks or change.observations:
        await actor.commit(change)


def _wake_up(actor: RoomActor, sub: Submission, change: Change) -> None:
    """A message resumes a paused room, and is where its writer was seen last."""
    room = actor.state.room
    if room.status is _PAUSED:
        change.room = room.model_copy(
            update={"status": RoomStatus.ACTIVE, "paused_at": None, "updated_at": actor.engine.now()}
        )
        change.system(EventType.ROOM_RESUMED, "room_resumed", visibility="all")
        membership.plan_timers(actor, change)
    person = sub.person
    if person is not None and actor.state.participants.get(person.id) is not person:
        change.participants[person.id] = person


async def _thread_root(actor: RoomActor, draft: EventDraft) -> EventDraft:
    """Threads are flat: a reply to a reply belongs to the root; a parent from elsewhere makes it top level."""
    parent = await event_by_id(actor.engine.store, actor.tenant, actor.room_id, draft.parent_event_id or "")
    if parent is None:
        actor.engine.warn(
            actor, f"parent event {draft.parent_event_id} is not of this room: kept as a top-level message"
        )
        return draft.model_copy(
            update={"parent_event_id": None, "metadata": {**draft.metadata, "unknown_parent": draft.parent_event_id}}
        )
    root = parent.parent_event_id or parent.id
    return draft if root == draft.parent_event_id else draft.model_copy(update={"parent_event_id": root})


async def _aim(actor: RoomActor, draft: EventDraft) -> tuple[str, EventDraft, RoomEvent | None]:
    """Finds what an edit, delete or reaction is aimed at, and why it may not be."""
    content = draft.content
    if not isinstance(content, (EditContent, DeleteContent, ReactionContent)):
        return "content_does_not_match_type", draft, None
    target: RoomEvent | None = await event_by_id(
        actor.engine.store, actor.tenant, actor.room_id, content.target_event_id
    )
    binding = actor.state.bindings.get(draft.source.channel_id)
    who = draft.source.participant_id
    if target is None or target.blocked or (binding is not None and not policy.may_see(target, binding, who)):
        return "target_event_not_found", draft, None
    if not isinstance(content, ReactionContent):
        author = actor.state.participants.get(who or "")
        refusal = policy.may_mutate(content, draft, target, author)
        if not refusal and target.type in _REPLACING:
            refusal = "target_is_no_message"
        if not refusal and isinstance(content, EditContent) and (await _mark(actor, target.index)).get("deleted"):
            refusal = "target_event_deleted"
        if refusal:
            return refusal, draft, None
    # Who could not see the original must not see what replaces it.
    wanted = policy.effective_visibility(draft.visibility, binding)
    if policy.within(wanted, target.visibility, actor.state.bindings):
        return "", draft, target
    if wanted == "all" or (draft.visibility == "all" and isinstance(content, DeleteContent)):
        return "", draft.replaced(visibility=target.visibility), target
    return "wider_than_target", draft, None


async def _mutate(actor: RoomActor, change: Change, target: RoomEvent, draft: EventDraft) -> None:
    """What the event does to its target, in the words that the guards have passed."""
    binding = actor.state.bindings.get(draft.source.channel_id)
    visibility = policy.effective_visibility(draft.visibility, binding)
    mark = altered(await _mark(actor, target.index), draft, visibility, target)
    change.put.append(_marked(actor, target.index, mark))
    if isinstance(draft.content, EditContent):
        own = actor.state.next_index + len(change.entries) - 1
        change.put.append(_marked(actor, own, {"index": own, "of": target.index}))


def altered(mark: dict[str, Any], by: EventDraft | RoomEvent, visibility: str, target: RoomEvent) -> dict[str, Any]:
    """The mark of `target` after an edit, a deletion or a reaction that who may see `visibility` knows of."""
    content, source = by.content, by.source
    seen = {"visibility": visibility, "channel": source.channel_id, "by": source.participant_id}
    if isinstance(content, DeleteContent):
        return {**mark, "deleted": True, "reason": content.reason, "told": seen}
    if isinstance(content, ReactionContent):
        who = source.participant_id or source.external_id or ""
        alone = bool(by.metadata.get("sole_reaction")) or not content.emoji
        return _reacted(mark, content, who, None if visibility == target.visibility else seen, alone)
    if isinstance(content, EditContent):
        others = [edit for edit in mark.get("edits", ()) if {k: edit.get(k) for k in seen} != seen]
        return {**mark, "edits": [*others, {"content": content.model_dump(mode="json"), **seen}]}
    return mark


def _marked(actor: RoomActor, index: int, value: dict[str, Any]) -> Record:
    return Record("mutation", actor.tenant, key(actor.room_id, index), value, actor.room_id)


async def _mark(actor: RoomActor, index: int) -> dict[str, Any]:
    found = await actor.engine.store.records(RecordQuery("mutation", actor.tenant, key=key(actor.room_id, index)))
    return dict(found[0].value) if found else {"index": index}


def _reacted(
    value: dict[str, Any], content: ReactionContent, who: str, seen: dict[str, Any] | None, alone: bool
) -> dict[str, Any]:
    """Who is in the list by name alone reacted before the eyes of everybody who sees the target, others for `seen`.
    `alone` is a reaction in place of whatever they had put there: some networks have one of each person."""
    reactions = {
        emoji: [
            p for p in people if not (alone or emoji == content.emoji) or (p if isinstance(p, str) else p["who"]) != who
        ]
        for emoji, people in value.get("reactions", {}).items()
    }
    if not content.removed:
        reactions.setdefault(content.emoji, []).append(who if seen is None else {"who": who, **seen})
    return {**value, "reactions": {emoji: people for emoji, people in reactions.items() if people}}


async def known_duplicate(actor: RoomActor, channel_id: str, dedupe_key: str) -> InboundResult | None:
    found = await actor.engine.store.records(RecordQuery("dedupe", actor.tenant, key=f"{channel_id}\n{dedupe_key}"))
    if not found:
        return None
    value = found[0].value
    return await _first_of(actor, Duplicate(value["room_id"], value["event_id"], value["index"]))


async def _first_of(actor: RoomActor, duplicate: Duplicate) -> InboundResult:
    """What a redelivery gets: the first event, blocked or not, and nothing else happens (D22)."""
    actor.engine.count("duplicates")
    return await actor.engine.event_result(actor.tenant, duplicate.room_id, duplicate.event_id)


async def submit_reply(
    actor: RoomActor,
    draft: EventDraft,
    floor_generation: int,
    rows: list[RecordKey],
    output: ChannelOutput | None,
    settlement: Settlement | None,
    stream_id: str | None = None,
    blocked: tuple[str, str] | None = None,
    sides: Outcome | None = None,
) -> RoomEvent | None:
    """A brain's answer re-enters through the same gate, one step deeper; its rows leave in the same transaction."""
    if blocked is None and floor_generation != actor.state.room.floor.generation:
        blocked = ("floor_changed", "somebody else took the floor")
    sub = Submission(
        draft,
        settlement or Settlement(),
        stream_id=stream_id,
        valid=stream_id is not None,  # what is shown while it grows is looked at as it comes
        rows=rows,
        output=output,
        blocked=blocked,
        guards=blocked is None,
        sides=sides,
    )
    result = await submit(actor, sub)
    return result.event


async def cut_short(
    actor: RoomActor, change: Change, draft: EventDraft, floor_generation: int, blocked: tuple[str, str] | None
) -> Entry:
    """Adds a reply that did not come to its end to `change`: it passes the gate, and wakes nobody."""
    if blocked is None and floor_generation != actor.state.room.floor.generation:
        blocked = ("floor_changed", "somebody else took the floor")
    outcome = await _guard(actor, draft) if blocked is None and actor.engine.hooks.guarded(BeforeCommit) else None
    sub = Submission(draft, Settlement(), stream_id=draft.event_id, blocked=blocked)
    entry = _verdict(actor, sub, outcome.value if outcome else draft, outcome)
    entry.wakes = False
    change.add(entry)
    _side_records(change, None, outcome)
    return entry


def add_sides(actor: RoomActor, change: Change, sides: Outcome | None) -> None:
    """Adds what guards have asked for already to somebody's commit; nothing grows a closed room."""
    if actor.state.room.open:
        _side_records(change, None, sides)


async def forget(
    actor: RoomActor, rows: Iterable[RecordKey], output: ChannelOutput | None = None, sides: Outcome | None = None
) -> None:
    """Removes rows whose work is over without a message, keeping the side records."""
    change = Change(activity=False)
    change.delete.extend(rows)
    if actor.state.room.open:
        _side_records(change, output, sides)
    if change.delete or change.entries or change.tasks or change.observations:
        await actor.commit(change)


async def merge_binding_metadata(actor: RoomActor, channel_id: str, updates: dict[str, Any]) -> None:
    binding = actor.state.bindings.get(channel_id)
    if binding is None:
        return
    change = Change(activity=False)
    change.bindings[channel_id] = binding.model_copy(update={"metadata": {**binding.metadata, **updates}})
    await actor.commit(change)
