"""PURE: who may write, who sees, who is asked, how deep a chain may go. No state, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from math import isfinite
from typing import TypeVar, cast

from pydantic import ValidationError
from pydantic_core import to_json

from roomkit.errors import UsageError
from roomkit.models.content import DeleteContent, EditContent
from roomkit.models.event import EventDraft, EventType, RoomEvent
from roomkit.models.room import (
    AgentResponsePolicy,
    Category,
    ChannelBinding,
    Floor,
    FloorMode,
    Participant,
    Role,
    Room,
    person_token,
)

E = TypeVar("E", bound=StrEnum)
LONGEST_S = 10 * 365 * 86_400.0
"""Ten years: no lease and no room timer is longer, so that every one of them has a date."""

EARLY_S = 1e-3
"""Clocks round: a timer that rings so much too early rings in time. Armed again instead, it would ring at once, and
again, as long as the clock stands still."""

MAX_CHAIN_DEPTH = 5
"""An event at this depth is stored as blocked; it cannot be switched off."""

PERSON = person_token("")
SOLICITING = frozenset({EventType.MESSAGE})
OUTBOUND = frozenset({EventType.MESSAGE, EventType.EDIT, EventType.DELETE, EventType.REACTION, EventType.DTMF})
"""Only what people and agents say leaves the house; the timeline stays on dashboards and sockets."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an event may be written: `blocked_by` names the rule, empty when allowed."""

    blocked_by: str = ""

    @property
    def allowed(self) -> bool:
        return not self.blocked_by


ALLOWED = Verdict()


def may_write(binding: ChannelBinding | None, chain_depth: int, max_depth: int = MAX_CHAIN_DEPTH) -> Verdict:
    """The gate of every writer, replies included. No binding means the framework itself or the host."""
    if chain_depth >= max_depth:
        return Verdict("event_chain_depth_limit")
    if binding is None:
        return ALLOWED
    if not binding.can_write:
        return Verdict("source_read_only")
    if binding.muted:
        return Verdict("source_muted")
    return ALLOWED


@lru_cache(maxsize=4096)
def _ids(visibility: str) -> frozenset[str]:
    return frozenset(part.strip() for part in visibility.split(",") if part.strip())


def visible(visibility: str, channel_id: str, category: Category, person: str | None = None) -> bool:
    """Whether a channel, or the `person` at its other end, may see what carries `visibility`. Unknown names in a list
    are ignored."""
    if visibility == "all":
        return True
    if visibility in ("none", "internal"):
        return False
    if visibility == "transport":
        return category is Category.TRANSPORT
    if visibility == "intelligence":
        return category is Category.INTELLIGENCE
    names = _ids(visibility)
    return channel_id in names or (person is not None and person_token(person) in names)


def within(inner: str, outer: str, bindings: Mapping[str, ChannelBinding]) -> bool:
    """Whether everybody who may see `inner` may see `outer` too."""
    if outer in ("all", inner) or inner in ("none", "internal"):
        return True
    if outer in ("none", "internal") or inner in ("all", "transport", "intelligence"):
        return False
    for name in _ids(inner) - _ids(outer):
        seat = bindings.get(name)
        if seat is not None and not visible(outer, name, seat.category, seat.participant_id):
            return False
        if seat is None and (outer != "transport" or not name.startswith(PERSON)):
            return False
    return True


def effective_visibility(own: str, binding: ChannelBinding | None) -> str:
    """What is stamped at commit (D9): the event's own value unless it is "all", else the source binding's."""
    return own if own != "all" or binding is None else binding.visibility


def may_see(event: RoomEvent, binding: ChannelBinding, person: str | None = None) -> bool:
    """The one visibility rule: delivery, streams and rebuilt history all ask here. A `person` who shares the channel
    with others looks through its seat, and has only their own words for their own."""
    if event.blocked:
        return False
    source = event.source
    if source.channel_id == binding.channel_id and own(source.participant_id, person):
        return True
    if not binding.can_read:
        return False
    if event.visibility == "all":
        return True
    return visible(event.visibility, binding.channel_id, binding.category, person or binding.participant_id)


