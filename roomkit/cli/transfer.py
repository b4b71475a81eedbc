"""`roomkit export ROOM` and `roomkit import FILE`: a room as a file."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from roomkit.cli.console import say
from roomkit.cli.stores import new_file, reading, room_named, unmake, writing
from roomkit.core.transfer import MAX_BLOB, export_room, import_room
from roomkit.errors import UsageError


def export_to(room: str, store: str | None, out: Path | None, tenant: str, media: bool) -> int:
    """The file is there when it is whole, and not before."""
    if out is None:
        return asyncio.run(_export(room, store, None, tenant, media))
    part = out.with_name(f"{out.name}.part")
    try:
        code = asyncio.run(_export(room, store, part, tenant, media))
        part.replace(out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}); choose another --out") from None
    finally:
        part.unlink(missing_ok=True)
    say(f"{room} written to {out}")
    return code


async def _export(room: str, store: str | None, out: Path | None, tenant: str, media: bool) -> int:
    async with reading(store) as engine:
        room = await room_named(engine, tenant, room)
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if out is not None else os.dup(1)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            async for line in export_room(engine, tenant, room, "inline" if media else "none", MAX_BLOB):
                file.write(line + "\n")
    return 0


def import_from(file: Path, store: str | None, room: str | None, tenant: str) -> int:
    if str(file) == "-":
        return asyncio.run(_import(sys.stdin, store, room, tenant))
    try:
        with file.open(encoding="utf-8", newline="\n") as lines:
            return asyncio.run(_import(lines, store, room, tenant))
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{file} cannot be read ({why}); name a file that roomkit export has written") from None


async def _import(lines: Iterable[str], store: str | None, room: str | None, tenant: str) -> int:
    lines = list(lines)  # read first: what is no export makes no store
    if not lines:
        raise UsageError("the export is empty; give a file that roomkit export has written")
    fresh = new_file(store)
    try:
        async with writing(store) as engine:
            made = await import_room(engine, tenant, lines, room)
    except BaseException:
        if fresh is not None:
            unmake(fresh)
        raise
    say(f"room {made.id}: {made.event_count} events; nothing was sent")
    return 0
