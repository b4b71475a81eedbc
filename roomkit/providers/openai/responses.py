"""The Responses API: our request as its parameters, its events as ours. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

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
    Usage,
)
from roomkit.providers.openai.dialects import OpenAIDialect, effort
from roomkit.providers.sdk import ended_early, vendor_error
from roomkit.providers.wire import WireNames, clean_schema, tool_call, wire_id, written_arguments

if TYPE_CHECKING:
    from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent

Item = dict[str, Any]

DROPPABLE = frozenset({"temperature", "max_output_tokens", "reasoning", "reasoning.summary", "include", "store"})
"""Parameters some models or servers refuse; without them the request still means the same, or nearly."""


def parameters(
    request: AIRequest, *, model: str, provider: str, dialect: OpenAIDialect, names: WireNames, dropped: Collection[str]
) -> dict[str, Any]:
    level = effort(request.thinking_budget) if dialect.reasoning else None
    reasoning = None if level is None else {"effort": level, "summary": "auto"}
    if reasoning and "reasoning.summary" in dropped:
        del reasoning["summary"]
    params: dict[str, Any] = {
        "model": model,
        "input": _input(request.messages, provider=provider, dialect=dialect, names=names),
        "instructions": request.system,
        "temperature": request.temperature,
        "max_output_tokens": request.max_tokens,
        "reasoning": reasoning,
        # Nothing is kept at the vendor; reasoning travels with us instead, encrypted.
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    if request.tools:
        params["tools"] = [
            {
                "type": "function",
                "name": names.wire(tool.name),
                "description": tool.description,
                "parameters": clean_schema(tool.parameters),
                "strict": False,
            }
            for tool in request.tools
        ]
        params["tool_choice"] = request.tool_choice
    return {key: value for key, value in params.items() if value is not None and key not in dropped}


def _input(messages: Iterable[AIMessage], *, provider: str, dialect: OpenAIDialect, names: WireNames) -> list[Item]:
    items: list[Item] = []
    for message in messages:
        if message.role == "system":
            items.append({"role": dialect.system_role, "content": message.text})
        elif message.role == "assistant":
            items.extend(_assistant(message, provider, names))
        else:
            items.extend(_result(part) for part in message.parts if isinstance(part, ToolResultPart))
            if content := _content(message.parts):
                items.append({"role": "user", "content": content})
    return items


def _content(parts: Iterable[Any]) -> list[Item]:
    content: list[Item] = []
    for part in parts:
        if isinstance(part, TextPart) and part.text:
            content.append({"type": "input_text", "text": part.text})
        elif isinstance(part, ImagePart):
            content.append({"type": "input_image", "image_url": part.url, "detail": "auto"})
    return content


def _result(part: ToolResultPart) -> Item:
    output: Any = part.output
    if part.images:
        output = _content([TextPart(text=part.output), *part.images])
    return {"type": "function_call_output", "call_id": wire_id(part.call_id), "output": output}


def _assistant(message: AIMessage, provider: str, names: WireNames) -> Iterator[Item]:
    reasoning: list[Item] = []
    for part in message.parts:
        if isinstance(part, ThinkingPart):
            if (item := _reasoning(part, provider)) is not None:
                reasoning.append(item)
            continue
        if isinstance(part, ToolCallPart):
            item = {
                "type": "function_call",
                "call_id": wire_id(part.call_id),
                "name": names.wire(part.name),
                "arguments": written_arguments(part),
            }
        elif isinstance(part, TextPart) and part.text:
            item = {"role": "assistant", "content": part.text}
        else:
            continue
        # Reasoning is refused unless what came of it follows: an interrupted thought is left out.
        yield from reasoning
        reasoning.clear()
        yield item


def _reasoning(part: ThinkingPart, provider: str) -> Item | None:
    if part.provider not in {None, provider} or not part.signature:
        return None
    try:
        proof: Any = json.loads(part.signature)
    except ValueError:
        return None  # another vendor's proof
    if not isinstance(proof, dict) or not {"id", "encrypted_content"} <= proof.keys():
        return None
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    return {"type": "reasoning", "summary": summary, **cast("dict[str, Any]", proof)}


class ResponsesReader:
    """Turns the events of one response into ours; `end()` tells how it finished, or raises when it did not."""

    def __init__(self, provider: str, names: WireNames) -> None:
        self._provider = provider
        self._names = names
        self._calls = 0
        self._refusal: list[str] = []
        self.finished: Finished | None = None

    def feed(self, event: ResponseStreamEvent) -> Iterator[AIEvent]:
        match event.type:
            case "response.output_text.delta" if event.delta:
                yield TextChunk(event.delta)
            case "response.refusal.delta":
                self._refusal.append(event.delta)
                yield TextChunk(event.delta)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                yield ThinkingChunk(event.delta)
            case "response.reasoning_summary_part.added" if event.summary_index > 0:
                yield ThinkingChunk("\n\n")
            case "response.output_item.done":
                yield from self._item(event.item)
            case "response.completed" | "response.incomplete":
                self.finished = self._end(event.response)
            case "response.failed":
                error = event.response.error
                message = error.message if error else "the response failed"
                raise vendor_error(self._provider, message, code=error.code if error else None)
            case "error":
                raise vendor_error(self._provider, event.message, code=event.code)
            case _:
                pass

    def end(self) -> Finished:
        if self.finished is None:
            raise ended_early(self._provider)
        return self.finished

    def _item(self, item: ResponseOutputItem) -> Iterator[AIEvent]:
        if item.type == "function_call":
            self._calls += 1
            yield ToolCallChunk(tool_call(item.call_id, self._names.ours(item.name), item.arguments))
        elif item.type == "reasoning" and item.encrypted_content:
            yield ThinkingChunk("", json.dumps({"id": item.id, "encrypted_content": item.encrypted_content}))

    def _end(self, response: Response) -> Finished:
        usage = _usage(response)
        why = response.incomplete_details.reason if response.incomplete_details else None
        if self._refusal or why == "content_filter":
            return Finished("refusal", usage, response.model, "".join(self._refusal) or "content filter")
        if response.status == "incomplete":
            return Finished("length" if why == "max_output_tokens" else "other", usage, response.model, why)
        return Finished("tool_calls" if self._calls else "stop", usage, response.model)


def _usage(response: Response) -> Usage:
    usage = response.usage
    if usage is None:
        return Usage()
    details: Any = usage.input_tokens_details
    thinking: Any = usage.output_tokens_details
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=getattr(details, "cached_tokens", None) or 0,
        cache_write_tokens=getattr(details, "cache_write_tokens", None) or 0,
        thinking_tokens=getattr(thinking, "reasoning_tokens", None) or 0,
    )