def own(author: str | None, person: str | None) -> bool:
    """Whether what came over one's own channel is one's own."""
    return person is None or author is None or author == person


@dataclass(frozen=True, slots=True)
class DeliveryPlan:
    """Where one event goes. `skipped` tells why a binding gets nothing; `fallbacks` maps a chosen binding to the
    other ways to the same person (D28), best first."""

    outbox: tuple[str, ...] = ()
    cursors: tuple[str, ...] = ()
    turns: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    fallbacks: tuple[tuple[str, tuple[str, ...]], ...] = ()


EMPTY_PLAN = DeliveryPlan()


def plan(
    event: RoomEvent | EventDraft,
    visibility: str,
    room: Room,
    bindings: Iterable[ChannelBinding],
    reach: Mapping[str, str],
    participants: Mapping[str, Participant],
) -> DeliveryPlan:
    """The delivery plan of a committed, unblocked event. `reach` maps a channel id to how the core gets to it."""
    outbox: list[ChannelBinding] = []
    cursors: list[str] = []
    turns: list[str] = []
    skipped: list[tuple[str, str]] = []
    source_id = event.source.channel_id
    source: ChannelBinding | None = None
    outbound = event.type in OUTBOUND
    for binding in bindings:
        cid = binding.channel_id
        if cid == source_id:
            source = binding
            continue
        if not binding.can_read or binding.direction == "inbound":
            skipped.append((cid, "no_read_access"))
        elif not visible(visibility, cid, binding.category, binding.participant_id):
            skipped.append((cid, "not_visible"))
        elif reach.get(cid) == "turn":
            turns.append(cid)
        elif binding.output_muted:
            skipped.append((cid, "output_muted"))
        elif reach.get(cid) == "cursor":
            cursors.append(cid)
        elif outbound and reach.get(cid) is not None:
            if room.forked_from is None:
                outbox.append(binding)
            else:
                skipped.append((cid, "forked"))
    author = event.source.participant_id
    once = outbox and (len(outbox) > 1 or author is not None)
    chosen, doubles, fallbacks = _reach_once(outbox, room, participants, author) if once else (outbox, [], [])
    turns = solicited(event, turns, room, source)
    return DeliveryPlan(
        outbox=tuple(b.channel_id for b in chosen),
        cursors=tuple(cursors),
        turns=tuple(turns),
        skipped=(*skipped, *doubles),
        fallbacks=tuple(fallbacks),
    )


def _reach_once(
    outbox: list[ChannelBinding], room: Room, participants: Mapping[str, Participant], author: str | None
) -> tuple[list[ChannelBinding], list[tuple[str, str]], list[tuple[str, tuple[str, ...]]]]:
    """Each person gets one copy; who wrote it has it already, and needs none on another channel."""
    if room.delivery == "every_channel":
        return outbox, [], []
    chosen: list[ChannelBinding] = []
    doubles: list[tuple[str, str]] = []
    fallbacks: list[tuple[str, tuple[str, ...]]] = []
    by_person: dict[str, list[ChannelBinding]] = {}
    for binding in outbox:
        if binding.participant_id is None:
            chosen.append(binding)
        elif binding.participant_id == author:
            doubles.append((binding.channel_id, "own_message"))
        else:
            by_person.setdefault(binding.participant_id, []).append(binding)
    for person, ways in by_person.items():
        known = participants.get(person)
        last = known.last_channel_id if known else None
        ways.sort(key=lambda b: (b.channel_id != last, b.attached_at, b.channel_id))
        chosen.append(ways[0])
        rest = tuple(b.channel_id for b in ways[1:])
        doubles.extend((cid, "reach_once") for cid in rest)
        if rest:
            fallbacks.append((ways[0].channel_id, rest))
    return chosen, doubles, fallbacks


