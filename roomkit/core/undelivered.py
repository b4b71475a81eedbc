"""Deliveries that did not succeed: tried again as far as the channel's policy goes, then a dead letter (R5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from roomkit.core.actor import Change, RoomActor, delivery_record
from roomkit.core.fallback import try_next
from roomkit.core.lanes import may_hold
from roomkit.core.outcomes import record_of
from roomkit.core.outgoing import Projection, tell
from roomkit.core.state import event_key
from roomkit.errors import Fenced
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult, DeliveryState
from roomkit.models.event import EventType
from roomkit.models.hooks import DeliveryFailed
from roomkit.net.retry import RetryPolicy
from roomkit.ports.channel import Channel
from roomkit.ports.store import Record, RecordKey, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.lanes import Item, Lane, OutboxLanes


async def again(
    lanes: OutboxLanes, lane: Lane, item: Item, channel: Channel, projection: Projection, result: DeliveryResult
) -> DeliveryResult:
    """Retries what did not succeed."""
    attempt, policy, engine = 0, channel.delivery_policy, lanes.engine
    retry = RetryPolicy(policy.max_retries, policy.base_delay, policy.factor, policy.max_delay)
    while not result.success:
        item.maybe_duplicate = item.maybe_duplicate or result.ambiguous
        if result.code == "breaker_open":
            # Nothing was tried, so nothing is counted: the lane waits for the next probe.
            if item.noted > item.attempts:
                await lanes.note(lane, item)
            await asyncio.sleep(max(result.retry_after or 0.0, 0.1))
        elif not result.retryable or attempt >= policy.max_retries or _doubtful(result, policy):
            break
        else:
            engine.count("delivery_retries")
            await asyncio.sleep(retry.delay(attempt, retry_after=result.retry_after, rng=engine.random))
            attempt += 1
        result = await lanes.attempt(lane, item, channel, projection)
    return result


async def held(lane: Lane) -> bool:
    """Whether a letter that died here holds up what comes after it."""
    engine, actor = lane.actor.engine, lane.actor
    query = RecordQuery("dead", actor.tenant, room_id=actor.room_id, limit=10_000)
    letters = await engine.insist(lambda: engine.store.records(query), f"a delivery in {actor.room_id}")
    return any(one.value.get("holds") and one.value["channel"] == lane.channel_id for one in letters)


async def bury(lanes: OutboxLanes, lane: Lane, item: Item, result: DeliveryResult) -> None:
    """Moves an item to the dead letters, with an event in the room; the lane goes on, unless its channel holds it."""
    actor, engine, event = lane.actor, lanes.engine, item.event
    failed = result.model_copy(update={"state": DeliveryState.FAILED, "success": False})
    record = record_of(actor, lane.channel_id, item, failed, engine.now())
    engine.count("dead_letters")
    holds = may_hold(lanes, lane)
    row_key = event_key(actor.room_id, item.index, lane.channel_id)
    dead = {
        "channel": lane.channel_id,
        "index": item.index,
        "event_id": item.event_id,
        "attempts": item.attempts,
        "parts": list(item.parts),
        **(item.way or {}),
        "room_id": actor.room_id,
        "error": result.error,
        "code": result.code,
        "failed_at": engine.now().isoformat(),
    }
    if holds:
        dead["holds"] = True

    async def write(actor: RoomActor) -> None:
        if actor is not lane.actor:
            raise Fenced(f'room "{actor.room_id}" was another process\'s meanwhile, which has delivered this')
        change = Change(activity=False)
        change.delete.append(RecordKey("outbox", actor.tenant, row_key))
        change.put.append(delivery_record(actor.tenant, record))
        change.put.append(Record("dead", actor.tenant, row_key, dead, actor.room_id))
        if actor.state.room.open and (event is None or event.type != EventType.DELIVERY_FAILED):
            change.system(
                EventType.DELIVERY_FAILED,
                "delivery_failed",
                channel_id=lane.channel_id,
                event_id=item.event_id,
                index=item.index,
                error=result.error,
            )
        await actor.commit(change)

    await actor.insist(write)
    lane.held = lane.held or holds
    tell(actor, record)
    lanes.dead += 1
    engine.hooks.tell(DeliveryFailed(actor.tenant, actor.room_id, record))
    if event is not None:
        await engine.insist(lambda: try_next(actor, event, lane.channel_id), f"a delivery in {actor.room_id}")


def _doubtful(result: DeliveryResult, policy: DeliveryPolicy) -> bool:
    return result.ambiguous and not policy.idempotent and policy.on_ambiguous == "stop_and_ask"
