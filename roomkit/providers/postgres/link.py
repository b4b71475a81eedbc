"""The way to the server: where it is, one connection that is made again when it broke, and what its errors mean."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from roomkit.errors import ConfigError, StoreUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    ValueError,
    OverflowError,
)
"""What a call to the server may raise; `TimeoutError` is an `OSError`."""
AT_FAULT = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    OverflowError,
)
PASSING = (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError)


class Connection(Protocol):
    """What is used of asyncpg's connection, with types (it comes without)."""

    async def execute(self, query: str, *args: Any) -> str: ...
    async def fetch(self, query: str, *args: Any) -> list[Any]: ...
    async def fetchrow(self, query: str, *args: Any) -> Any: ...
    async def fetchval(self, query: str, *args: Any) -> Any: ...
    def transaction(self) -> AbstractAsyncContextManager[Any]: ...
    async def add_listener(self, channel: str, callback: Callable[..., object]) -> None: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...
    async def close(self, *, timeout: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """`ownership` "store": one process owns all rooms, and another one is refused; "rooms": each room has a lease of
    its own, taken through `PostgresStore.ownership`. `lease_s`: seconds after which a silent node has lost its leases.
    `address`: where others reach this node. `group`: the most batches in one transaction; `writers` and `readers`:
    connections. `timeout_s`: the longest wait for one answer of the server. `retry_s`: the pause between attempts to
    reach it. `schema`: the PostgreSQL schema of the tables; `?schema=` in the URL wins."""

    ownership: Literal["store", "rooms"] = "store"
    lease_s: float = 2.0
    address: str = ""
    group: int = 256
    writers: int = 2
    readers: int = 4
    timeout_s: float = 30.0
    retry_s: float = 0.5
    schema: str = "roomkit"


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A database and a schema in it. `shown` has no password."""

    dsn: str
    schema: str
    shown: str

    def __repr__(self) -> str:
        return f"Target({self.shown!r})"


def target(url: str, schema: str) -> Target:
    """Raises `ConfigError` for what is no PostgreSQL URL."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise ConfigError("that is no PostgreSQL URL; write postgresql://user@host/database")
    if parts.fragment or "@" in parts.path or ("@" in parts.query and "@" not in parts.netloc):
        raise ConfigError(
            "the PostgreSQL URL is cut at a character of its password; write / ? # @ in it as %2F %3F %23 %40"
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = query.pop("schema", schema)
    if not schema or len(schema.encode()) > 63 or "\0" in schema:
        raise ConfigError("the schema's name has 1 to 63 bytes; write postgresql://user@host/database?schema=roomkit")
    shown = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
    return Target(urlunsplit(parts._replace(query=urlencode(query))), schema, shown)


class Link:
    """One connection, made when it is first needed and again after it broke. For one task at a time."""

    def __init__(self, where: Target, options: PostgresOptions, name: str) -> None:
        """`name` is what the server's list of sessions shows, at most 63 bytes."""
        self.where = where
        self.name = name
        self._options = options
        self._connection: Connection | None = None

    @property
    def whole(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def get(self) -> Connection:
        """Raises one of `FAILURES` where the server cannot be reached."""
        if self._connection is None or self._connection.is_closed():
            self.drop()
            self._connection = await self._connect()
        return self._connection

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Does work that may be done twice: once more when the connection turns out to be broken."""
        fresh = not self.whole
        connection = await self.get()
        try:
            return await work(connection)
        except FAILURES as error:
            self.drop_if_broken(error)
            if fresh or self.whole or isinstance(error, TimeoutError):
                raise
        return await work(await self.get())

    def drop(self) -> None:
        """Without a word to the server: what was under way there ends by itself."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def drop_if_broken(self, error: BaseException) -> None:
        """After an error that leaves unknown what the connection is at."""
        if not isinstance(error, asyncpg.PostgresError | ValueError | OverflowError) or not self.whole:
            self.drop()

    async def aclose(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                await connection.close(timeout=2)
            except FAILURES:
                connection.terminate()

    async def _connect(self) -> Connection:
        connect = cast("Callable[..., Awaitable[Connection]]", vars(asyncpg)["connect"])
        connection = await connect(
            self.where.dsn,
            timeout=min(self._options.timeout_s, 10.0),
            command_timeout=self._options.timeout_s,
            server_settings={
                "application_name": self.name,
                "search_path": quoted(self.where.schema),
                "jit": "off",
                "timezone": "UTC",
            },
        )
        # An acknowledged batch is on the disk, whatever the database's default is.
        try:
            await connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
        except BaseException:
            connection.terminate()
            raise
        return connection


def quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def unavailable(error: BaseException, where: Target) -> StoreUnavailable:
    return StoreUnavailable(
        f"the rooms in {where.shown} cannot be reached or written ({told(error)}); it is tried again"
    )


def told(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
