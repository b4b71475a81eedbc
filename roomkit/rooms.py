"""Rooms: everything one tenant can do with its rooms (D24). `RoomKit` is the default tenant's, `kit.tenant()` others'.

Each method only finds the room's actor and hands the work to core.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from roomkit.core import approvals, floor, membership, messages, views
from roomkit.core.actor import RoomActor
from roomkit.core.history import projected
from roomkit.core.inbound import DEDUPE_S
from roomkit.core.policy import choice
from roomkit.core.port import ChannelPort
from roomkit.core.results import InboundResult, Settlement
from roomkit.core.state import key
from roomkit.core.streams import INTERNAL, Deliver, View, Viewer
from roomkit.data import RoomData
from roomkit.errors import AlreadyRegistered, StateError, UsageError
from roomkit.models.access import Principal
from roomkit.models.content import Content, Frozen, TextContent
from roomkit.models.delivery import DeliveryRecord, DeliveryStatus, InboundMessage
from roomkit.models.event import EventDraft, EventType, RoomEvent
from roomkit.models.room import (
    Access,
    AgentResponsePolicy,
    Assurance,
    ChannelBinding,
    FloorMode,
    Identification,
    Membership,
    Observation,
    Participant,
    Role,
    Room,
    RoomStatus,
    RoomTimers,
    Task,
)
from roomkit.models.steering import InjectMessage, SteeringDirective
from roomkit.models.stream import Ephemeral
from roomkit.ports.channel import Channel
from roomkit.ports.store import EventQuery, RecordQuery
from roomkit.runtime.span_names import SEND


class Rooms(RoomData):
    """One tenant's rooms. Methods raise `RoomNotFound` for ids that are not this tenant's."""

    # -- channels -----------------------------------------------------------------------------------

    def register_channel(self, channel: Channel, *, default: bool = False) -> None:
        """Makes a channel known; `default=True` seats it in every new room. Raises `AlreadyRegistered`."""
        _check_channel(channel)
        if channel.channel_id in self._engine.channels:
            raise AlreadyRegistered(channel.channel_id)
        self._engine.registry.register(channel, self.tenant_id, default=default)
        channel.set_framework(ChannelPort(self._engine, self.tenant_id, channel.channel_id))

    async def unregister_channel(self, channel_id: str) -> None:
        """Forgets a channel and closes it; its seats in rooms stay and are skipped until it is back."""
        channel = self._engine.registry.require(channel_id, self.tenant_id)
        if self._engine.registry.tenants[channel_id] != self.tenant_id:
            raise UsageError(
                f'channel "{channel_id}" is shared by all tenants: only who registered it can take it away'
            )
        if self._engine.channels.get(channel_id) is channel:
            self._engine.registry.unregister(channel_id)
            self._engine.turns.cancel_all(channel_id, "channel_unregistered")
        await channel.close()

    # -- a room's life -----------------------------------------------------------------------------------

    async def create_room(
        self,
        room_id: str | None = None,
        *,
        external_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        channels: Sequence[str] | None = None,
        timers: RoomTimers | None = None,
        agent_response_policy: AgentResponsePolicy = AgentResponsePolicy.AGENT_CHAIN,
        language: str = "en",
        delivery: str = "reach_once",
    ) -> Room:
        """Creates a room with `channels` (None: the template's, by default every default AI channel)."""
        await self._ready()
        settings: dict[str, Any] = {
            "agent_response_policy": agent_response_policy,
            "language": language,
            "delivery": delivery,
        }
        if timers is not None:
            settings["timers"] = timers
        actor = await self._engine.table.create(
            self.tenant_id,
            room_id=room_id,
            external_id=external_id,
            metadata=metadata,
            channels=tuple(channels) if channels is not None else None,
            settings=settings,
        )
        return actor.state.snapshot()

    async def get_room(self, room_id: str) -> Room:
        return (await self._actor(room_id)).state.snapshot()

    async def list_rooms(
        self,
        *,
        q: str | None = None,
        status: str | None = None,
        channel: str | None = None,
        external_id: str | None = None,
        person: str | None = None,
        attention: bool | None = None,
        metadata: dict[str, str] | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Room]:
        """Rooms that match every filter, latest activity first. `q` is a name, an address, a person, an external id
        or a room id."""
        await self._ready()
        terms = [f"{name}:{value}" for name, value in (("status", status), ("external", external_id)) if value]
        if channel:
            terms.append(f"channel:{channel}" if channel in self._engine.channels else f"type:{channel}")
        if person:
            terms.append(f"person:{person}")
        if attention:
            terms.append("attention:waiting")
        terms.extend(f"meta:{k}={v}" for k, v in (metadata or {}).items())
        from roomkit.core.lookup import find_rooms

        found = await find_rooms(self._engine, self.tenant_id, (q or "").strip(), tuple(terms), limit, offset)
        if attention is False:
            found = [room for room in found if room.waiting_since is None]
        return found

    async def close_room(self, room_id: str, *, by: str | None = None, reason: str | None = None) -> Room:
        """Closes: running replies end, nothing more is taken. Reading still works; `reopen_room` undoes it."""
        return await (await self._actor(room_id)).call(membership.set_status, RoomStatus.CLOSED, by, reason)

    async def reopen_room(self, room_id: str, *, by: str | None = None) -> Room:
        return await (await self._actor(room_id)).call(membership.set_status, RoomStatus.ACTIVE, by)

    async def pause_room(self, room_id: str, *, by: str | None = None) -> Room:
        """Pauses; the next message resumes it."""
        return await (await self._actor(room_id)).call(membership.set_status, RoomStatus.PAUSED, by)

    async def archive_room(self, room_id: str, *, by: str | None = None) -> Room:
        """Archives for good; an archived room cannot be reopened."""
        return await (await self._actor(room_id)).call(membership.set_status, RoomStatus.ARCHIVED, by)

    async def update_room_metadata(self, room_id: str, patch: dict[str, Any]) -> Room:
        """Merges `patch` atomically; a value of None removes its key."""
        return await (await self._actor(room_id)).call(membership.patch_metadata, patch)

    async def update_room(self, room_id: str, **settings: Any) -> Room:
        """Changes external_id, agent_response_policy, delivery or language of a live room."""
        allowed = {"external_id", "agent_response_policy", "delivery", "language"}
        if unknown := set(settings) - allowed:
            raise UsageError(
                f"update_room() cannot change {', '.join(sorted(unknown))}; only {', '.join(sorted(allowed))}"
            )
        return await (await self._actor(room_id)).call(membership.set_settings, settings)

    async def set_room_timers(self, room_id: str, timers: RoomTimers) -> Room:
        """Changes the thresholds; the idle clock keeps running."""
        return await (await self._actor(room_id)).call(membership.set_settings, {"timers": timers})

    # -- seats -----------------------------------------------------------------------------------

    async def attach_channel(
        self,
        room_id: str,
        channel_id: str,
        *,
        metadata: dict[str, Any] | None = None,
        access: Access | None = None,
        visibility: str | None = None,
        participant_id: str | None = None,
        assurance: Assurance | None = None,
        fallback_after_s: float | None = None,
    ) -> ChannelBinding:
        """Seats a channel; `metadata` holds the address it reaches (for SMS {"phone_number": "+44..."}).

        A new seat reads and writes and is seen by all; on one that is taken already, what is None stays as it is and
        what is given applies, with a record."""
        actor = await self._actor(room_id)
        channel = self._engine.registry.require(channel_id, self.tenant_id)
        wanted: dict[str, Any] = {
            "access": choice(Access, access, "access") if access is not None else None,
            "visibility": visibility,
            "participant_id": participant_id,
            "assurance": choice(Assurance, assurance, "assurance") if assurance is not None else None,
            "fallback_after_s": fallback_after_s,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        binding = self._engine.registry.seat(channel, room_id, self.tenant_id, metadata=metadata, **given)
        return await actor.call(membership.attach, binding, True, frozenset(given))

    async def detach_channel(self, room_id: str, channel_id: str) -> None:
        """Unseats a channel, durably: it comes back only by `attach_channel`."""
        await (await self._actor(room_id)).call(membership.detach, channel_id)

    async def _update(self, room_id: str, channel_id: str, by: str | None, **update: Any) -> ChannelBinding:
        return await (await self._actor(room_id)).call(membership.update_binding, channel_id, by, update)

    async def mute(
        self, room_id: str, channel_id: str, *, by: str | None = None, output: bool = False
    ) -> ChannelBinding:
        """Silences what the channel says (it goes on reading, and an AI goes on thinking); `output=True` instead
        stops deliveries to it."""
        return await self._update(room_id, channel_id, by, **{"output_muted" if output else "muted": True})

    async def unmute(
        self, room_id: str, channel_id: str, *, by: str | None = None, output: bool = False
    ) -> ChannelBinding:
        return await self._update(room_id, channel_id, by, **{"output_muted" if output else "muted": False})

    async def set_access(
        self, room_id: str, channel_id: str, access: Access, *, by: str | None = None
    ) -> ChannelBinding:
        return await self._update(room_id, channel_id, by, access=choice(Access, access, "access"))

    async def set_visibility(
        self, room_id: str, channel_id: str, visibility: str, *, by: str | None = None
    ) -> ChannelBinding:
        """Who sees what this channel says from now on; events already committed keep theirs (D9)."""
        return await self._update(room_id, channel_id, by, visibility=visibility)

    async def update_binding_metadata(self, room_id: str, channel_id: str, patch: dict[str, Any]) -> ChannelBinding:
        """Merges `patch` into the seat's metadata."""
        return await (await self._actor(room_id)).call(membership.patch_binding, channel_id, patch)

    async def bindings(self, room_id: str) -> list[ChannelBinding]:
        return list((await self._actor(room_id)).state.bindings.values())

    # -- people -----------------------------------------------------------------------------------

    async def participants(self, room_id: str) -> list[Participant]:
        return list((await self._actor(room_id)).state.participants.values())

    async def add_member(
        self,
        room_id: str,
        participant_id: str,
        *,
        display_name: str | None = None,
        role: Role = Role.MEMBER,
        channel_id: str = "host",
        metadata: dict[str, Any] | None = None,
    ) -> Participant:
        actor = await self._actor(room_id)
        person = Participant(
            id=participant_id,
            room_id=room_id,
            tenant=self.tenant_id,
            channel_id=channel_id,
            display_name=display_name,
            role=choice(Role, role, "role"),
            joined_at=self._engine.now(),
            metadata=metadata or {},
        )
        return await actor.call(membership.add_person, person)

    async def remove_member(
        self, room_id: str, participant_id: str, *, ban: bool = False, reason: str | None = None
    ) -> Participant:
        status = Membership.BANNED if ban else Membership.LEFT
        return await (await self._actor(room_id)).call(membership.remove_person, participant_id, status, reason)

    async def rename_member(self, room_id: str, participant_id: str, display_name: str) -> Participant:
        return await self.update_member(room_id, participant_id, display_name=display_name)

    async def update_member(self, room_id: str, participant_id: str, **update: Any) -> Participant:
        """Changes role, status, identity_id, identification or display_name of somebody (manual disambiguation): who is
        identified so is not asked again, and what a challenge held of theirs goes on."""
        actor = await self._actor(room_id)
        person = await actor.call(membership.update_person, participant_id, update)
        if "identity_id" in update and person.identification is Identification.IDENTIFIED:
            from roomkit.core.recognition import release

            await actor.call(release, participant_id, participant_id, Settlement())
        return person

    # -- messages -----------------------------------------------------------------------------------

    async def process_inbound(self, message: InboundMessage, *, room_id: str | None = None) -> InboundResult:
        """Takes a message in; returns when it is committed (D15). `await result.settled()` waits for all that follows.

        A repeated (channel, external_id) returns the first event. Raises `Overloaded` before anything is stored."""
        await self._started()
        return await self._engine.inbound.process(message, self.tenant_id, room_id)

    async def send(
        self,
        room_id: str,
        content: Content | str,
        *,
        by: str = "host",
        channel_id: str | None = None,
        visibility: str = "all",
        addressed_to: Sequence[str] | None = None,
        parent_event_id: str | None = None,
        type: EventType = EventType.MESSAGE,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> InboundResult:
        """Writes into a room as the host, or as `channel_id` with that channel's rights. A repeated
        `idempotency_key` (per tenant and source channel) returns the first event and does nothing else."""
        if not isinstance(content, (str, Frozen)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"kit.send() takes text or content such as MediaContent, not {content!r:.40}")
        actor = await self._actor(room_id)
        source = floor.host_source(by, "outbound")
        if channel_id is not None:
            channel = self._engine.registry.require(channel_id, self.tenant_id)
            source = source.model_copy(update={"channel_id": channel_id, "channel_type": channel.channel_type})
        draft = EventDraft(
            source=source,
            content=TextContent(text=content) if isinstance(content, str) else content,
            type=type,
            visibility=visibility,
            addressed_to=tuple(addressed_to) if addressed_to is not None else None,
            parent_event_id=parent_event_id,
            metadata=metadata or {},
            idempotency_key=idempotency_key,
        )
        dedupe = None
        if idempotency_key is not None:
            dedupe = (source.channel_id, idempotency_key, DEDUPE_S)
        sub = messages.Submission(draft, Settlement(), binding_required=channel_id is not None, dedupe=dedupe)
        with self._engine.tracing.span(SEND, self.tenant_id, room_id, source.channel_id):
            return await actor.call(messages.submit, sub)

    async def events(
        self,
        room_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        raw: bool = False,
        parent: str | None = None,
        viewer: Viewer = INTERNAL,
    ) -> list[RoomEvent]:
        """A page of the log as `viewer` may see it, edits and deletes projected unless `raw` (D21)."""
        actor = await self._actor(room_id)
        query = EventQuery(
            self.tenant_id,
            room_id,
            start=0 if after is None else after + 1,
            stop=before,
            limit=limit,
            newest_first=newest_first,
            parent=parent,
        )
        found = [e for e in await self._engine.store.events(query) if viewer.sees(e, actor.state.bindings)]
        if raw or not found:
            return found
        ordered = sorted(found, key=lambda e: e.index)
        shown = await projected(actor, ordered, viewer)
        return shown[::-1] if newest_first else shown

    async def mark_read(self, room_id: str, channel_id: str, index: int) -> None:
        await (await self._actor(room_id)).call(membership.mark_read, channel_id, index)

    async def deliveries(self, room_id: str, start: int = 0, stop: int | None = None) -> list[DeliveryRecord]:
        """What became of the events with start <= index < stop on their way to each channel, and why."""
        await self._actor(room_id)
        after = key(room_id, start - 1, "\uffff") if start > 0 else None
        query = RecordQuery("delivery", self.tenant_id, room_id=room_id, after=after, limit=10_000)
        found = [DeliveryRecord.model_validate(r.value) for r in await self._engine.store.records(query)]
        return [record for record in found if stop is None or record.index < stop]

    async def delivery_status(self, status: DeliveryStatus) -> DeliveryRecord | None:
        """Takes a vendor's status report; states only move forward, unknown messages are ignored."""
        await self._ready()
        from roomkit.core.statuses import report

        return await report(self._engine, self.tenant_id, status)

    async def dead_letters(self, room_id: str | None = None, *, limit: int = 100) -> list[dict[str, Any]]:
        """Deliveries that failed for good, with the error; `resend` tries one again, `discard` gives it up. One that
        `holds` its lane keeps what comes after it waiting until then."""
        await self._ready()
        query = RecordQuery("dead", self.tenant_id, room_id=room_id, limit=limit)
        found = await self._engine.store.records(query)
        return [{"id": record.key.replace("\n", "~"), **record.value} for record in found]

    async def resend(self, dead_id: str) -> None:
        """Puts a dead letter back into its lane."""
        from roomkit.core.fallback import resend

        await self._with_letter(resend, dead_id)

    async def discard(self, dead_id: str) -> None:
        """Gives a dead letter up: it is not delivered."""
        from roomkit.core.fallback import discard

        await self._with_letter(discard, dead_id)

    async def _with_letter(self, act: Callable[[RoomActor, str], Awaitable[None]], dead_id: str) -> None:
        await self._ready()
        dead_key = dead_id.replace("~", "\n")
        found = await self._engine.store.records(RecordQuery("dead", self.tenant_id, key=dead_key))
        if not found:
            raise StateError(f'dead letter "{dead_id}" does not exist; list them with kit.dead_letters()')
        actor = await self._engine.table.require(self.tenant_id, found[0].value["room_id"])
        await actor.call(act, dead_key)

    # -- people at the desk -----------------------------------------------------------------------------------

    async def take_over(self, room_id: str, who: str, *, force: bool = False, lease_s: float | None = None) -> Room:
        """`who` takes the floor; the running AI turn ends in the same step. Raises `FloorTaken` unless `force`."""
        return await (await self._actor(room_id)).call(floor.take_over, who, force, lease_s)

    async def release(self, room_id: str, who: str | None = None, *, note: str | None = None) -> Room:
        """Hands the floor back to the AI, with a note that it reads."""
        return await (await self._actor(room_id)).call(floor.release, who, note)

    async def set_floor(self, room_id: str, mode: FloorMode, holder: str | None = None) -> Room:
        return await (await self._actor(room_id)).call(floor.set_floor, choice(FloorMode, mode, "mode"), holder)

    async def request_human(self, room_id: str, reason: str, *, by: str = "host", priority: int = 0) -> Room:
        """Puts the room into the waiting queue; asking again keeps its clock."""
        return await (await self._actor(room_id)).call(floor.request_human, reason, by, priority)

    async def clear_attention(self, room_id: str, *, by: str = "host") -> Room:
        return await (await self._actor(room_id)).call(floor.clear_attention, by)

    async def attention(self) -> list[Room]:
        """Rooms waiting for a person to come or to answer an approval, most urgent and then longest waiting first."""
        waiting = [room for room in await self.list_rooms(attention=True, limit=10_000) if room.waiting_since]
        return sorted(waiting, key=lambda r: (-(r.attention.priority if r.attention else 0), r.waiting_since))

    async def whisper(
        self, room_id: str, text: str, *, to: str, by: str, idempotency_key: str | None = None
    ) -> RoomEvent:
        """Words for one channel or person (`to="person:ID"`) only; an AI hears them before its turn's next round.

        Of this, a note and a draft: a repeated `idempotency_key` returns the first event and does nothing else."""
        actor = await self._actor(room_id)
        event, new = await actor.call(floor.whisper, text, to, by, idempotency_key)
        channel = self._engine.channels.get(to)
        if new and any(cid == to for cid, _ in self._engine.turns.running(actor)) and hasattr(channel, "steer"):
            directive = InjectMessage(f"[from {by}, your supervisor] {text}", role="system")
            cast("Any", channel).steer(directive, room_id=room_id, tenant=self.tenant_id)
        return event

    async def note(
        self, room_id: str, text: str, by: str, *, for_ai: bool = False, idempotency_key: str | None = None
    ) -> RoomEvent:
        """A note between colleagues; `for_ai` lets the AI read it too."""
        visibility = "intelligence" if for_ai else "internal"
        return await (await self._actor(room_id)).call(floor.write_note, text, by, visibility, idempotency_key)

    async def draft(
        self, room_id: str, content: Content | str, *, by: str, idempotency_key: str | None = None
    ) -> RoomEvent:
        """A proposed message, sent only when `settle_draft` approves it."""
        body = TextContent(text=content) if isinstance(content, str) else content
        return await (await self._actor(room_id)).call(floor.write_draft, body, by, idempotency_key)

    async def drafts(self, room_id: str) -> list[dict[str, Any]]:
        await self._actor(room_id)
        found = await self._engine.store.records(RecordQuery("draft", self.tenant_id, room_id=room_id, limit=1000))
        return [record.value for record in found if record.value["status"] == "pending"]

    async def settle_draft(self, room_id: str, draft_id: str, approve: bool, *, by: str) -> InboundResult:
        return await (await self._actor(room_id)).call(floor.settle_draft, draft_id, approve, by)

    async def approvals(self, room_id: str | None = None, *, status: str = "pending") -> list[dict[str, Any]]:
        await self._ready()
        found = await approvals.pending(self._engine, self.tenant_id, room_id, status)
        return [record.value for record in found]

    async def answer_approval(
        self,
        approval_id: str,
        granted: bool,
        *,
        by: str,
        reason: str | None = None,
        room_id: str | None = None,
    ) -> dict[str, Any]:
        """Answers a tool call's question, once. After a restart the answer starts a new turn (D36)."""
        if room_id is None:
            found = [a for a in await self.approvals() if a["id"] == approval_id]
            if not found:
                raise StateError(f'approval "{approval_id}" is not pending; list them with kit.approvals()')
            room_id = found[0]["room_id"]
        return await (await self._actor(cast("str", room_id))).call(approvals.answer, approval_id, granted, by, reason)

    async def steer(self, room_id: str, directive: SteeringDirective, *, channel_id: str | None = None) -> None:
        """Sends a directive to the room's running AI turn. Raises `UsageError` when there is none, or several."""
        from roomkit.core.lookup import steer

        steer(self._engine, await self._actor(room_id), directive, channel_id)

    async def tasks(self, room_id: str) -> list[Task]:
        await self._actor(room_id)
        found = await self._engine.store.records(RecordQuery("task", self.tenant_id, room_id=room_id, limit=10_000))
        return [Task.model_validate(record.value) for record in found]

    async def observations(self, room_id: str) -> list[Observation]:
        await self._actor(room_id)
        query = RecordQuery("observation", self.tenant_id, room_id=room_id, limit=10_000)
        return [Observation.model_validate(record.value) for record in await self._engine.store.records(query)]

    # -- live -----------------------------------------------------------------------------------

    def publish(self, message: Ephemeral) -> None:
        """A sign of life: never stored, at most once, never waits (R12)."""
        self._engine.publish(self.tenant_id, message)

    def publish_typing(self, room_id: str, who: str, *, on: bool = True) -> None:
        self.publish(Ephemeral(kind="typing", room_id=room_id, sender=who, data={"on": on}))

    def publish_presence(self, room_id: str, who: str, state: str) -> None:
        self.publish(Ephemeral(kind="presence", room_id=room_id, sender=who, data={"state": state}))

    async def open_view(
        self,
        room_id: str,
        viewer: Viewer | Principal | str,
        deliver: Deliver,
        *,
        after: int | None = None,
        tail: int = 50,
    ) -> View:
        """A gapless view of a room: what was missed since `after` (or the last `tail` events), then everything live.

        `viewer` is a channel's id, or a principal that the host has let in. `deliver` gets RoomEvent, stream messages
        and Ephemeral in log order and must return at once. Raises `ChannelNotFound` for an unknown channel."""
        actor = await self._actor(room_id)
        if isinstance(viewer, Principal):
            viewer = Viewer.of(viewer)
        elif isinstance(viewer, str):
            self._engine.registry.require(viewer, self.tenant_id)
            viewer = Viewer(channel_id=viewer)
        return await actor.call(views.open_view, viewer, deliver, after, tail)


def _reserved(channel_id: str) -> bool:
    """Whether a visibility would take this for something else than a channel."""
    return channel_id.startswith("person:") or channel_id in ("all", "none", "internal", "transport", "intelligence")


def _check_channel(channel: object) -> None:
    """Says at registration what would only show at the first delivery."""
    if not isinstance(channel, Channel):
        what = channel.__name__ if isinstance(channel, type) else repr(channel)
        raise UsageError(f"kit.register_channel() takes a Channel object, not {what}; make one, e.g. SMSChannel('sms')")
    if not channel.channel_id or any(mark in channel.channel_id for mark in "\n,") or _reserved(channel.channel_id):
        raise UsageError(f"{channel.channel_id!r} cannot be a channel id; use a short name such as 'sms'")
    if channel.reach not in ("outbox", "cursor", "turn"):
        raise UsageError(f'channel "{channel.channel_id}": reach="{channel.reach}" is not "outbox", "cursor" or "turn"')
    for name in ("deliver", "on_event", "handle_inbound"):
        if not inspect.iscoroutinefunction(getattr(channel, name)):
            raise UsageError(f'channel "{channel.channel_id}": {name} has to be an async def')
