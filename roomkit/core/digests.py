"""Digests instead of floods: what a busy room says reaches a phone as one message.

Who is flooded is counted in memory; what waits is durable, as for quiet hours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from roomkit.core.actor import SYSTEM, Change, Entry, RoomActor, delivery_record
from roomkit.core.catalogue import phrase
from roomkit.core.lanes import Lane
from roomkit.core.outgoing import project
from roomkit.models.consent import Digests, of_tenant
from roomkit.models.content import RichContent, TextContent, text_of
from roomkit.models.delivery import DeliveryRecord, DeliveryState
from roomkit.models.event import EventDraft, EventType, RoomEvent
from roomkit.ports.store import EventQuery, Record

if TYPE_CHECKING:
    from roomkit.core.engine import Engine
    from roomkit.ports.channel import Channel

IN_DIGEST = "in_digest"
_LINE = 200
_GONE = "…"
_MOST_LANES = 10_000


class Floods:
    """Counts what bridged messages each seat was sent lately."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sent: dict[tuple[str, str, str], deque[datetime]] = {}

    def until(self, lane: Lane, channel: Channel, event: RoomEvent) -> datetime | None:
        """Until when this message waits for others; None where it goes now, and is counted."""
        rule = of_tenant(self._engine.options.digests, lane.actor.tenant)
        if rule is None or channel.channel_type not in rule.channel_types or not gatherable(event):
            return None
        key, now = (lane.actor.tenant, lane.actor.room_id, lane.channel_id), self._engine.now()
        sent = self._sent.get(key)
        if sent is None:
            if len(self._sent) >= _MOST_LANES:
                self._sent.pop(next(iter(self._sent)))
            sent = self._sent[key] = deque(maxlen=rule.over)
        if len(sent) == rule.over and (now - sent[0]).total_seconds() < rule.window_s:
            return sent[0] + timedelta(seconds=rule.window_s)
        sent.append(now)
        return None


def gatherable(event: RoomEvent) -> bool:
    """What another person said in words."""
    words = isinstance(event.content, (TextContent, RichContent))
    said = event.source.direction == "inbound" and event.type is EventType.MESSAGE
    return words and said and not event.metadata.get("purpose")


async def gather(actor: RoomActor, channel_id: str, rows: Sequence[Record], change: Change) -> list[Record]:
    """Adds one message for what has waited, where that is much; returns the rows that go out by themselves."""
    rule = of_tenant(actor.engine.options.digests, actor.tenant) or Digests()
    channel, binding = actor.engine.channels.get(channel_id), actor.state.bindings.get(channel_id)
    if channel is None or binding is None or channel.channel_type not in rule.channel_types:
        return list(rows)
    events = {row.key: event for row in rows if (event := await _read(actor, row)) is not None and gatherable(event)}
    if len(events) < max(2, rule.over) or not actor.state.room.open:
        return list(rows)
    lines: list[str] = []
    for event in events.values():
        shown = project(actor.engine, actor, event, channel, binding).event
        line = " ".join(text_of(shown.content).split()) if shown is not None else ""
        lines.append(line if len(line) <= _LINE else f"{line[: _LINE - 1]}…")
    language, left = actor.state.room.language, len(lines) - rule.lines
    head = phrase("digest", language, count=str(len(lines)))
    tail = [phrase("digest_more", language, count=str(left))] if left > 0 else []
    change.add(
        Entry(
            EventDraft(
                source=SYSTEM.replaced(direction="outbound"),
                content=TextContent(text="\n".join([head, *lines[: rule.lines], *tail])),
                visibility=channel_id,
                metadata={"digest": [event.id for event in events.values()]},
            ),
            targets=(channel_id,),
            wakes=False,
        )
    )
    for event in events.values():
        change.put.append(_told(actor, channel_id, event))
    actor.engine.count("digests")
    return [row for row in rows if row.key not in events]


def without_lines(content: TextContent, parts: Sequence[str], gone: Collection[str]) -> TextContent:
    """A digest of these events without the words of those that are gone. Its first line is its heading; where there are
    fewer lines than events, the last one counts the rest."""
    head, *lines = content.text.split("\n")
    shown = [_GONE if part in gone else line for part, line in zip(parts, lines, strict=False)]
    text = "\n".join([head, *shown, *lines[len(shown) :]])
    return content if text == content.text else content.replaced(text=text)


def _told(actor: RoomActor, channel_id: str, event: RoomEvent) -> Record:
    told = DeliveryRecord(
        room_id=actor.room_id,
        index=event.index,
        event_id=event.id,
        channel_id=channel_id,
        state=DeliveryState.SKIPPED,
        reason=IN_DIGEST,
        updated_at=actor.engine.now(),
    )
    return delivery_record(actor.tenant, told)


async def _read(actor: RoomActor, row: Record) -> RoomEvent | None:
    index = row.value["index"]
    query = EventQuery(actor.tenant, actor.room_id, start=index, stop=index + 1, limit=1)
    found = await actor.engine.store.events(query)
    return found[0] if found and not found[0].metadata.get("erased") else None
