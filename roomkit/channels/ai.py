"""AIChannel: an AI in a room. It joins the parts: history, memory, tools and a provider, into one streamed reply."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast
from uuid import uuid4

from roomkit.ai.aside import asking
from roomkit.ai.budget import Budget
from roomkit.ai.context import Perspective, messages_of, remembered
from roomkit.ai.gate import GateRules, ToolGate
from roomkit.ai.loop import LoopLimits, ToolLoop, ToolOutcome
from roomkit.ai.memory import SlidingWindow
from roomkit.ai.named import provider_named
from roomkit.ai.pictures import with_pictures
from roomkit.ai.policy import ToolPolicy
from roomkit.ai.results import CUT, READ_STORED_RESULT, StoredResults
from roomkit.ai.run import Reply
from roomkit.ai.skills import ScriptExecutor, SkillRegistry
from roomkit.ai.tools import HandlerSource, HumanTool, Tool, Toolbox, ToolContext, ToolSource
from roomkit.errors import RoomKitError, UsageError
from roomkit.models.ai import AIMessage, AIRequest, ToolResultPart, ToolSpec
from roomkit.models.content import ToolCallContent
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import Assurance, Category, ChannelBinding, ChannelCapabilities, ChannelType, Role
from roomkit.models.steering import SteeringDirective
from roomkit.models.stream import ReplyEnd, ReplyPart
from roomkit.net.retry import RetryPolicy
from roomkit.ports.ai import AIProvider, MemoryProvider, ToolHandler
from roomkit.ports.channel import Channel, ChannelOutput, RoomContext, TurnPolicy
from roomkit.runtime import monotonic

_log = logging.getLogger("roomkit.ai")

_MUTE = frozenset({EventType.TOOL_CALL_START, EventType.TOOL_CALL_END, EventType.STREAM_START})
_ABOVE_MEMBERS = (Role.OWNER, Role.AGENT, Role.BOT)


class _Default(int):
    """1024 when read; tells "not given" from a given 1024 (D2)."""


DEFAULT_MAX_TOKENS = _Default(1024)


@dataclass(frozen=True, slots=True)
class AIOptions:
    """What the constructor has no place for; set with `channel.configure(...)`. Times in seconds.

    `tools`: typed functions, tool sources (`Toolbox`, `MCPServer` ...), or bare `ToolSpec`s that `tool_handler` serves.
    `human_tool` offers the model `request_human`. `tool_timeout_s` holds for tools without a limit of their own."""

    tools: Sequence[ToolSpec | ToolSource | Tool | Callable[..., Any]] = ()
    human_tool: bool = False
    tool_timeout_s: float | None = None
    approval_expires_s: float = 3600.0
    budget: Budget | None = None
    turn_policy: TurnPolicy = field(default_factory=TurnPolicy)
    calls_per_round: int = 32


@dataclass(slots=True)
class _Seat:
    """A reply that is being made or prepared; what it is told before it has a loop waits here."""

    tenant: str
    room_id: str
    reply: Reply | None = None
    early: list[SteeringDirective] = field(default_factory=lambda: [])

    def steer(self, directive: SteeringDirective) -> None:
        if self.reply is None:
            self.early.append(directive)
        else:
            self.reply.steer(directive)


class AIChannel(Channel):
    """Answers in rooms through a language model. One object serves any number of rooms and keeps no room's state.

    `provider` and `fallback_provider` are `AIProvider`s, or names such as "openai:gpt-4.1" that are resolved lazily.
    `tool_handler` is a `Toolbox` of typed functions or an async function (name, arguments). `max_tokens`: a limit of
    the binding wins over the one given here, that over the provider's own, that over 1024.
    `tool_loop_timeout_seconds` is wall clock for a whole reply, without the time that people take to approve. Binding
    metadata may override `system_prompt`, `temperature`, `max_tokens`, `thinking_budget` and `tools` (allowed names)
    for one room.
    """

    reach = "turn"
    category = Category.INTELLIGENCE

    def __init__(
        self,
        channel_id: str,
        provider: AIProvider | str | None,
        system_prompt: str | None = None,
        temperature: float = 0.7,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        max_context_events: int = 50,
        tool_handler: ToolHandler | ToolSource | None = None,
        max_tool_rounds: int = 200,
        tool_loop_timeout_seconds: float = 300.0,
        tool_loop_warn_after: int = 50,
        retry_policy: RetryPolicy | None = None,
        fallback_provider: AIProvider | str | None = None,
        skills: SkillRegistry | Path | str | None = None,
        script_executor: ScriptExecutor | None = None,
        memory: MemoryProvider | None = None,
        tool_policy: ToolPolicy | None = None,
        thinking_budget: int | None = None,
    ) -> None:
        super().__init__(channel_id, ChannelType.AI, capabilities=ChannelCapabilities(rich=True, media=True))
        self._owned: list[AIProvider] = []
        self.provider = self._resolve(provider)
        self.fallback_provider = self._resolve(fallback_provider)
        self.system_prompt = system_prompt
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.max_context_events = max_context_events
        self.limits = LoopLimits(max_tool_rounds, tool_loop_timeout_seconds, tool_loop_warn_after)
        self.retry_policy = retry_policy
        self.memory: MemoryProvider = memory or SlidingWindow()
        self.tool_policy = tool_policy or ToolPolicy()
        self.thinking_budget = thinking_budget
        self.skills = SkillRegistry.of(skills, executor=script_executor)
        self._handler: ToolHandler | ToolSource | None = tool_handler
        self._behind: list[ToolSource] = []
        self._options = AIOptions()
        self._functions = Toolbox()
        self._stored = StoredResults()
        self._seats: dict[str, _Seat] = {}

    # -- set-up -------------------------------------------------------------------------------------------------

    @property
    def options(self) -> AIOptions:
        return self._options

    def configure(self, **changes: Any) -> Self:
        """Changes fields of `AIOptions`; returns the channel: `AIChannel("ai", brain).configure(human_tool=True)`."""
        options = replace(self._options, **changes)
        functions = [each for each in options.tools if not isinstance(each, ToolSpec | ToolSource)]
        self._functions = Toolbox(functions)
        self._options = options
        if options.budget is not None:
            options.budget.serve(self.channel_id)
            if hasattr(self.provider, "charge"):
                cast("Any", self.provider).charge(options.budget)
        self.turn_policy = options.turn_policy
        self.limits = replace(self.limits, calls_per_round=options.calls_per_round)
        return self

    @property
    def tool_handler(self) -> ToolHandler | ToolSource | None:
        """What runs the tools. A plain function put in place of a `Toolbox` (a wrapper around it) goes on serving the
        tools that the box declared."""
        return self._handler

    @tool_handler.setter
    def tool_handler(self, handler: ToolHandler | ToolSource | None) -> None:
        if isinstance(self._handler, ToolSource) and handler is not self._handler:
            self._behind = [*self._behind, self._handler] if handler is not None else []
        if isinstance(handler, ToolSource):
            self._behind = []
        self._handler = handler

    # -- steering -----------------------------------------------------------------------------------------------

    @property
    def active_loops(self) -> dict[str, str]:
        """Ids of the replies being made now, each with its room."""
        return {loop_id: seat.room_id for loop_id, seat in self._seats.items()}

    def steer(
        self,
        directive: SteeringDirective,
        *,
        loop_id: str | None = None,
        room_id: str | None = None,
        tenant: str | None = None,
    ) -> None:
        """Directs a reply that is being made; returns at once. `Cancel` ends it without waiting for its next round.

        Without `loop_id` or `room_id` exactly one reply must be active (D11); otherwise, and for an unknown one,
        `UsageError` names those that are.
        """
        found = [
            seat
            for known, seat in self._seats.items()
            if loop_id in (None, known) and room_id in (None, seat.room_id) and tenant in (None, seat.tenant)
        ]
        if len(found) == 1:
            found[0].steer(directive)
            return
        active = ", ".join(f"{known} (room {seat.room_id})" for known, seat in self._seats.items()) or "none"
        problem = "no such reply is active" if not found else "several replies are active"
        raise UsageError(f'channel "{self.channel_id}": {problem}; pass loop_id= or room_id= of one of: {active}')

    # -- replies ------------------------------------------------------------------------------------------------

    async def on_event(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> ChannelOutput:
        """Answers with a stream. Its own events and records of tool calls are never answered."""
        if event.source.channel_id == self.channel_id or event.type in _MUTE or event.blocked or self.provider is None:
            return ChannelOutput()
        return ChannelOutput(response_stream=self._reply(self.provider, event, binding, context))

    async def _reply(
        self, provider: AIProvider, event: RoomEvent, binding: ChannelBinding, context: RoomContext
    ) -> AsyncGenerator[ReplyPart]:
        loop_id = context.turn.turn_id if context.turn is not None else uuid4().hex
        seat = self._seats[loop_id] = _Seat(binding.tenant, binding.room_id)
        try:
            try:
                reply = await self._prepare(loop_id, provider, event, binding, context)
            except Exception as error:  # noqa: BLE001 - memories and tool sources are other people's code
                _log.exception('channel "%s" could not prepare a reply', self.channel_id)
                text = str(error) if isinstance(error, RoomKitError) else type(error).__name__
                yield ReplyEnd("error", error=f"the reply could not be prepared: {text}")
                return
            seat.reply = reply
            for directive in seat.early:
                reply.steer(directive)
            async with aclosing(reply.parts()) as parts:
                async for part in parts:
                    yield part
        finally:
            self._seats.pop(loop_id, None)

    async def _prepare(
        self, loop_id: str, provider: AIProvider, event: RoomEvent, binding: ChannelBinding, context: RoomContext
    ) -> Reply:
        events = context.events or (event,)
        tool_context = self._tool_context(loop_id, events, binding, context)
        room = (binding.tenant, binding.room_id)
        if self._options.budget is not None:
            await self._options.budget.open(context.turn, *room)
        messages = await self._messages(provider, events, context)
        gate = await self._gate(events, binding, context, tool_context)
        gate.cut = any(
            f"[{CUT}" in part.output for m in messages for part in m.parts if isinstance(part, ToolResultPart)
        )
        override = binding.metadata.get
        request = AIRequest(
            messages=tuple(messages),
            system=await self._system(override("system_prompt", self.system_prompt), tool_context),
            tools=gate.specs if provider.profile.tools else (),
            temperature=override("temperature", self.temperature),
            max_tokens=override("max_tokens", self._max_tokens(provider)),
            thinking_budget=override("thinking_budget", self.thinking_budget),
            metadata={"tenant": context.room.tenant, "room_id": context.room.id},
        )
        providers = [each for each in (provider, self.fallback_provider) if each is not None]
        loop = ToolLoop(
            request,
            now=monotonic(),
            loop_id=loop_id,
            limits=self.limits,
            providers=[each.name for each in providers],
            backoff=self.retry_policy,
        )
        return Reply(loop, providers, gate, room=room, turn=context.turn, budget=self._options.budget)

    async def _messages(
        self, provider: AIProvider, events: Sequence[RoomEvent], context: RoomContext
    ) -> list[AIMessage]:
        room_id, limit = context.room.id, self.max_context_events
        # Twice as many, because events that are no prompt (edits, reactions) are part of what is read.
        history = await context.history(2 * getattr(self.memory, "reach", limit))
        gone = {event.id for event in history if event.metadata.get("deleted")}
        events = [event for event in events if event.id not in gone]  # Deleted before its turn came.
        if context.turn is not None:
            history, events = list(context.turn.for_model(history)), context.turn.for_model(events)
        for event in events:
            await self.memory.ingest(room_id, event)
        past = remembered(history, self.channel_id)
        known = {event.id for event in past}
        past += [event for event in events if event.id not in known and not event.blocked]
        seeing = provider.profile.vision
        who = Perspective.of(self.channel_id, context.participants, vision=seeing)
        messages: list[AIMessage] = []
        run: list[RoomEvent] = []
        items = await self._recalled(past, context)
        if seeing:
            talk = [item for item in items if isinstance(item, RoomEvent)]
            inlined = iter(await with_pictures(talk, context.media, self.channel_id))
            items = [next(inlined) if isinstance(item, RoomEvent) else item for item in items]
        for item in items:
            if isinstance(item, RoomEvent):
                run.append(item)
            else:
                messages += [*messages_of(run, who), item]
                run = []
        return messages + messages_of(run, who)

    async def _recalled(self, past: Sequence[RoomEvent], context: RoomContext) -> list[AIMessage | RoomEvent]:
        room_id, limit = context.room.id, self.max_context_events
        if not getattr(self.memory, "asks", False):
            return await self.memory.retrieve(room_id, past, limit)
        ask = asking(context.turn, self._options.budget, context.room.tenant, room_id)
        return await cast("Any", self.memory).retrieve(room_id, past, limit, ask=ask)

    async def _system(self, prompt: str | None, context: ToolContext) -> str | None:
        skills = await self.skills.prompt(context) if self.skills is not None else None
        return "\n\n".join(filter(None, (prompt, skills))) or None

    def _max_tokens(self, provider: AIProvider) -> int:
        if isinstance(self.max_tokens, _Default) and provider.profile.max_tokens is not None:
            return provider.profile.max_tokens
        return int(self.max_tokens)

    def _tool_context(
        self, turn_id: str, events: Sequence[RoomEvent], binding: ChannelBinding, context: RoomContext
    ) -> ToolContext:
        asker = events[-1].source.participant_id if events else None
        return ToolContext(
            room_id=binding.room_id,
            tenant=binding.tenant,
            channel_id=self.channel_id,
            participant=next((p for p in context.participants if p.id == asker), None),
            turn_id=turn_id,
            history=context.history,
        )

    async def _gate(
        self, events: Sequence[RoomEvent], binding: ChannelBinding, context: RoomContext, tool_context: ToolContext
    ) -> ToolGate:
        sources = self._sources()
        for source in sources:
            if self.port is not None:
                source.keep_in(self.port.vault)
            await source.open()
        if self._options.human_tool and context.turn is not None:
            sources.append(HumanTool(context.turn.request_human))
        if any(source.specs for source in sources):
            sources.append(self._stored)
        allowed = binding.metadata.get("tools")
        names = None if allowed is None else frozenset([*allowed, READ_STORED_RESULT] if allowed else ())
        options = self._options
        rules = GateRules(
            policy=self.tool_policy,
            roles=roles_of(events, context),
            assurance=least_assurance(context),
            allowed=names,
            budget=options.budget,
            timeout_s=options.tool_timeout_s,
            approval_expires_s=options.approval_expires_s,
            answers=context.answers,
        )
        return ToolGate(sources, tool_context, turn=context.turn, rules=rules)

    def _sources(self) -> list[ToolSource]:
        declared = [each for each in self._options.tools if isinstance(each, ToolSpec)]
        sources: list[ToolSource] = []
        if isinstance(self._handler, ToolSource):
            sources.append(self._handler)
        elif self._handler is not None:
            behind = [spec for source in self._behind for spec in source.specs]
            sources.append(HandlerSource(self._handler, [*behind, *declared]))
        sources += [each for each in self._options.tools if isinstance(each, ToolSource)]
        sources.append(self._functions)
        if self.skills is not None:
            sources.append(self.skills)
        return sources

    async def rerun_tool(
        self, call: ToolCallContent, *, room_id: str, tenant: str, context: RoomContext
    ) -> ToolCallContent:
        """Runs an idempotent call that a crash has cut again, through the same gate and under the same idempotency key.

        `context.turn` is the turn that made the call. A call that may not run again, or no longer, is not run: its
        outcome stays unknown. Cancelling it cancels the tool."""
        turn_id = context.turn.turn_id if context.turn is not None else ""
        outcome: ToolOutcome | None = None
        if turn_id and (context.binding.room_id, context.binding.tenant) == (room_id, tenant):
            tool_context = self._tool_context(turn_id, context.events, context.binding, context)
            gate = await self._gate(context.events, context.binding, context, tool_context)
            outcome = await gate.again(call)
        if outcome is None:
            error = "the process stopped while it was running; it may not be run again"
            return call.model_copy(update={"status": "unknown_outcome", "error": error})
        text = outcome.output if outcome.record is None else outcome.record
        told = {"result": text} if outcome.status == "completed" else {"error": text}
        return call.model_copy(update={"status": outcome.status, **told})

    # -- the end ------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Closes memory, tool sources and the providers that it resolved from names; given ones stay their owner's."""
        await self.memory.close()
        for source in {id(each): each for each in (*self._sources(), *self._behind)}.values():
            await source.aclose()
        for provider in self._owned:
            await provider.aclose()

    @property
    def taken_back(self) -> Callable[[str, str, str], Awaitable[None]] | None:
        return getattr(self.memory, "forget", None)

    def _resolve(self, provider: AIProvider | str | None) -> AIProvider | None:
        if not isinstance(provider, str):
            return provider
        found = provider_named(provider)
        self._owned.append(found)
        return found


