"""ChatKit's threads and items as views of rooms and events: what is shown, what is kept, and hostile input."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("chatkit", reason="needs the [chatkit] extra")

from roomkit.errors import MissingExtra
from roomkit.models.content import CompositeContent, Content, MediaContent, SystemContent, TextContent
from roomkit.models.event import EventSource, EventStatus, EventType, RoomEvent
from roomkit.models.room import Room, RoomStatus
from roomkit.protocols.chatkit import package
from roomkit.protocols.chatkit.items import (
    ITEM,
    content_of,
    item_of,
    items_of,
    kept_of,
    page_of,
    removed,
    said,
    stored,
    thread_of,
    words_of,
)
from roomkit.protocols.chatkit.package import (
    AssistantMessageItem,
    ClosedStatus,
    FileAttachment,
    HiddenContextItem,
    LockedStatus,
    UserMessageItem,
    UserMessageTextContent,
)

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def room(**more: Any) -> Room:
    return Room.model_validate({"id": "r", "created_at": NOW, "updated_at": NOW, **more})


def event(content: Content | str, by: str | None = "ann", name: str = "e", **more: Any) -> RoomEvent:
    content = TextContent(text=content) if isinstance(content, str) else content
    source = EventSource(channel_id="c", channel_type="chatkit", participant_id=by)
    kind = EventType.SYSTEM if isinstance(content, SystemContent) else EventType.MESSAGE
    values = {"id": name, "room_id": "r", "index": 0, "type": kind, "source": source, "created_at": NOW, **more}
    return RoomEvent(content=content, **values)


def user(text: str, **more: Any) -> UserMessageItem:
    values: dict[str, Any] = {"id": "m", "thread_id": "r", "created_at": NOW, "inference_options": {}, **more}
    return UserMessageItem(content=[UserMessageTextContent(text=text)] if text else [], **values)


def hidden(name: str = "h") -> HiddenContextItem:
    return HiddenContextItem(id=name, thread_id="r", created_at=NOW, content="the user is rich")


def shown(events: list[RoomEvent]) -> list[tuple[str, str]]:
    return [(one.id, one.type) for one in items_of(events, "ann")]


def test_a_thread_is_open_locked_or_closed_as_its_room_is() -> None:
    kept = {"title": "T", "metadata": {"n": [1]}, "allowed_image_domains": ["a.example"], "status": None}
    fresh = thread_of(room(metadata={"chatkit": kept}))
    assert (fresh.id, fresh.title, fresh.status.type) == ("r", "T", "active")
    assert kept_of(fresh) == kept
    fresh.metadata["n"].append(2)
    assert kept["metadata"] == {"n": [1]}, "the room's own is not what the package changes"
    locked = thread_of(room(metadata={"chatkit": {**kept, "status": {"type": "locked", "reason": "later"}}}))
    assert locked.status == LockedStatus(reason="later")
    assert kept_of(locked)["status"] == {"type": "locked", "reason": "later"}
    assert thread_of(room(status=RoomStatus.CLOSED)).status == ClosedStatus()
    assert thread_of(room()).metadata == {}


def test_a_message_is_words_and_the_files_that_are_there() -> None:
    files = [FileAttachment(id=name, name=f"{name}.txt", mime_type="text/plain") for name in ("f", "lost")]
    file = MediaContent(url="https://a/f", mime_type="text/plain", filename="f.txt")
    assert content_of(user("hi"), {}) == TextContent(text="hi")
    assert content_of(user("", attachments=files), {"f": "https://a/f"}) == file
    both = content_of(user("hi", attachments=files), {"f": "https://a/f"})
    assert both == CompositeContent(parts=(TextContent(text="hi"), file))
    assert content_of(user("", attachments=files), {}) is None, "nothing is said"
    assert words_of(user("yes", quoted_text="one\ntwo")) == "> one\n> two\nyes"


def test_files_are_links_and_their_names_cannot_make_others() -> None:
    evil = MediaContent(url="https://a/f", mime_type="text/plain", filename="x](http://evil)[")
    local = MediaContent(url="room-file:1", mime_type="text/plain", filename="b")
    words = said(event(CompositeContent(parts=(TextContent(text="look"), evil, local))))
    assert words == "look\n\n[x  http://evil  ](https://a/f)"
    assert "[b](https://mine/1)" in said(event(local), lambda url: url.replace("room-file:", "https://mine/"))


def test_ones_own_message_is_shown_as_it_was_and_as_words_when_it_cannot_be_read() -> None:
    kept = user("hi **Ann**").model_dump(mode="json", exclude={"thread_id"})
    own = item_of(event("hi", channel_data={"chatkit": kept}), "ann")
    assert (own.id, own.thread_id, own.content[0].text) == ("m", "r", "hi **Ann**")
    older = item_of(event("hi", channel_data={"chatkit": {"id": "m", "type": "of an older package"}}), "ann")
    assert isinstance(older, UserMessageItem)
    assert (older.id, older.content[0].text) == ("m", "hi")
    assert item_of(event("hi"), "ann").id == "e"
    other = item_of(event("hi", channel_data={"chatkit": kept}), "eve")
    assert isinstance(other, AssistantMessageItem)
    assert (other.id, other.content[0].text) == ("e", "hi")


def test_a_thread_leaves_out_what_is_blocked_deleted_empty_or_removed() -> None:
    assert shown(
        [
            event("one", name="1"),
            event("no", name="2", status=EventStatus.BLOCKED),
            event("gone", name="3", metadata={"deleted": True}),
            event(MediaContent(url="room-file:1", mime_type="a/b"), by="sam", name="4"),
            event(stored(hidden(), "r"), name="5"),
            event(stored(hidden("h2"), "r"), name="6"),
            event(removed("h"), name="7"),
            event(removed("never there"), name="8"),
            event(SystemContent(code="other"), name="9"),
            event("two", by="sam", name="10"),
            event("one", name="1"),
        ]
    ) == [("h2", "hidden_context_item"), ("10", "assistant_message"), ("1", "user_message")]


def test_an_item_tells_its_thread_only_where_that_is_another() -> None:
    assert "thread_id" not in stored(hidden(), "r").data["item"]
    assert stored(hidden(), "fork").data["item"]["thread_id"] == "r"


def test_pages() -> None:
    rows = [hidden(str(number)) for number in range(3)]

    def ids(after: str | None, limit: int, order: str) -> tuple[list[str], bool, str | None]:
        page = page_of(rows, after, limit, order)
        return [one.id for one in page.data], page.has_more, page.after

    assert ids(None, 2, "asc") == (["0", "1"], True, "1")
    assert ids("1", 2, "asc") == (["2"], False, None)
    assert ids(None, 2, "desc") == (["2", "1"], True, "1")
    assert ids("unknown", -5, "asc") == (["0"], True, "0")
    assert ids("2", 2, "asc") == ([], False, None)


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chatkit.errors", None)
    spec = importlib.util.spec_from_file_location(package.__name__, package.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(MissingExtra, match=r"\[chatkit\]"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["id", "type", "content", "thread_id", "status", "title", "x"]), inner)
    ),
    max_leaves=5,
)
ITEMS = st.one_of(JSON, st.builds(lambda more: {**stored(hidden(), "r").data["item"], **more}, st.just({"id": 5})))


@settings(deadline=None, max_examples=60)
@given(ITEMS, st.booleans())
def test_what_an_import_brings_as_an_item_never_hides_the_thread(item: Any, whole: bool) -> None:
    broken = event(SystemContent(code=ITEM, data={"item": item} if whole else {"other": item}), name="1")
    assert shown([broken, event("hi", name="2")]) == [("2", "user_message")]


@settings(deadline=None, max_examples=60)
@given(JSON)
def test_what_an_import_brings_with_a_message_leaves_its_words(kept: Any) -> None:
    own = item_of(event("hi", channel_data={"chatkit": kept}), "ann")
    assert isinstance(own, UserMessageItem)
    assert own.content[0].text == "hi"


@settings(deadline=None, max_examples=60)
@given(JSON)
def test_what_a_room_keeps_under_the_name_never_loses_its_thread(kept: Any) -> None:
    assert thread_of(room(metadata={"chatkit": kept})).id == "r"
