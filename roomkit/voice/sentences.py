"""Text on its way to a synthesiser: cut into sentences while it is being written, cleaned of what nobody says."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

MIN_CHARACTERS = 20
"""A shorter sentence waits for the next one: a voice that begins anew at every "Yes." sounds chopped."""
MOST_CHARACTERS = 400
"""A longer one is cut at a comma or a word, so that the first sound does not wait for the end of a list."""
_BORDER = re.compile(r"[.!?…\"')][ \n]|[\n。！？]")


class SentenceSplitter:
    """Deltas in, sentences out. The rules for abbreviations and numbers are `sentencex`'s."""

    def __init__(self, language: str | None = None) -> None:
        self._language = (language or "en").split("-")[0].lower()
        self._text = ""

    def push(self, delta: str) -> list[str]:
        """The sentences that are complete now. The last one waits: its end may be an abbreviation's."""
        self._text += delta
        # A sentence is complete when the next one has begun, so a look pays only where a sign and a space have come.
        if not _BORDER.search(self._text) and len(self._text) <= MOST_CHARACTERS:
            return []
        return self._cut()

    def flush(self) -> list[str]:
        """Everything that is left."""
        rest, self._text = self._text, ""
        return [rest] if rest.strip() else []

    def _cut(self) -> list[str]:
        parts = _segment(self._language, self._text)
        ready: list[str] = []
        held = ""
        for part in parts[:-1]:
            held += part
            if len(held.strip()) >= MIN_CHARACTERS:
                ready.append(held)
                held = ""
        self._text = held + (parts[-1] if parts else "")
        while len(self._text) > MOST_CHARACTERS:
            cut = max(self._text.rfind(sign, 0, MOST_CHARACTERS) for sign in (", ", " ")) + 1 or MOST_CHARACTERS
            ready.append(self._text[:cut])
            self._text = self._text[cut:]
        return ready


def _segment(language: str, text: str) -> list[str]:
    return [str(part) for part in cast("Any", import_module("sentencex")).segment(language, text)]


class TextFilter(Protocol):
    """Takes out of a stream of text what is not to be spoken; sees across the borders of deltas."""

    def push(self, delta: str) -> str: ...

    def flush(self) -> str: ...


class _Between:
    """Leaves out everything from `opening` to `closing`, and what is never closed to the end of the reply."""

    opening = closing = ""

    def __init__(self) -> None:
        self._held = ""

    def push(self, delta: str) -> str:
        text, self._held = self._held + delta, ""
        kept: list[str] = []
        while (start := text.find(self.opening)) >= 0:
            kept.append(text[:start])
            end = text.find(self.closing, start + len(self.opening))
            if end < 0:
                self._held = text[start:]
                return "".join(kept)
            text = text[end + len(self.closing) :]
        # The sign itself may be cut in two.
        half = next((n for n in range(len(self.opening) - 1, 0, -1) if text.endswith(self.opening[:n])), 0)
        cut = len(text) - half
        self._held = text[cut:]
        kept.append(text[:cut])
        return "".join(kept)

    def flush(self) -> str:
        rest, self._held = self._held, ""
        return "" if rest.startswith(self.opening) else rest


class StripInternalTags(_Between):
    """Leaves out what a model thinks aloud: <internal>...</internal>."""

    opening, closing = "<internal>", "</internal>"


class StripBrackets(_Between):
    """Leaves out [stage directions]."""

    opening, closing = "[", "]"


FilterChoice = Callable[[str], str] | type[TextFilter] | None
"""`tts_filter` (S88): a plain function from sentence to sentence, or a class made anew for every reply."""
