"""Outbox lanes: one ordered line per (room, channel). A slow or dead channel delays nobody but itself.

Rows of kind "outbox" stand in the event's own transaction and leave it together with the delivery's record, so every
(event, channel) is delivered at least once, in order, across crashes (R4). What fails for good goes to the dead letters
and the lane goes on, or, where the channel says so, waits for a person (R5).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Container
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from roomkit.core.actor import RoomActor
from roomkit.core.front import First, Front, Item, Lane
from roomkit.core.outcomes import Outcomes, Over, record_of
from roomkit.core.outgoing import (
    DELIVERED,
    Projection,
    address_of,
    broken,
    guard,
    project,
    refusal_of,
    refused_by,
    tell,
)
from roomkit.core.results import CURRENT, LANE, Settlement
from roomkit.core.state import event_key
from roomkit.errors import ProviderError, ProviderTimeout, StoreError, UsageError
from roomkit.models.content import TextContent
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult, DeliveryState
from roomkit.models.event import RoomEvent
from roomkit.models.hooks import BeforeDelivery, Delivered
from roomkit.net.breaker import Breakers, Permit
from roomkit.net.ratelimit import Pacer
from roomkit.ports.channel import Channel
from roomkit.ports.store import Batch, EventQuery, Record
from roomkit.runtime import bounded
from roomkit.runtime.crashpoint import crashpoint
from roomkit.runtime.eager import Burst
from roomkit.runtime.span_names import ATTEMPT, DELIVERY, EVENT_INDEX
from roomkit.runtime.tracing import Span, current

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)


def outbox_row(lane: Lane, item: Item) -> Record:
    """The durable row of a delivery that is not done."""
    value = {
        "channel": lane.channel_id,
        "index": item.index,
        "event_id": item.event_id,
        "attempts": item.attempts,
        "parts": list(item.parts),
        **(item.way or {}),
    }
    actor = lane.actor
    return Record("outbox", actor.tenant, event_key(actor.room_id, item.index, lane.channel_id), value, actor.room_id)


class OutboxLanes:
    """All lanes of one kit."""

    asks = False
    """Whether something is asked before each attempt, so that none is made in place."""

    def __init__(self, engine: Engine, breakers: Breakers) -> None:
        self.engine = engine
        self.breakers = breakers
        self.lines: dict[tuple[str, str, str], Lane] = {}
        self._pacer = Pacer()
        self.outcomes = Outcomes(engine)
        self.backlog = 0
        self.dead = 0
        self.front = ""
        """The channel whose delivery makes its first step right now, beside all lanes."""

    def enqueue(
        self,
        actor: RoomActor,
        channel_ids: tuple[str, ...],
        event: RoomEvent,
        settlement: Settlement | None,
        noted: Container[str] = (),
    ) -> None:
        """Begins the deliveries of one event; those that end at once are written down together. The rows of `noted`
        have their first attempt in them."""
        engine = self.engine
        with engine.eager.burst() as burst:
            left, over = list(channel_ids), True
            asked = self.asks or self.breakers.circuits or engine.hooks.guarded(BeforeDelivery)
            if type(event.content) is TextContent and not (asked or engine.draining or engine.tracing.on):
                left.clear()
                over = Front(self, actor, event, settlement, burst, noted).send(channel_ids, left)
            if left:
                burst.set(CURRENT, settlement)
            for channel_id in left:
                item = Item(event, event.index, event.id, settlement)
                item.noted = int(channel_id in noted)
                self._put(actor, channel_id, item, burst)
                over = over and not item.counted
            if not (over or engine.info.durable):
                _keep_rows(self, actor, channel_ids, event)

    def at_once(self, actor: RoomActor, channel_ids: tuple[str, ...]) -> Container[str]:
        """Those of the channels whose delivery begins as soon as its row is durable, so that the row may say so itself;
        where a person is asked about every doubt, the attempt is noted right before it is made."""
        if not self.engine.info.durable or self.engine.draining:
            return ()
        return {cid for cid in channel_ids if self._free(actor, cid)}

    def _free(self, actor: RoomActor, channel_id: str) -> bool:
        channel = self.engine.channels.get(channel_id)
        if channel is None or (actor.tenant, actor.room_id, channel_id) in self.lines:
            return False
        try:
            policy = channel.delivery_policy
            return not (policy.idempotent or policy.paced or policy.holds or policy.on_ambiguous == "stop_and_ask")
        except Exception:  # noqa: BLE001 - a channel is a plug-in: what it raises is its delivery's failure
            return False

    def put(self, actor: RoomActor, channel_id: str, item: Item) -> None:
        with self.engine.eager.burst() as burst:
            self._put(actor, channel_id, item, burst)

    def _put(self, actor: RoomActor, channel_id: str, item: Item, burst: Burst) -> None:
        self.backlog += 1
        item.counted = True
        if self.engine.tracing.on:
            item.span = current()
        lane_key = (actor.tenant, actor.room_id, channel_id)
        lane = self.lines.get(lane_key)
        if lane is None:
            lane = self.lines[lane_key] = Lane(actor, channel_id)
            actor.lanes += 1
        if item.settlement is not None:
            item.settlement.begin(lane)
        if not lane.items:
            lane.items = deque()
        lane.items.append(item)
        if lane.held:
            self.over(item)
        elif not lane.busy and not self.engine.draining:
            lane.busy = True
            burst.run(self.work(lane_key, lane))

    async def work(self, lane_key: tuple[str, str, str], lane: Lane, first: First | None = None) -> None:
        """Works until nothing is left; `first` is how the item goes out that is under way already."""
        try:
            if lane.held is None:
                lane.held = may_hold(self, lane) and await undelivered().held(lane)
            while first is not None or (lane.items and not lane.held and not self.engine.draining):
                item = lane.item = lane.item or lane.items.popleft()
                token, above = CURRENT.set(item.settlement), LANE.set(lane)
                try:
                    if first is None:
                        await self._deliver(lane, item)
                    else:
                        way, first = first, None
                        await self._make(lane, item, *way)
                except Exception as error:  # noqa: BLE001 - the lane boundary
                    await self._broke(lane, item, error)
                finally:
                    CURRENT.reset(token)
                    LANE.reset(above)
                    lane.item = None
                    self.over(item)
        finally:
            lane.busy = False
            for waiting in lane.items if lane.held else ():
                self.over(waiting)
            if not lane.items and self.lines.get(lane_key) is lane:
                del self.lines[lane_key]
                lane.actor.lanes -= 1

    async def _broke(self, lane: Lane, item: Item, error: Exception) -> None:
        """Something that nobody foresaw: it ends as any failed delivery does. Only what the store refuses stays in the
        outbox, for the next start."""
        if lane.actor.retired and self.engine.nodes is not None:
            return  # the room has gone to another process, which has the rest
        self.engine.trouble(lane.actor, f"delivery to {lane.channel_id}", error)
        if item.event is None or isinstance(error, StoreError) or self.engine.draining:
            return
        try:
            await self.bury(lane, item, broken(error))
        except Exception as worse:  # noqa: BLE001 - as above
            self.engine.trouble(lane.actor, f"delivery to {lane.channel_id}", worse)

    def over(self, item: Item) -> None:
        """Nobody waits for it any longer."""
        if not item.counted:
            return
        item.counted = False
        self.backlog -= 1
        if item.settlement is not None:
            item.settlement.end()

    def drop_events(self, actor: RoomActor, ids: Container[str]) -> None:
        """What these events said is gone: nothing of it is delivered, nor tried again; what the far end has, it has."""
        for lane in self.lines.values():
            if lane.actor is actor:
                for item in (*lane.items, *([lane.item] if lane.item is not None else ())):
                    if item.event_id in ids:
                        item.event, item.erased = None, True

    def abandon(self) -> None:
        """The kit has closed: nobody waits any longer for what the next start will do."""
        for lane in self.lines.values():
            while lane.items:
                self.over(lane.items.popleft())

    def unsettled(self, channel_id: str) -> bool:
        """Whether a delivery of this channel is under way, or any that is over is not noted yet."""
        return (
            self.outcomes.pending
            or self.front == channel_id
            or any(lane.channel_id == channel_id and not lane.held for lane in self.lines.values())
        )

    def lags(self) -> list[tuple[str, int, float]]:
        """Of every lane that has work: channel, events waiting or under way, age of the oldest in seconds."""
        now = self.engine.now()
        return [(lane.channel_id, *_lag(lane, now)) for lane in self.lines.values()]

    # -- one delivery ---------------------------------------------------------------------------------------------

    async def _deliver(self, lane: Lane, item: Item) -> None:
        actor, engine = lane.actor, self.engine
        channel = engine.channels.get(lane.channel_id)
        binding = actor.state.bindings.get(lane.channel_id)
        if item.event is None:
            item.event = await engine.insist(lambda: self._read(actor, item), f"a delivery in {actor.room_id}")
        event = item.event
        refusal = refusal_of(channel, binding, event)
        if refusal or channel is None or binding is None or event is None:
            self.finish(lane, item, DeliveryResult(success=False, state=DeliveryState.SKIPPED, error=refusal))
            return
        try:
            projection = project(engine, actor, event, channel, binding)
        except Exception as error:  # noqa: BLE001 - a transcoder is a plug-in: its failure is this delivery's failure
            await self.bury(lane, item, broken(error))
            return
        if engine.hooks.guarded(BeforeDelivery):
            await guard(engine, actor, channel, projection)
        if projection.event is None:
            result = DeliveryResult(success=False, state=DeliveryState.SKIPPED, error=projection.reason)
            self.finish(lane, item, result)
            return
        policy = channel.delivery_policy
        if item.attempts and not policy.idempotent:
            item.maybe_duplicate = True
            if policy.on_ambiguous == "stop_and_ask":
                failed = DeliveryResult(success=False, state=DeliveryState.FAILED, error="ambiguous", ambiguous=True)
                await self.bury(lane, item, failed)
                return
        await self._make(lane, item, channel, projection)

    async def _make(self, lane: Lane, item: Item, channel: Channel, projection: Projection) -> None:
        """Attempts until it is done or given up."""
        result = await self.attempt(lane, item, channel, projection)
        if not result.success:
            result = await undelivered().again(self, lane, item, channel, projection, result)
        if result.success or item.erased:
            self.finish(lane, item, result if result.success else _ERASED)
        else:
            await self.bury(lane, item, result)

    async def _read(self, actor: RoomActor, item: Item) -> RoomEvent | None:
        found = await self.engine.store.events(
            EventQuery(actor.tenant, actor.room_id, start=item.index, stop=item.index + 1, limit=1)
        )
        return found[0] if found else None

    async def attempt(self, lane: Lane, item: Item, channel: Channel, projection: Projection) -> DeliveryResult:
        provider, context, permit, policy = channel.channel_id, projection.context, None, channel.delivery_policy
        binding = lane.actor.state.bindings.get(provider) or context.binding
        if item.begun is not None:
            return _judged(self, lane, channel, await self._send(lane, item, channel, projection))
        if policy.destinations or policy.paced or item.erased or self.breakers.circuits:
            recipient = address_of(channel, binding) or lane.actor.room_id
            if (refused := await self._turn(lane, item, recipient, policy)) is not None:
                return refused
            try:
                permit = self.breakers.acquire(provider, recipient)
            except ProviderError as error:
                return refused_by(error)
        item.attempts += 1
        if item.noted < item.attempts and self.engine.info.durable and not policy.idempotent:
            await self.note(lane, item)
            if item.erased:
                if permit is not None:
                    permit.released()
                return _ERASED
        context.state.update(item.way or (), parts=item.parts)
        item.lane = lane
        context.state["part_done"] = item.part_done
        crashpoint("outbox.before_send")
        return _judged(self, lane, channel, await self._send(lane, item, channel, projection), permit)

    async def _turn(self, lane: Lane, item: Item, recipient: str, policy: DeliveryPolicy) -> DeliveryResult | None:
        """Waits until the far end may be sent something; returns why it is not to be sent this."""
        if policy.destinations and not recipient.startswith(policy.destinations):
            return DeliveryResult(success=False, state=DeliveryState.FAILED, error="destination_not_allowed")
        if policy.paced:
            await self._pacer.pace(lane.actor.tenant, lane.channel_id, recipient, policy)
        return _ERASED if item.erased else None

    async def _send(
        self, lane: Lane, item: Item, channel: Channel, projection: Projection
    ) -> tuple[DeliveryResult, BaseException | None]:
        """What became of one call of the channel, and the error where it raised one."""
        assert projection.event is not None
        context, policy = projection.context, channel.delivery_policy
        begun, item.begun = item.begun, None
        binding = lane.actor.state.bindings.get(lane.channel_id) or context.binding
        try:
            if self.engine.tracing.on:
                with _span(lane, item) as span:
                    call = begun or channel.deliver(projection.event, binding, context)
                    result = await bounded(call, policy.timeout_s, "delivery") or DELIVERED
                    if not result.success:
                        span.fail(result.code or "refused")
            else:
                call = begun or channel.deliver(projection.event, binding, context)
                result = await bounded(call, policy.timeout_s, "delivery") or DELIVERED
        except TimeoutError:
            late = f"no answer in {policy.timeout_s:g} s"
            error = ProviderTimeout(channel.channel_id, late, ambiguous=True)
            return refused_by(error), error
        except ProviderError as error:
            return refused_by(error), error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return broken(error), error  # the channel's own doing, not ours
        except Exception as error:  # a channel is a plug-in: its failure is this delivery's failure
            log.exception('channel "%s" failed to deliver', lane.channel_id)
            return broken(error), error
        crashpoint("outbox.after_send")
        if not isinstance(result, DeliveryResult):  # pyright: ignore[reportUnnecessaryIsInstance] - a plug-in's
            wrong = UsageError(
                f"a delivery came to a {type(result).__name__}; return a DeliveryResult, or None when it is out"
            )
            return broken(wrong), wrong
        return result, None

    async def note(self, lane: Lane, item: Item) -> None:
        """Notes durably that an attempt is about to be made: a crash from here on is ambiguous."""
        item.noted, actor = item.attempts, lane.actor
        batch = Batch(actor.tenant, actor.epoch, actor.room_id, put=(outbox_row(lane, item),))
        await self.engine.commit_until_done(batch)

    async def bury(self, lane: Lane, item: Item, result: DeliveryResult) -> None:
        await undelivered().bury(self, lane, item, result)

    # -- what became of it ----------------------------------------------------------------------------------------

    def finish(self, lane: Lane, item: Item, result: DeliveryResult) -> None:
        """Has it written down."""
        self.finished(lane.actor, [(lane.actor, lane.channel_id, item, result, True)])

    def finished(self, actor: RoomActor, done: list[Over]) -> None:
        """Has deliveries of one room that are over written down."""
        engine = self.engine
        self.outcomes.note(done)
        count, told, watched = engine.counters, engine.hooks.heard(Delivered), actor.hub.watched
        for _, channel_id, item, result, _ in done:
            count["delivered" if result.success else "delivery_skipped"] += 1
            if watched or told:
                record = record_of(actor, channel_id, item, result, engine.now())
                if watched:
                    tell(actor, record)
                if told and result.success:
                    engine.hooks.tell(Delivered(actor.tenant, actor.room_id, record))


def _keep_rows(lanes: OutboxLanes, actor: RoomActor, channel_ids: tuple[str, ...], event: RoomEvent) -> None:
    """In a store that ends with the process, rows are for what does not end in this turn of the loop."""
    for channel_id in channel_ids:
        lane = lanes.lines.get((actor.tenant, actor.room_id, channel_id))
        if lane is not None:
            left = (item for item in (lane.item, *lane.items) if item is not None and item.event is event)
            lanes.outcomes.keep(actor, [outbox_row(lane, item) for item in left])


def _judged(
    lanes: OutboxLanes,
    lane: Lane,
    channel: Channel,
    outcome: tuple[DeliveryResult, BaseException | None],
    permit: Permit | None = None,
) -> DeliveryResult:
    """Tells the breakers what came of an attempt."""
    result, error = outcome
    provider, binding = channel.channel_id, lane.actor.state.bindings.get(channel.channel_id)
    if permit is None and (not result.success or lanes.breakers.circuits):
        address = address_of(channel, binding) if binding is not None else ""
        permit = Permit(lanes.breakers, provider, address or lane.actor.room_id)
    if permit is not None:
        if result.success:
            permit.succeeded()
        else:
            permit.failed(error or ProviderError(provider, result.error or "refused", retryable=result.retryable))
    return result


def undelivered() -> Any:
    """Loaded when a delivery fails for the first time."""
    return import_module("roomkit.core.undelivered")


def may_hold(lanes: OutboxLanes, lane: Lane) -> bool:
    try:
        return lanes.engine.channels[lane.channel_id].delivery_policy.holds
    except Exception:  # noqa: BLE001 - no such channel, or a plug-in: `_deliver` sees to what it raises
        return False


def _span(lane: Lane, item: Item) -> Span:
    actor = lane.actor
    span = actor.engine.tracing.span(DELIVERY, actor.tenant, actor.room_id, lane.channel_id, item.span, "producer")
    span.set(EVENT_INDEX, item.index)
    span.set(ATTEMPT, item.attempts)
    return span


def forget(lanes: OutboxLanes, actor: RoomActor) -> None:
    """The room is another process's, which delivers what is left; nobody waits here any longer."""
    for lane_key, lane in tuple(lanes.lines.items()):
        if lane.actor is actor:
            while lane.items:
                lanes.over(lane.items.popleft())
            if not lane.busy:
                del lanes.lines[lane_key]
                actor.lanes -= 1


def at_work(lanes: OutboxLanes) -> set[tuple[str, str]]:
    """The rooms, as tenant and id, with a delivery under way."""
    return {(lane.actor.tenant, lane.actor.room_id) for lane in lanes.lines.values() if lane.busy}


def _lag(lane: Lane, now: datetime) -> tuple[int, float]:
    oldest = lane.item or (lane.items[0] if lane.items else None)
    event = oldest.event if oldest is not None else None
    age = max((now - event.created_at).total_seconds(), 0.0) if event is not None else 0.0
    return len(lane.items) + (lane.item is not None), age


_ERASED = DeliveryResult(success=False, state=DeliveryState.SKIPPED, error="event_erased")


__all__ = ["Item", "Lane", "OutboxLanes", "may_hold"]
