"""The tables, and how an older database becomes a newer one."""

from __future__ import annotations

import uuid

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from roomkit.errors import StoreError
from roomkit.providers.postgres.link import Connection, quoted

MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "the first tables",
        (
            "CREATE TABLE meta (name text PRIMARY KEY, value text NOT NULL)",
            # Texts are compared by code point, whatever the database's language is.
            """CREATE TABLE heads (
                tenant text COLLATE "C" NOT NULL, room_id text COLLATE "C" NOT NULL, next_index bigint NOT NULL,
                last_activity float8, PRIMARY KEY (tenant, room_id)) WITH (fillfactor = 80)""",
            "CREATE INDEX heads_by_activity ON heads (tenant, last_activity DESC NULLS LAST, room_id)",
            """CREATE TABLE events (
                tenant text COLLATE "C" NOT NULL, room_id text COLLATE "C" NOT NULL, idx bigint NOT NULL,
                id text COLLATE "C" NOT NULL, parent text COLLATE "C", body text NOT NULL,
                PRIMARY KEY (tenant, room_id, idx))""",
            "CREATE UNIQUE INDEX events_by_id ON events (tenant, id)",
            "CREATE INDEX events_by_parent ON events (tenant, room_id, parent, idx) WHERE parent IS NOT NULL",
            """CREATE TABLE dedupe (
                tenant text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, room_id text NOT NULL,
                event_id text NOT NULL, idx bigint NOT NULL, expires float8 NOT NULL, PRIMARY KEY (tenant, key))""",
            "CREATE INDEX dedupe_by_expiry ON dedupe (expires)",
            """CREATE TABLE records (
                kind text COLLATE "C" NOT NULL, tenant text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL,
                room_id text COLLATE "C", due float8, terms text NOT NULL, value text NOT NULL,
                PRIMARY KEY (kind, tenant, key)) WITH (fillfactor = 80)""",
            "CREATE INDEX records_by_room ON records (kind, tenant, room_id, key) WHERE room_id IS NOT NULL",
            "CREATE INDEX records_by_due ON records (kind, due, tenant, key) WHERE due IS NOT NULL",
            """CREATE TABLE terms (
                kind text COLLATE "C" NOT NULL, tenant text COLLATE "C" NOT NULL, term text COLLATE "C" NOT NULL,
                key text COLLATE "C" NOT NULL, PRIMARY KEY (kind, tenant, term, key))""",
            # The terms follow their records, whichever process or hand writes those.
            """CREATE FUNCTION keep_terms() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    IF TG_OP <> 'INSERT' AND OLD.terms <> '' THEN
                        DELETE FROM terms t WHERE t.kind = OLD.kind AND t.tenant = OLD.tenant AND t.key = OLD.key
                            AND t.term IN (SELECT json_array_elements_text(OLD.terms::json));
                    END IF;
                    IF TG_OP <> 'DELETE' AND NEW.terms <> '' THEN
                        INSERT INTO terms SELECT DISTINCT NEW.kind, NEW.tenant, term, NEW.key
                            FROM json_array_elements_text(NEW.terms::json) AS term ON CONFLICT DO NOTHING;
                    END IF;
                    RETURN NULL;
                END $$""",
            """CREATE TRIGGER terms_of_new AFTER INSERT ON records
                FOR EACH ROW WHEN (NEW.terms <> '') EXECUTE FUNCTION keep_terms()""",
            """CREATE TRIGGER terms_of_changed AFTER UPDATE ON records
                FOR EACH ROW WHEN (OLD.terms <> NEW.terms) EXECUTE FUNCTION keep_terms()""",
            """CREATE TRIGGER terms_of_gone AFTER DELETE ON records
                FOR EACH ROW WHEN (OLD.terms <> '') EXECUTE FUNCTION keep_terms()""",
            # Who writes: a node lives while it renews; a lease of tenant '' is the whole store's or a node's own.
            "CREATE TABLE nodes (id text PRIMARY KEY, address text NOT NULL, expires timestamptz NOT NULL)",
            """CREATE TABLE leases (
                tenant text COLLATE "C" NOT NULL, room_id text COLLATE "C" NOT NULL, node text, epoch bigint NOT NULL,
                PRIMARY KEY (tenant, room_id)) WITH (fillfactor = 80)""",
            "CREATE INDEX leases_by_node ON leases (node) WHERE node IS NOT NULL",
            # The last group of each writing connection: whether a commit without an answer took place.
            """CREATE TABLE writers (
                id text PRIMARY KEY, last_group bigint NOT NULL, since timestamptz NOT NULL DEFAULT now())
                WITH (fillfactor = 50)""",
        ),
    ),
)
"""What each version adds, in order; the first is version 1. Released entries never change: add a new one."""

SCHEMA_VERSION = len(MIGRATIONS)


async def migrate(connection: Connection, schema: str, where: str) -> tuple[int, int]:
    """Brings the tables to the newest version in one transaction, one process at a time. Returns the versions before
    and after. Raises `StoreError` for tables that are newer than this code, or another program's."""
    for attempt in range(5):
        try:
            return await _migrate(connection, schema, where)
        except (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError, asyncpg.DuplicateSchemaError):
            # Another process makes the first ones in this moment. Those of the migrations themselves are ours.
            if attempt == 4:
                raise
    raise AssertionError("unreachable")


async def _migrate(connection: Connection, schema: str, where: str) -> tuple[int, int]:
    async with connection.transaction():
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", quoted(schema)):
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1)", quoted(schema)
        )
        names = {name for (name,) in tables}
        if names and "migrations" not in names:
            raise StoreError(f'schema "{schema}" of {where} holds the tables of another program; choose another schema')
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (version int PRIMARY KEY, name text NOT NULL, "
            "at timestamptz NOT NULL DEFAULT now())"
        )
        await connection.execute("LOCK TABLE migrations IN SHARE ROW EXCLUSIVE MODE")
        before: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM migrations")
        if before > len(MIGRATIONS):
            raise StoreError(f"{where} has schema {before}, this roomkit knows {len(MIGRATIONS)}; use a newer roomkit")
        for number, (name, statements) in enumerate(MIGRATIONS[before:], before + 1):
            for statement in statements:
                await connection.execute(statement)
            await connection.execute("INSERT INTO migrations (version, name) VALUES ($1, $2)", number, name)
        await connection.execute("INSERT INTO meta VALUES ('incarnation', $1) ON CONFLICT DO NOTHING", uuid.uuid4().hex)
    return before, len(MIGRATIONS)
