"""Turn: what a running turn may ask of its room. Approvals are durable and bound to the arguments (D36)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from roomkit.core import approvals, floor, messages
from roomkit.models.ai import AIRequest
from roomkit.models.content import ToolCallContent
from roomkit.models.event import RoomEvent
from roomkit.models.hooks import BeforeGeneration, BeforeToolUse, Block, Moment
from roomkit.models.stream import Ephemeral
from roomkit.ports.channel import ApprovalAnswer

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine
    from roomkit.core.ledger import Ledger


class Answering(Protocol):
    """A reply, or whatever else a turn is for."""

    @property
    def id(self) -> str: ...


class Turn:
    """Implements `ports.channel.TurnPort` for one reply."""

    def __init__(
        self, engine: Engine, actor: RoomActor, channel_id: str, reply: Answering, events: Iterable[RoomEvent]
    ) -> None:
        self._engine = engine
        self._actor = actor
        self._channel_id = channel_id
        self._reply = reply
        self._events = tuple(events)

    @property
    def turn_id(self) -> str:
        return self._reply.id

    @property
    def ledger(self) -> Ledger:
        from roomkit.core.ledger import Ledger

        return Ledger(self._engine, self._actor)

    async def approve(self, call: ToolCallContent, *, expires_s: float) -> ApprovalAnswer:
        asker = approvals.Asker.of(self._channel_id, self._events)
        return await approvals.ask(self._engine, self._actor, asker, call, expires_s)

    async def request_human(self, reason: str) -> None:
        await self._actor.call(floor.request_human, reason, self._channel_id)

    async def guard_generation(self, request: AIRequest) -> AIRequest | Block:
        guarded = await self._guard(BeforeGeneration, request)
        redactions = self._engine.redactions
        if redactions is None or isinstance(guarded, Block):
            return guarded
        return redactions.request(self._actor.tenant, guarded)

    def for_model(self, events: Sequence[RoomEvent]) -> Sequence[RoomEvent]:
        redactions = self._engine.redactions
        return events if redactions is None else redactions.told(self._actor.tenant, events)

    async def guard_tool(self, call: ToolCallContent) -> ToolCallContent | Block:
        return await self._guard(BeforeToolUse, call)

    async def _guard(self, moment: type[Moment[Any]], value: Any) -> Any:
        hooks = self._engine.hooks
        if not hooks.guarded(moment):
            return value
        binding = self._actor.state.bindings.get(self._channel_id)
        kind = binding.channel_type if binding else ""
        outcome = await hooks.run(moment(self._actor.state.snapshot, value, self._channel_id, kind, "outbound"))
        if outcome.asks:
            await self._actor.insist(messages.keep_sides, outcome)
        if outcome.blocked_by:
            return Block(f"{outcome.blocked_by}: {outcome.reason}" if outcome.reason else outcome.blocked_by)
        return outcome.value

    async def tool_progress(self, call: ToolCallContent, note: str = "") -> None:
        if self._actor.hub.idle:
            return
        data = {"name": call.name, "call_id": call.call_id, "status": call.status, "note": note}
        message = Ephemeral(kind="tool", room_id=self._actor.room_id, sender=self._channel_id, data=data)
        self._actor.hub.ephemeral(message, self._actor.state.bindings)

    def spent(self, usage: Mapping[str, int], model: str | None, money: float) -> None:
        self._engine.meters.spent(self._channel_id, usage, model, money)
