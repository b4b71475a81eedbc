"""Courtesies towards the people in a room: told once that an AI answers, and "human" reaches a person from anywhere.

What a courtesy adds stands in the transaction of the message that called for it: it happens once, and the log shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from roomkit.core.actor import SYSTEM, Change, Entry, RoomActor
from roomkit.core.catalogue import phrase
from roomkit.core.policy import ai_may_answer
from roomkit.models.content import TextContent
from roomkit.models.event import EventDraft, EventType
from roomkit.models.room import Attention, Category

if TYPE_CHECKING:
    from roomkit.models.room import ChannelBinding

HUMAN_WORDS = frozenset(
    {
        *("human", "a human", "agent", "operator", "real person", "a person", "person", "talk to a human"),
        *("mensch", "mitarbeiter", "berater", "person sprechen", "mit einem menschen sprechen"),
        *("humain", "un humain", "conseiller", "une personne", "parler à un humain"),
        *("humano", "un humano", "agente", "persona", "una persona", "hablar con una persona"),
    }
)
"""The whole message must be one of these: a sentence that merely contains the word is for the AI to understand."""
_PUNCTUATION = re.compile(r"[\s.!?¿¡,;:\"'„“”«»]+")


@dataclass(frozen=True, slots=True)
class Courtesy:
    """Switch on with `RoomKit(options=KitOptions(courtesy=Courtesy()))`.

    `staffed(now)` says whether somebody is there to come; without it that is taken to be so."""

    disclose_ai: bool = True
    human_words: frozenset[str] = HUMAN_WORDS
    staffed: Callable[[datetime], bool] | None = None

    def attend(self, actor: RoomActor, entry: Entry, change: Change) -> None:
        """Adds what `entry` calls for to its own commit. Runs in the actor, for entries that are not blocked."""
        draft, room = entry.draft, actor.state.room
        binding = actor.state.bindings.get(draft.source.channel_id)
        if draft.type is not EventType.MESSAGE or draft.source.direction != "inbound" or binding is None:
            return
        if binding.category is Category.INTELLIGENCE or not ai_may_answer(room.floor):
            return
        if self.disclose_ai and not room.metadata.get("ai_disclosed") and _has_ai(actor):
            change.room = (change.room or room).replaced(metadata={**room.metadata, "ai_disclosed": True})
            change.add(self._words(actor, binding, "ai_disclosure"))
        if wants_human(draft.text, self.human_words) and room.attention is None:
            self._call(actor, binding, entry, change)

    def _call(self, actor: RoomActor, binding: ChannelBinding, entry: Entry, change: Change) -> None:
        now = actor.engine.now()
        who = entry.draft.source.participant_id or binding.channel_id
        waiting = Attention(reason="asked for a person", requested_by=who, since=now)
        change.room = (change.room or actor.state.room).replaced(attention=waiting, updated_at=now)
        change.system(
            EventType.ATTENTION_CHANGED,
            "human_requested",
            visibility="transport",
            reason=waiting.reason,
            requested_by=who,
        )
        there = self.staffed is None or self.staffed(now)
        ahead = str(actor.engine.attention.ahead(actor.tenant))
        change.add(self._words(actor, binding, "human_requested" if there else "human_closed", ahead=ahead))
        entry.wakes = False

    def _words(self, actor: RoomActor, binding: ChannelBinding, code: str, **values: str) -> Entry:
        content = TextContent(text=phrase(code, actor.state.room.language, **values))
        source = SYSTEM.replaced(direction="outbound")
        draft = EventDraft(source=source, content=content, visibility=binding.channel_id, metadata={"courtesy": code})
        return Entry(draft, targets=(binding.channel_id,), wakes=False)


def wants_human(text: str, words: frozenset[str] = HUMAN_WORDS) -> bool:
    """Whether the message as a whole is a call for a person."""
    return _PUNCTUATION.sub(" ", text).strip().casefold() in words


def _has_ai(actor: RoomActor) -> bool:
    return any(b.category is Category.INTELLIGENCE and b.channel_type == "ai" for b in actor.state.seats)
