"""OpenAI through its real SDK against the fake vendor: Responses API and Chat Completions."""

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
from roomkit.providers.openai.ai import OpenAIProvider, provider
from roomkit.providers.openai.dialects import COMPATIBLE, OPENAI, OPENAI_CHAT, OpenAIDialect
from roomkit.testing.ai import check_ai_provider
from roomkit.testing.vendors.openai import FakeOpenAI
from roomkit.testing.vendors.script import Call, Cut, Garbage, Pause, Refuse, Say, Think, Trouble, Vanish

Make = Callable[..., OpenAIProvider]
SPEC = ToolSpec(
    name="shop.find order",  # no vendor takes such a name
    description="Finds an order.",
    parameters={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"number": {"type": ["integer", "null"], "x-internal": True}},
        "additionalProperties": False,
    },
)


@pytest.fixture
def fake() -> FakeOpenAI:
    return FakeOpenAI()


@pytest.fixture(params=["responses", "chat"])
def make(request: pytest.FixtureRequest, fake: FakeOpenAI) -> Make:
    def make(**options: object) -> OpenAIProvider:
        dialect = OPENAI if request.param == "responses" else OPENAI_CHAT
        settings = {"api_key": fake.key, "dialect": dialect, "transport": fake.transport(), **options}
        return OpenAIProvider("gpt-test", **settings)  # type: ignore[arg-type]

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
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment-0123456789")
    ours = provider("gpt-x")
    assert isinstance(ours, AIProvider)
    assert "environment" not in repr(ours)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="set OPENAI_API_KEY"):
        OpenAIProvider("gpt-x")


async def test_text_streams_word_by_word(fake: FakeOpenAI, make: Make) -> None:
    fake.reply("Hello there, friend!", usage=Usage(100, 7, 60, 10, 3))
    request = ask(system="Be kind.", temperature=0.5, max_tokens=99)
    events = await collect(make().stream(request))
    assert [event.text for event in events[:-1] if isinstance(event, TextChunk)] == ["Hello", " there,", " friend!"]
    assert events[-1] == Finished("stop", Usage(100, 7, 60, 10, 3), "gpt-test")
    [sent] = fake.requests
    assert sent["model"] == "gpt-test"
    assert sent["temperature"] == 0.5
    assert sent.get("max_output_tokens", sent.get("max_completion_tokens")) == 99
    assert sent.get("store", False) is False


async def test_tools_in_parallel_and_back_again(fake: FakeOpenAI, make: Make) -> None:
    wire = "shop_find_order"
    fake.reply("Looking. ", Call("clock"), Call("?"))
    ours = make()
    request = ask(tools=(SPEC, ToolSpec(name="clock")), tool_choice="required")
    await collect(ours.stream(request))
    [name] = [tool.get("name") or tool["function"]["name"] for tool in fake.requests[0]["tools"] if "shop" in str(tool)]
    assert name.startswith(wire)
    fake.reply(Call(name, {"number": 1042}, "c1"), Call("clock", {}, "c2"))
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
        ToolResultPart(call_id="c2", name="clock", output="12:00"),
    )
    fake.reply("It has been shipped.")
    history = (
        *request.messages,
        AIMessage(role="assistant", parts=tuple(calls)),
        AIMessage(role="tool", parts=results),
    )
    events = await collect(ours.stream(request.model_copy(update={"messages": history, "tool_choice": "auto"})))
    assert text_of(events) == "It has been shipped."
    assert "data:image/png;base64,AAAA" in str(fake.requests[-1])
    assert fake.violations == []


async def test_call_ids_of_other_vendors_fit(fake: FakeOpenAI, make: Make) -> None:
    call_id = "turn-7/call#1:" + "x" * 80
    call = ToolCallPart(call_id=call_id, name="clock", arguments={})
    result = ToolResultPart(call_id=call_id, name="clock", output="12:00")
    fake.reply("Noon.")
    messages = (*ask().messages, AIMessage(role="assistant", parts=(call,)), AIMessage(role="tool", parts=(result,)))
    assert text_of(await collect(make().stream(AIRequest(messages=messages)))) == "Noon."


