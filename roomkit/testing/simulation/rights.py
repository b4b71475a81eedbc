"""Who may see and who may speak, by rules of the judge's own: it cannot ask the core's, which may be what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from roomkit.models.content import SystemContent
from roomkit.models.event import EventStatus, EventType, RoomEvent

if TYPE_CHECKING:
    from roomkit.testing.simulation.outside import Vendor
    from roomkit.testing.simulation.world import World

Logs = dict[tuple[str, str], list[RoomEvent]]
GOES_OUT = frozenset({EventType.MESSAGE, EventType.EDIT, EventType.DELETE, EventType.REACTION})
AFTER_THE_END = frozenset({EventType.SYSTEM, EventType.DELIVERY_FAILED})
"""What may still be noted in a room that is closed: that somebody was erased, that an old delivery came to nothing."""
NOTE = "between us"
PROPOSAL = "a proposal of"


def judge(world: World, logs: Logs) -> Iterator[str]:
    for log in logs.values():
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


def is_allowed(draft_id: str) -> bool:
    return "3" in draft_id[-2:]
