"""What goes to a language model and what comes back, the same for every vendor."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

from roomkit.models.content import Frozen


class TextPart(Frozen):
    type: Literal["text"] = "text"
    text: str


class ImagePart(Frozen):
    """`url` is http(s): or data:."""

    type: Literal["image"] = "image"
    url: str
    mime_type: str = "image/png"


class ThinkingPart(Frozen):
    """Kept and sent back unchanged; `signature` is the vendor's opaque proof."""

    type: Literal["thinking"] = "thinking"
    text: str
    signature: str | None = None
    provider: str | None = None


class ToolCallPart(Frozen):
    type: Literal["tool_call"] = "tool_call"
    call_id: str
    name: str
    arguments: dict[str, Any]
    malformed: str | None = None
    """The raw text of arguments that are not a JSON object; such a call is answered with an error, not run."""


class ToolResultPart(Frozen):
    type: Literal["tool_result"] = "tool_result"
    call_id: str
    name: str
    output: str
    is_error: bool = False
    images: tuple[ImagePart, ...] = ()


Part = TextPart | ImagePart | ThinkingPart | ToolCallPart | ToolResultPart


class AIMessage(Frozen):
    role: Literal["system", "user", "assistant", "tool"]
    parts: tuple[Part, ...]
    name: str | None = None
    event_id: str | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


class ToolSpec(Frozen):
    """A tool as the model sees it. `parameters` is a JSON Schema object.

    `idempotent` tools may be run again after a crash with the same key; others become `unknown_outcome` (R8).
    `needs_approval` asks a person first (D36)."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    idempotent: bool = False
    needs_approval: bool = False
    timeout_s: float | None = None


class AIRequest(Frozen):
    """One generation. None means the provider's own default (precedence: D2)."""

    messages: tuple[AIMessage, ...]
    system: str | None = None
    tools: tuple[ToolSpec, ...] = ()
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    thinking_budget: int | None = None
    tool_choice: Literal["auto", "none", "required"] = "auto"
    metadata: dict[str, Any] = {}


class AIProfile(Frozen):
    """What a provider or model can do; data, asked by the channel instead of the vendor's name."""

    streaming: bool = True
    structured_streaming: bool = False
    tools: bool = True
    vision: bool = False
    thinking: bool = False
    max_tokens: int | None = None
    context_window: int | None = None


# What a provider yields are tuples with names: a frozen dataclass costs several times as much to make.
class TextChunk(NamedTuple):
    text: str


class ThinkingChunk(NamedTuple):
    text: str
    signature: str | None = None


class ToolCallChunk(NamedTuple):
    """A complete call: providers gather the vendor's argument fragments themselves."""

    call: ToolCallPart


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one round. The cache counters are parts of `input_tokens`, never added to it again."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    thinking_tokens: int = 0


COUNTERS = tuple(counter.name for counter in fields(Usage))


class Finished(NamedTuple):
    """The end of one generation; always the last event of a stream that did not raise."""

    reason: Literal["stop", "tool_calls", "length", "refusal", "other"]
    usage: Usage = Usage()
    model: str | None = None
    detail: str | None = None


AIEvent = TextChunk | ThinkingChunk | ToolCallChunk | Finished
