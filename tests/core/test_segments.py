from __future__ import annotations

import random
import unicodedata

import pytest

from roomkit.core.segments import fitting, segments
from roomkit.core.split import split_text


@pytest.mark.parametrize(
    "text, encoding, units, count",
    [
        ("", "gsm7", 0, 0),
        ("a" * 160, "gsm7", 160, 1),
        ("a" * 161, "gsm7", 161, 2),
        ("a" * 306, "gsm7", 306, 2),
        ("a" * 307, "gsm7", 307, 3),
        ("€" * 80, "gsm7", 160, 1),
        ("€" * 81, "gsm7", 162, 2),
        ("@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà", "gsm7", 42, 1),
        ("ç", "ucs2", 1, 1),  # only the capital has a place
        ("`", "ucs2", 1, 1),
        ("я" * 70, "ucs2", 70, 1),
        ("я" * 71, "ucs2", 71, 2),
        ("я" * 134, "ucs2", 134, 2),
        ("я" * 135, "ucs2", 135, 3),
        ("😀" * 35, "ucs2", 70, 1),
        ("😀" * 36, "ucs2", 72, 2),
    ],
)
def test_counts_as_handsets_do(text: str, encoding: str, units: int, count: int):
    found = segments(text)
    assert (found.encoding, found.units, found.count) == (encoding, units, count)


def test_no_character_straddles_two_segments():
    # 153 septets a segment: an escape pair that would begin on the last one moves over whole.
    assert segments("a" * 152 + "€" + "a" * 152).count == 3
    assert segments("a" * 151 + "€" + "a" * 153).count == 2
    assert segments("я" * 66 + "😀" + "я" * 66).count == 3
    assert segments("я" * 65 + "😀" + "я" * 67).count == 2


PIECES = (
    "plain words and more of them. ",
    "a {brace} ~ tilde € sign [x] ",
    "Zażółć gęślą jaźń. ",
    "İstanbul'da şık bir gün. ",
    "привет, как дела? ",
    "你好。再见。",
    "👨‍👩‍👧‍👦🏳️‍🌈👍🏽",
    "🇩🇪🇫🇷🇯🇵",
    "áèî",
    "x" * 90,
)


@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_what_fits_is_as_much_as_possible(most: int):
    rng = random.Random(most)
    for _ in range(60):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 60)))
        cut = fitting(text, most)
        assert segments(text[:cut]).count <= most
        assert cut == len(text) or segments(text[: cut + 1]).count > most


@pytest.mark.parametrize("most", [1, 2, 10])
def test_parts_fit_their_segments_lose_nothing_and_tear_no_visible_character(most: int):
    rng = random.Random(most)
    for _ in range(60):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 60)))
        parts = split_text(text, 1600, most)
        assert all(segments(part).count <= most for part in parts)
        assert "".join("".join(parts).split()) == "".join(text.split())
        for part in parts[1:]:
            assert not unicodedata.combining(part[0])
            assert part[0] not in "\u200d\ufe0f"
            assert not "🏻" <= part[0] <= "🏿"
        for part in parts[:-1]:
            assert part[-1] != "\u200d"
            flags = len(part) - len(part.rstrip("🇩🇪🇫🇷🇯🇵"))
            assert flags % 2 == 0, "a flag is torn apart"


def test_each_part_has_its_own_alphabet():
    text = "word " * 300 + "привет " * 30
    first, *others = split_text(text, 1600, 3)
    assert segments(first).encoding == "gsm7"
    assert len(first) > 400
    assert segments(others[-1]).encoding == "ucs2"


def test_the_shortest_text_that_is_too_much_is_cut():
    assert [len(part) for part in split_text("😀" * 331, 1600, 10)] == [330, 1]
    assert [len(part) for part in split_text("a" * 1531, 1600, 10)] == [1530, 1]