async def test_malformed_arguments_are_kept_as_written(fake: FakeOpenAI, make: Make) -> None:
    fake.reply(Call("clock", '{"zone": "Eur'), Call("clock", "[1]"), Call("clock", ""))
    ours = make()
    request = ask(tools=(ToolSpec(name="clock"),))
    calls = [event.call for event in await collect(ours.stream(request)) if isinstance(event, ToolCallChunk)]
    assert [call.malformed for call in calls] == ['{"zone": "Eur', "[1]", None]
    results = tuple(ToolResultPart(call_id=c.call_id, name=c.name, output="bad", is_error=True) for c in calls)
    fake.reply("Sorry.")
    history = (
        *request.messages,
        AIMessage(role="assistant", parts=tuple(calls)),
        AIMessage(role="tool", parts=results),
    )
    await collect(ours.stream(request.model_copy(update={"messages": history})))
    assert '{"zone": "Eur' in str(fake.requests[-1]).replace("\\", "")


async def test_thinking_travels_back_with_its_proof(fake: FakeOpenAI) -> None:
    ours = OpenAIProvider("o-test", api_key=fake.key, transport=fake.transport())
    fake.reply(Think("First this.\n\nThen that."), Call("clock", call_id="c1"))
    request = ask(tools=(ToolSpec(name="clock"),), thinking_budget=4000)
    events = await collect(ours.stream(request))
    thoughts = [event for event in events if isinstance(event, ThinkingChunk)]
    assert "".join(thought.text for thought in thoughts) == "First this.\n\nThen that."
    assert fake.requests[0]["reasoning"] == {"effort": "medium", "summary": "auto"}
    proof = thoughts[-1].signature
    assert proof is not None
    parts = (
        ThinkingPart(text="First this.\n\nThen that.", signature=proof, provider="openai"),
        ThinkingPart(text="not ours", signature='{"id": "rs_9", "encrypted_content": "z"}', provider="else"),
        ToolCallPart(call_id="c1", name="clock", arguments={}),
        ThinkingPart(text="interrupted", signature=proof),
    )
    result = ToolResultPart(call_id="c1", name="clock", output="12:00")
    history = (*request.messages, AIMessage(role="assistant", parts=parts), AIMessage(role="tool", parts=(result,)))
    fake.reply("Noon.")
    await collect(ours.stream(request.model_copy(update={"messages": history})))
    kinds = [item.get("type", item.get("role")) for item in fake.requests[-1]["input"]]
    assert kinds == ["user", "reasoning", "function_call", "function_call_output"]
    assert fake.violations == []


async def test_thinking_of_compatible_servers(fake: FakeOpenAI) -> None:
    ours = OpenAIProvider("qwen", api_key=fake.key, base_url="http://model.test/v1", transport=fake.transport())
    assert ours.dialect is COMPATIBLE
    fake.reply(Think("Hm, let me see."), "Yes.")
    events = await collect(ours.stream(ask(max_tokens=5)))
    assert "".join(event.text for event in events if isinstance(event, ThinkingChunk)) == "Hm, let me see."
    assert fake.requests[0]["max_tokens"] == 5
    assert fake.requests[0]["messages"] == [{"role": "user", "content": "Hi"}]


async def test_a_foreign_server_never_gets_the_key_of_the_environment(
    fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", fake.key)
    ours = OpenAIProvider("m", base_url="http://elsewhere.test/v1", dialect=OPENAI_CHAT, transport=fake.transport())
    fake.reply("You should not hear this.")
    with pytest.raises(Unauthorized):
        await collect(ours.stream(ask()))


async def test_images_are_shown(fake: FakeOpenAI, make: Make) -> None:
    fake.reply("A cat.")
    parts = (TextPart(text="What is it?"), ImagePart(url="https://pictures.test/cat.png"))
    request = AIRequest(messages=(AIMessage(role="user", parts=parts), AIMessage(role="system", parts=parts[:1])))
    assert text_of(await collect(make().stream(request))) == "A cat."
    assert "https://pictures.test/cat.png" in str(fake.requests[0])


async def test_a_refusal_is_shown_and_named(fake: FakeOpenAI, make: Make) -> None:
    fake.reply(Refuse("No."))
    events = await collect(make().stream(ask()))
    assert text_of(events) == "No."
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].detail) == ("refusal", "No.")