def solicited(
    event: RoomEvent | EventDraft, candidates: list[str], room: Room, source: ChannelBinding | None
) -> list[str]:
    """The intelligence channels that are asked to answer. Addressing never changes who sees."""
    if event.type not in SOLICITING or not candidates or not ai_may_answer(room.floor):
        return []
    if event.addressed_to is not None:
        return [cid for cid in candidates if cid in event.addressed_to]
    by_agent = source is not None and source.category is Category.INTELLIGENCE
    if by_agent and room.agent_response_policy is AgentResponsePolicy.ADDRESSED_ONLY:
        return []
    return candidates


def ai_may_answer(floor: Floor) -> bool:
    return floor.mode in (FloorMode.AI, FloorMode.BOTH)


def renewed(floor: Floor, who: str | None, now: datetime) -> Floor | None:
    """The floor after `who` has done something: with a longer lease where they hold it and it would else lapse soon."""
    if floor.holder != who or floor.mode is not FloorMode.HUMAN or floor.lease_until is None:
        return None
    until = now + timedelta(seconds=floor.lease_seconds)
    if (until - floor.lease_until).total_seconds() < floor.lease_seconds / 4:
        return None
    return floor.replaced(lease_until=until)


def may_mutate(
    content: EditContent | DeleteContent, draft: EventDraft, target: RoomEvent | None, author: Participant | None
) -> str:
    """The reason why an edit or delete is refused, empty when allowed. Claims in the payload count for nothing:
    "system" and "admin" must be backed by the channel or by the participant's role; any other value is "sender"."""
    if target is None:
        return "target_event_not_found"
    claim = content.edit_source if isinstance(content, EditContent) else content.delete_type
    if claim == "system":
        return "" if draft.source.channel_type == "system" else "not_authorized"
    if claim == "admin":
        return "" if author is not None and author.role is Role.OWNER else "not_authorized"
    writer = draft.source.participant_id
    if writer is None and draft.source.external_id is None:
        return "identity_required_for_edit"
    # Who is who is known per channel only: a guest may carry anybody's id on a channel that lets it choose.
    same_channel = draft.source.channel_id == target.source.channel_id
    same = writer is not None and writer == target.source.participant_id
    same_address = draft.source.external_id is not None and draft.source.external_id == target.source.external_id
    return "" if same_channel and (same or same_address) else "not_original_author"


def choice(kind: type[E], value: E | str, what: str) -> E:
    """The value as what it has to be. Raises `UsageError` that names the choices."""
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f'{what} cannot be "{value}"; choose one of: {", ".join(kind)}') from None


@contextmanager
def wellformed(what: str) -> Generator[None]:
    """Turns a refusal of a model into a `UsageError` that names the field and what it takes."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise UsageError(f"{field} of {what} cannot be that: {first['msg']}") from None


MAX_NESTING = 100


def require_json(value: Mapping[str, object], what: str) -> None:
    """Refuses what no store takes, before anything is committed: data nested too deep, or no data at all."""
    level: list[object] = [value]
    for _ in range(MAX_NESTING):
        deeper: list[object] = []
        for one in level:
            if isinstance(one, Mapping):
                deeper += cast("Mapping[object, object]", one).values()
            elif isinstance(one, (list, tuple)):
                deeper += cast("list[object]", one)
        level = [one for one in deeper if isinstance(one, (Mapping, list, tuple))]
        if not level:
            break
    else:
        raise UsageError(f"{what} is nested deeper than {MAX_NESTING}; make it flatter")
    try:
        to_json(value)
    except ValueError as error:
        raise UsageError(f"{what} holds what JSON cannot: {error}") from None


def require_room_id(room_id: str) -> None:
    """Refuses signs that separate parts of addresses and of the store's keys."""
    if not room_id or any(sign in room_id for sign in "/~\n"):
        raise UsageError(f"{room_id!r} cannot be a room's id: leave out slashes, tildes and line breaks")


def require_seconds(seconds: float | None, what: str) -> None:
    """Refuses a span that no clock can keep, before anything is committed."""
    if seconds is not None and not (isfinite(seconds) and 0 < seconds <= LONGEST_S):
        raise UsageError(f"{what} is {seconds} seconds; give more than 0 and at most ten years")
