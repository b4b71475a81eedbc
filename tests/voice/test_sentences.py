"""Sentences out of a growing text, and filters that see across the borders of its pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.voice.sentences import MOST_CHARACTERS, SentenceSplitter, StripBrackets, StripInternalTags, TextFilter


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_abbreviations_prices_and_short_words_end_no_sentence(size: int) -> None:
    splitter = SentenceSplitter("en")
    text = "Yes. Dr. Smith paid $3.50 for it, e.g. in cash. Was it good? I think so"
    ready = [sentence for piece in cut(text, size) for sentence in splitter.push(piece)]
    assert "".join([*ready, *splitter.flush()]) == text
    assert ready[0] == "Yes. Dr. Smith paid $3.50 for it, e.g. in cash. "


def test_a_sentence_comes_as_soon_as_the_next_one_begins() -> None:
    splitter = SentenceSplitter("en")
    assert splitter.push("The train leaves at nine.") == []
    assert splitter.push(" T") == ["The train leaves at nine. "]


def test_a_list_without_an_end_is_cut_at_a_word() -> None:
    splitter = SentenceSplitter("en")
    ready = splitter.push("and then apples " * 60)
    assert ready
    assert all(len(part) <= MOST_CHARACTERS for part in ready)
    assert ready[0].endswith((" ", "s", "n", "d"))


@given(st.text(alphabet="ab .!?\n", max_size=200), st.integers(1, 9))
def test_no_text_is_lost_or_told_twice(text: str, size: int) -> None:
    splitter = SentenceSplitter("en")
    out = [sentence for piece in cut(text, size) for sentence in splitter.push(piece)] + splitter.flush()
    assert "".join(out).strip() == text.strip()


@pytest.mark.parametrize("size", [1, 2, 5, 11, 100])
@pytest.mark.parametrize(
    "kind, text, said",
    [
        (StripInternalTags, "Hi <internal>the caller is angry</internal>there <b>", "Hi there <b>"),
        (StripInternalTags, "Hi <internal>never closed", "Hi "),
        (StripInternalTags, "a < b <inter", "a < b <inter"),
        (StripBrackets, "[laughs] Sure [pause], yes", " Sure , yes"),
    ],
)
def test_filters(kind: type[TextFilter], text: str, said: str, size: int) -> None:
    stream = kind()
    assert "".join(stream.push(piece) for piece in cut(text, size)) + stream.flush() == said
