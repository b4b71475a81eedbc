"""HeardLedger: how much of a reply's text has been heard, from the samples that have been played. Pure.

Text positions are tied to sample positions as the synthesiser tells them (character times, or the end of a sentence);
between two of them speech is taken to be even. History says what was heard, to the last whole word.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

CHARACTERS_PER_S = 15.0
"""How fast speech is where nothing better is known: about 180 English words a minute."""

_CJK = "\u2e80"


@dataclass(frozen=True, slots=True)
class HeardText:
    """What of a reply was heard: its text up to the last whole word, and the share of all its text, 0 to 1."""

    text: str
    share: float

    @property
    def whole(self) -> bool:
        return self.share >= 1.0


class HeardLedger:
    """One reply. `rate` in Hz is that of the samples it is told of."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._text = ""
        self._samples = 0
        self._at: list[int] = [0]
        self._chars: list[int] = [0]

    @property
    def text(self) -> str:
        """Everything that was given to the synthesiser."""
        return self._text

    @property
    def samples(self) -> int:
        """Everything that it made of that."""
        return self._samples

    def say(self, text: str) -> None:
        """More text is given to the synthesiser."""
        self._text += text

    def audio(self, samples: int, text_end: int | None = None) -> None:
        """More audio came of it. When it has been played, the text up to `text_end` has been heard."""
        self._samples += samples
        if text_end is not None:
            self._mark(min(text_end, len(self._text)))

    def settle(self) -> None:
        """All audio of the text so far is there."""
        self._mark(len(self._text))

    def _mark(self, chars: int) -> None:
        if chars < self._chars[-1] or self._samples < self._at[-1]:
            return
        if self._samples == self._at[-1]:
            self._chars[-1] = chars
        else:
            self._at.append(self._samples)
            self._chars.append(chars)

    def heard(self, played: int) -> HeardText:
        """What was heard once `played` samples of this reply had been played."""
        chars = self._spoken(max(played, 0))
        if chars >= len(self._text):
            return HeardText(self._text, 1.0)
        cut = _last_whole_word(self._text, chars)
        return HeardText(self._text[:cut], cut / len(self._text))

    def _spoken(self, played: int) -> int:
        after = bisect_right(self._at, played)
        before_at, before_chars = self._at[after - 1], self._chars[after - 1]
        if after < len(self._at):
            part = (played - before_at) / (self._at[after] - before_at)
            return before_chars + int(part * (self._chars[after] - before_chars))
        return min(before_chars + int((played - before_at) / self._rate * CHARACTERS_PER_S), len(self._text))


def _last_whole_word(text: str, chars: int) -> int:
    """The end of the last word that is whole within the first `chars` characters."""
    cut = chars
    if _inside(text, cut):
        while cut and _inside(text, cut):
            cut -= 1
    return len(text[:cut].rstrip())


def _inside(text: str, at: int) -> bool:
    """Whether a word goes on over this place. Signs of writing without spaces are words of their own."""
    return 0 < at < len(text) and _of_a_word(text[at - 1]) and _of_a_word(text[at])


def _of_a_word(sign: str) -> bool:
    return (sign.isalnum() or sign in "'’") and sign < _CJK
