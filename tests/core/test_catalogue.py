from __future__ import annotations

import string

import pytest

from roomkit.core.catalogue import PHRASES, phrase


@pytest.mark.parametrize("code", sorted(PHRASES))
def test_every_phrase_says_the_same_in_every_language(code: str):
    assert set(PHRASES[code]) == {"en", "de", "fr", "es"}
    fields = {
        tuple(sorted(name for _, name, *_ in string.Formatter().parse(t) if name)) for t in PHRASES[code].values()
    }
    assert len(fields) == 1


def test_a_language_falls_back_to_its_parent_and_then_to_english():
    assert phrase("deleted", "de-AT") == "[Nachricht gelöscht]"
    assert phrase("deleted", "tlh") == "[Message deleted]"
    with pytest.raises(KeyError):
        phrase("no such phrase")


def test_braces_in_a_value_stay_what_they_are():
    assert phrase("sender", name="{text}", text="{0.__class__}") == "{text}: {0.__class__}"
