"""The pure tool loop: every rule of a reply, without a provider, a room or a clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roomkit.ai.compact import OMITTED
from roomkit.ai.loop import (
    Effect,
    EmitText,
    EmitThinking,
    Finish,
    LoopLimits,
    RunTools,
    StartGeneration,
    StepTool,
    ToolLoop,
    ToolOutcome,
    Warn,
)
from roomkit.errors import BadResponse, ContextOverflow, RateLimited, Unavailable
from roomkit.models.ai import (
    AIEvent,
    AIMessage,
    AIRequest,
    Finished,
    TextChunk,
    TextPart,
    ThinkingChunk,
    ThinkingPart,
    ToolCallChunk,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
    Usage,
)
from roomkit.models.steering import Cancel, InjectMessage, UpdateSystemPrompt
from roomkit.net.retry import RetryPolicy

USAGE = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=4)
DONE = ToolOutcome("completed", "ok")


def user(text: str = "hello") -> AIMessage:
    return AIMessage(role="user", parts=(TextPart(text=text),))


def call(call_id: str = "c1", name: str = "look", malformed: str | None = None, **arguments: Any) -> ToolCallPart:
    return ToolCallPart(call_id=call_id, name=name, arguments=arguments, malformed=malformed)


def end(reason: Any = "stop", usage: Usage = USAGE, **more: Any) -> Finished:
    return Finished(reason, usage, **more)


def started(*, messages: Sequence[AIMessage] = (), now: float = 0.0, **options: Any) -> ToolLoop:
    limits = options.pop("limits", None)
    request = AIRequest(messages=tuple(messages) or (user(),), system="Be kind.", tools=(ToolSpec(name="look"),))
    loop = ToolLoop(request, now=now, limits=limits, **options)
    assert isinstance(only(loop.start()), StartGeneration)
    return loop


def only(effects: Sequence[Effect]) -> Effect:
    assert len(effects) == 1, effects
    return effects[0]


def hear(loop: ToolLoop, *events: AIEvent) -> list[Effect]:
    return [effect for event in events for effect in loop.hear(event)]


def ask_tools(loop: ToolLoop, *calls: ToolCallPart) -> list[Effect]:
    return hear(loop, *(ToolCallChunk(each) for each in calls), end("tool_calls"))


def finish_of(effects: Iterable[Effect]) -> Finish:
    found = [effect for effect in effects if isinstance(effect, Finish)]
    assert len(found) == 1, effects
    return found[0]


def steps(effects: Iterable[Effect]) -> list[tuple[str, str]]:
    return [(e.call.call_id, e.call.status) for e in effects if isinstance(e, StepTool)]


def request_of(effects: Sequence[Effect]) -> AIRequest:
    last = effects[-1]
    assert isinstance(last, StartGeneration), effects
    return last.request


def assert_paired(messages: Sequence[AIMessage]) -> None:
    """Each assistant message with calls is followed by exactly their results, in their order."""
    for position, message in enumerate(messages):
        calls = [part.call_id for part in message.parts if isinstance(part, ToolCallPart)]
        results = [part.call_id for part in message.parts if isinstance(part, ToolResultPart)]
        if calls:
            following = messages[position + 1].parts
            assert [part.call_id for part in following if isinstance(part, ToolResultPart)] == calls
        if results:
            assert [p.call_id for p in messages[position - 1].parts if isinstance(p, ToolCallPart)] == results


# -- talking ----------------------------------------------------------------------------------------------------------


def test_a_plain_reply_is_emitted_as_it_comes_and_completed() -> None:
    loop = started()
    effects = hear(loop, TextChunk("Hel"), TextChunk(""), TextChunk("lo"), end(model="m-1"))
    assert effects == [
        EmitText("Hel"),
        EmitText("lo"),
        Finish(
            "completed",
            {"input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 4},
            None,
            {"rounds": 0, "tool_calls": 0, "model": "m-1"},
        ),
    ]
    assert loop.messages[-1] == AIMessage(role="assistant", parts=(TextPart(text="Hello"),))
    assert loop.done


def test_a_second_start_and_late_events_change_nothing() -> None:
    loop = started()
    assert loop.start() == []
    hear(loop, end())
    assert hear(loop, TextChunk("late"), end()) == []
    assert loop.failed(Unavailable("v", "late")) == []
    assert loop.steer(Cancel()) == []
    assert loop.stop("error") == []
    assert loop.tool_started("c1") == []
    assert loop.tool_done("c1", DONE) == []


@pytest.mark.parametrize(
    "events,reason,metadata",
    [
        ([end()], "empty_response", {}),
        ([TextChunk("so f"), end("length")], "truncated", {}),
        ([TextChunk("No."), end("refusal", detail="policy")], "completed", {"finish": "refusal", "detail": "policy"}),
        ([TextChunk("Hm."), end("other")], "completed", {"finish": "other"}),
        ([ToolCallChunk(call()), end("refusal")], "empty_response", {"finish": "refusal"}),
    ],
)
def test_the_reason_of_the_end(events: list[AIEvent], reason: str, metadata: dict[str, Any]) -> None:
    finish = finish_of(hear(started(), *events))
    assert finish.reason == reason
    assert finish.metadata == {"rounds": 0, "tool_calls": 0, **metadata}


def test_thinking_is_emitted_and_kept_with_its_signature() -> None:
    loop = started(providers=("vendor",))
    effects = hear(
        loop,
        ThinkingChunk("Let "),
        ThinkingChunk("me"),
        ThinkingChunk("", signature="s1"),
        ThinkingChunk("more"),
        TextChunk("Hi"),
        ToolCallChunk(call()),
        end("tool_calls"),
    )
    assert effects[:4] == [EmitThinking("Let "), EmitThinking("me"), EmitThinking("more"), EmitText("Hi")]
    assert request_of(loop.tool_done("c1", DONE)).messages[1].parts == (
        ThinkingPart(text="Let me", signature="s1", provider="vendor"),
        ThinkingPart(text="more", provider="vendor"),
        TextPart(text="Hi"),
        call(),
    )


def test_thinking_alone_leaves_no_message() -> None:
    loop = started()
    assert finish_of(hear(loop, ThinkingChunk("hm"), end())).reason == "empty_response"
    assert loop.messages == [user()]


def test_speech_after_a_tool_round_starts_a_new_paragraph() -> None:
    loop = started()
    hear(loop, TextChunk("One moment."))
    ask_tools(loop, call())
    loop.tool_done("c1", DONE)
    assert hear(loop, TextChunk("Found it."), TextChunk(" Good.")) == [EmitText("\n\nFound it."), EmitText(" Good.")]
    assert loop.messages[-1].role == "tool"
    ask_tools(loop, call("c2", number=2))
    loop.tool_done("c2", DONE)
    assert hear(loop, TextChunk("\nAnd more. ")) == [EmitText("\nAnd more. ")]
    ask_tools(loop, call("c3", number=3))
    loop.tool_done("c3", DONE)
    assert hear(loop, TextChunk("End.")) == [EmitText("End.")]


def test_usage_is_summed_over_all_rounds() -> None:
    loop = started()
    ask_tools(loop, call())
    loop.tool_done("c1", DONE)
    usage = finish_of(hear(loop, TextChunk("x"), end())).usage
    assert usage == {"input_tokens": 20, "output_tokens": 10, "cache_read_tokens": 8}


# -- tools ------------------------------------------------------------------------------------------------------------


def test_calls_run_together_and_results_stand_in_the_order_of_the_calls() -> None:
    loop = started()
    effects = ask_tools(loop, call("a", n=1), call("b", n=2))
    assert effects == [RunTools((call("a", n=1), call("b", n=2)))]
    assert steps(loop.tool_started("a")) == [("a", "pending")]
    assert loop.tool_started("a") == []  # pending is said once
    assert loop.tool_started("unknown") == []
    assert steps(loop.tool_done("b", ToolOutcome("failed", "boom"))) == [("b", "failed")]
    assert loop.tool_done("b", DONE) == []  # only the first word about a call counts
    effects = loop.tool_done("a", ToolOutcome("completed", "short", record="whole text", duration_ms=7))
    step = effects[0]
    assert isinstance(step, StepTool)
    assert (step.call.result, step.call.error, step.call.duration_ms) == ("whole text", None, 7)
    request = request_of(effects)
    assert request.messages[-1].parts == (
        ToolResultPart(call_id="a", name="look", output="short"),
        ToolResultPart(call_id="b", name="look", output="boom", is_error=True),
    )
    assert_paired(request.messages)


def test_steps_show_the_arguments_that_really_ran() -> None:
    loop = started()
    ask_tools(loop, call(number=1))
    first = only(loop.tool_started("c1", {"number": 2}))
    assert isinstance(first, StepTool)
    assert first.call.arguments == {"number": 2}
    second = loop.tool_done("c1", ToolOutcome("completed", "ok", arguments={"number": 2}))[0]
    assert isinstance(second, StepTool)
    assert second.call.arguments == {"number": 2}


def test_the_round_limit_allows_n_executions_and_one_generation_more() -> None:
    loop = started(limits=LoopLimits(max_rounds=2))
    generations = 1
    for n in range(2):
        ask_tools(loop, call(f"c{n}", number=n))
        generations += isinstance(loop.tool_done(f"c{n}", DONE)[-1], StartGeneration)
    effects = hear(loop, TextChunk("Still not done."), ToolCallChunk(call("c9")), end("tool_calls"))
    assert generations == 3
    assert finish_of(effects).reason == "max_rounds"
    assert steps(effects) == []
    assert loop.messages[-1] == AIMessage(role="assistant", parts=(TextPart(text="Still not done."),))
    assert_paired(loop.messages)


def test_it_warns_once_when_it_goes_on_for_long() -> None:
    loop = started(limits=LoopLimits(warn_after=2))
    warnings: list[Effect] = []
    for n in range(4):
        warnings += [e for e in ask_tools(loop, call(f"c{n}", number=n)) if isinstance(e, Warn)]
        loop.tool_done(f"c{n}", DONE)
    assert warnings == [Warn(2)]


def test_too_many_calls_of_one_round_are_answered_but_not_run() -> None:
    loop = started(limits=LoopLimits(calls_per_round=2))
    effects = ask_tools(loop, *(call(f"c{n}", n=n) for n in range(4)))
    assert steps(effects) == [("c2", "denied"), ("c3", "denied")]
    assert effects[-1] == RunTools((call("c0", n=0), call("c1", n=1)))
    loop.tool_done("c0", DONE)
    request = request_of(loop.tool_done("c1", DONE))
    assert_paired(request.messages)
    assert len(request.messages[-1].parts) == 4


def test_malformed_arguments_are_answered_with_an_error() -> None:
    loop = started()
    effects = ask_tools(loop, call(malformed='{"number": '))
    assert steps(effects) == [("c1", "failed")]
    result = request_of(effects).messages[-1].parts[0]
    assert isinstance(result, ToolResultPart)
    assert "not a JSON object" in result.output


def test_the_third_identical_call_is_not_run_and_forces_an_answer() -> None:
    loop = started()
    for n in range(2):
        ask_tools(loop, call(f"c{n}", number=1))
        request = request_of(loop.tool_done(f"c{n}", DONE))
        assert request.tool_choice == "auto"
    effects = ask_tools(loop, call("c2", number=1))
    assert steps(effects) == [("c2", "denied")]
    assert request_of(effects).tool_choice == "none"
    assert request_of(effects).tools, "vendors refuse a history of calls without the tools"
    effects = hear(loop, TextChunk("As far as I know"), ToolCallChunk(call("c3")), end("tool_calls"))
    assert finish_of(effects).reason == "force_stopped"
    assert steps(effects) == []
    assert_paired(loop.messages)


def test_a_forced_answer_without_calls_says_that_it_was_forced() -> None:
    loop = started(limits=LoopLimits(identical_calls=1))
    ask_tools(loop, call())
    assert finish_of(hear(loop, TextChunk("Well."), end())).reason == "force_stopped"


def test_calls_are_the_same_in_whatever_order_their_arguments_stand() -> None:
    loop = started(limits=LoopLimits(identical_calls=2))
    ask_tools(loop, call("a", x={"b": [1, {"c": 2, "d": {}}], "a": True}, y=1))
    loop.tool_done("a", ToolOutcome("completed", "one"))
    for number, other in enumerate(({"x": {}, "y": 1}, {"x": [], "y": 1}, {"x": 1, "y": 1}, {"x": True, "y": 1})):
        ask_tools(loop, call(f"b{number}", **other))
        loop.tool_done(f"b{number}", ToolOutcome("completed", f"other {number}"))
    effects = ask_tools(loop, call("c", y=1, x={"a": True, "b": [1, {"d": {}, "c": 2}]}))
    assert steps(effects) == [("c", "denied")]


def test_the_same_result_of_the_same_call_is_pointed_out() -> None:
    loop = started()
    for n, expected in enumerate([False, True]):
        ask_tools(loop, call(f"c{n}"))
        result = request_of(loop.tool_done(f"c{n}", DONE)).messages[-1].parts[0]
        assert isinstance(result, ToolResultPart)
        assert ("same result" in result.output) is expected


def test_ids_are_unique_across_turns_and_rounds() -> None:
    past = (
        user(),
        AIMessage(role="assistant", parts=(call("c1"),)),
        AIMessage(role="tool", parts=(ToolResultPart(call_id="c1", name="look", output="old"),)),
    )
    loop = started(messages=past, loop_id="turn7")
    run = ask_tools(loop, call("c1", n=1), call("c1", n=2), call("", n=3))[-1]
    assert isinstance(run, RunTools)
    ids = [each.call_id for each in run.calls]
    assert len({*ids, "c1"}) == 4
    assert all(each.startswith("turn7_") for each in ids)


# -- errors -----------------------------------------------------------------------------------------------------------


def test_without_a_policy_an_error_ends_the_reply() -> None:
    finish = finish_of(started().failed(Unavailable("v", "down")))
    assert (finish.reason, finish.error) == ("error", "v: down")
    assert finish.metadata["error_kind"] == "Unavailable"
    assert finish.metadata["retryable"] is True


def test_retryable_errors_are_tried_again_with_growing_delays_and_then_the_fallback() -> None:
    backoff = RetryPolicy(max_retries=2, base_delay=1, jitter=0)
    loop = started(backoff=backoff, providers=("a", "b"))
    hear(loop, ThinkingChunk("hm"), ToolCallChunk(call()))  # nothing of it was shown
    asked = [only(loop.failed(RateLimited("a", "slow down", retry_after=after))) for after in (None, 9.0, None)]
    assert [(e.provider, e.delay) for e in asked if isinstance(e, StartGeneration)] == [(0, 1.0), (0, 9.0), (1, 0.0)]
    finish = finish_of(hear(loop, TextChunk("Hello"), end()))
    assert finish.metadata["provider"] == "b"
    assert loop.messages == [user(), AIMessage(role="assistant", parts=(TextPart(text="Hello"),))]


def test_errors_that_cannot_heal_go_to_the_fallback_at_once() -> None:
    loop = started(backoff=RetryPolicy(), providers=("a", "b"))
    assert only(loop.failed(BadResponse("a", "nonsense"))) == StartGeneration(
        AIRequest(messages=(user(),), system="Be kind.", tools=(ToolSpec(name="look"),)), 1, 0.0
    )
    assert finish_of(loop.failed(BadResponse("b", "nonsense"))).reason == "error"


def test_nobody_waits_longer_than_the_policy_allows() -> None:
    loop = started(backoff=RetryPolicy(longest_wait=10))
    assert finish_of(loop.failed(RateLimited("a", "come back tomorrow", retry_after=3600))).reason == "error"


def test_shown_text_is_never_said_again() -> None:
    loop = started(backoff=RetryPolicy(), providers=("a", "b"))
    hear(loop, TextChunk("Dear cus"))
    finish = finish_of(loop.failed(Unavailable("a", "cut")))
    assert finish.reason == "error"
    assert loop.messages[-1] == AIMessage(role="assistant", parts=(TextPart(text="Dear cus"),))


def test_a_later_round_is_tried_again_because_its_own_text_was_not_shown() -> None:
    loop = started(backoff=RetryPolicy(jitter=0))
    hear(loop, TextChunk("One moment."))
    ask_tools(loop, call())
    loop.tool_done("c1", DONE)
    assert isinstance(only(loop.failed(Unavailable("a", "cut"))), StartGeneration)


def test_an_overflow_is_compacted_once_without_parting_calls_from_results() -> None:
    past: list[AIMessage] = []
    for n in range(6):
        past += [
            user("x" * 400),
            AIMessage(role="assistant", parts=(call(f"p{n}"),)),
            AIMessage(role="tool", parts=(ToolResultPart(call_id=f"p{n}", name="look", output="y" * 400),)),
        ]
    past.append(user("the question"))
    loop = started(messages=past)
    request = request_of(loop.failed(ContextOverflow("a", "too long")))
    assert len(request.messages) < len(past)
    assert request.messages[-1] == user("the question")
    assert request.messages[0].text == OMITTED
    assert_paired(request.messages)
    assert finish_of(loop.failed(ContextOverflow("a", "still too long"))).reason == "error"


def test_every_round_has_its_own_tries() -> None:
    loop = started(backoff=RetryPolicy(max_retries=1, jitter=0), messages=[user("x" * 400)] * 6)
    for n in range(3):
        assert isinstance(only(loop.failed(Unavailable("a", "cut"))), StartGeneration)
        assert isinstance(only(loop.failed(ContextOverflow("a", "too long"))), StartGeneration)
        ask_tools(loop, call(f"c{n}", n=n))
        loop.tool_done(f"c{n}", ToolOutcome("completed", "y" * 800))


def test_an_overflow_with_nothing_to_leave_out_is_an_error() -> None:
    assert finish_of(started().failed(ContextOverflow("a", "too long"))).reason == "error"


# -- steering ---------------------------------------------------------------------------------------------------------


def test_cancel_ends_a_generation_and_keeps_what_was_said() -> None:
    loop = started()
    hear(loop, TextChunk("Once upon"), ToolCallChunk(call()))
    finish = finish_of(loop.steer(Cancel("enough")))
    assert (finish.reason, finish.error) == ("cancelled", "enough")
    assert loop.messages[-1] == AIMessage(role="assistant", parts=(TextPart(text="Once upon"),))


def test_cancel_answers_every_open_call_and_keeps_finished_results() -> None:
    loop = started()
    ask_tools(loop, call("a", n=1), call("b", n=2), call("c", n=3))
    loop.tool_started("b")
    loop.tool_done("a", DONE)
    effects = loop.steer(Cancel())
    assert steps(effects) == [("b", "cancelled"), ("c", "cancelled")]
    assert finish_of(effects).reason == "cancelled"
    results = [part for part in loop.messages[-1].parts if isinstance(part, ToolResultPart)]
    assert [part.output for part in results] == [
        "ok",
        "Cancelled while it was running; it may have taken effect.",
        "Cancelled before it ran.",
    ]
    assert loop.tool_done("b", DONE) == []
    assert_paired(loop.messages)


def test_other_directives_wait_for_the_next_round_and_hold_for_this_loop_only() -> None:
    loop = started()
    ask_tools(loop, call())
    assert loop.steer(InjectMessage("Offer a refund.")) == []
    assert loop.steer(InjectMessage("Be quick.", role="system")) == []
    assert loop.steer(UpdateSystemPrompt("Speak French.")) == []
    request = request_of(loop.tool_done("c1", DONE))
    assert [m.role for m in request.messages[-3:]] == ["tool", "user", "system"]
    assert request.messages[-2].text == "Offer a refund."
    assert request.system == "Be kind.\n\nSpeak French."
    assert_paired(request.messages)


def test_a_system_prompt_can_be_added_where_there_was_none() -> None:
    loop = ToolLoop(AIRequest(messages=(user(),)))
    loop.steer(UpdateSystemPrompt("Speak French."))
    assert request_of(loop.start()).system == "Speak French."


def test_words_injected_into_the_last_round_get_an_answer() -> None:
    loop = started()
    hear(loop, TextChunk("All done."))
    loop.steer(UpdateSystemPrompt("Rhyme."))
    loop.steer(InjectMessage("And what about the bill?"))
    request = request_of(hear(loop, end()))
    assert [m.text for m in request.messages] == ["hello", "All done.", "And what about the bill?"]
    assert hear(loop, TextChunk("It is paid."))[0] == EmitText("\n\nIt is paid.")
    assert finish_of(hear(loop, end())).reason == "completed"


def test_a_prompt_update_alone_does_not_prolong_the_reply() -> None:
    loop = started()
    hear(loop, TextChunk("Bye."))
    loop.steer(UpdateSystemPrompt("Rhyme."))
    assert finish_of(hear(loop, end())).reason == "completed"


def test_cancel_before_the_start_starts_nothing() -> None:
    loop = ToolLoop(AIRequest(messages=(user(),)))
    assert finish_of(loop.steer(Cancel())).reason == "cancelled"
    assert loop.start() == []


# -- time -------------------------------------------------------------------------------------------------------------


def test_the_wall_clock_ends_the_reply() -> None:
    loop = started(now=100.0, limits=LoopLimits(timeout_s=300))
    assert loop.deadline == 400.0
    assert loop.expire(399.9) == []
    assert finish_of(loop.expire(400.0)).reason == "timeout"


def test_the_wall_clock_stands_still_while_people_are_asked() -> None:
    loop = started(now=0.0, limits=LoopLimits(timeout_s=10))
    loop.pause(5.0)
    loop.pause(6.0)
    loop.resume(50.0)
    assert loop.deadline is None
    assert loop.expire(1000.0) == []
    loop.resume(105.0)
    assert loop.deadline == 110.0


def test_without_a_limit_there_is_no_deadline() -> None:
    loop = started(limits=LoopLimits(timeout_s=None))
    loop.pause(0.0)
    loop.resume(1.0)
    assert loop.deadline is None
    assert loop.expire(1e9) == []


# -- always -----------------------------------------------------------------------------------------------------------

OPERATIONS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3)), max_size=60)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPERATIONS)
def test_whatever_happens_calls_are_answered_once_and_the_reply_ends_once(operations: list[tuple[int, int]]) -> None:
    limits = LoopLimits(max_rounds=3, timeout_s=50, calls_per_round=3)
    loop = ToolLoop(AIRequest(messages=(user(),)), limits=limits, backoff=RetryPolicy(max_retries=1))
    effects = loop.start()
    ids: list[str] = []
    for now, (operation, n) in enumerate(operations):
        known = ids[-1 - n] if len(ids) > n else "nobody"
        new: list[Effect] = []
        match operation:
            case 0 | 1:
                new = loop.hear(TextChunk("word "))
            case 2 | 3:
                new = loop.hear(ToolCallChunk(call(f"c{n}", n=n)))
            case 4 | 5:
                new = loop.hear(end())
            case 6 | 7:
                new = loop.tool_done(known, DONE)
            case 8:
                new = loop.tool_started(known)
            case 9:
                new = loop.failed(Unavailable("v", "down"))
            case 10:
                new = loop.steer(InjectMessage("psst"))
            case _:
                new = loop.expire(now) if n else loop.steer(Cancel())
        ids += [each.call_id for e in new if isinstance(e, RunTools) for each in e.calls]
        effects += new
    effects += loop.stop("cancelled")
    finals = [e.call.call_id for e in effects if isinstance(e, StepTool) and e.call.status != "pending"]
    assert len(finals) == len(set(finals))
    assert set(ids) <= set(finals)
    assert sum(isinstance(e, Finish) for e in effects) == 1
    assert isinstance(effects[-1], Finish)
    assert_paired(loop.messages)
    called = [part.call_id for m in loop.messages for part in m.parts if isinstance(part, ToolCallPart)]
    assert sorted(called) == sorted(finals)
