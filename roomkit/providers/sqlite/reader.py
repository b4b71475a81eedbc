"""The reading side: its own connection and thread, so that no read waits for a disk that syncs."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from pydantic_core import from_json

from roomkit.errors import StoreUnavailable
from roomkit.models.event import RoomEvent
from roomkit.ports.store import PLAIN_KINDS, EventQuery, Record, RecordQuery, end_of_prefix
from roomkit.providers.sqlite.schema import INDEXED
from roomkit.providers.sqlite.writer import ROOM_SHIFT, terms_of

Query = EventQuery | RecordQuery

_ROOM = 1 << ROOM_SHIFT
_HEADS = """(SELECT 'head' AS kind, tenant, room_id AS key, room_id, NULL AS due, '' AS terms,
    json_object('next_index', next_index, 'last_activity', last_activity) AS value FROM heads)"""
_DEDUPE = """(SELECT 'dedupe' AS kind, tenant, key, room_id, expires AS due, '' AS terms,
    json_object('room_id', room_id, 'event_id', event_id, 'index', idx) AS value FROM dedupe)"""
_BUILT_IN = {"head": _HEADS, "dedupe": _DEDUPE}
_HAS_TERM = """EXISTS (SELECT 1 FROM terms x
    WHERE x.kind = r.kind AND x.tenant = r.tenant AND x.term = ? AND x.key = r.key)"""
_BY_ROOM = " INDEXED BY records_by_room"
_FEW = 1000
"""Up to so many records are sorted; beyond, an index in the right order is walked."""


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
    sql, values = select(query, _leading_term(connection, query))
    return [
        Record(kind, tenant, key, from_json(value), room_id, due, terms_of(terms))
        for kind, tenant, key, room_id, due, terms, value in connection.execute(sql, values)
    ]


def _leading_term(connection: sqlite3.Connection, query: RecordQuery) -> str | None:
    """The term to begin with: the rarest, or none where walking the rooms by activity ends sooner."""
    if not query.terms or query.tenant is None or query.key is not None or query.room_id is not None:
        return None
    if len(query.terms) == 1 and query.order != "activity":
        return query.terms[0]
    count = "SELECT count(*) FROM (SELECT 1 FROM terms WHERE kind = ? AND tenant = ? AND term = ? LIMIT ?)"
    counts = {
        term: connection.execute(count, (query.kind, query.tenant, term, _FEW)).fetchone()[0] for term in query.terms
    }
    rarest = min(counts, key=counts.__getitem__)
    return None if query.order == "activity" and counts[rarest] == _FEW else rarest


def select(query: RecordQuery, leading: str | None) -> tuple[str, list[Any]]:
    """The query as SQL. The order of the joins and the index are ours to say: SQLite has no statistics here."""
    key = "r.key" if leading is None else "t.key"
    asked: list[tuple[str, Any]] = [("r.kind = ?", query.kind)]
    if leading is not None:
        asked += [("t.kind = ?", query.kind), ("t.tenant = ?", query.tenant), ("t.term = ?", leading)]
    elif query.order == "activity":
        asked.append(("h.tenant = ?", query.tenant))
    room, by_key = query.room_id, query.kind in PLAIN_KINDS
    asked += [
        ("r.tenant = ?", query.tenant),
        ("r.key = ?", query.key),
        ("r.room_id = ?", None if by_key else room),
        ("r.key >= ?", f"{room}\n" if room is not None and by_key else None),
        ("r.key < ?", f"{room}\v" if room is not None and by_key else None),
        (f"{key} >= ?", query.prefix or None),
        (f"{key} < ?", end_of_prefix(query.prefix or "")),
        (f"{key} > ?", query.after),
        ("r.due IS NOT NULL AND r.due <= ?", query.due_before),
        *((_HAS_TERM, term) for term in query.terms if term != leading),
    ]
    asked = [(condition, value) for condition, value in asked if value is not None]
    source = _source(query, leading)
    where = " AND ".join([condition for condition, _ in asked] + [f"r.{INDEXED}"] * source.endswith(_BY_ROOM))
    sql = f"""SELECT r.kind, r.tenant, r.key, r.room_id, r.due, r.terms, r.value FROM {source}
        WHERE {where} ORDER BY {_order(query, key)} LIMIT ? OFFSET ?"""  # noqa: S608 - no value is spliced in
    return sql, [*(value for _, value in asked), max(query.limit, 0), max(query.offset, 0)]


def _source(query: RecordQuery, leading: str | None) -> str:
    table = _BUILT_IN.get(query.kind, "records") + " r"
    if leading is not None:
        heads = "CROSS JOIN heads h ON h.tenant = r.tenant AND h.room_id = r.key" if query.order == "activity" else ""
        return f"terms t CROSS JOIN {table} ON r.kind = t.kind AND r.tenant = t.tenant AND r.key = t.key {heads}"
    if query.order == "activity":
        return f"heads h CROSS JOIN {table} ON r.tenant = h.tenant AND r.key = h.room_id"
    elsewhere = query.kind in _BUILT_IN or query.kind in PLAIN_KINDS
    if query.room_id is not None and query.tenant is not None and query.key is None and not elsewhere:
        return table + _BY_ROOM
    return table


def _order(query: RecordQuery, key: str) -> str:
    if query.order == "activity":
        return "h.last_activity DESC, h.room_id"
    if query.order == "due":
        return "r.due, r.tenant, r.key" if query.due_before is not None else "r.due IS NULL, r.due, r.tenant, r.key"
    return key if query.tenant is not None else "r.tenant, r.key"
