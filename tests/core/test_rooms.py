"""Rooms and messages: order, duplicates, refusals, permissions, threads, edits, people, tenants, timers."""

from __future__ import annotations

import asyncio

import pytest

from roomkit import EventType, InboundMessage, KitOptions, RoomKit, TextContent
from roomkit.errors import AlreadyRegistered, ChannelNotFound, Overloaded, RoomNotFound, StateError, UsageError
from roomkit.models.content import DeleteContent, EditContent, ReactionContent
from roomkit.models.event import EventDraft, EventSource
from roomkit.models.hooks import ChainDepthExceeded, RoomRefused
from roomkit.models.room import AgentResponsePolicy, RoomStatus
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, gapless, kit_with, said, say


async def test_a_message_opens_a_room_and_its_answer_comes_back() -> None:
    sms, brain = FakeChannel(), Brain()
    async with kit_with(sms, brain) as kit:
        result = await say(kit, "hello")
        await result.settled()
        assert await said(kit, result.room_id) == [("sms", "hello", "committed"), ("ai", "echo hello", "committed")]
        assert sms.texts == ["echo hello"]
        assert await gapless(kit, result.room_id)


async def test_process_inbound_returns_at_the_commit_not_at_the_delivery() -> None:
    sms, slow = FakeChannel(), FakeChannel("slow")
    slow.hang()
    async with kit_with(sms, slow) as kit:
        await kit.create_room("r", channels=["sms", "slow"])
        result = await asyncio.wait_for(say(kit, "x", "r"), 1)
        assert result.event is not None
        assert not result.settlement.done
        slow.resume()
        await result.settled()
        assert slow.texts == ["x"]


async def test_a_redelivery_returns_the_first_event_and_does_nothing_else() -> None:
    sms, other, brain = FakeChannel(), FakeChannel("other"), Brain()
    async with kit_with(sms, other, brain) as kit:
        first = await say(kit, "hello", external_id="m1")
        await kit.attach_channel(first.room_id or "", "other")
        again = await asyncio.gather(*[say(kit, "hello", external_id="m1") for _ in range(20)])
        await first.settled()
        assert all(r.duplicate and r.event == first.event and not r.blocked for r in again)
        assert len(await said(kit, first.room_id)) == 2
        assert len(brain.seen) == 1
        assert len(await kit.list_rooms()) == 1


async def test_concurrent_first_deliveries_have_one_effect() -> None:
    async with kit_with(FakeChannel()) as kit:
        results = await asyncio.gather(*[say(kit, "hello", external_id="m1") for _ in range(10)])
        assert len({r.event.id for r in results if r.event}) == 1
        assert sum(not r.duplicate for r in results) == 1
        assert len(await said(kit, results[0].room_id)) == 1


async def test_a_duplicate_of_a_blocked_message_returns_the_blocked_event() -> None:
    async with kit_with(FakeChannel()) as kit:
        first = await say(kit, "hello", external_id="m1")
        await kit.mute(first.room_id or "", "sms")
        blocked = await say(kit, "no", external_id="m2")
        again = await say(kit, "no", external_id="m2")
        assert blocked.blocked
        assert again.blocked
        assert again.duplicate
        assert again.event == blocked.event
        assert again.reason == "source_muted"


async def test_two_new_senders_at_once_get_one_room_each() -> None:
    async with kit_with(FakeChannel()) as kit:
        results = await asyncio.gather(*[say(kit, "hi", who=f"+{i % 2}") for i in range(20)])
        assert len({r.room_id for r in results}) == 2


async def test_routing_never_guesses_between_shared_rooms() -> None:
    hook = FakeChannel("hook", "http")
    hook.reach = "cursor"
    async with kit_with(hook) as kit:
        await kit.create_room("one", channels=["hook"])
        only = await say(kit, "a", channel="hook")
        assert only.room_id == "one"
        await kit.create_room("two", channels=["hook"])
        unsure = await say(kit, "b", channel="hook", who="other")
        assert unsure.room_id not in ("one", "two")


async def test_a_sender_returns_to_the_open_room_and_gets_a_new_one_after_closing() -> None:
    async with kit_with(FakeChannel()) as kit:
        first = await say(kit, "a")
        assert (await say(kit, "b")).room_id == first.room_id
        await kit.close_room(first.room_id or "")
        assert (await say(kit, "c")).room_id != first.room_id


