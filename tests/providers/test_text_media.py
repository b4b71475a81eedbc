from __future__ import annotations

from typing import Any

import pytest

from roomkit.errors import Refused
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    LocationContent,
    MediaContent,
    RichContent,
    TextContent,
    UnknownContent,
    VideoContent,
)
from roomkit.models.delivery import Attachment
from roomkit.providers.text_media import content_of, media_to_send, text_to_send

PICTURE = Attachment(url="https://x.example/a.png", mime_type="image/png", size_bytes=7)
VOICE = Attachment(url="https://x.example/a.ogg", mime_type="audio/ogg")
FILM = Attachment(url="https://x.example/a.mp4", mime_type="video/mp4")
PLACE = LocationContent(latitude=1, longitude=2)


@pytest.mark.parametrize(
    "text, files, more, kinds",
    [
        ("", (), None, "unknown"),
        ("hi", (), None, "text"),
        ("", (PICTURE,), None, "media"),
        ("hi", (PICTURE,), None, "media"),
        ("hi", (FILM,), None, "video"),
        ("hi", (VOICE,), None, "text audio"),
        ("hi", (PICTURE, VOICE), None, "text media audio"),
        ("", (), PLACE, "location"),
        ("hi", (PICTURE,), PLACE, "text media location"),
    ],
)
def test_what_came_in_is_one_content(text: str, files: Any, more: Content | None, kinds: str):
    found = content_of(text, files, more, kind="odd")
    parts = found.parts if isinstance(found, CompositeContent) else (found,)
    assert " ".join(part.type for part in parts) == kinds
    if kinds in {"media", "video"}:
        assert isinstance(found, MediaContent | VideoContent)
        assert found.caption == (text or None)
    if kinds == "unknown":
        assert found == UnknownContent(kind="odd")


def test_what_goes_out():
    rich = RichContent(text="**Hi** [here](https://x.example)")
    both = CompositeContent(parts=(rich, TextContent(text="there"), AudioContent(url="https://x.example/a.ogg")))
    assert text_to_send(both) == "Hi here (https://x.example)\nthere"
    assert media_to_send(both, "telnyx", most=1) == ["https://x.example/a.ogg"]
    with pytest.raises(Refused, match="1 files in one message, 0"):
        media_to_send(both, "telnyx", most=0)
    with pytest.raises(Refused, match="public URL that Telnyx can fetch"):
        media_to_send(AudioContent(url="blob:1"), "telnyx", most=1)
