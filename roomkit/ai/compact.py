"""Making a transcript smaller without ever parting a tool call from its result."""

from __future__ import annotations

from collections.abc import Sequence

from roomkit.models.ai import AIMessage, ImagePart, Part, TextPart, ToolCallPart, ToolResultPart

BYTES_PER_TOKEN = 4
IMAGE_TOKENS = 1000
OMITTED = "(Earlier messages are left out here to make room.)"


def estimate_tokens(text: str) -> int:
    """A cautious guess without a vendor's tokenizer: four bytes of UTF-8 a token."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-size // BYTES_PER_TOKEN)


def message_tokens(message: AIMessage) -> int:
    return 4 + sum(map(_part_tokens, message.parts))


def _part_tokens(part: Part) -> int:
    match part:
        case ToolCallPart():
            return estimate_tokens(part.name) + estimate_tokens(part.malformed or str(part.arguments))
        case ToolResultPart():
            return estimate_tokens(part.output) + IMAGE_TOKENS * len(part.images)
        case ImagePart():
            return IMAGE_TOKENS
        case _:
            return estimate_tokens(part.text)


def units(messages: Sequence[AIMessage]) -> list[list[AIMessage]]:
    """Messages in groups that must stay together: an assistant's tool calls and every result of them."""
    groups: list[list[AIMessage]] = []
    waiting: set[str] = set()
    for message in messages:
        results = {part.call_id for part in message.parts if isinstance(part, ToolResultPart)}
        if groups and results & waiting:
            groups[-1].append(message)
        else:
            groups.append([message])
            waiting = set()
        waiting |= {part.call_id for part in message.parts if isinstance(part, ToolCallPart)}
        waiting -= results
    return groups


def compact(messages: Sequence[AIMessage]) -> tuple[AIMessage, ...] | None:
    """The newest half by size, with the newest question always in it; None when nothing more can go."""
    groups = units(messages)
    budget = sum(map(message_tokens, messages)) // 2
    question = max((i for i, group in enumerate(groups) if group[0].role == "user"), default=-1)
    keep: list[int] = [] if question < 0 else [question]
    used = sum(message_tokens(m) for i in keep for m in groups[i])
    for i in range(len(groups) - 1, -1, -1):
        size = sum(map(message_tokens, groups[i]))
        if i == question:
            continue
        if keep and used + size > budget:
            break
        keep.append(i)
        used += size
    if len(keep) == len(groups):
        return None
    note = AIMessage(role="system", parts=(TextPart(text=OMITTED),))
    kept = [message for i in sorted(keep) for message in groups[i]]
    smaller = (note, *(message for message in kept if message != note))
    return smaller if sum(map(message_tokens, smaller)) < sum(map(message_tokens, messages)) else None
