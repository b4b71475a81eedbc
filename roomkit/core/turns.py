"""Turns: one running answer per (room, intelligence channel), from a durable row to one committed event.

What arrives meanwhile follows the channel's turn policy (D17). Rows of kind "turn" stand in the transaction of the
event that asked and leave in that of the answer, so a question is answered once, across crashes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roomkit.core import messages
from roomkit.core.actor import Change, Entry, RoomActor
from roomkit.core.history import history_reader, media_reader, recorded_answers
from roomkit.core.policy import ai_may_answer
from roomkit.core.replies import Reply
from roomkit.core.results import CURRENT, LANE, Settlement
from roomkit.core.state import turn_key
from roomkit.core.turn_port import Turn
from roomkit.errors import StateError
from roomkit.models.event import EventDraft, EventSource, RoomEvent
from roomkit.models.hooks import ReplyFinished, Trouble
from roomkit.models.room import ChannelBinding
from roomkit.models.stream import Ephemeral
from roomkit.ports.channel import Channel, ChannelOutput, RoomContext
from roomkit.ports.store import RecordKey
from roomkit.runtime import monotonic
from roomkit.runtime.span_names import (
    END_REASON,
    FIRST_WORD,
    GEN_AI_AGENT_ID,
    GEN_AI_CONVERSATION,
    GEN_AI_OPERATION,
    TRIGGERS,
    TURN,
)
from roomkit.runtime.tracing import OFF, Span, current

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
LONGEST_QUIET = 4
"""A quiet window that new messages keep open is at most this many times as long."""


@dataclass(slots=True)
class Trigger:
    event: RoomEvent
    settlement: Settlement | None
    span: Span = OFF

    @property
    def depth(self) -> int:
        return self.event.chain_depth


@dataclass(slots=True, eq=False)
class Running:
    """The turn under way. `cancelled` names who stopped it; once it is `ending`, its outcome is being committed and
    can be cut short no more."""

    reply: Reply
    triggers: list[Trigger]
    task: asyncio.Task[Any]
    cancelled: str = ""
    ending: bool = False

    def cancel(self, reason: str) -> None:
        if not self.cancelled and not self.ending:
            self.cancelled = reason
            self.task.cancel()


@dataclass(slots=True, eq=False)
class TurnLane:
    actor: RoomActor
    channel_id: str
    pending: list[Trigger] = field(default_factory=lambda: [])
    running: Running | None = None
    active: bool = False
    last_arrival: float = 0.0

    def works_for(self, settlement: Settlement) -> bool:
        running = self.running.triggers if self.running is not None else []
        return any(trigger.settlement is settlement for trigger in (*running, *self.pending))


@dataclass(slots=True, eq=False)
class _Cut:
    """Turns that are to end with somebody else's commit."""

    waiting: list[tuple[TurnLane, list[Trigger]]] = field(default_factory=list[tuple[TurnLane, list[Trigger]]])
    running: list[Running] = field(default_factory=list[Running])
    entries: list[Entry | None] = field(default_factory=list[Entry | None])


