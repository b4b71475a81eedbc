"""Outbox lanes: one ordered line per (room, channel). A slow or dead channel delays nobody but itself.

Rows of kind "outbox" stand in the event's own transaction and leave it together with the delivery's record, so every
(event, channel) is delivered at least once, in order, across crashes (R4). What fails for good goes to the dead letters
and the lane goes on (R5).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from roomkit.core.actor import Change, RoomActor, delivery_record
from roomkit.core.outgoing import (
    Projection,
    address_of,
    broken,
    details_of,
    guard,
    project,
    refusal_of,
    refused_by,
    tell,
)
from roomkit.core.results import CURRENT, LANE, Settlement
from roomkit.core.state import event_key
from roomkit.errors import Fenced, ProviderError, ProviderTimeout, StoreError, StoreUnavailable
from roomkit.models.content import vendor_text
from roomkit.models.delivery import DeliveryPolicy, DeliveryRecord, DeliveryResult, DeliveryState
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.hooks import BeforeDelivery, Delivered, DeliveryFailed
from roomkit.net.breaker import Breakers, Permit
from roomkit.net.ratelimit import Pacer
from roomkit.net.retry import RetryPolicy
from roomkit.ports.channel import Channel
from roomkit.ports.store import Batch, EventQuery, Record, RecordKey
from roomkit.runtime import bounded, monotonic
from roomkit.runtime.crashpoint import crashpoint
from roomkit.runtime.eager import Burst
from roomkit.runtime.span_names import ATTEMPT, DELIVERY, EVENT_INDEX
from roomkit.runtime.tracing import OFF, Span, current

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
FLUSH_S = 5.0
Notes = tuple[list[Record], list[RecordKey]]
"""What became of deliveries, and their rows, which are over."""


@dataclass(slots=True)
class Item:
    """One delivery to be made. `attempts` counts those noted before a crash; `noted` is what its row says of them."""

    event: RoomEvent | None
    index: int
    event_id: str
    settlement: Settlement | None
    attempts: int = 0
    parts: tuple[str, ...] = ()
    maybe_duplicate: bool = False
    span: Span = OFF
    noted: int = 0
    erased: bool = False
    way: dict[str, str] | None = None  # for a channel that has two: which, and why


@dataclass(slots=True, eq=False)
class Lane:
    """`item` is the delivery under way."""

    actor: RoomActor
    channel_id: str
    items: deque[Item]
    busy: bool = False
    item: Item | None = None

    def works_for(self, settlement: Settlement) -> bool:
        here = self.item is not None and self.item.settlement is settlement
        return here or any(item.settlement is settlement for item in self.items)


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

    def __init__(self, engine: Engine, breakers: Breakers) -> None:
        self.engine = engine
        self.breakers = breakers
        self.lines: dict[tuple[str, str, str], Lane] = {}
        self._pacer = Pacer()
        self._done: dict[tuple[str, RoomActor | None], Notes] = {}
        self._noting: dict[tuple[str, RoomActor | None], Notes] = {}
        self._gathering = 0
        self._stamp = ""
        self._flushing = False
        self.backlog = 0
        self.dead = 0

    def enqueue(
        self,
        actor: RoomActor,
        channel_ids: tuple[str, ...],
        event: RoomEvent,
        settlement: Settlement | None,
        noted: tuple[str, ...] = (),
    ) -> None:
        """Begins the deliveries of one event; those that end at once are written down together. The rows of `noted`
        have their first attempt in them."""
        with self.engine.eager.burst() as burst:
            self._gathering += 1
            self._stamp = self.engine.now().isoformat()
            try:
                for channel_id in channel_ids:
                    item = Item(event, event.index, event.id, settlement)
                    if channel_id in noted:
                        item.noted = 1
                    self._put(actor, channel_id, item, burst)
            finally:
                self._gathering -= 1
                self._stamp = ""
            if self._done and not self._flushing and not self._gathering:
                self._flushing = True
                burst.run(self._flush())

    def at_once(self, actor: RoomActor, channel_ids: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the channels whose delivery begins as soon as its row is durable, so that the row may say so itself;
        where a person is asked about every doubt, the attempt is noted right before it is made."""
        if not self.engine.info.durable or self.engine.draining:
            return ()
        return tuple(cid for cid in channel_ids if self._free(actor, cid))

    def _free(self, actor: RoomActor, channel_id: str) -> bool:
        channel = self.engine.channels.get(channel_id)
        if channel is None or (actor.tenant, actor.room_id, channel_id) in self.lines:
            return False
        policy = channel.delivery_policy
        return not (policy.idempotent or policy.paced or policy.on_ambiguous == "stop_and_ask")

    def put(self, actor: RoomActor, channel_id: str, item: Item) -> None:
        with self.engine.eager.burst() as burst:
            self._put(actor, channel_id, item, burst)

    def _put(self, actor: RoomActor, channel_id: str, item: Item, burst: Burst) -> None:
        self.backlog += 1
        if self.engine.tracing.on:
            item.span = current()
        lane_key = (actor.tenant, actor.room_id, channel_id)
        lane = self.lines.get(lane_key)
        if lane is None:
            lane = self.lines[lane_key] = Lane(actor, channel_id, deque())
            actor.lanes += 1
        if item.settlement is not None:
            item.settlement.begin(lane)
        lane.items.append(item)
        if not lane.busy and not self.engine.draining:
            lane.busy = True
            burst.run(self._run(lane_key, lane))

    async def _run(self, lane_key: tuple[str, str, str], lane: Lane) -> None:
        try:
            while lane.items and not self.engine.draining:
                item = lane.item = lane.items.popleft()
                token, above = CURRENT.set(item.settlement), LANE.set(lane)
                try:
                    await self._deliver(lane, item)
                except Exception as error:  # noqa: BLE001 - the lane boundary
                    await self._broke(lane, item, error)
                finally:
                    CURRENT.reset(token)
                    LANE.reset(above)
                    lane.item = None
                    self.over(item)
        finally:
            lane.busy = False
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
            await self._bury(lane, item, item.event, broken(error))
        except Exception as worse:  # noqa: BLE001 - as above
            self.engine.trouble(lane.actor, f"delivery to {lane.channel_id}", worse)

    def over(self, item: Item) -> None:
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
            self._finish(lane, item, DeliveryResult(success=False, state=DeliveryState.SKIPPED, error=refusal))
            return
        try:
            projection = project(engine, actor, event, channel, binding)
        except Exception as error:  # noqa: BLE001 - a transcoder is a plug-in: its failure is this delivery's failure
            await self._bury(lane, item, event, broken(error))
            return
        if engine.hooks.guarded(BeforeDelivery):
            await guard(engine, actor, channel, projection)
        if projection.event is None:
            result = DeliveryResult(success=False, state=DeliveryState.SKIPPED, error=projection.reason)
            self._finish(lane, item, result)
            return
        policy = channel.delivery_policy
        if item.attempts and not policy.idempotent:
            item.maybe_duplicate = True
            if policy.on_ambiguous == "stop_and_ask":
                failed = DeliveryResult(success=False, state=DeliveryState.FAILED, error="ambiguous", ambiguous=True)
                await self._bury(lane, item, event, failed)
                return
        result = await self._attempt(lane, item, channel, projection, policy)
        if not result.success:
            result = await self._again(lane, item, channel, projection, result)
        if result.success or item.erased:
            self._finish(lane, item, result if result.success else _ERASED)
        else:
            await self._bury(lane, item, event, result)

    async def _read(self, actor: RoomActor, item: Item) -> RoomEvent | None:
        found = await self.engine.store.events(
            EventQuery(actor.tenant, actor.room_id, start=item.index, stop=item.index + 1, limit=1)
        )
        return found[0] if found else None

    async def _again(
        self, lane: Lane, item: Item, channel: Channel, projection: Projection, result: DeliveryResult
    ) -> DeliveryResult:
        """Retries what did not succeed, as far as the channel's policy goes."""
        attempt, policy = 0, channel.delivery_policy
        retry = RetryPolicy(policy.max_retries, policy.base_delay, policy.factor, policy.max_delay)
        while not result.success:
            item.maybe_duplicate = item.maybe_duplicate or result.ambiguous
            if result.code == "breaker_open":
                # Nothing was tried, so nothing is counted: the lane waits for the next probe.
                if item.noted > item.attempts:
                    await self._note(lane, item)
                await asyncio.sleep(max(result.retry_after or 0.0, 0.1))
            elif not result.retryable or attempt >= policy.max_retries or _doubtful(result, policy):
                break
            else:
                self.engine.count("delivery_retries")
                await asyncio.sleep(retry.delay(attempt, retry_after=result.retry_after, rng=self.engine.random))
                attempt += 1
            result = await self._attempt(lane, item, channel, projection, policy)
        return result

    async def _attempt(
        self, lane: Lane, item: Item, channel: Channel, projection: Projection, policy: DeliveryPolicy
    ) -> DeliveryResult:
        provider, context, permit = channel.channel_id, projection.context, None
        binding = lane.actor.state.bindings.get(provider) or context.binding
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
            await self._note(lane, item)
            if item.erased:
                if permit is not None:
                    permit.released()
                return _ERASED
        context.state.update(item.way or (), parts=item.parts)
        context.state["part_done"] = partial(self._part_done, lane, item)
        crashpoint("outbox.before_send")
        result, error = await self._send(lane, item, channel, projection, policy)
        if permit is None and (not result.success or self.breakers.circuits):
            permit = Permit(self.breakers, provider, address_of(channel, binding) or lane.actor.room_id)
        if permit is not None:
            if result.success:
                permit.succeeded()
            else:
                permit.failed(error or ProviderError(provider, result.error or "refused", retryable=result.retryable))
        return result

    async def _turn(self, lane: Lane, item: Item, recipient: str, policy: DeliveryPolicy) -> DeliveryResult | None:
        """Waits until the far end may be sent something; returns why it is not to be sent this."""
        if policy.destinations and not recipient.startswith(policy.destinations):
            return DeliveryResult(success=False, state=DeliveryState.FAILED, error="destination_not_allowed")
        if policy.paced:
            await self._pacer.pace(lane.actor.tenant, lane.channel_id, recipient, policy)
        return _ERASED if item.erased else None

    async def _send(
        self, lane: Lane, item: Item, channel: Channel, projection: Projection, policy: DeliveryPolicy
    ) -> tuple[DeliveryResult, BaseException | None]:
        """What became of one call of the channel, and the error where it raised one."""
        assert projection.event is not None
        context = projection.context
        binding = lane.actor.state.bindings.get(lane.channel_id) or context.binding
        try:
            if self.engine.tracing.on:
                with _span(lane, item) as span:
                    call = channel.deliver(projection.event, binding, context)
                    result = await bounded(call, policy.timeout_s, "delivery") or _DELIVERED
                    if not result.success:
                        span.fail(result.code or "refused")
            else:
                call = channel.deliver(projection.event, binding, context)
                result = await bounded(call, policy.timeout_s, "delivery") or _DELIVERED
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
        return result, None

    async def _note(self, lane: Lane, item: Item) -> None:
        """Notes durably that an attempt is about to be made: a crash from here on is ambiguous."""
        item.noted, actor = item.attempts, lane.actor
        batch = Batch(actor.tenant, actor.epoch, actor.room_id, put=(outbox_row(lane, item),))
        await self.engine.commit_until_done(batch)

    async def _part_done(self, lane: Lane, item: Item, part_id: str, way: dict[str, str] | None = None) -> None:
        """A part is out; or, with a `way`, the whole goes that way from here on."""
        item.parts, item.way = (() if way else (*item.parts, vendor_text(part_id))), way or item.way
        await self._note(lane, item)

    # -- what became of it ----------------------------------------------------------------------------------------

    def _finish(self, lane: Lane, item: Item, result: DeliveryResult) -> None:
        actor, engine = lane.actor, self.engine
        tenant = actor.tenant
        kept = self._kept(lane, item, result)
        # Of several processes each room is fenced by its own lease: who has lost it must not say what became of it.
        of = (tenant, None if engine.nodes is None else actor)
        done = self._done.get(of)
        if done is None:
            done = self._done[of] = ([], [])
        done[0].append(kept)
        done[1].append(RecordKey("outbox", tenant, kept.key))
        engine.count("delivered" if result.success else "delivery_skipped")
        if not actor.hub.idle:
            tell(actor, self._record(lane, item, result))
        if result.success and engine.hooks.heard(Delivered):
            engine.hooks.tell(Delivered(tenant, actor.room_id, self._record(lane, item, result)))
        if not self._flushing and not self._gathering:
            self._flushing = True
            engine.eager.start(self._flush())

    async def _flush(self) -> None:
        """Writes what was finished: everything that came together goes in one transaction."""
        try:
            while self._done:
                done, self._done = self._done, {}
                self._noting = done
                if self.engine.nodes is not None and len(done) > 1:
                    await asyncio.gather(*(_keep(self.engine, *of, notes) for of, notes in done.items()))
                else:
                    for of, notes in done.items():
                        await _keep(self.engine, *of, notes)
        finally:
            self._flushing = False
            self._noting = {}

    async def flushed(self) -> None:
        """At shutdown: waits until what was delivered is noted, as far as the store still writes."""
        until = monotonic() + FLUSH_S
        while self._flushing and monotonic() < until:  # noqa: ASYNC110 - only at shutdown
            await asyncio.sleep(0.005)

    async def _bury(self, lane: Lane, item: Item, event: RoomEvent, result: DeliveryResult) -> None:
        """Moves an item to the dead letters, with an event in the room, and lets the lane go on."""
        actor = lane.actor
        failed = result.model_copy(update={"state": DeliveryState.FAILED, "success": False})
        record = self._record(lane, item, failed)
        self.engine.count("dead_letters")

        async def bury(actor: RoomActor) -> None:
            if actor is not lane.actor:
                raise Fenced(f'room "{actor.room_id}" was another process\'s meanwhile, which has delivered this')
            change = Change(activity=False)
            change.delete.append(
                RecordKey("outbox", actor.tenant, event_key(actor.room_id, item.index, lane.channel_id))
            )
            change.put.append(delivery_record(actor.tenant, record))
            dead = {
                **outbox_row(lane, item).value,
                "room_id": actor.room_id,
                "error": result.error,
                "code": result.code,
                "failed_at": self.engine.now().isoformat(),
            }
            dead_key = event_key(actor.room_id, item.index, lane.channel_id)
            change.put.append(Record("dead", actor.tenant, dead_key, dead, actor.room_id))
            if actor.state.room.open and event.type != EventType.DELIVERY_FAILED:
                change.system(
                    EventType.DELIVERY_FAILED,
                    "delivery_failed",
                    channel_id=lane.channel_id,
                    event_id=item.event_id,
                    index=item.index,
                    error=result.error,
                )
            await actor.commit(change)

        await actor.insist(bury)
        tell(actor, record)
        self.dead += 1
        self.engine.hooks.tell(DeliveryFailed(actor.tenant, actor.room_id, record))
        from roomkit.core.fallback import try_next

        await self.engine.insist(lambda: try_next(actor, event, lane.channel_id), f"a delivery in {actor.room_id}")

    def _kept(self, lane: Lane, item: Item, result: DeliveryResult) -> Record:
        """What `delivery_record` makes of `_record`, without the detour for the plain ones."""
        actor = lane.actor
        if result.provider_message_id or item.parts or result.parts or result.error or result.metadata:
            return delivery_record(actor.tenant, self._record(lane, item, result))
        value = {
            "room_id": actor.room_id,
            "index": item.index,
            "event_id": item.event_id,
            "channel_id": lane.channel_id,
            "state": str(result.state),
            "attempts": item.attempts,
            "maybe_duplicate": item.maybe_duplicate,
            "updated_at": self._stamp or self.engine.now().isoformat(),
        }
        record_key = event_key(actor.room_id, item.index, lane.channel_id)
        return Record("delivery", actor.tenant, record_key, value, actor.room_id)

    def _record(self, lane: Lane, item: Item, result: DeliveryResult) -> DeliveryRecord:
        return DeliveryRecord.trusted(
            {
                "room_id": lane.actor.room_id,
                "index": item.index,
                "event_id": item.event_id,
                "channel_id": lane.channel_id,
                "state": result.state,
                "reason": result.error,
                "attempts": item.attempts,
                "provider_message_id": result.provider_message_id,
                "maybe_duplicate": item.maybe_duplicate,
                "parts": item.parts or result.parts,
                "part_states": {},
                "details": details_of(result, item.way),
                "updated_at": self.engine.now(),
            }
        )


