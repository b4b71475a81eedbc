"""The embedded demo brain: a table of rules that behaves like a model, and says that it is none.

It streams at a human pace, calls the tools it is offered (several at once for a compound question), uses their results,
and does as it is told by a supervisor. `plan` is a pure function: the same request gives the same round.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

from roomkit.models.ai import (
    AIEvent,
    AIMessage,
    AIProfile,
    AIRequest,
    Finished,
    TextChunk,
    ThinkingChunk,
    ToolCallChunk,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from roomkit.providers.offline.rules import (
    CLAUSES,
    FALLBACK,
    GUIDED,
    HINTED,
    NO_TOOLS,
    NOTE,
    SKILLS,
    TALK_RULES,
    TOOL_RULES,
    WHO,
)

MODEL = "offline-stand-in"
_LONGEST = 2000  # characters that are searched for something to do


@dataclass(frozen=True, slots=True)
class Round:
    """What is said in one generation, then which tools are called."""

    text: str
    calls: tuple[ToolCallPart, ...] = ()
    thinking: str = ""


def plan(request: AIRequest) -> Round:
    """The next round of the conversation. Pure."""
    turn = _turn(request.messages)
    offered = set[str]() if request.tool_choice == "none" else {tool.name for tool in request.tools}
    made = {part.call_id: part for message in turn for part in message.parts if isinstance(part, ToolCallPart)}
    done = {(call.name, json.dumps(call.arguments, sort_keys=True)) for call in made.values()}
    asked = [message for message in turn if message.role in {"user", "system"}]
    calls: list[ToolCallPart] = []
    for name, arguments in _wanted(" ; ".join(_words(message) for message in asked), offered):
        if (name, key := json.dumps(arguments, sort_keys=True)) not in done:
            done.add((name, key))
            calls.append(
                ToolCallPart(call_id=f"offline-{len(request.messages)}-{len(calls)}", name=name, arguments=arguments)
            )
    if calls:
        names = " and ".join(f"`{name}`" for name in dict.fromkeys(call.name for call in calls))
        text = "" if made else "Let me check."
        return Round(text, tuple(calls), f"This needs {names}, so I call {'it' if len(calls) == 1 else 'them'} first.")
    results = [part for message in turn for part in message.parts if isinstance(part, ToolResultPart)]
    said = [*_directives(request, asked), *(_told(part) for part in results)]
    text = " ".join(_talk(message) or "" for message in asked if not results or _instructed(request, message)).strip()
    if text or not said:
        said.append(text or FALLBACK)
    answered = any(message.role == "assistant" and not _calls(message) for message in request.messages)
    if not answered and not any(WHO in each for each in said):
        said.append(f"({WHO})")
    words = " ".join(said)
    # What it cannot do here it does not offer.
    return Round(words if offered else words.replace(SKILLS, NO_TOOLS), thinking="I know enough to answer.")


class OfflineBrain:
    """An `AIProvider` without a model behind it. `delay` is the pause between words in seconds, `first` before them."""

    name = "offline"

    def __init__(self, *, delay: float = 0.05, first: float = 0.25) -> None:
        self.delay = delay
        self.first = first
        self.profile = AIProfile(thinking=True)

    async def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
        """See `AIProvider`. Cancelling stops between two words."""
        following = plan(request)
        await asyncio.sleep(self.first)
        if request.thinking_budget:
            for word in _pieces(following.thinking):
                yield ThinkingChunk(word)
                await asyncio.sleep(self.delay)
        words = _pieces(following.text)
        limit = len(words) if request.max_tokens is None else max(1, request.max_tokens)
        for at, word in enumerate(words[:limit]):
            if at:
                await asyncio.sleep(self.delay)
            yield TextChunk(word)
        usage = Usage(_count(request), min(len(words), limit) + 5 * len(following.calls))
        if len(words) > limit:
            yield Finished("length", usage, MODEL)
            return
        for call in following.calls:
            yield ToolCallChunk(call)
        yield Finished("tool_calls" if following.calls else "stop", usage, MODEL)

    async def aclose(self) -> None:
        """Holds nothing."""


def provider(model: str | None = None, **options: Any) -> OfflineBrain:  # noqa: ARG001 - every vendor's has it
    """What the name `"offline"` or `"offline:anything"` makes."""
    return OfflineBrain(**options)


def _turn(messages: tuple[AIMessage, ...]) -> list[AIMessage]:
    """What came after the last finished answer, the calls made since included."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role == "assistant" and not _calls(messages[at]):
            return list(messages[at + 1 :])
    return list(messages)


def _calls(message: AIMessage) -> bool:
    return any(isinstance(part, ToolCallPart) for part in message.parts)


def _words(message: AIMessage) -> str:
    return message.text.removeprefix(NOTE)


def _wanted(text: str, offered: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    number = ""
    for clause in CLAUSES.split(text[:_LONGEST]):
        # "Where is order 1042, and can you refund it?"
        plain = re.sub(r"\b(?:it|that|this)(?: order)?\b", number, clause, flags=re.IGNORECASE) if number else clause
        for rule in TOOL_RULES:
            if (match := rule.pattern.search(plain)) is not None:
                number = match.groupdict().get("number") or number
                if rule.tool in offered:
                    yield rule.tool, rule.arguments(match)
                break


def _directives(request: AIRequest, asked: list[AIMessage]) -> Iterator[str]:
    """That a supervisor has guided this reply: told, so that steering can be seen to work, but never in their words,
    which are not for the customer."""
    _, *additions = [part for part in (request.system or "").split("\n\n") if part.strip()] or [""]
    if additions:
        yield GUIDED
    for message in asked:
        if message.text.startswith(NOTE):
            yield HINTED
        elif _instructed(request, message) and not additions:
            yield GUIDED


def _instructed(request: AIRequest, message: AIMessage) -> bool:
    """Steering adds messages which are no events of the room."""
    injected = message.event_id is None and any(other.event_id for other in request.messages)
    return message.role == "system" or injected


def _talk(message: AIMessage) -> str | None:
    if message.role == "system":
        return None
    return next((rule.answer for rule in TALK_RULES if rule.pattern.search(message.text)), None)


def _told(part: ToolResultPart) -> str:
    if part.is_error and "refused it" in part.output:  # By whom and why is not for the customer.
        return f"I am not allowed to do that ({part.name})."
    if part.is_error:
        return f"I could not do that ({part.name}): {_short(part.output)}"
    try:
        value: Any = json.loads(part.output)
    except ValueError:
        value = part.output
    result = cast("dict[str, Any]", value) if isinstance(value, dict) else {"value": value}
    rule = next((rule for rule in TOOL_RULES if rule.tool == part.name), None)
    return f"{part.name} says: {_short(part.output)}" if rule is None else rule.told(result)


def _short(text: str) -> str:
    text = " ".join(text.split())
    text = text if len(text) <= 200 else f"{text[:199]}…"
    return text if text[-1:] in {".", "!", "?", "…"} else f"{text}."


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def _count(request: AIRequest) -> int:
    return len((request.system or "").split()) + sum(len(message.text.split()) for message in request.messages)
