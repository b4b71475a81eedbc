"""ToolLoop: the pure machine behind every reply.

It is told what happened (`hear` an AI event, `failed`, `tool_started`, `tool_done`, `steer`, `expire`) and answers with
what to do. It waits for nothing, reads no clock and knows no vendor, so that one set of rules holds for every provider.

    StartGeneration -> hear* -> (no calls) Finish
                             -> (calls) RunTools -> tool_started/tool_done* -> StartGeneration ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, cast

from roomkit.ai.compact import compact
from roomkit.ai.draft import Draft, Speech
from roomkit.errors import ContextOverflow, ProviderError
from roomkit.models.ai import (
    COUNTERS,
    AIEvent,
    AIMessage,
    AIRequest,
    Finished,
    ImagePart,
    TextChunk,
    TextPart,
    ThinkingChunk,
    ThinkingPart,
    ToolCallChunk,
    ToolCallPart,
    ToolResultPart,
)
from roomkit.models.content import ToolCallContent
from roomkit.models.steering import Cancel, InjectMessage, SteeringDirective, UpdateSystemPrompt

Status = Literal["completed", "failed", "denied", "cancelled", "unknown_outcome"]


class Backoff(Protocol):
    """When to try a generation again; `roomkit.net.retry.RetryPolicy` is one. Times in seconds."""

    @property
    def max_retries(self) -> int: ...
    @property
    def longest_wait(self) -> float: ...
    def delay(self, attempt: int, *, retry_after: float | None = None) -> float: ...


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """`max_rounds` executions of tools (so one generation more), `timeout_s` wall clock for the whole reply without the
    time spent waiting for people, a warning after `warn_after` rounds."""

    max_rounds: int = 200
    timeout_s: float | None = 300.0
    warn_after: int = 50
    calls_per_round: int = 32
    identical_calls: int = 3


class ToolOutcome(NamedTuple):
    """What a tool call came to. `output` is for the model; `record` is the full text for the log when that differs."""

    status: Status
    output: str
    images: tuple[ImagePart, ...] = ()
    record: str | None = None
    arguments: dict[str, Any] | None = None
    duration_ms: int | None = None


# What a round is made of are tuples with names: a frozen dataclass costs several times as much to make.
class StartGeneration(NamedTuple):
    """Ask provider number `provider` after `delay` seconds."""

    request: AIRequest
    provider: int = 0
    delay: float = 0.0


class EmitText(NamedTuple):
    text: str


class EmitThinking(NamedTuple):
    text: str


class RunTools(NamedTuple):
    """Run these side by side; report each with `tool_started` and `tool_done`."""

    calls: tuple[ToolCallPart, ...]


class StepTool(NamedTuple):
    """A call changed state: pending before it runs, then exactly one final state."""

    call: ToolCallContent


@dataclass(frozen=True, slots=True)
class Warn:
    rounds: int


@dataclass(frozen=True, slots=True)
class Finish:
    reason: str
    usage: dict[str, int]
    error: str | None = None
    metadata: dict[str, Any] = field(default_factory=lambda: {})


Effect = StartGeneration | EmitText | EmitThinking | RunTools | StepTool | Warn | Finish

_NOT_STARTED = "Cancelled before it ran."
_STARTED = "Cancelled while it was running; it may have taken effect."
_REPEATED = "Not run: the same call with the same arguments was made before. Answer now with what you already know."
_SAME = "\n(The same result as last time: calling again will not change it.)"


class ToolLoop:
    """One reply. `now` is any clock in seconds that only moves forward; `providers` are names, the fallback last."""

    def __init__(
        self,
        request: AIRequest,
        *,
        now: float = 0.0,
        loop_id: str = "loop",
        limits: LoopLimits | None = None,
        providers: Sequence[str] = ("",),
        backoff: Backoff | None = None,
    ) -> None:
        self.loop_id = loop_id
        self.rounds = 0
        self.messages: list[AIMessage] = list(request.messages)
        self.system = request.system
        self.tools = request.tools
        """What the next generation is offered."""
        self.usage: dict[str, int] = {}
        self._request = request
        self._limits = limits or LoopLimits()
        self._providers = providers
        self._backoff = backoff
        self._phase: Literal["idle", "generating", "running", "done"] = "idle"
        self._ids = {part.call_id for m in request.messages for part in m.parts if isinstance(part, ToolCallPart)}
        self._steering: list[InjectMessage | UpdateSystemPrompt] = []
        self._provider = 0
        self._model: str | None = None
        self._attempt = 0
        self._compacted = False
        self._answer_now = False
        self._draft = Draft()
        self._speech = Speech()
        self._calls: dict[str, ToolCallPart] = {}
        """Of this round, in their order."""
        self._open: dict[str, bool] = {}
        self._keys: dict[str, str] = {}
        """What tells calls of this round that are the same from others."""
        self._results: dict[str, ToolResultPart] = {}
        self._seen: dict[str, int] = {}
        self._last_output: dict[str, str] = {}
        self._tool_calls = 0
        self._deadline = None if self._limits.timeout_s is None else now + self._limits.timeout_s
        self._pauses = 0
        self._paused_at = 0.0

    # -- what happened ------------------------------------------------------------------------------------------

    def start(self) -> list[Effect]:
        return [] if self._phase != "idle" else [self._generate()]

    def hear(self, event: AIEvent) -> list[Effect]:
        """One event of the running generation; events that come too late change nothing."""
        if self._phase != "generating":
            return []
        match event:
            case TextChunk(text=text):
                if not text:
                    return []
                self._draft.add(text, thinking=False)
                return [EmitText(self._speech.say(text))]
            case ThinkingChunk(text=text, signature=signature):
                self._draft.add(text, thinking=True, signature=signature)
                return [EmitThinking(text)] if text else []
            case ToolCallChunk(call=call):
                self._draft.parts.append(self._with_unique_id(call))
                return []
            case _:
                return self._generated(event)

    def failed(self, error: ProviderError) -> list[Effect]:
        """The generation broke. It is asked again only while none of its text was shown."""
        if self._phase != "generating":
            return []
        if not self._speech.begun:
            again = self._ask_again(error)
            if again is not None:
                self._draft = Draft()
                return [again]
        return self.stop("error", str(error), error_kind=type(error).__name__, retryable=error.retryable)

    def tool_started(
        self, call_id: str, arguments: dict[str, Any] | None = None, *, step: ToolCallContent | None = None
    ) -> list[Effect]:
        """All gates said yes and the call is about to run, with these arguments where a guard changed them; or as the
        `step` that the gate has made of it."""
        if self._open.get(call_id) is not False:
            return []
        self._open[call_id] = True
        if step is None:
            call = self._calls[call_id]
            given = call.arguments if arguments is None else arguments
            step = ToolCallContent.made(call_id=call_id, name=call.name, arguments=given)
        return [StepTool(step)]

    def tool_done(self, call_id: str, outcome: ToolOutcome) -> list[Effect]:
        """A call ended, run or refused. Only the first word about it counts."""
        if call_id not in self._open:
            return []
        effects: list[Effect] = [self._settle(self._calls[call_id], outcome)]
        if not self._open:
            effects.append(self._next_round())
        return effects

    def steer(self, directive: SteeringDirective) -> list[Effect]:
        """Cancel works at once; everything else waits for the next round."""
        if self._phase == "done":
            return []
        if isinstance(directive, Cancel):
            return self.stop("cancelled", directive.reason)
        self._steering.append(directive)
        return []

    def stop(self, reason: str, error: str | None = None, **metadata: Any) -> list[Effect]:
        """Ends the reply now: what was said stays, calls still open are answered, nothing more is started."""
        if self._phase == "done":
            return []
        self._keep_draft(with_calls=False)
        effects: list[Effect] = []
        for call_id, call in self._calls.items():
            if call_id in self._open:
                text = _STARTED if self._open[call_id] else _NOT_STARTED
                effects.append(self._settle(call, ToolOutcome("cancelled", text)))
        self._close_round()
        effects.append(self._finish(reason, error, **metadata))
        return effects

    # -- time ---------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When to call `expire`; None while a person is being waited for, or without a limit."""
        return None if self._pauses else self._deadline

    def pause(self, now: float) -> None:
        """A person is asked: the wall clock stands still until the matching `resume`."""
        if not self._pauses:
            self._paused_at = now
        self._pauses += 1

    def resume(self, now: float) -> None:
        self._pauses -= 1
        if not self._pauses and self._deadline is not None:
            self._deadline += now - self._paused_at

    def expire(self, now: float) -> list[Effect]:
        deadline = self.deadline
        return [] if deadline is None or now < deadline else self.stop("timeout")

    @property
    def done(self) -> bool:
        return self._phase == "done"

    # -- generations --------------------------------------------------------------------------------------------

    def _generate(self, delay: float = 0.0) -> StartGeneration:
        self._phase = "generating"
        for directive in self._steering:
            if isinstance(directive, UpdateSystemPrompt):
                self.system = "\n\n".join(filter(None, (self.system, directive.append)))
            else:
                self.messages.append(AIMessage.made(role=directive.role, parts=(TextPart(text=directive.content),)))
        self._steering = []
        changed = {"messages": tuple(self.messages), "system": self.system, "tools": self.tools}
        if self._answer_now:
            # The tools stay listed, because vendors refuse a history of calls to tools that they are not shown.
            changed["tool_choice"] = "none"
        return StartGeneration(self._request.replaced(**changed), self._provider, delay)

    def _ask_again(self, error: ProviderError) -> StartGeneration | None:
        if isinstance(error, ContextOverflow) and not self._compacted:
            smaller = compact(self.messages)
            if smaller is not None:
                self._compacted = True
                self.messages = list(smaller)
                return self._generate()
        policy = self._backoff
        patient = policy is not None and (error.retry_after or 0.0) <= policy.longest_wait
        if policy is not None and patient and error.retryable and self._attempt < policy.max_retries:
            delay = policy.delay(self._attempt, retry_after=error.retry_after)
            self._attempt += 1
            return self._generate(delay)
        if self._provider + 1 < len(self._providers):
            self._provider += 1
            self._attempt = 0
            return self._generate()
        return None

    def _generated(self, finished: Finished) -> list[Effect]:
        for counter in COUNTERS:
            if used := getattr(finished.usage, counter):
                self.usage[counter] = self.usage.get(counter, 0) + used
        self._model = finished.model or self._model
        self._attempt = 0
        self._compacted = False
        calls = [part for part in self._draft.parts if isinstance(part, ToolCallPart)]
        if not calls or finished.reason == "refusal":
            return self._answered(finished)
        if self._answer_now or self.rounds >= self._limits.max_rounds:
            return self.stop("force_stopped" if self._answer_now else "max_rounds")
        return self._call_tools(calls)

    def _answered(self, finished: Finished) -> list[Effect]:
        self._keep_draft(with_calls=False)
        self._speech.pause()
        if any(isinstance(directive, InjectMessage) for directive in self._steering):
            return [self._generate()]  # Somebody spoke up while this was being said: it gets an answer.
        if finished.reason == "length":
            reason = "truncated"
        elif self._answer_now:
            reason = "force_stopped"
        else:
            reason = "completed" if self._speech.anything else "empty_response"
        more = {} if finished.reason in ("stop", "length", "tool_calls") else {"finish": finished.reason}
        return [self._finish(reason, None, **more, **({"detail": finished.detail} if finished.detail else {}))]

    # -- tools --------------------------------------------------------------------------------------------------

    def _call_tools(self, calls: list[ToolCallPart]) -> list[Effect]:
        self._phase = "running"
        self.rounds += 1
        self._keep_draft(with_calls=True)
        self._speech.pause()
        self._calls = {call.call_id: call for call in calls}
        self._open = dict.fromkeys(self._calls, False)
        effects: list[Effect] = [Warn(self.rounds)] if self.rounds == self._limits.warn_after else []
        run: list[ToolCallPart] = []
        for position, call in enumerate(calls):
            refused = self._refuse(position, call)
            if refused is None:
                run.append(call)
            else:
                effects.append(self._settle(call, refused))
        effects.append(RunTools(tuple(run)) if run else self._next_round())
        return effects

    def _refuse(self, position: int, call: ToolCallPart) -> ToolOutcome | None:
        limit = self._limits.calls_per_round
        if position >= limit:
            return ToolOutcome("denied", f"Not run: at most {limit} calls are run in one round. Ask again for fewer.")
        if call.malformed is not None:
            return ToolOutcome("failed", "Not run: the arguments are not a JSON object. Correct them and call again.")
        key = self._keys[call.call_id] = _signature(call)
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        if seen >= self._limits.identical_calls:
            self._answer_now = True
            return ToolOutcome("denied", _REPEATED)
        return None

    def _settle(self, call: ToolCallPart, outcome: ToolOutcome) -> StepTool:
        """The call's one and only result: for the model, and as a step for the log."""
        del self._open[call.call_id]
        self._tool_calls += 1
        output, good = outcome.output, outcome.status == "completed"
        if good:
            key = self._keys[call.call_id]
            if self._last_output.get(key) == output:
                output += _SAME
            self._last_output[key] = outcome.output
        self._results[call.call_id] = ToolResultPart.made(
            call_id=call.call_id, name=call.name, output=output, is_error=not good, images=outcome.images
        )
        text = outcome.output if outcome.record is None else outcome.record
        return StepTool(
            ToolCallContent.made(
                call_id=call.call_id,
                name=call.name,
                arguments=call.arguments if outcome.arguments is None else outcome.arguments,
                status=outcome.status,
                result=text if good else None,
                error=None if good else text,
                duration_ms=outcome.duration_ms,
            )
        )

    def _next_round(self) -> StartGeneration:
        self._close_round()
        return self._generate()

    def _close_round(self) -> None:
        """Puts the results behind their calls, in the order of the calls: every call has exactly one."""
        if self._calls:
            parts = tuple([self._results[call_id] for call_id in self._calls])
            self.messages.append(AIMessage.made(role="tool", parts=parts))
        self._calls, self._keys, self._results = {}, {}, {}

    # -- the transcript -----------------------------------------------------------------------------------------

    def _with_unique_id(self, call: ToolCallPart) -> ToolCallPart:
        call_id, n = call.call_id, len(self._ids)
        while not call_id or call_id in self._ids:
            call_id, n = f"{self.loop_id}_{n}", n + 1
        self._ids.add(call_id)
        return call if call_id == call.call_id else call.model_copy(update={"call_id": call_id})

    def _keep_draft(self, *, with_calls: bool) -> None:
        parts = self._draft.finish(self._providers[self._provider] or None, with_calls=with_calls)
        for part in parts:
            if not isinstance(part, ThinkingPart):
                self.messages.append(AIMessage.made(role="assistant", parts=parts))
                break
        self._draft = Draft()

    def _finish(self, reason: str, error: str | None, **metadata: Any) -> Finish:
        self._phase = "done"
        facts: dict[str, Any] = {"rounds": self.rounds, "tool_calls": self._tool_calls}
        if self._model:
            facts["model"] = self._model
        if name := self._providers[self._provider]:
            facts["provider"] = name
        return Finish(reason, dict(self.usage), error, facts | metadata)


def _signature(call: ToolCallPart) -> str:
    return f"{call.name} {_in_order(call.arguments)!r}"


def _in_order(value: Any) -> Any:
    """The same whatever the order in which a model wrote the names."""
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        return {name: _in_order(table[name]) for name in sorted(table)}
    if isinstance(value, (list, tuple)):
        return [_in_order(one) for one in cast("list[Any]", value)]
    return value
