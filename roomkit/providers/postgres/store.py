"""PostgresStore: the durable log of one process or several, on a PostgreSQL server."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from roomkit.errors import ConfigError, Fenced, RoomKitError, StateError, StoreError, StoreUnavailable
from roomkit.models.event import RoomEvent
from roomkit.ports.bus import EphemeralBus
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
from roomkit.providers.postgres.groups import Groups
from roomkit.providers.postgres.leases import WHOLE_STORE, PostgresOwnership
from roomkit.providers.postgres.link import FAILURES, Link, PostgresOptions, Target, target, told, unavailable
from roomkit.providers.postgres.plan import RoomKey, encode
from roomkit.providers.postgres.reader import Readers
from roomkit.providers.postgres.schema import SCHEMA_VERSION, migrate
from roomkit.providers.postgres.writer import Health, Writer
from roomkit.runtime import Scope, Wakeup

if TYPE_CHECKING:
    from roomkit.providers.postgres.inbox import PostgresInbox

log = logging.getLogger(__name__)
_SETTINGS = """
SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')
"""
_PROBE = """INSERT INTO writers (id, last_group) VALUES ($1, 0)
ON CONFLICT (id) DO UPDATE SET last_group = writers.last_group + 1"""


class PostgresStore:
    """A durable `Store` in a schema of a PostgreSQL database. `url` is `postgresql://user:password@host/database`, with
    what libpq knows as parameters and `?schema=NAME` for a schema other than "roomkit"."""

    def __init__(self, url: str, options: PostgresOptions | None = None) -> None:
        """Raises `ConfigError` for what is no such URL. Nothing is opened yet."""
        self._options = options or PostgresOptions()
        self._where = target(url, self._options.schema)
        self._url = url
        self._open: _Open | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> StoreInfo:
        """Connects, migrates and takes its lease; again it tells the same. Raises `StoreLocked` when another process
        owns the rooms, `StoreUnavailable` when the server cannot be reached, `StoreError` for the tables of a newer
        roomkit or of another program."""
        async with self._opening:
            if self._open is None:
                opened = _Open(self._where, self._options)
                try:
                    await opened.start()
                except BaseException:
                    await opened.aclose()
                    raise
                self._open = opened
            return self._open.info

    async def commit(self, batch: Batch) -> Duplicate | None:
        """Returns when the batch is on the server's disk. A cancelled caller's batch is still applied, whole."""
        opened = self._opened()
        return await opened.commit(batch)

    async def events(self, query: EventQuery) -> list[RoomEvent]:
        return await self._opened().readers.events(query)

    async def records(self, query: RecordQuery) -> list[Record]:
        check_query(query)
        return await self._opened().readers.records(query)

    def health(self) -> StoreHealth:
        return self._open.health() if self._open is not None else StoreHealth(False, "the store is not open")

    async def read_rooms(self, keys: Sequence[RoomKey], kinds: Sequence[str]) -> dict[RoomKey, dict[str, list[Record]]]:
        """Of each room its own record, its head and its records of `kinds`: one question for all of them."""
        return await self._opened().readers.rooms(keys, kinds)

    def share(self, address: str) -> None:
        """Makes this process one of several, each room owned by one of them; before `open`. Raises `StateError`."""
        if self._open is not None:
            raise StateError("the store is open already; say before kit.start() that the process is one of several")
        self._options = replace(self._options, ownership="rooms", address=address)

    async def aclose(self) -> None:
        """Waits for what is being written, frees the leases and disconnects. May be called again."""
        async with self._opening:
            if self._open is not None:
                opened, self._open = self._open, None
                await opened.aclose()

    async def promises(self) -> list[tuple[bool, str]]:
        """What the server's settings make of "acknowledged means durable": each with whether it is kept."""
        link = Link(self._where, self._options, "roomkit doctor")
        try:
            connection = await link.get()
            settings = await connection.fetch(_SETTINGS)
            replicas = await connection.fetch("SELECT application_name, sync_state FROM pg_stat_replication")
        except FAILURES as error:
            raise _cannot_open(error, self._where) from error
        finally:
            await link.aclose()
        return judged(dict(settings), [(name, state) for name, state in replicas])

    async def migrate(self) -> tuple[int, int]:
        """Brings the tables to this version's schema and returns the versions before and after. Needs no lease: it may
        run before the processes are started with a new roomkit."""
        link = Link(self._where, self._options, "roomkit migrate")
        try:
            return await migrate(await link.get(), self._where.schema, self._where.shown)
        except FAILURES as error:
            raise _cannot_open(error, self._where) from error
        finally:
            await link.aclose()

    @property
    def ownership(self) -> PostgresOwnership:
        """The leases of this node. Raises `StoreUnavailable` while the store is not open."""
        return self._opened().ownership

    async def scrub(self) -> None:
        """Gives the space of what was erased back to the server, so that nothing reads it any more. Its bytes are gone
        from the files when that space is used again, or at once with VACUUM FULL."""
        link = Link(self._where, self._options, "roomkit scrub")
        try:
            connection = await link.get()
            for table in ("events", "records", "terms"):
                await connection.execute(f"VACUUM {table}")
        except FAILURES as error:
            raise unavailable(error, self._where) from error
        finally:
            await link.aclose()

    def inbox(self) -> PostgresInbox:
        """Where hosts write messages in transactions of their own."""
        from roomkit.providers.postgres.inbox import PostgresInbox

        return PostgresInbox(self._where, self._options, self._opened().ownership.node)

    def reading(self) -> Store:
        """The same rooms, only to be read: a store of its own, without a lease."""
        from roomkit.providers.postgres.reading import PostgresReading

        return PostgresReading(self._where, self._options)

    def bus(self) -> EphemeralBus | None:
        """What goes with this store as the kit's bus: signs by NOTIFY where several processes share it, else none."""
        if self._options.ownership != "rooms":
            return None
        from roomkit.providers.postgres.bus import PostgresBus

        return PostgresBus(self._url, self._options)

    def __repr__(self) -> str:
        return f"PostgresStore({self._where.shown!r}, schema={self._where.schema!r})"

    def _opened(self) -> _Open:
        if self._open is None:
            raise StoreUnavailable(
                f"{self._where.shown} is not open; start the kit (async with kit) or await store.open()"
            )
        return self._open


