"""How many SMS segments a text costs: GSM 7-bit where every character has a place there, UCS-2 otherwise. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")  # each is an escape and a second septet


@dataclass(frozen=True, slots=True)
class Segments:
    """`units` are septets (gsm7) or 16-bit units (ucs2); `per_segment` is what one segment of this message holds."""

    encoding: Literal["gsm7", "ucs2"]
    units: int
    per_segment: int
    count: int


def segments(text: str) -> Segments:
    """Counts as a handset does: a joined message loses room to its header, and no character straddles two segments."""
    if all(character in _BASIC or character in _EXTENDED for character in text):
        return _count("gsm7", [2 if character in _EXTENDED else 1 for character in text], 160, 153)
    return _count("ucs2", [2 if character > "\uffff" else 1 for character in text], 70, 67)


def fitting(text: str, most: int) -> int:
    """How many characters of `text`, from its beginning, go into `most` segments: one at least."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if segments(text[:middle]).count <= most:
            low = middle
        else:
            high = middle - 1
    return low


def _count(encoding: Literal["gsm7", "ucs2"], sizes: Iterable[int], single: int, joined: int) -> Segments:
    sizes = list(sizes)
    units = sum(sizes)
    if units <= single:
        return Segments(encoding, units, single, 1 if units else 0)
    count, used = 1, 0
    for size in sizes:
        if used + size > joined:
            count, used = count + 1, 0
        used += size
    return Segments(encoding, units, joined, count)
