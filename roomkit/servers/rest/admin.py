"""Tokens and dead letters."""

from __future__ import annotations

from pydantic import Field
from starlette.responses import Response

from roomkit.errors import AccessDenied
from roomkit.models.access import PrincipalRole
from roomkit.net.tokens import MAX_TTL_S, Minted
from roomkit.servers.access import Action
from roomkit.servers.rest.api import Body, Call, Nothing, done, endpoints, reply

API, endpoint = endpoints()
REFRESH_S = 3600.0


class NewToken(Body):
    role: PrincipalRole
    id: str | None = Field(default=None, min_length=1, max_length=128)
    room_id: str | None = Field(default=None, min_length=1, max_length=128)
    ttl_s: float = Field(default=3600.0, gt=0, le=MAX_TTL_S)
    display_name: str | None = Field(default=None, max_length=200)


class Limit(Body):
    limit: int = Field(default=100, ge=1, le=500)


@endpoint("POST", "/tokens", Action.MINT_GUEST, NewToken, status=201)
async def mint_token(call: Call, body: NewToken) -> Response:
    """Make a token; an agent may make one for a guest"""
    if body.role is not PrincipalRole.GUEST:
        await call.door.demand(call.principal, Action.MINT)
    if body.room_id is not None:
        await call.rooms.get_room(body.room_id)
    minted = call.door.kit.tokens.issue(
        body.role,
        body.room_id,
        body.ttl_s,
        id=body.id,
        tenant=call.principal.tenant,
        display_name=body.display_name,
    )
    return _token(minted, 201)


@endpoint("POST", "/tokens/refresh", Action.REFRESH)
async def refresh_token(call: Call, _: Nothing) -> Response:
    """A fresh token for the same principal"""
    me = call.principal
    if me.token_id is None:
        raise AccessDenied("this principal did not come with one of our tokens; ask the host for a new one")
    minted = call.door.kit.tokens.issue(
        me.role,
        me.room_id,
        REFRESH_S,
        id=me.id,
        tenant=me.tenant,
        display_name=me.display_name,
        token_id=me.token_id,
    )
    return _token(minted)


@endpoint("DELETE", "/tokens/{token}", Action.REVOKE, status=204)
async def revoke_token(call: Call, _: Nothing) -> Response:
    """Refuse a token from now on, and end its sessions"""
    call.door.kit.tokens.revoke(call.path("token"))
    return done()


@endpoint("GET", "/dead-letters", Action.DEAD_LETTERS, Limit)
async def dead_letters(call: Call, query: Limit) -> Response:
    """Deliveries that were given up"""
    return reply(dead_letters=await call.rooms.dead_letters(limit=query.limit))


@endpoint("POST", "/dead-letters/{letter:path}/resend", Action.RESEND, status=202)
async def resend(call: Call, _: Nothing) -> Response:
    """Try a dead letter again"""
    await call.rooms.resend(call.path("letter"))
    return reply(202)


def _token(minted: Minted, status: int = 200) -> Response:
    return reply(status, token=minted.token, token_id=minted.token_id, expires_at=minted.expires_at)
