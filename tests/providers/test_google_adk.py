"""Agents of Google's Agent Development Kit as brains: the real package, with a model of our own underneath.

The kit asks for other versions than what the other tests need, so that it has an environment of its own (`make prove`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

pytest.importorskip("google.adk", reason="google-adk has an environment of its own: python -m proofs google_adk")

from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.tools import ToolContext
from google.genai import errors, types

from roomkit import AIChannel, RoomKit
from roomkit.errors import BadResponse, ConfigError, ProviderError, RateLimited, Refused, Unavailable
from roomkit.models.ai import AIMessage, AIRequest, Finished, TextChunk, TextPart
from roomkit.models.content import text_of
from roomkit.models.event import EventType
from roomkit.models.steering import Cancel
from roomkit.providers.google_adk.ai import GoogleADKProvider
from roomkit.testing.ai import check_ai_provider

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]


class Scripted(BaseLlm):
    """Says what it is told to, as the vendor's stream does. A dict is a call of a tool."""

    model: str = "scripted"
    turns: list[Any] = []
    repeat: bool = False
    heard: list[Any] = []
    closed: list[int] = []

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        self.heard.append(llm_request)
        turn = self.turns[0] if self.repeat else self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        if isinstance(turn, LlmResponse):
            yield turn
            return
        try:
            if isinstance(turn, dict):
                parts = [types.Part(function_call=types.FunctionCall(id="c1", **turn))]
            else:
                assert stream
                for delta in turn.partition(" "):
                    await asyncio.sleep(0)
                    if delta:
                        yield LlmResponse(content=_content(types.Part(text=delta)), partial=True)
                if turn.endswith("..."):
                    await asyncio.sleep(3_600)
                parts = [types.Part(text="hm", thought=True), types.Part(text=turn)]
            used = types.GenerateContentResponseUsageMetadata(
                prompt_token_count=7, candidates_token_count=3, thoughts_token_count=1, cached_content_token_count=2
            )
            yield LlmResponse(content=_content(*parts), usage_metadata=used, model_version="scripted-1")
        finally:
            self.closed.append(1)


def _content(*parts: types.Part) -> types.Content:
    return types.Content(role="model", parts=list(parts))


def agent(*turns: Any, repeat: bool = False, **more: Any) -> LlmAgent:
    return LlmAgent(name="guide", model=Scripted(turns=list(turns), repeat=repeat, heard=[], closed=[]), **more)


def asks(*texts: str, **more: Any) -> AIRequest:
    roles = ("user", "assistant")
    said = [AIMessage(role=roles[n % 2], parts=(TextPart(text=text),)) for n, text in enumerate(texts)]
    return AIRequest(messages=tuple(said), **more)


async def test_it_is_a_provider_as_the_port_wants_it() -> None:
    provider = GoogleADKProvider(agent("Hello there friend", repeat=True))
    events = [event async for event in provider.stream(asks("x"))]
    assert [event.text for event in events if isinstance(event, TextChunk)] == ["Hello", " ", "there friend"]
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.model) == ("stop", "scripted-1")
    used = last.usage
    assert (used.input_tokens, used.output_tokens, used.cache_read_tokens, used.thinking_tokens) == (7, 4, 2, 1)
    await check_ai_provider(lambda: GoogleADKProvider(agent("Hello there friend", repeat=True)))
    with pytest.raises(ConfigError, match="max_llm_calls"):
        GoogleADKProvider(agent("x"), max_llm_calls=0)


