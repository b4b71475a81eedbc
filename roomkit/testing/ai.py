"""ScriptedAI: a model that says what the test wrote; and `check_ai_provider`, the conformance kit of the port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from roomkit.errors import BadResponse, ProviderError
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
    ToolCallPart,
    Usage,
)

Item = str | float | AIEvent | ToolCallPart | BaseException | asyncio.Event
Round = Sequence[Item] | str | Callable[[AIRequest], "Sequence[Item] | str"]


def call(name: str, call_id: str = "", /, **arguments: Any) -> ToolCallPart:
    """A tool call for a script; without an id the loop gives it one."""
    return ToolCallPart.made(call_id=call_id, name=name, arguments=arguments)


class ScriptedAI:
    """A fake provider. Each generation plays the next round:

        ScriptedAI(["Let me see. ", 0.5, call("find_order", number=1042)], "It is on its way.")

    Strings are text deltas, numbers seconds to wait, `asyncio.Event`s moments to wait for; exceptions are raised, calls
    and AI events are sent. A round may be a function of the request. A missing `Finished` is added, with `usage`. After
    the last round `BadResponse` is raised, or that round is played again if `repeat`.

    `requests` are the requests seen, `opened` and `closed` count streams: they are equal when nothing leaks.
    """

    def __init__(
        self,
        *rounds: Round,
        name: str = "scripted",
        profile: AIProfile | None = None,
        usage: Usage | None = None,
        delay: float = 0.0,
        repeat: bool = False,
    ) -> None:
        self.name = name
        self.profile = profile or AIProfile(structured_streaming=True, vision=True, thinking=True)
        self.requests: list[AIRequest] = []
        self.opened = 0
        self.closed = 0
        self.shut = False
        self._rounds = list(rounds)
        self._played = 0
        self._usage = usage or Usage(input_tokens=10, output_tokens=5)
        self._delay = delay
        self._repeat = repeat

    def add(self, *rounds: Round) -> None:
        """Writes on at the end of the script."""
        self._rounds += rounds

    async def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
        self.opened += 1
        try:
            items = self._next(request)
            calls = False
            for item in items:
                if self._delay:
                    await asyncio.sleep(self._delay)
                match item:
                    case str():
                        yield TextChunk(item)
                    case float() | int():
                        await asyncio.sleep(item)
                    case asyncio.Event():
                        await item.wait()
                    case ToolCallPart():
                        calls = True
                        yield ToolCallChunk(item)
                    case BaseException():
                        raise item
                    case Finished():
                        yield item
                        return
                    case TextChunk() | ThinkingChunk() | ToolCallChunk():
                        calls = calls or isinstance(item, ToolCallChunk)
                        yield item
            yield Finished("tool_calls" if calls else "stop", self._usage, model=self.name)
        finally:
            self.closed += 1

    async def aclose(self) -> None:
        self.shut = True

    def _next(self, request: AIRequest) -> Sequence[Item]:
        self.requests.append(request)
        if self._played < len(self._rounds):
            self._played += 1
        elif not self._repeat or not self._rounds:
            raise BadResponse(self.name, f"the script has only {len(self._rounds)} rounds; add more or repeat=True")
        chosen = self._rounds[self._played - 1]
        items = chosen(request) if callable(chosen) else chosen
        return [items] if isinstance(items, str) else items


async def check_ai_provider(
    make: Callable[[], Any],
    *,
    text: AIRequest | None = None,
    tools: AIRequest | None = None,
    failing: AIRequest | None = None,
    streams_open: Callable[[], int] | None = None,
    after: Callable[[Any], Awaitable[None]] | None = None,
) -> None:
    """Checks that what `make()` returns is an AIProvider as the port wants it; raises AssertionError with the reason.

    `text` must get text, `tools` at least one call, `failing` a `ProviderError`. `streams_open` counts the vendor
    connections that are open now, to see that closing a stream closes its connection.
    """
    provider = make()
    assert provider.name, "a provider has a name"
    assert isinstance(provider.profile, AIProfile), "a provider has a profile"
    hello = text or AIRequest(messages=(AIMessage(role="user", parts=(TextPart(text="Hello"),)),))
    events = [event async for event in provider.stream(hello)]
    _check_events(events)
    assert any(isinstance(event, TextChunk) and event.text for event in events), "the text request got no text"
    if tools is not None:
        events = [event async for event in provider.stream(tools)]
        _check_events(events)
        calls = [event.call for event in events if isinstance(event, ToolCallChunk)]
        assert calls, "the tools request got no call"
        assert len({each.call_id for each in calls}) == len(calls), "two calls of one generation have one id"
        assert events[-1].reason == "tool_calls", "a generation with calls finishes with tool_calls"
    if failing is not None:
        assert await _fails(provider, failing), "the failing request did not raise a ProviderError with its name"
    async with aclosing(provider.stream(hello)) as stream:
        await anext(stream)
    if streams_open is not None:
        assert streams_open() == 0, "closing a stream left its connection open"
    again = [event async for event in provider.stream(hello)]
    _check_events(again)
    if after is not None:
        await after(provider)
    await provider.aclose()
    await provider.aclose()


async def _fails(provider: Any, request: AIRequest) -> bool:
    try:
        async for _ in provider.stream(request):
            pass
    except ProviderError as error:
        return error.provider == provider.name
    return False


def _check_events(events: Sequence[AIEvent]) -> None:
    last = events[-1] if events else None
    assert isinstance(last, Finished), "the last event of a stream is Finished"
    assert sum(isinstance(event, Finished) for event in events) == 1, "a stream finishes once"
    usage = last.usage
    assert usage.cache_read_tokens + usage.cache_write_tokens <= usage.input_tokens, "cache counters are parts of input"
