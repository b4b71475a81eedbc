"""The tables, and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3
import uuid

from roomkit.errors import StoreError

INDEXED = "kind NOT IN ('delivery', 'outbox', 'turn')"
"""The kinds that `records_by_room` knows; SQLite uses it only for queries that say so in the same words."""
MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "the first tables",
        (
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
            # A room's number `rid` makes the log one B-tree, ordered by room and index: pos = rid * 2^32 + index.
            """CREATE TABLE heads (
                rid INTEGER PRIMARY KEY, tenant TEXT NOT NULL, room_id TEXT NOT NULL,
                next_index INTEGER NOT NULL, last_activity REAL, UNIQUE (tenant, room_id))""",
            "CREATE INDEX heads_by_activity ON heads (tenant, last_activity DESC, room_id)",
            """CREATE TABLE events (
                pos INTEGER PRIMARY KEY, tenant TEXT NOT NULL, id TEXT NOT NULL, parent TEXT, body TEXT NOT NULL)""",
            "CREATE UNIQUE INDEX events_by_id ON events (tenant, id)",
            "CREATE INDEX events_by_parent ON events (parent, pos) WHERE parent IS NOT NULL",
            """CREATE TABLE dedupe (
                tenant TEXT NOT NULL, key TEXT NOT NULL, room_id TEXT NOT NULL, event_id TEXT NOT NULL,
                idx INTEGER NOT NULL, expires REAL NOT NULL, PRIMARY KEY (tenant, key)) WITHOUT ROWID""",
            "CREATE INDEX dedupe_by_expiry ON dedupe (expires)",
            """CREATE TABLE records (
                kind TEXT NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, room_id TEXT, due REAL,
                terms TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, tenant, key)) WITHOUT ROWID""",
            "CREATE INDEX records_by_room ON records (kind, tenant, room_id) WHERE room_id IS NOT NULL",
            "CREATE INDEX records_by_due ON records (kind, due) WHERE due IS NOT NULL",
            """CREATE TABLE terms (
                kind TEXT NOT NULL, tenant TEXT NOT NULL, term TEXT NOT NULL, key TEXT NOT NULL,
                PRIMARY KEY (kind, tenant, term, key)) WITHOUT ROWID""",
        ),
    ),
    (
        "no index of rooms for what is found by its key",
        (
            "DROP INDEX records_by_room",
            f"CREATE INDEX records_by_room ON records (kind, tenant, room_id) WHERE room_id IS NOT NULL AND {INDEXED}",
        ),
    ),
)
"""What each version adds, in order; the first is version 1. Released entries never change: add a new one."""

SCHEMA_VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Brings the file to the newest version, each step in a transaction of its own. Raises `StoreError` for a file that
    is newer than this code, or another program's."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "migrations" not in tables:
        raise StoreError(f'"{path}" is the database of another program; choose another file for the rooms')
    version = 0
    if tables:
        ((version,),) = connection.execute("SELECT coalesce(max(version), 0) FROM migrations")
    if version > len(MIGRATIONS):
        raise StoreError(f'"{path}" has schema {version}, this roomkit knows {len(MIGRATIONS)}; use a newer roomkit')
    for number, (name, statements) in enumerate(MIGRATIONS[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        if number == 1:
            connection.execute("CREATE TABLE migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        for statement in statements:
            connection.execute(statement)
        connection.execute("INSERT INTO migrations VALUES (?, ?)", (number, name))
        connection.execute("COMMIT")


def next_epoch(connection: sqlite3.Connection) -> tuple[str, int]:
    """Counts this opening. Returns the incarnation, made once with the file, and the new epoch."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('incarnation', ?)", (uuid.uuid4().hex,))
    connection.execute(
        "INSERT INTO meta VALUES ('epoch', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1",
    )
    meta: dict[str, object] = dict(connection.execute("SELECT name, value FROM meta"))
    connection.execute("COMMIT")
    return str(meta["incarnation"]), int(str(meta["epoch"]))
