"""What a tool gave back, as the model and the log get it. A large result is kept aside and read in pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from pydantic import BaseModel

from roomkit.ai.compact import BYTES_PER_TOKEN, estimate_tokens
from roomkit.ai.tools import ToolContext, ToolSource
from roomkit.errors import ToolFailed
from roomkit.models.ai import ImagePart, TextPart, ToolSpec
from roomkit.models.content import ToolCallContent

LARGE_TOKENS = 5000
PAGE_TOKENS = 4000
PREVIEW_TOKENS = 500
MAX_RECORD = 400_000
"""Characters of one result that the log keeps."""
CUT = "The result has "
READ_STORED_RESULT = "read_stored_result"


def render(value: Any) -> tuple[str, tuple[ImagePart, ...]]:
    """Text and pictures of whatever a tool returned."""
    if value is None:
        return "(done, no output)", ()
    if isinstance(value, str):
        return value, ()
    if isinstance(value, TextPart | ImagePart):
        value = [value]
    if isinstance(value, list | tuple):
        parts = cast("Sequence[Any]", value)
        if any(isinstance(part, TextPart | ImagePart) for part in parts):
            texts = (part.text if isinstance(part, TextPart) else render(part)[0] for part in parts if not _image(part))
            return "\n".join(texts), tuple(part for part in parts if isinstance(part, ImagePart))
    if isinstance(value, BaseModel):
        return value.model_dump_json(), ()
    return json.dumps(value, ensure_ascii=False, default=_plain), ()


def _image(value: Any) -> bool:
    return isinstance(value, ImagePart)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def shown(call_id: str, name: str, text: str) -> str:
    """The text as the model sees it: whole, or a preview that says how to read on."""
    if name == READ_STORED_RESULT or estimate_tokens(text) <= LARGE_TOKENS:
        return text
    preview = fit(text, 0, PREVIEW_TOKENS)
    return (
        f"{preview}\n\n[{CUT}{len(text)} characters; these are the first {len(preview)}. Read on with "
        f'{READ_STORED_RESULT}(result_id="{call_id}", offset={len(preview)}).]'
    )


def recorded(text: str) -> str:
    """The text as the log keeps it."""
    if len(text) <= MAX_RECORD:
        return text
    return f"{text[:MAX_RECORD]}\n[cut: {len(text) - MAX_RECORD} more characters were not kept]"


def fit(text: str, offset: int, tokens: int) -> str:
    """As many characters from `offset` as surely fit into so many tokens, whatever the script."""
    piece = text[offset : offset + tokens * BYTES_PER_TOKEN]
    if piece.isascii():
        return piece
    return piece.encode("utf-8", "replace")[: tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore")


_SPEC = ToolSpec(
    name=READ_STORED_RESULT,
    description="Reads on in a tool result that was too long to show at once.",
    parameters={
        "type": "object",
        "properties": {"result_id": {"type": "string"}, "offset": {"type": "integer", "minimum": 0}},
        "required": ["result_id"],
        "additionalProperties": False,
    },
    idempotent=True,
)


class StoredResults(ToolSource):
    """`read_stored_result`: pages of results of this room. They live in the room's log, so that a restart loses none
    and no other room can read them."""

    def __init__(self, *, search_events: int = 1000) -> None:
        self._search_events = search_events

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return (_SPEC,)

    async def run(self, name: str, arguments: dict[str, Any], context: ToolContext) -> Any:
        result_id, offset = str(arguments["result_id"]), int(arguments.get("offset", 0))
        text = context.kept.get(result_id)
        if text is None:
            text = await self._from_log(result_id, context)
        page = fit(text, offset, PAGE_TOKENS)
        end = offset + len(page)
        left = f"more from offset={end}" if end < len(text) else "the end"
        return f"[characters {offset} to {end} of {len(text)}; {left}]\n{page}"

    async def _from_log(self, result_id: str, context: ToolContext) -> str:
        events = await context.history(self._search_events) if context.history is not None else []
        for event in reversed(events):
            call = event.content
            own = event.source.channel_id == context.channel_id
            if own and isinstance(call, ToolCallContent) and call.call_id == result_id and call.result is not None:
                return call.result
        raise ToolFailed(f'there is no stored result "{result_id}" in this room')
