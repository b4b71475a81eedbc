"""Forks: a copy to try things in. Nothing leaves it, tools answer from the journal, the original stays as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from roomkit import AIChannel, Channel, RoomKit
from roomkit.ai.tools import tool
from roomkit.errors import StateError, UsageError
from roomkit.models.content import EditContent, MediaContent, TextContent, ToolCallContent
from roomkit.models.delivery import DeliveryResult
from roomkit.models.event import EventType
from roomkit.ports.store import RecordQuery
from roomkit.testing import ScriptedAI
from roomkit.testing.ai import call
from tests.core.rooms import gapless, kit_with, said, say

NOTHING_TO_DO = ("outbox", "turn", "stream", "timer", "delivery", "dead", "approval", "draft")


class Phone(Channel):
    """A transport that remembers what it was given."""

    def __init__(self) -> None:
        super().__init__("sms", "sms")
        self.sent: list[str] = []

    async def deliver(self, event, binding, context):  # type: ignore[no-untyped-def]
        self.sent.append(event.text)
        return DeliveryResult(success=True)


async def everything(kit: RoomKit, room_id: str) -> list[object]:
    return [e.model_dump() for e in await kit.events(room_id, limit=1000, raw=True)]


async def kinds(kit: RoomKit, room_id: str) -> list[str]:
    store = kit.engine.store
    return [k for k in NOTHING_TO_DO if await store.records(RecordQuery(k, "default", room_id=room_id))]


async def test_a_fork_is_a_copy_under_its_own_ids_and_the_original_stays_as_it_was() -> None:
    phone = Phone()
    async with kit_with(phone) as kit:
        room_id = (await say(kit, "one")).room_id or ""
        first = (await kit.send(room_id, "one", by="ann")).event
        assert first is not None
        await kit.send(room_id, EditContent(target_event_id=first.id, new_content=TextContent(text="uno")), by="ann")
        await (await kit.send(room_id, "later", by="ann")).settled()
        before = await everything(kit, room_id)
        edit = (await kit.events(room_id, raw=True))[-2]
        copy = await kit.fork(room_id, at=edit.index)
        assert (copy.id, copy.latest_index) != (room_id, -1)
        assert copy.forked_from is not None
        assert (copy.forked_from.room_id, copy.forked_from.index) == (room_id, edit.index)
        assert await gapless(kit, copy.id)
        shown = [e.text for e in await kit.events(copy.id) if e.type is EventType.MESSAGE]
        assert shown == ["one", "uno"], "the edit is part of the copy, what came later is not"
        ids = {e.id for e in await kit.events(room_id, raw=True)}
        assert not ids & {e.id for e in await kit.events(copy.id, raw=True)}
        assert await everything(kit, room_id) == before
        assert await kinds(kit, copy.id) == []


async def test_an_edit_after_the_fork_does_not_reach_into_it() -> None:
    async with kit_with(Phone()) as kit:
        room_id = (await say(kit, "one")).room_id or ""
        first = (await kit.send(room_id, "one", by="ann")).event
        assert first is not None
        await kit.send(room_id, EditContent(target_event_id=first.id, new_content=TextContent(text="uno")), by="ann")
        copy = await kit.fork(room_id, at=first.index)
        assert [e.text for e in await kit.events(copy.id) if e.type is EventType.MESSAGE] == ["one", "one"]


async def test_nothing_leaves_a_fork_even_when_a_transport_is_seated_in_it() -> None:
    phone = Phone()
    async with kit_with(phone) as kit:
        room_id = (await say(kit, "one")).room_id or ""
        copy = await kit.fork(room_id)
        assert [b.channel_id for b in await kit.bindings(copy.id)] == []
        await kit.attach_channel(copy.id, "sms", metadata={"phone_number": "+4411"})
        await (await kit.send(copy.id, "to nobody", by="host")).settled()
        await kit.whisper(copy.id, "psst", to="sms", by="host")
        await kit.drain(1)
        assert phone.sent == []
        assert (await say(kit, "two")).room_id == room_id, "what the person writes goes to the original"


async def test_another_model_answers_and_tools_are_told_from_the_journal() -> None:
    ran: list[str] = []

    @tool
    def price(item: str) -> str:
        """The price of an item."""
        ran.append(item)
        return f"{item} costs {len(ran)}"

    first = AIChannel("ai", ScriptedAI([call("price", item="tea")], "A pound.")).configure(tools=(price,))
    asks = ([call("price", item="tea")], [call("price", item="rum")], "Cheaper.")
    second = AIChannel("ai-2", ScriptedAI(*asks)).configure(tools=(price,))
    async with kit_with(Phone()) as kit:
        kit.register_channel(first, default=True)
        kit.register_channel(second)
        result = await say(kit, "how much is tea?")
        await result.settled()
        assert result.event is not None
        room_id = result.room_id or ""
        before = await everything(kit, room_id)
        copy = await kit.fork(room_id, at=result.event.index, channels=["ai-2"], ask="ai-2")
        assert (await said(kit, copy.id))[-1] == ("ai-2", "Cheaper.", "committed")
        assert ran == ["tea"], "no tool runs in a fork"
        calls = [e.content for e in await kit.events(copy.id, raw=True) if e.type is EventType.TOOL_CALL_END]
        assert [(c.status, c.result or c.error) for c in calls if isinstance(c, ToolCallContent)] == [
            ("completed", "tea costs 1"),
            ("failed", "Not run: this is a copy of a conversation, and no such call was made in the original."),
        ]
        assert await everything(kit, room_id) == before


async def test_a_fork_at_a_note_shows_it_to_no_model() -> None:
    brain = ScriptedAI("Hello.", "Hello again.")
    async with kit_with(Phone()) as kit:
        kit.register_channel(AIChannel("ai", brain), default=True)
        result = await say(kit, "good morning")
        await result.settled()
        room_id = result.room_id or ""
        await kit.note(room_id, "she owes us money", by="eve")
        copy = await kit.fork(room_id, ask="ai")
        assert "she owes us money" in [event.text for event in await kit.events(copy.id, raw=True)]
        assert (await said(kit, copy.id))[-1] == ("ai", "Hello again.", "committed")
        assert "owes" not in str(brain.requests)
        await kit.create_room("r", channels=["ai"])
        await kit.note("r", "she owes us money", by="eve")
        with pytest.raises(UsageError, match='"ai" may see no message up to event 1'):
            await kit.fork("r", ask="ai")


async def picture() -> AsyncIterator[bytes]:
    yield b"\x89PNG\r\n\x1a\n" + b"x" * 100


async def test_pictures_go_along_as_files_of_the_fork() -> None:
    async with kit_with() as kit:
        await kit.create_room("r", channels=())
        blob = await kit.blobs.put("default", picture(), mime_type="image/png", room_id="r")
        await kit.send("r", MediaContent(url=f"blob:{blob.id}", mime_type="image/png"))
        copy = await kit.fork("r")
        (content,) = [e.content for e in await kit.events(copy.id) if isinstance(e.content, MediaContent)]
        info = await kit.blobs.info("default", content.url.removeprefix("blob:"))
        assert info is not None
        assert (info.room_id, info.size_bytes) == (copy.id, 108)
        assert info.id != blob.id


async def test_a_fork_of_what_is_not_there_is_refused() -> None:
    async with kit_with(Phone()) as kit:
        room_id = (await say(kit, "one")).room_id or ""
        with pytest.raises(UsageError, match="has no event 99"):
            await kit.fork(room_id, at=99)
        with pytest.raises(UsageError, match="nothing leaves a fork"):
            await kit.fork(room_id, channels=["sms"])


async def test_a_fork_that_is_refused_leaves_no_files(tmp_path: Path) -> None:
    async with RoomKit(f"sqlite:///{tmp_path / 'rooms.db'}") as kit:
        kit.register_channel(Phone())
        await kit.create_room("r", channels=())
        await kit.create_room("taken", channels=())
        blob = await kit.blobs.put("default", picture(), mime_type="image/png", room_id="r")
        await kit.send("r", MediaContent(url=f"blob:{blob.id}", mime_type="image/png"))
        log = await kit.events("taken", raw=True)
        files = sorted(tmp_path.rglob("*"))
        for refused, error in (({"new_id": "taken"}, StateError), ({"channels": ["sms"]}, UsageError)):
            with pytest.raises(error):
                await kit.fork("r", **refused)
            assert sorted(tmp_path.rglob("*")) == files
        assert await kit.events("taken", raw=True) == log


async def test_a_fork_is_whole_or_nothing_whenever_its_caller_hangs_up(tmp_path: Path) -> None:
    kit = RoomKit(f"sqlite:///{tmp_path / 'rooms.db'}")
    kit.register_channel(Phone())
    async with kit:
        await kit.create_room("r")
        for text in ("one", "two"):
            await kit.send("r", text)
        wanted = [event.text for event in await kit.events("r", raw=True)]
        cut = 0
        for turns in range(40):
            forking = asyncio.ensure_future(kit.fork("r", new_id=f"f{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            forking.cancel()
            await asyncio.gather(forking, return_exceptions=True)
            cut += forking.cancelled()
        await asyncio.sleep(1)
        made = [room.id for room in await kit.list_rooms() if room.id != "r"]
        assert cut > 0
        assert made
        for room_id in made:
            events = await kit.events(room_id, raw=True)
            assert [event.text for event in events] == wanted
            assert not any(event.metadata.get("erased") for event in events)
