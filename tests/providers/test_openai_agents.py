"""Agents of OpenAI's SDK as brains: the real package, with a model of our own underneath."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import Agent, Model, function_tool
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseUsage,
)

from roomkit import AIChannel, RoomKit
from roomkit.errors import BadResponse
from roomkit.models.ai import AIMessage, AIRequest, Finished, TextPart
from roomkit.models.content import text_of
from roomkit.models.event import EventType
from roomkit.providers.openai_agents.ai import OpenAIAgentProvider
from roomkit.testing.ai import check_ai_provider

pytestmark = [pytest.mark.real_time]


class Scripted(Model):
    """Says what it is told to, as the vendor's stream does. A dict is a call of a tool."""

    def __init__(self, *turns: Any, repeat: bool = False) -> None:
        self.turns = list(turns)
        self.repeat = repeat
        self.heard: list[Any] = []
        self.closed = 0

    async def get_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def stream_response(self, system: Any, items: Any, *_: Any, **__: Any) -> AsyncIterator[Any]:
        self.heard.append((system, items))
        turn = self.turns[0] if self.repeat else self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        try:
            output: list[Any] = []
            if isinstance(turn, dict):
                output = [
                    ResponseFunctionToolCall(
                        arguments=turn["arguments"], call_id="c1", name=turn["name"], type="function_call", id="f1"
                    )
                ]
            else:
                for number, delta in enumerate(turn.split(" ")):
                    await asyncio.sleep(0)
                    yield ResponseTextDeltaEvent(
                        content_index=0,
                        delta=delta if not number else f" {delta}",
                        item_id="m1",
                        logprobs=[],
                        output_index=0,
                        sequence_number=number,
                        type="response.output_text.delta",
                    )
                text = ResponseOutputText(annotations=[], text=turn, type="output_text")
                output = [
                    ResponseOutputMessage(id="m1", content=[text], role="assistant", status="completed", type="message")
                ]
            yield ResponseCompletedEvent(type="response.completed", sequence_number=99, response=_response(output))
        finally:
            self.closed += 1


def _response(output: list[Any]) -> Response:
    usage = {
        "input_tokens": 7,
        "output_tokens": 3,
        "total_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return Response.model_construct(
        id="r1",
        created_at=0.0,
        model="scripted",
        object="response",
        output=output,
        parallel_tool_calls=False,
        tool_choice="auto",
        tools=[],
        usage=ResponseUsage.model_validate(usage),
    )


def asks(text: str) -> AIRequest:
    return AIRequest(messages=(AIMessage(role="user", parts=(TextPart(text=text),)),))


async def test_it_is_a_provider_as_the_port_wants_it() -> None:
    model = Scripted("Hello there friend", repeat=True)
    await check_ai_provider(lambda: OpenAIAgentProvider(Agent(name="a", model=model)))
    failing = OpenAIAgentProvider(Agent(name="a", model=Scripted(RuntimeError("a secret of the tool"))))
    with pytest.raises(BadResponse) as refused:
        [event async for event in failing.stream(asks("x"))]
    assert "a secret" not in str(refused.value)


async def test_it_runs_its_own_tools_and_answers_in_the_room() -> None:
    @function_tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"sunny in {city}"

    model = Scripted({"name": "weather", "arguments": '{"city": "Graz"}'}, "It is sunny in Graz.")
    agent = Agent(name="guide", instructions="You know the weather.", tools=[weather], model=model)
    async with RoomKit() as kit:
        kit.register_channel(AIChannel("assistant", OpenAIAgentProvider(agent)), default=True)
        await kit.create_room("r")
        await (await kit.send("r", "Weather in Graz?", by="ann")).settled(20)
        said = [e for e in await kit.events("r") if e.type is EventType.MESSAGE]
        assert [text_of(e.content) for e in said] == ["Weather in Graz?", "It is sunny in Graz."]
    instructions, items = model.heard[0]
    assert instructions == "You know the weather."
    assert items[-1]["content"].endswith("Weather in Graz?")
    assert "sunny in Graz" in str(model.heard[1][1]), "the tool's result went to the model"


async def test_an_agent_that_never_ends_its_rounds_is_cut() -> None:
    @function_tool
    def again() -> str:
        """Again."""
        return "again"

    model = Scripted({"name": "again", "arguments": "{}"}, repeat=True)
    provider = OpenAIAgentProvider(Agent(name="a", tools=[again], model=model), max_turns=2)
    events = [event async for event in provider.stream(asks("x"))]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "length"
