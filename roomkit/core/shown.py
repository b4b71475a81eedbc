"""What each channel was sent of an event: the projection that its lane made, made once more for whoever asks.

It is computed from the log and the seats as they are now, and never kept. Guards of `BeforeDelivery` are not asked
again: what one of them has changed is not in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roomkit.core.outgoing import project
from roomkit.core.split import split_content
from roomkit.core.state import event_by_id, event_key
from roomkit.errors import UsageError
from roomkit.models.content import TextContent
from roomkit.ports.store import RecordQuery

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.models.content import Content
    from roomkit.models.event import RoomEvent
    from roomkit.ports.channel import Channel

_PARTS = 50


async def shown(actor: RoomActor, event_id: str) -> list[dict[str, Any]]:
    """For each channel with a delivery of the event, as JSON: `channel_id`, the `parts` in which it left, whether they
    are the `same` as what was written, and `reason` where there was nothing to show. Raises `UsageError`."""
    event: RoomEvent | None = await event_by_id(actor.engine.store, actor.tenant, actor.room_id, event_id)
    if event is None:
        raise UsageError(f'there is no event "{event_id}" in room "{actor.room_id}"')
    prefix = event_key(actor.room_id, event.index, "")
    found = await actor.engine.store.records(RecordQuery("delivery", actor.tenant, prefix=prefix, limit=1000))
    return [one for row in found if (one := _one(actor, event, row.value)) is not None]


def _one(actor: RoomActor, event: RoomEvent, delivery: dict[str, Any]) -> dict[str, Any] | None:
    channel_id = str(delivery["channel_id"])
    channel, binding = actor.engine.channels.get(channel_id), actor.state.bindings.get(channel_id)
    if channel is None or binding is None:
        return None
    projection = project(actor.engine, actor, event, channel, binding)
    parts = _parts(channel, projection.event.content, delivery) if projection.event is not None else ()
    return {
        "channel_id": channel_id,
        "channel_type": channel.channel_type,
        "same": len(parts) == 1 and _alike(parts[0], event.content),
        "reason": projection.reason,
        "parts": [part.model_dump(mode="json") for part in parts[:_PARTS]],
        "count": len(parts),
    }


def _alike(part: Content, content: Content) -> bool:
    """Blank space at its ends is nothing that anybody sees."""
    if isinstance(part, TextContent) and isinstance(content, TextContent):
        return part.text.strip() == content.text.strip()
    return part == content


def _parts(channel: Channel, content: Content, delivery: dict[str, Any]) -> tuple[Content, ...]:
    """Where the channel has sent it by another way, in the parts of that one."""
    capabilities, other = channel.capabilities, getattr(channel, "stand_in", None)
    if other is not None and delivery.get("details", {}).get("via") == other.way:
        from roomkit.core.transcode import transcode

        capabilities = other.capabilities
        content = transcode(content, capabilities) or content
    return split_content(content, capabilities)