async def test_nothing_grows_a_closed_room_and_reading_goes_on() -> None:
    refused: list[RoomRefused] = []
    async with kit_with(FakeChannel()) as kit:

        @kit.on(RoomRefused)
        async def hear(notice: RoomRefused) -> None:
            refused.append(notice)

        result = await say(kit, "a")
        room_id = result.room_id or ""
        await kit.close_room(room_id)
        before = await kit.events(room_id, raw=True)
        late = await say(kit, "b", room_id)
        assert (late.blocked, late.reason, late.event) == (True, "room_closed", None)
        assert (await kit.send(room_id, "host")).reason == "room_closed"
        assert await kit.events(room_id, raw=True) == before
        assert before[-1].type is EventType.ROOM_CLOSED
        await kit.reopen_room(room_id)
        assert not (await say(kit, "c", room_id)).blocked
        await kit.archive_room(room_id)
        with pytest.raises(StateError, match="archived"):
            await kit.reopen_room(room_id)
        await asyncio.sleep(0)
        assert len(refused) == 2


async def test_a_message_resumes_a_paused_room() -> None:
    async with kit_with(FakeChannel()) as kit:
        room_id = (await say(kit, "a")).room_id or ""
        await kit.pause_room(room_id)
        result = await say(kit, "b")
        assert result.room_id == room_id
        assert (await kit.get_room(room_id)).status is RoomStatus.ACTIVE
        assert result.event is not None
        assert result.event.status == "committed"


# -- chains ------------------------------------------------------------------------------------------------------------


async def test_two_agents_stop_at_the_chain_depth() -> None:
    exceeded: list[ChainDepthExceeded] = []
    one, two = Brain("one"), Brain("two")
    async with kit_with(FakeChannel(), one, two) as kit:

        @kit.on(ChainDepthExceeded)
        async def hear(notice: ChainDepthExceeded) -> None:
            exceeded.append(notice)

        await kit.create_room("r", channels=["sms", "one", "two"])
        await (await say(kit, "go", "r")).settled()
        log = await kit.events("r", raw=True, limit=1000)
        answers = [e for e in log if e.type is EventType.MESSAGE and e.chain_depth]
        assert {e.chain_depth for e in answers if not e.blocked} == {1, 2, 3, 4}
        assert all(e.chain_depth == 5 and e.blocked_by == "event_chain_depth_limit" for e in answers if e.blocked)
        assert sum(e.blocked for e in answers) == len(exceeded) > 0


async def test_no_answer_is_made_to_be_blocked_where_the_host_does_not_want_it() -> None:
    """Rule 4: each chain is a round of generations shorter."""
    asked = {}
    for wanted in (True, False):
        one, two = Brain("one"), Brain("two")
        async with kit_with(FakeChannel(), one, two, options=KitOptions(answer_at_chain_limit=wanted)) as kit:
            await kit.create_room("r", channels=["sms", "one", "two"])
            await (await say(kit, "go", "r")).settled()
            log = [e for e in await kit.events("r", raw=True, limit=1000) if e.type is EventType.MESSAGE]
            assert max(e.chain_depth for e in log if not e.blocked) == 4
            assert any(e.blocked for e in log) is wanted
            asked[wanted] = len(one.seen) + len(two.seen)
    assert asked[False] < asked[True]


async def test_addressed_only_rooms_stop_agents_from_answering_each_other() -> None:
    one, two = Brain("one"), Brain("two")
    async with kit_with(FakeChannel(), one, two) as kit:
        await kit.create_room(
            "r", channels=["sms", "one", "two"], agent_response_policy=AgentResponsePolicy.ADDRESSED_ONLY
        )
        await (await say(kit, "go", "r")).settled()
        assert len(await said(kit, "r")) == 3
        await kit.send("r", "you there", addressed_to=["two"])
        await asyncio.sleep(1)
        assert len(one.seen) == 1
        assert len(two.seen) == 2


# -- threads, edits, reactions ---------------------------------------------------------------------------------------


async def test_threads_are_flat_and_an_answer_inherits_its_thread() -> None:
    async with kit_with(FakeChannel(), Brain()) as kit:
        root = await say(kit, "root")
        room_id = root.room_id or ""
        assert root.event is not None
        await root.settled()
        child = await say(kit, "child", room_id, parent_event_id=root.event.id)
        await child.settled()
        assert child.event is not None
        grandchild = await say(kit, "grandchild", room_id, parent_event_id=child.event.id)
        await grandchild.settled()
        log = await kit.events(room_id, parent=root.event.id)
        assert [e.text for e in log] == ["child", "echo child", "grandchild", "echo grandchild"]
        lost = await say(kit, "lost", room_id, parent_event_id="nowhere")
        assert lost.event is not None
        assert lost.event.parent_event_id is None
        assert lost.event.metadata["unknown_parent"] == "nowhere"


