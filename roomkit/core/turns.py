"""Turns: one running answer per (room, intelligence channel), from a durable row to one committed event.

What arrives meanwhile follows the channel's turn policy (D17). Rows of kind "turn" stand in the transaction of the
event that asked and leave in that of the answer, so a question is answered once, across crashes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roomkit.core import messages
from roomkit.core.actor import Change, RoomActor
from roomkit.core.history import history_reader
from roomkit.core.replies import Reply
from roomkit.core.results import CURRENT, Settlement
from roomkit.core.state import key
from roomkit.core.turn_port import Turn
from roomkit.models.event import EventDraft, EventSource, RoomEvent
from roomkit.models.hooks import ReplyFinished, Trouble
from roomkit.models.room import ChannelBinding
from roomkit.models.stream import Ephemeral
from roomkit.ports.channel import Channel, ChannelOutput, RoomContext
from roomkit.ports.store import RecordKey
from roomkit.runtime import monotonic

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
LONGEST_QUIET = 4
"""A quiet window that new messages keep open is at most this many times as long."""


@dataclass(slots=True)
class Trigger:
    event: RoomEvent
    settlement: Settlement | None

    @property
    def depth(self) -> int:
        return self.event.chain_depth


@dataclass(slots=True, eq=False)
class Running:
    """The turn under way. `cancelled` names who stopped it; `closed` that its outcome is already committed."""

    reply: Reply
    triggers: list[Trigger]
    task: asyncio.Task[Any] | None
    cancelled: str = ""
    closed: bool = False

    def cancel(self, reason: str) -> None:
        if not self.cancelled:
            self.cancelled = reason
            if self.task is not None:
                self.task.cancel()


@dataclass(slots=True, eq=False)
class TurnLane:
    actor: RoomActor
    channel_id: str
    pending: list[Trigger] = field(default_factory=lambda: [])
    running: Running | None = None
    active: bool = False
    last_arrival: float = 0.0


class Turns:
    """All turn lanes of one kit."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lanes: dict[tuple[str, str, str], TurnLane] = {}

    def enqueue(self, actor: RoomActor, channel_id: str, event: RoomEvent, settlement: Settlement | None) -> None:
        if settlement is not None:
            settlement.begin()
        lane_key = (actor.tenant, actor.room_id, channel_id)
        lane = self._lanes.get(lane_key)
        if lane is None:
            lane = self._lanes[lane_key] = TurnLane(actor, channel_id)
        lane.pending.append(Trigger(event, settlement))
        lane.last_arrival = monotonic()
        channel = self.engine.channels.get(channel_id)
        if lane.running is not None and channel is not None and channel.turn_policy.mode == "interrupt":
            lane.running.cancel("interrupted")
        if not lane.active and not self.engine.draining:
            lane.active = True
            self.engine.scope.spawn(self._run(lane_key, lane), name=f"turns {channel_id} in {actor.room_id}")

    def running(self, actor: RoomActor) -> list[tuple[str, Running]]:
        """The turns under way in a room, by channel."""
        return [(lane.channel_id, lane.running) for lane in self._of(actor) if lane.running is not None]

    def busy(self, actor: RoomActor) -> bool:
        return any(lane.active or lane.pending for lane in self._of(actor))

    def active(self) -> int:
        return sum(1 for lane in self._lanes.values() if lane.running is not None)

    def waiting(self) -> int:
        return sum(len(lane.pending) for lane in self._lanes.values())

    def _of(self, actor: RoomActor) -> Iterable[TurnLane]:
        return [lane for lane in self._lanes.values() if lane.actor is actor]

    def drop_pending(self, actor: RoomActor, change: Change) -> None:
        """Forgets questions not yet begun: a person has taken over. Runs inside the actor."""
        for lane in self._of(actor):
            taken, lane.pending = lane.pending, []
            change.delete.extend(self._rows(actor, lane.channel_id, taken))
            self._settle(taken)

    def close_running(self, actor: RoomActor, change: Change, reason: str) -> list[Running]:
        """Adds the end of every running reply to `change`; the caller cancels them once it is committed."""
        stopped: list[Running] = []
        for channel_id, running in self.running(actor):
            if running.closed:
                continue
            running.closed = True
            running.reply.stop()
            running.reply.cancel_calls(change, reason)
            entry = running.reply.interrupted(reason)
            if entry is not None:
                change.add(entry)
            change.delete.extend(running.reply.rows())
            change.delete.extend(self._rows(actor, channel_id, running.triggers))
            stopped.append(running)
        return stopped

    # -- the lane -------------------------------------------------------------------------------------------------

    async def _run(self, lane_key: tuple[str, str, str], lane: TurnLane) -> None:
        try:
            while lane.pending and not self.engine.draining:
                await self._quiet(lane)
                triggers = self._take(lane)
                if triggers:
                    await self._turn(lane, triggers)
        finally:
            lane.active = False
            if not lane.pending:
                self._lanes.pop(lane_key, None)

    async def _quiet(self, lane: TurnLane) -> None:
        """Waits until the sender has paused, so that three quick texts get one answer."""
        channel = self.engine.channels.get(lane.channel_id)
        if channel is None or channel.turn_policy.mode != "coalesce" or not lane.pending:
            return
        source = self.engine.channels.get(lane.pending[-1].event.source.channel_id)
        quiet = channel.turn_policy.quiet_s
        if quiet is None:
            quiet = source.capabilities.quiet_window_s if source is not None else 0.0
        if quiet <= 0:
            return
        limit = monotonic() + quiet * LONGEST_QUIET
        while (left := min(lane.last_arrival + quiet, limit) - monotonic()) > 1e-6:  # noqa: ASYNC110 - arrivals move it
            await asyncio.sleep(left)

    def _take(self, lane: TurnLane) -> list[Trigger]:
        channel = self.engine.channels.get(lane.channel_id)
        if channel is not None and channel.turn_policy.mode == "queue":
            return [lane.pending.pop(0)]
        taken, lane.pending = lane.pending, []
        return taken

    async def _turn(self, lane: TurnLane, triggers: list[Trigger]) -> None:
        settlement = next((t.settlement for t in reversed(triggers) if t.settlement is not None), None)
        token = CURRENT.set(settlement)
        try:
            await self._answer(lane, triggers, settlement)
        finally:
            lane.running = None
            CURRENT.reset(token)
            self._settle(triggers)

    async def _answer(self, lane: TurnLane, triggers: list[Trigger], settlement: Settlement | None) -> None:
        actor, engine = lane.actor, self.engine
        channel = engine.channels.get(lane.channel_id)
        binding = actor.state.bindings.get(lane.channel_id)
        reply = Reply(engine, actor, lane.channel_id, triggers[-1].event, depth=1 + max(t.depth for t in triggers))
        running = lane.running = Running(reply, triggers, asyncio.current_task())
        rows = self._rows(actor, lane.channel_id, triggers)
        if channel is None or binding is None or not binding.can_read:
            await actor.call(messages.forget, rows)
            return
        reply.settlement = settlement
        reply.turn_rows = rows
        started, begun = engine.now(), monotonic()
        try:
            output = await self._ask(lane, channel, binding, triggers, reply)
            await self._commit(lane, output, reply, rows, settlement)
        except asyncio.CancelledError:
            if not running.cancelled:
                await self._checkpoint_at_shutdown(reply)
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            reply.end_reason = "cancelled"
            if not running.closed:
                await reply.close_interrupted(running.cancelled)
        except Exception as error:  # noqa: BLE001 - the lane boundary: a brain's failure ends its turn, never the room
            await self._failed(actor, reply, error)
        finally:
            self._report(actor, lane.channel_id, reply, started, begun)

    async def _ask(
        self, lane: TurnLane, channel: Channel, binding: ChannelBinding, triggers: list[Trigger], reply: Reply
    ) -> ChannelOutput:
        actor = lane.actor
        turn = Turn(self.engine, actor, lane.channel_id, reply)
        context = RoomContext(
            room=actor.state.snapshot(),
            binding=binding,
            bindings=actor.state.seats,
            participants=actor.state.people,
            history=history_reader(self.engine, actor, lane.channel_id),
            turn=turn,
            events=tuple(t.event for t in triggers),
        )
        return await channel.on_event(triggers[-1].event, binding, context)

    async def _commit(
        self,
        lane: TurnLane,
        output: ChannelOutput,
        reply: Reply,
        rows: list[RecordKey],
        settlement: Settlement | None,
    ) -> None:
        actor = lane.actor
        if output.metadata_updates:
            await actor.call(messages.merge_binding_metadata, lane.channel_id, output.metadata_updates)
        if output.response_stream is not None:
            typing = Ephemeral(kind="typing", room_id=actor.room_id, sender=lane.channel_id, data={"on": True})
            actor.hub.ephemeral(typing, actor.state.bindings)
            await reply.pull(output.response_stream)
            await reply.close(output)
            return
        drafts = output.response_events
        for position, draft in enumerate(drafts):
            last = position == len(drafts) - 1
            stamped = self._stamp(actor, lane.channel_id, draft, reply)
            side = output if last else None
            reply.event = await actor.call(
                messages.submit_reply, stamped, reply.floor_generation, rows if last else [], side, settlement
            )
        if not drafts:
            await actor.call(messages.forget, rows, output)

    def _stamp(self, actor: RoomActor, channel_id: str, draft: EventDraft, reply: Reply) -> EventDraft:
        """A reply always speaks as its own channel, one step deeper in the chain, in the thread it answers."""
        binding = actor.state.bindings[channel_id]
        source = EventSource(
            channel_id=channel_id,
            channel_type=binding.channel_type,
            direction="outbound",
            participant_id=draft.source.participant_id or binding.participant_id,
            provider=draft.source.provider,
        )
        return draft.model_copy(
            update={
                "source": source,
                "chain_depth": reply.depth,
                "parent_event_id": draft.parent_event_id or reply.cause.parent_event_id,
                "correlation_id": draft.correlation_id or reply.cause.id,
            }
        )

    async def _failed(self, actor: RoomActor, reply: Reply, error: Exception) -> None:
        log.error("turn of %s in %s failed: %s", reply.channel_id, actor.room_id, error, exc_info=error)
        reply.end_reason, reply.error = "error", f"{type(error).__name__}: {error}"
        self.engine.count("turn_errors")
        self.engine.hooks.tell(Trouble(actor.tenant, actor.room_id, f"turn of {reply.channel_id}", error))
        await reply.close_interrupted("error")

    async def _checkpoint_at_shutdown(self, reply: Reply) -> None:
        try:
            await reply.checkpoint.save()
        except Exception:  # noqa: BLE001 - shutting down: the last durable checkpoint stands
            log.warning("the last words of a reply in %s could not be checkpointed", reply.actor.room_id)

    def _report(self, actor: RoomActor, channel_id: str, reply: Reply, started: Any, begun: float) -> None:
        self.engine.observe("turn_seconds", monotonic() - begun)
        self.engine.hooks.tell(
            ReplyFinished(
                actor.tenant,
                actor.room_id,
                channel_id=channel_id,
                reason=reply.end_reason,
                event=reply.event,
                usage=reply.usage,
                first_token_s=reply.first_token_at - begun if reply.first_token_at is not None else None,
                total_s=monotonic() - begun,
                started_at=started,
                error=reply.error,
            )
        )

    def _rows(self, actor: RoomActor, channel_id: str, triggers: list[Trigger]) -> list[RecordKey]:
        return [RecordKey("turn", actor.tenant, key(actor.room_id, channel_id, t.event.index)) for t in triggers]

    @staticmethod
    def _settle(triggers: list[Trigger]) -> None:
        for trigger in triggers:
            if trigger.settlement is not None:
                trigger.settlement.end()


__all__ = ["Running", "Turns"]
