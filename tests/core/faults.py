"""A store with a temper: it refuses, delays or fences what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from roomkit.core.memory import MemoryStore
from roomkit.errors import StoreUnavailable
from roomkit.models.event import EventType
from roomkit.models.stream import StreamEnd, StreamError, StreamStart
from roomkit.ports.store import Batch, Duplicate, RecordQuery, StoreInfo

Judge = Callable[[Batch], Any]
"""None lets a batch pass; an exception is raised; True refuses with `StoreUnavailable`."""


class FaultyStore(MemoryStore):
    """Keeps everything in memory and, unless `durable=False`, claims to be durable, so that checkpoints are made."""

    def __init__(self, *, durable: bool = True, delay: float = 0.0) -> None:
        super().__init__()
        self.durable = durable
        self.delay = delay
        self.judge: Judge | None = None
        self.refused = 0

    async def open(self) -> StoreInfo:
        return replace(await super().open(), durable=self.durable)

    async def commit(self, batch: Batch) -> Duplicate | None:
        verdict = self.judge(batch) if self.judge is not None else None
        if self.delay:
            await asyncio.sleep(self.delay)
        if verdict:
            self.refused += 1
            raise verdict if isinstance(verdict, BaseException) else StoreUnavailable("disk full")
        return await super().commit(batch)

    def down(self, when: Callable[[Batch], bool] = lambda batch: True) -> None:
        self.judge = when

    def up(self) -> None:
        self.judge = None

    async def rows(self) -> dict[str, int]:
        """How much unfinished work there is."""
        kinds = ("outbox", "turn", "stream")
        return {k: n for k in kinds if (n := len(await self.records(RecordQuery(k, None, limit=1000))))}


def has(*types: EventType) -> Callable[[Batch], bool]:
    return lambda batch: any(event.type in types for event in batch.events)


def drops(kind: str) -> Callable[[Batch], bool]:
    return lambda batch: any(key.kind == kind for key in batch.delete)


def puts(kind: str) -> Callable[[Batch], bool]:
    return lambda batch: any(record.kind == kind for record in batch.put)


def ends(items: list[Any]) -> list[str]:
    """What a viewer was told of replies: their start and end, in order."""
    return [type(i).__name__ for i in items if isinstance(i, (StreamStart, StreamEnd, StreamError))]
