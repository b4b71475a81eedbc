"""Voicing: what the model says on its way to the caller's ear, and how much of it has been heard.

A model speaks faster than sound. What it has said waits here, so that nothing holds up what it tells next; a cut takes
effect within a frame, and whatever still comes of a reply that was cut is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from roomkit.dsp.framing import Reblock
from roomkit.dsp.resample import Resampler
from roomkit.models.audio import FRAME_MS, AudioFrame, AudioSignal
from roomkit.runtime import BlockingBuffer, BufferClosed
from roomkit.voice.ledger import HeardLedger
from roomkit.voice.pipeline import Pipeline
from roomkit.voice.playout import Playout

MOST_PIECES = 20_000
"""Pieces of sound that may wait: hours at the sizes that vendors send. A reply that is longer is cut off."""
MOST_CUT = 64


@dataclass(eq=False, slots=True)
class Item:
    """One thing that the model says. `received_ms` is how much sound of it has come."""

    reply_id: str
    item_id: str
    generation: int
    ledger: HeardLedger
    frames: Reblock
    text: str | None = None
    received_ms: float = 0.0
    put: int = 0
    ended: bool = False
    cut: bool = False
    resampler: Resampler | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What was heard of an item: its words, the share of them (0 to 1), and the milliseconds of its sound."""

    item: Item
    text: str
    share: float
    played_ms: int

    @property
    def whole(self) -> bool:
        return self.share >= 1.0


class Voicing:
    """`said` hears of each item once: when its last sample has sounded. `noticed` hears what the way out notices."""

    def __init__(
        self,
        playout: Playout,
        pipeline: Pipeline,
        *,
        said: Callable[[Said], None],
        noticed: Callable[[AudioSignal], None],
    ) -> None:
        self.open = True
        self._playout = playout
        self._pipeline = pipeline
        self._said = said
        self._noticed = noticed
        self._queue: BlockingBuffer[tuple[Item, AudioFrame | None]] = BlockingBuffer(MOST_PIECES)
        self._items: dict[str, Item] = {}
        self._cut: deque[str] = deque(maxlen=MOST_CUT)
        self._generation = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def busy(self) -> bool:
        """Something is being said, or waits to be."""
        return bool(self._items)

    def dropped(self, reply_id: str) -> bool:
        """Whether this reply was cut: nothing of it counts any more."""
        return reply_id in self._cut

    def audio(self, reply_id: str, item_id: str, frame: AudioFrame) -> bool:
        """More sound of an item. False when there is too much of it."""
        item = self._item(reply_id, item_id)
        if item is None:
            return True
        item.received_ms += frame.duration_ms
        item.ledger.audio(round(frame.samples * self._pipeline.rate / frame.rate))
        return self._enqueue(item, frame)

    def words(self, reply_id: str, item_id: str, delta: str) -> int | None:
        """More of its words; where they begin in the item's text, None when it is cut."""
        item = self._item(reply_id, item_id)
        if item is None:
            return None
        offset = len(item.ledger.text)
        item.ledger.say(delta)
        return offset

    def finish(self, reply_id: str, item_id: str, text: str | None) -> None:
        """Nothing more comes of an item. `text` are its words where they differ from what was told."""
        item = self._items.get(item_id)
        if item is not None and item.reply_id == reply_id and not item.ended:
            item.text = text
            item.ended = True
            if text and not item.ledger.text:
                item.ledger.say(text)
            item.ledger.settle()
            self._enqueue(item, None)

    def reply_over(self, reply_id: str) -> None:
        for item in [one for one in self._items.values() if one.reply_id == reply_id]:
            self.finish(reply_id, item.item_id, item.text)

    def cut(self, *, reply_id: str = "") -> list[Said]:
        """Silence, at once; what was heard of everything that was being said. `reply_id` is a reply under way that may
        have said nothing yet."""
        if reply_id and reply_id not in self._cut:
            self._cut.append(reply_id)
        found: list[Said] = []
        items = tuple(self._items.values())
        self._items.clear()  # first: stopping it, the playout may find that one has just been heard to its end
        for item in items:
            item.cut = True
            if item.reply_id not in self._cut:
                self._cut.append(item.reply_id)
            samples = self._playout.stop(item.generation)
            heard = item.ledger.heard(samples)
            if item.text is not None and heard.whole:
                found.append(Said(item, item.text, 1.0, self._ms(item, samples)))
            else:
                found.append(Said(item, heard.text, heard.share, self._ms(item, samples)))
        self._queue.clear()
        self._idle.set()
        return found

    async def handed(self) -> None:
        """Waits until everything that has come is with the playout."""
        await self._idle.wait()

    def _enqueue(self, item: Item, frame: AudioFrame | None) -> bool:
        self._idle.clear()
        return self._queue.try_put((item, frame))

    def _ms(self, item: Item, samples: int) -> int:
        """Never more than has come of it: vendors refuse to cut off what is not there."""
        return int(min(samples * 1000 / self._pipeline.rate, item.received_ms))

    def played_out(self, generation: int) -> None:
        """The playout's word that the last sample of an item has sounded."""
        item = next((one for one in self._items.values() if one.generation == generation), None)
        if item is not None:
            self._whole(item)

    def _whole(self, item: Item) -> None:
        del self._items[item.item_id]
        text = item.ledger.text if item.text is None else item.text
        self._said(Said(item, text, 1.0, int(item.received_ms)))

    def _item(self, reply_id: str, item_id: str) -> Item | None:
        if reply_id in self._cut:
            return None
        item = self._items.get(item_id)
        if item is None:
            self._generation += 1
            rate = self._pipeline.rate
            blocks = Reblock(rate * FRAME_MS // 1000 * 2)
            item = self._items[item_id] = Item(reply_id, item_id, self._generation, HeardLedger(rate), blocks)
        return None if item.ended else item

    async def run(self) -> None:
        """Hands what was said to the playout, at its pace."""
        while True:
            try:
                item, frame = await self._queue.get()
            except BufferClosed:
                return
            if item.cut:
                continue
            if frame is not None:
                for block in item.frames.push(self._at_working_rate(item, frame)):
                    await self._put(item, block)
            else:
                await self._finished(item)
            if not len(self._queue):
                self._idle.set()
            await asyncio.sleep(0)  # a model that is far ahead does not keep its own first word from being heard

    async def _finished(self, item: Item) -> None:
        rest = item.frames.flush()
        if rest:
            await self._put(item, rest)
        if item.cut:
            return
        if item.put:
            self._playout.finish(item.generation)
        elif self.open:
            self._whole(item)
        else:  # nobody was to hear it
            self._items.pop(item.item_id, None)

    def _at_working_rate(self, item: Item, frame: AudioFrame) -> bytes:
        if frame.rate == self._pipeline.rate:
            return frame.pcm
        if item.resampler is None or item.resampler.rate_in != frame.rate:
            item.resampler = Resampler(frame.rate, self._pipeline.rate)
        return item.resampler.process(frame.pcm)

    async def _put(self, item: Item, block: bytes) -> None:
        frame = AudioFrame(block, self._pipeline.rate, item.position)
        item.position += frame.samples
        ready, signals = self._pipeline.outbound(frame)
        for signal in signals:
            self._noticed(signal)
        if ready is not None and not item.cut and self.open:
            item.put += ready.samples
            await self._playout.put(item.generation, ready)
