"""A room for tests of the brain alone: a context, its events, and a turn port that remembers what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from roomkit.channels.ai import AIChannel
from roomkit.models.ai import AIMessage, AIRequest, ToolCallPart, ToolResultPart
from roomkit.models.content import TextContent, ToolCallContent
from roomkit.models.event import EventSource, EventType, RoomEvent
from roomkit.models.room import Category, ChannelBinding, Participant, Role, Room
from roomkit.models.stream import ReplyEnd, ReplyPart, TextDelta, ToolStep
from roomkit.ports.channel import ApprovalAnswer, RoomContext

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class FakeLedger:
    """Keeps nothing."""

    async def recall(self, name: str) -> tuple[None, list[Any]]:
        return None, []

    def remember(self, name: str, room: Any, tenant: Any) -> None:
        pass


@dataclass
class FakeTurn:
    """What core gives a turn. `guard` and `answer` are the test's."""

    turn_id: str = "turn"
    guard: Callable[[ToolCallContent], Any] = lambda call: call
    guard_request: Callable[[AIRequest], Any] = lambda request: request
    answer: Callable[[ToolCallContent], Any] = lambda call: ApprovalAnswer(True, "ann")
    asked: list[ToolCallContent] = field(default_factory=list)
    humans: list[str] = field(default_factory=list)
    progress: list[str] = field(default_factory=list)
    usage: list[tuple[dict[str, int], str | None, float]] = field(default_factory=list)
    ledger: FakeLedger = field(default_factory=FakeLedger)

    async def approve(self, call: ToolCallContent, *, expires_s: float) -> ApprovalAnswer:
        self.asked.append(call)
        answer = self.answer(call)
        return answer if isinstance(answer, ApprovalAnswer) else await answer

    async def request_human(self, reason: str) -> None:
        self.humans.append(reason)

    async def guard_generation(self, request: AIRequest) -> Any:
        return self.guard_request(request)

    def for_model(self, events: Sequence[RoomEvent]) -> Sequence[RoomEvent]:
        return events

    async def guard_tool(self, call: ToolCallContent) -> Any:
        return self.guard(call)

    async def tool_progress(self, call: ToolCallContent, note: str = "") -> None:
        self.progress.append(call.call_id)

    def spent(self, usage: Mapping[str, int], model: str | None, money: float) -> None:
        self.usage.append((dict(usage), model, money))


class Talk:
    """One room and its log, as an AI channel meets it; it keeps the log the way core does."""

    def __init__(self, room_id: str = "room", *, channel_id: str = "ai", tenant: str = "default") -> None:
        self.log: list[RoomEvent] = []
        self.room = Room(id=room_id, tenant=tenant, created_at=T0, updated_at=T0)
        self.channel_id = channel_id
        self.metadata: dict[str, Any] = {}
        self.participants: list[Participant] = []
        self.bindings = [self.bind("web")]
        self.turns = 0
        self.turn: FakeTurn | None = FakeTurn()

    def bind(self, channel_id: str, category: Category = Category.TRANSPORT, **more: Any) -> ChannelBinding:
        return ChannelBinding(
            channel_id=channel_id,
            room_id=self.room.id,
            tenant=self.room.tenant,
            channel_type="websocket" if category is Category.TRANSPORT else "ai",
            category=category,
            attached_at=T0,
            **more,
        )

    def person(self, participant_id: str, name: str | None = None, role: Role = Role.MEMBER) -> Participant:
        someone = Participant(
            id=participant_id,
            room_id=self.room.id,
            tenant=self.room.tenant,
            channel_id="web",
            display_name=name,
            role=role,
            joined_at=T0,
        )
        self.participants.append(someone)
        return someone

    def event(
        self, content: Any, *, channel: str = "web", who: str | None = "guest", direction: Any = "inbound", **more: Any
    ) -> RoomEvent:
        """Appends an event to the log."""
        index = len(self.log)
        made = RoomEvent(
            id=more.pop("id", f"{self.room.id}-{index}"),
            room_id=self.room.id,
            tenant=self.room.tenant,
            index=index,
            source=EventSource(channel_id=channel, channel_type="x", direction=direction, participant_id=who),
            content=TextContent(text=content) if isinstance(content, str) else content,
            created_at=T0,
            **more,
        )
        self.log.append(made)
        return made

    def context(self, *events: RoomEvent) -> RoomContext:
        async def history(limit: int) -> list[RoomEvent]:
            return self.log[-limit:]

        return RoomContext(
            room=self.room,
            binding=self.binding,
            bindings=self.bindings,
            participants=self.participants,
            history=history,
            turn=self.turn,
            events=events,
        )

    @property
    def binding(self) -> ChannelBinding:
        return self.bind(self.channel_id, Category.INTELLIGENCE, metadata=self.metadata)

    async def open(self, channel: AIChannel, event: RoomEvent) -> AsyncIterator[ReplyPart]:
        """The reply stream of a turn, not yet pulled."""
        self.turns += 1
        if self.turn is not None:
            self.turn.turn_id = f"{self.room.id}-turn-{self.turns}"
        output = await channel.on_event(event, self.binding, self.context(event))
        assert output.response_stream is not None
        return output.response_stream

    async def say(self, ai: AIChannel, text: str = "hello", **more: Any) -> list[ReplyPart]:
        """Says something and takes the whole reply, keeping tool steps and text in the log."""
        event = self.event(text, **more)
        return [part async for part in self.keep(await self.open(ai, event))]

    async def keep(self, stream: AsyncIterator[ReplyPart]) -> AsyncIterator[ReplyPart]:
        said = ""
        async for part in stream:
            if isinstance(part, ToolStep):
                kind = EventType.TOOL_CALL_START if part.call.status == "pending" else EventType.TOOL_CALL_END
                self.event(part.call, channel=self.channel_id, who=None, direction="outbound", type=kind)
            elif isinstance(part, TextDelta):
                said += part.text
            yield part
        if said:
            self.event(said, channel=self.channel_id, who=None, direction="outbound")


def text_of(parts: list[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextDelta))


def end_of(parts: list[ReplyPart]) -> ReplyEnd:
    """The end, which is there exactly once and last."""
    assert [isinstance(part, ReplyEnd) for part in parts].count(True) == 1
    end = parts[-1]
    assert isinstance(end, ReplyEnd)
    return end


def steps_of(parts: list[ReplyPart]) -> list[tuple[str, str]]:
    return [(part.call.name, part.call.status) for part in parts if isinstance(part, ToolStep)]


def results_of(request: AIRequest) -> list[str]:
    return [part.output for m in request.messages for part in m.parts if isinstance(part, ToolResultPart)]


def assert_paired(messages: tuple[AIMessage, ...]) -> None:
    calls = [part.call_id for m in messages for part in m.parts if isinstance(part, ToolCallPart)]
    results = [part.call_id for m in messages for part in m.parts if isinstance(part, ToolResultPart)]
    assert calls == results
    assert len(set(calls)) == len(calls)
