"""The store that a data command works on, and a machine over it that does nothing by itself."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from roomkit.core.engine import Engine, KitOptions
from roomkit.errors import UsageError
from roomkit.kit import open_store
from roomkit.ports.store import Store

STORE = "ROOMKIT_STORE"
DEMO = "roomkit-demo.db"


def store_at(place: str | None) -> Store:
    """`place` is a file of SQLite or a store's URL; without it ROOMKIT_STORE, else the demo's file, if it is here."""
    place = place or os.environ.get(STORE) or (DEMO if os.path.exists(DEMO) else None)  # noqa: PTH110 - one look
    if place is None:
        raise UsageError(f"which store? name it: --store rooms.db, --store postgresql://..., or set {STORE}")
    return open_store(place if "://" in place else f"sqlite:///{place}")


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
    engine.info = await engine.store.open()
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
