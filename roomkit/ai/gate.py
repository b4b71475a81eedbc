"""The one gate before every tool call: catalogue, policy, schema, guards, approval; then the tool. It fails closed."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from roomkit.ai.budget import Budget
from roomkit.ai.loop import ToolOutcome
from roomkit.ai.policy import ToolPolicy
from roomkit.ai.results import READ_STORED_RESULT, recorded, render, shown
from roomkit.ai.tools import ToolContext, ToolSource, for_call
from roomkit.errors import ToolError
from roomkit.models.ai import ToolCallPart, ToolSpec
from roomkit.models.content import ToolCallContent
from roomkit.models.hooks import Block
from roomkit.models.room import Assurance
from roomkit.ports.channel import TurnPort
from roomkit.runtime import bounded, monotonic

_log = logging.getLogger("roomkit.ai")
_UNDECIDED = "Not run: it could not be decided whether this call is allowed."
RERUN_S = 60.0
"""A call that is run again after a crash has at most so many seconds: the start waits for it."""


class Patience(Protocol):
    """The wall clock of whatever a call under way belongs to."""

    def pause(self) -> None:
        """A person is being waited for: stops it."""
        ...

    def resume(self) -> None: ...


class Stile(Patience, Protocol):
    """How a call under way reaches the conversation it belongs to."""

    async def ready(self, call_id: str, arguments: dict[str, Any]) -> None:
        """Returns once the intent to run is durable."""
        ...


@dataclass(frozen=True, slots=True)
class GateRules:
    """Who is asking, and what holds for them. Times in seconds."""

    policy: ToolPolicy = field(default_factory=ToolPolicy)
    roles: tuple[str, ...] = ()
    assurance: Assurance | None = None
    allowed: frozenset[str] | None = None
    """Names of this turn's toolset; None is no restriction, empty denies everything."""
    budget: Budget | None = None
    timeout_s: float | None = None
    approval_expires_s: float = 3600.0
    answers: Callable[[ToolCallContent], Awaitable[ToolCallContent | None]] | None = None
    """In a fork: what each call came to in the original. No tool is run then."""