class _Open:
    """The store between `open` and `aclose`: its connections, its lease, and what keeps them alive."""

    info: StoreInfo

    def __init__(self, where: Target, options: PostgresOptions) -> None:
        self._where = where
        self._options = options
        self._scope = Scope("postgres-store")
        self._node = f"roomkit-{secrets.token_hex(8)}"
        self._health = Health()
        self._wrote = Wakeup()
        self._registered = False
        address = options.address
        if options.ownership == "store":
            address = address or f"process {os.getpid()} on {socket.gethostname()}"
        lease, renew, take = (self._link(role, patient=False) for role in ("lease", "renew", "take"))
        self.ownership = PostgresOwnership(lease, renew, take, options, self._node, address)
        self._writers = [
            Writer(self._link(f"w{number}"), self._node, self._health, options.retry_s)
            for number in range(max(options.writers, 1))
        ]
        self._groups = Groups(self._writers, options.group, self._scope, self._wrote.set)
        self._prober = self._link("probe")
        self.readers = Readers([self._link(f"r{number}") for number in range(max(options.readers, 1))])

    async def start(self) -> None:
        link = self._link("open")
        try:
            connection = await link.get()
            await migrate(connection, self._where.schema, self._where.shown)
            incarnation = await connection.fetchval("SELECT value FROM meta WHERE name = 'incarnation'")
            encoding = await connection.fetchval("SELECT current_setting('server_encoding')")
            if encoding != "UTF8":
                raise StoreError(f"{self._where.shown} is encoded in {encoding}; make one with: createdb -E UTF8 NAME")
            if await connection.fetchval("SELECT current_setting('fsync')") == "off":
                log.warning("%s runs with fsync off: a power cut loses what was acknowledged", self._where.shown)
        except FAILURES as error:
            raise _cannot_open(error, self._where) from error
        finally:
            await link.aclose()
        await self.ownership.register()
        self._registered = True
        own = self.ownership.own_store if self._options.ownership == "store" else self.ownership.own_rooms
        self.info = StoreInfo(incarnation, await own(), durable=True, schema_version=SCHEMA_VERSION)
        self._groups.start()
        self._scope.spawn(self._renew(), name="renew lease")
        if self._options.ownership == "rooms":
            self._scope.spawn(self._notify(), name="wake followers")

    def fence(self, batch: Batch) -> RoomKey:
        """The lease that covers a batch."""
        if self._options.ownership == "store":
            return WHOLE_STORE
        return (batch.tenant, batch.room_id) if batch.room_id is not None else ("", self._node)

    async def commit(self, batch: Batch) -> Duplicate | None:
        outcome = await self._groups.call(encode(batch, self.fence(batch)))
        assert outcome is None or isinstance(outcome, Duplicate)
        return outcome

    def health(self) -> StoreHealth:
        reason = self.ownership.fenced or self._health.failing
        return StoreHealth(not reason, reason, pending=len(self._groups), counters=dict(self._health.counters))

    async def aclose(self) -> None:
        self._health.closing = True
        await self._groups.aclose()
        await self._scope.aclose()
        await self.readers.aclose()
        for writer in self._writers:
            await writer.aclose()
        await self._prober.aclose()
        if self._registered:
            try:
                await self.ownership.leave()
            except StoreError:
                pass  # The leases end by themselves.
        await self.ownership.aclose()

    async def _renew(self) -> None:
        """One renewal for all leases, and while nothing can be written a probe that finds out when it can again."""
        while True:
            await asyncio.sleep(self._options.lease_s / 4)
            try:
                await self.ownership.renew()
                if self._options.ownership == "store" and not await self.ownership.owns_store():
                    raise self.ownership.lost()
            except Fenced as error:
                log.error("%s", error)  # noqa: TRY400 - it is told in one line
                return
            except StoreUnavailable as error:
                self._health.failing = self._health.failing or told(error)
                continue
            if self._health.failing:
                await self._probe()

    async def _probe(self) -> None:
        try:
            await self._prober.run(lambda c: c.execute(_PROBE, self._prober.name))
        except FAILURES as error:
            self._health.failing = told(error)
        else:
            self._health.failing = ""

    async def _notify(self) -> None:
        """A hint after a commit: one at a time, however many commits there were meanwhile."""
        while True:
            await self._wrote.wait()
            try:
                await self.ownership.notify()
            except StoreUnavailable:
                pass  # Followers look again by themselves when they are back.

    def _link(self, role: str, *, patient: bool = True) -> Link:
        """The lease cannot wait longer for an answer than others wait for its renewal."""
        options = self._options if patient else replace(self._options, timeout_s=max(self._options.lease_s, 2.0))
        return Link(self._where, options, f"{self._node}/{role}")


