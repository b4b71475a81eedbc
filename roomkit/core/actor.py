"""RoomActor: the single writer of one room. Operations run one after another; each ends in at most one commit.

An idle room has no task: an operation runs in its caller's turn of the loop as far as it can (runtime.Eager) and only
what really waits becomes a task. A caller that is cancelled never cancels an operation under way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from roomkit.core import policy
from roomkit.core.results import Settlement
from roomkit.core.state import SEP, RoomState, binding_record, event_key, key, participant_record, room_record, turn_key
from roomkit.core.streams import Hub
from roomkit.errors import Fenced, Overloaded, StateError, StoreError, UsageError
from roomkit.models.content import SystemContent, blank
from roomkit.models.delivery import DeliveryRecord, DeliveryState
from roomkit.models.event import EventDraft, EventSource, EventStatus, EventType, RoomEvent
from roomkit.models.hooks import Committed, TaskCreated
from roomkit.models.room import Access, ChannelBinding, Observation, Participant, Room, Task
from roomkit.ports.store import Batch, DedupeKey, Duplicate, Record, RecordKey
from roomkit.runtime import monotonic
from roomkit.runtime.crashpoint import crashpoint
from roomkit.runtime.eager import running
from roomkit.runtime.span_names import COMMIT, EVENTS
from roomkit.runtime.tracing import Span, current

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

T = TypeVar("T")
SYSTEM = EventSource(channel_id="system", channel_type="system", direction="internal", provider="roomkit")
MAX_PLANS = 64
_event = blank(RoomEvent)
_NONE: Mapping[Any, Any] = MappingProxyType({})
"""Of what most rooms have nothing."""
_LIST: Any = list
_DICT: Any = dict
"""As they are: a lambda around each would be a call more for every field of every change."""
_BLOCKED, _COMMITTED = EventStatus.BLOCKED, EventStatus.COMMITTED  # Looked up once: in 3.11 that is a call each time.
TOLD = ("reach_once", "output_muted", "no_read_access")
"""Reasons of a plan worth keeping for the dashboard; what a channel may not see is no news."""


@dataclass(slots=True)
class Entry:
    """One event to be committed. `targets` delivers to exactly these and wakes no AI; () stores only.
    `wake` gives these channels a turn whatever the policy says (an approval's answer after a restart)."""

    draft: EventDraft
    blocked_by: str = ""
    blocked_reason: str | None = None
    status: EventStatus = _COMMITTED
    targets: tuple[str, ...] | None = None
    stream_id: str | None = None
    wakes: bool = True
    wake: tuple[str, ...] = ()


@dataclass(slots=True)
class Change:
    """Everything one operation wants to become true, together or not at all."""

    entries: list[Entry] = field(default_factory=_LIST)
    first: int = 0
    """Which of them all this is about: before it may stand that who writes it has joined."""
    room: Room | None = None
    bindings: dict[str, ChannelBinding | None] = field(default_factory=_DICT)
    participants: dict[str, Participant] = field(default_factory=_DICT)
    put: list[Record] = field(default_factory=_LIST)
    delete: list[RecordKey] = field(default_factory=_LIST)
    dedupe_for: tuple[str, str, float] | None = None
    """Channel, key, and for how many seconds the first event is found under it."""
    tasks: list[Task] = field(default_factory=_LIST)
    observations: list[Observation] = field(default_factory=_LIST)
    settlement: Settlement | None = None
    activity: bool = True
    timers: list[Record] = field(default_factory=_LIST)
    """Made by `Timers.plan`: durable with what they time, armed once it is true."""

    @property
    def seats_changed(self) -> bool:
        return self.room is not None or bool(self.bindings) or bool(self.participants)

    def add(self, entry: Entry) -> Change:
        self.entries.append(entry)
        return self

    def system(self, kind: EventType, code: str, *, visibility: str = "internal", **data: Any) -> Change:
        """Adds a record of the room's own life."""
        content = SystemContent.made(code=code, data=data)
        return self.add(Entry(EventDraft.made(source=SYSTEM, content=content, type=kind, visibility=visibility)))


class _Job:
    __slots__ = ("args", "done", "error", "fn", "future", "value")

    def __init__(self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.args = args
        self.future: asyncio.Future[Any] | None = None
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        self.error = error
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)


def _closed(actor: RoomActor) -> StateError:
    return StateError(f'the kit was closed before room "{actor.room_id}" had done this; send it again after a restart')


def _under(span: Span, fn: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    async def run(*args: Any) -> T:
        with span.current():
            return await fn(*args)

    return run


@lru_cache(maxsize=256)
def _sole(cache_key: tuple[Any, ...], plan: policy.DeliveryPlan) -> Mapping[Any, policy.DeliveryPlan]:
    """The same for all rooms that have this one plan, as most do."""
    return {cache_key: plan}


class RoomActor:
    """Owns `state` and `hub` of one room. Methods that change anything run inside `call`."""

    __slots__ = (
        "_busy",
        "_mailbox",
        "_plans",
        "_plans_of",
        "_task",
        "engine",
        "epoch",
        "hub",
        "lanes",
        "owed",
        "retired",
        "room_id",
        "state",
        "tenant",
    )

    def __init__(self, engine: Engine, state: RoomState) -> None:
        self.engine = engine
        self.state = state
        self.epoch = engine.info.epoch
        """What its batches carry: the store's, or that of the room's own lease."""
        self.hub = Hub()
        self.tenant = state.room.tenant
        self.room_id = state.room.id
        self.lanes = 0
        """Lines of deliveries and turns that have something to do."""
        self.owed: Mapping[str, Callable[[], Iterable[Record]]] = _NONE
        """What is to be written down with the next commit, whichever that is; made at that moment."""
        self.retired = False
        """Sent back to the store: whoever still holds this actor is led to the one that has taken its place."""
        self._mailbox: deque[_Job] | tuple[()] = ()
        self._busy = False
        self._task: asyncio.Task[Any] | None = None
        self._plans: Mapping[tuple[Any, ...], policy.DeliveryPlan] = _NONE
        self._plans_of = 0

    @property
    def idle(self) -> bool:
        """Nothing is under way and nobody looks on: the room can be sent back to the store."""
        return not self._busy and not self.lanes and self.hub.idle

    @property
    def busy(self) -> bool:
        """An operation is under way."""
        return self._busy

    @property
    def depth(self) -> int:
        return len(self._mailbox)

    def call(self, fn: Callable[..., Awaitable[T]], *args: Any) -> Coroutine[Any, Any, T]:
        """Runs `fn(self, *args)` as the room's next operation. Raises `Overloaded` when too many wait already."""
        return self._call(fn, args, self.engine.options.mailbox)

    async def insist(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """As `call`, for what the room itself owes (the end of a reply, of a delivery): it is never refused for want of
        room, and repeated until the store works again."""
        return await self.engine.insist(lambda: self._call(fn, args, None), f"room {self.room_id}")

    async def _call(self, fn: Callable[..., Awaitable[T]], args: tuple[Any, ...], mailbox: int | None) -> T:
        if self.retired:
            return await (await self.engine.table.require(self.tenant, self.room_id))._call(fn, args, mailbox)
        job = _Job(fn, args)
        if self._busy:
            if asyncio.current_task() is self._task:
                raise UsageError(
                    f'an operation of room "{self.room_id}" was started from inside another one (a guard that '
                    "runs in the room) and would wait for itself; return Allow(inject=...) or do it in an observer"
                )
            if mailbox is not None and len(self._mailbox) >= mailbox:
                self.engine.count("mailbox_overloaded")
                raise Overloaded(
                    f'room "{self.room_id}" has {len(self._mailbox)} operations waiting; send less or later'
                )
            if self.engine.tracing.on:  # Whoever works the mailbox does so under a span of its own.
                job.fn = _under(current(), fn)
            job.future = asyncio.get_running_loop().create_future()
            if not self._mailbox:
                self._mailbox = deque()
            self._mailbox.append(job)
            return await job.future
        self._busy = True
        self.engine.eager.launch(self._work(job))
        if not job.done:
            job.future = asyncio.get_running_loop().create_future()
            return await job.future
        if job.error is not None:
            raise job.error
        return job.value

    async def _work(self, job: _Job) -> None:
        self._task = running(asyncio.get_running_loop())
        try:
            while True:
                # A caller that gave up before its operation began wants nothing to happen.
                if job.future is None or not job.future.cancelled():
                    try:
                        if self.retired:  # Lost by the operation before: whoever waited goes where the room is now.
                            job.value = await self._call(job.fn, job.args, None)
                        else:
                            job.value = await job.fn(self, *job.args)
                    # `_failed` raises the kit's own cancellation; a guard's is its caller's to hear of.
                    except BaseException as error:  # noqa: BLE001 - lane boundary # swallows cancellation: see above
                        self._failed(job, error)
                    else:
                        if job.future is not None and not job.future.done():
                            job.future.set_result(job.value)
                    job.done = True
                if not self._mailbox:
                    break
                job = self._mailbox.popleft()
        finally:
            self._busy = False
            self._task = None
            for left in self._mailbox:
                left.fail(_closed(self))
            self._mailbox = ()

    def _failed(self, job: _Job, error: BaseException) -> None:
        """Nobody cancels an operation but the end of the kit. A guard or a plug-in that raises this by itself has
        failed, and only its own caller hears of it."""
        if not isinstance(error, asyncio.CancelledError):
            job.fail(error)
        elif self._task is not None and self._task.cancelling():
            job.fail(_closed(self))
            job.done = True
            raise error
        else:
            job.fail(StateError(f'something that an operation of room "{self.room_id}" called was cancelled'))

    # -- the commit point ---------------------------------------------------------------------------------------

    async def commit(self, change: Change) -> list[RoomEvent] | Duplicate:
        """Makes `change` durable and true, then shows it. Runs inside `call`. Nothing has changed when it raises."""
        if self.engine.redactions is not None:
            self.engine.redactions.change(self.tenant, change)
        seated = change.seats_changed
        events = self._build(change)
        plans = self._plan_all(change, events, seated)
        put = change.put
        if seated or change.tasks or change.observations:
            put.extend(self._records(change, events))
        rows = self.engine.info.durable or self.engine.draining
        noted = self.engine.lanes.at_once(self, plans[-1].outbox) if rows and len(plans) == change.first + 1 else ()
        for event, plan in zip(events, plans):  # noqa: B905 - made one by one from the other
            if rows or plan.turns or plan.skipped or plan.fallbacks:
                self._rows(put, event, plan, noted)
                if plan.fallbacks:
                    change.timers.extend(self.engine.timers.fallbacks(self, event, plan.fallbacks))
        if change.timers:
            put.extend(change.timers)
        paid = self.owed and self._pay(put)
        dedupe = ()
        if change.dedupe_for is not None and events:
            channel_id, dedupe_key, kept_s = change.dedupe_for
            first = events[change.first]
            expires = first.created_at.timestamp() + kept_s
            dedupe = (DedupeKey(channel_id, dedupe_key, self.room_id, first.id, first.index, expires),)
        now = events[-1].created_at if events and change.activity else None
        delete = tuple(change.delete)
        batch = Batch(self.tenant, self.epoch, self.room_id, tuple(events), dedupe, tuple(put), delete, now)
        crashpoint("actor.before_commit")
        duplicate = await self._write(batch)
        crashpoint("actor.after_commit")
        if duplicate is not None:
            return duplicate
        if paid:
            self.owed = {name: owed for name, owed in self.owed.items() if paid.get(name) is not owed} or _NONE
        self._apply(change, events, seated)
        for timer in change.timers:
            self.engine.timers.arm(timer)
        if change.tasks or (events and (not self.hub.idle or self.engine.hooks.heard(Committed))):
            self._show(change, events)
        self._dispatch(change, events, plans, noted)
        return events

    def _pay(self, put: list[Record]) -> dict[str, Callable[[], Iterable[Record]]]:
        paid = dict(self.owed)
        for records in paid.values():
            put.extend(records())
        return paid

    async def _write(self, batch: Batch) -> Duplicate | None:
        engine = self.engine
        began = monotonic() if engine.info.durable else None
        try:
            if not engine.tracing.on:
                return await engine.store.commit(batch)
            with engine.tracing.span(COMMIT, self.tenant, self.room_id, "") as span:
                span.set(EVENTS, len(batch.events))
                return await engine.store.commit(batch)
        except StoreError as error:
            engine.count("write_errors")
            if isinstance(error, Fenced):
                engine.table.drop(self)
            raise
        finally:
            if began is not None:
                engine.meters.commit.observe(monotonic() - began)

    def _build(self, change: Change) -> list[RoomEvent]:
        now = self.engine.clock.now()
        index = self.state.next_index
        events: list[RoomEvent] = []
        for entry in change.entries:
            draft = entry.draft
            source = draft.source
            binding = self.state.bindings.get(source.channel_id)
            if source.provider is None:
                source = source.replaced(provider=source.channel_type)
            fields = _event()
            fields["id"] = draft.event_id or self.engine.new_id(now)
            fields["room_id"] = self.room_id
            fields["index"] = index
            fields["type"] = draft.type
            fields["source"] = source
            fields["content"] = draft.content
            fields["created_at"] = now
            fields["tenant"] = self.tenant
            fields["status"] = _BLOCKED if entry.blocked_by else entry.status
            fields["blocked_by"] = entry.blocked_by or None
            fields["blocked_reason"] = entry.blocked_reason
            fields["visibility"] = policy.effective_visibility(draft.visibility, binding)
            fields["addressed_to"] = draft.addressed_to
            fields["chain_depth"] = draft.chain_depth
            fields["parent_event_id"] = draft.parent_event_id
            fields["correlation_id"] = draft.correlation_id
            fields["idempotency_key"] = draft.idempotency_key
            fields["metadata"] = draft.metadata
            fields["channel_data"] = draft.channel_data
            events.append(RoomEvent.trusted(fields))
            index += 1
        return events

    def _plan_all(self, change: Change, events: list[RoomEvent], changed: bool) -> list[policy.DeliveryPlan]:
        version = self.engine.registry.version
        if changed or self._plans_of != version or len(self._plans) > MAX_PLANS:
            self._plans = _NONE
            self._plans_of = version
        plans: list[policy.DeliveryPlan] = []
        for event, entry in zip(events, change.entries, strict=True):
            plans.append(self._plan(event, entry, change, changed))
        return plans

    def _plan(self, event: RoomEvent, entry: Entry, change: Change, changed: bool) -> policy.DeliveryPlan:
        if entry.wake:
            return policy.DeliveryPlan(turns=entry.wake)
        if event.status is not _COMMITTED or entry.targets == ():
            return policy.EMPTY_PLAN
        source = event.source
        author = source.participant_id if source.participant_id in self.state.holders else None
        cache_key = (source.channel_id, event.visibility, event.type, event.addressed_to, author)
        found = None if changed else self._plans.get(cache_key)
        if found is None:
            found = policy.plan(
                event,
                event.visibility,
                change.room or self.state.room,
                [b for b in {**self.state.bindings, **change.bindings}.values() if b is not None],
                self.engine.registry.reach(self.tenant),
                {**self.state.participants, **change.participants},
            )
            if not changed:
                # A person's name is nobody else's to keep.
                alone = not self._plans and author is None and ":" not in event.visibility
                self._plans = _sole(cache_key, found) if alone else {**self._plans, cache_key: found}
        if entry.targets is not None:
            reach, forked = self.engine.registry.reach(self.tenant), self.state.room.forked_from is not None
            return policy.DeliveryPlan(
                outbox=tuple(c for c in entry.targets if reach.get(c) == "outbox" and not forked),
                cursors=tuple(c for c in entry.targets if reach.get(c) == "cursor"),
            )
        if not found.turns or (entry.wakes and not self._in_vain(event)):
            return found
        return policy.DeliveryPlan(found.outbox, found.cursors, (), found.skipped, found.fallbacks)

    def _in_vain(self, event: RoomEvent) -> bool:
        """Whether an answer would only be made to be blocked, and the host does not want it made for its notes."""
        options = self.engine.options
        return event.chain_depth + 1 >= options.max_chain_depth and not options.answer_at_chain_limit

    def _rows(self, put: list[Record], event: RoomEvent, plan: policy.DeliveryPlan, noted: Container[str]) -> None:
        """The outbox and turn rows that stand in the event's own transaction."""
        for channel_id in plan.outbox if self.engine.info.durable or self.engine.draining else ():
            put.append(outbox_row(self, event, channel_id, int(channel_id in noted)))  # noqa: PERF401 - mostly one
        for channel_id in plan.turns:
            value: dict[str, Any] = {"channel": channel_id, "index": event.index, "event_id": event.id}
            row_key = turn_key(self.room_id, channel_id, event.index)
            put.append(Record("turn", self.tenant, row_key, value, self.room_id))
        if plan.skipped and event.type in policy.OUTBOUND:
            for channel_id, reason in plan.skipped:
                if reason in TOLD:
                    skipped = DeliveryRecord(
                        room_id=self.room_id,
                        index=event.index,
                        event_id=event.id,
                        channel_id=channel_id,
                        state=DeliveryState.SKIPPED,
                        reason=reason,
                        updated_at=event.created_at,
                    )
                    put.append(delivery_record(self.tenant, skipped))

    def _records(self, change: Change, events: list[RoomEvent]) -> Iterable[Record]:
        first = events[change.first] if events else None
        stamp = first.created_at if first else self.engine.now()
        event_id = first.id if first else None
        for kind, items in (("task", change.tasks), ("observation", change.observations)):
            for i, item in enumerate(items):
                updates: dict[str, Any] = {"room_id": self.room_id, "tenant": self.tenant}
                updates["created_at"] = item.created_at or stamp
                updates["event_id"] = item.event_id or event_id
                kept = cast("Any", item).model_copy(update=updates)
                cast("list[Any]", items)[i] = kept
                yield Record(kind, self.tenant, key(self.room_id, kept.id), kept.model_dump(mode="json"), self.room_id)
        for channel_id, binding in change.bindings.items():
            if binding is None:
                change.delete.append(RecordKey("binding", self.tenant, key(self.room_id, channel_id)))
            else:
                yield binding_record(binding)
        for person in change.participants.values():
            yield participant_record(person)
        if change.seats_changed:
            bindings = {**self.state.bindings, **change.bindings}
            people = {**self.state.participants, **change.participants}
            seats = [b for b in bindings.values() if b is not None]
            yield room_record(change.room or self.state.room, seats, people.values())

    def _apply(self, change: Change, events: list[RoomEvent], seated: bool) -> None:
        state = self.state
        if events:
            state.next_index = events[-1].index + 1
            if change.activity:
                state.last_activity = events[-1].created_at
        if not seated:
            return
        state.forget_views()
        if change.room is not None:
            state.room = change.room
        for channel_id, binding in change.bindings.items():
            gone = state.bindings.pop(channel_id, None) if binding is None else None
            if binding is not None:
                state.bindings[channel_id] = binding
            # Live gates see a detached channel as one that may do nothing.
            now = binding or (gone and gone.model_copy(update={"access": Access.NONE}))
            if now is not None:
                self._tell_gate(now)
        state.participants.update(change.participants)
        self.hub.reseat()

    def _tell_gate(self, binding: ChannelBinding) -> None:
        channel = self.engine.channels.get(binding.channel_id)
        try:
            if channel is not None:
                channel.update_binding(binding)
        except Exception as error:  # noqa: BLE001 - a channel is a plug-in: what is committed is also shown
            self.engine.trouble(self, f"update_binding of {binding.channel_id}", error)

    def _show(self, change: Change, events: list[RoomEvent]) -> None:
        heard = self.engine.hooks.heard(Committed)
        for i, event in enumerate(events):
            if (stream_id := change.entries[i].stream_id) is not None:
                self.hub.end(stream_id, event, self.state.bindings)
            else:
                self.hub.event(event, self.state.bindings)
            if heard:
                self.engine.hooks.tell(Committed(self.tenant, self.room_id, event))
        for task in change.tasks:
            self.engine.hooks.tell(TaskCreated(self.tenant, self.room_id, task))

    def _dispatch(
        self, change: Change, events: list[RoomEvent], plans: list[policy.DeliveryPlan], noted: Container[str]
    ) -> None:
        engine = self.engine
        if events:
            engine.counters["events"] += len(events)
        for event, plan in zip(events, plans):  # noqa: B905 - as in `commit`
            if plan.outbox:
                engine.lanes.enqueue(self, plan.outbox, event, change.settlement, noted)
            for channel_id in plan.turns:
                engine.turns.enqueue(self, channel_id, event, change.settlement)


def outbox_row(actor: RoomActor, event: RoomEvent, channel_id: str, attempts: int = 0) -> Record:
    """The durable promise that an event is delivered to a channel."""
    value: dict[str, Any] = {"channel": channel_id, "index": event.index, "event_id": event.id, "attempts": attempts}
    row_key = event_key(actor.room_id, event.index, channel_id)
    return Record("outbox", actor.tenant, row_key, value, actor.room_id)


def delivery_record(tenant: str, record: DeliveryRecord) -> Record:
    """The durable form, found by room and index, or by the vendor's message id."""
    terms: tuple[str, ...] = ()
    if record.provider_message_id is not None or record.parts:
        ids = {record.provider_message_id, *record.parts} - {None}
        terms = tuple(f"pmid:{record.channel_id}:{one}" for one in ids)
    value = {name: kept for name, kept in record.__dict__.items() if kept is not None and kept not in ((), {})}
    value["state"] = str(record.state)
    if record.part_states:
        value["part_states"] = {part: str(state) for part, state in record.part_states.items()}
    if record.updated_at is not None:
        value["updated_at"] = record.updated_at.isoformat()
    record_key = event_key(record.room_id, record.index, record.channel_id)
    return Record("delivery", tenant, record_key, value, record.room_id, None, terms)


__all__ = ["SEP", "SYSTEM", "Change", "Entry", "RoomActor", "delivery_record", "outbox_row"]
