"""Progress: how far what is being said has been heard, word by word, told a few times a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roomkit.voice.mouth import Utterance

EVERY_MS = 200.0


class Progress:
    """One call's. `tell` is given the words that were heard since the last time ("text"), of which event of the room
    ("event", None for what is not written down), and whether that was all of it ("over")."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        self._utterance: Utterance | None = None
        self._told = 0
        self._at_ms = 0.0

    def moved(self, utterance: Utterance | None, samples: int, at_ms: float) -> None:
        """So many samples of its generation have sounded."""
        if utterance is not None and (utterance is not self._utterance or at_ms - self._at_ms >= EVERY_MS):
            self._at_ms = at_ms
            speaker = utterance.speaker
            if speaker is not None:
                self._heard(utterance, speaker.ledger.heard(samples - utterance.before).text, over=False)

    def over(self, utterance: Utterance | None, heard: str) -> None:
        """It has ended: `heard` of it was heard."""
        if utterance is not None and utterance.speaker is not None:
            self._heard(utterance, heard, over=True)
            self._utterance, self._told = None, 0

    def _heard(self, utterance: Utterance, heard: str, *, over: bool) -> None:
        if utterance is not self._utterance:
            self._utterance, self._told = utterance, 0
        new = heard[self._told :]
        if new or over:
            self._told = max(self._told, len(heard))
            self._tell({"event": utterance.event_id, "text": new, "over": over})
