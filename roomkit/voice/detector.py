"""The turn detector of the house: silence, and what the words so far promise."""

from __future__ import annotations

import re
from collections.abc import Sequence

from roomkit.ports.speech import TurnVerdict

_HANGING: dict[str, str] = {
    "en": "and but or so because if when that the a an my your to of for with at is are was i um uh er well like then",
    "de": "und aber oder weil wenn dass der die das ein eine mein meine zu von für mit bei ist sind ich äh ähm also",
    "fr": "et mais ou parce que si quand le la les un une mon ma de du pour avec à est sont je euh alors",
    "es": "y pero o porque si cuando que el la los un una mi de del para con a es son yo eh entonces",
}
_SPELT = "zero|oh|one|two|three|four|five|six|seven|eight|nine|double"
_DIGITS = re.compile(rf"(?:\d[\d\s-]*|(?:\b(?:{_SPELT})\b\s*){{2,}})$", re.IGNORECASE)
"""A number that may go on; one number word alone is mostly none ("another one")."""


class PauseDetector:
    """Complete after `wait_ms` of silence in all; a sentence that hangs ("my name is") or a number that may go on waits
    `hanging_ms`. Times in ms."""

    def __init__(self, language: str | None = None, *, wait_ms: float = 0.0, hanging_ms: float = 1_200.0) -> None:
        words = _HANGING.get((language or "en").split("-")[0].lower(), "")
        self._hanging = frozenset(words.split())
        self._wait_ms = wait_ms
        self._hanging_ms = hanging_ms

    async def evaluate(self, transcript: str, silence_ms: float, history: Sequence[str] = ()) -> TurnVerdict:
        text = transcript.strip()
        last = text.rsplit(maxsplit=1)[-1].lower() if text else ""
        closed = text.endswith((".", "!", "?", "。", "！", "？")) and not text.endswith("...")
        if text.endswith((",", "...", "…", "-")) or (not closed and (last in self._hanging or _DIGITS.search(text))):
            return TurnVerdict(complete=False, confidence=0.7, wait_ms=self._hanging_ms)
        if silence_ms < self._wait_ms:
            return TurnVerdict(complete=False, confidence=0.5, wait_ms=self._wait_ms - silence_ms)
        return TurnVerdict(complete=True, confidence=0.9)
