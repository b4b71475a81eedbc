"""The fake provider, and the conformance kit that finds providers which are not what they should be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from roomkit.errors import BadResponse, Unavailable
from roomkit.models.ai import (
    AIEvent,
    AIMessage,
    AIProfile,
    AIRequest,
    Finished,
    TextChunk,
    TextPart,
    ThinkingChunk,
    ToolCallChunk,
    Usage,
)
from roomkit.ports.ai import AIProvider
from roomkit.runtime import monotonic
from roomkit.testing.ai import ScriptedAI, call, check_ai_provider

HELLO = AIRequest(messages=(AIMessage(role="user", parts=(TextPart(text="Hello"),)),))


async def play(ai: ScriptedAI) -> list[AIEvent]:
    return [event async for event in ai.stream(HELLO)]


async def test_a_script_is_played_round_by_round() -> None:
    ai = ScriptedAI(["Hel", 2.0, "lo"], lambda request: f"{len(request.messages)} messages", usage=Usage(1, 2))
    assert isinstance(ai, AIProvider)
    assert await play(ai) == [TextChunk("Hel"), TextChunk("lo"), Finished("stop", Usage(1, 2), "scripted")]
    assert monotonic() == pytest.approx(2.0)
    assert (await play(ai))[0] == TextChunk("1 messages")
    with pytest.raises(BadResponse, match="only 2 rounds"):
        await play(ai)
    ai.add([ThinkingChunk("hm"), call("look"), Finished("length")], [Unavailable("scripted", "down")])
    assert [type(event) for event in await play(ai)] == [ThinkingChunk, ToolCallChunk, Finished]


async def test_the_last_round_can_be_repeated_with_a_pace() -> None:
    ai = ScriptedAI("a", [call("look", n=1)], repeat=True, delay=1.0)
    assert [(await play(ai))[-1].reason for _ in range(3)] == ["stop", "tool_calls", "tool_calls"]  # type: ignore[union-attr]
    assert monotonic() == pytest.approx(3.0)


async def test_streams_are_counted() -> None:
    ai = ScriptedAI(["a", "b"])
    async with aclosing(ai.stream(HELLO)) as stream:  # type: ignore[type-var]
        await anext(stream)
        assert (ai.opened, ai.closed) == (1, 0)
    assert (ai.opened, ai.closed) == (1, 1)


class Provider:
    """A provider with one fault."""

    name = "faulty"
    profile = AIProfile()

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.open = 0

    async def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
        self.open += 1
        try:
            if request.system == "fail":
                raise Unavailable("another" if self.fault == "name" else self.name, "down")
            if request.tools or request.system == "tools":
                yield ToolCallChunk(call("t", "1"))
                yield ToolCallChunk(call("t", "1" if self.fault == "ids" else "2"))
                yield Finished("stop" if self.fault == "reason" else "tool_calls")
                return
            if self.fault != "silent":
                yield TextChunk("Hi")
            usage = Usage(input_tokens=1, cache_read_tokens=2 if self.fault == "usage" else 1)
            if self.fault == "twice":
                yield Finished("stop")
            if self.fault != "endless":
                yield Finished("stop", usage)
        finally:
            self.open -= self.fault != "leak"

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("fault", ["", "name", "ids", "reason", "silent", "usage", "twice", "endless", "leak"])
async def test_the_kit_passes_the_good_and_finds_every_fault(fault: str) -> None:
    provider = Provider(fault)
    closed: list[Any] = []

    async def after(it: Any) -> None:
        closed.append(it)

    def check() -> Any:
        return check_ai_provider(
            lambda: provider,
            tools=HELLO.model_copy(update={"system": "tools"}),
            failing=HELLO.model_copy(update={"system": "fail"}),
            streams_open=lambda: provider.open,
            after=after,
        )

    if fault:
        with pytest.raises(AssertionError):
            await check()
    else:
        await check()
        assert closed == [provider]
