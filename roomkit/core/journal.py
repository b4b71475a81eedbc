"""ToolJournal: every step of a reply's tool calls, durable before the brain goes on (R8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from roomkit.core.actor import Change, Entry, RoomActor
from roomkit.core.state import SEP
from roomkit.models.content import ToolCallContent, plain, valid
from roomkit.models.event import EventDraft, EventSource, EventType
from roomkit.models.room import ChannelBinding
from roomkit.models.stream import ToolStep
from roomkit.ports.store import ModelRecord
from roomkit.runtime.crashpoint import crashpoint

if TYPE_CHECKING:
    from roomkit.core.replies import Reply


_Held = tuple[dict[str, Any], str, str, bool]
"""What the call says, the reply and channel that made it, and whether its tool is idempotent."""


class JournalRecord(ModelRecord):
    """A row of the journal. What the call says is the log's own, so the value is made when somebody reads it."""

    __slots__ = ()

    @property
    def value(self) -> dict[str, Any]:
        held: Any = self[3]
        if type(held) is not tuple:
            return held  # It was replaced.
        said, reply, channel, idempotent = cast("_Held", held)
        return {**said, "reply": reply, "channel": channel, "idempotent": idempotent}

    @property
    def plain(self) -> bool:
        """The journal has seen to it."""
        held: Any = self[3]
        return type(held) is tuple or plain(held)


class ToolJournal:
    """A pending step is the intent, any other the result; every call gets exactly one of each."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.begun = False
        """A tool was called."""
        self._open: dict[str, ToolCallContent] = {}
        self._done: dict[str, ToolStep] = {}
        self._seat: ChannelBinding | None = None
        self._source: EventSource | None = None
        self._metadata = {"cause": reply.cause.id, "tool_record": True}

    async def step(self, step: ToolStep) -> None:
        """Commits one step of a tool call, together with what the reply has said so far."""
        said = vars(step.call)
        if not plain(said):
            step = ToolStep(valid(step.call), step.idempotent)
            said = _table(step.call)
        crashpoint("reply.before_tool_step")
        self.begun = True
        if step.call.status != "pending":
            self._done[step.call.call_id] = step
        await self._reply.actor.insist(self._commit, step, said)
        crashpoint("reply.after_tool_step")

    def cancel(self, change: Change, reason: str) -> None:
        """Gives every call without an answer its one answer: what it came to, if it has ended and only waits."""
        for call in self._open.values():
            step = self._done.get(call.call_id)
            if step is None:
                step = ToolStep(call.model_copy(update={"status": "cancelled", "error": reason}))
            self._add(change, step, _table(step.call))

    async def _commit(self, actor: RoomActor, step: ToolStep, said: dict[str, Any]) -> None:
        reply = self._reply
        if reply.over:
            return
        change = Change()
        self._add(change, step, said)
        row = reply.checkpoint.take()
        if row is not None:
            change.put.append(row)
        try:
            await actor.commit(change)
        except BaseException:
            reply.checkpoint.grew(1 if row is not None else 0)
            raise
        if step.call.status == "pending":
            self._open[step.call.call_id] = step.call
        else:
            self._open.pop(step.call.call_id, None)
            self._done.pop(step.call.call_id, None)

    def _add(self, change: Change, step: ToolStep, said: dict[str, Any]) -> None:
        """`said` is what the call says, as JSON takes it."""
        reply, actor, call = self._reply, self._reply.actor, step.call
        if actor.state.room.open:
            draft = EventDraft.made(
                source=self._speaker(),
                content=call,
                type=_START if call.status == "pending" else _END,
                visibility="internal",
                chain_depth=reply.depth,
                correlation_id=reply.id,
                metadata=self._metadata,
            )
            change.entries.append(Entry(draft, targets=()))
        row_key = f"{actor.room_id}{SEP}{reply.id}{SEP}{call.call_id}"
        held: Any = (said, reply.id, reply.channel_id, step.idempotent)
        change.put.append(JournalRecord("journal", actor.tenant, row_key, held, actor.room_id))

    def _speaker(self) -> EventSource:
        """Made anew when the seat has changed."""
        seat = self._reply.actor.state.bindings.get(self._reply.channel_id)
        if self._source is None or seat is not self._seat:
            self._seat, self._source = seat, self._reply.source
        return self._source


_START, _END = EventType.TOOL_CALL_START, EventType.TOOL_CALL_END


def _table(call: ToolCallContent) -> dict[str, Any]:
    said = vars(call)
    return said if plain(said) else call.model_dump(mode="json")
