"""Who is writing, end to end: one form of every address, each outcome of a question, proving it, merging two."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from roomkit import InboundMessage, KitOptions, Modify, RoomKit
from roomkit.errors import ConfigError, StateError, UsageError
from roomkit.models.addresses import normal
from roomkit.models.consent import ConsentPolicy
from roomkit.models.hooks import IdentityAnswer, IdentityQuestion
from roomkit.models.room import Identification, Identity, Membership, Role
from roomkit.testing import FakeChannel, VirtualClock
from tests.core.rooms import Brain, kit_with, said, say

ANN = Identity(id="ann", display_name="Ann", addresses={"sms": ("+442079460101",)})
WHO = "+442079460101"


@pytest.mark.parametrize(
    "kind, given, want",
    [
        ("sms", "+44 (0)20 7946 0101", WHO),
        ("sms", "0044 20 7946-0101", WHO),
        ("rcs", "rcs:+442079460101", WHO),
        ("whatsapp", "whatsapp:+44\u00a020\u20117946\u20110101", WHO),
        ("sms", "tel:+442079460101", WHO),
        ("sms", "12345", "12345"),
        ("sms", "ACME Shop", "ACME Shop"),
        ("email", " Ann@Example.COM ", "ann@example.com"),
        ("telegram", " 4711 ", "4711"),
        ("teams", "29:Abc", "29:Abc"),
    ],
)
def test_an_address_has_one_form(kind: str, given: str, want: str) -> None:
    assert normal(kind, given) == want
    assert normal(kind, want) == want


def test_a_national_number_needs_its_region() -> None:
    pytest.importorskip("phonenumbers")
    assert normal("sms", "020 7946 0101") == "02079460101"
    assert normal("sms", "020 7946 0101", "GB") == WHO
    assert normal("sms", "12345", "GB") == "12345"


async def test_a_region_that_is_none_is_refused() -> None:
    pytest.importorskip("phonenumbers")
    async with kit_with(options=KitOptions(phone_region="Britain")) as kit:
        with pytest.raises(ConfigError, match="no region"):
            _ = kit.identities


async def test_however_it_is_written_it_is_the_same_person_on_every_channel() -> None:
    pytest.importorskip("phonenumbers")
    channels = [FakeChannel(), FakeChannel("wa", "whatsapp"), FakeChannel("mail", "email")]
    async with kit_with(*channels, options=KitOptions(phone_region="GB")) as kit:
        addresses = {"phone": ("020 7946 0101",), "email": ("Ann.Lee@Example.com",)}
        await kit.identities.put(Identity(id="ann", addresses=addresses))
        assert (await kit.identities.find("default", "voice", WHO))[0].id == "ann"
        for channel, who in (("sms", WHO), ("wa", "+44 20 7946 0101"), ("mail", "ann.lee@EXAMPLE.com")):
            result = await say(kit, "hi", channel=channel, who=who)
            (person,) = await kit.participants(result.room_id or "")
            assert person.identity_id == "ann"
        assert (await kit.identities.get("default", "ann")).addresses["phone"] == (WHO,)  # type: ignore[union-attr]


async def test_a_challenge_holds_what_was_said_until_it_is_proven() -> None:
    """The whole flow: unknown, asked, wrong answer, right answer; the code is nobody else's, what was held goes on."""
    sms, brain = FakeChannel(), Brain()
    async with kit_with(sms, brain) as kit:
        await kit.identities.put(Identity(id="ann", display_name="Ann", addresses={"email": ("ann@example.com",)}))

        @kit.before(IdentityQuestion)
        async def prove(question: Any) -> Modify:
            if question.value.content.text == "4711":
                ann = await kit.identities.link("default", "ann", "sms", question.value.sender_id)
                return Modify(IdentityAnswer("resolved", identity=ann, proof=True))
            return Modify(IdentityAnswer("challenge", message="Which code did we mail you?"))

        first = await say(kit, "where is my order?", who=WHO)
        room = first.room_id or ""
        await say(kit, "and my refund?", who=WHO)
        assert (await say(kit, "0000", who=WHO)).reason is not None
        await asyncio.sleep(5)
        assert brain.seen == []
        assert (await kit.participants(room))[0].identification is Identification.CHALLENGE_SENT
        proven = await say(kit, "4711", who=WHO, external_id="code")
        await proven.settled()
        await asyncio.sleep(5)
        assert [text for turn in brain.seen for text in turn] == ["where is my order?", "and my refund?", "0000"]
        assert sms.texts[:3] == ["Which code did we mail you?"] * 3
        assert not any("4711" in text for text in sms.texts)
        again = await say(kit, "thanks", who=WHO)
        await again.settled()
        assert again.room_id == room
        assert brain.seen[-1] == ["thanks"]
        (person,) = [p for p in await kit.participants(room) if p.role is not Role.BOT]
        assert (person.identity_id, person.identification, person.display_name) == ("ann", "identified", "Ann")
        assert [r.id for r in await kit.list_rooms(person="ann")] == [room]
        assert [text for _, text, status in await said(kit, room) if status == "blocked"] == [
            *("where is my order?", "and my refund?", "0000", "4711")
        ]
        await say(kit, "4711", who=WHO, external_id="code")
        assert len(brain.seen[-1]) == 1, "a repeated proof releases nothing again"


