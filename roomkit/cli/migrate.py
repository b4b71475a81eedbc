"""`roomkit migrate URL`: brings a store's tables to this version's schema."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
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
    before = _version(url)
    info = await store.open()  # A store of one process migrates when it is opened.
    await store.aclose()
    return before, info.schema_version


def _version(url: str) -> int:
    """Of an SQLite file as it lies there; 0 for none."""
    path = Path(url.removeprefix("sqlite:///").partition("?")[0])
    if not path.is_file():
        return 0
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()[0])
        except sqlite3.Error:  # no tables of ours yet; opening it says what it is if it is something else
            return 0