async def _keep(engine: Engine, tenant: str, actor: RoomActor | None, notes: Notes) -> None:
    put, delete = tuple(notes[0]), tuple(notes[1])
    batch = Batch(tenant, engine.epoch, put=put, delete=delete)
    if actor is not None:
        batch = Batch(tenant, actor.epoch, actor.room_id, put=put, delete=delete)
    try:
        try:
            await engine.store.commit(batch)
        except StoreUnavailable:
            await engine.commit_until_done(batch)
    except StoreUnavailable as error:
        log.warning("deliveries that are done could not be noted and are repeated after the next start: %s", error)
    except Fenced:
        if actor is None:
            raise
        if not actor.retired:
            engine.table.drop(actor)  # What became of these the room's next owner finds out by itself.
    except Exception as error:  # noqa: BLE001 - what a driver does not take must not hold up the others, nor the sender
        if len(put) > 1:
            for pair in zip(put, delete, strict=True):
                await _keep(engine, tenant, actor, ([pair[0]], [pair[1]]))
            return
        engine.count("notes_refused")
        log.warning("what became of the delivery %s could not be noted: %s", delete[0].key, error)
        if put:  # It is over all the same: without its row it is not made again.
            await _keep(engine, tenant, actor, ([], list(delete)))


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


def unsettled(lanes: OutboxLanes, channel_id: str) -> bool:
    """Whether a delivery of this channel is under way, or any that is over is not noted yet."""
    noting = lanes._flushing  # pyright: ignore[reportPrivateUsage] - of this module
    return noting or any(lane.channel_id == channel_id for lane in lanes.lines.values())


