"""Two identities that are one person: addresses, consent, seats and history of one become the other's.

What was written stays as it was written, under the participant id of its time, who is now somebody. Doing it again
finishes what a crash has cut. There is no way back: from then on nobody can tell whose an address, a stop or a message
was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from roomkit.core import consent
from roomkit.core.actor import Change, RoomActor
from roomkit.core.erasure import find_person
from roomkit.core.identity import MERGED
from roomkit.errors import StateError, UsageError
from roomkit.models.content import Frozen
from roomkit.models.event import EventType
from roomkit.models.room import Identification, Identity, Membership, Participant
from roomkit.ports.store import Batch, Record, RecordKey

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

MergeIn = Callable[[str, str, str], Awaitable[bool]]


class Merge(Frozen):
    """The receipt: `gone` is `kept` now, in these rooms."""

    kept: str
    gone: str
    rooms: tuple[str, ...] = ()
    addresses: dict[str, tuple[str, ...]] = {}


async def merge(engine: Engine, tenant: str, keep: str, gone: str, by: str | None, merge_in: MergeIn) -> Merge:
    """Makes `gone` a part of `keep`. `merge_in` does it in one room."""
    book = engine.address_book
    if keep == gone:
        raise UsageError(f'"{keep}" cannot be merged with itself; name two identities')
    kept, noted = await book.get(tenant, keep), await book.merged_into(tenant, gone)
    if kept is None or kept.id != keep:
        raise StateError(f'identity "{keep}" is not in the address book; put() it before something is merged into it')
    if noted is not None and noted["into"] != keep:
        raise StateError(_done(gone, noted))
    whole = kept
    if noted is None:
        other = await book.get(tenant, gone)
        if other is None:
            raise StateError(f'identity "{gone}" is not in the address book; there is nothing to merge')
        whole = _united(kept, other)
        note = {"into": keep, "at": engine.now().isoformat(), "by": by}
        stops = await consent.merged(engine, tenant, keep, gone)
        put = (book.record(whole), Record(MERGED, tenant, gone, note), *stops)
        delete = (RecordKey("identity", tenant, gone),)
        await engine.store.commit(Batch(tenant, engine.epoch, put=put, delete=delete))
    person = await find_person(engine, tenant, gone)
    rooms = [room_id for room_id in sorted(person.rooms) if await merge_in(room_id, keep, gone)]
    return Merge(kept=keep, gone=gone, rooms=tuple(rooms), addresses=whole.addresses)


async def unmerge(engine: Engine, tenant: str, gone: str) -> None:
    """Always raises: it says why there is no way back, and what to do instead."""
    noted = await engine.address_book.merged_into(tenant, gone)
    if noted is None:
        raise StateError(f'"{gone}" was never merged into another identity; nothing to undo')
    raise StateError(_done(gone, noted))


async def merge_in_room(actor: RoomActor, keep: str, gone: str) -> bool:
    """In the actor: participants and seats of `gone` become those of `keep`; whether there were any."""
    people, change = actor.state.participants, Change(activity=False)
    for person in actor.state.people:
        if person.id == keep or (gone not in (person.id, person.identity_id)):
            continue
        if person.identity_id == keep and (person.id != gone or keep in people):
            continue  # done before a crash
        change.participants[person.id] = person.replaced(
            identity_id=keep,
            identification=Identification.IDENTIFIED,
            status=Membership.INACTIVE if person.id == gone and person.status is Membership.ACTIVE else person.status,
            metadata={**person.metadata, "merged_into": keep},
        )
        if person.id == gone:
            change.participants[keep] = _one(people.get(keep), person, keep)
    for seat in actor.state.seats:
        if seat.participant_id == gone:
            change.bindings[seat.channel_id] = seat.replaced(participant_id=keep)
    if not change.participants and not change.bindings:
        return False
    if actor.state.room.open:
        kind = EventType.PARTICIPANT_IDENTIFIED
        change.system(kind, "identities_merged", participant_id=gone, identity_id=keep)
    await actor.commit(change)
    return True


def _one(kept: Participant | None, gone: Participant, keep: str) -> Participant:
    """Whoever stays has their own rights; a ban of either holds."""
    if kept is None:
        return gone.replaced(id=keep, identity_id=keep, identification=Identification.IDENTIFIED)
    via = tuple(dict.fromkeys((*kept.connected_via, *gone.connected_via)))
    status = Membership.BANNED if Membership.BANNED in (kept.status, gone.status) else kept.status
    return kept.replaced(connected_via=via, status=status, identity_id=kept.identity_id or keep)


def _united(kept: Identity, gone: Identity) -> Identity:
    addresses = {
        kind: tuple(dict.fromkeys((*kept.addresses.get(kind, ()), *gone.addresses.get(kind, ()))))
        for kind in (*kept.addresses, *gone.addresses)
    }
    return kept.model_copy(
        update={
            "addresses": addresses,
            "display_name": kept.display_name or gone.display_name,
            "metadata": {**gone.metadata, **kept.metadata},
        }
    )


def _done(gone: str, noted: dict[str, str | None]) -> str:
    who = f" by {noted['by']}" if noted.get("by") else ""
    return (
        f'"{gone}" became "{noted["into"]}" on {str(noted["at"])[:10]}{who}, and that cannot be undone: what has come '
        "in since belongs to both; put() a new identity and give it the addresses that are its own"
    )
