"""News of everything up to a moment: some networks do not name the messages that have arrived or been read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roomkit.core import statuses
from roomkit.core.state import key
from roomkit.models.delivery import DeliveryRecord, DeliveryState, DeliveryStatus
from roomkit.ports.store import EventQuery, RecordQuery

if TYPE_CHECKING:
    from datetime import datetime

    from roomkit.core.engine import Engine

LATEST = 200
"""So many events of a room are looked at: whoever reads has read the older ones before."""
_MOVING = (DeliveryState.SENT, DeliveryState.DELIVERED)


async def report(engine: Engine, tenant: str, status: DeliveryStatus, until: datetime) -> DeliveryRecord | None:
    """Moves what went to `status.recipient` before `until`; the last of it, None where there was nothing."""
    term = f"from:{status.channel_id}:{status.recipient}"
    last: DeliveryRecord | None = None
    for binding in await engine.store.records(RecordQuery("binding", tenant, terms=(term,), limit=LATEST)):
        for name in await _names(engine, tenant, binding.room_id or "", status, until):
            one = status.replaced(provider_message_id=name, until=None)
            if engine.nodes is not None:  # each room may be another process's
                last = await engine.nodes.rooms(tenant).delivery_status(one) or last
            else:
                last = await statuses.report(engine, tenant, one) or last
    return last


async def _names(engine: Engine, tenant: str, room_id: str, status: DeliveryStatus, until: datetime) -> list[str]:
    """What the vendor calls the messages in a room that the news is about."""
    query = EventQuery(tenant, room_id, limit=LATEST, newest_first=True)
    made = {event.index: event.created_at for event in await engine.store.events(query)}
    if not made:
        return []
    after = key(room_id, min(made), "")
    found = await engine.store.records(RecordQuery("delivery", tenant, room_id=room_id, after=after, limit=LATEST * 10))
    names: list[str] = []
    for one in found:
        record = DeliveryRecord.model_validate(one.value)
        # What is only sent has been since then; of what has arrived, only when it was said is known.
        since = record.updated_at if record.state is DeliveryState.SENT else made.get(record.index)
        moving = record.channel_id == status.channel_id and record.state in _MOVING and record.provider_message_id
        if moving and since is not None and since <= until:
            names += record.parts if len(record.parts) > 1 else (record.provider_message_id or "",)
    return names