def ending(lanes: OutboxLanes, actor: RoomActor, row: Record) -> bool:
    """Whether this delivery is over, and the store is about to hear of it: its row is nothing to be done again. What
    was done under an earlier lease than the actor's the store hears no more."""
    gone = RecordKey("outbox", row.tenant, row.key)
    waiting = (lanes._done, lanes._noting)  # pyright: ignore[reportPrivateUsage] - of this module
    return any(
        gone in rows
        for done in waiting
        for (tenant, by), (_, rows) in done.items()
        if tenant == row.tenant and (by is None or by.epoch == actor.epoch)
    )


def _lag(lane: Lane, now: datetime) -> tuple[int, float]:
    oldest = lane.item or (lane.items[0] if lane.items else None)
    event = oldest.event if oldest is not None else None
    age = max((now - event.created_at).total_seconds(), 0.0) if event is not None else 0.0
    return len(lane.items) + (lane.item is not None), age


_DELIVERED = DeliveryResult(success=True)
_ERASED = DeliveryResult(success=False, state=DeliveryState.SKIPPED, error="event_erased")


def _doubtful(result: DeliveryResult, policy: DeliveryPolicy) -> bool:
    return result.ambiguous and not policy.idempotent and policy.on_ambiguous == "stop_and_ask"


__all__ = ["Item", "Lane", "OutboxLanes", "ending"]
