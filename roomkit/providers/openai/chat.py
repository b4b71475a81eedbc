"""Chat Completions, spoken by OpenAI and most others: our request as its parameters, its chunks as our events. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roomkit.models.ai import (
    AIEvent,
    AIMessage,
    AIRequest,
    Finished,
    ImagePart,
    TextChunk,
    TextPart,
    ThinkingChunk,
    ToolCallChunk,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from roomkit.providers.openai.dialects import OpenAIDialect, effort
from roomkit.providers.sdk import ended_early
from roomkit.providers.wire import WireNames, clean_schema, tool_call, wire_id, written_arguments

if TYPE_CHECKING:
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import ChoiceDelta, ChoiceDeltaToolCall

Item = dict[str, Any]

DROPPABLE = frozenset({"temperature", "max_tokens", "max_completion_tokens", "reasoning_effort", "stream_options"})
"""Parameters some models or servers refuse. A refused limit is tried under its other name before it is left out."""


def parameters(
    request: AIRequest, *, model: str, dialect: OpenAIDialect, names: WireNames, dropped: Collection[str]
) -> dict[str, Any]:
    params: dict[str, Any] = {
        "model": model,
        "messages": _messages(request, dialect, names),
        "temperature": request.temperature,
        _limit_name(dialect, dropped): request.max_tokens,
        "reasoning_effort": effort(request.thinking_budget) if dialect.reasoning else None,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        params["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": names.wire(tool.name),
                    "description": tool.description,
                    "parameters": clean_schema(tool.parameters),
                },
            }
            for tool in request.tools
        ]
        params["tool_choice"] = request.tool_choice
    return {key: value for key, value in params.items() if value is not None and key not in dropped}


def _limit_name(dialect: OpenAIDialect, dropped: Collection[str]) -> str:
    other = "max_tokens" if dialect.max_tokens == "max_completion_tokens" else "max_completion_tokens"
    return other if dialect.max_tokens in dropped else dialect.max_tokens


def _messages(request: AIRequest, dialect: OpenAIDialect, names: WireNames) -> list[Item]:
    messages: list[Item] = []
    pictures: list[ImagePart] = []
    if request.system:
        messages.append({"role": dialect.system_role, "content": request.system})
    for message in request.messages:
        results = [part for part in message.parts if isinstance(part, ToolResultPart)]
        if pictures and not results:  # All results of a round must stand together, before anything else.
            messages.append({"role": "user", "content": _content(pictures)})
            pictures = []
        if message.role == "system":
            messages.append({"role": dialect.system_role, "content": message.text})
        elif message.role == "assistant":
            messages.extend(_assistant(message, names))
        else:
            for part in results:
                messages.append({"role": "tool", "tool_call_id": wire_id(part.call_id), "content": part.output})
                pictures.extend(part.images)
            if content := _content(message.parts):
                messages.append({"role": "user", "content": content})
    if pictures:
        messages.append({"role": "user", "content": _content(pictures)})
    return messages


def _content(parts: Iterable[Any]) -> str | list[Item]:
    content: list[Item] = []
    for part in parts:
        if isinstance(part, TextPart) and part.text:
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, ImagePart):
            content.append({"type": "image_url", "image_url": {"url": part.url}})
    if len(content) == 1 and content[0]["type"] == "text":
        return content[0]["text"]  # Small servers know plain text only.
    return content


def _assistant(message: AIMessage, names: WireNames) -> Iterator[Item]:
    calls = [
        {
            "id": wire_id(part.call_id),
            "type": "function",
            "function": {"name": names.wire(part.name), "arguments": written_arguments(part)},
        }
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    item: Item = {"role": "assistant"}
    if message.text:
        item["content"] = message.text
    if calls:
        item["tool_calls"] = calls
    if len(item) > 1:
        yield item


@dataclass(slots=True)
class _Call:
    call_id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])


class ChatReader:
    """Turns the chunks of one completion into our events; `end()` tells how it finished, or raises when it did not."""

    def __init__(self, provider: str, dialect: OpenAIDialect, names: WireNames) -> None:
        self._provider = provider
        self._dialect = dialect
        self._names = names
        self._calls: dict[int, _Call] = {}
        self._refusal: list[str] = []
        self._reason: str | None = None
        self._model: str | None = None
        self._usage = Usage()

    @property
    def finished(self) -> Finished | None:
        return None if self._reason is None else self.end()

    def feed(self, chunk: ChatCompletionChunk) -> Iterator[AIEvent]:
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        for choice in chunk.choices or ():
            if choice.delta:
                yield from self._delta(choice.delta)
            if choice.finish_reason and self._reason is None:
                self._reason = choice.finish_reason
                yield from self._complete_calls()

    def end(self) -> Finished:
        if self._reason is None:
            raise ended_early(self._provider)
        if self._refusal or self._reason == "content_filter":
            return Finished("refusal", self._usage, self._model, "".join(self._refusal) or "content filter")
        if self._calls and self._reason != "length":
            return Finished("tool_calls", self._usage, self._model)
        if self._reason == "stop":
            return Finished("stop", self._usage, self._model)
        return Finished("length" if self._reason == "length" else "other", self._usage, self._model, self._reason)

    def _delta(self, delta: ChoiceDelta) -> Iterator[AIEvent]:
        extra: dict[str, Any] = delta.model_extra or {}
        for name in self._dialect.thinking_fields:
            if isinstance(text := extra.get(name), str) and text:
                yield ThinkingChunk(text)
                break
        if delta.content:
            yield TextChunk(delta.content)
        if delta.refusal:
            self._refusal.append(delta.refusal)
            yield TextChunk(delta.refusal)
        for fragment in delta.tool_calls or ():
            self._fragment(fragment)

    def _fragment(self, fragment: ChoiceDeltaToolCall) -> None:
        call = self._calls.setdefault(fragment.index or 0, _Call())
        call.call_id = call.call_id or fragment.id or ""
        if fragment.function is not None:
            call.name = call.name or fragment.function.name or ""
            call.arguments.append(fragment.function.arguments or "")

    def _complete_calls(self) -> Iterator[AIEvent]:
        for _, call in sorted(self._calls.items()):
            call_id = call.call_id or f"call_{uuid.uuid4().hex}"
            yield ToolCallChunk(tool_call(call_id, self._names.ours(call.name), "".join(call.arguments)))


def _usage(usage: CompletionUsage) -> Usage:
    details: Any = usage.prompt_tokens_details
    thinking: Any = usage.completion_tokens_details
    return Usage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cache_read_tokens=getattr(details, "cached_tokens", None) or 0,
        cache_write_tokens=getattr(details, "cache_write_tokens", None) or 0,
        thinking_tokens=getattr(thinking, "reasoning_tokens", None) or 0,
    )
