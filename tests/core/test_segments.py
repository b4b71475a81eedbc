from __future__ import annotations

import pytest

from roomkit.core.segments import segments


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
