"""PostgresBus: signs of life between processes that share one database, by NOTIFY, many in one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from roomkit.models.stream import Ephemeral
from roomkit.providers.fanout import Fanout
from roomkit.providers.postgres.link import FAILURES, Connection, Link, PostgresOptions, target
from roomkit.runtime import Scope, Wakeup

_NOTIFY = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"
_LARGEST = 7_900
"""Bytes in one notification; the server takes less than 8,000."""
_AT_ONCE = 64
EVERY_S = 0.005
"""The pause between two notifications; what is said meanwhile goes into the next one."""
PROBE_S = 5.0


class PostgresBus:
    """An `EphemeralBus` on one connection to the database that the rooms are in. It connects when it is first used,
    inside a running loop, and again after it broke; what was said meanwhile is lost (at most once, R12)."""

    def __init__(self, url: str, options: PostgresOptions | None = None) -> None:
        """`url` as for `PostgresStore`: processes with the same database and schema hear each other. Raises
        `ConfigError` for what is no such URL."""
        self._options = options or PostgresOptions()
        where = target(url, self._options.schema)
        self._fanout = Fanout(_LARGEST, self._ready)
        self._link = Link(where, self._options, f"roomkit-{self._fanout.origin}/bus")
        self._channel = f"roomkit-bus-{hashlib.sha256(where.schema.encode()).hexdigest()[:32]}"
        self._scope = Scope("postgres-bus")
        self._wakeup = Wakeup()
        self._running = False

    @property
    def counters(self) -> dict[str, float]:
        """Signs sent, heard, dropped (too many), oversize and unreadable."""
        return dict(self._fanout.counters)

    def publish(self, tenant: str, message: Ephemeral) -> None:
        self._fanout.publish(tenant, message)

    def subscribe(self, tenant: str, room_id: str, deliver: Callable[[Ephemeral], None]) -> Callable[[], None]:
        self._start()
        return self._fanout.subscribe(tenant, room_id, deliver)

    def changed(self, tenant: str, room_id: str) -> None:
        self._fanout.changed(tenant, room_id)

    def watch(self, look: Callable[[str, str], None]) -> Callable[[], None]:
        self._start()
        return self._fanout.watch(look)

    async def aclose(self) -> None:
        """Forgets all listeners and disconnects. May be called again."""
        self._fanout.close()
        await self._scope.aclose()
        await self._link.aclose()

    def __repr__(self) -> str:
        return f"PostgresBus({self._link.where.shown!r}, schema={self._link.where.schema!r})"

    def _ready(self) -> None:
        self._start()
        self._wakeup.set()

    def _start(self) -> None:
        if not self._running and not self._scope.closed:
            self._running = True
            self._scope.spawn(self._serve(), name="bus")

    async def _serve(self) -> None:
        """Sends what waits, listens, and finds out in idle times whether the connection still stands."""
        listening: Connection | None = None
        while True:
            try:
                connection = await self._link.get()
                if connection is not listening:
                    listening = await self._listen(connection)
                elif not self._fanout.waiting:
                    await connection.execute("SELECT 1")
                payloads = self._fanout.payloads()
                for first in range(0, len(payloads), _AT_ONCE):
                    await connection.execute(_NOTIFY, self._channel, payloads[first : first + _AT_ONCE])
            except FAILURES:
                self._link.drop()
                await asyncio.sleep(self._options.retry_s)
                continue
            await asyncio.sleep(EVERY_S)
            try:
                async with asyncio.timeout(PROBE_S):
                    await self._wakeup.wait()
            except TimeoutError:
                continue

    async def _listen(self, connection: Connection) -> Connection:
        await connection.execute("SET synchronous_commit = off")  # Nothing that is said here need be on a disk.
        await connection.add_listener(self._channel, self._heard)
        self._fanout.missed()
        return connection

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        self._fanout.hear(payload)
