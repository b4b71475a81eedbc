"""ToolJournal: every step of a reply's tool calls, durable before the brain goes on (R8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roomkit.core.actor import Change, Entry, RoomActor
from roomkit.core.state import key
from roomkit.models.content import ToolCallContent, plain, valid
from roomkit.models.event import EventDraft, EventType
from roomkit.models.stream import ToolStep
from roomkit.ports.store import Record
from roomkit.runtime.crashpoint import crashpoint

if TYPE_CHECKING:
    from roomkit.core.replies import Reply


class ToolJournal:
    """A pending step is the intent, any other the result; every call gets exactly one of each."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.begun = False
        """A tool was called."""
        self._open: dict[str, ToolCallContent] = {}
        self._done: dict[str, ToolStep] = {}

    async def step(self, step: ToolStep) -> None:
        """Commits one step of a tool call, together with what the reply has said so far."""
        step = ToolStep(valid(step.call), step.idempotent)
        crashpoint("reply.before_tool_step")
        self.begun = True
        if step.call.status != "pending":
            self._done[step.call.call_id] = step
        await self._reply.actor.insist(self._commit, step)
        crashpoint("reply.after_tool_step")

    def cancel(self, change: Change, reason: str) -> None:
        """Gives every call without an answer its one answer: what it came to, if it has ended and only waits."""
        for call in self._open.values():
            if (done := self._done.get(call.call_id)) is not None:
                self._add(change, done)
                continue
            self._add(change, ToolStep(call.model_copy(update={"status": "cancelled", "error": reason})))

    async def _commit(self, actor: RoomActor, step: ToolStep) -> None:
        reply = self._reply
        if reply.over:
            return
        change = Change()
        self._add(change, step)
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

    def _add(self, change: Change, step: ToolStep) -> None:
        reply, actor, call = self._reply, self._reply.actor, step.call
        if actor.state.room.open:
            draft = EventDraft.made(
                source=reply.source,
                content=call,
                type=EventType.TOOL_CALL_START if call.status == "pending" else EventType.TOOL_CALL_END,
                visibility="internal",
                chain_depth=reply.depth,
                correlation_id=reply.id,
                metadata={"cause": reply.cause.id, "tool_record": True},
            )
            change.add(Entry(draft, targets=()))
        said = vars(call)
        value = {**(said if plain(said) else call.model_dump(mode="json")), "reply": reply.id}
        value["channel"], value["idempotent"] = reply.channel_id, step.idempotent
        row_key = key(actor.room_id, reply.id, call.call_id)
        change.put.append(Record("journal", actor.tenant, row_key, value, actor.room_id))
