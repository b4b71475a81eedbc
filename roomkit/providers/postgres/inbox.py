"""The inbox: messages that the host writes in a transaction of its own, beside its own rows."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from typing import Any

from roomkit.errors import UsageError
from roomkit.providers.postgres.link import FAILURES, Connection, Link, PostgresOptions, Target, quoted
from roomkit.runtime import Wakeup

_INSERT = """INSERT INTO {schema}.records (kind, tenant, key, room_id, due, terms, value)
VALUES ('inbox', {0}, {1}, {2}, NULL, '', {3})"""
_NOTIFY = "SELECT pg_notify({0}, '')"


class PostgresInbox:
    """Where `kit.enqueue` writes, and how the kit hears of it."""

    def __init__(self, where: Target, options: PostgresOptions, node: str) -> None:
        self._schema = quoted(where.schema)
        self._channel = f"roomkit-inbox-{hashlib.sha256(where.schema.encode()).hexdigest()[:32]}"
        self._link = Link(where, options, f"{node}/inbox")
        self._retry_s = options.retry_s
        self._wakeup = Wakeup()
        self._listening: Connection | None = None

    async def insert(self, connection: Any, tenant: str, key: str, room_id: str, value: dict[str, Any]) -> None:
        """Writes one row on a connection of asyncpg or psycopg, in whatever transaction that is."""
        library = type(connection).__module__.partition(".")[0]
        if library not in ("asyncpg", "psycopg"):
            raise UsageError(
                f"kit.enqueue() takes a connection of asyncpg or psycopg, not {type(connection).__name__}; with an ORM "
                "pass the driver's own connection"
            )
        marks = ("$1", "$2", "$3", "$4") if library == "asyncpg" else ("%s",) * 4
        row = (tenant, key, room_id, json.dumps(value, ensure_ascii=False))
        for sql, values in ((_INSERT, row), (_NOTIFY, (self._channel,))):
            text = sql.format(*marks, schema=self._schema if library == "asyncpg" else self._schema.replace("%", "%%"))
            done = connection.execute(text, *values) if library == "asyncpg" else connection.execute(text, values)
            if inspect.isawaitable(done):
                await done

    async def wait(self, seconds: float) -> None:
        """Returns when something was written, or after that time."""
        try:
            connection = await self._link.get()
            if connection is not self._listening:
                await connection.add_listener(self._channel, lambda *_: self._wakeup.set())
                self._listening = connection
                return  # Whatever was written meanwhile was not heard.
            async with asyncio.timeout(seconds):
                await self._wakeup.wait()
        except TimeoutError:
            return
        except FAILURES:
            self._link.drop()
            await asyncio.sleep(self._retry_s)

    async def aclose(self) -> None:
        await self._link.aclose()
