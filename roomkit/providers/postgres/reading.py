"""PostgresReading: the same rooms, only to be read: without a lease, beside the processes that write them."""

from __future__ import annotations

from roomkit.errors import StateError, StoreError
from roomkit.models.event import RoomEvent
from roomkit.ports.store import (
    Batch,
    Duplicate,
    EventQuery,
    Record,
    RecordQuery,
    StoreHealth,
    StoreInfo,
    check_query,
)
from roomkit.providers.postgres.link import FAILURES, Link, PostgresOptions, Target, unavailable
from roomkit.providers.postgres.reader import Readers
from roomkit.providers.postgres.schema import SCHEMA_VERSION


class PostgresReading:
    """A `Store` that takes no lease, migrates nothing and refuses every commit."""

    def __init__(self, where: Target, options: PostgresOptions) -> None:
        self._where = where
        self._link = Link(where, options, "roomkit reading")
        self._readers = Readers([self._link])

    async def open(self) -> StoreInfo:
        """Raises `StoreError` where there are no rooms, or they are not of this version."""
        try:
            connection = await self._link.get()
            if not await connection.fetchval("SELECT to_regclass('migrations') IS NOT NULL"):
                raise StoreError(f'{self._where.shown} has no rooms in schema "{self._where.schema}"; check the URL')
            version = await connection.fetchval("SELECT coalesce(max(version), 0) FROM migrations")
            incarnation = await connection.fetchval("SELECT value FROM meta WHERE name = 'incarnation'")
        except FAILURES as error:
            raise unavailable(error, self._where) from error
        if version != SCHEMA_VERSION:
            what = "use a newer roomkit" if version > SCHEMA_VERSION else "migrate it: roomkit migrate URL"
            raise StoreError(f"{self._where.shown} has schema {version}, this roomkit reads {SCHEMA_VERSION}; {what}")
        return StoreInfo(incarnation or "", 0, durable=True, schema_version=SCHEMA_VERSION)

    async def commit(self, batch: Batch) -> Duplicate | None:
        raise StateError(f"{self._where.shown} is open for reading only; open the store itself to write")

    async def events(self, query: EventQuery) -> list[RoomEvent]:
        return await self._readers.events(query)

    async def records(self, query: RecordQuery) -> list[Record]:
        check_query(query)
        return await self._readers.records(query)

    def health(self) -> StoreHealth:
        return StoreHealth(False, "the store is open for reading only")

    async def aclose(self) -> None:
        await self._readers.aclose()
