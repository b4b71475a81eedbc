"""Finding what is personal in a text: payment cards, email addresses and phone numbers, written or spoken. Pure.

Spoken numbers are runs of at least seven digits said one by one or in pairs ("four one one one", "null eins sieben
sechs"), in English, German, French and Spanish, as speech recognition writes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from roomkit.net.redaction import EMAIL, PHONE, luhn

Span = tuple[int, int, str]
"""(start, end, kind)."""
Finder = Callable[[str], Iterable[Span]]
KINDS = ("card", "email", "phone")
_ONES = (
    ("zero", "oh", "o", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("null", "eins", "ein", "zwei", "zwo", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
    ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"),
)
_PAIRS = (
    "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty"
    "|seventy|eighty|ninety|hundred|zehn|elf|zwölf|(?:drei|vier|fünf|sech|sieb|acht|neun)zehn|\\w{0,12}und\\w{2,10}[zß]ig"
    "|zwanzig|dreißig|vierzig|fünfzig|sechzig|siebzig|achtzig|neunzig|dix|onze|douze|treize|quatorze|quinze|seize|vingts?"
    "|trente|quarante|cinquante|soixante|diez|once|doce|trece|catorce|quince|dieci\\w{1,8}|veinti?\\w{0,8}|treinta|cuarenta"
    "|cincuenta|sesenta|setenta|ochenta|noventa"
)
_DIGITS = "|".join(sorted({word for words in _ONES for word in words}, key=len, reverse=True))
_VALUES = {
    word: str(value)
    for words, values in zip(
        _ONES,
        ((0, 0, 0, *range(1, 10)), (0, 1, 1, 2, 2, *range(3, 10)), range(10), range(10)),
        strict=True,
    )
    for word, value in zip(words, values, strict=True)
}
_FILLERS = (
    "double|triple|doppel|doble|uh|um|er|and|then|dash|hyphen|äh|ähm|und|dann|minus|euh|et|puis|tiret|eh|y|luego|guion"
)
_ITEM = rf"(?:{_DIGITS}|{_PAIRS}|\d{{1,4}})"
_JOIN = rf"(?:[\s,.;:–—-]+(?:(?:{_FILLERS})[\s,.;–—-]+){{0,2}})"
_SPOKEN = re.compile(rf"(?<!\w)(?:(?:plus|{_FILLERS})\s+)?{_ITEM}(?:{_JOIN}{_ITEM}){{5,}}(?!\w)", re.IGNORECASE)
_ITEMS = re.compile(rf"(?<!\w)(?:{_DIGITS}|{_PAIRS}|\d+)(?!\w)", re.IGNORECASE)
_AT = "at|ät|arobase|arroba|klammeraffe|chez"
_DOT = "dot|punkt|point|punto"
_SPOKEN_MAIL = re.compile(
    rf"(?<![\w-])[\w-]+(?:(?:\s+(?:{_DOT}|underscore|dash)\s+|\.)[\w-]+){{0,4}}\s+(?:{_AT})\s+[\w-]+"
    rf"(?:\s+(?:{_DOT})\s+[\w-]+){{1,4}}(?!\w)",
    re.IGNORECASE,
)
_CARD = re.compile(r"(?<![\w.])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\w.]\d)(?!\w)")
_LEAST = 7
_PART = re.compile(rf"(?:{_DIGITS}|{_PAIRS}|{_FILLERS}|{_AT}|{_DOT}|plus|underscore|[\d\W_]+)", re.IGNORECASE)
_HINGE = re.compile(rf"(?:{_AT}|{_DOT}|underscore|dash)", re.IGNORECASE)
_WORD = re.compile(r"[^\s]+")
_PIECES = re.compile(r"[^\w]+")
_BORDER = re.compile(r"(?<=[.!?…])\s+|\n+")
_MOST_HELD = 600


def find(text: str, kinds: Iterable[str] = KINDS) -> list[Span]:
    """Everything personal in `text`, in order; what overlaps is one, of the longer one's kind."""
    found = [span for span in _candidates(text) if span[2] in kinds]
    return _apart(found)


def _apart(found: Iterable[Span]) -> list[Span]:
    kept: list[tuple[int, int, str, int]] = []
    for start, end, kind in sorted(found):
        if kept and start < kept[-1][1]:
            first, last, other, longest = kept.pop()
            name = kind if end - start > longest else other
            kept.append((first, max(end, last), name, max(longest, end - start)))
        else:
            kept.append((start, end, kind, end - start))
    return [(start, end, kind) for start, end, kind, _ in kept]


