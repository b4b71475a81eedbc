"""The tools of a live call: the same gate as everywhere, asked by a brain outside the rooms' own turns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from roomkit.ai.budget import Budget
from roomkit.ai.gate import GateRules, ToolGate
from roomkit.ai.loop import ToolOutcome
from roomkit.ai.policy import ToolPolicy
from roomkit.ai.tools import HandlerSource, HumanTool, Tool, Toolbox, ToolContext, ToolSource
from roomkit.channels.ai import least_assurance, roles_of
from roomkit.errors import ConfigError, RoomKitError, ToolFailed
from roomkit.models.ai import ToolCallPart, ToolSpec
from roomkit.models.content import ToolCallContent
from roomkit.ports.ai import ToolHandler
from roomkit.ports.channel import RoomContext, RoomPort, TurnPort

Ready = Callable[[ToolCallContent], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ToolRules:
    """What holds for the tools of a channel's calls. Times in seconds. `functions` are typed functions and tool sources
    besides the channel's `tools` and `tool_handler`; `human_tool` offers `request_human`. On a speech-to-speech channel
    `budget` counts the model's replies, too; a call whose budget is used up ends, and none begins."""

    functions: Sequence[ToolSource | Tool | Callable[..., Any]] = ()
    policy: ToolPolicy = field(default_factory=ToolPolicy)
    human_tool: bool = False
    timeout_s: float | None = 60.0
    approval_expires_s: float = 3600.0
    budget: Budget | None = None


def spec_of(declared: Mapping[str, Any] | ToolSpec) -> ToolSpec:
    """A tool as vendors' documentation writes it: flat, or below "function". Raises `ConfigError`."""
    if isinstance(declared, ToolSpec):
        return declared
    found = declared.get("function", declared)
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):  # pyright: ignore[reportUnknownMemberType]
        raise ConfigError('a tool is a dict with name, description and parameters (JSON Schema); "name" is missing')
    tool = cast("Mapping[str, Any]", found)
    parameters: dict[str, Any] = dict(tool.get("parameters") or {"type": "object", "properties": {}})
    return ToolSpec(name=tool["name"], description=str(tool.get("description") or ""), parameters=parameters)


async def _nobody(name: str, _arguments: dict[str, Any]) -> Any:
    raise ToolFailed(f'nothing serves the tool "{name}": give the channel a tool_handler')


class LiveTools:
    """The tools of one call. `only` are the names that this session may use, None is all."""

    def __init__(
        self, handler: ToolHandler | ToolSource | None, specs: Sequence[ToolSpec], rules: ToolRules, functions: Toolbox
    ) -> None:
        self._rules = rules
        self._handler = handler
        self.sources: list[ToolSource] = []
        self.only: frozenset[str] | None = None
        if isinstance(handler, ToolSource):
            self.sources.append(handler)
            if specs:
                self.only = frozenset(spec.name for spec in specs)
        else:
            self.sources.append(HandlerSource(handler or _nobody, specs))
        self.sources += [each for each in rules.functions if isinstance(each, ToolSource)]
        if functions.specs:
            self.sources.append(functions)

    async def open(self, port: RoomPort) -> None:
        """Before the first call of a session."""
        for source in self.sources:
            source.keep_in(port.vault)
            await source.open()

    def offered(self, context: RoomContext, turn: TurnPort | None) -> tuple[ToolSpec, ...]:
        """What the model is shown: only what it could run."""
        return () if turn is None else self._gate(context, ToolContext(context.room.id), turn).specs

    def _gate(self, context: RoomContext, tool_context: ToolContext, turn: TurnPort) -> ToolGate:
        sources = list(self.sources)
        if self._rules.human_tool:
            sources.append(HumanTool(turn.request_human))
        names = self.only
        if names is not None and self._rules.human_tool:
            names |= {"request_human"}
        seat: Sequence[str] | None = context.binding.metadata.get("tools")
        if seat is not None:
            names = frozenset(seat) if names is None else names & frozenset(seat)
        rules = GateRules(
            policy=self._rules.policy,
            roles=roles_of(context.events, context),
            assurance=least_assurance(context),
            allowed=names,
            budget=self._rules.budget,
            timeout_s=self._rules.timeout_s,
            approval_expires_s=self._rules.approval_expires_s,
        )
        return ToolGate(sources, tool_context, turn=turn, rules=rules)

    async def run(
        self, asked: ToolCallPart, context: RoomContext, tool_context: ToolContext, turn: TurnPort, ready: Ready
    ) -> tuple[ToolCallContent, str]:
        """The record of one call, and all its words. Raises nothing but cancellation."""
        content = ToolCallContent(call_id=asked.call_id, name=asked.name, arguments=asked.arguments)
        if asked.malformed is not None:
            told = "Not run: the arguments are no JSON object. Call again with one."
            return content.model_copy(update={"status": "failed", "error": told}), told
        gate = self._gate(context, tool_context, turn)
        try:
            if self._rules.budget is not None:
                await self._rules.budget.open(turn, tool_context.tenant, tool_context.room_id)
            outcome = await gate.run(asked, _Stile(content, ready), frozenset(spec.name for spec in gate.specs))
        except RoomKitError as error:
            outcome = ToolOutcome("failed", f"Not run: the call could not be written down ({type(error).__name__}).")
        text = outcome.output if outcome.record is None else outcome.record
        told = {"result": text} if outcome.status == "completed" else {"error": text}
        arguments = content.arguments if outcome.arguments is None else outcome.arguments
        more = {"status": outcome.status, "duration_ms": outcome.duration_ms, "arguments": arguments, **told}
        return content.model_copy(update=more), text


class _Stile:
    """What is written down before a tool runs. A live call has no wall clock to stop while a person is asked."""

    def __init__(self, content: ToolCallContent, ready: Ready) -> None:
        self._content = content
        self._ready = ready

    async def ready(self, call_id: str, arguments: dict[str, Any]) -> None:
        await self._ready(self._content.model_copy(update={"arguments": arguments}))

    def pause(self) -> None: ...

    def resume(self) -> None: ...


def cut(text: str, most: int) -> str:
    """At most `most` characters, the note that something is missing included."""
    if len(text) <= most:
        return text
    note = f"\n[cut: the result has {len(text)} characters]"
    return text[:most] if most < len(note) else text[: most - len(note)] + note
