"""`roomkit rooms`: which rooms a store has."""

from __future__ import annotations

import asyncio
import json

from roomkit.cli.console import clean, fail, paint, say
from roomkit.cli.stores import reading
from roomkit.core.lookup import find_rooms

_SHOWN = {"id", "external_id", "status", "last_activity_at"}


def list_rooms(store: str | None, tenant: str, limit: int, as_json: bool) -> int:
    """Prints them, latest activity first. Exit code 1 when there is none."""
    return asyncio.run(_list(store, tenant, limit, as_json))


async def _list(store: str | None, tenant: str, limit: int, as_json: bool) -> int:
    async with reading(store) as engine:
        found = await find_rooms(engine, tenant, "", (), limit + 1, 0)
        if not found:
            return fail(f'tenant "{tenant}" has no rooms in this store; give another --tenant or --store')
        for room in found[:limit]:
            state = await engine.table.look(tenant, room.id)
            people = [one.display_name or one.id for one in state.people] if state is not None else []
            if as_json:
                value = {**room.model_dump(mode="json", include=_SHOWN), "people": people}
                say(json.dumps(value, ensure_ascii=False))
                continue
            last = room.last_activity_at
            stamp = f"{last:%Y-%m-%d %H:%M:%S}" if last else "never active".ljust(19)
            external = f"({clean(room.external_id)})" if room.external_id else ""
            facts = (paint(stamp, "dim"), clean(room.id), external, str(room.status), clean(", ".join(people)))
            say("  ".join(filter(None, facts)))
    if len(found) > limit and not as_json:
        say(f"there are more: --limit {limit * 10}")
    return 0