class Turns:
    """All turn lanes of one kit."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.lines: dict[tuple[str, str, str], TurnLane] = {}
        self._cutting: dict[RoomActor, asyncio.Event] = {}
        """Rooms whose machines are being silenced: until it is known whether they are, none begins to speak."""

    def enqueue(self, actor: RoomActor, channel_id: str, event: RoomEvent, settlement: Settlement | None) -> None:
        lane_key = (actor.tenant, actor.room_id, channel_id)
        lane = self.lines.get(lane_key)
        if lane is None:
            lane = self.lines[lane_key] = TurnLane(actor, channel_id)
            actor.lanes += 1
        if settlement is not None:
            settlement.begin(lane)
        lane.pending.append(Trigger(event, settlement, current() if self.engine.tracing.on else OFF))
        lane.last_arrival = monotonic()
        channel = self.engine.channels.get(channel_id)
        if lane.running is not None and channel is not None and channel.turn_policy.mode == "interrupt":
            lane.running.cancel("interrupted")
        self.wake(lane)

    def wake(self, lane: TurnLane) -> None:
        if lane.pending and not lane.active and not self.engine.draining:
            actor = lane.actor
            lane_key = (actor.tenant, actor.room_id, lane.channel_id)
            if lane_key not in self.lines:  # it had nothing to do while a commit was tried
                self.lines[lane_key] = lane
                actor.lanes += 1
            lane.active = True
            self.engine.scope.spawn(self._run(lane_key, lane), name=f"turns {lane.channel_id} in {actor.room_id}")

    def lags(self) -> list[tuple[str, int, float]]:
        """Of every lane with questions whose turn has not begun: channel, how many, age of the oldest in seconds."""
        now = self.engine.now()
        return [
            (lane.channel_id, len(lane.pending), max((now - lane.pending[0].event.created_at).total_seconds(), 0.0))
            for lane in self.lines.values()
            if lane.pending
        ]

    def running(self, actor: RoomActor) -> list[tuple[str, Running]]:
        """The turns under way in a room, by channel."""
        return [(lane.channel_id, lane.running) for lane in self._of(actor) if lane.running is not None]

    def about(self, actor: RoomActor, event_id: str) -> bool:
        """Whether an answer to this event is being made, or is about to be."""
        lanes = self._of(actor)
        triggers = [t for lane in lanes for t in (*lane.pending, *(lane.running.triggers if lane.running else ()))]
        return any(trigger.event.id == event_id for trigger in triggers)

    def active(self) -> int:
        return sum(1 for lane in self.lines.values() if lane.running is not None)

    def waiting(self) -> int:
        return sum(len(lane.pending) for lane in self.lines.values())

    def _of(self, actor: RoomActor) -> Iterable[TurnLane]:
        return [lane for lane in self.lines.values() if lane.actor is actor]

    async def commit_cut(self, actor: RoomActor, change: Change, reason: str) -> None:
        """Commits `change` together with the end of everything that machines say, or are about to say, in the room; if
        that fails they go on. Runs inside the actor."""
        known = self._cutting[actor] = asyncio.Event()
        try:
            await self._cut(actor, change, reason)
        finally:
            del self._cutting[actor]
            known.set()

    async def _cut(self, actor: RoomActor, change: Change, reason: str) -> None:
        cut = _Cut()
        own = change.entries[:]
        change.entries.clear()
        for lane in self._of(actor):
            taken, lane.pending = lane.pending, []
            cut.waiting.append((lane, taken))
            change.delete.extend(turn_rows(actor, lane.channel_id, taken))
        try:
            for _, running in self.running(actor):
                if running.reply.over:
                    continue
                cut.running.append(running)
                cut.entries.append(await running.reply.cut(change, reason))
            change.entries.extend(own)
            events = await actor.commit(change)
        except BaseException:
            _undo(self, cut)
            raise
        assert isinstance(events, list)
        for running, entry in zip(cut.running, cut.entries, strict=True):
            running.reply.end_reason = "cancelled"
            running.reply.ended(reason, events[change.entries.index(entry)] if entry is not None else None)
            running.cancel(reason)
        for _, triggers in cut.waiting:
            settle(triggers)

    def cancel_all(self, channel_id: str, reason: str) -> None:
        """Cuts short what a channel says in any room."""
        for lane in tuple(self.lines.values()):
            if lane.channel_id == channel_id and lane.running is not None:
                lane.running.cancel(reason)

    def drop_events(self, actor: RoomActor, ids: Container[str]) -> None:
        """What these events asked is gone: nobody answers it any more."""
        for lane in self._of(actor):
            gone = [trigger for trigger in lane.pending if trigger.event.id in ids]
            lane.pending = [trigger for trigger in lane.pending if trigger.event.id not in ids]
            settle(gone)
            running = lane.running
            if running is not None and any(trigger.event.id in ids for trigger in running.triggers):
                _ask_others_again(lane, running, ids)
                running.cancel("erased")

    def abandon(self) -> None:
        """The kit has closed: nobody waits any longer for what the next start will do."""
        for lane in self.lines.values():
            settle(lane.pending)
            lane.pending = []

    # -- the lane -------------------------------------------------------------------------------------------------

    async def _run(self, lane_key: tuple[str, str, str], lane: TurnLane) -> None:
        try:
            while lane.pending and not self.engine.draining:
                await self._quiet(lane)
                while (known := self._cutting.get(lane.actor)) is not None:
                    await known.wait()
                triggers = self._take(lane) if lane.pending else []
                if triggers:
                    await self._turn(lane, triggers)
        finally:
            lane.active = False
            if not lane.pending and self.lines.get(lane_key) is lane:
                del self.lines[lane_key]
                lane.actor.lanes -= 1

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
        token, above = CURRENT.set(settlement), LANE.set(lane)
        try:
            with _span(lane, triggers):
                await self._answer(lane, triggers, settlement)
        except Exception as error:  # noqa: BLE001 - the lane boundary: one turn's end never costs the next one
            self.engine.trouble(lane.actor, f"turn of {lane.channel_id}", error)
        finally:
            if lane.running is not None and lane.running.cancelled:
                lane.running.task.uncancel()
            lane.running = None
            CURRENT.reset(token)
            LANE.reset(above)
            settle(triggers)

    async def _answer(self, lane: TurnLane, triggers: list[Trigger], settlement: Settlement | None) -> None:
        actor, engine = lane.actor, self.engine
        channel = engine.channels.get(lane.channel_id)
        binding = actor.state.bindings.get(lane.channel_id)
        reply = Reply(engine, actor, lane.channel_id, triggers[-1].event, depth=1 + max(t.depth for t in triggers))
        task = asyncio.current_task()
        assert task is not None
        running = lane.running = Running(reply, triggers, task)
        rows = turn_rows(actor, lane.channel_id, triggers)
        may_answer = ai_may_answer(actor.state.room.floor)
        if channel is None or binding is None or not binding.can_read or not may_answer:
            running.ending = True
            await actor.insist(messages.forget, rows)
            return
        reply.settlement = settlement
        reply.turn_rows = rows
        started, begun = engine.now(), monotonic()
        try:
            output = await self._ask(lane, channel, binding, triggers, reply)
            await self._commit(running, output, rows, settlement)
        except asyncio.CancelledError:
            running.ending = True
            if running.cancelled:
                reply.end_reason = "cancelled"
                if not reply.over:
                    await self._end(reply, running.cancelled)
            elif task.cancelling():
                await self._checkpoint_at_shutdown(reply)
                raise
            else:
                await self._failed(actor, reply, StateError("something the brain waited for was cancelled"))
        except Exception as error:  # noqa: BLE001 - the lane boundary: a brain's failure ends its turn, never the room
            running.ending = True
            await self._failed(actor, reply, error)
        finally:
            self._report(actor, lane.channel_id, reply, started, begun)

    async def _ask(
        self, lane: TurnLane, channel: Channel, binding: ChannelBinding, triggers: list[Trigger], reply: Reply
    ) -> ChannelOutput:
        actor = lane.actor
        turn = Turn(self.engine, actor, lane.channel_id, reply, [t.event for t in triggers])
        context = RoomContext(
            room=actor.state.snapshot(),
            binding=binding,
            bindings=actor.state.seats,
            participants=actor.state.people,
            history=history_reader(self.engine, actor, lane.channel_id),
            turn=turn,
            events=tuple(t.event for t in triggers),
            media=media_reader(self.engine, actor),
            answers=recorded_answers(actor),
        )
        return await channel.on_event(triggers[-1].event, binding, context)

    async def _commit(
        self, running: Running, output: ChannelOutput, rows: list[RecordKey], settlement: Settlement | None
    ) -> None:
        reply = running.reply
        actor, channel_id = reply.actor, reply.channel_id
        if output.metadata_updates:
            await actor.insist(messages.merge_binding_metadata, channel_id, output.metadata_updates)
        if output.response_stream is not None:
            typing = Ephemeral.made(kind="typing", room_id=actor.room_id, sender=channel_id, data={"on": True})
            actor.hub.ephemeral(typing, actor.state.bindings)
            await reply.pull(output.response_stream)
            running.ending = True
            await reply.close(output)
            return
        running.ending = True
        drafts = output.response_events
        for position, draft in enumerate(drafts):
            last = position == len(drafts) - 1
            stamped = self._stamp(actor, channel_id, draft, reply)
            side = output if last else None
            reply.event = await actor.insist(
                messages.submit_reply, stamped, reply.floor_generation, rows if last else [], side, settlement
            )
        if not drafts:
            await actor.insist(messages.forget, rows, output)

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
        if actor.retired and reply.over:
            return  # the room has gone to another process, which ends it
        log.error("turn of %s in %s failed: %s", reply.channel_id, actor.room_id, error, exc_info=error)
        reply.end_reason, reply.error = "error", f"{type(error).__name__}: {error}"
        self.engine.count("turn_errors")
        self.engine.hooks.tell(Trouble(actor.tenant, actor.room_id, f"turn of {reply.channel_id}", error))
        await self._end(reply, "error")

    async def _end(self, reply: Reply, reason: str) -> None:
        try:
            await reply.close_interrupted(reason)
        except Exception:  # no commit, no event: whoever saw it grow loses it again
            reply.ended(reason, None)
            raise

    async def _checkpoint_at_shutdown(self, reply: Reply) -> None:
        try:
            await reply.checkpoint.save()
        except Exception:  # noqa: BLE001 - shutting down: the last durable checkpoint stands
            log.warning("the last words of a reply in %s could not be checkpointed", reply.actor.room_id)

    def _report(self, actor: RoomActor, channel_id: str, reply: Reply, started: Any, begun: float) -> None:
        total = monotonic() - begun
        first = reply.first_token_at - begun if reply.first_token_at is not None else None
        self.engine.meters.turn_ended(channel_id, total, first)
        if (span := current()) is not OFF:
            span.set(END_REASON, reply.end_reason)
            span.set(FIRST_WORD, first)
            if reply.end_reason == "error":
                span.fail("TurnFailed")
        if self.engine.hooks.heard(ReplyFinished):
            self.engine.hooks.tell(
                ReplyFinished(
                    actor.tenant,
                    actor.room_id,
                    channel_id=channel_id,
                    reason=reply.end_reason,
                    event=reply.event,
                    usage=reply.usage,
                    first_token_s=first,
                    total_s=total,
                    started_at=started,
                    error=reply.error,
                )
            )


def _undo(turns: Turns, cut: _Cut) -> None:
    for running in cut.running:
        running.reply.checkpoint.go_on()
    for lane, triggers in cut.waiting:
        lane.pending[:0] = triggers
        turns.wake(lane)


def _ask_others_again(lane: TurnLane, running: Running, ids: Container[str]) -> None:
    """The questions beside an erased one begin another turn, unless this one has said or done something."""
    reply = running.reply
    if running.cancelled or running.ending or reply.text or reply.journal.begun:
        return
    others = [trigger for trigger in running.triggers if trigger.event.id not in ids]
    running.triggers[:] = [trigger for trigger in running.triggers if trigger.event.id in ids]
    reply.turn_rows = turn_rows(lane.actor, lane.channel_id, running.triggers)
    lane.pending[:0] = others


def turn_rows(actor: RoomActor, channel_id: str, triggers: list[Trigger]) -> list[RecordKey]:
    """The rows of a lane's questions."""
    return [RecordKey("turn", actor.tenant, turn_key(actor.room_id, channel_id, t.event.index)) for t in triggers]


