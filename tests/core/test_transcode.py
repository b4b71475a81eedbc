from __future__ import annotations

import pytest

from roomkit.core.transcode import transcode, with_sender
from roomkit.models.content import (
    AudioContent,
    Button,
    Card,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    ReactionContent,
    RichContent,
    SystemContent,
    TemplateContent,
    TextContent,
    ToolCallContent,
    UnknownContent,
    VideoContent,
)
from roomkit.models.room import ChannelCapabilities

PLAIN = ChannelCapabilities()
EVERYTHING = ChannelCapabilities(
    rich=True,
    media=True,
    audio=True,
    video=True,
    location=True,
    templates=True,
    buttons=10,
    cards=True,
    quick_replies=True,
    reactions=True,
    edit=True,
    delete=True,
    tool_calls=True,
)
URL = "https://x.example/f"
TEXT = TextContent(text="hello")
RICH = RichContent(text="**hello** [site](https://a.example)")
FULL = RichContent(
    text="# Choose",
    cards=(Card(title="Room", text="big", buttons=(Button(label="Book"),)),),
    buttons=(Button(label="Site", url="https://a.example"), Button(label="No")),
    quick_replies=("yes", "no"),
)
MEDIA = MediaContent(url=URL, mime_type="image/png")
PLACE = LocationContent(latitude=48.85, longitude=2.35, label="Paris", address="Rue X")


@pytest.mark.parametrize(
    "content, text",
    [
        (TEXT, "hello"),
        (RICH, "hello site (https://a.example)"),
        (RICH.model_copy(update={"plain_text": "own words"}), "own words"),
        (RichContent(text="<p>a &lt; b</p><script>x()</script>", format="html"), "a < b"),
        (FULL, "Choose\nRoom\nbig\n- Book\nSite: https://a.example\n- No\nyes / no"),
        (MEDIA.model_copy(update={"caption": "my cat", "filename": "cat.png"}), "my cat"),
        (MEDIA.model_copy(update={"filename": "cat.png"}), "[File: cat.png]"),
        (MEDIA, URL),
        (MEDIA.model_copy(update={"url": "blob:123"}), "[File]"),
        (AudioContent(url=URL, transcript="spoken"), "spoken"),
        (AudioContent(url=URL), "[Voice message]"),
        (VideoContent(url=URL, caption="seen"), "seen"),
        (VideoContent(url=URL), "[Video]"),
        (PLACE, "Paris\nRue X\n48.85, 2.35"),
        (TemplateContent(template_id="t", fallback="Your code"), "Your code"),
        (SystemContent(code="x", message="Ada joined"), "Ada joined"),
        (UnknownContent(kind="poll"), "[Message of a kind that cannot be shown here: poll]"),
        (UnknownContent(kind="poll", text="Which?"), "Which?"),
        (EditContent(target_event_id="e", new_content=TEXT), "Correction: hello"),
        (EditContent(target_event_id="e", new_content=RICH), "Correction: hello site (https://a.example)"),
        (DeleteContent(target_event_id="e"), "[Message deleted]"),
        (CompositeContent(parts=(TEXT, MEDIA, PLACE)), f"hello\n{URL}\nParis\nRue X\n48.85, 2.35"),
    ],
)
def test_text_only_channels_get_the_same_meaning_as_text(content: Content, text: str):
    assert transcode(content, PLAIN) == TextContent(text=text)


@pytest.mark.parametrize(
    "content",
    [
        TemplateContent(template_id="t"),
        SystemContent(code="x"),
        ReactionContent(target_event_id="e", emoji="👍"),
        ToolCallContent(call_id="c", name="n"),
        CompositeContent(parts=(ReactionContent(target_event_id="e", emoji="👍"),)),
        EditContent(target_event_id="e", new_content=TemplateContent(template_id="t")),
    ],
)
def test_what_has_no_words_is_skipped(content: Content):
    assert transcode(content, PLAIN) is None


