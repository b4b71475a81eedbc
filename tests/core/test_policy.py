"""The pure rules: who may write, who sees, who is asked. Every line and branch of core/policy.py."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from roomkit.core import policy
from roomkit.models.content import DeleteContent, EditContent, TextContent
from roomkit.models.event import EventDraft, EventSource, EventStatus, EventType, RoomEvent
from roomkit.models.room import (
    Access,
    AgentResponsePolicy,
    Category,
    ChannelBinding,
    Floor,
    FloorMode,
    Participant,
    Role,
    Room,
)

T0 = datetime(2030, 1, 1, tzinfo=UTC)


def room(**more: object) -> Room:
    return Room.model_validate({"id": "r", "created_at": T0, "updated_at": T0, **more})


def seat(channel_id: str, **more: object) -> ChannelBinding:
    fields = {"channel_id": channel_id, "room_id": "r", "channel_type": "sms", "attached_at": T0, **more}
    return ChannelBinding.model_validate(fields)


def brain(channel_id: str, **more: object) -> ChannelBinding:
    return seat(channel_id, channel_type="ai", category=Category.INTELLIGENCE, **more)


def draft(channel_id: str = "a", **more: object) -> EventDraft:
    source = EventSource(channel_id=channel_id, channel_type="sms", external_id="u1")
    return EventDraft.model_validate({"source": source, "content": TextContent(text="hi"), **more})


def event(channel_id: str = "a", **more: object) -> RoomEvent:
    source = EventSource(channel_id=channel_id, channel_type="sms", participant_id="p", external_id="u1")
    fields = {"id": "e", "room_id": "r", "index": 0, "created_at": T0, "content": TextContent(text="hi")}
    return RoomEvent.model_validate({**fields, "source": source, **more})


@pytest.mark.parametrize(
    "binding, depth, blocked_by",
    [
        (None, 0, ""),
        (seat("a"), 0, ""),
        (seat("a", muted=True), 0, "source_muted"),
        (seat("a", access="read_only"), 0, "source_read_only"),
        (seat("a", access="none"), 0, "source_read_only"),
        (seat("a", access="write_only"), 4, ""),
        (seat("a"), 5, "event_chain_depth_limit"),
        (None, 9, "event_chain_depth_limit"),
    ],
)
def test_who_may_write(binding: ChannelBinding | None, depth: int, blocked_by: str) -> None:
    assert policy.may_write(binding, depth).blocked_by == blocked_by


@pytest.mark.parametrize(
    "visibility, transport, intelligence",
    [
        ("all", True, True),
        ("none", False, False),
        ("internal", False, False),
        ("transport", True, False),
        ("intelligence", False, True),
        ("x", True, True),
        ("y, x ,nobody", True, True),
        ("y", False, False),
    ],
)
def test_visibility_values(visibility: str, transport: bool, intelligence: bool) -> None:
    assert policy.visible(visibility, "x", Category.TRANSPORT) is transport
    assert policy.visible(visibility, "x", Category.INTELLIGENCE) is intelligence


def test_the_events_own_visibility_beats_the_bindings() -> None:
    assert policy.effective_visibility("all", seat("a", visibility="b")) == "b"
    assert policy.effective_visibility("c", seat("a", visibility="b")) == "c"
    assert policy.effective_visibility("all", None) == "all"


def test_own_events_are_always_seen_and_blocked_ones_never() -> None:
    assert policy.may_see(event("a", visibility="none"), seat("a", access="write_only"))
    assert not policy.may_see(event("a", status=EventStatus.BLOCKED), seat("a"))
    assert not policy.may_see(event("b", status=EventStatus.BLOCKED), seat("a"))
    assert not policy.may_see(event("b"), seat("a", access="write_only"))
    assert policy.may_see(event("b"), seat("a"))


REACH = {"a": "outbox", "b": "outbox", "c": "outbox", "ws": "cursor", "ai": "turn", "ai2": "turn"}


def plan(
    e: RoomEvent, seats: list[ChannelBinding], r: Room | None = None, **people: Participant
) -> policy.DeliveryPlan:
    return policy.plan(e, e.visibility, r or room(), seats, REACH, people)


def test_a_plan_reaches_everyone_but_the_source() -> None:
    found = plan(event("a"), [seat("a"), seat("b"), seat("ws"), brain("ai")])
    assert (found.outbox, found.cursors, found.turns) == (("b",), ("ws",), ("ai",))


def test_a_plan_says_why_somebody_gets_nothing() -> None:
    seats = [seat("b", access=Access.WRITE_ONLY), seat("c", output_muted=True), seat("ws", direction="inbound")]
    found = plan(event("a", visibility="all"), [*seats, brain("ai", visibility="all")])
    assert dict(found.skipped) == {"b": "no_read_access", "c": "output_muted", "ws": "no_read_access"}
    hidden = plan(event("a", visibility="b"), [seat("c"), seat("b")])
    assert hidden.outbox == ("b",)
    assert dict(hidden.skipped) == {"c": "not_visible"}


def test_output_muted_still_solicits_a_brain() -> None:
    assert plan(event("a"), [brain("ai", output_muted=True)]).turns == ("ai",)


def test_the_rooms_own_records_never_leave_the_house() -> None:
    found = plan(event("a", type=EventType.CHANNEL_MUTED), [seat("b"), seat("ws"), brain("ai")])
    assert (found.outbox, found.cursors, found.turns) == ((), ("ws",), ())


def test_unregistered_channels_are_not_planned() -> None:
    assert plan(event("a"), [seat("gone")]).outbox == ()


def person(pid: str, last: str | None) -> Participant:
    return Participant(id=pid, room_id="r", channel_id="b", last_channel_id=last, joined_at=T0)


def test_one_person_gets_one_copy_where_they_were_last() -> None:
    seats = [seat("b", participant_id="m"), seat("c", participant_id="m")]
    found = plan(event("a"), seats, m=person("m", "c"))
    assert found.outbox == ("c",)
    assert found.fallbacks == (("c", ("b",)),)
    assert dict(found.skipped) == {"b": "reach_once"}
    assert plan(event("a"), seats).outbox == ("b",)
    assert plan(event("a"), seats, room(delivery="every_channel")).outbox == ("b", "c")


def test_two_people_each_get_theirs() -> None:
    found = plan(event("a"), [seat("b", participant_id="m"), seat("c", participant_id="n")])
    assert set(found.outbox) == {"b", "c"}
    assert plan(event("a"), [seat("b"), seat("c")]).outbox == ("b", "c")


def test_nobody_gets_their_own_words_on_another_channel() -> None:
    found = plan(event("a"), [seat("a", participant_id="p"), seat("b", participant_id="p")])
    assert (found.outbox, found.skipped) == ((), (("b", "own_message"),))
    assert plan(event("a"), [seat("b", participant_id="q")]).outbox == ("b",)
    assert plan(event("a"), [seat("b", participant_id="p")], room(delivery="every_channel")).outbox == ("b",)


@pytest.mark.parametrize(
    "mode, asked", [("ai", True), ("both", True), ("human", False), ("none", False), ("waiting", False)]
)
def test_the_floor_decides_whether_a_brain_is_asked(mode: str, asked: bool) -> None:
    found = plan(event("a"), [brain("ai")], room(floor=Floor(mode=FloorMode(mode))))
    assert bool(found.turns) is asked


def test_addressing_chooses_who_answers_not_who_sees() -> None:
    seats = [brain("ai"), brain("ai2"), seat("b")]
    assert plan(event("a", addressed_to=("ai2",)), seats).turns == ("ai2",)
    nobody = plan(event("a", addressed_to=()), seats)
    assert (nobody.turns, nobody.outbox) == ((), ("b",))


def test_agents_answer_agents_unless_only_the_addressed_may() -> None:
    seats = [brain("ai"), brain("ai2")]
    addressed_only = room(agent_response_policy=AgentResponsePolicy.ADDRESSED_ONLY)
    assert plan(event("ai"), seats).turns == ("ai2",)
    assert plan(event("ai"), seats, addressed_only).turns == ()
    assert plan(event("ai", addressed_to=("ai2",)), seats, addressed_only).turns == ("ai2",)
    assert plan(event("a"), seats, addressed_only).turns == ("ai", "ai2")


def edit(source: str = "sender") -> EditContent:
    return EditContent(target_event_id="e", new_content=TextContent(text="x"), edit_source=source)


def by(
    channel_id: str = "a", participant: str | None = None, address: str | None = None, kind: str = "sms"
) -> EventDraft:
    source = EventSource(channel_id=channel_id, channel_type=kind, participant_id=participant, external_id=address)
    return EventDraft(source=source, content=edit())


OWNER = Participant(id="o", room_id="r", channel_id="a", role=Role.OWNER, joined_at=T0)


@pytest.mark.parametrize(
    "content, writer, author, reason",
    [
        (edit(), by(participant="p"), None, ""),
        (edit(), by(address="u1"), None, ""),
        (edit(), by("b", participant="p"), None, "not_original_author"),
        (edit(), by("b", address="u1"), None, "not_original_author"),
        (edit(), by(participant="q"), None, "not_original_author"),
        (edit(), by(), None, "identity_required_for_edit"),
        (edit("system"), by(participant="p"), None, "not_authorized"),
        (edit("system"), by(kind="system"), None, ""),
        (edit("whatever"), by(participant="q"), OWNER, "not_original_author"),
        (DeleteContent(target_event_id="e", delete_type="admin"), by(participant="o"), OWNER, ""),
        (DeleteContent(target_event_id="e", delete_type="admin"), by(participant="p"), None, "not_authorized"),
        (DeleteContent(target_event_id="e"), by(participant="p"), None, ""),
    ],
)
def test_claims_in_an_edit_count_for_nothing(
    content: EditContent | DeleteContent, writer: EventDraft, author: Participant | None, reason: str
) -> None:
    assert policy.may_mutate(content, writer, event("a"), author) == reason


def test_an_edit_needs_its_target() -> None:
    assert policy.may_mutate(edit(), by(participant="p"), None, None) == "target_event_not_found"
