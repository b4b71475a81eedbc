"""Checkpoint: keeps the text of a growing reply durable, every 250 ms or 1,024 characters (D18, R7).

The reply's row holds the end of its text. What is longer than a segment goes into a row of its own, once, so that the
cost of a reply grows with its length and not with the square of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from roomkit.core.state import key
from roomkit.ports.store import Batch, Record
from roomkit.runtime.crashpoint import crashpoint

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor

EVERY_S = 0.25
EVERY_CHARS = 1024
SEGMENT = 8192
"""From so many characters on the end of the text becomes a row of its own."""
WORDS = "words"


class Checkpoint:
    """One at a time, never after the reply's own end. Idle in a store that keeps nothing."""

    def __init__(self, actor: RoomActor, record: Callable[[int], Record]) -> None:
        """`record` makes the reply's row as it stands now, with the text from this character on."""
        self._actor = actor
        self._engine = actor.engine
        self._record = record
        self._sealed = 0
        self.segments: list[int] = []
        """Where the rows begin that this reply has, beside its own."""
        self.unsaved = 0
        """Characters that the store does not have yet."""
        self._held = False
        self._saving: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.begun = False

    async def begin(self) -> None:
        """Notes durably that the reply has begun."""
        if self._engine.info.durable:
            self.begun = True
            await self._engine.insist(self._start, f"the start of a reply in {self._actor.room_id}")

    async def _start(self) -> None:
        """The end may have come while the store refused the beginning: what it took away does not come back."""
        if self._held:
            self.unsaved += 1  # Should the reply go on after all, the row is due.
        else:
            await self._save()

    def grew(self, characters: int) -> None:
        if self.begun:
            self.unsaved += characters
            if self._timer is None and not self._held:
                self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._ring)

    def take(self) -> Record | None:
        """The row, for somebody else's commit that is about to be made, when there is anything new in it."""
        if not self.begun or not self.unsaved:
            return None
        self.unsaved = 0
        return self._record(self._sealed)

    async def save(self) -> None:
        while self._saving is not None:
            await asyncio.shield(self._saving)
        if self.begun and self.unsaved and not self._held:
            await self._save()

    async def hold(self) -> None:
        """Writes nothing more, because the reply's end is being committed; comes after a write under way."""
        self._held = True
        await self.settle()

    def go_on(self) -> None:
        """The end could not be committed: the reply goes on."""
        self._held = False
        self.grew(0)

    def stop(self) -> None:
        """Nothing is written from here on; the reply's end is somebody's commit."""
        self._held = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def settle(self) -> None:
        """Waits for a write under way, so that the reply's end comes after it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._saving is not None:
            await asyncio.shield(self._saving)

    def _ring(self) -> None:
        self._timer = None
        if not self._held and self._saving is None:
            self._engine.eager.start(self.save_quietly())

    async def save_quietly(self) -> None:
        try:
            await self.save()
        except Exception as error:  # noqa: BLE001 - the reply goes on; its final commit will tell whether the store works
            self._engine.trouble(self._actor, "checkpoint", error)

    def _rows(self) -> tuple[tuple[Record, ...], int]:
        """What is to be written, and up to where the text then stands in rows of its own."""
        start, row = self._sealed, self._record(self._sealed)
        tail: str = row.value["text"]
        if len(tail) < SEGMENT:
            return (row,), start
        if start not in self.segments:
            self.segments.append(start)
        end = start + len(tail)
        value = {"cause": row.value["cause"], "start": start, "text": tail}
        actor = self._actor
        segment = Record(WORDS, actor.tenant, key(row.key, start), value, actor.room_id)
        return (segment, self._record(end)), end

    async def _save(self) -> None:
        self._saving = asyncio.get_running_loop().create_future()
        saved, self.unsaved = self.unsaved, 0
        try:
            crashpoint("reply.before_checkpoint")
            actor = self._actor
            rows, sealed = self._rows()
            await self._engine.store.commit(Batch(actor.tenant, actor.epoch, actor.room_id, put=rows))
            self._sealed = sealed
            crashpoint("reply.after_checkpoint")
        except BaseException:
            self.unsaved += saved
            raise
        finally:
            saving, self._saving = self._saving, None
            saving.set_result(None)
