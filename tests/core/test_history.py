"""Reading back: nobody reads words that an edit took away, or that were meant for others."""

from __future__ import annotations

from typing import Any

import pytest

from roomkit import InboundMessage, RoomKit, TextContent
from roomkit.core.streams import Viewer
from roomkit.models.content import CompositeContent, DeleteContent, EditContent
from roomkit.models.event import EventType
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, kit_with


async def put(kit: RoomKit, content: Any, *, channel: str = "desk", who: str = "ann") -> Any:
    message = InboundMessage(channel_id=channel, sender_id=who, participant_id=who, content=content)
    result = await kit.process_inbound(message, room_id="r")
    await result.settled()
    return result


def edit(event_id: str, words: str) -> EditContent:
    return EditContent(target_event_id=event_id, new_content=TextContent(text=words))


async def read(kit: RoomKit, channel_id: str | None) -> list[str]:
    """Every word that this viewer finds in the room, by a page and by a view that is opened."""
    viewer = Viewer(channel_id=channel_id, internal=channel_id is None)
    types = (EventType.MESSAGE, EventType.EDIT)
    page = [e.text for e in await kit.events("r", viewer=viewer) if e.type in types]
    view = await kit.open_view("r", viewer, lambda item: None)
    view.close()
    assert [e.text for e in view.events if e.type in types] == page
    return page


async def test_an_edit_is_read_only_by_those_who_may_see_it() -> None:
    brain = Brain()
    async with kit_with(FakeChannel("desk"), FakeChannel("web"), brain) as kit:
        await kit.create_room("r", channels=["desk", "web", "ai"])
        first = (await put(kit, TextContent(text="public"))).event
        await put(kit, edit(first.id, "better"))
        await kit.set_visibility("r", "desk", "web")
        await put(kit, edit(first.id, "FOR WEB ONLY"))
        await put(kit, TextContent(text="q"), channel="web", who="bob")
        assert brain.histories[-1][:2] == ["better", "echo public"]
        assert "FOR WEB ONLY" not in str(brain.histories[-1])
        assert (await read(kit, "web"))[0] == "FOR WEB ONLY"
        await kit.set_visibility("r", "desk", "internal")
        await put(kit, edit(first.id, "secret"))
        assert (await read(kit, "web"))[0] == "FOR WEB ONLY"
        assert (await read(kit, None))[0] == "secret"


async def test_words_that_were_taken_back_are_in_nobodys_reach() -> None:
    async with kit_with(FakeChannel("desk"), FakeChannel("web")) as kit:
        await kit.create_room("r", channels=["desk", "web"])
        first = (await put(kit, TextContent(text="v1"))).event
        await put(kit, edit(first.id, "CARD 4111"))
        await put(kit, edit(first.id, "v3"))
        assert await read(kit, "web") == ["v3", "v3", "v3"]
        await put(kit, DeleteContent(target_event_id=first.id))
        assert await read(kit, "web") == ["", "", ""]
        late = await put(kit, edit(first.id, "again"))
        assert (late.event, late.reason) == (None, "target_event_deleted")
        # A page without the message itself knows as well.
        tail = await kit.events("r", after=first.index, viewer=Viewer(channel_id="web"))
        assert "4111" not in str([e.content for e in tail])
        assert "4111" in str([e.content for e in await kit.events("r", raw=True)])


async def test_an_edit_of_an_edit_is_refused() -> None:
    async with kit_with(FakeChannel("desk")) as kit:
        await kit.create_room("r", channels=["desk"])
        first = (await put(kit, TextContent(text="v1"))).event
        second = (await put(kit, edit(first.id, "v2"))).event
        assert (await put(kit, edit(second.id, "v3"))).reason == "target_is_no_message"


def test_an_edit_inside_other_content_is_refused() -> None:
    inner = edit("e", "forged")
    with pytest.raises(ValueError, match="stands alone"):
        CompositeContent(parts=(TextContent(text="x"), inner))
    with pytest.raises(ValueError, match="stands alone"):
        EditContent(target_event_id="e", new_content=inner)
    with pytest.raises(ValueError, match="stands alone"):
        EditContent(target_event_id="e", new_content=CompositeContent(parts=(CompositeContent(parts=(inner,)),)))