async def test_it_runs_its_own_tools_and_answers_in_the_room() -> None:
    rooms: list[Any] = []

    def weather(city: str, tool_context: ToolContext) -> str:
        """The weather of a city."""
        rooms.append(tool_context.state.get("room_id"))
        return f"sunny in {city}"

    guide = agent(
        {"name": "weather", "args": {"city": "Graz"}},
        "It is sunny in Graz.",
        "You are welcome.",
        instruction="You know the weather.",
        tools=[weather],
    )
    model: Any = guide.model
    async with RoomKit() as kit:
        kit.register_channel(AIChannel("assistant", GoogleADKProvider(guide), system_prompt="Be brief."), default=True)
        await kit.create_room("r")
        await (await kit.send("r", "Weather in Graz?", by="ann")).settled(20)
        await (await kit.send("r", "Thanks!", by="ann")).settled(20)
        said = [text_of(e.content) for e in await kit.events("r") if e.type is EventType.MESSAGE]
        assert said == ["Weather in Graz?", "It is sunny in Graz.", "Thanks!", "You are welcome."]
    assert rooms == ["r"]
    system = str(model.heard[0].config.system_instruction)
    assert "You know the weather." in system
    assert "Be brief." in system
    assert "sunny in Graz" in str(model.heard[1].contents[-1]), "the tool's result went to the model"
    before = [(one.role, "".join(part.text or "" for part in one.parts)) for one in model.heard[2].contents]
    assert [(role, text.rpartition(": ")[2]) for role, text in before] == [
        ("user", "Weather in Graz?"),
        ("model", "It is sunny in Graz."),
        ("user", "Thanks!"),
    ]


async def test_an_app_keeps_its_plugins_and_rooms_share_no_state() -> None:
    def count(tool_context: ToolContext) -> str:
        """Counts."""
        state = tool_context.state
        state["user:n"] = state.get("user:n", 0) + 1
        return f"n={state['user:n']}"

    guide = agent({"name": "count", "args": {}}, "ok", {"name": "count", "args": {}}, "ok", tools=[count])
    provider = GoogleADKProvider(App(name="app", root_agent=guide))
    for room in ("a", "b"):
        assert [event async for event in provider.stream(asks("x", metadata={"room_id": room}))]
    model: Any = guide.model
    assert ["n=1" in str(heard.contents) for heard in model.heard] == [False, True, False, True]
    assert "n=2" not in str(model.heard)
    sessions = provider._sessions.sessions  # type: ignore[attr-defined]
    assert not [one for users in sessions.values() for by_id in users.values() for one in by_id], "none is kept"
    await provider.aclose()


async def test_whoever_leaves_ends_the_run() -> None:
    guide = agent("Well, then...")
    model: Any = guide.model
    async with RoomKit() as kit:
        kit.register_channel(AIChannel("assistant", GoogleADKProvider(guide)), default=True)
        await kit.create_room("r")
        result = await kit.send("r", "Tell me", by="ann")
        async with asyncio.timeout(20):
            while not model.heard:
                await asyncio.sleep(0.02)
        await kit.steer("r", Cancel("enough"))
        await result.settled(20)
        async with asyncio.timeout(20):
            while not model.closed:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "turn, kind",
    [
        (errors.ClientError(429, {"error": {"message": "a secret"}}), RateLimited),
        (errors.ClientError(400, {"error": {"message": "a secret"}}), Refused),
        (errors.ServerError(503, {"error": {"message": "a secret"}}), Unavailable),
        (RuntimeError("a secret of the tool"), BadResponse),
        (LlmResponse(error_code="OTHER", error_message="a secret"), BadResponse),
    ],
)
async def test_what_goes_wrong_is_told_without_its_words(turn: Any, kind: type[ProviderError]) -> None:
    provider = GoogleADKProvider(agent(turn))
    with pytest.raises(ProviderError) as failed:
        [event async for event in provider.stream(asks("x"))]
    assert type(failed.value) is kind
    assert "a secret" not in str(failed.value)


async def test_an_agent_that_never_ends_is_cut_and_a_refusal_is_told() -> None:
    def again() -> str:
        """Again."""
        return "again"

    provider = GoogleADKProvider(agent({"name": "again", "args": {}}, repeat=True, tools=[again]), max_llm_calls=2)
    async with aclosing(provider.stream(asks("x"))) as run:
        last = [event async for event in run][-1]
    assert isinstance(last, Finished)
    assert last.reason == "length"
    refused = LlmResponse(error_code="SAFETY", finish_reason=types.FinishReason.SAFETY)
    last = [event async for event in GoogleADKProvider(agent(refused)).stream(asks("x"))][-1]
    assert isinstance(last, Finished)
    assert last.reason == "refusal"
