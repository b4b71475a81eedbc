"""The writing side: a group of batches is one transaction, which knows afterwards whether it took place."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from roomkit.errors import Fenced, RoomKitError, StoreUnavailable, UsageError
from roomkit.ports.store import Duplicate
from roomkit.providers.postgres.link import AT_FAULT, FAILURES, PASSING, Connection, Link, told, unavailable
from roomkit.providers.postgres.plan import Column, Head, Item, Outcome, Plan, join, turned, wanted
from roomkit.runtime import crashpoint

log = logging.getLogger(__name__)
_ATTEMPTS = 5

# The lease rows stay locked until the commit: a takeover waits for it, and after a takeover none are found.
READ = """
WITH fence AS MATERIALIZED (
    SELECT l.tenant, l.room_id, l.epoch FROM leases l
    JOIN {0:text text} AS a (tenant, room_id) ON l.tenant = a.tenant AND l.room_id = a.room_id
    WHERE l.node = $7 ORDER BY l.tenant, l.room_id FOR SHARE OF l)
SELECT 0, tenant, room_id, epoch, NULL, NULL FROM fence
UNION ALL SELECT 1, h.tenant, h.room_id, h.next_index, NULL, NULL FROM heads h
    JOIN {2:text text} AS a (tenant, room_id) ON h.tenant = a.tenant AND h.room_id = a.room_id
UNION ALL SELECT 2, d.tenant, d.key, d.idx, d.room_id, d.event_id FROM dedupe d
    JOIN {4:text text} AS a (tenant, key) ON d.tenant = a.tenant AND d.key = a.key
"""
WRITE = """
WITH e AS (INSERT INTO events (tenant, room_id, idx, id, parent, body)
        SELECT * FROM {0:text text bigint text text text}),
    n AS (INSERT INTO heads (tenant, room_id, next_index, last_activity)
        SELECT * FROM {6:text text bigint float8}),
    h AS (UPDATE heads h SET next_index = a.next_index, last_activity = coalesce(a.activity, h.last_activity)
        FROM {10:text text bigint bigint float8} AS a (tenant, room_id, start, next_index, activity)
        WHERE h.tenant = a.tenant AND h.room_id = a.room_id AND h.next_index = a.start RETURNING 1),
    d AS (INSERT INTO dedupe (tenant, key, room_id, event_id, idx, expires)
        SELECT * FROM {15:text text text text bigint float8}),
    x AS (DELETE FROM records r USING {21:text text text} AS a (kind, tenant, key)
        WHERE r.kind = a.kind AND r.tenant = a.tenant AND r.key = a.key),
    p AS (INSERT INTO records (kind, tenant, key, room_id, due, terms, value)
        SELECT * FROM {24:text text text text float8 text text}
        ON CONFLICT (kind, tenant, key) DO UPDATE SET
        room_id = excluded.room_id, due = excluded.due, terms = excluded.terms, value = excluded.value),
    w AS (INSERT INTO writers (id, last_group) VALUES ($32, $33)
        ON CONFLICT (id) DO UPDATE SET last_group = excluded.last_group)
SELECT count(*) FROM h
"""
ERASE = """
UPDATE events e SET parent = a.parent, body = a.body
FROM {0:text text bigint text text text} AS a (tenant, room_id, idx, id, parent, body)
WHERE e.tenant = a.tenant AND e.room_id = a.room_id AND e.idx = a.idx AND e.id = a.id RETURNING 1
"""
_END_OLD_SESSION = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()
"""
_ROWS = re.compile(r"\{(\d+):([a-z0-9 ]+)\}")


def statement(text: str, *, joined: bool) -> str:
    """Puts rows in for {first:types}: columns from parameter first + 1 on, as arrays or as texts of `plan.join`."""

    def rows(match: re.Match[str]) -> str:
        columns: list[str] = []
        for number, kind in enumerate(match[2].split(), int(match[1]) + 1):
            split = f"(string_to_array(${number}, E'\\x1e', E'\\x1d'))[2:]" if joined else f"${number}"
            columns.append(f"{split}::{kind}[]")
        return f"unnest({', '.join(columns)})"

    return _ROWS.sub(rows, text)


