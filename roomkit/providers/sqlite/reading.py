"""SQLiteReading: the same file, only to be read: also while a server of another process writes it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from roomkit.errors import StateError, StoreError
from roomkit.models.event import RoomEvent
from roomkit.ports.store import (
    Batch,
    Duplicate,
    EventQuery,
    Record,
    RecordQuery,
    StoreHealth,
    StoreInfo,
    check_query,
)
from roomkit.providers.sqlite.combiner import Combiner
from roomkit.providers.sqlite.reader import Query, read
from roomkit.providers.sqlite.schema import SCHEMA_VERSION


class SQLiteReading:
    """A `Store` that takes no lock, migrates nothing and refuses every commit. What it reads is what was committed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._reads: Combiner[Query, list[Any]] | None = None

    async def open(self) -> StoreInfo:
        """Raises `StoreError` where there is no such file, or it is not of this version."""
        self._reads = Combiner("roomkit-sqlite-reading", self._read)
        return await self._reads.thread.submit(self._open)

    async def commit(self, batch: Batch) -> Duplicate | None:
        raise StateError(f'"{self.path}" is open for reading only; open the store itself to write')

    async def events(self, query: EventQuery) -> list[RoomEvent]:
        return await self._select(query)

    async def records(self, query: RecordQuery) -> list[Record]:
        check_query(query)
        return await self._select(query)

    def health(self) -> StoreHealth:
        return StoreHealth(False, "the store is open for reading only")

    async def aclose(self) -> None:
        if self._reads is not None:
            reads, self._reads = self._reads, None
            await reads.aclose(self._close)

    async def _select(self, query: Query) -> list[Any]:
        assert self._reads is not None, "open it first"
        return await self._reads.call(query)

    def _open(self) -> StoreInfo:
        if not self.path.is_file():
            raise StoreError(f'there is no file "{self.path}"; check the name')
        try:
            place = f"file:{quote(str(self.path))}?mode=ro"
            self._connection = sqlite3.connect(place, uri=True, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA busy_timeout = 5000")
            tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
            if "migrations" not in tables:
                raise StoreError(f'"{self.path}" is the database of another program; name the file of the rooms')
            ((version,),) = self._connection.execute("SELECT coalesce(max(version), 0) FROM migrations")
            found = self._connection.execute("SELECT value FROM meta WHERE name = 'incarnation'").fetchone()
        except sqlite3.Error as error:
            raise StoreError(f'"{self.path}" cannot be read ({error}); check the file and its folder') from error
        if version != SCHEMA_VERSION:
            what = "use a newer roomkit" if version > SCHEMA_VERSION else "migrate it: roomkit migrate sqlite:///FILE"
            raise StoreError(f'"{self.path}" has schema {version}, this roomkit reads {SCHEMA_VERSION}; {what}')
        return StoreInfo(str(found[0]) if found else "", 0, durable=True, schema_version=SCHEMA_VERSION)

    def _read(self, queries: list[Query]) -> list[list[Any] | Exception]:
        assert self._connection is not None
        return read(self._connection, queries)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