class ToolGate:
    """The tools of one reply. Nothing runs except through `run`, or `admit` and then `perform`."""

    def __init__(
        self, sources: Sequence[ToolSource], context: ToolContext, *, turn: TurnPort | None, rules: GateRules
    ) -> None:
        self.cut = False
        """True when results cut short stand in the history already."""
        self._context = context
        self._turn = turn
        self._rules = rules
        self._tools: dict[str, tuple[ToolSpec, ToolSource]] = {}
        self._bars: dict[str, str | None] = {}
        """What the rules have said about a name: they do not change while a reply is made."""
        self._shown: tuple[tuple[ToolSpec, ...], tuple[ToolSpec, ...]] | None = None
        for source in sources:
            for spec in source.specs:
                if self._tools.setdefault(spec.name, (spec, source))[1] is not source:
                    _log.warning('two tools are named "%s": the first one is used; rename the other', spec.name)

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is shown: only what it could run, and the way to read on only once something was cut."""
        if self._shown is None:
            known = tuple(spec for spec, _ in self._tools.values() if self._barred(spec.name) is None)
            self._shown = tuple(spec for spec in known if spec.name != READ_STORED_RESULT), known
        return self._shown[1 if self.cut or self._context.kept else 0]

    def idempotent(self, name: str) -> bool:
        return name in self._tools and self._tools[name][0].idempotent

    async def run(self, call: ToolCallPart, stile: Stile, offered: frozenset[str]) -> ToolOutcome:
        """The outcome of one call: every check, then the tool. Raises nothing but cancellation."""
        admitted = await self.admit(call, stile, offered)
        if isinstance(admitted, ToolOutcome):
            return admitted
        await stile.ready(call.call_id, admitted.arguments)
        return await self.perform(admitted)

    async def admit(
        self, call: ToolCallPart, patience: Patience, offered: frozenset[str]
    ) -> ToolCallContent | ToolOutcome:
        """Every check: the call as it may run, or what it came to without. Raises nothing but cancellation."""
        arguments = call.arguments
        try:
            if refusal := self._refusal(call.name, arguments, offered):
                return refusal
            content = ToolCallContent.made(call_id=call.call_id, name=call.name, arguments=dict(arguments))
            if self._turn is not None:
                guarded = await self._turn.guard_tool(content)
                if isinstance(guarded, Block):
                    return ToolOutcome("denied", f"Not allowed: {guarded.reason}")
                if guarded is not content and guarded != content:
                    if not isinstance(guarded, ToolCallContent) or guarded.name != call.name:
                        return ToolOutcome(
                            "denied", "Not run: a guard may change the arguments of a call, not its tool"
                        )
                    content, arguments = content.replaced(arguments=guarded.arguments), guarded.arguments
                    if refusal := self._refusal(call.name, arguments, offered):
                        return refusal
            if self._is_recorded(call.name):
                return content
            if self._tools[call.name][0].needs_approval and (refusal := await self._approval(content, patience)):
                return refusal
        except Exception:  # noqa: BLE001 - guards are other people's code; what cannot be decided is refused
            _log.exception('deciding about the tool "%s" failed', call.name)
            return ToolOutcome("denied", _UNDECIDED)
        return self._charge() or content

    def perform(self, content: ToolCallContent) -> Awaitable[ToolOutcome]:
        """The tool itself, for what `admit` has let through and whose intent is durable. Raises nothing but
        cancellation."""
        return self._recorded(content) if self._is_recorded(content.name) else self._execute(content)

    async def again(self, call: ToolCallContent) -> ToolOutcome | None:
        """The outcome of a call that a crash has cut, run again under its key; None when it may not be run again. What
        was approved then is the very same call; everything else is asked anew."""
        try:
            if self._rules.answers is not None:
                return await self._recorded(call)
            if not self.idempotent(call.name) or self._refusal(call.name, call.arguments, frozenset(self._tools)):
                return None
            # With other arguments it would be another call, under a key which is already used up.
            if self._turn is not None and await self._turn.guard_tool(call) != call:
                return None
        except Exception:  # noqa: BLE001 - guards are other people's code; what cannot be decided is refused
            _log.exception('deciding about the tool "%s" failed', call.name)
            return None
        return await self._execute(call, at_most=RERUN_S)

    def _is_recorded(self, name: str) -> bool:
        return self._rules.answers is not None and name != READ_STORED_RESULT

    def _barred(self, name: str) -> str | None:
        bars = self._bars
        if name not in bars:
            bars[name] = self._judged(name)
        return bars[name]

    def _judged(self, name: str) -> str | None:
        rules = self._rules
        if rules.allowed is not None and name not in rules.allowed:
            return f'the tool "{name}" is not part of this room\'s tools'
        return rules.policy.refusal(name, rules.roles, rules.assurance)

    def _refusal(self, name: str, arguments: dict[str, Any], offered: frozenset[str]) -> ToolOutcome | None:
        found = self._tools.get(name)
        if found is None or name not in offered:
            if reason := self._barred(name) if found else None:
                return ToolOutcome("denied", f"Not run: {reason}")
            close = difflib.get_close_matches(name, offered, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            return ToolOutcome("failed", f'Not run: there is no tool "{name}".{hint}')
        if reason := self._barred(name):
            return ToolOutcome("denied", f"Not run: {reason}")
        spec, source = found
        if problem := source.check(spec, arguments):
            return ToolOutcome("failed", f"Not run: {problem}. Correct the arguments and call again.")
        return None

    def _charge(self) -> ToolOutcome | None:
        """Counts the call; checked and counted in one step, so that calls side by side cannot slip through together."""
        budget, tenant, room_id = self._rules.budget, self._context.tenant, self._context.room_id
        if budget is None:
            return None
        if reason := budget.refusal(tenant, room_id, "tool_calls"):
            return ToolOutcome("denied", f"Not run: {reason}")
        budget.spend_tool_call(tenant, room_id)
        budget.keep(self._turn, tenant, room_id)
        return None

    async def _approval(self, content: ToolCallContent, patience: Patience) -> ToolOutcome | None:
        if self._turn is None:
            return ToolOutcome("denied", "Not run: this tool needs a person's approval and nobody can be asked here.")
        patience.pause()
        try:
            answer = await self._turn.approve(content, expires_s=self._rules.approval_expires_s)
        finally:
            patience.resume()
        if answer.granted:
            return None
        if answer.expired:
            return ToolOutcome("denied", "Not run: nobody approved it in time.")
        reason = f": {answer.reason}" if answer.reason else ""
        return ToolOutcome("denied", f"Not run: {answer.by or 'a person'} refused it{reason}")

    async def _recorded(self, content: ToolCallContent) -> ToolOutcome:
        """Of a fork: what the same call came to in the original."""
        try:
            found = await self._rules.answers(content) if self._rules.answers is not None else None
        except Exception:  # noqa: BLE001 - as in `admit`
            _log.exception('looking up what the tool "%s" came to failed', content.name)
            return ToolOutcome("denied", _UNDECIDED)
        if found is None or found.status == "pending":
            told = "Not run: this is a copy of a conversation, and no such call was made in the original."
            return ToolOutcome("failed", told, arguments=content.arguments)
        text = (found.result if found.error is None else found.error) or ""
        output = shown(content.call_id, content.name, text)
        if output != text:
            self._context.kept[content.call_id] = text
        return ToolOutcome(found.status, output, record=recorded(text), arguments=content.arguments)

    async def _execute(self, content: ToolCallContent, *, at_most: float | None = None) -> ToolOutcome:
        spec, source = self._tools[content.name]
        context = for_call(self._context, content.call_id)
        seconds = spec.timeout_s if spec.timeout_s is not None else self._rules.timeout_s
        if at_most is not None:
            seconds = min(at_most, at_most if seconds is None else seconds)
        started = monotonic()
        try:
            if self._turn is not None:
                await self._turn.tool_progress(content)
            value = await bounded(source.run(spec.name, content.arguments, context), seconds, spec.name)
            text, images = render(value)
            status, output = "completed", shown(content.call_id, spec.name, text)
            if output != text:
                context.kept[content.call_id] = text
        except ToolError as error:
            status, text, images = "failed", str(error), ()
            output = shown(content.call_id, spec.name, text)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            status, images = "failed", ()  # swallows cancellation: nobody asked for it, the tool broke by itself
            output = text = f"the tool failed ({type(error).__name__})"
        except TimeoutError as error:
            status, images = "failed", ()
            output = text = f"{error}; it may have taken effect all the same"
        except Exception as error:  # noqa: BLE001 - other people's code; its message may hold secrets
            _log.exception('the tool "%s" failed', spec.name)
            status, images = "failed", ()
            output = text = f"the tool failed ({type(error).__name__})"
        return ToolOutcome(
            cast("Any", status),
            output,
            images=images,
            record=recorded(text),
            arguments=content.arguments,
            duration_ms=round((monotonic() - started) * 1000),
        )
