"""How a REST route is made: a row with method, path, action and models, and a function of a `Call`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roomkit.errors import RoomKitError, UsageError
from roomkit.models.access import Principal
from roomkit.runtime import bounded
from roomkit.servers.access import Action
from roomkit.servers.problems import Draining, TooLarge, TooSlow, problem

if TYPE_CHECKING:
    from roomkit.rooms import Rooms
    from roomkit.servers.door import Door

M = TypeVar("M", bound=BaseModel)


class Body(BaseModel):
    """What a route takes; unknown fields are refused, so that a typo is not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Nothing(Body):
    """No body, no query."""


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated and authorised request."""

    door: Door
    request: Request
    principal: Principal
    room_id: str

    @property
    def rooms(self) -> Rooms:
        """The kit as the caller's tenant sees it."""
        return self.door.rooms(self.principal)

    @property
    def staff(self) -> bool:
        return self.principal.sees_internal

    def path(self, name: str) -> str:
        return self.request.path_params[name]


Handler = Callable[[Call, Any], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of the API. `takes` is the model of the JSON body (of the query for GET); `raw` routes read their own."""

    method: str
    path: str
    action: Action
    handler: Handler
    takes: type[BaseModel]
    status: int
    raw: bool

    @property
    def summary(self) -> str:
        return (self.handler.__doc__ or "").strip().split("\n", maxsplit=1)[0]

    @property
    def name(self) -> str:
        return self.handler.__name__


def endpoints() -> tuple[list[Endpoint], Callable[..., Callable[[Handler], Handler]]]:
    """A list of rows, and the decorator that fills it."""
    rows: list[Endpoint] = []

    def endpoint(
        method: str,
        path: str,
        action: Action,
        takes: type[BaseModel] = Nothing,
        *,
        status: int = 200,
        raw: bool = False,
    ) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            rows.append(Endpoint(method, path, action, handler, takes, status, raw))
            return handler

        return add

    return rows, endpoint


def route(door: Door, row: Endpoint) -> Route:
    """The Starlette route of a row."""

    async def serve(request: Request) -> Response:
        try:
            response = await _serve(door, row, request)
            response.headers.setdefault("cache-control", "no-store")
            return response
        except (RoomKitError, ValidationError) as error:
            return problem(error)

    return Route(f"/api{row.path}", serve, methods=[row.method], name=row.name)


async def _serve(door: Door, row: Endpoint, request: Request) -> Response:
    principal = await door.authenticate(request)
    room_id = request.path_params.get("room", "")
    await door.demand(principal, row.action, room_id or None)
    if row.method != "GET":
        if door.draining:
            raise Draining("the server is going away; try again in a moment")
        door.pace(principal.tenant, principal.id)
    call = Call(door, request, principal, room_id)
    return await row.handler(call, await _read(door, row, request))


async def _read(door: Door, row: Endpoint, request: Request) -> BaseModel:
    if row.method == "GET" or row.raw:
        return row.takes.model_validate(dict(request.query_params))
    data = await read_body(request, door.options.body_bytes, door.options.request_s)
    if not data:
        return row.takes.model_validate({})
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError("the body is not JSON; send application/json in UTF-8") from error
    return row.takes.model_validate(raw)


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """The whole body. Raises `TooLarge` as soon as it is over `limit` bytes, whatever its header claims, and `TooSlow`
    when it is not there after `seconds`."""
    claimed = request.headers.get("content-length", "0")
    if claimed.isdecimal() and int(claimed[:20]) > limit:
        raise TooLarge(f"the body is over {limit} bytes; send less")
    try:
        return await bounded(_gathered(request, limit), seconds, "the body")
    except TimeoutError:
        raise TooSlow(f"the body did not come within {seconds:g} s") from None


async def _gathered(request: Request, limit: int) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise TooLarge(f"the body is over {limit} bytes; send less")
    return bytes(data)


def reply(status: int = 200, **fields: Any) -> JSONResponse:
    return JSONResponse(fields, status)


def done() -> Response:
    return Response(status_code=204)


def dump(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json")
