"""`roomkit consent`: the ledger of a store, to be read, exported or handed to whoever asks for their own lines."""

from __future__ import annotations

import asyncio

from roomkit.cli.console import clean, fail, paint, say
from roomkit.cli.stores import reading
from roomkit.core.consent import ConsentLedger


def show_ledger(who: str | None, store: str | None, tenant: str, as_json: bool) -> int:
    """Prints it, oldest line first. Exit code 1 when there is none."""
    return asyncio.run(_show(who, store, tenant, as_json))


async def _show(who: str | None, store: str | None, tenant: str, as_json: bool) -> int:
    async with reading(store) as engine:
        found = await ConsentLedger(engine, tenant).entries(who)
    if not found:
        whose = f' about "{who}"' if who else ""
        return fail(f'the ledger of tenant "{tenant}" has no lines{whose}; give another --tenant or --store')
    for entry in found:
        if as_json:
            say(entry.model_dump_json())
            continue
        stamp, did = f"{entry.at:%Y-%m-%d %H:%M:%S}", "allowed" if entry.granted else "stopped"
        whom = entry.who if entry.address in (None, entry.who) else f"{entry.who} ({entry.address})"
        what = f"{entry.channel_type}, {entry.purpose}"
        how = " ".join(filter(None, (entry.source, entry.by, f'"{entry.evidence}"' if entry.evidence else "")))
        say("  ".join((paint(stamp, "dim"), clean(whom), did, what, clean(how))))
    return 0
