"""Claude through its real SDK against the fake vendor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from roomkit.errors import (
    BadResponse,
    ConfigError,
    ContextOverflow,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.models.ai import (
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
    ToolSpec,
    Usage,
)
from roomkit.net import ClientOptions
from roomkit.ports.ai import AIProvider
from roomkit.providers.anthropic.ai import DEFAULT_MAX_TOKENS, AnthropicProvider, provider
from roomkit.testing.ai import check_ai_provider
from roomkit.testing.vendors.anthropic import FakeAnthropic
from roomkit.testing.vendors.script import Call, Cut, Garbage, Pause, Refuse, Say, Think, Trouble, Vanish

Make = Callable[..., AnthropicProvider]
SPEC = ToolSpec(
    name="shop.find order",  # no vendor takes such a name
    description="Finds an order.",
    parameters={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "anyOf": [
            {"type": "object", "properties": {"number": {"type": ["integer", "null"]}}, "required": ["number"]},
            {"type": "object", "properties": {"email": {"type": "string"}}, "required": ["email"]},
        ],
    },
)


@pytest.fixture
def fake() -> FakeAnthropic:
    return FakeAnthropic()


@pytest.fixture
def make(fake: FakeAnthropic) -> Make:
    def make(**options: object) -> AnthropicProvider:
        settings = {"api_key": fake.key, "transport": fake.transport(), **options}
        return AnthropicProvider("claude-test", **settings)  # type: ignore[arg-type]

    return make


def ask(text: str = "Hi", **more: object) -> AIRequest:
    return AIRequest(messages=(AIMessage(role="user", parts=(TextPart(text=text),)),), **more)  # type: ignore[arg-type]


async def collect(stream: AsyncIterator[AIEvent], into: list[AIEvent] | None = None) -> list[AIEvent]:
    events = [] if into is None else into
    async for event in stream:
        events.append(event)
    return events


def text_of(events: list[AIEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextChunk))


def test_it_is_a_provider_and_keeps_its_key_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-environment-0123456789")
    ours = provider("claude-x")
    assert isinstance(ours, AIProvider)
    assert "environment" not in repr(ours)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(ConfigError, match="set ANTHROPIC_API_KEY"):
        AnthropicProvider("claude-x")


async def test_text_streams_word_by_word(fake: FakeAnthropic, make: Make) -> None:
    fake.reply("Hello there, friend!", usage=Usage(100, 7, 60, 10, 3))
    guidance = AIMessage(role="system", parts=(TextPart(text="Offer tea."),))
    request = ask(system="Be kind.", temperature=0.5)
    request = request.model_copy(update={"messages": (*request.messages, guidance)})
    events = await collect(make().stream(request))
    assert [event.text for event in events[:-1] if isinstance(event, TextChunk)] == ["Hello", " there,", " friend!"]
    assert events[-1] == Finished("stop", Usage(100, 7, 60, 10, 3), "claude-test")
    [sent] = fake.requests
    assert sent["system"] == "Be kind.\n\nOffer tea."
    assert "temperature" not in sent
    assert sent["max_tokens"] == DEFAULT_MAX_TOKENS


@pytest.mark.parametrize("given,own,sent", [(9, 5, 9), (None, 5, 5), (None, None, DEFAULT_MAX_TOKENS)])
async def test_the_nearest_limit_wins(
    fake: FakeAnthropic, make: Make, given: int | None, own: int | None, sent: int
) -> None:
    fake.reply("Yes.")
    await collect(make(max_tokens=own).stream(ask(max_tokens=given)))
    assert fake.requests[0]["max_tokens"] == sent


async def test_tools_in_parallel_and_back_again(fake: FakeAnthropic, make: Make) -> None:
    ours = make()
    request = ask(tools=(SPEC, ToolSpec(name="clock")), tool_choice="required")
    fake.reply("Looking.")
    await collect(ours.stream(request))
    assert fake.requests[0]["tool_choice"] == {"type": "any"}
    name = fake.requests[0]["tools"][0]["name"]
    fake.reply("Looking. ", Call(name, {"number": 1042}, "c1"), Call("clock", {}, "c2"))
    events = await collect(ours.stream(request))
    calls = [event.call for event in events if isinstance(event, ToolCallChunk)]
    assert calls == [
        ToolCallPart(call_id="c1", name=SPEC.name, arguments={"number": 1042}),
        ToolCallPart(call_id="c2", name="clock", arguments={}),
    ]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "tool_calls"
    picture = ImagePart(url="data:image/png;base64,AAAA")
    results = (
        ToolResultPart(call_id="c1", name=SPEC.name, output="shipped", images=(picture,)),
        ToolResultPart(call_id="c2", name="clock", output="broken", is_error=True),
    )
    said = AIMessage(role="assistant", parts=(TextPart(text="Looking. "), *calls))
    more = AIMessage(role="user", parts=(TextPart(text="Well?"),))
    history = (*request.messages, said, AIMessage(role="tool", parts=results), more)
    fake.reply("It has been shipped.")
    # Without tools on offer those already used are still named, as the API wants.
    events = await collect(ours.stream(AIRequest(messages=history)))
    assert text_of(events) == "It has been shipped."
    sent = fake.requests[-1]
    assert sent["tool_choice"] == {"type": "none"}
    blocks = sent["messages"][-1]["content"]
    assert [block["type"] for block in blocks] == ["tool_result", "tool_result", "text"]
    assert blocks[1]["is_error"] is True
    assert fake.violations == []


async def test_turns_fit_whatever_the_history_begins_and_ends_with(fake: FakeAnthropic, make: Make) -> None:
    def message(role: str, text: str) -> AIMessage:
        return AIMessage(role=role, parts=(TextPart(text=text),))  # type: ignore[arg-type]

    fake.reply("Yes.")
    messages = (message("assistant", "Welcome!"), message("user", "a"), message("user", " "), message("user", "b"))
    await collect(make().stream(AIRequest(messages=(*messages, message("assistant", "So")))))
    fake.reply("Yes.")
    await collect(make().stream(AIRequest(messages=())))
    assert fake.violations == []


async def test_call_ids_of_other_vendors_fit(fake: FakeAnthropic, make: Make) -> None:
    call = ToolCallPart(call_id="turn 7/call#1", name="clock", arguments={})
    result = ToolResultPart(call_id="turn 7/call#1", name="clock", output="12:00")
    fake.reply("Noon.")
    messages = (*ask().messages, AIMessage(role="assistant", parts=(call,)), AIMessage(role="tool", parts=(result,)))
    assert text_of(await collect(make().stream(AIRequest(messages=messages)))) == "Noon."


async def test_malformed_arguments_are_kept_as_written(fake: FakeAnthropic, make: Make) -> None:
    fake.reply(Call("clock", '{"zone": "Eur'), Call("clock", "[1]"), Call("clock", ""))
    request = ask(tools=(ToolSpec(name="clock"),))
    calls = [event.call for event in await collect(make().stream(request)) if isinstance(event, ToolCallChunk)]
    assert [call.malformed for call in calls] == ['{"zone": "Eur', "[1]", None]


async def test_thinking_travels_back_with_its_proof(fake: FakeAnthropic, make: Make) -> None:
    ours = make()
    fake.reply(Think("First this."), Think("", redacted=True), "So. ", Think("Then that."), Call("clock", {}, "c1"))
    request = ask(tools=(ToolSpec(name="clock"),), thinking_budget=5000, tool_choice="required")
    events = await collect(ours.stream(request))
    parts: list[object] = [ThinkingPart(text="foreign", signature='{"id": "rs_1"}')]
    thought = ""
    for event in events:
        if isinstance(event, ThinkingChunk):
            thought += event.text
            if event.signature is not None:
                parts.append(ThinkingPart(text=thought, signature=event.signature, provider="anthropic"))
                thought = ""
        elif isinstance(event, TextChunk):
            parts.append(TextPart(text=event.text))
        elif isinstance(event, ToolCallChunk):
            parts.append(event.call)
    result = ToolResultPart(call_id="c1", name="clock", output="12:00")
    said = AIMessage(role="assistant", parts=tuple(parts))  # type: ignore[arg-type]
    history = (*request.messages, said, AIMessage(role="tool", parts=(result,)))
    fake.reply("Noon.")
    await collect(ours.stream(request.model_copy(update={"messages": history})))
    assert fake.violations == []
    blocks = fake.requests[-1]["messages"][1]["content"]
    kinds = [block["type"] for block in blocks]
    assert kinds == ["thinking", "redacted_thinking", "text", "thinking", "tool_use"]
    assert blocks[0]["thinking"] == "First this."
    assert fake.requests[0]["thinking"] == {"type": "enabled", "budget_tokens": 5000}


async def test_a_model_without_budgets_thinks_adaptively(fake: FakeAnthropic, make: Make) -> None:
    fake.unsupported = {"thinking.type.enabled", "output_config"}
    ours = make()
    for word in ("One.", "Two."):
        fake.reply(word)
        assert text_of(await collect(ours.stream(ask(thinking_budget=9000)))) == word
    assert [sent["thinking"]["type"] for sent in fake.requests] == ["adaptive", "adaptive"]
    fake.unsupported.add("thinking")
    fake.reply("Three.")
    await collect(ours.stream(ask(thinking_budget=9000)))
    assert "thinking" not in fake.requests[-1]


async def test_refused_parameters_are_left_out_from_then_on(fake: FakeAnthropic, make: Make) -> None:
    fake.unsupported = {"cache_control"}
    ours = make()
    for word in ("One.", "Two."):
        fake.reply(word)
        assert text_of(await collect(ours.stream(ask()))) == word
    assert all("cache_control" not in sent for sent in fake.requests)


async def test_probing_asks_the_vendor_instead(fake: FakeAnthropic, make: Make) -> None:
    fake.unsupported = {"thinking.type.enabled"}
    ours = make()
    profile = await ours.probe()
    assert (profile.context_window, profile.vision, profile.thinking) == (200_000, True, True)
    fake.reply("Yes.")
    await collect(ours.stream(ask(thinking_budget=100)))
    assert fake.requests[0]["thinking"]["type"] == "adaptive"
    with pytest.raises(Unauthorized):
        await make(api_key="another").probe()


async def test_images_are_shown(fake: FakeAnthropic, make: Make) -> None:
    fake.reply("A cat.")
    images = (ImagePart(url="https://pictures.test/cat.png"), ImagePart(url="data:image/webp;base64,AAAA"))
    request = AIRequest(messages=(AIMessage(role="user", parts=(TextPart(text="What is it?"), *images)),))
    assert text_of(await collect(make().stream(request))) == "A cat."
    sources = [block["source"] for block in fake.requests[0]["messages"][0]["content"][1:]]
    assert sources == [
        {"type": "url", "url": "https://pictures.test/cat.png"},
        {"type": "base64", "media_type": "image/webp", "data": "AAAA"},
    ]


async def test_a_refusal_is_named(fake: FakeAnthropic, make: Make) -> None:
    fake.reply(Refuse("No."))
    events = await collect(make().stream(ask()))
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].detail) == ("refusal", "refused by script")


async def test_a_reply_cut_by_the_limit_says_so(fake: FakeAnthropic, make: Make) -> None:
    fake.reply("Once upon", stop="length")
    events = await collect(make().stream(ask()))
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "length"


@pytest.mark.parametrize(
    "status,code,kind,retryable",
    [
        (429, "rate_limit_error", RateLimited, True),
        (529, "overloaded_error", Unavailable, True),
        (500, "api_error", Unavailable, True),
        (403, "permission_error", Unauthorized, False),
        (404, "not_found_error", Refused, False),
        (413, "request_too_large", ContextOverflow, False),
        (400, "invalid_request_error", Refused, False),
    ],
)
async def test_http_errors(
    fake: FakeAnthropic, make: Make, status: int, code: str, kind: type[ProviderError], retryable: bool
) -> None:
    fake.fail(status, code, "told so", retry_after="7")
    with pytest.raises(kind) as caught:
        await collect(make().stream(ask()))
    error = caught.value
    assert (error.retryable, error.retry_after if retryable else 7, error.code) == (retryable, 7, code)
    assert len(fake.requests) == 1  # the SDK's own retries are off


async def test_context_overflow_is_told_apart(fake: FakeAnthropic, make: Make) -> None:
    fake.overflow()
    with pytest.raises(ContextOverflow):
        await collect(make().stream(ask()))


async def test_a_wrong_key_is_not_shown(fake: FakeAnthropic, make: Make) -> None:
    with pytest.raises(Unauthorized) as caught:
        await collect(make(api_key="wrong-but-secret-key").stream(ask()))
    assert "wrong-but-secret-key" not in str(caught.value)


@pytest.mark.parametrize("step", [Cut(), Vanish()])
async def test_a_cut_keeps_what_came_and_says_so(fake: FakeAnthropic, make: Make, step: Cut | Vanish) -> None:
    fake.reply("Half a", step)
    heard: list[AIEvent] = []
    with pytest.raises(BadResponse, match="cut off") as caught:
        await collect(make().stream(ask()), heard)
    assert text_of(heard) == "Half a"
    assert caught.value.retryable


async def test_garbage_in_the_stream(fake: FakeAnthropic, make: Make) -> None:
    fake.reply("Half a", Garbage())
    with pytest.raises(BadResponse):
        await collect(make().stream(ask()))


@pytest.mark.parametrize(
    "code,message,kind",
    [
        ("overloaded_error", "Overloaded", Unavailable),
        ("rate_limit_error", "slow down", RateLimited),
        ("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", ContextOverflow),
        ("who_knows", "hm", BadResponse),
    ],
)
async def test_errors_told_inside_the_stream(
    fake: FakeAnthropic, make: Make, code: str, message: str, kind: type[ProviderError]
) -> None:
    fake.reply("Half a", Trouble(code, message))
    with pytest.raises(kind):
        await collect(make().stream(ask()))


async def test_silence_is_a_timeout(fake: FakeAnthropic, make: Make) -> None:
    fake.reply("Wait", Pause(3600), "done")
    with pytest.raises(ProviderTimeout):
        await collect(make(client_options=ClientOptions(read_s=60)).stream(ask()))
    assert (fake.streaming, fake.abandoned) == (0, 1)


async def test_closing_the_iterator_closes_the_connection(fake: FakeAnthropic, make: Make) -> None:
    fake.reply(Say("one two three", every=1))
    async with contextlib.aclosing(make().stream(ask())) as stream:  # type: ignore[type-var]
        assert await anext(stream) == TextChunk("one")
        assert fake.streaming == 1
    assert (fake.streaming, fake.abandoned) == (0, 1)


async def test_cancelling_closes_the_connection(fake: FakeAnthropic, make: Make) -> None:
    fake.reply(Say("one two three", every=100))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(150):
            await collect(make().stream(ask()))
    assert (fake.streaming, fake.abandoned) == (0, 1)


async def test_it_conforms(fake: FakeAnthropic, make: Make) -> None:
    fake.reply("Hello.")
    fake.reply("Look: ", Call("clock"), Call("clock"))
    fake.fail(503, "overloaded_error")
    fake.reply(Say("one two three", every=1))
    fake.reply("Hello again.")
    await check_ai_provider(
        make, tools=ask(tools=(ToolSpec(name="clock"),)), failing=ask(), streams_open=lambda: fake.streaming
    )
