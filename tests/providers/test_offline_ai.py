"""The stand-in of the demo: its rules, its tools, and how it takes orders."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Literal

import pytest

from roomkit.errors import ToolError, ToolFailed, ToolRetry
from roomkit.models.ai import (
    AIMessage,
    AIRequest,
    Finished,
    Part,
    TextChunk,
    TextPart,
    ThinkingChunk,
    ToolCallChunk,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)
from roomkit.ports.ai import AIProvider
from roomkit.providers.offline.ai import OfflineBrain, plan, provider
from roomkit.providers.offline.rules import GUIDED, HINTED, STORY, WHO
from roomkit.providers.offline.tools import MARKS, ORDERS, TOOLS, calculator, clock, find_order, refund_order
from roomkit.testing.ai import check_ai_provider

ALL = tuple(ToolSpec(name=name) for name in (*MARKS, "request_human"))


def message(
    role: Literal["system", "user", "assistant", "tool"], *parts: Part | str, event: str | None = "e"
) -> AIMessage:
    told = tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts)
    return AIMessage(role=role, parts=told, event_id=event)


def ask(*messages: AIMessage | str, tools: tuple[ToolSpec, ...] = ALL, **more: Any) -> AIRequest:
    told = tuple(message("user", each) if isinstance(each, str) else each for each in messages)
    return AIRequest(messages=told, tools=tools, **more)


def wanted(text: str) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in plan(ask(text)).calls]


def answered(request: AIRequest, *results: Any) -> AIRequest:
    """The request of the next round, after the tools of this one ran."""
    calls = plan(request).calls
    told = [
        ToolResultPart(call_id=call.call_id, name=call.name, output=each if isinstance(each, str) else json.dumps(each))
        for call, each in zip(calls, results, strict=True)
    ]
    more = (message("assistant", *calls), message("tool", *told))
    return request.model_copy(update={"messages": (*request.messages, *more)})


@pytest.mark.parametrize(
    "text,calls",
    [
        ("What time is it?", [("clock", {})]),
        ("What's the time in Paris?", [("clock", {"zone": "Europe/Paris"})]),
        ("Where is order 1042?", [("find_order", {"number": 1042})]),
        ("Alice: where is my order #1043 please", [("find_order", {"number": 1043})]),
        ("12 * 7", [("calculator", {"expression": "12 * 7"})]),
        ("how much is (2 plus 3) times 4.5?", [("calculator", {"expression": "(2 + 3) * 4.5"})]),
        ("refund order 1042", [("refund_order", {"number": 1042})]),
        ("I want my money back for order 1077!", [("refund_order", {"number": 1077})]),
        (
            "Where is order 1042, and can you refund it?",
            [("find_order", {"number": 1042}), ("refund_order", {"number": 1042})],
        ),
        ("Get me a human", [("request_human", {"reason": "The user asks for a person."})]),
        ("Are you a human?", []),
        ("My number is 555-1234 and I was born on 2001-02-03", []),
        ("Hello!", []),
        (
            "What time is it, where is order 1042 and what is 6 x 7?",
            [("clock", {}), ("find_order", {"number": 1042}), ("calculator", {"expression": "6 * 7"})],
        ),
    ],
)
def test_what_it_understands(text: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    assert wanted(text) == calls


def test_calls_have_ids_of_their_own_in_a_conversation() -> None:
    first = plan(ask("What time is it and 1 + 1?")).calls
    later = plan(ask("12 * 7", message("assistant", "84."), "What time is it?")).calls
    assert len({call.call_id for call in (*first, *later)}) == 3


def test_results_are_told_in_the_order_of_the_questions() -> None:
    request = ask("Where is order 1042, and what is 12 * 7?")
    said = plan(answered(request, find_order(1042), calculator("12 * 7")))
    assert said.calls == ()
    assert "walnut desk lamp" in said.text
    assert said.text.index("walnut") < said.text.index("That makes 84.")


@pytest.mark.parametrize(
    "text,result,told",
    [
        ("what time is it", {"time": "12:30", "date": "Friday", "zone": "UTC"}, "It is 12:30 on Friday (UTC)."),
        ("where is order 9", find_order(9), "I cannot find an order 9."),
        ("refund order 1042", refund_order(1042), "Order 1042 is refunded: 49.90 EUR, reference RF-1042."),
        ("a human please", "A person has been asked.", "I have asked a person to join us."),
    ],
)
def test_how_results_are_told(text: str, result: Any, told: str) -> None:
    assert told in plan(answered(ask(text), result)).text


def test_a_denied_call_is_admitted_and_not_repeated() -> None:
    request = ask("refund order 1042")
    [call] = plan(request).calls
    denied = ToolResultPart(call_id=call.call_id, name=call.name, output="denied: not without a receipt", is_error=True)
    said = plan(ask(*request.messages, message("assistant", call), message("tool", denied)))
    assert said.calls == ()
    assert "I could not do that (refund_order): denied: not without a receipt." in said.text


def test_it_says_what_it_is() -> None:
    assert WHO in plan(ask("Hello")).text
    assert WHO in plan(ask("flurbl")).text
    assert WHO in plan(answered(ask("1 + 1"), "2")).text  # its first words in a room
    assert WHO not in plan(ask("hi", message("assistant", "Hello!"), "thank you")).text


def test_without_tools_it_only_talks() -> None:
    assert plan(ask("get me a human", tools=())).text.startswith("Nobody can be called")
    assert plan(ask("12 * 7", tool_choice="none")).calls == ()


def test_it_does_as_the_supervisor_says_and_shows_it() -> None:
    request = answered(ask("Where is order 1042?"), find_order(1042))
    injected = message("user", "offer a refund of order 1043 too", event=None)
    steered = request.model_copy(update={"messages": (*request.messages, injected)})
    assert [call.name for call in plan(steered).calls] == ["refund_order"]
    talk = steered.model_copy(update={"messages": (*request.messages, message("user", "mention the sale", event=None))})
    assert plan(talk).text.startswith(f"{GUIDED} Order 1042")
    assert "sale" not in plan(talk).text
    prompt = request.model_copy(update={"system": "You are kind.\n\nSpeak of the weather."})
    assert plan(prompt).text.startswith(GUIDED)
    assert "weather" not in plan(prompt).text
    assert "supervisor" not in plan(request.model_copy(update={"system": "You are kind."})).text
    note = ask(message("system", "Note from the team: the lamp is sold out"), "hello")
    assert HINTED in plan(note).text
    assert "lamp" not in plan(note).text


def test_an_instruction_after_the_answer_gets_an_answer() -> None:
    request = ask("hello", message("assistant", "Hello!"), message("user", "tell a story", event=None))
    assert plan(request).text == f"{GUIDED} {STORY}"


async def test_it_streams_at_a_human_pace() -> None:
    brain = provider("anything", delay=0.1, first=1.0)
    assert isinstance(brain, AIProvider)
    loop = asyncio.get_running_loop()
    began = loop.time()
    events = [
        event async for event in brain.stream(ask("tell me a story", message("assistant", "x"), "a story please"))
    ]
    words = [event.text for event in events if isinstance(event, TextChunk)]
    assert "".join(words) == STORY
    assert loop.time() - began == pytest.approx(1.0 + 0.1 * (len(words) - 1))
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.output_tokens == len(words)


async def test_it_stops_between_two_words() -> None:
    async with contextlib.aclosing(OfflineBrain().stream(ask("tell me a story"))) as stream:  # type: ignore[type-var]
        assert await anext(stream) == TextChunk("Once")


async def test_it_thinks_calls_and_obeys_the_limit() -> None:
    brain = OfflineBrain()
    events = [event async for event in brain.stream(ask("what time is it and 2 + 2", thinking_budget=100))]
    thought = "".join(event.text for event in events if isinstance(event, ThinkingChunk))
    assert thought == "This needs `clock` and `calculator`, so I call them first."
    assert [event.call.name for event in events if isinstance(event, ToolCallChunk)] == ["clock", "calculator"]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "tool_calls"
    events = [event async for event in brain.stream(ask("a story", max_tokens=4))]
    assert "".join(event.text for event in events if isinstance(event, TextChunk)) == "Once upon a time"
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "length"


def test_the_same_request_gives_the_same_round() -> None:
    assert plan(ask("where is order 2001?")) == plan(ask("where is order 2001?"))


@pytest.mark.parametrize(
    "expression,value",
    [("12 * 7", "84"), ("(2 + 3) * 4.5", "22.5"), ("2 ** 10", "1024"), ("-7 // 2", "-4"), ("6 / 3", "2")],
)
def test_the_calculator_works_out(expression: str, value: str) -> None:
    assert calculator(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "x + 1",
        "9 ** 9 ** 9",
        "1 / 0",
        "2 ** -0.5 ** 0.5 j",
        "(-8) ** 0.5",
        "True + 1",
        "'a' * 9",
        "1 +",
        "(" * 150 + "1",
        "1" * 300,
        "[1]",
    ],
)
def test_the_calculator_refuses(expression: str) -> None:
    with pytest.raises(ToolRetry, match="cannot work out"):
        calculator(expression)


def test_the_other_tools() -> None:
    assert clock("Europe/Paris")["zone"] == "Europe/Paris"
    for place in ("Nowhere", "../../etc/passwd", ""):
        with pytest.raises(ToolError, match="no time zone"):
            clock(place)
    assert find_order(1042)["status"] == ORDERS[1042]["status"]
    with pytest.raises(ToolFailed, match="no order 7"):
        refund_order(7)
    assert [function.__name__ for function in TOOLS] == list(MARKS)
    assert MARKS["refund_order"] == {"needs_approval": True}


def test_a_tool_it_does_not_know_is_told_plainly() -> None:
    call = ToolCallPart(call_id="c", name="weather", arguments={})
    result = ToolResultPart(call_id="c", name="weather", output="sunny")
    assert "weather says: sunny." in plan(ask("hm", message("assistant", call), message("tool", result))).text


async def test_it_conforms() -> None:
    await check_ai_provider(OfflineBrain, tools=ask("what time is it and 2 + 2"))


def test_without_tools_it_offers_none() -> None:
    said = plan(AIRequest(messages=(AIMessage(role="user", parts=(TextPart(text="What is 6*6?"),)),))).text
    assert "refund" not in said
    assert "no tools" in said