def _candidates(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        if luhn(match[0]):
            yield match.start(), match.end(), "card"
    for pattern in (EMAIL, _SPOKEN_MAIL):
        for match in pattern.finditer(text):
            yield match.start(), match.end(), "email"
    for match in PHONE.finditer(text):
        yield match.start(), match.end(), "phone"
    for match in _SPOKEN.finditer(text):
        digits = _said(match[0])
        if digits is not None:
            yield match.start(), match.end(), "card" if 13 <= len(digits) <= 19 and luhn(digits) else "phone"


def _said(text: str) -> str | None:
    """The digits of a spoken number; None for what is too short, or a list of plain numbers."""
    parts = [match[0].lower() for match in _ITEMS.finditer(text)]
    digits = "".join(_VALUES.get(part, part if part.isdecimal() else "00") for part in parts)
    words = sum(not part.isdecimal() for part in parts)
    singles = all(len(part) == 1 for part in parts if part.isdecimal())
    return digits if len(digits) >= _LEAST and (words >= 3 or (singles and not words)) else None


@dataclass(frozen=True, slots=True)
class Redactor:
    """Puts `mask` (with the kind for `{kind}`) in the place of what is found. `finders` add your own."""

    kinds: tuple[str, ...] = KINDS
    finders: tuple[Finder, ...] = ()
    mask: str = "[{kind}]"

    def spans(self, text: str) -> list[Span]:
        found = find(text, self.kinds)
        for finder in self.finders:
            found.extend((max(0, start), min(len(text), end), kind) for start, end, kind in finder(text) if start < end)
        return _apart(found) if self.finders else found

    def text(self, text: str) -> str:
        return self._masked(text, self.spans(text))

    def _masked(self, text: str, spans: Iterable[Span]) -> str:
        parts, at = list[str](), 0
        for start, end, kind in spans:
            parts += (text[at:start], self.mask.format(kind=kind))
            at = end
        return "".join((*parts, text[at:])) if at else text

    def value(self, value: Any) -> Any:
        """The same in every text inside a JSON value; the very same object where nothing was found."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            table = cast("dict[str, Any]", value)
            fresh = {name: self.value(one) for name, one in table.items()}
            return fresh if any(fresh[name] is not one for name, one in table.items()) else table
        if isinstance(value, (list, tuple)):
            items = cast("list[Any] | tuple[Any, ...]", value)
            new = [self.value(one) for one in items]
            changed = any(a is not b for a, b in zip(new, items, strict=True))
            return (new if isinstance(items, list) else tuple(new)) if changed else items
        return value

    def stream(self) -> StreamRedactor:
        return StreamRedactor(self)


class StreamRedactor:
    """The same for a text that grows: what comes out, put together, is what `Redactor.text` makes of the whole.

    Only the end that may still become something personal is held back; with finders of your own, the last sentence."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""
        self._before = ""

    def feed(self, delta: str) -> str:
        """What can be shown now."""
        self._held += delta
        cut = self._safe()
        return self._let_go(cut) if cut > 0 else ""

    def close(self) -> str:
        """The rest."""
        return self._let_go(len(self._held))

    def _safe(self) -> int:
        """Up to where nothing that is still to come changes what is found."""
        held = self._held
        if len(held) > _MOST_HELD:
            return len(held)
        cut, later = len(held), ""
        for number, match in enumerate(reversed(list(_WORD.finditer(held)))):
            word = match[0]
            # The last word may grow, and the one before it may be followed by "at" or "dot".
            if number > 1 and not (_numberish(word) or _hinge(later) or _hinge(word)):
                # A number may begin behind a mark, as in "phone:555".
                cut = match.start() if _numberish(_PIECES.split(word)[-1]) else cut
                break
            cut, later = match.start(), word
        if self._redactor.finders:
            cut = min(cut, max((border.end() for border in _BORDER.finditer(held)), default=0))
        return cut

    def _let_go(self, cut: int) -> str:
        spans = self._redactor.spans(self._before + self._held)
        lead = len(self._before)
        for start, end, _ in spans:  # what reaches beyond may still grow
            if start - lead < cut < end - lead:
                cut = max(0, start - lead)
        text = self._held[:cut]
        shown = [(start - lead, end - lead, kind) for start, end, kind in spans if start >= lead and end - lead <= cut]
        self._before = (self._before + text)[-1:]
        self._held = self._held[cut:]
        return self._redactor._masked(text, shown)  # pyright: ignore[reportPrivateUsage] - of this module


def _numberish(word: str) -> bool:
    bare = word.strip(".,;:!?()[]\"'–—-")
    return (
        any(sign.isdigit() for sign in word) or not bare or all(_PART.fullmatch(p) for p in re.split(r"[-–—,.]", bare))
    )


def _hinge(word: str) -> bool:
    return _HINGE.fullmatch(word) is not None
