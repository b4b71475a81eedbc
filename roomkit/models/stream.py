"""A reply while it is being made: what subscribers see (S68-S72) and the parts a brain yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from roomkit.models.content import Frozen, ToolCallContent
from roomkit.models.event import EventSource, RoomEvent


class StreamStart(Frozen):
    """A reply begins. `stream_id` is the id that the stored event will have (D18)."""

    type: Literal["stream_start"] = "stream_start"
    room_id: str
    stream_id: str
    source: EventSource
    parent_event_id: str | None = None


class StreamChunk(Frozen):
    """One text delta; `offset` is its position in characters from the start of the reply (D13)."""

    type: Literal["stream_chunk"] = "stream_chunk"
    room_id: str
    stream_id: str
    offset: int
    delta: str


_new, _slots = object.__new__, vars(BaseModel)
_set_fields, _set_extra = _slots["__pydantic_fields_set__"].__set__, _slots["__pydantic_extra__"].__set__
_set_private, _CHUNK_FIELDS = _slots["__pydantic_private__"].__set__, set(StreamChunk.model_fields)


def chunk_of(room_id: str, stream_id: str, offset: int, delta: str) -> StreamChunk:
    """`StreamChunk.trusted` written out: this runs for every delta of every reply."""
    made = _new(StreamChunk)
    values = vars(made)
    values["type"] = "stream_chunk"
    values["room_id"] = room_id
    values["stream_id"] = stream_id
    values["offset"] = offset
    values["delta"] = delta
    _set_fields(made, _CHUNK_FIELDS)
    _set_extra(made, None)
    _set_private(made, None)
    return made


class StreamEnd(Frozen):
    """The reply is stored. `event` carries the full final text and replaces whatever was shown (D14, D18)."""

    type: Literal["stream_end"] = "stream_end"
    room_id: str
    stream_id: str
    event: RoomEvent


class StreamError(Frozen):
    """The reply ended without a stored message for this viewer; what was shown is withdrawn.

    `error` is a short code, safe to show."""

    type: Literal["stream_error"] = "stream_error"
    room_id: str
    stream_id: str
    error: str


StreamMessage = StreamStart | StreamChunk | StreamEnd | StreamError


class Ephemeral(Frozen):
    """A sign of life that is never stored: typing, presence, read, thinking, tool progress (at most once, R12)."""

    type: Literal["ephemeral"] = "ephemeral"
    kind: str
    room_id: str
    sender: str
    visibility: str = "all"
    data: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, init=False)
class TextDelta:
    text: str

    def __init__(self, text: str) -> None:
        _set_text(self, text)


_set_text = vars(TextDelta)["text"].__set__  # half the price of what a frozen dataclass has


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolStep:
    """A tool call changed state. The room makes it durable before the brain is asked to go on: a pending step is
    the journal's intent, so it must be yielded before the tool runs (R8)."""

    call: ToolCallContent
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class ReplyEnd:
    """Why the brain stopped, on every exit: completed, max_rounds, timeout, truncated, empty_response,
    force_stopped, cancelled, error. `usage` is summed over all rounds."""

    reason: str
    usage: dict[str, int] = field(default_factory=lambda: {})
    error: str | None = None
    metadata: dict[str, Any] = field(default_factory=lambda: {})


ReplyPart = TextDelta | ThinkingDelta | ToolStep | ReplyEnd | str