def judged(settings: Mapping[str, str], replicas: Sequence[tuple[str | None, str | None]]) -> list[tuple[bool, str]]:
    """`replicas` are names and how they are kept up: "async", "sync", "quorum", "potential", or None where this user
    may not know."""
    found: list[tuple[bool, str]] = []
    for name, risk in (("fsync", "loses what was acknowledged"), ("full_page_writes", "can damage the tables")):
        if settings.get(name) == "off":
            found.append((False, f"{name} is off: a power cut {risk}; turn it on in postgresql.conf"))
    if settings.get("synchronous_commit") == "off":
        found.append((True, "synchronous_commit is off by default; roomkit turns it on for its own connections"))
    late = [name or "unnamed" for name, state in replicas if state not in ("sync", "quorum")]
    if late and len(late) == len(replicas):
        told = f"{len(late)} replicas ({', '.join(late)}), none synchronous: one that is promoted may lack the last"
        fix = "set synchronous_standby_names where that must not be"
        found.append((False, f"{told} acknowledged messages; {fix}"))
    return found or [(True, "what is acknowledged is on the server's disk, and on its synchronous replicas")]


def _cannot_open(error: Exception, where: Target) -> RoomKitError:
    import asyncpg  # pyright: ignore[reportMissingTypeStubs]

    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return StoreError(f"{where.shown} refuses this user ({told(error)}); check the user and password in the URL")
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StoreError(f"{where.shown} does not exist ({told(error)}); create it with: createdb NAME")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StoreError(
            f"{where.shown} does not let this user make tables ({told(error)}); "
            f'run: CREATE SCHEMA "{where.schema}" AUTHORIZATION the_user'
        )
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return ConfigError(f"the PostgreSQL URL has a parameter nobody knows ({told(error)}); remove it")
    return unavailable(error, where)
