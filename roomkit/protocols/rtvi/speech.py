"""Speech: what a call's signs of life are in the words of RTVI. Pure, like the session which it belongs to.

Who speaks comes from the phases of the call; what has been said from what has really been heard, sentence by sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Emit = Callable[..., None]
"""(type, data=None) to the client."""
_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+")
_STAGES = (("stt", None, "transcript_ms"), ("llm", "decided_ms", "first_token_ms"))


class Speech:
    """One call of one client. `emit` sends a message; nothing is sent before `ready` is true."""

    def __init__(self, emit: Emit) -> None:
        self.version: tuple[int, int, int] = (2, 0, 0)
        self.live = False
        """A call is there, and replies are spoken."""
        self.replying = False
        """Something may be interrupted, and nobody has been told yet that it was."""
        self._emit = emit
        self._user = self._bot = self._muted = False
        self._event: Any = None
        self._text = ""
        self._segments = 0

    def ends(self) -> None:
        """The call is over: whoever spoke has stopped."""
        self.phase("ended")
        self.live = self.replying = False

    def phase(self, phase: str) -> None:
        """The call's phase: who has the word."""
        if phase == "hearing" and not self._user:
            self._user = True
            self._emit("user-started-speaking")
        if phase != "hearing" and self._user:
            self._user = False
            self._emit("user-stopped-speaking")
        if phase == "speaking" and not self._bot:
            self._bot = self.replying = True
            self._emit("bot-tts-started")
            self._emit("bot-started-speaking")
        if phase not in ("speaking", "doubting") and self._bot:
            self._bot = False
            self._flush_all(phase)
            self._emit("bot-tts-stopped")
            self._emit("bot-stopped-speaking")
        self.replying = phase == "thinking" or (self.replying and phase not in ("listening", "ended"))

    def _flush_all(self, phase: str) -> None:
        if phase != "thinking":  # A reply that waits for a tool goes on with its sentence.
            self._flush()

    def interrupted(self) -> None:
        """A reply was cut."""
        if not self.replying:
            return
        self.replying = False
        self._flush()
        if self.version >= (2, 2, 0):
            self._emit("bot-interrupted")

    def partial(self, text: str, user_id: str, timestamp: str) -> None:
        if text:
            self._transcribed(text, user_id, timestamp, final=False)

    def final(self, text: str, user_id: str, timestamp: str) -> None:
        """The room has taken what was heard."""
        self._transcribed(text, user_id, timestamp, final=True)
        self._emit("user-llm-text", {"text": text})

    def _transcribed(self, text: str, user_id: str, timestamp: str, *, final: bool) -> None:
        heard = {"text": text, "user_id": user_id, "timestamp": timestamp, "final": final}
        self._emit("user-transcription", heard)
        if self.version >= (2, 2, 0):
            self._emit("user-input", {**heard, "input_type": "transcription"})

    def spoken(self, event: str | None, text: str, *, over: bool) -> None:
        """More of a reply has been heard; `event` names it, `over` says that no more of it comes."""
        if event != self._event:
            self._flush()
            self._event = event
        if text.strip():
            self._emit("bot-tts-text", {"text": text.strip()})
        self._text += text
        *sentences, self._text = _SENTENCE.split(self._text)
        for sentence in sentences:
            self._output(sentence.strip())
        if over:
            self._flush()
            self._event = None

    def _flush(self) -> None:
        text, self._text = self._text.strip(), ""
        self._output(text)

    def _output(self, text: str) -> None:
        if not text:
            return
        if self.version[0] == 1:
            self._emit("bot-output", {"text": text, "spoken": True, "aggregated_by": "sentence"})
            return
        self._segments += 1
        names = dict.fromkeys(("output_type", "text_type", "aggregated_by"), "sentence")
        progress = {"accumulated_text": text, "remaining_text": ""}
        status = {"will_be_spoken": True, "spoken_status": "completed", "spoken_progress": progress}
        self._emit("bot-output", {"text": text, **names, "segment_id": self._segments, **status})

    def level(self, who: str, value: float) -> None:
        """How loud "user" or "bot" is, 0 to 1."""
        self._emit(f"{who}-audio-level", {"value": value})

    def muted(self, on: bool) -> None:
        """The room hears the user no more, or again."""
        if on != self._muted:
            self._muted = on
            self._emit("user-mute-started" if on else "user-mute-stopped")

    def times(self, late: dict[str, Any]) -> None:
        """One turn's stages, in ms after the end of the user's speech."""
        ttfb: list[dict[str, Any]] = []
        for name, since, until in (*_STAGES, ("tts", "first_sentence_ms", "tts_first_byte_ms")):
            begin, end = 0.0 if since is None else late.get(since), late.get(until)
            if isinstance(begin, (int, float)) and isinstance(end, (int, float)):
                ttfb.append({"processor": name, "value": round(max(end - begin, 0.0) / 1000, 4)})
        if ttfb:
            self._emit("metrics", {"ttfb": ttfb})
