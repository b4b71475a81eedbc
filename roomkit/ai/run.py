"""The driver of a reply: one code path from any provider's stream, through the loop, to the room.

Everything that can change a reply from outside (a finished tool, a directive, the deadline) tells the pure loop at
once and leaves the effects in one list; the generator that the room pulls carries them out, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine, Iterable, Sequence
from contextlib import nullcontext
from contextvars import Context, copy_context
from typing import Any, TypeVar

from roomkit.ai.budget import Budget
from roomkit.ai.gate import ToolGate
from roomkit.ai.loop import (
    Effect,
    EmitText,
    EmitThinking,
    Finish,
    RunTools,
    StartGeneration,
    StepTool,
    ToolLoop,
    ToolOutcome,
)
from roomkit.errors import BadResponse, ProviderError
from roomkit.models.ai import COUNTERS, AIEvent, AIRequest, Finished, ToolCallPart, ToolSpec
from roomkit.models.content import ToolCallContent, valid_text
from roomkit.models.hooks import Block
from roomkit.models.steering import SteeringDirective
from roomkit.models.stream import ReplyEnd, ReplyPart, TextDelta, ThinkingDelta, ToolStep
from roomkit.ports.ai import AIProvider
from roomkit.ports.channel import TurnPort
from roomkit.runtime import Scope, Wakeup, monotonic, span_names
from roomkit.runtime.bounded import resume
from roomkit.runtime.eager import Eager
from roomkit.runtime.tracing import OFF, Attribute, Span, current

T = TypeVar("T")

_log = logging.getLogger("roomkit.ai")
_GRACE_S = 5.0
_BREATH_S = 0.01
"""A reply whose model, tools and store never wait lets others run between two rounds after so long."""
_UNTRACED = nullcontext()
_LONG = "the reply %s in room %s is in tool round %d"


class Reply:
    """One reply of one channel in one room. Iterate `parts()` once; `steer` it from any coroutine of the loop."""

    def __init__(
        self,
        loop: ToolLoop,
        providers: Sequence[AIProvider],
        gate: ToolGate,
        *,
        room: tuple[str, str],
        turn: TurnPort | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.loop = loop
        self.tenant, self.room_id = room
        self._providers = providers
        self._gate = gate
        self._turn = turn
        self._budget = budget
        self._effects: deque[Effect] = deque()
        self._wake = Wakeup()
        self._tools = Scope(f"tools of {loop.loop_id}")
        self._eager = Eager(self._tools)
        self._admitted: dict[str, tuple[ToolCallContent, Span, Context]] = {}
        """Calls whose intent the room is making durable: each is run in the context in which it was admitted."""
        self._offered: frozenset[str] = frozenset()
        self._offered_of: tuple[ToolSpec, ...] = ()
        self._asked: StartGeneration | None = None
        self._stream: AsyncIterator[AIEvent] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._broken = False
        self._provider = 0
        self._turned_at = monotonic()
        self._tool_spans: list[Span] = []
        self._above = current()
        self._span = OFF

    def steer(self, directive: SteeringDirective) -> None:
        """A `Cancel` takes effect at once, wherever the reply waits; other directives before the next round."""
        self._tell(self.loop.steer(directive))

    async def parts(self) -> AsyncGenerator[ReplyPart]:
        """What the room commits and shows; last a `ReplyEnd`. Closing it stops tools and provider."""
        self._tell(self.loop.start())
        self._arm()
        try:
            while True:
                while not self._effects:
                    await self._advance()
                effect = self._effects.popleft()
                if isinstance(effect, EmitText):
                    yield TextDelta(effect.text)
                elif isinstance(effect, StepTool):
                    call = effect.call
                    yield ToolStep(call, self._gate.idempotent(call.name))
                    if call.status == "pending":
                        self._perform(call.call_id)  # The room has made the intent durable: the tool may run.
                elif isinstance(effect, StartGeneration):
                    self._asked = effect
                elif isinstance(effect, RunTools):
                    for each in effect.calls:
                        self._eager.start(self._admit(each))
                elif isinstance(effect, EmitThinking):
                    yield ThinkingDelta(effect.text)
                elif isinstance(effect, Finish):
                    yield ReplyEnd(effect.reason, effect.usage, effect.error, effect.metadata)
                    return
                else:
                    _log.warning(_LONG, self.loop.loop_id, self.room_id, effect.rounds)
        finally:
            await self._close()

    # -- while a person is asked --------------------------------------------------------------------------------

    def pause(self) -> None:
        self.loop.pause(monotonic())
        self._arm()

    def resume(self) -> None:
        self.loop.resume(monotonic())
        self._arm()

    # -- effects ------------------------------------------------------------------------------------------------

    def _tell(self, effects: Iterable[Effect]) -> None:
        self._effects.extend(effects)
        self._wake.set()
        waiting = self._waiting
        if waiting is not None and self.loop.done and not self._broken and not _running(waiting):
            self._broken = True
            waiting.cancel()

    async def _admit(self, call: ToolCallPart) -> None:
        """Up to the intent to run the tool, which the room makes durable before anything is run (R8)."""
        span = self._tool_span(call)
        admitted = await _under(span, self._gate.admit(call, self, self._offered))
        if isinstance(admitted, ToolOutcome):
            self._tool_done(call.call_id, admitted, span)
        else:
            self._admitted[call.call_id] = admitted, span, copy_context()
            self._tell(self.loop.tool_started(call.call_id, step=admitted))

    def _perform(self, call_id: str) -> None:
        admitted = self._admitted.pop(call_id, None)
        if admitted is not None and not self.loop.done:
            content, span, context = admitted
            context.run(self._eager.start, self._run_tool(content, span))

    async def _run_tool(self, content: ToolCallContent, span: Span) -> None:
        outcome = await _under(span, self._gate.perform(content))
        self._tool_done(content.call_id, outcome, span)

    def _tool_done(self, call_id: str, outcome: ToolOutcome, span: Span) -> None:
        if span is not OFF:
            span.set(span_names.TOOL_STATUS, outcome.status)
            if outcome.status == "failed":
                span.fail("ToolError")
            span.end()
        if not outcome.output.isascii():  # What the model is told now is what the log will hold.
            outcome = outcome._replace(output=valid_text(outcome.output))
        if self.loop.tools:
            self.loop.tools = self._gate.specs
        self._tell(self.loop.tool_done(call_id, outcome))

    # -- waiting ------------------------------------------------------------------------------------------------

    async def _advance(self) -> None:
        """Waits for the next thing to happen and tells the loop."""
        if self._asked is None and self._stream is None:
            await self._wake.wait()
            return
        work = self._next_event()
        try:
            try:
                waiting_for = work.send(None)
            except StopIteration as stop:
                event: AIEvent | None = stop.value
            else:
                event = await self._unless_done(work, waiting_for)
        except ProviderError as error:
            self._span.fail(error)
            await self._close_stream()
            self._tell(self.loop.failed(error))
        except Exception as error:  # noqa: BLE001 - other people's code, and a reply ends with a reason on every exit
            self._span.fail(error)
            _log.exception("the reply %s broke", self.loop.loop_id)
            await self._close_stream()
            self._tell(self.loop.stop("error", f"the provider failed ({type(error).__name__})"))
        else:
            if event is not None and (effects := self.loop.hear(event)):
                self._tell(effects)
            if event is None or isinstance(event, Finished):
                await self._close_stream()

    async def _next_event(self) -> AIEvent | None:
        if self._asked is not None:
            asked, self._asked = self._asked, None
            if not await self._open_stream(asked):
                return None
        assert self._stream is not None
        try:
            event = await _under(self._span, anext(self._stream))
        except StopAsyncIteration:
            raise BadResponse(self._name(), "the stream ended without saying why") from None
        if isinstance(event, Finished):
            self._spent(event)
        return event

    def _spent(self, finished: Finished) -> None:
        usage = {counter: getattr(finished.usage, counter) for counter in COUNTERS}
        span = self._span
        money = 0.0
        if self._budget is not None:
            money = self._budget.spend_tokens(self.tenant, self.room_id, usage, finished.model)
            self._budget.keep(self._turn, self.tenant, self.room_id)
        if self._turn is not None:
            self._turn.spent(usage, finished.model, money)
        if span is OFF:
            return
        span.set(span_names.GEN_AI_RESPONSE_MODEL, finished.model)
        span.set(span_names.GEN_AI_FINISH_REASONS, (finished.reason,))
        for counter, name in span_names.GEN_AI_USAGE.items():
            span.set(name, usage[counter] or None)

    async def _open_stream(self, asked: StartGeneration) -> bool:
        self._provider = asked.provider
        now = monotonic()
        if asked.delay or now - self._turned_at > _BREATH_S:
            self._turned_at = now
            await asyncio.sleep(asked.delay)
        if self._budget and (reason := self._budget.refusal(self.tenant, self.room_id, "tokens", "money")):
            self._tell(self.loop.stop("force_stopped", reason, limit="budget"))
            return False
        request = asked.request
        if self._turn is not None:
            guarded = await self._turn.guard_generation(request)
            if isinstance(guarded, Block):
                self._tell(self.loop.stop("force_stopped", guarded.reason, blocked=True))
                return False
            request = guarded
        tools = request.tools if request.tool_choice != "none" else ()
        if tools is not self._offered_of:
            self._offered_of, self._offered = tools, frozenset(spec.name for spec in tools)
        self._span = self._generation_span(request)
        with self._span.current() if self._span is not OFF else _UNTRACED:
            self._stream = self._providers[asked.provider].stream(request)
        return True

    def _generation_span(self, request: AIRequest) -> Span:
        if self._above is OFF:
            return OFF
        provider = self._providers[self._provider]
        model = request.model or getattr(provider, "model", None)
        known: dict[str, Attribute] = {
            span_names.GEN_AI_OPERATION: span_names.GENERATION,
            span_names.GEN_AI_PROVIDER: provider.name,
            span_names.GEN_AI_CONVERSATION: self.room_id,
        }
        if isinstance(model, str):
            known[span_names.GEN_AI_REQUEST_MODEL] = model
        return self._above.child(f"{span_names.GENERATION} {model or provider.name}", "client", known)

    def _tool_span(self, call: ToolCallPart) -> Span:
        """Its name is the model's own invention unless the tool was offered."""
        if self._above is OFF:
            return OFF
        name = call.name if call.name in self._offered else "unknown"
        known: dict[str, Attribute] = {
            span_names.GEN_AI_OPERATION: span_names.TOOL,
            span_names.GEN_AI_TOOL_NAME: name,
            span_names.GEN_AI_TOOL_CALL_ID: call.call_id,
        }
        span = self._above.child(f"{span_names.TOOL} {name}", "internal", known)
        self._tool_spans.append(span)
        return span

    def _name(self) -> str:
        return self._providers[self._provider].name

    async def _unless_done(self, work: Coroutine[Any, Any, T], waiting_for: Any) -> T | None:
        """Goes on with `work` in this very task, but gives up (None) as soon as the loop is done: cancelled or out of
        time. It is the mechanism of `asyncio.timeout`, pulled by an event and not a clock: no task and no timer a
        chunk."""
        task = asyncio.current_task()
        assert task is not None, "a generator that waits is driven by a task"
        cancelling = task.cancelling()
        self._broken, self._waiting = self.loop.done, task
        if self._broken:
            task.cancel()
        try:
            return await resume(work, waiting_for)
        except asyncio.CancelledError:
            if self._broken and task.uncancel() <= cancelling:
                self._broken = False
                return None
            self._broken = False
            raise
        finally:
            self._waiting = None
            if self._broken:  # It ended otherwise after the request to stop: take the request back.
                task.uncancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.loop.deadline
        if deadline is not None and not self.loop.done:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        deadline = self.loop.deadline
        if deadline is not None:  # Timers may fire a clock tick early.
            self._tell(self.loop.expire(max(deadline, monotonic())))

    # -- the end ------------------------------------------------------------------------------------------------

    async def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        close = getattr(stream, "aclose", None)
        try:
            if close is not None:
                await close()
        except ProviderError:
            _log.warning("closing a stream of %s failed", self._name(), exc_info=True)
        finally:
            if self._span is not OFF:
                self._span.end()
                self._span = OFF

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tell(self.loop.stop("cancelled"))
        try:
            await self._close_stream()
        finally:
            try:
                await self._tools.aclose(_GRACE_S)
            except TimeoutError:
                _log.error("a tool of %s does not stop when cancelled", self.loop.loop_id)
            for span in self._tool_spans:
                span.set(span_names.CANCELLED, True)  # None of those that have ended.
                span.end()


def _under(span: Span, work: Awaitable[T]) -> Awaitable[T]:
    return work if span is OFF else _traced(span, work)


async def _traced(span: Span, work: Awaitable[T]) -> T:
    with span.current():
        return await work


def _running(task: asyncio.Task[Any]) -> bool:
    """True inside the task itself, false in other tasks and in callbacks of the loop."""
    return asyncio.current_task() is task