def settle(triggers: list[Trigger]) -> None:
    for trigger in triggers:
        if trigger.settlement is not None:
            trigger.settlement.end()


def forget(turns: Turns, actor: RoomActor) -> None:
    """The room is another process's, which goes on from what is durable; nothing more is said or written here."""
    for lane_key, lane in tuple(turns.lines.items()):
        if lane.actor is actor:
            settle(lane.pending)
            lane.pending = []
            if lane.running is not None:
                lane.running.reply.abandon()
                lane.running.cancel("moved")
            if not lane.active:
                del turns.lines[lane_key]
                actor.lanes -= 1


def at_work(turns: Turns) -> set[tuple[str, str]]:
    """The rooms, as tenant and id, with a turn under way."""
    return {(lane.actor.tenant, lane.actor.room_id) for lane in turns.lines.values() if lane.running is not None}


def _span(lane: TurnLane, triggers: list[Trigger]) -> Span:
    if not lane.actor.engine.tracing.on:
        return OFF
    actor, channel_id = lane.actor, lane.channel_id
    name, above = f"{TURN} {channel_id}", triggers[-1].span
    span = actor.engine.tracing.span(name, actor.tenant, actor.room_id, channel_id, above)
    span.set(GEN_AI_OPERATION, TURN)
    span.set(GEN_AI_AGENT_ID, channel_id)
    span.set(GEN_AI_CONVERSATION, actor.room_id)
    span.set(TRIGGERS, len(triggers))
    return span


__all__ = ["Running", "Turns"]
