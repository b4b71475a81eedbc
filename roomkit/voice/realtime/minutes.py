"""Minutes: what happens on a speech-to-speech call on its way into the room's log, in order, one entry at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from roomkit.errors import RoomKitError
from roomkit.models.content import ToolCallContent
from roomkit.runtime import BlockingBuffer, BufferClosed, Scope, monotonic
from roomkit.voice.realtime.order import Order, Placed

log = logging.getLogger(__name__)
MOST_ENTRIES = 1_000
MOST_NAMES = 64


@dataclass(eq=False, slots=True)
class Entry:
    """One thing for the room's log. `kind`: "user", "assistant", "tool_start", "tool_end". `done` is set when it is in
    the log."""

    kind: str
    text: str = ""
    item_id: str = ""
    call: ToolCallContent | None = None
    metadata: dict[str, Any] = field(default_factory=lambda: {})
    done: asyncio.Future[None] | None = None


Write = Callable[[Placed[Entry]], Awaitable[None]]


class Minutes:
    """One call's. `write` puts one entry into the log; a refusal of the room's is logged, and the call goes on."""

    def __init__(self, name: str, write: Write, wait_s: float) -> None:
        self._name = name
        self._write = write
        self._order: Order[Entry] = Order(wait_s)
        self._entries: BlockingBuffer[Placed[Entry]] = BlockingBuffer(MOST_ENTRIES)
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._partial: dict[str, str] = {}
        self._unnamed: deque[str] = deque(maxlen=8)
        self._names: dict[str, str] = {}

    @property
    def begun(self) -> bool:
        return self._task is not None

    def start(self, scope: Scope) -> None:
        self._task = scope.spawn(self._run(), name="write down")

    def began(self, name: str) -> None:
        """The caller begins to say what will be told as `name`."""
        self._order.began(name, monotonic())

    def stopped(self, name: str) -> None:
        ours = (theirs for theirs, ours in self._names.items() if ours == name)
        self._order.stopped(next(ours, name), monotonic())
        self._arm()

    def unnamed(self, name: str) -> None:
        """Our own ears have heard this begin; the provider will have a name for it."""
        self._unnamed.append(name)

    def named(self, theirs: str) -> None:
        """The provider's name for what has waited longest for one."""
        if not theirs or theirs in self._names:
            return
        ours = ""
        while self._unnamed and not ours:
            ours = self._unnamed.popleft()
            if not self._order.rename(ours, theirs):
                ours = ""
        self._names[theirs] = ours
        if len(self._names) > MOST_NAMES:
            del self._names[next(iter(self._names))]

    def forget(self, name: str) -> None:
        """This gets no name, and no words."""
        if name in self._unnamed:
            self._unnamed.remove(name)
            self.said(name, "")

    def rename(self, name: str, to: str) -> bool:
        return self._order.rename(name, to)

    def partly(self, name: str, text: str, *, endless: bool) -> None:
        """The caller's words so far; they count should the whole of them never come. `endless`: nobody will tell when
        the speech ends."""
        self._partial[name] = text
        if endless:
            self._order.heard(name, monotonic())
            self._arm()

    def said(self, name: str, text: str, **metadata: Any) -> None:
        """The caller's words; none takes no place."""
        self._partial.pop(name, None)
        entry = Entry("user", text, name, metadata=metadata) if text else None
        self._place(self._order.said(name, entry, monotonic()))

    def settle(self) -> None:
        """Whoever was telling the caller's words is gone: what was told so far is all there is."""
        for name, text in tuple(self._partial.items()):
            self.said(name, text, unfinished=True)

    def add(self, entry: Entry) -> None:
        """Something that has its place here and now."""
        self._place(self._order.add(entry, monotonic()))

    def put(self, entry: Entry) -> None:
        """Something that waits for nobody's words."""
        self._place([Placed(entry, monotonic())])

    def flush(self) -> None:
        """Nobody's words are waited for any more."""
        self.settle()
        self._place(self._order.flush())

    async def aclose(self, timeout: float) -> None:
        """Writes down what is there, for at most `timeout` seconds."""
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
        self._entries.close()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout)

    def _place(self, ready: list[Placed[Entry]]) -> None:
        for placed in ready:
            if not self._entries.closed and not self._entries.try_put(placed):
                log.error("call %s: the room does not keep up; something said is not written down", self._name)
        self._arm()

    def _arm(self) -> None:
        """One timer for words that are overdue."""
        due = self._order.deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None and not self._entries.closed:
            self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._place(self._order.tick(monotonic() + 0.001))

    async def _run(self) -> None:
        while True:
            try:
                placed = await self._entries.get()
            except BufferClosed:
                return
            done = placed.item.done
            try:
                await self._write(placed)
            except RoomKitError as error:  # the room refuses it, or cannot be written
                log.warning("call %s: a %s was not written down: %s", self._name, placed.item.kind, error)
                if done is not None and not done.done():
                    done.set_exception(error)
            else:
                if done is not None and not done.done():
                    done.set_result(None)
