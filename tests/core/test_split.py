from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.core.split import split_content, split_text
from roomkit.models.content import (
    AudioContent,
    Button,
    CompositeContent,
    LocationContent,
    MediaContent,
    RichContent,
    TextContent,
)
from roomkit.models.room import ChannelCapabilities

PICTURE = MediaContent(url="https://x.example/a.png", mime_type="image/png")


def test_what_fits_is_left_alone():
    assert split_text("hello there", 11) == ["hello there"]
    assert split_text("hello " * 1000, None) == [("hello " * 1000).strip()]
    assert split_text("  \n ", 5) == []


def test_paragraphs_then_lines_then_sentences_then_words():
    assert split_text("One two three.\n\nFour five. Six", 24) == ["One two three.", "Four five. Six"]
    assert split_text("One two three\nfour five six", 20) == ["One two three", "four five six"]
    assert split_text("One is here. Two is there now", 24) == ["One is here.", "Two is there now"]
    assert split_text('He said "no." Then he left us', 20) == ['He said "no."', "Then he left us"]
    assert split_text("aaaa bbbb cccc", 9) == ["aaaa bbbb", "cccc"]
    assert split_text("一二三。四五六七", 6) == ["一二三。", "四五六七"]


def test_a_border_that_leaves_a_part_half_empty_is_not_taken():
    assert split_text("Hi. " + "word " * 20, 40)[0] == "Hi. word word word word word word word"


def test_a_word_longer_than_the_limit_is_cut():
    assert split_text("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert split_text("short " + "x" * 15, 10) == ["short", "x" * 10, "x" * 5]


@pytest.mark.parametrize("visible", ["e\u0301", "👍🏽", "👨‍👩‍👧", "🇫🇷", "❤️"])
def test_visible_characters_are_not_torn_apart(visible: str):
    parts = split_text(visible * 20, len(visible) * 3 + 1)
    assert "".join(parts) == visible * 20
    assert all(len(part) % len(visible) == 0 for part in parts)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300), st.integers(1, 60))
def test_nothing_but_white_space_is_lost_and_no_part_is_too_long(text: str, limit: int):
    parts = split_text(text, limit)
    assert all(0 < len(part) <= limit for part in parts)
    assert re.sub(r"\s", "", "".join(parts)) == re.sub(r"\s", "", text)


@given(st.lists(st.text("ab.é😀", min_size=1, max_size=12), max_size=40))
def test_words_stay_whole_where_they_can(words: list[str]):
    assert " ".join(split_text(" ".join(words), 12)).split() == words


def sms(**more: object) -> ChannelCapabilities:
    return ChannelCapabilities(media=True, **{"max_length": 20, "media_per_message": 2, **more})  # type: ignore[arg-type]


def test_rich_text_keeps_its_buttons_with_the_last_part():
    rich = RichContent(text="word " * 10, buttons=(Button(label="Yes"),), plain_text="x")
    *first, last = split_content(rich, sms(rich=True))
    assert all(isinstance(part, RichContent) and not part.buttons for part in first)
    assert isinstance(last, RichContent)
    assert last.buttons == rich.buttons
    assert last.plain_text is None


def test_html_is_cut_as_text_because_tags_cannot_be():
    parts = split_content(RichContent(text="<b>" + "word " * 10 + "</b>", format="html"), sms(rich=True))
    assert " ".join(part.text for part in parts if isinstance(part, TextContent)) == ("word " * 10).strip()


def test_a_long_caption_goes_ahead_of_its_picture():
    parts = split_content(PICTURE.model_copy(update={"caption": "word " * 8}), sms())
    assert [part.type for part in parts] == ["text", "text", "media"]
    assert parts[-1] == PICTURE


def test_text_and_files_travel_together_as_far_as_the_channel_allows():
    place = LocationContent(latitude=1, longitude=2)
    sound = AudioContent(url="https://x.example/a.wav")
    inner = CompositeContent(parts=(PICTURE, sound))
    content = CompositeContent(parts=(TextContent(text="one two three four five"), PICTURE, inner, place))
    together = split_content(content, sms())
    assert [part.type for part in together] == ["text", "composite", "media", "location"] or [
        part.type for part in together
    ] == ["text", "composite", "audio", "location"]
    assert together[0] == TextContent(text="one two three four")
    assert together[1] == CompositeContent(parts=(TextContent(text="five"), PICTURE, PICTURE))
    apart = split_content(content, sms(media_per_message=1, max_length=None))
    assert [part.type for part in apart] == ["text", "media", "media", "audio", "location"]
