"""SQLiteStore: the durable log of one process, safe against power loss."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from roomkit.errors import ConfigError, StoreError, StoreUnavailable
from roomkit.models.event import RoomEvent
from roomkit.ports.store import (
    Batch,
    Duplicate,
    EventQuery,
    Record,
    RecordQuery,
    Store,
    StoreHealth,
    StoreInfo,
    check_query,
)
from roomkit.providers.sqlite.combiner import Combiner
from roomkit.providers.sqlite.lock import FileLock
from roomkit.providers.sqlite.reader import Query, read
from roomkit.providers.sqlite.schema import SCHEMA_VERSION, migrate, next_epoch
from roomkit.providers.sqlite.writer import Encoded, Writer, encode
from roomkit.runtime import Scope

_SCHEME = "sqlite:///"


@dataclass(frozen=True, slots=True)
class SQLiteOptions:
    """`synchronous` "full" (default) survives power loss, "normal" only the death of the process. `group` is the most
    batches in one transaction. `probe_s` is how often, in seconds, a failed disk is tried again. `connect` makes the
    connections: tests put one in that fails."""

    synchronous: Literal["full", "normal"] = "full"
    group: int = 256
    probe_s: float = 1.0
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect


class SQLiteStore:
    """A durable `Store` in one file, written by one process. `path` is a file name or `sqlite:///file` (relative) or
    `sqlite:////dir/file` (absolute)."""

    def __init__(self, path: str | os.PathLike[str], options: SQLiteOptions | None = None) -> None:
        """Raises `ConfigError` for what is no file. Nothing is opened yet."""
        self.path = _file(os.fspath(path))
        self._options = options or SQLiteOptions()
        self._open: _Open | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> StoreInfo:
        """Locks, migrates and opens; again it tells the same. Raises `StoreLocked`, or `StoreError` for a file of a
        newer roomkit or of another program, each in one line that says what to do."""
        async with self._opening:
            if self._open is None:
                opened = _Open(self.path, self._options)
                try:
                    await opened.start()
                except BaseException:
                    await opened.aclose()
                    raise
                self._open = opened
            return self._open.info

    async def commit(self, batch: Batch) -> Duplicate | None:
        """Returns when the batch is on the disk. A cancelled caller's batch is still applied, whole."""
        return await self._opened().commit(encode(batch))

    async def events(self, query: EventQuery) -> list[RoomEvent]:
        return await self._select(query)

    async def records(self, query: RecordQuery) -> list[Record]:
        check_query(query)
        return await self._select(query)

    def health(self) -> StoreHealth:
        return self._open.health() if self._open is not None else StoreHealth(False, "the store is not open")

    async def aclose(self) -> None:
        """Waits for what is being written, closes the file and frees the lock. May be called again."""
        async with self._opening:
            if self._open is not None:
                opened, self._open = self._open, None
                await opened.aclose()

    async def scrub(self) -> None:
        """Leaves no copy on the disk of what was erased: empties the log of changes into the file, which keeps nothing
        of what was deleted in it."""
        opened = self._opened()
        await opened.commits.thread.submit(opened.scrub)

    def reading(self) -> Store:
        """The same file, only to be read: a store of its own, which may be open beside this one or a server."""
        from roomkit.providers.sqlite.reading import SQLiteReading

        return SQLiteReading(self.path)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r})"

    async def _select(self, query: Query) -> list[Any]:
        try:
            return await self._opened().reads.call(query)
        except UnicodeEncodeError:  # nothing is kept under a name that is no valid text
            return []

    def _opened(self) -> _Open:
        if self._open is None:
            raise StoreUnavailable(f'"{self.path}" is not open; start the kit (async with kit) or await store.open()')
        return self._open


