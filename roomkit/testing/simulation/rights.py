"""Who may see and who may speak, and who is asked, by rules of the judge's own: it cannot ask the core's, which may be
what is wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from roomkit.models.content import SystemContent
from roomkit.models.event import EventStatus, EventType, RoomEvent

if TYPE_CHECKING:
    from roomkit.testing.simulation.outside import Vendor
    from roomkit.testing.simulation.world import World

Logs = dict[tuple[str, str], list[RoomEvent]]
GOES_OUT = frozenset({EventType.MESSAGE, EventType.EDIT, EventType.DELETE, EventType.REACTION})
AFTER_THE_END = frozenset({EventType.SYSTEM, EventType.DELIVERY_FAILED})
"""What may still be noted in a room that is closed: that somebody was erased, that an old delivery came to nothing."""
HOLD_S = 0.5
"""For how long somebody holds a floor who does nothing more there."""
LATE_S = 0.5
"""From a commit until all have heard of it who are not stalled."""
NOTE = "between us"
PROPOSAL = "a proposal of"


def judge(world: World, logs: Logs) -> Iterator[str]:
    course = _course(world)
    yield from course.wrong
    yield from _late_comers(world, course)
    yield from _heard(world, course)
    sound = len(world.processes) == 1 and not (world.blackout or world.disk.broken)  # Nothing comes before a renewal.
    for log in logs.values():
        yield from _leases(log) if sound else ()
        yield from _closed(log)
        yield from _muted(log)
        yield from _drafts(log)
    if not any(room.startswith("fork-") for _, room in world.copies):  # Whose host may have a brain answer anything.
        yield from (f"the model was shown a note between colleagues at {at:.3f}" for at in world.model.overheard)


def may_see(event: RoomEvent, who: str) -> bool:
    """Whether a guest at a page of its own, on a channel that it shares with others, is to be shown the event."""
    if event.blocked:
        return False
    own = event.source.channel_id == "web" and event.source.participant_id in (None, who)
    return own or event.visibility in ("all", "transport", f"person:{who}")


def may_go_out(event: RoomEvent, vendor: Vendor) -> bool:
    """Whether a vendor may be given the event."""
    said = event.type in GOES_OUT and event.status is EventStatus.COMMITTED
    return said and event.visibility in ("all", "transport") and event.source.channel_id != vendor.name


def _closed(log: list[RoomEvent]) -> Iterator[str]:
    closed = False
    for event in log:
        if closed and event.type not in (EventType.ROOM_REOPENED, *AFTER_THE_END):
            yield f"{event.room_id}[{event.index}] is a {event.type.value}, although the room was closed"
        if event.type in (EventType.ROOM_CLOSED, EventType.ROOM_REOPENED):
            closed = event.type is EventType.ROOM_CLOSED


def _muted(log: list[RoomEvent]) -> Iterator[str]:
    muted = False
    for event in log:
        if event.type in (EventType.CHANNEL_MUTED, EventType.CHANNEL_UNMUTED):
            muted = event.type is EventType.CHANNEL_MUTED
        elif muted and event.source.channel_id == "ai" and event.type is EventType.MESSAGE and not event.blocked:
            yield f"the AI spoke at {event.room_id}[{event.index}], although it was muted"


def _drafts(log: list[RoomEvent]) -> Iterator[str]:
    """No draft is sent but those that somebody has allowed (`deeds._draft` tells which), and each once."""
    allowed, sent = Counter[str](), Counter[str]()
    for event in log:
        if isinstance(event.content, SystemContent) or not event.text.startswith(PROPOSAL):
            continue
        if event.status is EventStatus.DRAFT:
            allowed[event.text] += is_allowed(event.id)
        else:
            sent[event.text] += 1
    for text, count in sent.items():
        if count > allowed[text]:
            yield f"{text!r} was sent {count} times, allowed were {allowed[text]}"


@dataclass(slots=True)
class _Course:
    """What the transactions tell, in their order."""

    wrong: list[str] = field(default_factory=list[str])
    muted: dict[tuple[str, str], list[tuple[float, bool]]] = field(
        default_factory=lambda: defaultdict(list[tuple[float, bool]])
    )
    """When the AI of a room was muted, and when not any more."""
    growing: dict[str, tuple[tuple[str, str], float, float]] = field(
        default_factory=dict[str, tuple[tuple[str, str], float, float]]
    )
    """Of each reply its room, when a checkpoint had first kept words of it, and when it had ended."""


def _course(world: World) -> _Course:
    course, ends = _Course(), dict[str, float]()
    asked: dict[tuple[str, str | None], dict[str, dict[str, Any]]] = defaultdict(dict)
    for at, _, batch in world.disk.batches:
        for gone in batch.delete:
            if gone.kind == "stream":
                ends[gone.key.rpartition("\n")[2]] = at
        for put in batch.put:
            if put.kind == "approval":
                asked[put.tenant, put.room_id][put.key] = put.value
            elif put.kind == "stream" and (put.value["text"] or put.value["start"]):
                course.growing.setdefault(put.value["id"], ((put.tenant, str(put.room_id)), at, float("inf")))
        for event in batch.events:
            spot = (event.tenant, event.room_id)
            if event.type in (EventType.CHANNEL_MUTED, EventType.CHANNEL_UNMUTED):
                course.muted[spot].append((at, event.type is EventType.CHANNEL_MUTED))
            elif event.type in (EventType.ROOM_CLOSED, EventType.FLOOR_CHANGED):
                course.wrong += _left(event, asked[spot])
    course.growing = {ident: (spot, at, ends.get(ident, end)) for ident, (spot, at, end) in course.growing.items()}
    return course


def _left(event: RoomEvent, asked: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A room that has closed asks nothing any more; where a machine may answer again no permission is held back."""
    where, may_go_on = f"{event.room_id}[{event.index}]", _told(event, "mode") in ("ai", "both")
    for one in asked.values():
        held = one["status"] == "granted" and one.get("held")
        if event.type is EventType.ROOM_CLOSED:
            if one["status"] == "pending":
                yield f"the approval {one['id']} is still asked for, although the room was closed at {where}"
        elif held and may_go_on and datetime.fromisoformat(one["expires_at"]) > event.created_at:
            yield f"the permission {one['id']} is held back, although the AI may answer again at {where}"


