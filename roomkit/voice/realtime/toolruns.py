"""ToolRuns: the tool calls of a speech-to-speech call: each asked for once, written down before it runs, ended once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roomkit.models.ai import ToolCallPart
from roomkit.models.content import ToolCallContent
from roomkit.models.realtime import InjectText, ToolAnswer
from roomkit.runtime import Scope
from roomkit.voice.realtime.minutes import Entry

if TYPE_CHECKING:
    from roomkit.voice.realtime.call import RealtimeCall

GRACE_S = 5.0
"""How long what has begun may go on when the call is over."""


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool call came to: its record for the log, and the words for the model."""

    record: ToolCallContent
    output: str
    is_error: bool = False


_RUNNING: ContextVar[ToolRuns | None] = ContextVar("running", default=None)
Ready = Callable[[ToolCallContent], Awaitable[None]]
"""Returns once the intent to run a call is in the log."""


class ToolRuns:
    """One call's. `muted` while tools run that shut the microphone."""

    def __init__(self, call: RealtimeCall, *, mute: bool) -> None:
        self._call = call
        self._mute = mute
        self._mutes = 0
        self._scope = Scope(f"tools of call {call.session.id}")
        self._running: dict[str, ToolCallContent] = {}
        self._unwanted: set[str] = set()

    @property
    def muted(self) -> bool:
        return self._mutes > 0

    @property
    def inside(self) -> bool:
        """Whether it is one of these tools that asks."""
        return _RUNNING.get() is self

    @property
    def running(self) -> bool:
        return len(self._scope) > 0

    def asked(self, reply_id: str, call: ToolCallPart) -> None:
        self._scope.spawn(self._run(reply_id, call), name=f"tool {call.name}")

    def taken_back(self, call_ids: tuple[str, ...]) -> None:
        """The model no longer waits for these: they end, and are not answered."""
        self._unwanted.update(call_ids)

    async def aclose(self) -> None:
        """What has begun is given time to end; what only waits for a person is not."""
        if self._running:
            await self._scope.drain(GRACE_S)
        await self._scope.aclose(GRACE_S)
        for left in tuple(self._running.values()):
            self._end(left.model_copy(update={"status": "unknown_outcome", "error": "the call ended"}))

    async def _run(self, reply_id: str, asked: ToolCallPart) -> None:
        call, link = self._call, self._call.link
        memory = link.memory
        if call.refuses(reply_id):
            output = "Not run: the caller interrupted, or a person has taken over."
            await link.tell(ToolAnswer(asked.call_id, asked.name, output, True, silent=True), memory=memory)
            return
        self._mutes += self._mute
        _RUNNING.set(self)
        try:
            result = await call.host.run_tool(call, asked, self._ready)
        finally:
            self._mutes -= self._mute
        self._end(result.record)
        if asked.call_id in self._unwanted:
            self._unwanted.discard(asked.call_id)
            return
        answer = ToolAnswer(asked.call_id, asked.name, result.output, result.is_error, silent=call.held)
        if not await link.tell(answer, memory=memory):  # the model that asked is gone: the next one is told
            await link.tell(InjectText(f"{asked.name} gave: {result.output}", "system", not call.held))

    async def _ready(self, record: ToolCallContent) -> None:
        self._running[record.call_id] = record
        entry = Entry("tool_start", call=record, done=asyncio.get_running_loop().create_future())
        self._call.minutes.add(entry)
        assert entry.done is not None, "made above"
        await entry.done

    def _end(self, record: ToolCallContent) -> None:
        self._running.pop(record.call_id, None)
        self._call.minutes.put(Entry("tool_end", call=record))
