"""The reading side: a few connections, each question one statement, from what is committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
from pydantic_core import from_json

from roomkit.models.event import RoomEvent
from roomkit.ports.store import EventQuery, Record, RecordQuery, end_of_prefix
from roomkit.providers.postgres.link import FAILURES, Connection, Link, unavailable
from roomkit.runtime import BlockingBuffer

T = TypeVar("T")
_MOST = 2**62

_HEADS = """(SELECT 'head' AS kind, tenant, room_id AS key, room_id, NULL::float8 AS due, '' AS terms,
    '{"next_index":' || next_index || ',"last_activity":' || coalesce(last_activity::text, 'null') || '}' AS value
    FROM heads)"""
_DEDUPE = """(SELECT 'dedupe' AS kind, tenant, key, room_id, expires AS due, '' AS terms,
    json_build_object('room_id', room_id, 'event_id', event_id, 'index', idx)::text AS value FROM dedupe)"""
_BUILT_IN = {"head": _HEADS, "dedupe": _DEDUPE}
# OFFSET 0 makes it look at each room's own rows, however small the planner believes the table to be.
_ROOMS = f"""
WITH a AS (SELECT * FROM unnest($1::text[], $2::text[]) AS a (tenant, room_id))
SELECT h.* FROM a CROSS JOIN LATERAL (SELECT * FROM {_HEADS} h
    WHERE h.tenant = a.tenant AND h.key = a.room_id OFFSET 0) h
UNION ALL SELECT r.* FROM a CROSS JOIN LATERAL (
    SELECT kind, tenant, key, key AS room_id, due, terms, value FROM records r
    WHERE r.kind = 'room' AND r.tenant = a.tenant AND r.key = a.room_id OFFSET 0) r
UNION ALL SELECT r.* FROM a CROSS JOIN unnest($3::text[]) AS k (kind) CROSS JOIN LATERAL (
    SELECT kind, tenant, key, room_id, due, terms, value FROM records r
    WHERE r.kind = k.kind AND r.tenant = a.tenant AND r.room_id = a.room_id OFFSET 0) r
"""  # noqa: S608 - our own text


class Readers:
    """Answers questions, as many at once as there are links."""

    def __init__(self, links: list[Link]) -> None:
        self._links = links
        self._free: BlockingBuffer[Link] = BlockingBuffer(len(links))
        for link in links:
            self._free.try_put(link)

    async def events(self, query: EventQuery) -> list[RoomEvent]:
        sql, values = select_events(query)
        rows = await self._ask(lambda c: c.fetch(sql, *values))
        load = RoomEvent.model_validate_json
        if not query.ids:
            return [load(body) for _, body in rows]
        found: dict[str, str] = dict(rows)
        return [load(found[key]) for key in dict.fromkeys(query.ids) if key in found]

    async def records(self, query: RecordQuery) -> list[Record]:
        sql, values = select_records(query)
        return [_record(row) for row in await self._ask(lambda c: c.fetch(sql, *values))]

    async def rooms(
        self, keys: Sequence[tuple[str, str]], kinds: Sequence[str]
    ) -> dict[tuple[str, str], dict[str, list[Record]]]:
        """Of each room, as (tenant, room id), its own record, its head and all its records of `kinds`, in their order.
        One question, however many there are."""
        found: dict[tuple[str, str], dict[str, list[Record]]] = {key: {} for key in keys}
        columns = [tenant for tenant, _ in found], [room_id for _, room_id in found]
        for row in await self._ask(lambda c: c.fetch(_ROOMS, *columns, list(kinds))):
            record = _record(row)
            found[record.tenant, record.room_id or ""].setdefault(record.kind, []).append(record)
        for records in found.values():
            for some in records.values():
                some.sort(key=lambda record: record.key)
        return found

    async def aclose(self) -> None:
        for _ in self._links:
            await (await self._free.get()).aclose()

    async def _ask(self, question: Callable[[Connection], Awaitable[list[T]]]) -> list[T]:
        link = await self._free.get()
        try:
            return await link.run(question)
        except FAILURES as error:
            if isinstance(error, asyncpg.DataError | ValueError):  # A text that SQL cannot hold names nothing there is.
                return []
            raise unavailable(error, link.where) from error
        finally:
            self._free.try_put(link)


def _record(row: Any) -> Record:
    kind, tenant, key, room_id, due, terms, text = row
    value: dict[str, Any] = from_json(text)
    if kind == "head":  # SQL writes whole numbers without a point.
        active = value["last_activity"]
        value["last_activity"] = None if active is None else float(active)
    return Record(kind, tenant, key, value, room_id, due, tuple(from_json(terms)) if terms else ())


def select_events(query: EventQuery) -> tuple[str, list[Any]]:
    if query.ids:
        return "SELECT id, body FROM events WHERE tenant = $1 AND id = ANY($2::text[])", [query.tenant, list(query.ids)]
    start, stop = (min(max(end, 0), _MOST) for end in (query.start, _MOST if query.stop is None else query.stop))
    values: list[Any] = [query.tenant, query.room_id, start, stop, _bounded(query.limit)]
    thread = ""
    if query.parent is not None:
        thread = "AND parent = $6"
        values.append(query.parent)
    sql = f"""SELECT id, body FROM events WHERE tenant = $1 AND room_id = $2 AND idx >= $3 AND idx < $4 {thread}
        ORDER BY idx {"DESC" if query.newest_first else ""} LIMIT $5"""  # noqa: S608 - no value is spliced in
    return sql, values


def select_records(query: RecordQuery) -> tuple[str, list[Any]]:
    """The query as SQL. A term leads where there is one: it has its keys in order."""
    values: list[Any] = []

    def given(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    key = "t0.key" if query.terms else "r.key"
    source = _BUILT_IN.get(query.kind, "records") + " r"
    where = [f"r.kind = {given(query.kind)}"]
    for number, term in enumerate(dict.fromkeys(query.terms)):
        source += f" JOIN terms t{number} ON t{number}.kind = r.kind AND t{number}.tenant = r.tenant"
        source += f" AND t{number}.key = r.key AND t{number}.term = {given(term)}"
    if query.order == "activity":
        source += " JOIN heads h ON h.tenant = r.tenant AND h.room_id = r.key"
        where.append(f"h.tenant = {given(query.tenant)}")
    until = end_of_prefix(query.prefix) if query.prefix else None
    asked: tuple[tuple[str, Any], ...] = (
        ("r.tenant =", query.tenant),
        ("r.key =", query.key),
        ("r.room_id =", query.room_id),
        (f"{key} >=", query.prefix or None),
        (f"{key} <", until),
        (f"{key} >", query.after),
        ("r.due <=", query.due_before),
    )
    where += [f"{condition} {given(value)}" for condition, value in asked if value is not None]
    sql = f"""SELECT r.kind, r.tenant, r.key, r.room_id, r.due, r.terms, r.value FROM {source}
        WHERE {" AND ".join(where)} ORDER BY {_order(query, key)}
        LIMIT {given(_bounded(query.limit))} OFFSET {given(_bounded(query.offset))}"""  # noqa: S608 - no value is spliced in
    return sql, values


def _order(query: RecordQuery, key: str) -> str:
    if query.order == "activity":
        return "h.last_activity DESC NULLS LAST, h.room_id"
    if query.order == "due":
        return "r.due NULLS LAST, r.tenant, r.key"
    return key if query.tenant is not None else "r.tenant, r.key"


def _bounded(number: int) -> int:
    return min(max(number, 0), _MOST)
