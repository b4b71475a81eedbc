"""When a caller's voice stops a reply, and which sounds are only a sign of listening."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum

_WORDS: dict[str, tuple[str, ...]] = {
    "en": ("uh huh", "mhm", "mm hmm", "hmm", "hm", "mm", "yeah", "yep", "yup", "ok", "okay", "right", "all right",
           "alright", "sure", "i see", "got it", "ah", "oh", "aha"),
    "de": ("mhm", "hm", "hmm", "mm", "ja", "genau", "okay", "ok", "stimmt", "richtig", "klar", "alles klar", "ach so",
           "achso", "aha", "ah", "oh", "verstehe", "ich verstehe", "gut"),
    "fr": ("mm", "mhm", "hm", "hmm", "hum", "oui", "ouais", "d accord", "ok", "okay", "ah", "ah oui", "ah bon",
           "je vois", "je comprends", "bien sur", "voila", "c est ca", "exactement", "tres bien"),
    "es": ("mm", "mhm", "hm", "hmm", "aja", "aha", "si", "ya", "ya veo", "claro", "vale", "ok", "okay", "entiendo",
           "de acuerdo", "exacto", "ah", "ah si", "bueno"),
}  # fmt: skip
MOST_WORDS = 4


class Strategy(StrEnum):
    """`IMMEDIATE` stops at the first sound of speech; `CONFIRMED` pauses at once and stops when speech lasts;
    `SEMANTIC` pauses at once and stops when real words come; `DISABLED` lets the reply finish and hears the caller
    afterwards."""

    IMMEDIATE = "immediate"
    CONFIRMED = "confirmed"
    SEMANTIC = "semantic"
    DISABLED = "disabled"


def _made_of(said: str, words: frozenset[str]) -> bool:
    if not said:
        return True
    return any(
        said == word or (said.startswith(word + " ") and _made_of(said[len(word) + 1 :], words)) for word in words
    )


def _plain(text: str) -> str:
    """Lower case, no accents, no punctuation: what recognisers spell differently is the same sound."""
    bare = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(c))
    return " ".join("".join(c if c.isalnum() else " " for c in bare).split())


class Backchannels:
    """Short sounds of listening, "uh-huh" and the like, by language: English, German, French and Spanish by default."""

    def __init__(self, words: dict[str, tuple[str, ...]] | None = None) -> None:
        self._words = {language: frozenset(map(_plain, listed)) for language, listed in (words or _WORDS).items()}

    def holds(self, text: str, language: str | None = None) -> bool:
        """Whether `text` is nothing but such sounds. An unknown language looks through all lists."""
        said = _plain(text)
        if not said or len(said.split()) > MOST_WORDS:
            return False
        known = self._words.get((language or "").split("-")[0].lower())
        lists = (known,) if known is not None else tuple(self._words.values())
        return any(_made_of(said, words) for words in lists)


BACKCHANNELS = Backchannels()


@dataclass(frozen=True, slots=True)
class Interruption:
    """How a reply may be interrupted; times in ms.

    `protect_ms` from its first sample nothing interrupts (an echo, a cough into the greeting). `min_speech_ms` is what
    `CONFIRMED` asks for. `doubt_ms` is the longest that a reply stays paused without a decision; then speech that still
    goes on interrupts, and silence lets the reply go on. Speech during a `DISABLED` reply is kept, at most
    `queue_segments` of it.
    """

    strategy: Strategy = Strategy.IMMEDIATE
    protect_ms: float = 200.0
    min_speech_ms: float = 300.0
    doubt_ms: float = 1_500.0
    queue_segments: int = 8
    backchannels: Backchannels = field(default_factory=lambda: BACKCHANNELS)