def _late_comers(world: World, course: _Course) -> Iterator[str]:
    """Who comes in while a reply grows is told of it."""
    for page in world.pages:
        for asked, had, told in page.views:
            for ident, (spot, grown, ended) in course.growing.items():
                shown = spot == page.spot and spot not in course.muted  # Nobody hears a machine that is muted.
                if shown and grown < asked and had < ended and ident not in told:
                    yield f"{page.name} came in at {had:.3f}, and was not told of {ident}, which grew since {grown:.3f}"


def _heard(world: World, course: _Course) -> Iterator[str]:
    """Nobody hears a machine that is muted, not even what it had begun before."""
    for page in world.pages if world.nodes == 1 else ():
        for ident, (_, shown) in page.shown.items() if not page.stalled else ():
            for at, text in shown:
                known = [muted for since, muted in course.muted.get(page.spot, ()) if since < at - LATE_S]
                later = any(at - LATE_S <= since <= at for since, _ in course.muted.get(page.spot, ()))
                if known and known[-1] and not later:
                    yield f"{page.name} heard {ident} go on to {text!r} at {at:.3f}, although the AI was muted"


def _leases(log: list[RoomEvent]) -> Iterator[str]:
    """Whoever does something in a room that they hold, holds it for as long again, or three quarters of that."""
    holder, since = None, None
    for event in log:
        if event.type is EventType.FLOOR_CHANGED:
            if since is not None and _told(event, "cause") == "lapsed":
                held = (event.created_at - since).total_seconds()
                if held < HOLD_S * 0.7:
                    where = f"{event.room_id}[{event.index}]"
                    yield f"the floor of {holder} lapsed at {where}, {held:.3f} s after they had written"
            holder, since = _told(event, "holder"), None
        elif event.type is EventType.NOTE and event.source.participant_id == holder and holder is not None:
            since = event.created_at


def _told(event: RoomEvent, name: str) -> Any:
    return event.content.data.get(name) if isinstance(event.content, SystemContent) else None


def is_allowed(draft_id: str) -> bool:
    return "3" in draft_id[-2:]
