"""Who is writing: the address book, what guards may decide about strangers, limits, media."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit import KitOptions, Modify
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventDraft
from roomkit.models.hooks import IdentityAnswer, IdentityQuestion, IdentityTimedOut
from roomkit.models.room import Identification, Identity
from roomkit.ports.identity import Resolution
from roomkit.ports.store import RecordQuery
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, kit_with, said, say

ANN = Identity(id="ann", display_name="Ann", addresses={"sms": ("+4411",), "email": ("ann@example.com",)})


async def test_the_address_book_names_the_sender_on_every_channel() -> None:
    async with kit_with(FakeChannel(), FakeChannel("mail", "email")) as kit:
        await kit.identities.put(ANN)
        first = await say(kit, "hi")
        second = await say(kit, "hi", channel="mail", who="ann@example.com")
        for result in (first, second):
            person = (await kit.participants(result.room_id or ""))[0]
            assert (person.id, person.display_name, person.identification) == ("ann", "Ann", "identified")
        stranger = await say(kit, "hi", who="+9")
        assert (await kit.participants(stranger.room_id or ""))[0].identification is Identification.UNKNOWN


async def test_the_same_number_in_two_tenants_is_two_people() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.identities.put(ANN)
        result = await kit.tenant("acme").process_inbound(_message())
        person = (await kit.tenant("acme").participants(result.room_id or ""))[0]
        assert person.identity_id is None


def _message() -> Any:
    from roomkit import InboundMessage

    return InboundMessage.text("sms", "+4411", "hi")


@pytest.mark.parametrize("outcome", ["resolved", "create", "pending", "challenge", "reject", "nonsense"])
async def test_every_answer_about_a_stranger_does_what_it_says(outcome: str) -> None:
    sms, brain = FakeChannel(), Brain()
    async with kit_with(sms, brain) as kit:
        await kit.identities.put(Identity(id="somebody-else", addresses={"sms": ("+1",)}))

        @kit.before(IdentityQuestion)
        async def decide(moment: Any) -> Modify:
            assert moment.status == "unknown"
            return Modify(IdentityAnswer(outcome, identity=ANN, message="Who are you?", reason="no strangers"))

        result = await say(kit, "hi")
        await result.settled()
        people = await kit.participants(result.room_id) if result.room_id else []
        match outcome:
            case "resolved" | "create":
                assert [p.id for p in people] == ["ann"]
                assert brain.seen == [["hi"]]
                assert bool(await kit.identities.find("default", "sms", "+4411")) is (outcome == "create")
            case "pending":
                assert people[0].identification is Identification.PENDING
                assert brain.seen == [["hi"]]
            case "challenge":
                assert people[0].identification is Identification.CHALLENGE_SENT
                assert brain.seen == []
                assert sms.texts == ["Who are you?"]
                assert (await said(kit, result.room_id))[0] == ("sms", "hi", "blocked")
            case _:
                assert result.blocked
                assert result.event is None
                assert brain.seen == []


async def test_ambiguous_senders_are_asked_about_with_their_candidates() -> None:
    asked: list[Any] = []
    async with kit_with(FakeChannel()) as kit:
        for name in ("ann", "bob"):
            await kit.identities.put(Identity(id=name, addresses={"sms": ("+4411",)}))

        @kit.before(IdentityQuestion)
        async def decide(moment: Any) -> None:
            asked.append((moment.status, sorted(c.id for c in moment.candidates)))

        result = await say(kit, "hi")
        assert asked == [("ambiguous", ["ann", "bob"])]
        assert sorted((await kit.participants(result.room_id or ""))[0].candidates) == ["ann", "bob"]
        fixed = await kit.update_member(result.room_id or "", "sms:+4411", identity_id="ann")
        assert fixed.identity_id == "ann"


@pytest.mark.parametrize("fault", ["slow", "broken"])
async def test_a_bad_resolver_never_loses_the_message(fault: str) -> None:
    told: list[IdentityTimedOut] = []

    class Resolver:
        async def resolve(self, tenant: str, channel_type: str, message: Any) -> Resolution:
            if fault == "slow":
                await asyncio.sleep(100)
            raise ValueError("boom")

    async with kit_with(FakeChannel(), resolver=Resolver()) as kit:

        @kit.on(IdentityTimedOut)
        async def hear(notice: IdentityTimedOut) -> None:
            told.append(notice)

        result = await say(kit, "hi")
        assert result.event is not None
        assert not result.blocked
        await asyncio.sleep(0)
        assert len(told) == 1


async def test_a_slow_preparation_is_refused_before_anything_is_stored() -> None:
    class Slow(FakeChannel):
        async def handle_inbound(self, message: Any, context: Any = None) -> Any:
            await asyncio.sleep(100)

    async with kit_with(Slow()) as kit:
        await kit.create_room("r", channels=["sms"])
        result = await say(kit, "hi", "r")
        assert (result.reason, result.event) == ("process_timeout", None)
        assert await said(kit, "r") == []


async def test_a_flooding_sender_is_refused_and_the_others_are_not() -> None:
    async with kit_with(FakeChannel(), options=KitOptions(inbound_limit=(1, 3))) as kit:
        await kit.create_room("r", channels=["sms"])
        reasons = [(await say(kit, str(i), "r")).reason for i in range(10)]
        assert reasons == [None] * 3 + ["rate_limited"] * 7
        assert (await say(kit, "me", "r", who="+2")).reason is None
        await asyncio.sleep(2)
        assert (await say(kit, "calmer", "r")).reason is None


async def test_a_claim_opens_no_room_of_somebody_proven() -> None:
    from roomkit.models.room import Assurance

    async with kit_with(FakeChannel()) as kit:
        proven = await say(kit, "my secret", assurance=Assurance.AUTHENTICATED)
        spoofed = await say(kit, "it is me", who="+4411")
        assert spoofed.room_id != proven.room_id
        assert (await kit.bindings(proven.room_id or ""))[0].assurance is Assurance.AUTHENTICATED
        assert (await say(kit, "again", assurance=Assurance.AUTHENTICATED)).room_id == proven.room_id


class Claims(FakeChannel):
    """A plug-in whose translation of a message says that somebody else has written it."""

    async def handle_inbound(self, message: InboundMessage, room: Any) -> EventDraft:
        draft = await super().handle_inbound(message, room)
        return draft.replaced(source=draft.source.replaced(channel_id="system", channel_type="system"))


async def test_what_comes_in_by_a_channel_is_that_channels_whatever_it_claims() -> None:
    async with kit_with(Claims("web", "web")) as kit:
        event = (await say(kit, "me", channel="web")).event
        assert event is not None
        assert (event.source.channel_id, event.source.channel_type) == ("web", "web")


async def test_the_time_for_a_preparation_is_the_kits_own() -> None:
    class Slow(FakeChannel):
        async def handle_inbound(self, message: Any, room: Any) -> Any:
            await asyncio.sleep(5)
            return await super().handle_inbound(message, room)

    for limit, reason in ((4.0, "process_timeout"), (6.0, None)):
        async with kit_with(Slow(), options=KitOptions(process_timeout_s=limit)) as kit:
            await kit.create_room("r", channels=["sms"])
            assert (await say(kit, "hi", "r")).reason == reason


async def test_only_some_kinds_of_channels_are_asked_who_is_writing() -> None:
    asked: list[str] = []

    class Resolver:
        async def resolve(self, tenant: str, channel_type: str, message: Any) -> Resolution:
            asked.append(channel_type)
            return Resolution(Identification.IDENTIFIED, Identity(id="ann", tenant=tenant))

    kinds = KitOptions(identity_channel_types=("email",))
    async with kit_with(FakeChannel(), FakeChannel("mail", "email"), resolver=Resolver(), options=kinds) as kit:
        people = [await kit.participants((await say(kit, "hi", channel=one)).room_id or "") for one in ("sms", "mail")]
        assert asked == ["email"]
        assert [person.identity_id for (person,) in people] == [None, "ann"]


async def test_a_redelivery_is_known_for_a_week_and_its_key_is_pruned_afterwards() -> None:
    """D22: in the background, without anybody calling."""
    day = 86_400
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        await say(kit, "hi", "r", external_id="x1")
        await asyncio.sleep(6.9 * day)
        assert (await say(kit, "hi", "r", external_id="x1")).duplicate
        assert len(await kit.engine.store.records(RecordQuery("dedupe", "default"))) == 1
        await asyncio.sleep(0.2 * day)
        assert await kit.engine.store.records(RecordQuery("dedupe", "default")) == []
