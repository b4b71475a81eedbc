"""What of a room's past a model is shown: the newest events, the past summed up, or what a search finds.

A memory that keeps something (`Summarizing`, `Retrieval`) belongs to one channel: what it keeps was made from what that
channel may see.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from roomkit.ai.aside import Ask, ask_plainly
from roomkit.ai.compact import estimate_tokens
from roomkit.ai.context import quoted
from roomkit.models.ai import AIMessage, AIRequest, TextPart
from roomkit.models.content import ToolCallContent
from roomkit.models.event import RoomEvent
from roomkit.ports.ai import AIProvider

_MAX_ROOMS = 2000


class SlidingWindow:
    """The newest `limit` events. The default."""

    async def retrieve(self, room_id: str, events: Sequence[RoomEvent], limit: int) -> list[AIMessage | RoomEvent]:
        return list(events[-limit:])

    async def ingest(self, room_id: str, event: RoomEvent) -> None:
        pass

    async def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Summary:
    covered: tuple[tuple[str, int], ...]
    last_index: int
    text: str


class Summarizing:
    """Keeps the newest events as they are; what came before is summed up when it outgrows `window_tokens`.

    Over `trim_at` of the window old tool results are left out; over `summarise_at` the older half is summed up by
    `provider`, once, and the summary is used until that much has come again. Reads up to `reach` events. A failing
    summary raises the provider's error, which ends the reply. It is asked for as replies are: `BeforeGeneration` guards
    see it (its `metadata` says `purpose: summary`), and it is in the channel's budget; where one of them says no, the
    older half is left out.
    """

    asks = True
    """`AIChannel` says how to ask a model."""

    def __init__(
        self,
        provider: AIProvider,
        *,
        window_tokens: int = 16_000,
        trim_at: float = 0.5,
        summarise_at: float = 0.85,
        reach: int = 500,
    ) -> None:
        self.reach = reach
        self._provider = provider
        self._trim = window_tokens * trim_at
        self._full = window_tokens * summarise_at
        self._summaries: OrderedDict[tuple[str, str], _Summary] = OrderedDict()

    async def retrieve(
        self, room_id: str, events: Sequence[RoomEvent], limit: int, ask: Ask = ask_plainly
    ) -> list[AIMessage | RoomEvent]:
        if not events:
            return []
        key = (events[0].tenant, room_id)
        summary = self._known(key, events)
        fresh = [event for event in events if summary is None or event.index > summary.last_index]
        if _size(fresh) > self._trim:
            recent = {event.id for event in fresh[-(limit // 2 or 1) :]}
            fresh = [event for event in fresh if event.id in recent or not isinstance(event.content, ToolCallContent)]
        if _size(fresh) > self._full and len(fresh) > 1:
            border = _half(fresh)
            text = await ask(self._provider, _summing_up(summary.text if summary else "", fresh[:border]))
            if text is not None:
                last = fresh[border - 1].index
                summary = self._summaries[key] = _Summary(_read(events, last), last, text)
                self._summaries.move_to_end(key)
                if len(self._summaries) > _MAX_ROOMS:
                    self._summaries.popitem(last=False)
            fresh = fresh[border:]
        if summary is None:
            return list(fresh)
        return [_told(f"Summary of the conversation so far:\n{summary.text}"), *fresh]

    async def ingest(self, room_id: str, event: RoomEvent) -> None:
        pass

    async def close(self) -> None:
        self._summaries.clear()

    def _known(self, key: tuple[str, str], events: Sequence[RoomEvent]) -> _Summary | None:
        """The summary, unless what it was made of reads otherwise today (an edit, a deletion, changed rights)."""
        summary = self._summaries.get(key)
        if summary is None:
            return None
        old = _read(events, summary.last_index)
        return summary if summary.covered[len(summary.covered) - len(old) :] == old else None


class Retriever(Protocol):
    """A search over what was said, for example a vector index. Keys are (tenant, room).

    With an `async def remove(tenant, room_id, event_id)` its copy is erased as soon as an event is deleted, edited or
    erased with a person; without one that is for its owner to do. It may be called for events that were never added."""

    async def add(self, tenant: str, room_id: str, event: RoomEvent) -> None: ...

    async def search(self, tenant: str, room_id: str, query: str, limit: int) -> list[str]:
        """The most relevant texts, best first."""
        ...

    async def aclose(self) -> None: ...


class Retrieval:
    """The newest events, and the `results` older texts that fit best to what was said last.

    Of what the search finds only that is told which stands in the newest `reach` events as they read today: nothing
    that was deleted, edited away or hidden since. What was deleted or edited is taken from the retriever's copy too,
    if it can `remove`."""

    def __init__(self, retriever: Retriever, *, results: int = 5, reach: int = 500) -> None:
        self.reach = reach
        self._retriever = retriever
        self._results = results

    async def retrieve(self, room_id: str, events: Sequence[RoomEvent], limit: int) -> list[AIMessage | RoomEvent]:
        recent = events[-limit:]
        query = next((event.text for event in reversed(recent) if event.text), "")
        if not query:
            return list(recent)
        shown = {event.text for event in recent}
        today = [event.text for event in events]
        found = await self._retriever.search(recent[0].tenant, room_id, query, self._results + len(shown))
        standing = (text for text in found if text not in shown and any(text in each for each in today))
        older = list(islice(standing, self._results))
        if not older:
            return list(recent)
        return [_told("\n".join(["Said earlier, possibly of use:", *(f"- {text}" for text in older)])), *recent]

    async def ingest(self, room_id: str, event: RoomEvent) -> None:
        if event.text:
            await self._retriever.add(event.tenant, room_id, event)

    async def forget(self, tenant: str, room_id: str, event_id: str) -> None:
        """What this event said does not stand any more."""
        remove = getattr(self._retriever, "remove", None)
        if remove is not None:
            await remove(tenant, room_id, event_id)

    async def close(self) -> None:
        await self._retriever.aclose()


def _summing_up(before: str, events: Sequence[RoomEvent]) -> AIRequest:
    lines = [f"{quoted(event.source.participant_id or event.source.channel_id)}: {event.text}" for event in events]
    if before:
        lines.insert(0, f"Summary so far: {before}")
    return AIRequest(
        system="Sum up this conversation in a few sentences. Keep names, numbers, decisions and open questions.",
        messages=(AIMessage(role="user", parts=(TextPart(text="\n".join(lines)),)),),
        max_tokens=500,
        metadata={"purpose": "summary"},
    )


def _told(text: str) -> AIMessage:
    return AIMessage(role="system", parts=(TextPart(text=text),))


def _read(events: Sequence[RoomEvent], last_index: int) -> tuple[tuple[str, int], ...]:
    return tuple((event.id, hash(event.text)) for event in events if event.index <= last_index)


def _size(events: Sequence[RoomEvent]) -> int:
    return sum(map(_tokens, events))


def _tokens(event: RoomEvent) -> int:
    content = event.content
    if isinstance(content, ToolCallContent):
        return estimate_tokens(f"{content.arguments}{content.result or content.error or ''}")
    return estimate_tokens(event.text)


def _half(events: Sequence[RoomEvent]) -> int:
    """How many of the oldest events make up half of the size; never all of them."""
    half, used = _size(events) / 2, 0
    for position, event in enumerate(events[:-1]):
        used += _tokens(event)
        if used >= half:
            return position + 1
    return len(events) - 1
