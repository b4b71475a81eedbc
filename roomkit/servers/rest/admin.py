"""Tokens and dead letters."""

from __future__ import annotations

from pydantic import Field
from starlette.responses import Response

from roomkit.errors import AccessDenied
from roomkit.models.access import PrincipalRole
from roomkit.net.tokens import MAX_TTL_S, Minted, revocation
from roomkit.servers.access import RANK, Action
from roomkit.servers.rest.api import Body, Call, Nothing, done, endpoints, reply

API, endpoint = endpoints()
REFRESH_S = 3600.0


class NewToken(Body):
    role: PrincipalRole
    id: str | None = Field(default=None, min_length=1, max_length=128)
    room_id: str | None = Field(default=None, min_length=1, max_length=128)
    ttl_s: float = Field(default=3600.0, gt=0, le=MAX_TTL_S)
    display_name: str | None = Field(default=None, max_length=200)
    renewable_s: float | None = Field(default=None, gt=0, le=MAX_TTL_S)


class Limit(Body):
    limit: int = Field(default=100, ge=1, le=500)


class Somebody(Body):
    """A participant id, an identity id or an address."""

    who: str = Field(min_length=1, max_length=256)


@endpoint("POST", "/erasures", Action.ERASE, Somebody)
async def erase_person(call: Call, body: Somebody) -> Response:
    """Erase a person from every room of the tenant; the answer is the receipt"""
    receipt = await call.rooms.erase_person(body.who)
    return reply(erasure=receipt.model_dump(mode="json"))


@endpoint("POST", "/tokens", Action.MINT_GUEST, NewToken, status=201)
async def mint_token(call: Call, body: NewToken) -> Response:
    """Make a token; an agent may make one for a guest, without choosing its id"""
    if body.role is not PrincipalRole.GUEST:
        await call.door.demand(call.principal, Action.MINT)
    if body.room_id is not None:
        await call.rooms.get_room(body.room_id)
    if body.role is PrincipalRole.GUEST and body.id is not None:
        await _demand_free(call, body.id, body.room_id)
    minted = call.door.kit.tokens.issue(
        body.role,
        body.room_id,
        body.ttl_s,
        id=body.id,
        tenant=call.principal.tenant,
        display_name=body.display_name,
        renewable_for=body.renewable_s,
    )
    return _token(minted, 201)


async def _demand_free(call: Call, wanted: str, room_id: str | None) -> None:
    """Whoever chooses a guest's id can speak as whoever has it, now or later: agents never choose, and nobody gives a
    guest the id of staff or of somebody who came in by another door."""
    if RANK[call.principal.role] < RANK[PrincipalRole.SUPERVISOR]:
        raise AccessDenied("an agent cannot choose a guest's id; leave id out, or ask a supervisor")
    if call.door.lobby.has_staff(call.principal.tenant, wanted) or wanted == call.principal.id:
        raise AccessDenied(f'"{wanted}" is somebody of the staff; choose another id')
    if room_id is None:
        return
    room = await call.rooms.get_room(room_id)
    if room.floor.holder == wanted:
        raise AccessDenied(f'"{wanted}" holds the floor of this room; choose another id')
    web = call.door.options.web_channel
    for person in await call.rooms.participants(room_id):
        if person.id == wanted and (person.channel_id != web or set(person.connected_via) - {web}):
            raise AccessDenied(f'"{wanted}" came into this room by another channel; choose another id')


@endpoint("POST", "/tokens/refresh", Action.REFRESH)
async def refresh_token(call: Call, _: Nothing) -> Response:
    """A fresh token for the same principal, up to the end granted with the first"""
    minted = call.door.kit.tokens.renew(call.principal, REFRESH_S)
    return _token(minted)


@endpoint("DELETE", "/tokens/{token}", Action.REVOKE, status=204)
async def revoke_token(call: Call, _: Nothing) -> Response:
    """Refuse a token of your tenant from now on, and end its sessions"""
    engine = call.door.kit.engine
    refused = call.door.kit.tokens.revoke(call.path("token"), tenant=call.principal.tenant)
    await engine.store.commit(revocation(*refused, engine.epoch))  # Once more, because done means durable.
    return done()


@endpoint("GET", "/dead-letters", Action.DEAD_LETTERS, Limit)
async def dead_letters(call: Call, query: Limit) -> Response:
    """Deliveries that were given up"""
    return reply(dead_letters=await call.rooms.dead_letters(limit=query.limit))


@endpoint("DELETE", "/dead-letters/{letter:path}", Action.RESEND, status=204)
async def discard_letter(call: Call, _: Nothing) -> Response:
    """Give a dead letter up"""
    await call.rooms.discard(call.path("letter"))
    return done()


@endpoint("POST", "/dead-letters/{letter:path}/resend", Action.RESEND, status=202)
async def resend(call: Call, _: Nothing) -> Response:
    """Try a dead letter again"""
    await call.rooms.resend(call.path("letter"))
    return reply(202)


def _token(minted: Minted, status: int = 200) -> Response:
    return reply(status, token=minted.token, token_id=minted.token_id, expires_at=minted.expires_at)
