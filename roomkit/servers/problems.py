"""Every failure as one JSON shape: `{"error": {"code", "message"}}`, told by who must act."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

from roomkit.errors import (
    AccessDenied,
    ChannelNotFound,
    FloorTaken,
    Overloaded,
    ProviderError,
    RoomClosed,
    RoomKitError,
    RoomNotFound,
    StateError,
    StoreError,
    UsageError,
)
from roomkit.servers.door import TooMany, Unauthenticated

RETRY_S = 2.0


class NotFound(StateError):
    """There is no such thing here."""


class TooLarge(UsageError):
    """The body is over the limit."""


class TooSlow(UsageError):
    """The body did not come in time."""


class UnsupportedType(UsageError):
    """The media type is not accepted."""


class Draining(RoomKitError):
    """The server is going away."""


_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (Unauthenticated, 401, "unauthenticated"),
    (AccessDenied, 403, "forbidden"),
    (RoomNotFound, 404, "not_found"),
    (ChannelNotFound, 404, "not_found"),
    (NotFound, 404, "not_found"),
    (RoomClosed, 409, "room_closed"),
    (FloorTaken, 409, "floor_taken"),
    (StateError, 409, "conflict"),
    (TooSlow, 408, "too_slow"),
    (TooLarge, 413, "too_large"),
    (UnsupportedType, 415, "unsupported_type"),
    (UsageError, 400, "bad_request"),
    (TooMany, 429, "rate_limited"),
    (Overloaded, 429, "overloaded"),
    (Draining, 503, "draining"),
    (StoreError, 503, "unavailable"),
    (ProviderError, 502, "provider_failed"),
)


def problem(error: Exception) -> JSONResponse:
    """The answer to a failed request. What we do not know stays inside: its text may hold anything."""
    if isinstance(error, ValidationError):
        details = [
            {"field": ".".join(map(str, item["loc"])), "message": item["msg"]}
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:20]
        ]
        return answer(422, "invalid", "the request is not what this route takes", details=details)
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return _known(error, status, code)
    return answer(500, "internal", "something went wrong on the server")


_WAYS = {
    "kit.create_room()": "make it with POST /api/rooms",
    "kit.reopen_room()": "reopen it with POST /api/rooms/{room}/reopen",
    "kit.approvals()": "GET /api/rooms/{room}/approvals lists those there are",
    "kit.dead_letters()": "GET /api/dead-letters lists those there are",
    "kit.register_channel()": "GET /api/rooms/{room}/bindings lists those there are",
    "kit.get_room()": "choose another id",
    "force=True": 'send {"force": true} to take it anyway',
    "whisper()": "POST /api/rooms/{room}/whisper reaches the next turn",
}
"""How to do over HTTP what a message says how to do in Python."""


def spoken(error: Exception) -> str:
    """The message for somebody who does not write Python: what and why are the same, the fix is another."""
    text, separator, fix = str(error).rpartition("; ")
    if not separator:
        return fix
    way = next((way for call, way in _WAYS.items() if call in fix), None)
    if way is not None:
        return f"{text}; {way}"
    return text if "kit." in fix or "()" in fix else f"{text}; {fix}"


def _known(error: Exception, status: int, code: str) -> JSONResponse:
    more: dict[str, Any] = {}
    headers: dict[str, str] = {}
    if isinstance(error, FloorTaken):
        more["holder"] = error.holder
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    elif status == 503:
        headers["retry-after"] = str(math.ceil(RETRY_S))
    elif status == 401:
        headers["www-authenticate"] = "Bearer"
    message = "messages cannot be stored at the moment; try again" if isinstance(error, StoreError) else spoken(error)
    return answer(status, code, message, headers=headers, **more)


def answer(status: int, code: str, message: str, *, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, **more}}, status, headers=headers)