@pytest.mark.parametrize(
    "content",
    [
        *(TEXT, RICH, FULL, MEDIA, AudioContent(url=URL), VideoContent(url=URL), PLACE),
        *(TemplateContent(template_id="t"), ReactionContent(target_event_id="e", emoji="👍")),
        *(ToolCallContent(call_id="c", name="n"), DeleteContent(target_event_id="e")),
        *(EditContent(target_event_id="e", new_content=RICH), CompositeContent(parts=(TEXT, MEDIA))),
    ],
)
def test_what_a_channel_supports_passes_unchanged(content: Content):
    assert transcode(content, EVERYTHING) == content


def test_more_buttons_than_allowed_are_written_out_not_lost():
    three = ChannelCapabilities(rich=True, buttons=1)
    got = transcode(FULL, three)
    assert isinstance(got, RichContent)
    assert (got.buttons, got.cards, got.quick_replies) == ((), (), ())
    for words in ("Room", "Book", "Site: https://a.example", "No", "yes / no"):
        assert words in got.text
    html = transcode(
        RichContent(text="<b>x</b>", format="html", buttons=(Button(label="a<b"),)), ChannelCapabilities(rich=True)
    )
    assert isinstance(html, RichContent)
    assert "a&lt;b" in html.text


def test_files_of_a_wrong_type_or_size_become_text():
    images = ChannelCapabilities(media=True, media_types=("image/*",), max_media_bytes=100)
    assert transcode(MEDIA.model_copy(update={"size_bytes": 100}), images) != TextContent(text=URL)
    assert transcode(MEDIA.model_copy(update={"size_bytes": 101}), images) == TextContent(text=URL)
    assert transcode(MEDIA.model_copy(update={"mime_type": "application/pdf"}), images) == TextContent(text=URL)


def test_composites_keep_what_can_stay_and_unwrap_what_is_alone():
    pictures = ChannelCapabilities(media=True)
    assert transcode(CompositeContent(parts=(RICH, MEDIA)), pictures) == CompositeContent(
        parts=(TextContent(text="hello site (https://a.example)"), MEDIA)
    )
    reaction = ReactionContent(target_event_id="e", emoji="👍")
    assert transcode(CompositeContent(parts=(MEDIA, reaction)), pictures) == MEDIA


def test_an_edit_of_a_picture_is_announced_beside_it():
    edit = EditContent(target_event_id="e", new_content=MEDIA)
    assert transcode(edit, ChannelCapabilities(media=True)) == CompositeContent(
        parts=(TextContent(text="Correction:"), MEDIA)
    )


def test_texts_of_the_framework_speak_the_rooms_language():
    assert transcode(DeleteContent(target_event_id="e"), PLAIN, language="fr") == TextContent(text="[Message supprimé]")


def test_a_channel_without_text_gets_none():
    assert transcode(TEXT, ChannelCapabilities(text=False)) is None
    assert transcode(MEDIA, ChannelCapabilities(text=False)) is None


@pytest.mark.parametrize(
    "content, shown",
    [
        (TEXT, TextContent(text="Ada: hello")),
        (RichContent(text="**x**", plain_text="x"), RichContent(text="Ada: **x**", plain_text="Ada: x")),
        (MEDIA.model_copy(update={"caption": "cat"}), MEDIA.model_copy(update={"caption": "Ada: cat"})),
        (MEDIA, CompositeContent(parts=(TextContent(text="Ada:"), MEDIA))),
        (CompositeContent(parts=(TEXT, MEDIA)), CompositeContent(parts=(TextContent(text="Ada: hello"), MEDIA))),
        (CompositeContent(parts=(MEDIA, TEXT)), CompositeContent(parts=(TextContent(text="Ada:"), MEDIA, TEXT))),
    ],
)
def test_the_senders_name_stands_in_front(content: Content, shown: Content):
    assert with_sender(content, "Ada") == shown