async def test_what_the_desk_decides_is_asked_no_more_and_frees_what_was_held() -> None:
    sms, brain, asked = FakeChannel(), Brain(), []
    async with kit_with(sms, brain) as kit:
        for name in ("ann", "bob"):
            await kit.identities.put(Identity(id=name, display_name=name.title(), addresses={"sms": (WHO,)}))

        @kit.before(IdentityQuestion)
        async def hold(question: Any) -> Modify:
            asked.append((question.status, sorted(one.id for one in question.candidates)))
            return Modify(IdentityAnswer("challenge", message="Are you Ann or Bob?"))

        first = await say(kit, "hello", who=WHO)
        room = first.room_id or ""
        assert asked == [("ambiguous", ["ann", "bob"])]
        await kit.update_member(room, f"sms:{WHO}", identity_id="bob", identification="identified", display_name="Bob")
        await asyncio.sleep(5)
        assert brain.seen == [["hello"]]
        await kit.update_member(room, f"sms:{WHO}", identity_id="bob", display_name="Bobby")
        await asyncio.sleep(5)
        assert brain.seen == [["hello"]], "what went on does so once"
        await (await say(kit, "bob again", who=WHO)).settled()
        assert brain.seen == [["hello"], ["bob again"]]
        assert len(asked) == 1
        assert len(await kit.participants(room)) == 1


async def test_pending_is_let_in_and_settled_later_by_the_book() -> None:
    sms, brain = FakeChannel(), Brain()
    async with kit_with(sms, brain) as kit:
        assert kit.identities is not None

        @kit.before(IdentityQuestion)
        async def later(question: Any) -> Modify:
            return Modify(IdentityAnswer("pending"))

        room = (await say(kit, "hi", who=WHO)).room_id or ""
        assert (await kit.participants(room))[0].identification is Identification.PENDING
        await kit.identities.put(ANN)
        await say(kit, "me again", who=WHO)
        people = await kit.participants(room)
        assert [(p.id, p.identity_id, p.display_name) for p in people] == [(f"sms:{WHO}", "ann", "Ann")]
        await asyncio.sleep(5)
        assert [t for turn in brain.seen for t in turn] == ["hi", "me again"]


async def test_a_person_already_in_the_room_takes_their_other_seat_over() -> None:
    sms = FakeChannel()
    async with kit_with(sms, FakeChannel("mail", "email")) as kit:
        assert kit.identities is not None
        room = (await say(kit, "hi", who=WHO)).room_id or ""
        await kit.add_member(room, "ann")
        await kit.attach_channel(room, "mail", participant_id="ann", metadata={"address": "ann@example.com"})
        await kit.identities.put(ANN)
        await say(kit, "me", who=WHO)
        seats = {seat.channel_id: seat.participant_id for seat in await kit.bindings(room)}
        assert seats == {"sms": "ann", "mail": "ann"}
        sms.delivered.clear()
        await (await kit.send(room, "once")).settled()
        assert sms.texts == ["once"], "reached once, where they were last"


async def merged_kit(store: str | None = None) -> tuple[RoomKit, FakeChannel]:
    kit, sms = RoomKit(store, clock=VirtualClock(), options=KitOptions(consent=ConsentPolicy())), FakeChannel()
    kit.register_channel(sms)
    kit.register_channel(FakeChannel("mail", "email"))
    await kit.start()
    await kit.identities.put(ANN)
    other = Identity(id="a.lee", addresses={"sms": ("+442079460199",), "email": ("ann@example.com",)})
    await kit.identities.put(other)
    return kit, sms


async def test_two_identities_become_one_with_history_seats_and_stops() -> None:
    kit, sms = await merged_kit()
    async with kit:
        await (await say(kit, "first", who="+442079460199")).settled()
        (room,) = await kit.list_rooms(person="a.lee")
        await say(kit, "a letter", channel="mail", who="ann@example.com")
        await (await say(kit, "STOP", who="+442079460199")).settled()
        await kit.consent.allow("email", identity="a.lee", purpose="marketing")
        receipt = await kit.merge_identities("ann", "a.lee", by="desk")
        assert len(receipt.rooms) == 2
        assert receipt.addresses == {"sms": (WHO, "+442079460199"), "email": ("ann@example.com",)}
        assert len(await kit.list_rooms(person="ann")) == 2
        assert await kit.list_rooms(person="a.lee") == []
        assert [seat.participant_id for seat in await kit.bindings(room.id)] == ["ann"]
        assert (await kit.identities.get("default", "a.lee")).id == "ann"  # type: ignore[union-attr]
        assert [one.id for one in await kit.identities.find("default", "email", "ann@example.com")] == ["ann"]
        assert not await kit.consent.may("sms", identity="ann"), "a stop of either holds"
        people = {p.id: p for p in await kit.participants(room.id)}
        assert people["a.lee"].identity_id == people["ann"].identity_id == "ann"
        assert (people["a.lee"].status, people["ann"].status) == ("inactive", "active")
        sms.delivered.clear()
        await (await kit.send(room.id, "news")).settled()
        assert sms.texts == []
        again = await say(kit, "back", who="+442079460199")
        assert again.room_id == room.id
        assert again.event is not None
        assert again.event.source.participant_id == "ann"
        assert (await kit.merge_identities("ann", "a.lee")).rooms == (), "again changes nothing"