JOINED = tuple(statement(text, joined=True) for text in (READ, WRITE, ERASE))
ARRAYS = tuple(statement(text, joined=False) for text in (READ, WRITE, ERASE))
"""The same for groups with a separator in a key: asyncpg takes several times as long over arrays as over texts."""


class Moved(Exception):
    """A head is not where it was a moment ago."""


class Lost(Exception):
    """The connection broke at the commit, and the server says that it did not take place."""


@dataclass(slots=True)
class Health:
    """What all writers of a store have to tell."""

    failing: str = ""
    closing: bool = False
    counters: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("commits", "transactions", "duplicates", "failures", "fenced", "resolved"), 0
        )
    )


class Writer:
    """One writing connection. `node` must hold the leases of what is written."""

    def __init__(self, link: Link, node: str, health: Health, retry_s: float) -> None:
        self._link = link
        self._node = node
        self._health = health
        self._retry_s = retry_s
        self._number = 0

    async def write(self, items: list[Item]) -> list[Outcome]:
        """One transaction for all; a batch at fault is found by halving, so that it fails alone. Raises nothing but
        cancellation."""
        for attempt in range(_ATTEMPTS):
            fresh = not self._link.whole
            try:
                outcomes = await self._transaction(items)
            except (Moved, *FAILURES) as error:
                await self._roll_back(error)
                if isinstance(error, (Moved, *AT_FAULT, *PASSING)) and self._link.whole:
                    if len(items) > 1:
                        middle = len(items) // 2
                        return [*await self.write(items[:middle]), *await self.write(items[middle:])]
                    if (refusal := _at_fault(error, items[0], last=attempt == _ATTEMPTS - 1)) is not None:
                        return [refusal]
                elif self._link.whole or fresh or isinstance(error, TimeoutError):
                    return self._failed(error, len(items))
                # Otherwise the connection was an old one: the server may have been restarted since.
            except Lost:
                continue
            except StoreUnavailable as error:
                return [error] * len(items)
            else:
                self._health.failing = ""
                self._count(outcomes)
                return outcomes
        return self._failed(OSError("the connection breaks again and again"), len(items))

    async def aclose(self) -> None:
        if self._link.whole:
            try:
                await (await self._link.get()).execute("DELETE FROM writers WHERE id = $1", self._link.name)
            except FAILURES:
                pass  # It is forgotten with its node, later.
        await self._link.aclose()

    async def _transaction(self, items: list[Item]) -> list[Outcome]:
        connection = await self._link.get()
        await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        plain = not any(item.separators for item in items)
        read, write, erase = JOINED if plain else ARRAYS
        pack: Callable[[Column], Any] = join if plain else list
        plan = Plan()
        for what, tenant, key, number, room_id, event_id in await connection.fetch(
            read, *map(pack, wanted(items)), self._node
        ):
            if what == 0:
                plan.fences[tenant, key] = number
            elif what == 1:
                plan.heads[tenant, key] = Head(number, number)
            else:
                plan.known[tenant, key] = (room_id, event_id, number)
        outcomes = [plan.take(item) for item in items]
        if not plan.taken:
            await connection.execute("ROLLBACK")
            return outcomes
        alone = items[0] if items[0].alone else None
        if alone is not None and (refusal := await self._erase(connection, alone, erase, pack)) is not None:
            await connection.execute("ROLLBACK")
            return [refusal]
        self._number += 1
        moved = plan.moved
        if await connection.fetchval(write, *map(pack, plan.columns()), self._link.name, self._number) != moved:
            raise Moved
        if alone is not None and alone.batch.prune_dedupe_before is not None:
            await connection.execute("DELETE FROM dedupe WHERE expires < $1", alone.batch.prune_dedupe_before)
        crashpoint("store.before_commit")
        await self._commit(connection)
        crashpoint("store.after_commit")
        return outcomes

    async def _erase(
        self, connection: Connection, item: Item, sql: str, pack: Callable[[Column], Any]
    ) -> UsageError | None:
        graves = {event.id: (event, body) for event, body in zip(item.batch.erase, item.tombstones, strict=True)}
        if not graves:
            return None
        rows = [
            (item.batch.tenant, event.room_id, event.index, event.id, event.parent_event_id, body)
            for event, body in graves.values()
        ]
        if len(await connection.fetch(sql, *map(pack, turned(rows, 6)))) == len(rows):
            return None
        return UsageError("an event to erase is not stored at its place; a tombstone keeps id, room and index")

    async def _commit(self, connection: Connection) -> None:
        """Returns when the transaction is durable. Raises when it certainly did not take place."""
        try:
            tag = await connection.execute("COMMIT")
        except FAILURES as error:
            log.warning("a commit got no answer (%s); asking the server what became of it", told(error))
            self._health.failing = told(error)
            self._link.drop()
            if not await self._took_place(self._number):
                raise Lost from error
        else:
            if tag != "COMMIT":
                raise asyncpg.InternalClientError(f"the server answered COMMIT with {tag}")

    async def _took_place(self, number: int) -> bool:
        """Waits until the server tells. Nobody may be told anything before; the session that was cut off is ended
        first and waited for, so that it cannot commit later."""
        while True:
            try:
                connection = await self._link.get()
                while await connection.fetchval(_END_OLD_SESSION, self._link.name):  # noqa: ASYNC110 - only asking tells
                    await asyncio.sleep(0.01)
                last = await connection.fetchval("SELECT last_group FROM writers WHERE id = $1", self._link.name)
            except FAILURES as error:
                self._health.failing = told(error)
                self._link.drop()
                if self._health.closing:
                    raise StoreUnavailable(
                        "the store closes while it is unknown whether the last commit took place; "
                        "send the message again after the restart, its id tells"
                    ) from error
                await asyncio.sleep(self._retry_s)
            else:
                self._health.counters["resolved"] += 1
                return last == number

    async def _roll_back(self, error: BaseException) -> None:
        self._link.drop_if_broken(error)
        if self._link.whole:
            try:
                await (await self._link.get()).execute("ROLLBACK")
            except FAILURES:
                self._link.drop()

    def _failed(self, error: Exception, count: int) -> list[Outcome]:
        self._health.failing = told(error)
        self._health.counters["failures"] += 1
        return [unavailable(error, self._link.where) for _ in range(count)]

    def _count(self, outcomes: list[Outcome]) -> None:
        counters = self._health.counters
        refused = sum(outcome is not None for outcome in outcomes)
        counters["commits"] += len(outcomes) - refused
        counters["transactions"] += 1
        if refused:
            counters["duplicates"] += sum(isinstance(outcome, Duplicate) for outcome in outcomes)
            counters["fenced"] += sum(isinstance(outcome, Fenced) for outcome in outcomes)


def _at_fault(error: Exception, item: Item, *, last: bool) -> RoomKitError | None:
    """What the one batch that failed is told; None when it may be tried again: somebody else was first."""
    if isinstance(error, asyncpg.UniqueViolationError):
        constraint = str(getattr(error, "constraint_name", ""))
        if constraint == "events_by_id" or last:
            return UsageError(
                f"the batch repeats what must be unique ({told(error)}); give every event an id of its own"
            )
        return None
    if isinstance(error, Moved):
        return (
            Fenced(f'room "{item.batch.room_id}" is written by another process; this writer must stop')
            if last
            else None
        )
    if isinstance(error, PASSING):
        return (
            StoreUnavailable(f"the server gave up a transaction ({told(error)}); it is tried again") if last else None
        )
    return UsageError(f"the batch holds what PostgreSQL cannot keep: {told(error)}")
