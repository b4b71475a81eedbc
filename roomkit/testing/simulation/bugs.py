# pyright: reportPrivateUsage=false
"""Planted bugs: each breaks the real core from outside while it is planted, and the judge must find it.

A checker that finds nothing proves nothing. `PLANTED` names every bug with the number of schedules within which it is
found; `planted(bug)` plants one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from roomkit.ai.gate import ToolGate
from roomkit.core import messages, outcomes, recovery, views
from roomkit.core.actor import Change, RoomActor
from roomkit.core.checkpoint import Checkpoint
from roomkit.core.engine import Engine
from roomkit.core.following import Follower
from roomkit.core.holdings import Holdings
from roomkit.core.journal import ToolJournal
from roomkit.core.lanes import Lane, OutboxLanes, outbox_row
from roomkit.core.memory import MemoryStore
from roomkit.core.nodes import Nodes
from roomkit.core.outcomes import Outcomes
from roomkit.core.replies import Reply
from roomkit.core.streams import Hub
from roomkit.core.timers import Timers
from roomkit.core.turns import Turns
from roomkit.models.stream import StreamError
from roomkit.ports.store import Batch, Duplicate, Record, RecordQuery
from roomkit.runtime import Scope
from roomkit.testing.simulation import deed_bugs, rights_bugs
from roomkit.testing.simulation.nodes import Leases
from roomkit.testing.simulation.planting import PLANTED, Patch, planted
from roomkit.testing.simulation.planting import bug as _bug
from roomkit.testing.simulation.process import HURRY


def _always(*_: Any) -> bool:
    return True


async def _nothing(*_: Any, **__: Any) -> None:
    """In place of something that ought to happen."""


# -- the commit ---------------------------------------------------------------------------------------------------

_commit, _write, _rows, _call = RoomActor.commit, RoomActor._write, RoomActor._rows, RoomActor._call


async def _no_dedupe(self: RoomActor, change: Change) -> Any:
    change.dedupe_for = None
    return await _commit(self, change)


async def _channelless(self: RoomActor, change: Change) -> Any:
    if change.dedupe_for is not None:
        change.dedupe_for = ("any", *change.dedupe_for[1:])
    return await _commit(self, change)


async def _ack_first(self: RoomActor, batch: Batch) -> None:
    self.engine.write_soon(batch)


async def _swallowed(self: RoomActor, batch: Batch) -> Duplicate | None:
    try:
        return await _write(self, batch)
    except Exception:  # noqa: BLE001 - the bug
        return None


async def _duplicate_ignored(self: RoomActor, batch: Batch) -> None:
    await _write(self, batch)


def _second_transaction(*kinds: str) -> Callable[[RoomActor, Batch], Awaitable[Duplicate | None]]:
    async def write(self: RoomActor, batch: Batch) -> Duplicate | None:
        late = tuple(put for put in batch.put if put.kind in kinds)
        duplicate = await _write(self, batch._replace(put=tuple(put for put in batch.put if put not in late)))
        if late and duplicate is None:
            await self.engine.store.commit(Batch(batch.tenant, batch.epoch, batch.room_id, put=late))
        return duplicate

    return write


async def _shown_first(self: RoomActor, batch: Batch) -> Duplicate | None:
    for event in batch.events:
        self.hub.event(event, self.state.bindings)
    return await _write(self, batch)


async def _true_first(self: RoomActor, batch: Batch) -> Duplicate | None:
    if batch.events:
        self.state.next_index = batch.events[-1].index + 1
    return await _write(self, batch)


def _rows_without(kind: str) -> Callable[..., None]:
    def rows(self: RoomActor, put: list[Record], *more: Any) -> None:
        _rows(self, put, *more)
        put[:] = [record for record in put if record.kind != kind]

    return rows


async def _side_by_side(self: RoomActor, fn: Any, args: tuple[Any, ...], mailbox: int | None) -> Any:
    if self.retired:
        return await _call(self, fn, args, mailbox)
    return await fn(self, *args)


async def _tenantless(self: MemoryStore, batch: Batch) -> Duplicate | None:
    for key in batch.dedupe:
        for tenant in self._tenants.values():
            if (first := tenant.dedupe.get(f"{key.channel_id}\n{key.key}")) is not None:
                return Duplicate(*first[:3])
    return await _memory_commit(self, batch)


async def _unfenced(self: MemoryStore, batch: Batch) -> Duplicate | None:
    return await _memory_commit(self, batch._replace(epoch=max(batch.epoch, self._info.epoch)))


_memory_commit = MemoryStore.commit
_bug("no dedupe", 30, (RoomActor, "commit", _no_dedupe))
_bug("dedupe key without the channel", 200, (RoomActor, "commit", _channelless))
_bug("dedupe key without the tenant", 200, (MemoryStore, "commit", _tenantless))
_bug("acknowledged before the commit", 100, (RoomActor, "_write", _ack_first), nodes=1)
_bug("a failed commit passes for a good one", 100, (RoomActor, "_write", _swallowed))
_bug("a duplicate passes for a commit", 30, (RoomActor, "_write", _duplicate_ignored))
_bug("outbox rows in a second transaction", 400, (RoomActor, "_write", _second_transaction("outbox")))
_bug("turn rows in a second transaction", 800, (RoomActor, "_write", _second_transaction("turn")))
_bug("shown before it is stored", 100, (RoomActor, "_write", _shown_first))
_bug("true in memory before it is stored", 100, (RoomActor, "_write", _true_first))
_bug("no outbox row", 100, (RoomActor, "_rows", _rows_without("outbox")))
_bug("no turn row", 200, (RoomActor, "_rows", _rows_without("turn")))
_bug("two operations of a room side by side", 100, (RoomActor, "_call", _side_by_side))
_bug("no fence", 200, (MemoryStore, "commit", _unfenced))
_bug("busy rooms are sent away", 100, (RoomActor, "idle", property(_always)))

# -- lanes --------------------------------------------------------------------------------------------------------

_put, _deliver, _attempt, _record_of = OutboxLanes._put, OutboxLanes._deliver, OutboxLanes.attempt, outcomes.record_of


_not_straight: Patch = (OutboxLanes, "asks", True)


def _last_first(self: OutboxLanes, actor: RoomActor, channel_id: str, item: Any, burst: Any) -> None:
    _put(self, actor, channel_id, item, burst)
    lane = self.lines.get((actor.tenant, actor.room_id, channel_id))
    if lane is not None and len(lane.items) > 1:
        lane.items.rotate(1)


async def _all_at_once(self: OutboxLanes, lane: Lane, item: Any) -> None:
    self.engine.scope.spawn(_deliver(self, lane, item), name="delivery")


async def _gone_before_sent(self: OutboxLanes, lane: Lane, item: Any, *more: Any) -> Any:
    row = outbox_row(lane, item)
    await self.engine.forget_row(lane.actor, row)
    return await _attempt(self, lane, item, *more)


async def _never_noted(self: Outcomes) -> None:
    self._over.clear()
    self._rows.clear()
    self.writing = False


def _undoubted(actor: RoomActor, channel_id: str, item: Any, *more: Any) -> Any:
    item.maybe_duplicate = False
    return _record_of(actor, channel_id, item, *more)


async def _recovered(engine: Engine, *, leave: str = "", backwards: bool = False) -> dict[str, int]:
    records = engine.store.records

    async def some(query: RecordQuery) -> list[Record]:
        found = await records(query)
        if query.tenant is None and query.kind == leave:
            return []
        return found[::-1] if backwards and query.tenant is None and query.kind == "outbox" else found

    store: Any = engine.store
    store.records = some
    try:
        return await _recover(engine)
    finally:
        store.records = records


def _recovery(**how: Any) -> Patch:
    async def recover(engine: Engine) -> dict[str, int]:
        return await _recovered(engine, **how)

    return (_engine_module, "recover", recover)


_engine_module: Any = __import__("roomkit.core.engine", fromlist=["recover"])
_recover = recovery.recover
_bug("a lane takes the last one first", 200, (OutboxLanes, "_put", _last_first), _not_straight)
_bug("a lane delivers all at once", 100, (OutboxLanes, "_deliver", _all_at_once), _not_straight)
_bug("an outbox row goes before the delivery", 400, (OutboxLanes, "attempt", _gone_before_sent), _not_straight)
_bug("the end of a delivery is not noted", 30, (Outcomes, "_write", _never_noted))
_bug("an attempt is not noted", 800, (OutboxLanes, "note", _nothing))
_bug("a doubt is not told", 100, (outcomes, "record_of", _undoubted))
_bug("deliveries are forgotten over a restart", 200, _recovery(leave="outbox"))
_bug("deliveries are resumed backwards", 400, _recovery(backwards=True))
_bug("cut replies are not closed", 300, _recovery(leave="stream"))
_bug("questions are forgotten over a restart", 200, _recovery(leave="turn"))

# -- turns and replies --------------------------------------------------------------------------------------------

_take, _close, _submit_reply, _end = Turns._take, recovery._close_stream, messages.submit_reply, Hub.end
_journal = ToolJournal._commit


def _only_the_last(self: Turns, lane: Any) -> list[Any]:
    return _take(self, lane)[-1:]


async def _wordless(actor: RoomActor, record: Record, *more: Any) -> None:
    await _close(actor, record._replace(value={**record.value, "text": ""}), *more)


def _journal_without(pending: bool) -> Callable[[ToolJournal, RoomActor, Any, Any], Awaitable[None]]:
    async def commit(self: ToolJournal, actor: RoomActor, step: Any, said: Any) -> None:
        if (step.call.status == "pending") is not pending:
            await _journal(self, actor, step, said)

    return commit


def _ends_twice(self: Hub, stream_id: str, event: Any, bindings: Any) -> None:
    stream = self.streams.get(stream_id)
    told = tuple(stream.told.values()) if stream is not None else ()
    _end(self, stream_id, event, bindings)
    for deliver in told:
        deliver(StreamError(room_id=event.room_id, stream_id=stream_id, error="error"))


async def _never_ends(self: Reply, output: Any = None) -> None:
    """The reply is a message, and its rows stay."""
    self.turn_rows.clear()
    await _reply_close(self, output)


_reply_close = Reply.close


async def _uncut(_: Turns, actor: RoomActor, change: Change, *__: str) -> None:
    await actor.commit(change)


async def _any_floor(actor: RoomActor, draft: Any, _: int, *more: Any) -> Any:
    return await _submit_reply(actor, draft, actor.state.room.floor.generation, *more)


async def _always_allowed(*_: Any) -> None:
    return None


_bug("a turn drops all questions but the last", 100, (Turns, "_take", _only_the_last))
_bug("the turn rows stay", 30, (Reply, "close", _never_ends))
_bug("no checkpoint of a stream", 400, (Checkpoint, "_save", _nothing))
_bug("the words of a cut reply are dropped", 800, (recovery, "_close_stream", _wordless))
_bug("a tool runs before its intent is durable", 100, (ToolJournal, "_commit", _journal_without(True)))
_bug("the result of a tool is not kept", 100, (ToolJournal, "_commit", _journal_without(False)))
_bug("any tool is run again", 3000, (ToolGate, "idempotent", _always))
_bug("tools run without asking", 100, (ToolGate, "_approval", _always_allowed))
_bug("a reply ends twice", 30, (Hub, "end", _ends_twice))
_bug(
    "a take-over does not end the reply",
    400,
    (Turns, "commit_cut", _uncut),
    (messages, "submit_reply", _any_floor),
)

# -- views, edits, timers ------------------------------------------------------------------------------------------

_view = views.open_view


async def _one_too_few(actor: RoomActor, viewer: Any, deliver: Any, after: int | None, tail: int) -> Any:
    return await _view(actor, viewer, deliver, None if after is None else after + 1, tail)


async def _read_then_subscribe(actor: RoomActor, viewer: Any, deliver: Any, after: int | None, tail: int) -> Any:
    """What is committed between the two is seen by nobody."""
    view = await _view(actor, viewer, deliver, after, tail)
    view.close()

    async def later() -> None:
        await asyncio.sleep(0.01)
        view.close = actor.hub.subscribe(viewer, deliver)

    actor.engine.scope.spawn(later(), name="subscribe")
    return view


async def _deaf_timers(self: Timers, *_: Any) -> None:
    """Only what is armed from now on rings."""


_bug("a resume skips one", 200, (views, "open_view", _one_too_few))
_bug("subscribed after it was read", 200, (views, "open_view", _read_then_subscribe))
_bug("edits and deletions hide nothing", 400, (messages, "_mutate", _nothing))
_bug("timers die with the process", 800, (Timers, "load", _deaf_timers))
_bug("a timer that rang stays", 200, (Timers, "_forget", _nothing))

# -- several nodes -------------------------------------------------------------------------------------------------


def _unchecked(*_: Any) -> None:
    """Whoever writes, writes."""


def _unresumed(self: Holdings, actor: RoomActor, *_: Any) -> None:
    self.entered(actor)


def _idle_meanwhile(self: Holdings, actor: RoomActor, records: dict[str, list[Record]]) -> None:
    _resume(self, actor, records)
    task = self._resuming.get((actor.tenant, actor.room_id))
    if task is not None and (records.get("stream") or records.get("turn")):

        def over(_: object) -> None:
            actor.lanes += 1

        actor.lanes -= 1
        task.add_done_callback(over)


def _never_again(self: Follower) -> None:
    """What a page sees ends with the owner of the room, and nobody says so."""


_resume = Holdings._resume
_bug("no fence between nodes", 100, (Leases, "check", _unchecked), nodes=2)
_bug("a node is never told that it was taken over", 200, (Nodes, "_check", _nothing), nodes=2)
_bug("nobody takes over from a silent node", 50, (Nodes, "_take_over", _nothing), nodes=2)
_bug("a take-over leaves what is unfinished", 100, (Holdings, "_resume", _unresumed), nodes=2)
_bug("a view ends with the owner of its room", 200, (Follower, "_search", _never_again), nodes=2)
_bug("a view goes on before cut replies are closed", 400, (Holdings, "resumed", _nothing), nodes=3, since=430)


async def _cut_short(_: Scope, coro: Any, *, then: Callable[[], object] = lambda: None, **__: Any) -> Any:
    try:
        return await coro
    finally:
        then()


_bug(
    "who hangs up leaves half a room behind",
    100,
    (Scope, "complete", _cut_short),
    nodes=2,
    features=(HURRY, "newcomer", "import"),
)
_bug("a room may go while it is resumed", 1200, (Holdings, "_resume", _idle_meanwhile), nodes=3, tight=True, since=400)

__all__ = ["PLANTED", "deed_bugs", "planted", "rights_bugs"]