class _Open:
    """The store between `open` and `aclose`: lock, two connections, two threads."""

    info: StoreInfo

    def __init__(self, path: Path, options: SQLiteOptions) -> None:
        self._path = path
        self._options = options
        self._lock: FileLock | None = None
        self._writer: Writer | None = None
        self._connections: list[sqlite3.Connection] = []
        self._scope = Scope("sqlite-store")
        self.commits: Combiner[Encoded, Any] = Combiner("roomkit-sqlite-writer", self._write, largest=options.group)
        self.reads: Combiner[Query, list[Any]] = Combiner("roomkit-sqlite-reader", self._read)

    async def start(self) -> None:
        await self.commits.thread.submit(self._start)

    async def commit(self, item: Encoded) -> Duplicate | None:
        try:
            return await self.commits.call(item)
        except StoreUnavailable:
            if not self._scope.closed and not len(self._scope):
                self._scope.spawn(self._probe(), name="probe")
            raise

    def scrub(self) -> None:
        """On the writer's thread."""
        assert self._writer is not None
        self._writer.forget_changes()

    def health(self) -> StoreHealth:
        if self._writer is None:
            return StoreHealth(False, "the store is closed")
        reason = self._writer.failing
        return StoreHealth(not reason, reason, pending=len(self.commits), counters=dict(self._writer.counters))

    async def aclose(self) -> None:
        await self._scope.aclose()
        await self.reads.aclose()
        await self.commits.aclose(self._close)

    async def _probe(self) -> None:
        """Writes a little until that works again, so that a node taken out for its disk comes back by itself."""
        while not self.health().writable:
            await asyncio.sleep(self._options.probe_s)
            try:
                await self.commits.call(Encoded(Batch("", self.info.epoch), probe=True))
            except StoreError:
                pass  # `health` tells.

    def _start(self) -> None:
        """On the writer's thread, as is all that follows."""
        if not self._path.parent.is_dir():
            raise ConfigError(f'the folder "{self._path.parent}" does not exist; create it for the rooms to live in')
        self._lock = FileLock(self._path.with_name(f"{self._path.name}.lock"), str(self._path))
        try:
            _create(self._path)
            writing = self._connect()
            migrate(writing, str(self._path))
            incarnation, epoch = next_epoch(writing)
            self._writer = Writer(writing)
            self._connect()
        except sqlite3.Error as error:
            raise StoreError(
                f'"{self._path}" cannot be opened as a store ({error}); choose or restore a file'
            ) from error
        self.info = StoreInfo(incarnation, epoch, durable=True, schema_version=SCHEMA_VERSION)

    def _connect(self) -> sqlite3.Connection:
        connection = self._options.connect(str(self._path), isolation_level=None, check_same_thread=False)
        self._connections.append(connection)
        for pragma in (
            "busy_timeout = 5000",
            "journal_mode = WAL",
            f"synchronous = {self._options.synchronous}",
            "fullfsync = ON",
            "checkpoint_fullfsync = ON",
            "secure_delete = ON",
            "cache_size = -16000",
            "wal_autocheckpoint = 8000",  # 32 MB: hot pages are copied into the file once, not every few groups
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _write(self, items: list[Encoded]) -> list[Any]:
        assert self._writer is not None
        return self._writer.write(items)

    def _read(self, queries: list[Query]) -> list[list[Any] | Exception]:
        return read(self._connections[-1], queries)

    def _close(self) -> None:
        """The reader first: the last one to leave empties the log of changes into the file."""
        for connection in reversed(self._connections):
            connection.close()
        if self._lock is not None:
            self._lock.release()


def _file(path: str) -> Path:
    if path.startswith(_SCHEME):
        path = path[len(_SCHEME) :]
    elif "://" in path or path.startswith("sqlite:"):
        raise ConfigError(f'"{path}" is no SQLite URL; write sqlite:///rooms.db or sqlite:////var/lib/rooms.db')
    if not path or path == ":memory:":
        raise ConfigError("the SQLite store keeps its rooms in a file; for rooms in memory write RoomKit()")
    return Path(path).expanduser().absolute()


def _create(path: Path) -> None:
    """A new file belongs to its owner alone, and its name is as durable as what will be in it."""
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
