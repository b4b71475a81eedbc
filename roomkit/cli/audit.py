"""`roomkit audit ROOM`: whether a log is what was committed."""

from __future__ import annotations

import asyncio
import os

from roomkit.cli.console import fail, say
from roomkit.cli.environment import SECRET
from roomkit.cli.stores import reading, room_named
from roomkit.core.audit import Audit, audit_room


def audit(room: str, store: str | None, tenant: str, anchor: str | None, json: bool) -> int:
    """Prints the report. Exit code 1 when the log is not what was sealed, or nothing is."""
    found = asyncio.run(_audit(room, store, tenant, anchor))
    if json:
        say(found.model_dump_json())
    elif found.ok and not found.sealed:
        return fail(f"{room}: nothing is sealed: audit was not on (KitOptions(audit=True)), or has not sealed it yet")
    elif found.ok:
        keyed = "" if found.signed else f"; the seals were not checked with a key, set {SECRET} to the kit's"
        say(f"{room}: {found.sealed} events are as they were sealed, {found.unsealed} not sealed yet{keyed}")
        say(f"head {found.head}")
    else:
        return fail(f"{room}: event {found.index}: {found.problem}")
    return 0 if found.ok and found.sealed else 1


async def _audit(room: str, store: str | None, tenant: str, anchor: str | None) -> Audit:
    async with reading(store) as engine:
        engine.audit_key = os.environ.get(SECRET, "")
        return await audit_room(engine, tenant, await room_named(engine, tenant, room), anchor)
