"""A vendor's news about a delivery: states only move forward, and a late failure tries the next way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from roomkit.core import fallback
from roomkit.core.actor import Change, RoomActor, delivery_record
from roomkit.core.outgoing import tell
from roomkit.core.state import key
from roomkit.models.delivery import DeliveryRecord, DeliveryState, DeliveryStatus, forward, together
from roomkit.models.hooks import StatusChanged
from roomkit.ports.store import EventQuery, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine


async def report(engine: Engine, tenant: str, status: DeliveryStatus) -> DeliveryRecord | None:
    """Finds the delivery by the vendor's message id; None where there is none."""
    if status.until is not None:
        from roomkit.core import watermarks

        return await watermarks.report(engine, tenant, status, status.until)
    record = await _find(engine, tenant, status)
    if record is None:
        engine.count("unknown_delivery_status")
        return None
    return await (await engine.table.require(tenant, record.room_id)).call(move, record, status)


async def _find(engine: Engine, tenant: str, status: DeliveryStatus) -> DeliveryRecord | None:
    """A vendor may be faster than its own answer, or than the note of it: a message under way is waited for."""
    term = f"pmid:{status.channel_id}:{status.provider_message_id}"
    for pause in (0.0, 0.05, 0.25, 1.0):
        if pause:
            await asyncio.sleep(pause)
        found = await engine.store.records(RecordQuery("delivery", tenant, terms=(term,), limit=1))
        if found:
            return DeliveryRecord.model_validate(found[0].value)
        if not engine.lanes.unsettled(status.channel_id):
            return None
    return None


async def move(actor: RoomActor, record: DeliveryRecord, status: DeliveryStatus) -> DeliveryRecord:
    found = await actor.engine.store.records(
        RecordQuery("delivery", actor.tenant, key=key(record.room_id, record.index, record.channel_id))
    )
    current = DeliveryRecord.model_validate(found[0].value) if found else record
    if status.provider_message_id not in (current.provider_message_id, *current.parts):
        return current
    moved, parts = _moved(current, status)
    if moved is current.state and parts == current.part_states:
        return current
    fails = moved is DeliveryState.FAILED and current.state is not moved
    current = current.model_copy(update={"part_states": parts})
    if fails and (instead := await fallback.by_other_way(actor, current, status)) is not None:
        return instead
    if moved is current.state:  # one part's news, which is not yet the whole's
        await actor.commit(Change(activity=False, put=[delivery_record(actor.tenant, current)]))
        return current
    details = {**current.details, "via": status.via} if status.via else current.details
    reason = status.error or (status.code if moved is DeliveryState.FAILED else current.reason)
    new = current.model_copy(
        update={"state": moved, "reason": reason, "details": details, "updated_at": actor.engine.now()}
    )
    change = Change(activity=False)
    change.put.append(delivery_record(actor.tenant, new))
    await actor.commit(change)
    tell(actor, new)
    actor.engine.hooks.tell(StatusChanged(actor.tenant, actor.room_id, new))
    if moved is DeliveryState.FAILED:
        await _opted_out(actor, new.channel_id, status.code)
        events = await actor.engine.store.events(
            EventQuery(actor.tenant, actor.room_id, start=new.index, stop=new.index + 1)
        )
        if events:
            await fallback.try_next(actor, events[0], new.channel_id)
    return new


def _moved(record: DeliveryRecord, status: DeliveryStatus) -> tuple[DeliveryState, dict[str, DeliveryState]]:
    """How far the whole is after this news, and each part where there are several: a part that fails is not hidden by
    one that has arrived."""
    if len(record.parts) < 2 or record.state is DeliveryState.SKIPPED:
        return forward(record.state, status.state), record.part_states
    if record.state is DeliveryState.FAILED and not record.part_states:  # what failed was the sending
        return record.state, {}
    parts = record.part_states or dict.fromkeys(record.parts, record.state)
    name = status.provider_message_id if status.provider_message_id in parts else record.parts[-1]
    parts = {**parts, name: forward(parts[name], status.state)}
    return together(parts.values()), parts


async def _opted_out(actor: RoomActor, channel_id: str, code: str | None) -> None:
    consent, channel = actor.engine.consent, actor.engine.channels.get(channel_id)
    binding = actor.state.bindings.get(channel_id)
    if consent is not None and channel is not None and binding is not None:
        await consent.vendor_said(actor, channel, binding, code)
