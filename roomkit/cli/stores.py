"""The store that a data command works on, and a machine over it that does nothing by itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from roomkit.core.engine import Engine, KitOptions
from roomkit.errors import StateError, StoreUnavailable, UsageError
from roomkit.kit import open_store
from roomkit.ports.store import RecordQuery, Store

STORE = "ROOMKIT_STORE"
DEMO = "roomkit-demo.db"
SCHEMES = ("sqlite", "postgresql")


def store_at(place: str | None) -> Store:
    """`place` is a file of SQLite or a store's URL; without it ROOMKIT_STORE, else the demo's file, if it is here."""
    place = place or os.environ.get(STORE) or (DEMO if os.path.exists(DEMO) else None)  # noqa: PTH110 - one look
    if place is None:
        raise UsageError(f"which store? name it: --store rooms.db, --store postgresql://..., or set {STORE}")
    scheme, separator, _ = place.partition("://")
    if separator and scheme not in SCHEMES:
        raise UsageError(
            f"--store {scheme}://... names no store; it takes a SQLite file (rooms.db, sqlite:///rooms.db) "
            "or postgresql://user@host/database"
        )
    return open_store(place if separator else f"sqlite:///{place}")


def new_file(place: str | None) -> Path | None:
    """The SQLite file which opening this store would make, None where it makes none."""
    path = getattr(store_at(place), "path", None)
    return None if path is None or Path(path).exists() else Path(path)


def unmake(path: Path) -> None:
    """Takes away what was made for nothing."""
    for end in ("", "-wal", "-shm", ".lock"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    shutil.rmtree(path.with_name(f"{path.name}.blobs"), ignore_errors=True)


async def room_named(engine: Engine, tenant: str, name: str) -> str:
    """The id of the room with this id, else of the only one with this external id. Raises `StateError`."""
    if await engine.table.look(tenant, name) is not None:
        return name
    found = await engine.store.records(RecordQuery("room", tenant, terms=(f"external:{name}",), limit=2))
    if len(found) == 1:
        return found[0].key
    if found:
        raise StateError(f'several rooms have the external id "{name}"; give the id of one, see `roomkit rooms`')
    raise StateError(
        f'there is no room "{name}" of tenant "{tenant}" in this store; see `roomkit rooms`, or give another --tenant'
    )


@asynccontextmanager
async def reading(place: str | None) -> AsyncGenerator[Engine]:
    """Its rooms to be read, also while a server has them open."""
    store: Any = store_at(place)
    engine = Engine(store.reading() if hasattr(store, "reading") else store, None, KitOptions(watch_loop=False))
    async with _quiet(engine):
        yield engine


@asynccontextmanager
async def writing(place: str | None) -> AsyncGenerator[Engine]:
    """Its rooms to be changed, without resuming what is unfinished there: nothing is sent, asked or timed."""
    async with _quiet(Engine(store_at(place), None, KitOptions(watch_loop=False))) as engine:
        yield engine


@asynccontextmanager
async def _quiet(engine: Engine) -> AsyncGenerator[Engine]:
    try:
        engine.info = await engine.store.open()
    except StoreUnavailable as error:
        # What a server says of itself: a command tries once.
        why = str(error).removesuffix("; it is tried again")
        fix = "" if why == str(error) else "; check that the database runs, and the address in --store"
        raise StoreUnavailable(f"{why}{fix}") from error
    path = getattr(engine.store, "path", None)
    files = import_module("roomkit.providers.files.blobs").FileBlobStore(f"{path}.blobs") if path else None
    if files is not None:
        engine.blobs = lambda: files
    engine.opened = True
    engine.draining = True
    try:
        yield engine
    finally:
        await engine.aclose()
        if files is not None:
            await files.aclose()
