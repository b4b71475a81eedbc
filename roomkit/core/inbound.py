"""From a channel's message to the room it belongs to: known already? which room? who is it? then the actor's gate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from roomkit.core import membership, messages
from roomkit.core.actor import RoomActor
from roomkit.core.results import CURRENT, InboundResult, Settlement
from roomkit.errors import RoomClosed, RoomKitError, RoomNotFound
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    MediaContent,
    TextContent,
    VideoContent,
    valid,
)
from roomkit.models.delivery import InboundMessage, draft_of
from roomkit.models.event import EventDraft, EventSource
from roomkit.models.hooks import IdentityAnswer, IdentityQuestion, IdentityResolved, IdentityTimedOut
from roomkit.models.room import ChannelBinding, Identification, Identity, Participant, Room
from roomkit.ports.channel import Channel
from roomkit.ports.identity import Resolution
from roomkit.ports.store import RecordQuery
from roomkit.runtime import bounded
from roomkit.runtime.span_names import BLOCKED, DUPLICATE, INBOUND, ROOM

if TYPE_CHECKING:
    from roomkit.core.engine import Engine
    from roomkit.core.state import RoomState

log = logging.getLogger(__name__)
Route = tuple[str, str, str, str]
"""(tenant, channel, address, assurance)."""
_UNKNOWN, _IDENTIFIED = Identification.UNKNOWN, Identification.IDENTIFIED
"""Looked up once: in Python 3.11 that is a call each time."""
DEDUPE_S = 7 * 86_400.0


@dataclass(slots=True)
class Sender:
    """Who the pipeline takes the writer to be. `refused` and `challenge` come from a guard."""

    participant_id: str
    name: str | None
    status: Identification
    identity: Identity | None = None
    candidates: tuple[str, ...] = ()
    refused: str = ""
    challenge: str | None = None
    proof: bool = False


class Seen(NamedTuple):
    """A room that another process has, as it is in the store."""

    room_id: str
    state: RoomState


Seat = tuple[RoomActor, Sender]


class Inbound:
    """The inbound pipeline of one kit."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._in_flight: dict[tuple[str, str, str], asyncio.Future[InboundResult | None]] = {}
        self._routing: dict[Route, asyncio.Future[None]] = {}
        self._routes: dict[Route, str] = {}

    def process(self, message: InboundMessage, tenant: str, room_id: str | None) -> Coroutine[Any, Any, InboundResult]:
        taken = self._take_in(message, tenant, room_id)
        return self._traced(taken, message, tenant, room_id) if self.engine.tracing.on else taken

    async def _traced(
        self, taken: Awaitable[InboundResult], message: InboundMessage, tenant: str, room_id: str | None
    ) -> InboundResult:
        with self.engine.tracing.span(INBOUND, tenant, room_id, message.channel_id, kind="consumer") as span:
            result = await taken
            span.set(ROOM, result.room_id)
            span.set(BLOCKED, result.blocked or None)
            span.set(DUPLICATE, result.duplicate or None)
            return result

    async def _take_in(self, message: InboundMessage, tenant: str, room_id: str | None) -> InboundResult:
        message = valid(message)
        channel = self.engine.registry.require(message.channel_id, tenant)
        self.engine.counters["inbound"] += 1
        seat = self._seat_of(channel, message, tenant, room_id)
        if message.external_id is None or seat is not None:
            return await self._process(channel, message, tenant, room_id, seat)
        flight = (tenant, message.channel_id, message.external_id)
        while (first := self._in_flight.get(flight)) is not None:
            result = await asyncio.shield(first)
            if result is not None:
                # The same message is being handled right now: it has one effect and both callers hear of it.
                return InboundResult(
                    result.event, result.room_id, result.blocked, result.reason, True, result.settlement
                )
        mine: asyncio.Future[InboundResult | None] = asyncio.get_running_loop().create_future()
        self._in_flight[flight] = mine
        try:
            result = await self._known(tenant, message)
            if result is None:
                seat = self._seat_of(channel, message, tenant, room_id, new=True)
                result = await self._process(channel, message, tenant, room_id, seat)
            mine.set_result(result)
            return result
        except Exception as error:
            mine.set_exception(error)
            mine.exception()
            raise
        except BaseException:  # this caller has gone; whoever else has the message finds out what became of it
            mine.set_result(None)
            raise
        finally:
            del self._in_flight[flight]

    def _seat_of(
        self, channel: Channel, message: InboundMessage, tenant: str, room_id: str | None, *, new: bool = False
    ) -> Seat | None:
        """The room that was asked for and the sender, where the room is in memory and knows both channel and sender:
        then the message can only be committed or refused, and the commit itself tells a redelivery. Who is `new` joins
        the room with what they write, somebody who was erased, too: of them a redelivery is to be known before."""
        actor = self.engine.table.used(tenant, room_id) if room_id is not None else None
        if actor is None or message.attachments or message.channel_id not in actor.state.bindings:
            return None
        sender = self._told(channel, message)
        if sender is None or not (new or sender.participant_id in actor.state.participants):
            return None
        return actor, sender

    async def _known(self, tenant: str, message: InboundMessage) -> InboundResult | None:
        """Looked up before routing, so that a redelivery never opens a room (D22)."""
        found = await self.engine.store.records(
            RecordQuery("dedupe", tenant, key=f"{message.channel_id}\n{message.external_id}")
        )
        if not found:
            return None
        self.engine.count("duplicates")
        return await self.engine.event_result(tenant, found[0].value["room_id"], found[0].value["event_id"])

    async def _process(
        self, channel: Channel, message: InboundMessage, tenant: str, room_id: str | None, seat: Seat | None
    ) -> InboundResult:
        engine = self.engine
        if engine.options.inbound_limit is not None and not engine.admit(tenant, channel.channel_id, message.sender_id):
            return await _turned_away(engine, tenant, channel, message, room_id, "rate_limited")
        if message.about_id is not None:
            message = await import_module("roomkit.core.links").resolved(engine, tenant, message)
            seat = self._seat_of(channel, message, tenant, room_id, new=True)
        at_hand = seat is not None and getattr(channel.handle_inbound, "__func__", None) is Channel.handle_inbound
        if at_hand and seat is not None:  # Nothing has to be waited for: the channel takes messages as they are.
            actor, sender = seat
            draft = draft_of(message, channel.channel_type, sender.participant_id)
        else:
            try:
                actor, draft, sender = await bounded(
                    self._prepare(channel, message, tenant, room_id), engine.options.process_timeout_s, "inbound"
                )
            except TimeoutError:
                engine.count("process_timeouts")
                return await _turned_away(engine, tenant, channel, message, room_id, "process_timeout")
        if sender.refused:
            return await _turned_away(engine, tenant, channel, message, actor.room_id, sender.refused)
        settlement = Settlement()
        dedupe = None
        if message.external_id is not None:
            dedupe = (message.channel_id, message.external_id, DEDUPE_S)
        if sender.identity is not None and (claimed := _claimed(channel, message)) in actor.state.participants:
            await actor.call(import_module("roomkit.core.recognition").recognise, claimed, sender, settlement)
        person = self._person(actor, channel, sender, message)
        sub = messages.Submission(draft, settlement, dedupe=dedupe, person=person, valid=at_hand)
        sub.joins = person.id not in actor.state.participants
        sub.origin = message
        if sender.challenge is not None:
            sub.blocked = ("identity_challenge", "the sender has to prove who it is")
        if sender.proof:
            sub.blocked = ("identity_proof", "the answer to a challenge is nobody else's")
        result = await actor.call(messages.submit, sub)
        if sender.challenge is not None and result.event is not None:
            words = _challenge(channel.channel_id, sender.challenge)
            await actor.call(messages.submit, words)
        if message.session is not None and result.event is not None and not result.blocked:
            binding = actor.state.bindings[channel.channel_id]
            await channel.connect_session(message.session, actor.room_id, binding)
        return result

    async def _prepare(
        self, channel: Channel, message: InboundMessage, tenant: str, room_id: str | None
    ) -> tuple[RoomActor, EventDraft, Sender]:
        if self.engine.nodes is not None:
            room_id = await self._whose(channel, message, tenant, room_id)
        sender = self._told(channel, message) or await self._identify(channel, message, tenant, room_id)
        actor = await self._room(channel, message, tenant, room_id, sender)
        if message.attachments:
            message = await _fetch(self.engine, channel, message, actor)
        if message.participant_id != sender.participant_id:
            message = message.replaced(participant_id=sender.participant_id)
        draft = await channel.handle_inbound(message, actor.state.room)
        return actor, messages.stamped(draft, channel.channel_id, channel.channel_type), sender

    # -- which room -------------------------------------------------------------------------------------------------

    async def _room(
        self, channel: Channel, message: InboundMessage, tenant: str, room_id: str | None, sender: Sender
    ) -> RoomActor:
        engine = self.engine
        if room_id is not None:
            actor = await engine.table.actor(tenant, room_id)
            if actor is None:
                raise RoomNotFound(room_id, await engine.table.ids(tenant))
            await self._seat(actor, channel, message, sender)
            return actor
        route = (tenant, channel.channel_id, message.address, message.assurance.value)
        while True:
            while (busy := self._routing.get(route)) is not None:
                await asyncio.shield(busy)
            cached = await self._cached(route, channel, message)
            if cached is not None:
                actor = await _own(self.engine, tenant, cached)
                await self._seat(actor, channel, message, sender)
                return actor
            if route not in self._routing:
                break
        gate = self._routing[route] = asyncio.get_running_loop().create_future()

        def found() -> None:
            del self._routing[route]
            gate.set_result(None)

        # A caller who hangs up would else leave a room behind, and its next try would make another one.
        finding = self._find_or_make(route, channel, message, sender)
        return await engine.scope.complete(finding, name="the room of a new sender", then=found)

    async def _find_or_make(self, route: Route, channel: Channel, message: InboundMessage, sender: Sender) -> RoomActor:
        engine, tenant, nodes = self.engine, route[0], self.engine.nodes
        found = await self._find(channel, message, tenant)
        if found is None:
            async with nodes.held.alone("room of a new sender", *route) if nodes is not None else nullcontext():
                found = await self._find(channel, message, tenant) if nodes is not None else None
                if found is None:
                    seat = self._new_binding(channel, message, "", sender, tenant)
                    found = await engine.table.create(tenant, source=seat, sender=sender.participant_id)
        actor = await _own(engine, tenant, found)
        self._remember(route, actor.room_id)
        await self._seat(actor, channel, message, sender)
        return actor

    async def _whose(self, channel: Channel, message: InboundMessage, tenant: str, room_id: str | None) -> str | None:
        """Of several processes the one that has the room takes the message in, and asks who has written it. Raises
        `Elsewhere` when that is another one; None for a room that is still to be made."""
        if room_id is None:
            route = (tenant, channel.channel_id, message.address, message.assurance.value)
            found = await self._cached(route, channel, message) or await self._find(channel, message, tenant)
            if found is None:
                return None
            room_id = found.room_id
            self._remember(route, room_id)
        await self.engine.table.actor(tenant, room_id)
        return room_id

    def _remember(self, route: Route, room_id: str) -> None:
        if len(self._routes) >= self.engine.options.resident_rooms * 4:
            self._routes.pop(next(iter(self._routes)))
        self._routes[route] = room_id

    async def _cached(self, route: Route, channel: Channel, message: InboundMessage) -> RoomActor | Seen | None:
        """The room of what the message answers, where the sender's own seat is in it, else the sender's last one."""
        if message.about_room is not None:
            actor = await self._fits(message.about_room, (route[2],), route[0], channel, message)
            if actor is not None:
                return actor
        room_id = self._routes.get(route)
        if room_id is None:
            return None
        actor = await self._fits(room_id, (None, route[2]), route[0], channel, message)
        if actor is None:
            self._routes.pop(route, None)
        return actor

    async def _fits(
        self, room_id: str, addresses: tuple[str | None, ...], tenant: str, channel: Channel, message: InboundMessage
    ) -> RoomActor | Seen | None:
        actor = await _look(self.engine, tenant, room_id)
        if actor is not None and actor.state.room.open:
            binding = actor.state.bindings.get(channel.channel_id)
            if binding is not None and binding.metadata.get("address") in addresses and _sure(binding, message):
                return actor
        return None

    async def place(
        self, channel: Channel, message: InboundMessage, tenant: str, room_id: str | None
    ) -> RoomState | None:
        """The room where the sender is known already, as far as that can be told without asking a router."""
        if room_id is not None:
            found = await _look(self.engine, tenant, room_id)
        else:
            route = (tenant, channel.channel_id, message.address, message.assurance.value)
            found = await self._cached(route, channel, message)
            if found is None and self.engine.options.router is None:
                found = await self._find(channel, message, tenant)
        return found.state if found is not None else None

    async def _find(self, channel: Channel, message: InboundMessage, tenant: str) -> RoomActor | Seen | None:
        """The sender's latest open room on this channel; else the only open room that has the channel without an
        address of its own; more than one of those is never guessed."""
        own = await _open_rooms(self.engine, tenant, f"from:{channel.channel_id}:{message.address}")
        own = [actor for actor in own if _sure(actor.state.bindings.get(channel.channel_id), message)]
        if own:
            best = max(_rank(actor, channel) for actor in own)
            own = [actor for actor in own if _rank(actor, channel) == best]
            candidates = sorted(own, key=lambda a: (a.state.last_activity or _EPOCH, a.room_id), reverse=True)
        else:
            shared = await _open_rooms(self.engine, tenant, f"in:{channel.channel_id}")
            shared = [actor for actor in shared if _sure(actor.state.bindings.get(channel.channel_id), message)]
            candidates = shared if len(shared) == 1 else []
        router = self.engine.options.router
        if router is not None:
            rooms = [actor.state.snapshot() for actor in candidates]
            chosen = await router.route(tenant, message, rooms)
            return await _look(self.engine, tenant, chosen) if chosen is not None else None
        return candidates[0] if candidates else None

    async def _seat(self, actor: RoomActor, channel: Channel, message: InboundMessage, sender: Sender) -> None:
        """Attaches the source channel where it is not, and writes the person down where new."""
        if not actor.state.room.open:
            return
        try:
            await self._sit_down(actor, channel, message, sender)
        except RoomClosed:
            return  # it has closed meanwhile: the gate tells the sender

    async def _sit_down(self, actor: RoomActor, channel: Channel, message: InboundMessage, sender: Sender) -> None:
        if channel.channel_id not in actor.state.bindings and channel.channel_id not in actor.state.detached:
            binding = self._new_binding(channel, message, actor.room_id, sender, actor.tenant)
            await actor.call(membership.attach, binding, False)
        people, claimed = actor.state.participants, _claimed(channel, message)
        if sender.identity is not None and claimed in people and sender.participant_id not in people:
            sender.participant_id = claimed  # they stay who they are here, and are known from now on
        if sender.participant_id not in people and not sender.refused:
            person = self._person(actor, channel, sender, message)
            await actor.call(membership.add_person, person)
            if sender.identity is not None:
                self.engine.hooks.tell(IdentityResolved(actor.tenant, actor.room_id, person))

    def _new_binding(
        self, channel: Channel, message: InboundMessage, room_id: str, sender: Sender, tenant: str
    ) -> ChannelBinding:
        metadata: dict[str, Any] = {}
        recipient_key = getattr(channel, "recipient_key", None)
        if channel.personal:
            metadata["address"] = message.address
            if recipient_key and getattr(channel, "answers_sender", True):
                metadata[recipient_key] = message.address
        return self.engine.registry.seat(
            channel,
            room_id,
            tenant,
            metadata=metadata,
            participant_id=sender.participant_id if channel.reach == "outbox" and not message.group else None,
            assurance=message.assurance,
        )

    def _person(self, actor: RoomActor, channel: Channel, sender: Sender, message: InboundMessage) -> Participant:
        cid = channel.channel_id
        old = actor.state.participants.get(sender.participant_id)
        if old is not None:
            if old.last_channel_id == cid and cid in old.connected_via:
                return old
            via = old.connected_via if cid in old.connected_via else (*old.connected_via, cid)
            return old.replaced(last_channel_id=cid, connected_via=via)
        now = self.engine.now()
        return Participant.made(
            id=sender.participant_id,
            room_id=actor.room_id,
            tenant=actor.tenant,
            channel_id=cid,
            last_channel_id=cid,
            connected_via=(cid,),
            display_name=sender.name,
            identification=sender.status,
            identity_id=sender.identity.id if sender.identity else None,
            candidates=sender.candidates,
            address=message.sender_id if channel.personal else None,
            resolved_at=now if sender.identity else None,
            resolved_by="resolver" if sender.identity else None,
            joined_at=now,
        )

    # -- who is it --------------------------------------------------------------------------------------------------

    def _told(self, channel: Channel, message: InboundMessage) -> Sender | None:
        """The sender, where nobody is asked who it is."""
        claimed = message.participant_id or _claimed(channel, message)
        if message.participant_id is not None or channel.names_senders:
            return Sender(claimed, message.sender_name, _IDENTIFIED)
        if self.engine.resolver is not None:
            kinds = self.engine.options.identity_channel_types
            if kinds is None or channel.channel_type in kinds:
                return None
        return Sender(claimed, message.sender_name, _UNKNOWN)

    async def _identify(self, channel: Channel, message: InboundMessage, tenant: str, room_id: str | None) -> Sender:
        claimed, resolver = _claimed(channel, message), self.engine.resolver
        assert resolver is not None
        found = Resolution(Identification.UNKNOWN)
        try:
            call = resolver.resolve(tenant, channel.channel_type, message)
            found = await bounded(call, self.engine.options.identity_timeout_s, "identity")
        except TimeoutError:
            self.engine.hooks.tell(IdentityTimedOut(tenant, "", channel.channel_id, message.sender_id))
        except Exception:  # a resolver is a plug-in: its failure must not lose the message
            log.exception("the identity resolver failed")
            self.engine.count("identity_errors")
            self.engine.hooks.tell(IdentityTimedOut(tenant, "", channel.channel_id, message.sender_id))
        if found.status is Identification.IDENTIFIED and found.identity is not None:
            name = found.identity.display_name or message.sender_name
            return Sender(found.identity.id, name, Identification.IDENTIFIED, found.identity)
        place = await self.place(channel, message, tenant, room_id)
        settled = await import_module("roomkit.core.recognition").settled(self.engine, place, tenant, claimed)
        if settled is not None:
            return Sender(settled[0], settled[1].display_name, Identification.IDENTIFIED, settled[1])
        return await self._ask(channel, message, tenant, found, claimed)

    async def _ask(
        self, channel: Channel, message: InboundMessage, tenant: str, found: Resolution, claimed: str
    ) -> Sender:
        sender = Sender(
            claimed, message.sender_name, found.status, candidates=tuple(one.id for one in found.candidates)
        )
        if not self.engine.hooks.guarded(IdentityQuestion):
            if found.status is Identification.REJECTED:
                sender.refused = "identity_rejected"
            return sender
        now = self.engine.now()
        nowhere = Room(id="", tenant=tenant, created_at=now, updated_at=now)
        moment = IdentityQuestion(
            nowhere,
            message,
            found.status.value,
            found.candidates,
            channel_id=channel.channel_id,
            channel_type=channel.channel_type,
            direction="inbound",
        )
        outcome = await self.engine.hooks.run(moment)
        if outcome.blocked_by:
            sender.refused = outcome.reason or "identity_rejected"
            return sender
        if isinstance(outcome.value, IdentityAnswer):
            await self._take(sender, outcome.value, channel, message, tenant)
        return sender

    async def _take(
        self, sender: Sender, answer: IdentityAnswer, channel: Channel, message: InboundMessage, tenant: str
    ) -> None:
        match answer.outcome:
            case "resolved" | "create" if answer.identity is not None:
                if answer.outcome == "create":
                    addresses = {channel.channel_type: (message.sender_id,)}
                    fresh = answer.identity.model_copy(
                        update={"tenant": tenant, "addresses": {**addresses, **answer.identity.addresses}}
                    )
                    await self.engine.address_book.put(fresh)
                sender.participant_id = answer.identity.id
                sender.name = answer.identity.display_name or sender.name
                sender.status, sender.identity = Identification.IDENTIFIED, answer.identity
                sender.proof = answer.proof
            case "pending":
                sender.status = Identification.PENDING
            case "challenge":
                sender.status = Identification.CHALLENGE_SENT
                sender.challenge = answer.message or "Please tell us who you are."
            case "reject":
                sender.refused = answer.reason or "identity_rejected"
            case _:
                sender.refused = "identity_answer_not_understood"


