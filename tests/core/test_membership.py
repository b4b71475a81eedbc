"""Who and what is in a room: seats and their rights, people who come, go and are put out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit import Block, EventType, InboundMessage, TextContent
from roomkit.errors import StateError
from roomkit.models.content import ReactionContent
from roomkit.models.event import EventSource
from roomkit.models.hooks import BeforeCommit, Committed
from roomkit.models.room import Access, Role
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, kit_with, said, say, stream


async def test_a_muted_source_is_stored_as_blocked_and_delivered_to_nobody() -> None:
    sms, other, brain = FakeChannel(), FakeChannel("other"), Brain()
    async with kit_with(sms, other, brain) as kit:
        await kit.create_room("r", channels=["sms", "other", "ai"])
        await kit.mute("r", "sms")
        result = await say(kit, "psst", "r")
        await result.settled()
        assert (result.blocked, result.reason) == (True, "source_muted")
        assert await said(kit, "r") == [("sms", "psst", "blocked")]
        assert other.texts == []
        assert brain.seen == []
        await kit.unmute("r", "sms")
        assert not (await say(kit, "now", "r")).blocked


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_muted_brain_still_thinks_and_its_words_are_stored_blocked(streaming: bool) -> None:
    from roomkit import ChannelOutput, EventDraft
    from roomkit.models.room import Observation, Task

    source = EventSource(channel_id="ai", channel_type="ai", direction="outbound")

    def script(context: object, event: object) -> ChannelOutput:
        side = {"tasks": (Task(id="t", title="call back"),), "observations": (Observation(id="o", kind="mood"),)}
        if streaming:
            return ChannelOutput(response_stream=stream("mut", "tered"), **side)
        return ChannelOutput(response_events=(EventDraft(source=source, content=TextContent(text="muttered")),), **side)

    sms, brain = FakeChannel(), Brain(script=script)
    seen: list[object] = []
    async with kit_with(sms, brain) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.mute("r", "ai")
        view = await kit.open_view("r", "sms", seen.append)
        await (await say(kit, "hello", "r")).settled()
        view.close()
        assert brain.seen == [["hello"]]
        assert await said(kit, "r") == [("sms", "hello", "committed"), ("ai", "muttered", "blocked")]
        assert [t.title for t in await kit.tasks("r")] == ["call back"]
        assert [o.kind for o in await kit.observations("r")] == ["mood"]
        assert sms.texts == []
        assert not [item for item in seen if "muttered" in str(item) or "mut" in getattr(item, "delta", "")]


async def test_access_and_visibility_apply_to_delivery_history_and_views_alike() -> None:
    a, b, brain = FakeChannel("a"), FakeChannel("b"), Brain()
    async with kit_with(a, b, brain) as kit:
        await kit.create_room("r", channels=["a", "b", "ai"])
        await kit.set_visibility("r", "a", "b")
        await (await say(kit, "only b", "r", channel="a")).settled()
        await kit.set_visibility("r", "a", "all")
        await (await say(kit, "everyone", "r", channel="a")).settled()
        assert b.texts[0] == "only b"
        assert "everyone" in b.texts
        assert brain.seen == [["everyone"]]
        assert "only b" not in brain.histories[0]
        view = await kit.open_view("r", "ai", lambda item: None, tail=100)
        assert "only b" not in [e.text for e in view.events]
        view.close()


async def test_visibility_is_stamped_so_widening_a_binding_exposes_no_past() -> None:
    a, b = FakeChannel("a"), FakeChannel("b")
    async with kit_with(a, b) as kit:
        await kit.create_room("r", channels=["a", "b"])
        await kit.set_visibility("r", "a", "none")
        await say(kit, "secret", "r", channel="a")
        await kit.set_visibility("r", "a", "all")
        view = await kit.open_view("r", "b", lambda item: None, tail=100)
        assert "secret" not in [e.text for e in view.events]
        view.close()


async def test_a_read_only_brains_answer_is_blocked_and_in_nobodys_history() -> None:
    sms, brain = FakeChannel(), Brain()
    async with kit_with(sms, brain) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.set_access("r", "ai", "read_only")
        await (await say(kit, "one", "r")).settled()
        await (await say(kit, "two", "r")).settled()
        assert [s for _, _, s in await said(kit, "r")] == ["committed", "blocked", "committed", "blocked"]
        assert brain.histories[1] == ["one", "two"]
        assert sms.texts == []


async def test_output_mute_stops_delivery_only() -> None:
    a, b = FakeChannel("a"), FakeChannel("b")
    async with kit_with(a, b) as kit:
        await kit.create_room("r", channels=["a", "b"])
        await kit.mute("r", "b", output=True)
        await (await say(kit, "x", "r", channel="a")).settled()
        assert b.texts == []
        assert [d.reason for d in await kit.deliveries("r")] == ["output_muted"]
        assert not (await say(kit, "y", "r", channel="b")).blocked


async def test_permission_changes_reach_the_channel_at_once() -> None:
    a = FakeChannel("a")
    async with kit_with(a) as kit:
        await kit.create_room("r", channels=["a"])
        await kit.mute("r", "a")
        await kit.set_access("r", "a", "none")
        assert [(b.muted, b.access.value) for b in a.bindings[-2:]] == [(True, "read_write"), (True, "none")]


async def test_a_detached_channel_comes_back_only_when_asked_for() -> None:
    sms = FakeChannel()
    async with kit_with(sms) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.detach_channel("r", "sms")
        result = await say(kit, "let me in", "r")
        assert (result.blocked, result.reason) == (True, "source_not_attached")
        assert await kit.bindings("r") == []
        await kit.attach_channel("r", "sms")
        assert not (await say(kit, "back", "r")).blocked


async def test_every_change_of_a_seat_leaves_a_record() -> None:
    a = FakeChannel("a")
    heard: list[str] = []
    async with kit_with(a) as kit:

        @kit.on(Committed)
        async def hear(notice: Committed) -> None:
            heard.append(notice.event.type.value)

        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "a")
        await kit.mute("r", "a")
        await kit.mute("r", "a")
        await kit.unmute("r", "a")
        await kit.set_access("r", "a", "read_only")
        await kit.set_visibility("r", "a", "none")
        await kit.detach_channel("r", "a")
        kinds = [e.type.value for e in await kit.events("r", raw=True)]
        assert kinds == [
            "room_created",
            "channel_attached",
            "channel_muted",
            "channel_unmuted",
            "channel_updated",
            "channel_updated",
            "channel_detached",
        ]
        await asyncio.sleep(0)
        assert heard == kinds


async def test_members_join_leave_and_are_banned() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.add_member("r", "alice", display_name="Alice", role=Role.AGENT)
        await kit.rename_member("r", "alice", "Alice")
        await kit.rename_member("r", "alice", "Alicia")
        await kit.remove_member("r", "alice", ban=True)
        with pytest.raises(StateError, match="banned"):
            await kit.add_member("r", "alice")
        result = await kit.process_inbound(InboundMessage.text("sms", "+1", "hi", participant_id="alice"), room_id="r")
        assert result.reason == "source_banned"
        kinds = [e.type.value for e in await kit.events("r") if e.type.value.startswith("participant")]
        assert kinds == ["participant_joined", "participant_updated", "participant_left"]


async def test_who_has_left_or_is_banned_writes_nothing_until_taken_in_again() -> None:
    async with kit_with(FakeChannel(), Brain()) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        person = (await say(kit, "hi", "r")).event.source.participant_id  # type: ignore[union-attr]
        for ban, reason in ((False, "source_left"), (True, "source_banned")):
            await kit.remove_member("r", person, ban=ban)
            kept_out = await say(kit, "back", "r")
            assert (kept_out.blocked, kept_out.reason) == (True, reason)
            assert [p.status.value for p in await kit.participants("r")] == ["banned" if ban else "left"]
        await kit.update_member("r", person, status="left")
        await kit.add_member("r", person)
        assert not (await say(kit, "thanks", "r")).blocked


async def test_attaching_again_applies_what_is_given_and_keeps_the_rest() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.attach_channel("r", "sms", access=Access.READ_ONLY, visibility="internal")
        again = await kit.attach_channel("r", "sms", metadata={"phone_number": "+1"})
        assert (again.access, again.visibility) == (Access.READ_ONLY, "internal")
        assert (await say(kit, "hi", "r")).reason == "source_read_only"
        records = [e for e in await kit.events("r", raw=True) if e.type is EventType.CHANNEL_UPDATED]
        assert records[0].content.data["changes"] == {"access": "read_only", "visibility": "internal"}  # type: ignore[union-attr]
        wide = await kit.attach_channel("r", "sms", access=Access.READ_WRITE)
        assert (wide.access, wide.visibility) == (Access.READ_WRITE, "internal")


async def test_read_markers_only_move_forward() -> None:
    async with kit_with(FakeChannel()) as kit:
        room_id = (await say(kit, "a")).room_id or ""
        await kit.mark_read(room_id, "sms", 2)
        await kit.mark_read(room_id, "sms", 1)
        await kit.mark_read(room_id, "sms", 999)
        assert (await kit.bindings(room_id))[0].last_read_index == (await kit.get_room(room_id)).latest_index


async def test_who_is_new_joins_with_their_first_message() -> None:
    sms, out = FakeChannel(), FakeChannel("out", "sms")
    async with kit_with(sms, out) as kit:
        room = await kit.create_room("r", channels=["sms", "out"])
        before = kit.engine.store.health().counters["commits"]
        first = await say(kit, "hi", room.id, external_id="m1")
        assert kit.engine.store.health().counters["commits"] - before == 1
        again = await say(kit, "hi", room.id, external_id="m1")
        await first.settled()
        assert first.event is not None
        assert again.event is not None
        assert (again.duplicate, again.event.id, first.event.text) == (True, first.event.id, "hi")
        kinds = [event.type.value for event in await kit.events(room.id, raw=True)]
        assert kinds == ["room_created", "participant_joined", "message"]
        assert (out.texts, [one.id for one in await kit.participants(room.id)]) == (["hi"], ["sms:+4411"])


async def test_of_two_first_messages_at_once_one_brings_its_writer_along() -> None:
    async with kit_with(FakeChannel()) as kit:
        room = await kit.create_room("r", channels=["sms"])
        await asyncio.gather(*(say(kit, text, room.id, external_id=text) for text in ("a", "b")))
        kinds = [event.type.value for event in await kit.events(room.id, raw=True)]
        assert kinds == ["room_created", "participant_joined", "message", "message"]


@pytest.mark.parametrize("first", ["guarded", "reaction"])
async def test_who_is_new_is_there_when_somebody_looks_at_what_they_write(first: str) -> None:
    seen: list[list[str]] = []
    async with kit_with(FakeChannel()) as kit:
        room = await kit.create_room("r", channels=["sms"])
        if first == "guarded":

            @kit.before(BeforeCommit)
            async def look(moment: Any) -> Block:
                seen.append([one.id for one in await kit.participants(room.id)])
                return Block("no")

            result = await say(kit, "hi", room.id)
        else:
            content = ReactionContent(target_event_id="nothing", emoji="+")
            sent = InboundMessage(channel_id="sms", sender_id="+4411", content=content)
            result = await kit.process_inbound(sent, room_id=room.id)
        assert result.blocked
        assert seen == ([["sms:+4411"]] if first == "guarded" else [])
        kinds = [event.type.value for event in await kit.events(room.id, raw=True)]
        assert kinds[:2] == ["room_created", "participant_joined"]