def roles_of(events: Sequence[RoomEvent], context: RoomContext) -> tuple[str, ...]:
    """The roles of everybody whose words made this turn; a tool must be allowed for each of them. An address alone is a
    claim to be somebody: whoever writes under one gets no more than a member (D30)."""
    people = {person.id: person.role for person in context.participants}
    seats = {each.channel_id: each for each in context.bindings}
    roles: list[str] = []
    for event in events:
        seat = seats.get(event.source.channel_id)
        bot = seat is not None and seat.category is Category.INTELLIGENCE
        role = people.get(event.source.participant_id or "")
        roles.append(role.value if role is not None else "bot" if bot else "unknown")
        if role in _ABOVE_MEMBERS and seat is not None and _is_claim(seat):
            roles.append(Role.MEMBER.value)
    return tuple(dict.fromkeys(roles))


def _is_claim(seat: ChannelBinding) -> bool:
    """Whether the far end of this seat is only said to be who it is. Sockets of ours know whom they have let in."""
    outside = seat.category is Category.TRANSPORT and seat.channel_type != ChannelType.WEBSOCKET
    return outside and seat.assurance is Assurance.CLAIMED


def least_assurance(context: RoomContext) -> Assurance | None:
    outside = [each.assurance for each in context.bindings if each.category is Category.TRANSPORT]
    return min(outside, key=lambda one: one.rank, default=None)