async def test_a_reply_cut_by_the_limit_says_so(fake: FakeOpenAI, make: Make) -> None:
    fake.reply("Once upon", stop="length")
    events = await collect(make(max_tokens=2).stream(ask()))
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "length"
    assert 2 in {fake.requests[0].get("max_output_tokens"), fake.requests[0].get("max_completion_tokens")}


@pytest.mark.parametrize("name", ["temperature", "reasoning", "reasoning.summary", "include", "store"])
async def test_refused_parameters_are_left_out_from_then_on(fake: FakeOpenAI, name: str) -> None:
    ours = OpenAIProvider("gpt-test", api_key=fake.key, transport=fake.transport())
    fake.unsupported = {name}
    for word in ("One.", "Two."):
        fake.reply(word)
        request = ask(temperature=0.1, thinking_budget=100)
        assert text_of(await collect(ours.stream(request))) == word
    top, _, inner = name.partition(".")
    assert all(inner not in sent[top] if inner else top not in sent for sent in fake.requests)
    assert len(fake.requests) == 2


async def test_a_refused_limit_is_tried_under_its_other_name(fake: FakeOpenAI) -> None:
    ours = OpenAIProvider("m", api_key=fake.key, dialect=OPENAI_CHAT, transport=fake.transport())
    fake.unsupported = {"max_completion_tokens", "stream_options", "reasoning_effort"}
    fake.reply("Yes.")
    await collect(ours.stream(ask(max_tokens=7, thinking_budget=1)))
    assert fake.requests[0]["max_tokens"] == 7
    fake.unsupported.add("max_tokens")
    fake.reply("Still.")
    await collect(ours.stream(ask(max_tokens=7)))
    assert "max_tokens" not in fake.requests[1]


async def test_other_bad_requests_are_not_tried_again(fake: FakeOpenAI, make: Make) -> None:
    fake.fail(400, "invalid_value", "Invalid 'model'.")
    fake.reply("never asked for")
    with pytest.raises(Refused, match="Invalid 'model'"):
        await collect(make().stream(ask(temperature=1)))
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "status,code,kind,retryable",
    [
        (429, "rate_limit_exceeded", RateLimited, True),
        (429, "insufficient_quota", RateLimited, False),
        (500, "server_error", Unavailable, True),
        (503, "overloaded", Unavailable, True),
        (403, "permission_error", Unauthorized, False),
        (404, "model_not_found", Refused, False),
        (413, "request_too_large", ContextOverflow, False),
    ],
)
async def test_http_errors(
    fake: FakeOpenAI, make: Make, status: int, code: str, kind: type[ProviderError], retryable: bool
) -> None:
    fake.fail(status, code, "told so", retry_after="7")
    with pytest.raises(kind) as caught:
        await collect(make().stream(ask()))
    error = caught.value
    assert (error.retryable, error.retry_after if retryable else 7, error.code) == (retryable, 7, code)
    assert len(fake.requests) == 1  # the SDK's own retries are off


async def test_retry_after_may_be_a_date(fake: FakeOpenAI, make: Make) -> None:
    later, now = "Fri, 20 Nov 2026 10:00:30 GMT", "Fri, 20 Nov 2026 10:00:00 GMT"
    fake.fail(429, "rate_limit_exceeded", retry_after=later, date=now)
    with pytest.raises(RateLimited) as caught:
        await collect(make().stream(ask()))
    assert caught.value.retry_after == 30


async def test_context_overflow_is_told_apart(fake: FakeOpenAI, make: Make) -> None:
    fake.overflow()
    with pytest.raises(ContextOverflow):
        await collect(make().stream(ask()))


