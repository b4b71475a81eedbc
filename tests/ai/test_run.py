"""The driver: what the loop decides really happens, at once, and nothing is left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

from roomkit.ai.budget import Budget, SpendLimits
from roomkit.ai.policy import ToolPolicy
from roomkit.ai.tools import Toolbox, tool
from roomkit.channels.ai import AIChannel
from roomkit.errors import RateLimited, ToolFailed, ToolRetry, Unavailable
from roomkit.models.ai import AIEvent, AIProfile, AIRequest, TextChunk, ThinkingChunk
from roomkit.models.content import ToolCallContent
from roomkit.models.hooks import Block
from roomkit.models.steering import Cancel, InjectMessage, UpdateSystemPrompt
from roomkit.models.stream import ReplyEnd, TextDelta, ThinkingDelta, ToolStep
from roomkit.net.retry import RetryPolicy
from roomkit.ports.channel import ApprovalAnswer
from roomkit.runtime import Scope, monotonic
from roomkit.testing.ai import ScriptedAI, call
from tests.ai.rooms import Talk, assert_paired, end_of, results_of, steps_of, text_of


class Slow:
    """A tool that takes as long as it is told, and remembers who started and who was stopped."""

    def __init__(self) -> None:
        self.started: list[float] = []
        self.finished: list[float] = []
        self.stopped: list[float] = []

    @property
    def box(self) -> Toolbox:
        @tool
        async def work(seconds: float, reply: str = "done") -> str:
            """Works for a while."""
            self.started.append(seconds)
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.stopped.append(seconds)
                raise
            self.finished.append(seconds)
            return reply

        return Toolbox([work])


async def test_chunks_come_out_one_by_one_as_they_come_in() -> None:
    ai = ScriptedAI([ThinkingChunk("hm"), "Hel", 1.0, "lo"])
    talk, channel = Talk(), AIChannel("ai", ai)
    begun = monotonic()
    seen = [(monotonic() - begun, part) async for part in await talk.open(channel, talk.event("hi"))]
    assert seen[:3] == [(0.0, ThinkingDelta("hm")), (0.0, TextDelta("Hel")), (1.0, TextDelta("lo"))]
    assert end_of([part for _, part in seen]).reason == "completed"
    assert ai.opened == ai.closed == 1


async def test_tools_run_side_by_side_and_results_stand_in_call_order() -> None:
    slow = Slow()
    ai = ScriptedAI([call("work", "a", seconds=5, reply="A"), call("work", "b", seconds=1, reply="B")], "ok")
    talk, channel = Talk(), AIChannel("ai", ai, tool_handler=slow.box)
    begun = monotonic()
    parts = await talk.say(channel)
    assert monotonic() - begun == 5
    assert [(p.call.call_id, p.call.status) for p in parts if isinstance(p, ToolStep)] == [
        ("a", "pending"),
        ("b", "pending"),
        ("b", "completed"),
        ("a", "completed"),
    ]
    assert results_of(ai.requests[1]) == ["A", "B"]


async def test_a_tool_runs_only_after_its_intent_was_taken() -> None:
    slow = Slow()
    talk = Talk()
    channel = AIChannel("ai", ScriptedAI([call("work", seconds=1)], "ok"), tool_handler=slow.box)
    stream = await talk.open(channel, talk.event("hi"))
    step = await anext(stream)
    assert isinstance(step, ToolStep)
    assert step.call.status == "pending"
    await asyncio.sleep(10)  # The room is slow to commit.
    assert slow.started == []
    rest = [part async for part in stream]
    assert slow.finished == [1]
    assert end_of(rest).reason == "completed"


@pytest.mark.parametrize("where", ["text", "silence", "delay", "tool", "approval", "guard"])
async def test_cancel_wakes_the_reply_wherever_it_waits(where: str) -> None:
    slow = Slow()
    rounds: dict[str, list[Any]] = {
        "text": ["Once upon", 100.0, "a time"],
        "silence": [100.0],
        "delay": [RateLimited("scripted", "later", retry_after=100)],
        "tool": ["Let me see. ", call("work", seconds=100)],
        "approval": [call("work", seconds=1)],
        "guard": ["never"],
    }
    talk = Talk()
    assert talk.turn is not None
    ai = ScriptedAI(rounds[where])
    channel = AIChannel("ai", ai, tool_handler=slow.box, retry_policy=RetryPolicy())
    if where == "approval":
        box = Toolbox([tool(name="work", needs_approval=True)(_work)])
        channel.tool_handler = box
        talk.turn.answer = lambda _: asyncio.sleep(100, ApprovalAnswer(True))
    if where == "guard":

        async def slowly(request: AIRequest) -> AIRequest:
            return await asyncio.sleep(100, request)

        talk.turn.guard_generation = slowly  # type: ignore[method-assign]
    async with Scope("test") as scope:
        event = talk.event("hi")
        stream = await talk.open(channel, event)
        reading = scope.spawn(_all(talk.keep(stream)), name="reader", awaited=True)
        await asyncio.sleep(3)
        begun = monotonic()
        channel.steer(Cancel("enough"))
        parts = await reading
        assert monotonic() == begun
    end = end_of(parts)
    assert (end.reason, end.error) == ("cancelled", "enough")
    assert ai.opened == ai.closed
    assert slow.stopped == ([100] if where == "tool" else [])
    assert channel.active_loops == {}
    if where == "text":
        assert text_of(parts) == "Once upon"
    if where == "tool":
        assert steps_of(parts) == [("work", "pending"), ("work", "cancelled")]


async def _work(seconds: float) -> str:
    return "done"


async def _all(stream: AsyncIterator[Any]) -> list[Any]:
    return [part async for part in stream]


async def test_cancel_between_intent_and_run_does_not_run_the_tool() -> None:
    slow = Slow()
    talk = Talk()
    channel = AIChannel("ai", ScriptedAI([call("work", seconds=1)]), tool_handler=slow.box)
    stream = await talk.open(channel, talk.event("hi"))
    await anext(stream)
    channel.steer(Cancel())
    rest = [await anext(stream)]
    await asyncio.sleep(1)  # The room is slow to commit.
    rest += [part async for part in stream]
    assert steps_of(rest) == [("work", "cancelled")]
    await asyncio.sleep(10)
    assert slow.started == []


async def test_a_result_that_was_finished_is_kept_on_cancel() -> None:
    slow = Slow()
    talk = Talk()
    ai = ScriptedAI([call("work", "a", seconds=1, reply="paid"), call("work", "b", seconds=50)])
    channel = AIChannel("ai", ai, tool_handler=slow.box)
    stream = await talk.open(channel, talk.event("hi"))
    first = [await anext(stream), await anext(stream)]
    await asyncio.sleep(0.1)  # Both intents are taken only when the reader asks on.
    async with Scope("test") as scope:
        reading = scope.spawn(_all(stream), name="reader", awaited=True)
        await asyncio.sleep(5)
        channel.steer(Cancel())
        parts = [*first, *await reading]
    states = {p.call.call_id: (p.call.status, p.call.result) for p in parts if isinstance(p, ToolStep)}
    assert states == {"a": ("completed", "paid"), "b": ("cancelled", None)}


async def test_closing_or_cancelling_the_reader_stops_tools_and_provider() -> None:
    for how in ("close", "cancel"):
        slow = Slow()
        ai = ScriptedAI(["Working. ", call("work", seconds=100)])
        talk, channel = Talk(), AIChannel("ai", ai, tool_handler=slow.box)
        stream = await talk.open(channel, talk.event("hi"))
        if how == "close":
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
            assert slow.started == []
        else:
            async with Scope("reader") as scope:
                scope.spawn(_all(stream), name="reader")
                await asyncio.sleep(5)
            assert slow.stopped == [100]
            await stream.aclose()  # type: ignore[attr-defined]
        assert ai.opened == ai.closed == 1
        assert channel.active_loops == {}


async def test_the_wall_clock_ends_a_reply_in_text_and_in_tools() -> None:
    for item in (100.0, call("work", seconds=100)):
        slow = Slow()
        talk = Talk()
        channel = AIChannel("ai", ScriptedAI(["Hm.", item]), tool_handler=slow.box, tool_loop_timeout_seconds=7)
        begun = monotonic()
        parts = await talk.say(channel)
        assert monotonic() - begun == 7
        assert end_of(parts).reason == "timeout"
        assert text_of(parts) == "Hm."
        assert steps_of(parts) in ([], [("work", "pending"), ("work", "cancelled")])


async def test_the_wall_clock_waits_for_people() -> None:
    talk = Talk()
    assert talk.turn is not None
    talk.turn.answer = lambda _: asyncio.sleep(3000, ApprovalAnswer(True, "ann"))
    box = Toolbox([tool(needs_approval=True)(_work)])
    channel = AIChannel(
        "ai", ScriptedAI([call("_work", seconds=1)], "ok"), tool_handler=box, tool_loop_timeout_seconds=7
    )
    parts = await talk.say(channel)
    assert end_of(parts).reason == "completed"
    assert steps_of(parts) == [("_work", "pending"), ("_work", "completed")]


async def test_the_wall_clock_goes_on_when_people_have_answered() -> None:
    talk = Talk()
    assert talk.turn is not None
    talk.turn.answer = lambda _: asyncio.sleep(3000, ApprovalAnswer(True, "ann"))
    slow = Slow()
    (work,) = slow.box._tools.values()
    box = Toolbox([tool(name="work", needs_approval=True)(work.function)])
    ai = ScriptedAI([2.0, call("work", seconds=100)])
    begun = monotonic()
    parts = await talk.say(AIChannel("ai", ai, tool_handler=box, tool_loop_timeout_seconds=7))
    assert end_of(parts).reason == "timeout"
    assert monotonic() - begun == 3007


async def test_retry_waits_as_long_as_the_vendor_says() -> None:
    ai = ScriptedAI([RateLimited("scripted", "busy", retry_after=30)], "Hello")
    talk, channel = Talk(), AIChannel("ai", ai, retry_policy=RetryPolicy(jitter=0))
    begun = monotonic()
    parts = await talk.say(channel)
    assert (monotonic() - begun, text_of(parts)) == (30, "Hello")


async def test_the_fallback_takes_over_when_nothing_was_said() -> None:
    broken = ScriptedAI([Unavailable("scripted", "down")], repeat=True)
    other = ScriptedAI("Hello", name="other")
    talk = Talk()
    channel = AIChannel("ai", broken, retry_policy=RetryPolicy(max_retries=2), fallback_provider=other)
    parts = await talk.say(channel)
    assert (text_of(parts), len(broken.requests)) == ("Hello", 3)
    assert end_of(parts).metadata["provider"] == "other"


async def test_an_error_after_the_first_words_keeps_them_and_ends_as_error() -> None:
    ai = ScriptedAI(["Dear cus", Unavailable("scripted", "cut")], "Dear customer")
    talk, channel = Talk(), AIChannel("ai", ai, retry_policy=RetryPolicy(), fallback_provider=ScriptedAI("Dear"))
    parts = await talk.say(channel)
    assert text_of(parts) == "Dear cus"
    end = end_of(parts)
    assert (end.reason, end.error) == ("error", "scripted: cut")


@pytest.mark.parametrize("trouble", ["bug", "silent end"])
async def test_a_broken_provider_ends_the_reply_with_a_reason(trouble: str) -> None:
    class Broken:
        name = "broken"
        profile = AIProfile()

        async def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
            yield TextChunk("Hi")
            if trouble == "bug":
                raise KeyError("token=hush")

        async def aclose(self) -> None: ...

    talk = Talk()
    parts = await talk.say(AIChannel("ai", Broken()))
    end = end_of(parts)
    assert end.reason == "error"
    assert "hush" not in str(end)
    assert text_of(parts) == "Hi"


async def test_steering_reaches_the_next_round() -> None:
    slow = Slow()
    ai = ScriptedAI([call("work", seconds=5)], "ok")
    talk, channel = Talk(), AIChannel("ai", ai, "Be kind.", tool_handler=slow.box)
    async with Scope("test") as scope:
        reading = scope.spawn(talk.say(channel), name="reader", awaited=True)
        await asyncio.sleep(1)
        channel.steer(InjectMessage("Offer a refund."))
        channel.steer(UpdateSystemPrompt("Speak French."))
        await reading
    assert ai.requests[1].messages[-1].text == "Offer a refund."
    assert ai.requests[1].system == "Be kind.\n\nSpeak French."
    assert channel.system_prompt == "Be kind."


async def test_failing_tools_are_told_to_the_model_without_secrets() -> None:
    @tool
    async def fail(how: str) -> str:
        """Fails."""
        match how:
            case "retry":
                raise ToolRetry("use a real number")
            case "failed":
                raise ToolFailed("the shop is closed")
            case _:
                raise RuntimeError("password=hush")

    ai = ScriptedAI([call("fail", how="retry"), call("fail", how="failed"), call("fail", how="bug")], "ok")
    talk, channel = Talk(), AIChannel("ai", ai, tool_handler=Toolbox([fail]))
    parts = await talk.say(channel)
    assert results_of(ai.requests[1]) == ["use a real number", "the shop is closed", "the tool failed (RuntimeError)"]
    assert [status for _, status in steps_of(parts)].count("failed") == 3
    assert "hush" not in str(parts)


@pytest.mark.parametrize("waits", [0, 3])
async def test_a_tool_that_breaks_by_a_cancellation_of_its_own_has_failed(waits: int) -> None:
    @tool
    async def give_up() -> str:
        """Waits for something that is cancelled."""
        if waits:
            await asyncio.sleep(waits)
        raise asyncio.CancelledError

    ai = ScriptedAI([call("give_up")], "ok")
    parts = await Talk().say(AIChannel("ai", ai, tool_handler=Toolbox([give_up])))
    assert results_of(ai.requests[1]) == ["the tool failed (CancelledError)"]
    assert steps_of(parts) == [("give_up", "pending"), ("give_up", "failed")]
    assert end_of(parts).reason == "completed"


async def test_tools_that_answer_at_once_end_after_all_of_their_round_have_begun() -> None:
    ran: list[str] = []

    @tool
    async def note(word: str) -> str:
        """Notes a word."""
        ran.append(word)
        return word

    ai = ScriptedAI([call("note", "a", word="A"), call("note", "b", word="B")], "ok")
    talk, channel = Talk(), AIChannel("ai", ai, tool_handler=Toolbox([note]))
    parts = await talk.open(channel, talk.event("hi"))
    steps = [(p.call.call_id, p.call.status, len(ran)) async for p in parts if isinstance(p, ToolStep)]
    assert steps == [("a", "pending", 0), ("b", "pending", 1), ("a", "completed", 2), ("b", "completed", 2)]
    assert results_of(ai.requests[1]) == ["A", "B"]


def test_a_reply_that_never_waits_lets_others_run() -> None:
    @tool
    async def dawdle(number: int) -> str:
        """Keeps the loop to itself."""
        until = time.perf_counter() + 0.004
        while time.perf_counter() < until:
            pass
        return str(number)

    async def main() -> None:
        turns: list[int] = []
        asyncio.get_running_loop().call_soon(lambda: turns.append(len(ai.requests)))
        await Talk().say(AIChannel("ai", ai, tool_handler=Toolbox([dawdle])))
        assert turns
        assert turns[0] < 8

    ai = ScriptedAI(*([call("dawdle", number=number)] for number in range(8)), "ok")
    asyncio.run(main())  # On a loop whose clock goes on meanwhile.


async def test_a_tool_runs_in_the_context_in_which_its_guard_has_judged() -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")

    @tool
    async def whoami() -> str:
        """Tells who it runs for."""
        return who.get()

    def guard(asked: ToolCallContent) -> ToolCallContent:
        who.set("ann")
        return asked

    talk, ai = Talk(), ScriptedAI([call("whoami")], "ok")
    assert talk.turn is not None
    talk.turn.guard = guard
    await talk.say(AIChannel("ai", ai, tool_handler=Toolbox([whoami])))
    assert results_of(ai.requests[1]) == ["ann"]
    assert who.get() == "nobody"


async def test_a_tool_has_its_own_time_limit() -> None:
    slow = Slow()
    (work,) = slow.box._tools.values()
    box = Toolbox([tool(name="work", timeout_s=2)(work.function)])
    ai = ScriptedAI([call("work", seconds=100)], "ok")
    talk = Talk()
    await talk.say(AIChannel("ai", ai, tool_handler=box))
    assert results_of(ai.requests[1]) == ["work took longer than 2 s; it may have taken effect all the same"]
    assert slow.stopped == [100]
    other = AIChannel("ai", ScriptedAI([call("work", seconds=100)], "ok"), tool_handler=slow.box)
    begun = monotonic()
    await talk.say(other.configure(tool_timeout_s=3))
    assert monotonic() - begun == 3


async def test_guards_may_stop_a_generation() -> None:
    talk = Talk()
    assert talk.turn is not None
    talk.turn.guard_request = lambda request: Block("off hours")
    ai = ScriptedAI("never")
    end = end_of(await talk.say(AIChannel("ai", ai)))
    assert (end.reason, end.error, end.metadata["blocked"]) == ("force_stopped", "off hours", True)
    assert ai.opened == 0


async def test_guards_may_change_a_generation_and_take_its_tools_away() -> None:
    talk = Talk()
    assert talk.turn is not None
    talk.turn.guard_request = lambda request: request.model_copy(update={"max_tokens": 7, "tools": ()})
    slow = Slow()
    ai = ScriptedAI([call("work", seconds=1)], "ok")
    await talk.say(AIChannel("ai", ai, tool_handler=slow.box))
    assert (ai.requests[0].max_tokens, ai.requests[0].tools) == (7, ())
    assert slow.started == []
    assert "no tool" in results_of(ai.requests[1])[0]


async def test_what_a_guard_offers_is_no_way_around_the_policy() -> None:
    slow = Slow()
    offered = slow.box.specs
    for change, policy in (({"tools": offered}, ToolPolicy(deny=("work",))), ({"tool_choice": "none"}, None)):
        talk = Talk()
        assert talk.turn is not None
        talk.turn.guard_request = lambda request, change=change: request.model_copy(update=change)
        ai = ScriptedAI([call("work", seconds=1)], "ok")
        await talk.say(AIChannel("ai", ai, tool_handler=slow.box, tool_policy=policy))
        assert slow.started == []


async def test_a_used_up_budget_stops_generations_and_tools() -> None:
    slow = Slow()
    talk = Talk()
    budget = Budget(SpendLimits(room_tokens=25, room_tool_calls=1))
    ai = ScriptedAI([call("work", seconds=0), call("work", seconds=1)], ["Hm.", call("work", seconds=2)])
    parts = await talk.say(AIChannel("ai", ai, tool_handler=slow.box).configure(budget=budget))
    end = end_of(parts)
    assert end.reason == "force_stopped"
    assert "tokens limit of this room" in (end.error or "")
    assert slow.started == [0]
    assert steps_of(parts)[-1] == ("work", "denied")
    assert len(ai.requests) == 2


async def test_the_reply_says_that_it_ends_when_a_tool_will_not_stop(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    @tool
    async def stubborn() -> str:
        """Does not listen."""
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    talk = Talk()
    channel = AIChannel(
        "ai", ScriptedAI([call("stubborn")]), tool_handler=Toolbox([stubborn]), tool_loop_timeout_seconds=1
    )
    parts = await talk.say(channel)
    assert end_of(parts).reason == "timeout"
    assert "does not stop" in caplog.text
    release.set()
    await asyncio.sleep(1)


async def test_long_replies_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    ai = ScriptedAI([call("work", seconds=0)], [call("work", seconds=1)], "ok")
    await Talk().say(AIChannel("ai", ai, tool_handler=Slow().box, tool_loop_warn_after=2))
    assert "is in tool round 2" in caplog.text


async def test_a_provider_that_ignores_its_cancellation_or_fails_to_close_still_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Deaf:
        name = "deaf"
        profile = AIProfile()

        async def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
            try:
                yield TextChunk("Hm.")
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    yield TextChunk("I go on.")
            finally:
                raise Unavailable("deaf", "cannot close")

        async def aclose(self) -> None: ...

    talk = Talk()
    channel = AIChannel("ai", Deaf(), tool_loop_timeout_seconds=5)
    parts = await talk.say(channel)
    assert (text_of(parts), end_of(parts).reason) == ("Hm.", "timeout")
    assert "closing a stream of deaf failed" in caplog.text
    await asyncio.sleep(1)  # A cancellation left behind would show here.


async def test_every_end_is_told_exactly_once() -> None:
    scripts: dict[str, list[Any]] = {
        "completed": ["Hi"],
        "empty_response": [[]],
        "error": [[Unavailable("scripted", "down")]],
        "max_rounds": [[call("work", seconds=0)], [call("work", seconds=1)], "late"],
        "timeout": [[1000.0]],
    }
    for reason, rounds in scripts.items():
        talk = Talk()
        ai = ScriptedAI(*rounds)
        parts = await talk.say(AIChannel("ai", ai, tool_handler=Slow().box, max_tool_rounds=1))
        assert end_of(parts).reason == reason
        assert isinstance(parts[-1], ReplyEnd)
        for request in ai.requests:
            assert_paired(request.messages)