def _challenge(channel_id: str, text: str) -> messages.Submission:
    source = EventSource(channel_id="system", channel_type="system", direction="outbound")
    draft = EventDraft(source=source, content=TextContent(text=text), visibility=channel_id)
    settlement = CURRENT.get() or Settlement()
    return messages.Submission(draft, settlement, binding_required=False, targets=(channel_id,), guards=False)


async def _turned_away(
    engine: Engine, tenant: str, channel: Channel, message: InboundMessage, room_id: str | None, reason: str
) -> InboundResult:
    """Nothing of the message is kept, but for a stop."""
    if engine.consent is not None:
        await engine.consent.overheard(tenant, channel, message)
    return InboundResult(None, room_id, blocked=True, reason=reason)


def _claimed(channel: Channel, message: InboundMessage) -> str:
    """What a sender is called that nobody knows."""
    return f"{channel.channel_type}:{message.sender_id}"


NOT_KEPT = "about:blank"
"""The URL of a file that came with a message and is not taken in."""


async def _fetch(engine: Engine, channel: Channel, message: InboundMessage, actor: RoomActor) -> InboundMessage:
    """Brings what the vendor holds into our blob store; what cannot be fetched keeps its URL, and is logged."""
    fetch, blobs = getattr(channel, "fetch", None), engine.blobs
    if fetch is None or blobs is None:
        return message
    urls, missing = dict[str, str](), 0
    for attachment in message.attachments:
        try:
            got = await fetch(attachment)
            info = await blobs().put(
                actor.tenant,
                _once(got.body),
                mime_type=attachment.mime_type or got.content_type,
                filename=attachment.filename,
                room_id=actor.room_id,
            )
            urls[attachment.url] = f"blob:{info.id}"
        except RoomKitError as error:
            missing += 1
            if attachment.url.startswith("data:"):  # it came with the message: no log is made of files
                urls[attachment.url] = NOT_KEPT
            engine.count("attachments_not_fetched")
            engine.warn(actor, f"an attachment was not fetched: {error}")
    metadata = {**message.metadata, "not_fetched": missing} if missing else message.metadata
    return message.replaced(content=_with_urls(message.content, urls), metadata=metadata)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _with_urls(content: Content, urls: dict[str, str]) -> Content:
    match content:
        case CompositeContent(parts=parts):
            return content.replaced(parts=tuple(_with_urls(part, urls) for part in parts))
        case MediaContent(url=url) | AudioContent(url=url) | VideoContent(url=url) if url in urls:
            return content.replaced(url=urls[url])
        case _:
            return content


