"""Who may come in by RTVI's door, whichever way, and to which room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from roomkit.models.access import Principal
from roomkit.servers.access import Action
from roomkit.servers.door import Door

if TYPE_CHECKING:
    from roomkit.servers.rtvi.server import RTVIServer


def gone(door: Door) -> bool:
    """Nobody comes in any more."""
    return door.draining or door.kit.engine.scope.closed


async def admitted(
    server: RTVIServer, door: Door, connection: HTTPConnection, query: dict[str, str]
) -> tuple[Principal, str]:
    """Who it is, and their room. Raises `RoomKitError` where they may not write."""
    principal = await who(door, connection)
    room_id = _room(server, principal, query)
    await may_enter(door, principal, room_id)
    return principal, room_id


async def may_enter(door: Door, principal: Principal, room_id: str) -> None:
    """Raises `RoomKitError` where they may not write. Whoever may write anywhere may begin a room."""
    if principal.room_id is not None or not await door.may(principal, Action.WRITE, room_id):
        await door.demand(principal, Action.WRITE, room_id)


async def who(door: Door, connection: HTTPConnection) -> Principal:
    """By the token in the query, as the clients of this protocol send it, or as everywhere."""
    token = connection.query_params.get("token")
    if not token:
        return await door.authenticate(HTTPConnection(connection.scope))
    headers = [(name, value) for name, value in connection.scope["headers"] if name != b"authorization"]
    bearer = (b"authorization", b"Bearer " + token.encode("latin-1", "replace"))
    return await door.authenticate(HTTPConnection({**connection.scope, "headers": [*headers, bearer]}))


def _room(server: RTVIServer, principal: Principal, query: dict[str, str]) -> str:
    if principal.room_id is not None:
        return principal.room_id
    if server.options.room_of is not None:
        return server.options.room_of(principal, query)
    return query.get("room") or f"rtvi-{principal.id}"
