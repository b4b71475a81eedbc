"""`/metrics`: the kit's numbers and the doors' own, as Prometheus text (D43)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from roomkit.errors import AccessDenied, RoomKitError
from roomkit.servers.access import Action
from roomkit.servers.problems import problem

if TYPE_CHECKING:
    from roomkit.servers.door import Door

TEXT = "text/plain; version=0.0.4"


async def metrics(door: Door, request: Request) -> Response:
    """Open only where the host says so (loopback); elsewhere for those of the default tenant who may
    read metrics: the numbers are of all tenants."""
    if not door.options.open_metrics:
        try:
            principal = await door.authenticate(request)
            await door.demand(principal, Action.METRICS)
            if principal.tenant != "default":
                raise AccessDenied("these are the numbers of all tenants; ask the host for those of yours")
        except RoomKitError as error:
            return problem(error)
    return PlainTextResponse(door.metrics.render() + door.kit.engine.meters.render(), media_type=TEXT)