async def test_edits_and_deletes_are_later_events_that_change_how_the_log_reads() -> None:
    async with kit_with(FakeChannel()) as kit:
        first = await say(kit, "helo")
        room_id, target = first.room_id or "", first.event.id if first.event else ""

        async def act(content: object, kind: EventType, who: str = "+4411") -> object:
            message = InboundMessage(channel_id="sms", sender_id=who, content=content, type=kind)  # type: ignore[arg-type]
            return await kit.process_inbound(message, room_id=room_id)

        edit = EditContent(target_event_id=target, new_content=TextContent(text="hello"))
        await act(edit, EventType.EDIT)
        raw = await kit.events(room_id, raw=True)
        assert [e.text for e in raw if e.id == target] == ["helo"]
        shown = next(e for e in await kit.events(room_id) if e.id == target)
        assert (shown.text, shown.metadata["edited"]) == ("hello", True)
        forged = await act(edit.model_copy(update={"edit_source": "system"}), EventType.EDIT)
        foreign = await act(edit, EventType.EDIT, who="+9999")
        missing = await act(edit.model_copy(update={"target_event_id": "x"}), EventType.EDIT)
        assert [r.reason for r in (forged, foreign, missing)] == [  # type: ignore[attr-defined]
            "not_authorized",
            "not_original_author",
            "target_event_not_found",
        ]
        assert len(await kit.events(room_id, raw=True)) == len(raw) + 1  # the other person's arrival
        await act(ReactionContent(target_event_id=target, emoji="+1"), EventType.REACTION, who="+9999")
        await act(DeleteContent(target_event_id=target), EventType.DELETE)
        gone = next(e for e in await kit.events(room_id) if e.id == target)
        assert gone.metadata["deleted"]
        assert "hello" not in gone.text
        assert gone.metadata["reactions"] == {"+1": ["sms:+9999"]}
        assert await gapless(kit, room_id)


# -- people, tenants, lists ------------------------------------------------------------------------------------------


async def test_tenants_share_ids_and_never_see_each_other() -> None:
    async with kit_with(FakeChannel(), Brain()) as kit:
        acme, other = kit.tenant("acme"), kit.tenant("other")
        for rooms, secret in ((acme, "acme secret"), (other, "other secret")):
            await rooms.create_room("r", external_id="x", channels=["sms"])
            await rooms.process_inbound(InboundMessage.text("sms", "+1", secret, external_id="m"), room_id="r")
        assert [e.text for e in await acme.events("r") if e.type is EventType.MESSAGE] == ["acme secret"]
        assert [e.text for e in await other.events("r") if e.type is EventType.MESSAGE] == ["other secret"]
        assert [r.tenant for r in await acme.list_rooms(external_id="x")] == ["acme"]
        with pytest.raises(RoomNotFound):
            await kit.get_room("r")


async def test_rooms_are_found_by_person_phone_external_id_channel_state_and_metadata() -> None:
    async with kit_with(FakeChannel()) as kit:
        first = await say(kit, "a", who="+4420", sender_name="Ada Lovelace")
        await kit.create_room("two", external_id="crm-7", metadata={"plan": "gold"})
        await kit.close_room("two")

        async def ids(**filters: object) -> list[str]:
            return [r.id for r in await kit.list_rooms(**filters)]  # type: ignore[arg-type]

        assert await ids(q="+4420") == await ids(q="lovelace") == await ids(channel="sms") == [first.room_id]
        assert await ids(external_id="crm-7") == await ids(status="closed") == ["two"]
        assert await ids(metadata={"plan": "gold"}) == await ids(q="two") == ["two"]
        assert await ids(q="nobody") == []
        await kit.update_room_metadata("two", {"plan": None, "tier": "1"})
        assert (await kit.get_room("two")).metadata == {"tier": "1"}


# -- wrong use --------------------------------------------------------------------------------------------------------


async def test_wrong_use_says_what_and_how_to_fix_it() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("support")
        with pytest.raises(RoomNotFound, match='did you mean "support"'):
            await kit.get_room("suport")
        with pytest.raises(ChannelNotFound, match='did you mean "sms"'):
            await say(kit, "x", channel="smss")
        with pytest.raises(AlreadyRegistered):
            kit.register_channel(FakeChannel())
        with pytest.raises(StateError, match="exists already"):
            await kit.create_room("support")
        with pytest.raises(UsageError):
            kit.tenant("")


