"""Front: the first attempts of an event's deliveries, made in place. Most end with their first step, and need no lane.

Also what a lane is made of: its items, each one delivery to be made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from roomkit.core.history import read_history
from roomkit.core.outcomes import Over
from roomkit.core.outgoing import DELIVERED, Projection, bridged_name, ended
from roomkit.core.results import CURRENT, LANE, Settlement
from roomkit.models.content import vendor_text
from roomkit.models.delivery import DeliveryResult
from roomkit.models.event import RoomEvent
from roomkit.ports.channel import Channel, RoomContext
from roomkit.runtime.bounded import Step, first_steps, resume
from roomkit.runtime.crashpoint import crashpoint
from roomkit.runtime.eager import Burst
from roomkit.runtime.tracing import OFF, Span

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.lanes import OutboxLanes

First = tuple[Channel, Projection]


class Item:
    """One delivery to be made. `attempts` counts those noted before a crash; `noted` is what its row says of them."""

    # Of the class, because most are over before any of it is set.
    parts: tuple[str, ...] = ()
    maybe_duplicate: bool = False
    span: Span = OFF
    noted: int = 0
    erased: bool = False
    way: dict[str, str] | None = None  # for a channel that has two: which, and why
    begun: Awaitable[DeliveryResult | None] | None = None  # the attempt under way, of which the first step is done
    counted: bool = False
    lane: Lane | None = None  # where it is under way

    def __init__(
        self, event: RoomEvent | None, index: int, event_id: str, settlement: Settlement | None, attempts: int = 0
    ) -> None:
        self.event = event
        self.index = index
        self.event_id = event_id
        self.settlement = settlement
        self.attempts = attempts

    async def part_done(self, part_id: str, way: dict[str, str] | None = None) -> None:
        """A part is out; or, with a `way`, the whole goes that way from here on. Told later it changes nothing."""
        if self.lane is not None and self.lane.item is self:
            self.parts, self.way = (() if way else (*self.parts, vendor_text(part_id))), way or self.way
            await self.lane.actor.engine.lanes.note(self.lane, self)


_NONE: Any = ()
"""Of a lane in which nothing has had to wait yet: a deque takes 700 bytes."""


@dataclass(slots=True, eq=False)
class Lane:
    """`item` is the delivery under way. `held` says that a dead letter holds up the others; None: not known yet."""

    actor: RoomActor
    channel_id: str
    items: deque[Item] = _NONE
    busy: bool = False
    item: Item | None = None
    held: bool | None = None

    def works_for(self, settlement: Settlement) -> bool:
        here = self.item is not None and self.item.settlement is settlement
        return here or any(item.settlement is settlement for item in self.items)


class Front:
    """Makes the first attempts of one event in place, where nobody looks at a delivery, changes it or holds it up. What
    does not end with this step, or not well, goes on in its lane."""

    __slots__ = (
        "_actor",
        "_burst",
        "_channels",
        "_durable",
        "_event",
        "_events",
        "_lanes",
        "_named",
        "_noted",
        "_room",
        "_settlement",
    )

    def __init__(
        self,
        lanes: OutboxLanes,
        actor: RoomActor,
        event: RoomEvent,
        settlement: Settlement | None,
        burst: Burst,
        noted: Container[str],
    ) -> None:
        self._lanes, self._actor, self._burst, self._noted = lanes, actor, burst, noted
        self._event, self._events, self._settlement = event, (event,), settlement
        self._channels, self._room = lanes.engine.registry.channels, (actor.tenant, actor.room_id)
        self._durable = lanes.engine.info.durable
        self._named = bool(bridged_name(actor, event))

    def send(self, channel_ids: Iterable[str], left: list[str]) -> bool:
        """Adds to `left` those that are not for this way; False when any of the others goes on."""
        ids, over = iter(channel_ids), True
        while True:
            done: list[Over] = []
            one = self._burst.within(self._stretch, ids, left, done)
            if done:
                self._over(done)
            if one is None:
                return over
            self._goes_on(*one)
            over = False

    def _over(self, done: list[Over]) -> None:
        """Outside of what the deliveries run in: whoever is told of them is no part of them."""
        try:
            self._lanes.finished(self._actor, done)
        except Exception as error:  # noqa: BLE001 - they are out all the same, and so is their event
            self._lanes.engine.trouble(self._actor, "the end of deliveries", error)

    def _stretch(self, ids: Iterator[str], left: list[str], done: list[Over]) -> tuple[Lane, Item, Any, First] | None:
        """Delivers until one of them goes on, which it returns, or all are over. Adds to `done` those that are."""
        lanes, actor, event = self._lanes, self._actor, self._event
        lane, state, outcome = Lane(actor, "", busy=True), actor.state, None
        room, seats, people, bindings = state.room, state.seats, state.people, state.bindings
        index, event_id, settlement, noted = event.index, event.id, self._settlement, self._noted
        engine, at = lanes.engine, Step()
        steps: Any = first_steps(at)
        steps.send(None)
        CURRENT.set(settlement)
        LANE.set(lane)
        for channel_id in ids:
            binding = bindings.get(channel_id)
            channel = self._open(channel_id) if binding is not None else None
            if channel is None or binding is None:
                left.append(channel_id)
                continue
            item = lane.item = Item(event, index, event_id, settlement, 1)
            if channel_id in noted:
                item.noted = 1
            lane.channel_id = lanes.front = channel_id
            item.lane = lane
            parts = {"parts": (), "part_done": item.part_done}
            history = partial(read_history, engine, actor, channel_id)
            context = RoomContext(room, binding, seats, people, history, None, self._events, parts)
            crashpoint("outbox.before_send")
            try:
                waiting = steps.send(channel.deliver(event, binding, context))
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a plug-in # swallows cancellation: told
                begun: Awaitable[Any] = ended(error)
            else:
                if waiting is at:
                    crashpoint("outbox.after_send")
                    result = at.result or DELIVERED
                    if type(result) is DeliveryResult and result.success:
                        row = self._durable or bool(item.parts or item.way)  # `part_done` has written one
                        done.append((actor, channel_id, item, result, row))
                        continue
                    begun = ended(result)
                else:
                    at.last = True
                    begun = resume(steps, waiting)
            outcome = (lane, item, begun, (channel, Projection(context, event)))
            break
        lanes.front = ""
        if outcome is None:
            lane.item = None  # What is told of it later is told too late.
        return outcome

    def _open(self, channel_id: str) -> Channel | None:
        """The channel, where a delivery may simply be made."""
        channel = self._channels.get(channel_id)
        if channel is None or (*self._room, channel_id) in self._lanes.lines:
            return None
        try:
            policy, able = channel.delivery_policy, channel.capabilities
            if policy.slow or not able.text or (self._named and not able.shows_sender):
                return None
            if self._durable and not (policy.idempotent or channel_id in self._noted):
                return None
        except Exception:  # noqa: BLE001 - a channel is a plug-in: `_deliver` sees to what it raises
            return None
        return channel

    def _goes_on(self, lane: Lane, item: Item, begun: Awaitable[DeliveryResult | None], way: First) -> None:
        lanes, actor = self._lanes, self._actor
        lane_key = (actor.tenant, actor.room_id, lane.channel_id)
        lanes.lines[lane_key] = lane
        lanes.backlog += 1
        item.counted, item.begun = True, begun
        actor.lanes += 1
        if item.settlement is not None:
            item.settlement.begin(lane)
        self._burst.run(lanes.work(lane_key, lane, way))
