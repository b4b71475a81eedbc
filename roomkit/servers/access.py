"""Who may do what: one table, and the default way of telling who is asking (D31)."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from roomkit.models.access import Principal, PrincipalRole

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from roomkit.net.tokens import Tokens


class Action(StrEnum):
    READ_ROOM = "read_room"
    WRITE = "write"
    REQUEST_HUMAN = "request_human"
    MEDIA = "media"
    REFRESH = "refresh"
    LIST_ROOMS = "list_rooms"
    CREATE_ROOM = "create_room"
    READ_DESK = "read_desk"
    TAKE_FLOOR = "take_floor"
    NOTE = "note"
    MINT_GUEST = "mint_guest"
    MANAGE_ROOM = "manage_room"
    MANAGE_CHANNELS = "manage_channels"
    MANAGE_PEOPLE = "manage_people"
    SET_FLOOR = "set_floor"
    STEER = "steer"
    APPROVE = "approve"
    DEAD_LETTERS = "dead_letters"
    RESEND = "resend"
    MINT = "mint"
    REVOKE = "revoke"
    METRICS = "metrics"
    ERASE = "erase"


LEAST: dict[Action, PrincipalRole] = {
    Action.READ_ROOM: PrincipalRole.GUEST,
    Action.WRITE: PrincipalRole.GUEST,
    Action.REQUEST_HUMAN: PrincipalRole.GUEST,
    Action.MEDIA: PrincipalRole.GUEST,
    Action.REFRESH: PrincipalRole.GUEST,
    Action.LIST_ROOMS: PrincipalRole.AGENT,
    Action.CREATE_ROOM: PrincipalRole.AGENT,
    Action.READ_DESK: PrincipalRole.AGENT,
    Action.TAKE_FLOOR: PrincipalRole.AGENT,
    Action.NOTE: PrincipalRole.AGENT,
    Action.MINT_GUEST: PrincipalRole.AGENT,
    Action.MANAGE_ROOM: PrincipalRole.SUPERVISOR,
    Action.MANAGE_CHANNELS: PrincipalRole.SUPERVISOR,
    Action.MANAGE_PEOPLE: PrincipalRole.SUPERVISOR,
    Action.SET_FLOOR: PrincipalRole.SUPERVISOR,
    Action.STEER: PrincipalRole.SUPERVISOR,
    Action.APPROVE: PrincipalRole.SUPERVISOR,
    Action.DEAD_LETTERS: PrincipalRole.SUPERVISOR,
    Action.RESEND: PrincipalRole.ADMIN,
    Action.MINT: PrincipalRole.ADMIN,
    Action.REVOKE: PrincipalRole.ADMIN,
    Action.METRICS: PrincipalRole.ADMIN,
    Action.ERASE: PrincipalRole.ADMIN,
}
"""The least role for each action. An action missing here is allowed to nobody."""

RANK = {role: rank for rank, role in enumerate(PrincipalRole)}
ROOMLESS = frozenset({Action.REFRESH})


def allowed(principal: Principal, action: Action, room_id: str | None) -> bool:
    """The default of `authorize`. A principal bound to a room may do nothing outside it."""
    least = LEAST.get(action)
    if least is None or RANK[principal.role] < RANK[least]:
        return False
    if action in ROOMLESS:
        return True
    if principal.room_id is None:
        return principal.role is not PrincipalRole.GUEST
    return principal.room_id == room_id


def bearer(connection: HTTPConnection) -> str | None:
    """The token of an Authorization header; tokens in URLs are never read."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class TokenAuthentication:
    """The default of `authenticate`: Bearer tokens signed by this kit. Raises `AccessDenied` for a bad one."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def __call__(self, connection: HTTPConnection) -> Principal | None:
        token = bearer(connection)
        return None if token is None else self._tokens.verify(token)
