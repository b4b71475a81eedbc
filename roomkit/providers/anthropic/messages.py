"""The Messages API: our request as its parameters, its events as ours. Pure.

The API has no temperature any more, so a request's own is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
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
    ThinkingPart,
    ToolCallChunk,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from roomkit.providers.sdk import ended_early
from roomkit.providers.wire import WireNames, clean_schema, data_url, tool_call, wire_id

if TYPE_CHECKING:
    from anthropic.types import MessageDeltaUsage, RawContentBlockDelta, RawMessageStreamEvent
    from anthropic.types import Usage as WireUsage
    from anthropic.types.raw_content_block_start_event import ContentBlock

Item = dict[str, Any]

DROPPABLE = frozenset({"thinking", "thinking.type.enabled", "output_config", "cache_control"})
"""Parameters some models refuse. A refused budget becomes adaptive thinking before thinking is left out."""

_REDACTED = "redacted:"
_MIN_BUDGET = 1024
_NAME_LIMIT = 128
_CHOICE = {"auto": "auto", "none": "none", "required": "any"}


def wire_names(request: AIRequest) -> WireNames:
    return WireNames((tool.name for tool in request.tools), _NAME_LIMIT)


def parameters(
    request: AIRequest, *, model: str, provider: str, max_tokens: int, names: WireNames, dropped: Collection[str]
) -> dict[str, Any]:
    system = [request.system or "", *(message.text for message in request.messages if message.role == "system")]
    params: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "messages": _messages(request.messages, provider, names),
        "system": "\n\n".join(text for text in system if text.strip()) or None,
        "cache_control": {"type": "ephemeral"},
        "tools": _tools(request, names),
    }
    if params["tools"] is not None:
        # Tools are named once they were used, even where none may be used again.
        params["tool_choice"] = {"type": _CHOICE[request.tool_choice] if request.tools else "none"}
    if request.thinking_budget and "thinking" not in dropped:
        _think(params, request.thinking_budget, adaptive="thinking.type.enabled" in dropped)
    return {key: value for key, value in params.items() if value is not None and key not in dropped}


def _think(params: dict[str, Any], budget: int, *, adaptive: bool) -> None:
    if adaptive:
        params["thinking"] = {"type": "adaptive", "display": "summarized"}
        params["output_config"] = {"effort": "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"}
    else:
        budget = max(budget, _MIN_BUDGET)
        params["thinking"] = {"type": "enabled", "budget_tokens": budget}
        if params["max_tokens"] <= budget:  # The limit counts thinking too; ours is what is left for the answer.
            params["max_tokens"] += budget
    if params.get("tool_choice", {}).get("type") == "any":
        params["tool_choice"] = {"type": "auto"}  # A forced call is refused beside thinking.


def _tools(request: AIRequest, names: WireNames) -> list[Item] | None:
    if request.tools:
        return [
            {
                "name": names.wire(tool.name),
                "description": tool.description,
                "input_schema": clean_schema(tool.parameters),
            }
            for tool in request.tools
        ]
    used = {
        names.wire(part.name)
        for message in request.messages
        for part in message.parts
        if isinstance(part, ToolCallPart)
    }
    return [{"name": name, "input_schema": {"type": "object"}} for name in sorted(used)] or None


def _messages(messages: Iterable[AIMessage], provider: str, names: WireNames) -> list[Item]:
    """Turns that alternate, begin and end with the user, as the API wants them."""
    turns: list[Item] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for part in message.parts if (block := _block(part, role, provider, names)) is not None]
        if role == "assistant":
            while blocks and blocks[-1]["type"] in {"thinking", "redacted_thinking"}:
                blocks.pop()  # an interrupted thought
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": role, "content": blocks})
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": "(The conversation begins.)"}]})
    if turns[-1]["role"] == "assistant":
        turns.append({"role": "user", "content": [{"type": "text", "text": "(Continue.)"}]})
    return turns


def _block(part: Any, role: str, provider: str, names: WireNames) -> Item | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text} if part.text.strip() else None  # Empty blocks are refused.
    if isinstance(part, ImagePart):
        return _image(part) if role == "user" else None
    if isinstance(part, ToolCallPart):
        return {
            "type": "tool_use",
            "id": wire_id(part.call_id),
            "name": names.wire(part.name),
            "input": part.arguments,
        }
    if isinstance(part, ToolResultPart):
        content: Any = part.output
        if part.images:
            text = [{"type": "text", "text": part.output}] if part.output.strip() else []
            content = [*text, *(_image(image) for image in part.images)]
        block: Item = {"type": "tool_result", "tool_use_id": wire_id(part.call_id), "content": content}
        return {**block, "is_error": True} if part.is_error else block
    return _thinking(part, provider) if isinstance(part, ThinkingPart) else None


def _thinking(part: ThinkingPart, provider: str) -> Item | None:
    signature = part.signature
    if part.provider not in {None, provider} or not signature or signature.startswith("{"):
        return None  # Without our vendor's own proof a thought is refused.
    if signature.startswith(_REDACTED):
        return {"type": "redacted_thinking", "data": signature.removeprefix(_REDACTED)}
    return {"type": "thinking", "thinking": part.text, "signature": signature}


def _image(part: ImagePart) -> Item:
    if (inline := data_url(part.url)) is None:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    mime_type, data = inline
    return {"type": "image", "source": {"type": "base64", "media_type": mime_type or part.mime_type, "data": data}}


class MessagesReader:
    """Turns the events of one message into ours; `end()` tells how it finished, or raises when it did not."""

    def __init__(self, provider: str, names: WireNames) -> None:
        self._provider = provider
        self._names = names
        self._tools: dict[int, tuple[str, str, list[str]]] = {}
        self._usage: dict[str, int] = {}
        self._model: str | None = None
        self._stop: str | None = None
        self._detail: str | None = None
        self.finished: Finished | None = None

    def feed(self, event: RawMessageStreamEvent) -> Iterator[AIEvent]:
        match event.type:
            case "message_start":
                self._model = event.message.model
                self._count(event.message.usage)
            case "content_block_start":
                yield from self._start(event.index, event.content_block)
            case "content_block_delta":
                yield from self._delta(event.index, event.delta)
            case "content_block_stop":
                if (tool := self._tools.pop(event.index, None)) is not None:
                    call_id, name, fragments = tool
                    yield ToolCallChunk(tool_call(call_id, self._names.ours(name), "".join(fragments)))
            case "message_delta":
                self._stop = event.delta.stop_reason or self._stop
                if (details := event.delta.stop_details) is not None:
                    self._detail = details.explanation or details.category
                self._count(event.usage)
            case "message_stop":
                self.finished = self._end()
            case _:
                pass  # event types of later API versions

    def end(self) -> Finished:
        if self.finished is None:
            raise ended_early(self._provider)
        return self.finished

    def _start(self, index: int, block: ContentBlock) -> Iterator[AIEvent]:
        if block.type == "tool_use":
            self._tools[index] = (block.id, block.name, [])
        elif block.type == "redacted_thinking":
            yield ThinkingChunk("", _REDACTED + block.data)
        elif block.type == "text" and block.text:
            yield TextChunk(block.text)

    def _delta(self, index: int, delta: RawContentBlockDelta) -> Iterator[AIEvent]:
        if delta.type == "text_delta":
            if delta.text:
                yield TextChunk(delta.text)
        elif delta.type == "thinking_delta":
            yield ThinkingChunk(delta.thinking)
        elif delta.type == "signature_delta":
            yield ThinkingChunk("", delta.signature)
        elif delta.type == "input_json_delta" and index in self._tools:
            self._tools[index][2].append(delta.partial_json)

    def _count(self, usage: WireUsage | MessageDeltaUsage) -> None:
        """Counters are cumulative: a later one replaces an earlier one."""
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            if (count := getattr(usage, name, None)) is not None:
                self._usage[name] = count
        if (details := usage.output_tokens_details) is not None:
            self._usage["thinking"] = details.thinking_tokens

    def _end(self) -> Finished:
        count = self._usage
        read, written = count.get("cache_read_input_tokens", 0), count.get("cache_creation_input_tokens", 0)
        usage = Usage(
            # The vendor counts cached tokens beside the input; for us they are parts of it.
            input_tokens=count.get("input_tokens", 0) + read + written,
            output_tokens=count.get("output_tokens", 0),
            cache_read_tokens=read,
            cache_write_tokens=written,
            thinking_tokens=count.get("thinking", 0),
        )
        match self._stop:
            case "end_turn" | "stop_sequence":
                return Finished("stop", usage, self._model)
            case "tool_use":
                return Finished("tool_calls", usage, self._model)
            case "max_tokens" | "model_context_window_exceeded":
                return Finished("length", usage, self._model, self._stop)
            case "refusal":
                return Finished("refusal", usage, self._model, self._detail)
            case _:
                return Finished("other", usage, self._model, self._stop)
