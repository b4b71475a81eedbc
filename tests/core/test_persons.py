"""What is meant for one person: seen by them, on whatever channel, and by nobody else (D34)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roomkit import RoomKit, WebSocketChannel
from roomkit.core.memory import MemoryStore
from roomkit.core.streams import Viewer
from roomkit.errors import StateError
from roomkit.models.access import Principal, PrincipalRole
from roomkit.models.content import DeleteContent, EditContent, ReactionContent, TextContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import person_token
from roomkit.providers.sqlite.store import SQLiteStore
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, kit_with, say, stream

ANN, BEN = (Viewer("web", person=name) for name in ("ann", "ben"))
Make = Callable[..., RoomKit]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def made(*channels: Any) -> RoomKit:
        store = MemoryStore() if request.param == "memory" else SQLiteStore(str(tmp_path / "a.db"))
        return kit_with(WebSocketChannel("web"), *channels, store=store)

    return made


async def lobby(kit: RoomKit, *channels: str) -> None:
    await kit.create_room("r", channels=["web", *channels])
    for name in ("ann", "ben"):
        await kit.add_member("r", name, display_name=name.title(), channel_id="web")


async def write(kit: RoomKit, who: str, content: Any, **more: Any) -> Any:
    body = TextContent(text=content) if isinstance(content, str) else content
    message = InboundMessage(channel_id="web", sender_id=who, content=body, participant_id=who, **more)
    return await kit.process_inbound(message, room_id="r")


async def reads(kit: RoomKit, viewer: Viewer) -> list[str]:
    return [event.text for event in await kit.events("r", viewer=viewer) if event.type is EventType.MESSAGE]


async def metadata(kit: RoomKit, viewer: Viewer, index: int) -> dict[str, Any]:
    return (await kit.events("r", after=index - 1, limit=1, viewer=viewer))[0].metadata


async def test_words_for_one_person_are_read_by_that_person_only(make: Make) -> None:
    async with make(brain := Brain()) as kit:
        await lobby(kit, "ai")
        live: dict[str, list[str]] = {"ann": [], "ben": []}
        for name, viewer in (("ann", ANN), ("ben", BEN)):
            hear = live[name].append
            await kit.open_view("r", viewer, lambda item, hear=hear: isinstance(item, RoomEvent) and hear(item.text))
        await kit.send("r", "for ann", by="eve", visibility="person:ann")
        await kit.send("r", "for both", by="eve", visibility="person:ben,person:ann")
        await asyncio.sleep(1)
        assert await reads(kit, ANN) == live["ann"] == ["for ann", "for both"]
        assert await reads(kit, BEN) == live["ben"] == ["for both"]
        assert await reads(kit, Viewer("ai")) == [] == brain.seen
        view = await kit.open_view("r", BEN, lambda item: None, tail=10)
        assert [event.text for event in view.events if event.type is EventType.MESSAGE] == ["for both"]
        guest = Principal(id="ann", role=PrincipalRole.GUEST, room_id="r")
        missed = await kit.open_view("r", guest, lambda item: None, after=0)
        assert "for ann" in [event.text for event in missed.events]


async def test_what_a_guest_writes_to_one_person_is_not_read_by_who_shares_the_channel(make: Make) -> None:
    async with make() as kit:
        await lobby(kit)
        await kit.set_visibility("r", "web", "internal")
        await write(kit, "ann", "between us")
        assert await reads(kit, ANN) == ["between us"]
        assert await reads(kit, BEN) == []


async def test_one_copy_goes_out_by_the_channel_used_last(make: Make) -> None:
    sms, mail, other = FakeChannel("sms"), FakeChannel("mail"), FakeChannel("other")
    async with make(sms, mail, other) as kit:
        await lobby(kit)
        for channel, person in (("sms", "ann"), ("mail", "ann"), ("other", "ben")):
            await kit.attach_channel("r", channel, participant_id=person, metadata={"phone_number": f"+{channel}"})
        await say(kit, "hi", "r", channel="mail", participant_id="ann")
        await (await kit.send("r", "for ann", by="eve", visibility="person:ann")).settled()
        assert mail.texts == ["for ann"]
        assert sms.texts == []
        assert "for ann" not in other.texts


async def test_a_whisper_reaches_one_person(make: Make) -> None:
    sms = FakeChannel("sms")
    async with make(sms) as kit:
        await lobby(kit)
        await kit.attach_channel("r", "sms", participant_id="ann", metadata={"phone_number": "+1"})
        event = await kit.whisper("r", "psst", to="person:ann", by="eve")
        await asyncio.sleep(1)
        assert event.visibility == "person:ann"
        assert event.metadata["whisper"] == "person:ann"
        assert sms.texts == ["psst"]
        assert await reads(kit, ANN) == ["psst"]
        assert await reads(kit, BEN) == []
        with pytest.raises(StateError, match="nobody"):
            await kit.whisper("r", "psst", to="person:nobody", by="eve")


async def test_a_reply_meant_for_one_person_grows_before_their_eyes_only(make: Make) -> None:
    async with make(Brain(script=lambda c, e: stream("one ", "two", every=1))) as kit:
        await lobby(kit, "ai")
        await kit.set_visibility("r", "ai", "person:ann")
        heard: dict[str, list[str]] = {"ann": [], "ben": []}
        for name, viewer in (("ann", ANN), ("ben", BEN)):
            hear = heard[name].append
            await kit.open_view("r", viewer, lambda item, hear=hear: hear(getattr(item, "type", "")))
        await (await write(kit, "ann", "hello")).settled()
        assert [kind for kind in heard["ann"] if str(kind).startswith("stream")] == [
            "stream_start",
            "stream_chunk",
            "stream_chunk",
            "stream_end",
        ]
        assert not [kind for kind in heard["ben"] if str(kind).startswith("stream")]


async def test_edits_deletes_and_reactions_stay_with_who_saw_the_original(make: Make) -> None:
    async with make() as kit:
        await lobby(kit)
        first = (await kit.send("r", "for ann", by="eve", visibility="person:ann")).event
        edited = await kit.send(
            "r", EditContent(target_event_id=first.id, new_content=TextContent(text="new")), by="eve"
        )
        assert edited.event.visibility == "person:ann"
        for content in (
            ReactionContent(target_event_id=first.id, emoji="👍"),
            EditContent(target_event_id=first.id, new_content=TextContent(text="forged")),
        ):
            assert (await write(kit, "ben", content)).reason == "target_event_not_found"
        reacted = await write(kit, "ann", ReactionContent(target_event_id=first.id, emoji="👍"))
        assert reacted.event.visibility == "person:ann"
        assert await reads(kit, ANN) == ["new"]
        kinds = [event.type for event in await kit.events("r", viewer=BEN)]
        assert not {EventType.EDIT, EventType.REACTION} & set(kinds)


@pytest.mark.parametrize("wider", ["transport", "web", "person:ben", "person:ann,person:ben", "intelligence"])
async def test_nobody_is_shown_an_edit_who_could_not_see_the_original(make: Make, wider: str) -> None:
    async with make() as kit:
        await lobby(kit)
        first = (await kit.send("r", "for ann", by="eve", visibility="person:ann")).event
        for content in (
            EditContent(target_event_id=first.id, new_content=TextContent(text="secret")),
            DeleteContent(target_event_id=first.id, reason="secret"),
            ReactionContent(target_event_id=first.id, emoji="🤫"),
        ):
            result = await kit.send("r", content, by="eve", visibility=wider)
            assert (result.blocked, result.reason) == (True, "wider_than_target")
        assert await reads(kit, ANN) == ["for ann"]


@pytest.mark.parametrize(
    "narrower, target", [("person:ann", "transport"), ("web", "transport"), ("internal", "web"), ("web", "all")]
)
async def test_an_edit_may_be_for_fewer_than_the_original(make: Make, narrower: str, target: str) -> None:
    async with make() as kit:
        await lobby(kit)
        first = (await kit.send("r", "old", by="eve", visibility=target)).event
        edit = EditContent(target_event_id=first.id, new_content=TextContent(text="new"))
        assert not (await kit.send("r", edit, by="eve", visibility=narrower)).blocked
        assert await reads(kit, BEN) == (["new"] if narrower == "web" else ["old"])


async def test_why_something_was_deleted_is_read_by_who_may_see_the_deletion(make: Make) -> None:
    async with make() as kit:
        await lobby(kit)
        first = (await kit.send("r", "old", by="eve")).event
        await kit.send("r", DeleteContent(target_event_id=first.id, reason="a fraud"), by="eve", visibility="internal")
        deleted = (await kit.events("r", after=first.index - 1, limit=1, viewer=ANN))[0]
        assert deleted.metadata["deleted"]
        assert "fraud" not in deleted.model_dump_json()
        internal = (await kit.events("r", after=first.index - 1, limit=1))[0]
        assert internal.content.data["reason"] == "a fraud"


async def test_a_reaction_is_counted_for_who_may_see_it(make: Make) -> None:
    async with make() as kit:
        await lobby(kit)
        first = (await kit.send("r", "hello", by="eve")).event
        await write(kit, "ann", ReactionContent(target_event_id=first.id, emoji="👍"))
        flag = ReactionContent(target_event_id=first.id, emoji="🚩")
        await kit.send("r", flag, by="eve", visibility="internal")
        await kit.send("r", ReactionContent(target_event_id=first.id, emoji="❤"), by="eve", visibility="person:ann")
        assert (await metadata(kit, BEN, first.index))["reactions"] == {"👍": ["ann"]}
        assert (await metadata(kit, ANN, first.index))["reactions"] == {"👍": ["ann"], "❤": ["eve"]}
        everything = (await kit.events("r", after=first.index - 1, limit=1))[0].metadata["reactions"]
        assert everything == {"👍": ["ann"], "❤": ["eve"], "🚩": ["eve"]}
        await kit.send("r", flag.replaced(removed=True), by="eve", visibility="internal")
        assert "🚩" not in (await kit.events("r", after=first.index - 1, limit=1))[0].metadata["reactions"]


async def test_a_comma_in_an_id_names_nobody_else(make: Make) -> None:
    sly = "x,person:ann"
    async with make() as kit:
        await lobby(kit)
        await kit.add_member("r", sly, channel_id="web")
        await kit.send("r", "for the sly one", by="eve", visibility=person_token(sly))
        assert await reads(kit, Viewer("web", person=sly)) == ["for the sly one"]
        assert await reads(kit, ANN) == []
