"""`/metrics`: the kit's numbers and the doors' own, as Prometheus text (D43)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from roomkit.errors import RoomKitError
from roomkit.servers.access import Action
from roomkit.servers.problems import problem

if TYPE_CHECKING:
    from roomkit.servers.door import Door

TEXT = "text/plain; version=0.0.4"


async def metrics(door: Door, request: Request) -> Response:
    """Open only where the host says so (loopback); elsewhere for those who may read metrics."""
    if not door.options.open_metrics:
        try:
            await door.demand(await door.authenticate(request), Action.METRICS)
        except RoomKitError as error:
            return problem(error)
    return PlainTextResponse(render(door), media_type=TEXT)


def render(door: Door) -> str:
    engine = door.kit.engine
    lines = [door.metrics.render().rstrip("\n")]
    counters = engine.counters
    for name, value in sorted(engine.stats().items()):
        base = name.removesuffix("_sum").removesuffix("_count")
        if f"{base}_sum" in counters and f"{base}_count" in counters:
            if name.endswith("_sum"):
                lines.append(f"# TYPE roomkit_{base} summary")
            lines.append(f"roomkit_{name} {value:g}")
        elif name in counters or (name.startswith("store_") and name not in ("store_writable", "store_pending")):
            lines += [f"# TYPE roomkit_{name}_total counter", f"roomkit_{name}_total {value:.17g}"]
        else:
            lines += [f"# TYPE roomkit_{name} gauge", f"roomkit_{name} {value:.17g}"]
    return "\n".join(filter(None, lines)) + "\n"
