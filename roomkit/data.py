"""RoomData: one tenant's rooms as data: forked, taken along, erased, followed. What does it is imported on use."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from roomkit.core.actor import RoomActor
from roomkit.core.engine import Engine
from roomkit.errors import UsageError
from roomkit.models.content import Content, TextContent, valid
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import Room

if TYPE_CHECKING:
    from roomkit.core.audit import Audit
    from roomkit.core.consent import ConsentLedger
    from roomkit.core.consumers import Consumer
    from roomkit.core.erasure import Erasure
    from roomkit.core.merging import Merge


class RoomData:
    """The part of `Rooms` that is about the log itself."""

    def __init__(self, engine: Engine, tenant: str = "default") -> None:
        self._engine = engine
        self.tenant_id = tenant

    async def _actor(self, room_id: str) -> RoomActor:
        await self._ready()
        return await self._engine.table.require(self.tenant_id, room_id)

    async def _ready(self) -> None:
        """Whoever asks for anything finds written down what has become of deliveries."""
        await self._started()
        self._engine.lanes.outcomes.hurry()

    async def _started(self) -> None:
        """An in-memory kit starts by itself; a durable one must have been started (D38)."""
        if not self._engine.opened:
            from roomkit.core.memory import MemoryStore

            if isinstance(self._engine.store, MemoryStore):
                await self._engine.start()
            self._engine.require_started()

    @property
    def consent(self) -> ConsentLedger:
        """Who has stopped or allowed what. Needs `KitOptions(consent=ConsentPolicy())`."""
        from roomkit.core.consent import ConsentLedger

        return ConsentLedger(self._engine, self.tenant_id)

    async def fork(
        self,
        room_id: str,
        at: int | None = None,
        *,
        new_id: str | None = None,
        channels: Sequence[str] | None = None,
        ask: str | None = None,
    ) -> Room:
        """A copy of the room up to and with event `at` (default: the last), to try another prompt or model. The
        intelligence channel `ask` then answers that event. Nothing leaves a fork: no delivery, no timer; tools are
        answered from what they said in the original, which stays as it is."""
        from roomkit.core.fork import fork_room

        return await fork_room(self._engine, await self._actor(room_id), at, new_id, channels, ask)

    async def shown(self, room_id: str, event_id: str) -> list[dict[str, Any]]:
        """What each channel was sent of an event: `channel_id`, the `parts` as they left, and whether they are the
        `same` as what was written. Raises `UsageError` for an event that is not of this room."""
        from roomkit.core.shown import shown

        return await (await self._actor(room_id)).call(shown, event_id)

    async def export_room(
        self, room_id: str, *, media: Literal["inline", "none"] = "inline", max_blob_bytes: int = 25_000_000
    ) -> AsyncIterator[str]:
        """The whole room as lines of JSON, files up to `max_blob_bytes` each included; sealed by its last line."""
        from roomkit.core.transfer import export_room

        await self._ready()
        async for line in export_room(self._engine, self.tenant_id, room_id, media, max_blob_bytes):
            yield line

    async def import_room(self, lines: Iterable[str] | AsyncIterable[str], *, room_id: str | None = None) -> Room:
        """Makes a room of an export, under its own or another id; sends nothing. Raises `UsageError` for a file that
        was altered, is not whole or comes from a newer roomkit, and `StateError` for a room that exists."""
        from roomkit.core.transfer import import_room, whole

        await self._ready()
        if self._engine.nodes is None:
            return await import_room(self._engine, self.tenant_id, lines, room_id)
        return await self.import_lines(await whole(lines), room_id)

    async def import_lines(self, lines: list[str], room_id: str | None = None) -> Room:
        """`import_room` of all lines at once, in whichever process an earlier attempt at it has begun."""
        from roomkit.core.transfer import import_room

        await self._ready()
        return await import_room(self._engine, self.tenant_id, lines, room_id)

    async def erase_person(self, who: str) -> Erasure:
        """Erases whoever has this participant id, identity id or address from every room of the tenant (D21): what
        they wrote becomes tombstones, their files, seats, drafts and address book entry go; ids and indexes stay, and
        so does what others said. Calling it again finishes what a crash has cut. Returns the receipt."""
        from roomkit.core.erasure import erase_person

        await self._ready()
        return await erase_person(self._engine, self.tenant_id, who, self.erase_in_room)

    async def erase_in_room(self, room_id: str, ids: list[str], addresses: list[str]) -> dict[str, int]:
        """`erase_person` in one room, for somebody known by exactly these; returns how much was erased."""
        from roomkit.core.erasure import erase_in_room

        return await (await self._actor(room_id)).call(erase_in_room, ids, addresses)

    async def merge_identities(self, keep: str, gone: str, *, by: str | None = None) -> Merge:
        """Two identities that are one person: what `gone` had (addresses, seats, history, a stop) is `keep`'s from now
        on. It cannot be undone. Calling it again finishes what a crash has cut."""
        from roomkit.core.merging import merge

        await self._ready()
        return await merge(self._engine, self.tenant_id, keep, gone, by, self.merge_in_room)

    async def merge_in_room(self, room_id: str, keep: str, gone: str) -> bool:
        """`merge_identities` in one room; whether there was anything of `gone` in it."""
        from roomkit.core.merging import merge_in_room

        return await (await self._actor(room_id)).call(merge_in_room, keep, gone)

    async def unmerge_identity(self, gone: str) -> None:
        """Raises `StateError` with the reason why a merge cannot be undone, and what to do instead."""
        from roomkit.core.merging import unmerge

        await self._ready()
        await unmerge(self._engine, self.tenant_id, gone)

    async def audit_room(self, room_id: str, *, anchor: str | None = None) -> Audit:
        """Checks the log against its chain (`KitOptions(audit=True)` makes it): the report names the first event that
        was altered or deleted. `anchor` is a `head` that you wrote down elsewhere; the log must still contain it."""
        from roomkit.core.audit import audit_room

        await self._ready()
        return await audit_room(self._engine, self.tenant_id, room_id, anchor)

    def consume(
        self,
        name: str,
        handler: Callable[[RoomEvent], object] | None = None,
        *,
        kinds: Iterable[EventType | str] | None = None,
        start: Literal["first", "now"] = "first",
        concurrency: int = 8,
        retries: int = 5,
        look_every_s: float = 5.0,
    ) -> Consumer:
        """Follows all rooms of the tenant, durably under `name` (D41): `handler` gets every event (of these `kinds`) at
        least once, in the order of its room. One that raises gets the event again, `retries` times, then it becomes a
        dead letter. Without a handler, iterate: `async for item in consumer: ...; await item.ack()`."""
        from roomkit.core.consumers import Consumer, options_of

        given = {"start": start, "concurrency": concurrency, "retries": retries, "look_every_s": look_every_s}
        consumer = Consumer(self._engine, self.tenant_id, name, handler, options_of(kinds, **given))
        if self._engine.started:
            consumer.start()
        return consumer

    async def enqueue(
        self,
        connection: Any,
        room_id: str,
        content: Content | str,
        *,
        by: str = "host",
        channel_id: str | None = None,
        visibility: str = "all",
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Writes a message for a room in your own PostgreSQL transaction: `connection` is asyncpg's or psycopg's, to
        the database of this kit's store. Committed it becomes an event, exactly once; rolled back it never was. Returns
        the id of the row."""
        from roomkit.core.inbox import row_key

        await self._ready()
        if self._engine.inbox is None:
            raise UsageError("kit.enqueue() needs the PostgreSQL store; with another one use kit.send()")
        body = content if not isinstance(content, str) else TextContent(text=content)
        given = {"by": by, "channel_id": channel_id, "visibility": visibility, "metadata": metadata}
        value = {name: one for name, one in given.items() if one is not None}
        value |= {"content": valid(body).model_dump(mode="json")}
        if self._engine.redactions is not None:
            value = self._engine.redactions.enqueued(self.tenant_id, value)
        if idempotency_key is not None:
            value["idempotency_key"] = idempotency_key
        key = row_key(self._engine)
        await self._engine.inbox.insert(connection, self.tenant_id, key, room_id, value)
        return key