async def test_a_wrong_key_is_named_but_not_shown(fake: FakeOpenAI, make: Make) -> None:
    with pytest.raises(Unauthorized) as caught:
        await collect(make(api_key="wrong-but-secret-key").stream(ask()))
    assert "wrong-but-secret-key" not in str(caught.value)


@pytest.mark.parametrize("step", [Cut(), Vanish()])
async def test_a_cut_keeps_what_came_and_says_so(fake: FakeOpenAI, make: Make, step: Cut | Vanish) -> None:
    fake.reply("Half a", step)
    heard: list[AIEvent] = []
    with pytest.raises(BadResponse, match="cut off") as caught:
        await collect(make().stream(ask()), heard)
    assert text_of(heard) == "Half a"
    assert caught.value.retryable


async def test_garbage_in_the_stream(fake: FakeOpenAI, make: Make) -> None:
    fake.reply("Half a", Garbage())
    with pytest.raises(BadResponse):
        await collect(make().stream(ask()))


@pytest.mark.parametrize(
    "code,kind",
    [
        ("rate_limit_exceeded", RateLimited),
        ("server_error", Unavailable),
        ("context_length_exceeded", ContextOverflow),
        ("who_knows", BadResponse),
    ],
)
async def test_errors_told_inside_the_stream(
    fake: FakeOpenAI, make: Make, code: str, kind: type[ProviderError]
) -> None:
    fake.reply("Half a", Trouble(code))
    with pytest.raises(kind):
        await collect(make().stream(ask()))


async def test_silence_is_a_timeout(fake: FakeOpenAI, make: Make) -> None:
    fake.reply("Wait", Pause(3600), "done")
    began = asyncio.get_running_loop().time()
    with pytest.raises(ProviderTimeout):
        await collect(make(client_options=ClientOptions(read_s=60)).stream(ask()))
    assert asyncio.get_running_loop().time() - began == pytest.approx(60, abs=1)
    assert (fake.streaming, fake.abandoned) == (0, 1)


async def test_a_slow_drip_is_no_timeout(fake: FakeOpenAI, make: Make) -> None:
    fake.reply(Say("one two three", every=50))
    events = await collect(make(client_options=ClientOptions(read_s=60)).stream(ask()))
    assert text_of(events) == "one two three"


async def test_closing_the_iterator_closes_the_connection(fake: FakeOpenAI, make: Make) -> None:
    fake.reply(Say("one two three", every=1))
    async with contextlib.aclosing(make().stream(ask())) as stream:  # type: ignore[type-var]
        assert await anext(stream) == TextChunk("one")
        assert fake.streaming == 1
    assert (fake.streaming, fake.abandoned) == (0, 1)


async def test_cancelling_closes_the_connection(fake: FakeOpenAI, make: Make) -> None:
    fake.reply(Say("one two three", every=100))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(150):
            await collect(make().stream(ask()))
    assert (fake.streaming, fake.abandoned) == (0, 1)


async def test_many_first_uses_build_one_client(fake: FakeOpenAI, make: Make) -> None:
    ours = make()
    for _ in range(3):
        fake.reply("Yes.")
    replies = await asyncio.gather(*(collect(ours.stream(ask())) for _ in range(3)))
    assert [text_of(events) for events in replies] == ["Yes."] * 3
    await ours.aclose()


def test_a_dialect_is_data() -> None:
    assert OpenAIDialect(max_tokens="max_completion_tokens").api == "chat"


async def test_it_conforms(fake: FakeOpenAI, make: Make) -> None:
    fake.reply("Hello.")
    fake.reply("Look: ", Call("clock"), Call("clock"))
    fake.fail(503, "overloaded_error")
    fake.reply(Say("one two three", every=1))
    fake.reply("Hello again.")
    await check_ai_provider(
        make, tools=ask(tools=(ToolSpec(name="clock"),)), failing=ask(), streams_open=lambda: fake.streaming
    )