async def test_a_merge_is_not_undone_and_says_why() -> None:
    kit, _ = await merged_kit()
    async with kit:
        with pytest.raises(StateError, match="never merged"):
            await kit.unmerge_identity("a.lee")
        await kit.merge_identities("ann", "a.lee", by="desk")
        for attempt in (
            kit.unmerge_identity("a.lee"),
            kit.identities.put(Identity(id="a.lee")),
            kit.merge_identities("bob", "a.lee"),
        ):
            with pytest.raises(StateError):
                await attempt
        with pytest.raises(StateError, match=r"became \"ann\" on 2030-01-01 by desk, and that cannot be undone"):
            await kit.unmerge_identity("a.lee")
        with pytest.raises(UsageError):
            await kit.merge_identities("ann", "ann")


async def test_a_ban_of_either_holds_and_nobody_gains_a_role() -> None:
    kit, _ = await merged_kit()
    async with kit:
        await kit.create_room("r", channels=[])
        await kit.add_member("r", "ann", role=Role.MEMBER)
        await kit.add_member("r", "a.lee", role=Role.OWNER)
        await kit.remove_member("r", "a.lee", ban=True)
        await kit.merge_identities("ann", "a.lee")
        ann = next(p for p in await kit.participants("r") if p.id == "ann")
        assert (ann.status, ann.role) == (Membership.BANNED, Role.MEMBER)


async def test_a_merge_that_was_cut_is_finished_by_doing_it_again(tmp_path: Path) -> None:
    path = f"sqlite:///{tmp_path / 'rooms.db'}"
    kit, _ = await merged_kit(path)
    async with kit:
        for n in range(3):
            await kit.create_room(f"r{n}", channels=[])
            await kit.add_member(f"r{n}", "a.lee")
            await kit.update_member(f"r{n}", "a.lee", identity_id="a.lee")
        done: list[str] = []

        async def cut(room_id: str, keep: str, gone: str) -> bool:
            if done:
                raise ConnectionError("the process dies")
            done.append(room_id)
            return await kit.merge_in_room(room_id, keep, gone)

        from roomkit.core.merging import merge

        with pytest.raises(ConnectionError):
            await merge(kit.engine, "default", "ann", "a.lee", None, cut)
    kit = RoomKit(path, clock=VirtualClock(), options=KitOptions(consent=ConsentPolicy()))
    async with kit:
        assert len((await kit.merge_identities("ann", "a.lee")).rooms) == 2
        assert len(await kit.list_rooms(person="ann")) == 3
        await kit.erase_person("ann")
        assert [p for n in range(3) for p in await kit.participants(f"r{n}") if p.identity_id] == []
        await kit.identities.put(Identity(id="a.lee"))  # nothing is known of a merge any more


async def test_who_was_known_is_known_after_a_restart(tmp_path: Path) -> None:
    path = f"sqlite:///{tmp_path / 'rooms.db'}"
    kit, _ = await merged_kit(path)
    await kit.aclose()
    kit = RoomKit(path, clock=VirtualClock())
    kit.register_channel(FakeChannel())
    async with kit:
        room = (await say(kit, "hi", who=WHO)).room_id or ""
        assert (await kit.participants(room))[0].identity_id == "ann"


async def test_tenants_share_nobody() -> None:
    kit, _ = await merged_kit()
    async with kit:
        with pytest.raises(StateError, match="not in the address book"):
            await kit.tenant("acme").merge_identities("ann", "a.lee")
        result = await kit.tenant("acme").process_inbound(InboundMessage.text("sms", WHO, "hi"))
        assert (await kit.tenant("acme").participants(result.room_id or ""))[0].identity_id is None


async def test_a_stop_of_one_purpose_outlives_a_merge_with_who_has_allowed_more_since() -> None:
    kit, _ = await merged_kit()
    async with kit:
        await kit.consent.stop("sms", identity="a.lee", purpose="marketing")
        await asyncio.sleep(1)
        await kit.consent.allow("sms", identity="ann")
        await asyncio.sleep(1)
        await kit.merge_identities("ann", "a.lee")
        assert not await kit.consent.may("sms", identity="ann", purpose="marketing")
        assert await kit.consent.may("sms", identity="ann")
