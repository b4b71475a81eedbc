from __future__ import annotations

import asyncio
from typing import Any

from roomkit import RoomKit, SMSChannel
from roomkit.core.memory import MemoryStore
from roomkit.models.content import DeleteContent, EditContent, ReactionContent, TextContent, UnknownContent
from roomkit.models.delivery import DeliveryPolicy, InboundMessage
from roomkit.models.event import EventType
from roomkit.models.room import ChannelCapabilities, Role
from roomkit.ports.store import Batch, Duplicate
from roomkit.testing import FakeMessages, VirtualClock

ABLE = ChannelCapabilities(threading=True, reactions=True, edit=True, delete=True, max_length=40)


def kit_with(fake: FakeMessages, store: MemoryStore | None = None) -> RoomKit:
    kit = RoomKit(store, clock=VirtualClock())
    channel = SMSChannel("chat", provider=fake)
    channel.capabilities = ABLE
    kit.register_channel(channel)
    return kit


def inbound(ident: str, text: str = "hi", *, sender: str = "ann", **more: Any) -> InboundMessage:
    return InboundMessage.text("chat", sender, text, external_id=ident, **more)


def action(ident: str, content: Any, about: str, sender: str = "ann") -> InboundMessage:
    return InboundMessage(
        channel_id="chat",
        sender_id=sender,
        content=content,
        type=EventType(content.type),
        external_id=ident,
        about_id=about,
    )


async def test_what_a_vendor_refers_to_is_found_whoever_wrote_it() -> None:
    fake = FakeMessages()
    async with kit_with(fake) as kit:
        first = await kit.process_inbound(inbound("m1", "one"))
        room_id, original = str(first.room_id), first.event
        assert original is not None
        ours = await kit.send(room_id, "word " * 20, by="ben")
        await ours.settled()
        assert ours.event is not None
        assert len(fake.sent) == 3, "in parts"

        new = EditContent(target_event_id="m1", new_content=TextContent(text="won"))
        edit = await kit.process_inbound(action("m2", new, "m1"))
        assert edit.event is not None
        assert edit.event.content.target_event_id == original.id
        for number in (1, 2, 3):  # each part of a message stands for the whole of it
            like = ReactionContent(target_event_id="x", emoji="👍")
            liked = await kit.process_inbound(action(f"r{number}", like, f"fake-{number}"))
            assert liked.event is not None
            assert liked.event.content.target_event_id == ours.event.id
        answer = await kit.process_inbound(inbound("m3", "yes", about_id="fake-2"))
        assert answer.event is not None
        assert answer.event.parent_event_id == ours.event.id


async def test_what_is_not_known_is_told_of_and_not_lost() -> None:
    async with kit_with(FakeMessages()) as kit:
        new = EditContent(target_event_id="old", new_content=TextContent(text="won"))
        edit = await kit.process_inbound(action("m1", new, "old"))
        assert edit.event is not None
        assert edit.event.content == UnknownContent(kind="edit", text="won")
        assert edit.event.metadata == {"unknown_target": "old"}
        gone = await kit.process_inbound(action("m2", DeleteContent(target_event_id="old"), "old"))
        assert gone.event is not None
        assert gone.event.content == UnknownContent(kind="delete")
        alone = await kit.process_inbound(inbound("m3", "yes", about_id="old"))
        assert alone.event is not None
        assert (alone.event.parent_event_id, alone.event.metadata) == (None, {"unknown_parent": "old"})


async def test_nobody_edits_what_somebody_else_wrote() -> None:
    async with kit_with(FakeMessages()) as kit:
        await kit.process_inbound(inbound("m1", "one", conversation_id="c", group=True))
        new = EditContent(target_event_id="m1", new_content=TextContent(text="forged"))
        forged = action("m2", new, "m1", sender="eve").model_copy(update={"conversation_id": "c", "group": True})
        result = await kit.process_inbound(forged)
        assert (result.event, result.blocked, result.reason) == (None, True, "not_original_author")


async def test_a_conversation_is_one_room_for_all_who_write_in_it() -> None:
    fake = FakeMessages()
    async with kit_with(fake) as kit:
        for number, sender in enumerate(("ann", "ben", "ann")):
            await kit.process_inbound(inbound(f"m{number}", sender=sender, conversation_id="c", group=True))
        await kit.process_inbound(inbound("m9", sender="ann", conversation_id="d"))
        one, two = sorted(await kit.list_rooms(), key=lambda room: -room.event_count)
        assert {person.id for person in await kit.participants(one.id)} == {"sms:ann", "sms:ben"}
        (seat,) = await kit.bindings(one.id)
        assert (seat.metadata["address"], seat.participant_id) == ("c", None), "the seat is nobody's own"
        (own,) = await kit.bindings(two.id)
        assert (own.metadata["address"], own.participant_id) == ("d", "sms:ann")
        await (await kit.send(one.id, "to all", by="host")).settled()
        assert [sent.recipient for sent in fake.sent] == ["c"]


class Slow(MemoryStore):
    """Takes a second to write down what was delivered."""

    async def commit(self, batch: Batch) -> Duplicate | None:
        if any(record.kind == "delivery" for record in batch.put):
            await asyncio.sleep(1)
        return await super().commit(batch)


async def test_what_we_do_to_a_message_names_it_as_the_vendor_does() -> None:
    fake = FakeMessages()
    kit = kit_with(fake, Slow())
    kit.channels["chat"].delivery_policy = DeliveryPolicy(idempotent=True)  # so that attempts are not noted first
    async with kit:
        first = await kit.process_inbound(inbound("m1", "one"))
        room_id, original = str(first.room_id), first.event
        assert original is not None
        ours = await kit.send(room_id, "word " * 20, by="ben")
        assert ours.event is not None
        new = EditContent(target_event_id=ours.event.id, new_content=TextContent(text="short"))
        # At once: what went out has not been written down yet.
        contents = [new, DeleteContent(target_event_id=ours.event.id)]
        reactions = [ReactionContent(target_event_id=event.id, emoji="👍") for event in (original, ours.event)]
        for content in (*contents, *reactions):
            result = await kit.send(room_id, content, type=EventType(content.type), by="ben")
        await (await kit.send(room_id, "in the thread", by="ben", parent_event_id=original.id)).settled()
        await result.settled()
        parts = ("fake-1", "fake-2", "fake-3")
        assert [sent.about_ids for sent in fake.sent] == [*[()] * 3, parts, parts, ("m1",), parts, ("m1",)]


async def test_what_never_went_out_here_cannot_be_changed_here() -> None:
    fake = FakeMessages()
    async with kit_with(fake) as kit:
        first = await kit.process_inbound(inbound("m1", "one"))
        room_id, theirs = str(first.room_id), first.event
        assert theirs is not None
        await kit.add_member(room_id, "boss", role=Role.OWNER)
        gone = DeleteContent(target_event_id=theirs.id, delete_type="admin", reason="spam")
        result = await kit.send(room_id, gone, type=EventType.DELETE, by="boss")
        await result.settled()
        assert result.event is not None
        assert fake.sent == [], "what they have said is theirs to delete"
