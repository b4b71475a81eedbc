"""`roomkit migrate URL`: brings a store's tables to this version's schema."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import cast

from roomkit.errors import ConfigError, RoomKitError, StoreUnavailable
from roomkit.kit import open_store

Migrate = Callable[[], Awaitable[tuple[int, int]]]


def migrate_store(url: str) -> int:
    """Prints one line. Exit code 0 when the tables are of this version now, 2 for what names no store, otherwise 1."""
    try:
        before, after = asyncio.run(_migrate(url))
    except ConfigError as error:
        what, unnamed, _ = str(error).partition("; use RoomKit()")
        fix = "; write sqlite:///FILE or postgresql://USER@HOST/DATABASE" if unnamed else ""
        print(f"roomkit: {what}{fix}", file=sys.stderr)
        return 2
    except StoreUnavailable as error:
        what = str(error).removesuffix("; it is tried again")
        print(f"roomkit: nothing was migrated: {what}; run it again when the database answers", file=sys.stderr)
        return 1
    except RoomKitError as error:
        print(f"roomkit: {error}", file=sys.stderr)
        return 1
    print(f"schema {after}: " + ("nothing to do" if before == after else f"migrated from {before}"))
    return 0


async def _migrate(url: str) -> tuple[int, int]:
    store = open_store(url)
    migrate = getattr(store, "migrate", None)
    if migrate is not None:
        return await cast("Migrate", migrate)()
    info = await store.open()  # A store of one process migrates when it is opened.
    await store.aclose()
    return info.schema_version, info.schema_version
