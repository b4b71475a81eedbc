"""The stages of one turn, each so many milliseconds after the caller fell silent."""

from __future__ import annotations

STAGES = ("transcript", "decided", "first_token", "first_sentence", "tts_first_byte", "first_audio")


class TurnClock:
    """Stamps the stages of the turn under way, each once; times in ms of the call."""

    def __init__(self) -> None:
        self._stamps: dict[str, float] = {}

    def speech_ended(self, at_ms: float) -> None:
        """A turn begins to wait for its answer."""
        self._stamps = {"end": at_ms}

    def stamp(self, stage: str, at_ms: float) -> None:
        if self._stamps:
            self._stamps.setdefault(stage, at_ms)

    @property
    def awaits_sound(self) -> bool:
        """A turn has been taken, and nothing of its answer has sounded yet."""
        return "decided" in self._stamps and "first_audio" not in self._stamps

    def late(self) -> dict[str, float | None]:
        """Every stage, as `<stage>_ms` after the end of speech; None where it never came."""
        end = self._stamps["end"]
        return {f"{s}_ms": round(self._stamps[s] - end, 1) if s in self._stamps else None for s in STAGES}