async def test_a_full_mailbox_refuses_and_stores_nothing() -> None:
    from roomkit import BeforeCommit
    from roomkit.core.engine import KitOptions

    gate = asyncio.Event()
    async with kit_with(FakeChannel(), options=KitOptions(mailbox=5)) as kit:
        await kit.create_room("r", channels=["sms"])
        await say(kit, "first", "r")

        @kit.before(BeforeCommit, budget_s=100)
        async def wait(moment: object) -> None:
            await gate.wait()

        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(say(kit, f"m{i}", "r")) for i in range(6)]
            await asyncio.sleep(0.1)
            with pytest.raises(Overloaded):
                await say(kit, "too much", "r")
            gate.set()
        assert all(not t.result().blocked for t in waiting)
        assert len(await said(kit, "r")) == 7


async def test_a_caller_that_gives_up_does_not_undo_what_began() -> None:
    from roomkit import BeforeCommit

    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        await say(kit, "first", "r")

        @kit.before(BeforeCommit)
        async def slow(moment: object) -> None:
            await asyncio.sleep(1)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(say(kit, "patience", "r"), 0.5)
        await asyncio.sleep(1)
        assert ("sms", "patience", "committed") in await said(kit, "r")


async def test_settled_inside_its_own_delivery_is_refused() -> None:
    errors: list[Exception] = []
    box: list[object] = []

    class Curious(FakeChannel):
        async def deliver(self, event, binding, context):  # type: ignore[no-untyped-def]
            try:
                await box[0].settled()  # type: ignore[attr-defined]
            except UsageError as error:
                errors.append(error)
            return await super().deliver(event, binding, context)

    curious = Curious("curious")
    async with kit_with(FakeChannel(), curious) as kit:
        await kit.create_room("r", channels=["sms", "curious"])
        curious.hang()
        result = await say(kit, "x", "r")
        box.append(result)
        curious.resume()
        await result.settled(5)
    assert isinstance(kit, RoomKit)


async def test_an_error_never_names_another_tenants_channel() -> None:
    kit = kit_with()
    kit.tenant("acme").register_channel(FakeChannel("acme-sms"))
    async with kit:
        await kit.tenant("globex").create_room("r", channels=[])
        with pytest.raises(ChannelNotFound) as caught:
            await kit.tenant("globex").attach_channel("r", "acme-sm")
        assert "acme-sms" not in str(caught.value)


async def test_a_view_of_an_unknown_channel_is_refused_instead_of_staying_empty() -> None:
    async with kit_with(FakeChannel("sms")) as kit:
        await kit.create_room("r", channels=["sms"])
        with pytest.raises(ChannelNotFound, match='did you mean "sms"'):
            await kit.open_view("r", "sm", [].append)


async def test_an_edit_is_one_even_where_its_type_is_not_said() -> None:
    async with kit_with(FakeChannel("sms")) as kit:
        await kit.create_room("r", channels=["sms"])
        first = await say(kit, "on Monday", "r", participant_id="ann")
        assert first.event is not None
        new = EditContent(target_event_id=first.event.id, new_content=TextContent(text="Tuesday"))
        edit = InboundMessage(channel_id="sms", sender_id="+4411", content=new, participant_id="ann")
        changed = await kit.process_inbound(edit, room_id="r")
        assert changed.event is not None
        assert changed.event.type is EventType.EDIT
        assert (await kit.events("r"))[first.event.index].text == "Tuesday"


async def test_a_channel_speaks_as_itself_whatever_it_claims() -> None:
    web = FakeChannel("web", "web")
    async with kit_with(FakeChannel(), web) as kit:
        event = (await say(kit, "hello")).event
        assert event is not None
        assert web.port is not None
        await kit.attach_channel(event.room_id, "web")
        claimed = EventSource(channel_id="system", channel_type="system", direction="internal")
        content = EditContent(target_event_id=event.id, new_content=TextContent(text="bye"), edit_source="system")
        with pytest.raises(StateError, match="not_authorized"):
            await web.port.submit(event.room_id, EventDraft(source=claimed, content=content))
        mine = await web.port.submit(event.room_id, EventDraft(source=claimed, content=TextContent(text="me")))
        assert (mine.source.channel_id, mine.source.channel_type) == ("web", "web")
