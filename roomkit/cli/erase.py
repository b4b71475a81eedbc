"""`roomkit erase WHO`: somebody's words out of every room, with a receipt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from roomkit.cli.console import fail, say
from roomkit.cli.environment import SECRET
from roomkit.cli.stores import writing
from roomkit.core.erasure import erase_in_room, erase_person, find_person


def erase_somebody(who: str, store: str | None, tenant: str, sure: Callable[[int], object]) -> int:
    """Prints the receipt as one line of JSON. Exit code 1 when nobody was found. `sure` is given the number of rooms
    before anything is erased, and raises where it shall not be."""
    return asyncio.run(_erase(who, store, tenant, sure))


async def _erase(who: str, store: str | None, tenant: str, sure: Callable[[int], object]) -> int:
    async with writing(store) as engine:
        person = await find_person(engine, tenant, who)
        if not person.rooms and not person.identities:
            return fail(f'nobody is known as "{who}" to tenant "{tenant}"; nothing was erased (another --tenant?)')
        sure(len(person.rooms))
        engine.audit_key = os.environ.get(SECRET, "")  # an erasure changes seals, which are under the kit's key

        async def erase_in(room_id: str, ids: list[str], addresses: list[str]) -> dict[str, int]:
            return await (await engine.table.require(tenant, room_id)).call(erase_in_room, ids, addresses)

        receipt = await erase_person(engine, tenant, who, erase_in)
    say(receipt.model_dump_json())
    return 0
