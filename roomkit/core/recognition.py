"""When a sender turns out to be somebody: their place in the room becomes that person's, and what was held back until
they had proven it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roomkit.core import messages
from roomkit.core.actor import Change, RoomActor
from roomkit.core.inbound import DEDUPE_S
from roomkit.core.results import Settlement
from roomkit.models.event import EventDraft, EventType, RoomEvent
from roomkit.models.room import Identification, Identity
from roomkit.ports.store import EventQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine
    from roomkit.core.inbound import Sender
    from roomkit.core.state import RoomState

CHALLENGE, PROOF = "identity_challenge", "identity_proof"
_PAGE = 200


async def settled(engine: Engine, state: RoomState | None, tenant: str, claimed: str) -> tuple[str, Identity] | None:
    """Whom somebody at the desk, or an earlier answer, has told this sender to be in the room: it is asked no more."""
    person = state.participants.get(claimed) if state is not None else None
    if person is None or person.identity_id is None or person.identification is not Identification.IDENTIFIED:
        return None
    known = await engine.address_book.get(tenant, person.identity_id)
    identity = known or Identity(id=person.identity_id, tenant=tenant, display_name=person.display_name)
    return (identity.id if state is not None and identity.id in state.participants else claimed), identity


async def recognise(actor: RoomActor, claimed: str, sender: Sender, settlement: Settlement) -> None:
    """In the actor: the record of the sender's claim becomes the identity's, with its seats and with what was held."""
    old, identity = actor.state.participants.get(claimed), sender.identity
    if old is None or identity is None or not actor.state.room.open:
        return
    if old.identification is Identification.IDENTIFIED and old.identity_id is not None:
        return
    person = old.replaced(
        identity_id=identity.id,
        identification=Identification.IDENTIFIED,
        display_name=identity.display_name or old.display_name,
        candidates=(),
        resolved_at=actor.engine.now(),
        resolved_by=old.resolved_by or "resolver",
    )
    change = Change(activity=False)
    change.participants[claimed] = person
    for seat in actor.state.seats:
        if seat.participant_id == claimed and sender.participant_id != claimed:
            change.bindings[seat.channel_id] = seat.replaced(participant_id=sender.participant_id)
    kind = EventType.PARTICIPANT_IDENTIFIED
    change.system(kind, kind.value, participant_id=claimed, identity_id=identity.id)
    await actor.commit(change)
    await release(actor, claimed, sender.participant_id, settlement)


async def release(actor: RoomActor, claimed: str, participant_id: str, settlement: Settlement) -> None:
    """What the sender wrote before they had proven who they are enters the room now, each message once."""
    for event in await _held(actor, claimed):
        draft = EventDraft(
            source=event.source.replaced(participant_id=participant_id),
            content=event.content,
            type=event.type,
            visibility=event.visibility,
            parent_event_id=event.parent_event_id,
            metadata={**event.metadata, "held_event": event.id},
            channel_data=event.channel_data,
        )
        dedupe = (event.source.channel_id, f"held:{event.id}", DEDUPE_S)
        await messages.submit(actor, messages.Submission(draft, settlement, dedupe=dedupe))


async def _held(actor: RoomActor, claimed: str) -> list[RoomEvent]:
    found: list[RoomEvent] = []
    for start in range(0, actor.state.next_index, _PAGE):
        query = EventQuery(actor.tenant, actor.room_id, start=start, limit=_PAGE)
        page = await actor.engine.store.events(query)
        found += [e for e in page if e.blocked_by == CHALLENGE and e.source.participant_id == claimed]
    return found