async def _look(engine: Engine, tenant: str, room_id: str) -> RoomActor | Seen | None:
    """A room to choose from; one that another process has is only looked at."""
    table = engine.table
    actor = table.loaded(tenant, room_id) if engine.nodes else await table.actor(tenant, room_id)
    if actor is not None or engine.nodes is None:
        return actor
    state = await table.look(tenant, room_id)
    return Seen(room_id, state) if state is not None else None


async def _open_rooms(engine: Engine, tenant: str, term: str) -> list[RoomActor | Seen]:
    found: list[RoomActor | Seen] = []
    after: str | None = None
    while True:
        page = await engine.store.records(RecordQuery("binding", tenant, terms=(term,), after=after, limit=200))
        for record in page:
            actor = await _look(engine, tenant, record.room_id or "")
            if actor is not None and actor.state.room.open and actor.state.room.forked_from is None:
                found.append(actor)
        if len(page) < 200:
            return found
        after = page[-1].key


async def _own(engine: Engine, tenant: str, found: RoomActor | Seen) -> RoomActor:
    return found if isinstance(found, RoomActor) else await engine.table.require(tenant, found.room_id)


def _rank(actor: RoomActor | Seen, channel: Channel) -> int:
    binding = actor.state.bindings.get(channel.channel_id)
    return binding.assurance.rank if binding is not None else 0


def _sure(binding: ChannelBinding | None, message: InboundMessage) -> bool:
    """Whether a sender is as sure as the seat was when it was taken: a claim opens no room of somebody proven (D30)."""
    return binding is None or message.assurance.rank >= binding.assurance.rank


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
