"""The reading side: its own connection and thread, so that no read waits for a disk that syncs."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from roomkit.errors import StoreUnavailable
from roomkit.models.event import RoomEvent
from roomkit.ports.store import EventQuery, Record, RecordQuery
from roomkit.providers.sqlite.writer import ROOM_SHIFT, terms_of

Query = EventQuery | RecordQuery

_ROOM = 1 << ROOM_SHIFT
_HEADS = """(SELECT 'head' AS kind, tenant, room_id AS key, room_id, NULL AS due, '' AS terms,
    json_object('next_index', next_index, 'last_activity', last_activity) AS value FROM heads)"""
_DEDUPE = """(SELECT 'dedupe' AS kind, tenant, key, room_id, expires AS due, '' AS terms,
    json_object('room_id', room_id, 'event_id', event_id, 'index', idx) AS value FROM dedupe)"""
_BUILT_IN = {"head": _HEADS, "dedupe": _DEDUPE}
_ORDERS = {
    "key": "r.tenant, r.key",
    "due": "r.due IS NULL, r.due, r.tenant, r.key",
    "activity": "h.last_activity DESC, h.room_id",
}


def read(connection: sqlite3.Connection, queries: list[Query]) -> list[list[Any] | Exception]:
    """Answers each query, from what is committed."""
    return [_answer(connection, query) for query in queries]


def _answer(connection: sqlite3.Connection, query: Query) -> list[Any] | Exception:
    try:
        return _events(connection, query) if isinstance(query, EventQuery) else _records(connection, query)
    except sqlite3.Error as error:
        return StoreUnavailable(f"the rooms cannot be read ({error}); check the disk and the file")
    except (ValueError, OverflowError) as error:  # What cannot be asked in SQL, or a row that is not what it was.
        return error


def _events(connection: sqlite3.Connection, query: EventQuery) -> list[RoomEvent]:
    load = RoomEvent.model_validate_json
    if query.ids:
        rows = connection.execute(
            "SELECT id, body FROM events WHERE tenant = ? AND id IN (SELECT value FROM json_each(?))",
            (query.tenant, json.dumps(query.ids)),
        )
        found = {key: load(body) for key, body in rows}
        return [found[key] for key in dict.fromkeys(query.ids) if key in found]
    start, stop = (min(max(end, 0), _ROOM) for end in (query.start, _ROOM if query.stop is None else query.stop))
    values: list[Any] = [query.tenant, query.room_id, start, stop]
    thread = ""
    if query.parent is not None:
        thread = "AND e.parent = ?"
        values.append(query.parent)
    rows = connection.execute(
        f"""SELECT e.body FROM heads h CROSS JOIN events e WHERE h.tenant = ? AND h.room_id = ?
            AND e.pos >= (h.rid << {ROOM_SHIFT}) + ? AND e.pos < (h.rid << {ROOM_SHIFT}) + ? {thread}
            ORDER BY e.pos {"DESC" if query.newest_first else ""} LIMIT ?""",  # noqa: S608 - no value is spliced in
        (*values, max(query.limit, 0)),
    )
    return [load(body) for (body,) in rows]


def _records(connection: sqlite3.Connection, query: RecordQuery) -> list[Record]:
    sql, values = _select(query)
    return [
        Record(kind, tenant, key, json.loads(value), room_id, due, terms_of(terms))
        for kind, tenant, key, room_id, due, terms, value in connection.execute(sql, values)
    ]


def _select(query: RecordQuery) -> tuple[str, list[Any]]:
    """The query as SQL. Every filter has an index that serves it; which one, SQLite chooses."""
    source = f"{_BUILT_IN.get(query.kind, 'records')} r"
    where: list[str] = ["r.kind = ?"]
    values: list[Any] = [query.kind]

    def narrow(condition: str, *parameters: object) -> None:
        where.append(condition)
        values.extend(parameters)

    if query.order == "activity":
        source = "heads h CROSS JOIN records r ON r.tenant = h.tenant AND r.key = h.room_id"
        narrow("h.tenant = ?", query.tenant)
    elif query.terms and query.tenant is not None:
        source = f"terms t CROSS JOIN {source} ON r.kind = t.kind AND r.tenant = t.tenant AND r.key = t.key"
        narrow("t.kind = ? AND t.tenant = ? AND t.term = ?", query.kind, query.tenant, query.terms[0])
    if query.tenant is not None:
        narrow("r.tenant = ?", query.tenant)
    if query.key is not None:
        narrow("r.key = ?", query.key)
    if query.room_id is not None:
        narrow("r.room_id = ?", query.room_id)
    if query.prefix:
        narrow("r.key >= ?", query.prefix)
        if (end := _after_prefix(query.prefix)) is not None:
            narrow("r.key < ?", end)
    if query.after is not None:
        narrow("r.key > ?", query.after)
    if query.due_before is not None:
        narrow("r.due IS NOT NULL AND r.due <= ?", query.due_before)
    for term in query.terms:
        narrow(
            "EXISTS (SELECT 1 FROM terms x"
            " WHERE x.kind = r.kind AND x.tenant = r.tenant AND x.term = ? AND x.key = r.key)",
            term,
        )
    order = "r.due, r.tenant, r.key" if query.order == "due" and query.due_before is not None else _ORDERS[query.order]
    sql = f"""SELECT r.kind, r.tenant, r.key, r.room_id, r.due, r.terms, r.value
        FROM {source} WHERE {" AND ".join(where)} ORDER BY {order} LIMIT ? OFFSET ?"""  # noqa: S608 - fixed parts only
    return sql, [*values, max(query.limit, 0), max(query.offset, 0)]


def _after_prefix(prefix: str) -> str | None:
    """The first text, in order of code points, that is after everything with this prefix; None if there is none."""
    while prefix:
        point = ord(prefix[-1]) + 1
        if 0xD800 <= point <= 0xDFFF:  # These cannot be stored.
            point = 0xE000
        if point <= 0x10FFFF:
            return prefix[:-1] + chr(point)
        prefix = prefix[:-1]
    return None
