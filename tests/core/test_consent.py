"""Consent through the public surface: keywords, the ledger, what already waits, vendors' lists, erasure, tenants."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from roomkit import InboundMessage, KitOptions, Modify, RoomKit
from roomkit.core.consent import Subject
from roomkit.errors import UsageError
from roomkit.models.consent import ConsentPolicy
from roomkit.models.content import AudioContent, CompositeContent, MediaContent, TextContent, VideoContent
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult, DeliveryState, DeliveryStatus
from roomkit.models.hooks import IdentityAnswer, IdentityQuestion
from roomkit.models.room import Assurance, Identity
from roomkit.ports.store import Batch
from roomkit.testing import FakeChannel, VirtualClock
from tests.core.rooms import Brain, kit_with, said, say

WHO = "+15550123"
STOPPED = "You will get no more messages from us here. Reply START to get them again."
STARTED = "You will get our messages here again. Reply STOP to end them."


def options(**more: Any) -> KitOptions:
    return KitOptions(consent=ConsentPolicy(**more))


async def room_of(kit: RoomKit, text: str = "hi", who: str = WHO, channel: str = "sms") -> str:
    result = await say(kit, text, who=who, channel=channel)
    await result.settled()
    return result.room_id or ""


async def test_stop_ends_everything_start_brings_it_back_and_each_is_confirmed_once() -> None:
    sms, brain = FakeChannel(), Brain()
    async with kit_with(sms, brain, options=options()) as kit:
        room = await room_of(kit)
        for text in ("STOP", "stop!", "Abmelden"):
            await (await say(kit, text, who=WHO)).settled()
        await (await kit.send(room, "an offer")).settled()
        assert sms.texts == ["echo hi", STOPPED]
        assert brain.seen[-1] == ["an offer"]
        assert len(brain.seen) == 2, "a keyword asks nobody"
        record = (await kit.deliveries(room))[-1]
        assert (record.state, record.reason) == (DeliveryState.SKIPPED, "opted_out")
        assert await kit.dead_letters() == []
        for text in ("START", "start"):
            await (await say(kit, text, who=WHO)).settled()
        await (await kit.send(room, "welcome back")).settled()
        assert sms.texts[2:] == [STARTED, "echo start", "welcome back", "echo welcome back"]
        log = await kit.consent.entries(WHO)
        assert [(e.granted, e.source, e.evidence, e.address) for e in log] == [
            (False, "keyword", "STOP", WHO),
            (True, "keyword", "START", WHO),
        ]
        events = {e.id: e.text for e in await kit.events(room)}
        assert [events[e.event_id or ""] for e in log] == ["STOP", "START"]
        assert kit.stats()["consent_stopped"] == 1


async def test_the_confirmation_is_in_the_language_of_the_word_and_help_is_answered() -> None:
    sms = FakeChannel()
    async with kit_with(sms, Brain(), options=options()) as kit:
        for text in ("HELP", "aide", "Désabonner"):
            await (await say(kit, text, who=WHO)).settled()
        assert sms.texts[0].startswith("Reply STOP to get no more")
        assert sms.texts[1].startswith("Répondez STOP pour ne plus")
        assert sms.texts[2].startswith("Vous ne recevrez plus")
    async with kit_with(other := FakeChannel(), options=options(help_text="Call 555.", confirm=True)) as kit:
        await (await say(kit, "help", who=WHO)).settled()
        assert other.texts == ["Call 555."]


async def test_a_stop_reaches_what_waits_in_the_outbox_and_what_is_tried_again(tmp_path: Path) -> None:
    def busy(event: Any, attempt: int) -> Any:
        return DeliveryResult(success=False, error="busy", retryable=True) if event.text == "an offer" else None

    path = f"sqlite:///{tmp_path / 'rooms.db'}"
    policy = DeliveryPolicy(idempotent=True, max_retries=50, base_delay=30)
    sms = FakeChannel(temper=busy, policy=policy)
    kit = RoomKit(path, clock=VirtualClock(), options=options())
    kit.register_channel(sms)
    async with kit:
        room = await room_of(kit)
        waiting = [await kit.send(room, "an offer"), await kit.send(room, "another")]
        await asyncio.sleep(40)
        tried = len(sms.attempts)
        assert tried >= 1
        await say(kit, "STOP", who=WHO)
        for one in waiting:
            await one.settled()
        assert len(sms.attempts) == tried + 1, "the confirmation, and no other try"
        assert sms.texts == [STOPPED]
        await say(kit, "START", who=WHO)
        await asyncio.sleep(1)
        sms.hang()
        await kit.send(room, "third")
        await kit.send(room, "fourth")
        await asyncio.sleep(1)
        await kit.consent.stop("sms", WHO, by="desk", reason="called us")
    again = FakeChannel()
    kit = RoomKit(path, clock=VirtualClock(), options=options())
    kit.register_channel(again)
    async with kit:
        await asyncio.sleep(60)
        assert again.texts == [], "what a restart found in the outbox is judged too"
        log = await kit.consent.entries()
        assert [(e.granted, e.source, e.by) for e in log] == [
            (False, "keyword", None),
            (True, "keyword", None),
            (False, "host", "desk"),
        ]


async def test_a_stop_is_of_its_channel_of_its_tenant_and_of_nobody_else() -> None:
    sms, rcs, wa = FakeChannel(), FakeChannel("rcs", "rcs"), FakeChannel("wa", "whatsapp")
    async with kit_with(sms, rcs, wa, options=options()) as kit:
        rooms = {c: await room_of(kit, channel=c) for c in ("sms", "rcs", "wa")}
        other = await room_of(kit, who="+15550124")
        await (await kit.tenant("acme").process_inbound(InboundMessage.text("sms", WHO, "hi"))).settled()
        (acme,) = await kit.tenant("acme").list_rooms()
        await (await say(kit, "STOP", who=WHO)).settled()
        for room in (*rooms.values(), other):
            await kit.send(room, f"to {room}")
        await (await kit.tenant("acme").send(acme.id, "to acme")).settled()
        await asyncio.sleep(1)
        assert sms.texts == [STOPPED, f"to {other}", "to acme"]
        assert rcs.texts == [], "the same inbox"
        assert wa.texts == [f"to {rooms['wa']}"]
        assert not await kit.consent.may("sms", "+1 (555) 0123")
        assert await kit.tenant("acme").consent.may("sms", WHO)


async def test_a_stop_is_the_persons_on_all_their_numbers_and_another_way_is_taken() -> None:
    sms, mail = FakeChannel(), FakeChannel("mail", "email")
    async with kit_with(sms, mail, options=options()) as kit:
        await kit.identities.put(
            Identity(id="ann", addresses={"sms": (WHO, "+15550199"), "email": ("ann@example.com",)})
        )
        first, second = await room_of(kit), await room_of(kit, who="+15550199")
        await kit.attach_channel(second, "mail", participant_id="ann", metadata={"address": "ann@example.com"})
        await (await say(kit, "STOP", who=WHO)).settled()
        await (await kit.send(second, "news")).settled()
        assert sms.texts == [STOPPED]
        assert mail.texts == ["news"]
        assert {e.who for e in await kit.consent.entries("ann")} == {"ann"}
        assert first != second


async def test_purposes_opt_ins_and_what_may_always_be_sent() -> None:
    sms = FakeChannel()
    policy = options(opt_in=frozenset({"marketing"}), exempt=frozenset({"security"}))
    async with kit_with(sms, options=policy) as kit:
        room = await room_of(kit)

        async def send(text: str, purpose: str | None = None) -> None:
            await (await kit.send(room, text, metadata={"purpose": purpose} if purpose else None)).settled()

        await send("1 offer", "marketing")
        await kit.consent.allow("sms", WHO, purpose="marketing", reason="form of 3 May")
        await send("2 offer", "marketing")
        await kit.consent.stop("sms", WHO, purpose="marketing")
        await send("3 offer", "marketing")
        await send("4 your order")
        await say(kit, "STOP", who=WHO)
        await send("5 your order")
        await send("6 your code", "security")
        await say(kit, "START", who=WHO)
        await send("7 your order")
        assert [t[0] for t in sms.texts if t[0].isdigit()] == ["2", "4", "6", "7"]
        reasons = [r.reason for r in await kit.deliveries(room) if r.state is DeliveryState.SKIPPED]
        assert reasons == ["no_consent", "opted_out", "opted_out"]


async def test_what_the_vendor_knows_is_kept() -> None:
    """A refusal at once, a late one, and a keyword that the vendor has understood and answered itself."""

    class Provider:
        opt_out_codes = frozenset({"21610"})

    def refuse(event: Any, attempt: int) -> Any:
        return DeliveryResult(success=False, error="blocked", code="21610") if event.text == "one" else None

    sms = FakeChannel(temper=refuse)
    sms.provider = Provider()  # type: ignore[attr-defined]
    async with kit_with(sms, options=options()) as kit:
        room = await room_of(kit)
        await (await kit.send(room, "one")).settled()
        await (await kit.send(room, "two")).settled()
        assert sms.texts == []
        assert await kit.dead_letters() == []
        other = await room_of(kit, who="+15550124")
        await (await kit.send(other, "three")).settled()
        status = DeliveryStatus(
            channel_id="sms", provider_message_id="fake-1", state=DeliveryState.FAILED, error="no", code="21610"
        )
        await kit.delivery_status(status)
        await (await kit.send(other, "four")).settled()
        third = await room_of(kit, who="+15550125")
        await (await say(kit, "Cancel", who="+15550125", metadata={"opt_out": "stop"})).settled()
        await (await kit.send(third, "five")).settled()
        assert sms.texts == ["three"]
        assert [(e.source, e.evidence) for e in await kit.consent.entries()] == [
            ("vendor", "21610"),
            ("vendor", "21610"),
            ("vendor", "Cancel"),
        ]


@pytest.mark.parametrize("why", ["limit", "closed", "rejected"])
async def test_a_stop_that_is_turned_away_counts_all_the_same(why: str) -> None:
    sms = FakeChannel()
    more: dict[str, Any] = {"inbound_limit": (0.001, 1)} if why == "limit" else {}
    async with kit_with(sms, options=KitOptions(consent=ConsentPolicy(), **more)) as kit:
        room = await room_of(kit)
        if why == "closed":
            await kit.close_room(room)
        if why == "rejected":
            assert kit.identities is not None

            @kit.before(IdentityQuestion)
            async def reject(question: IdentityQuestion) -> Modify:
                return Modify(IdentityAnswer("reject", reason="no strangers"))

        for text in ("I said stop by", "Stop!", "stop"):
            turned = await say(kit, text, room if why == "closed" else None, who=WHO)
            assert turned.event is None
        assert [(e.source, e.evidence) for e in await kit.consent.entries()] == [("keyword", "Stop!")]
        assert not await kit.consent.may("sms", WHO)
        await asyncio.sleep(1)
        assert sms.texts == []


async def test_a_number_of_the_region_is_the_same_number() -> None:
    pytest.importorskip("phonenumbers")
    async with kit_with(FakeChannel(), options=KitOptions(consent=ConsentPolicy(), phone_region="GB")) as kit:
        await kit.consent.stop("sms", "020 7946 0101")
        assert not await kit.consent.may("sms", "+442079460101")
        assert len(await kit.consent.entries("020 7946 0101")) == 1


async def test_a_refusal_of_one_purpose_stops_that_one() -> None:
    class Provider:
        opt_out_codes = {"131050": "marketing"}

    def refuse(event: Any, attempt: int) -> Any:
        return DeliveryResult(success=False, error="no", code="131050") if event.text == "an offer" else None

    sms = FakeChannel(temper=refuse)
    sms.provider = Provider()  # type: ignore[attr-defined]
    async with kit_with(sms, options=options()) as kit:
        room = await room_of(kit)
        for text in ("an offer", "another offer"):
            await (await kit.send(room, text, metadata={"purpose": "marketing"})).settled()
        await (await kit.send(room, "your order")).settled()
        assert sms.texts == ["your order"]
        assert [(e.purpose, e.evidence) for e in await kit.consent.entries()] == [("marketing", "131050")]


async def test_nobody_stops_somebody_else() -> None:
    """Not under another's participant id, not from a web page, and not by an email whose sender nobody has checked."""
    sms, mail = FakeChannel(), FakeChannel("mail", "email")
    async with kit_with(sms, mail, options=options()) as kit:
        await kit.identities.put(Identity(id="ann", addresses={"sms": (WHO,), "email": ("ann@example.com",)}))
        room, letters = await room_of(kit), await room_of(kit, channel="mail", who="ann@example.com")
        await say(kit, "STOP", who="+15550666", participant_id="ann")
        await say(kit, "STOP", who="+15550666", sender_name=WHO)
        await say(kit, "stop", channel="mail", who="ann@example.com")
        await (await kit.send(room, "for ann")).settled()
        await (await kit.send(letters, "a letter")).settled()
        assert [t for t in sms.texts if t != STOPPED] == ["for ann"]
        assert mail.texts == ["a letter"]
        events = [e for e in await kit.events(letters) if e.text == "stop"]
        assert events[0].metadata["consent"] == "unverified"
        proven = InboundMessage.text("mail", "ann@example.com", "stop", assurance=Assurance.VERIFIED)
        await (await kit.process_inbound(proven)).settled()
        await (await kit.send(letters, "another")).settled()
        assert mail.texts == ["a letter", STOPPED]


async def test_a_conversation_is_stopped_where_it_is_and_a_group_by_nobody() -> None:
    chat = FakeChannel("chat", "teams")
    async with kit_with(chat, options=options()) as kit:

        async def said_in(where: str, text: str, **more: Any) -> str:
            message = InboundMessage.text("chat", "user-1", text, conversation_id=where, **more)
            result = await kit.process_inbound(message)
            await result.settled()
            return result.room_id or ""

        own, team = await said_in("dm-1", "hi"), await said_in("team-1", "hi", group=True)
        await said_in("dm-1", "stop")
        await said_in("team-1", "stop", group=True)
        await (await kit.send(own, "to one")).settled()
        await (await kit.send(team, "to all")).settled()
        assert chat.texts == [STOPPED, "to all"]


async def test_who_is_erased_is_still_not_written_to() -> None:
    sms = FakeChannel()
    async with kit_with(sms, options=options()) as kit:
        await room_of(kit)
        await (await say(kit, "STOP", who=WHO)).settled()
        await kit.consent.allow("email", "ann@example.com")
        await kit.erase_person(WHO)
        assert await kit.consent.entries(WHO) == []
        kept = await kit.engine.store.records(_query("consent"))
        assert [WHO in repr(row) for row in kept] == [False, False]
        room = await kit.create_room(channels=[])
        await kit.attach_channel(room.id, "sms", metadata={"address": WHO})
        await (await kit.send(room.id, "hello again")).settled()
        assert sms.texts == [STOPPED]
        await (await say(kit, "START", who=WHO)).settled()
        assert await kit.consent.may("sms", WHO)


def _query(kind: str) -> Any:
    from roomkit.ports.store import RecordQuery

    return RecordQuery(kind, "default")


async def test_tenants_have_their_own_policies_and_without_one_a_stop_is_a_word() -> None:
    sms, brain = FakeChannel(), Brain()
    only = KitOptions(consent={"acme": ConsentPolicy(confirm=False)})
    async with kit_with(sms, brain, options=only) as kit:
        await (await say(kit, "STOP", who=WHO)).settled()
        assert sms.texts == ["echo STOP"]
        acme = kit.tenant("acme")
        await (await acme.process_inbound(InboundMessage.text("sms", WHO, "STOP"))).settled()
        assert sms.texts == ["echo STOP"]
        assert not await acme.consent.may("sms", WHO)
    async with kit_with(FakeChannel()) as kit:
        with pytest.raises(UsageError, match="not switched on"):
            await kit.consent.stop("sms", WHO)
        assert "roomkit.core.gate" not in str(type(kit.engine.lanes))


async def test_a_repeated_stop_webhook_is_one_line_and_a_blocked_one_counts() -> None:
    from roomkit import BeforeCommit, Block

    sms = FakeChannel()
    async with kit_with(sms, options=options()) as kit:
        await asyncio.gather(*(say(kit, "STOP", who=WHO, external_id="m1") for _ in range(10)))
        await asyncio.sleep(1)
        assert sms.texts == [STOPPED]
        assert len(await kit.consent.entries()) == 1

        @kit.before(BeforeCommit)
        async def closed(moment: BeforeCommit) -> Block:
            return Block("we are closed")

        blocked = await say(kit, "STOP", who="+15550124")
        assert blocked.blocked
        assert not await kit.consent.may("sms", "+15550124")
        assert ("sms", "STOP", "blocked") in await said(kit, blocked.room_id)


async def test_the_owner_of_the_account_says_nothing_for_the_other_end() -> None:
    """WhatsApp on the owner's own phone: what they write there has the customer's conversation and not their word."""
    sms = FakeChannel()
    async with kit_with(sms, options=options()) as kit:

        async def mine(text: str) -> Any:
            return await say(kit, text, who="+15559999", conversation_id=WHO, metadata={"from_me": True})

        room = await room_of(kit)
        await mine("stop")
        await kit.close_room(room)
        await mine("stop")
        assert await kit.consent.may("sms", WHO)
        await kit.consent.stop("sms", WHO)
        await mine("start")
        assert not await kit.consent.may("sms", WHO)
        assert [e.source for e in await kit.consent.entries()] == ["host"]


PICTURE = MediaContent(url="https://x.example/a.png", mime_type="image/png")


@pytest.mark.parametrize(
    "content, counts",
    [
        (PICTURE.replaced(caption="STOP"), True),
        (VideoContent(url="https://x.example/a.mp4", mime_type="video/mp4", caption="Stop!"), True),
        (CompositeContent(parts=(TextContent(text="STOP"), PICTURE)), True),
        (CompositeContent(parts=(CompositeContent(parts=(PICTURE, TextContent(text="stop"))), PICTURE)), True),
        (CompositeContent(parts=(TextContent(text="STOP"), PICTURE.replaced(caption="the bus"))), False),
        (AudioContent(url="https://x.example/a.ogg", mime_type="audio/ogg", transcript="stop"), False),
    ],
)
async def test_a_stop_with_a_picture_or_a_logo_is_a_stop(content: Any, counts: bool) -> None:
    async with kit_with(FakeChannel(), options=options()) as kit:
        await kit.process_inbound(InboundMessage(channel_id="sms", sender_id=WHO, content=content))
        assert await kit.consent.may("sms", WHO) is not counts


async def test_of_two_lines_the_later_holds_and_of_two_at_once_the_stop() -> None:
    async with kit_with(FakeChannel(), options=options()) as kit:
        clock = [datetime(2026, 11, 21, 8, tzinfo=UTC)]
        kit.engine.now = lambda: clock[0]  # type: ignore[method-assign]
        await kit.consent.allow("sms", WHO)
        clock[0] += timedelta(seconds=0.5)
        await kit.consent.stop("sms", WHO, purpose="conversation")
        assert not await kit.consent.may("sms", WHO)
        await kit.consent.allow("sms", WHO)
        assert not await kit.consent.may("sms", WHO)
        clock[0] += timedelta(seconds=0.5)
        await kit.consent.allow("sms", WHO)
        assert await kit.consent.may("sms", WHO)


async def test_both_ways_of_whatsapp_are_one_also_in_older_rows() -> None:
    async with kit_with(FakeChannel(), options=options()) as kit:
        await kit.consent.stop("whatsapp", WHO)
        assert not await kit.consent.may("whatsapp_personal", WHO)
        other = "+15550124"
        old = Subject("default", "whatsapp_personal", other)
        rows = kit.engine.consent.rows(old, "all", False, "keyword", "STOP")  # type: ignore[union-attr]
        await kit.engine.store.commit(Batch("default", kit.engine.epoch, put=rows))
        for kind in ("whatsapp", "whatsapp_personal"):
            assert not await kit.consent.may(kind, other)
        await asyncio.sleep(1)
        await kit.consent.allow("whatsapp_personal", other)
        assert await kit.consent.may("whatsapp", other)


async def test_what_a_vendor_says_of_one_purpose_is_of_that_one() -> None:
    async with kit_with(FakeChannel(), options=options()) as kit:

        async def may() -> list[bool]:
            return [await kit.consent.may("sms", WHO, purpose=one) for one in ("marketing", "conversation")]

        async def wish(kind: str) -> None:
            await say(kit, f"to {kind}", who=WHO, metadata={"opt_out": kind, "opt_out_purpose": "marketing"})
            await asyncio.sleep(1)

        await wish("stop")
        assert await may() == [False, True]
        await wish("start")
        assert await may() == [True, True]
        await kit.consent.stop("sms", WHO)
        await asyncio.sleep(1)
        await wish("start")
        assert await may() == [False, False], "a stop of everything is not lifted for one purpose"


@pytest.mark.parametrize("asked", ["020 7946 0101", "+442079460101"])
async def test_who_is_erased_by_a_number_of_the_region_leaves_no_line(asked: str) -> None:
    pytest.importorskip("phonenumbers")
    sms = FakeChannel()
    async with kit_with(sms, options=KitOptions(consent=ConsentPolicy(), phone_region="GB")) as kit:
        await room_of(kit, who="020 7946 0101")
        await (await say(kit, "STOP", who="020 7946 0101")).settled()
        await kit.consent.stop("sms", "+44 20 7946 0101", purpose="marketing")
        receipt = await kit.erase_person(asked)
        assert len(receipt.rooms) == 1
        assert await kit.consent.entries() == []
        assert "79460101" not in repr(await kit.engine.store.records(_query("consent")))
        assert not await kit.consent.may("sms", "020 7946 0101")


async def test_where_the_vendor_answers_a_stop_we_do_not() -> None:
    sms = FakeChannel()
    policy = ConsentPolicy(vendor_answers=frozenset({"sms"}))
    async with kit_with(sms, Brain(), options=KitOptions(consent=policy)) as kit:
        room = await room_of(kit)
        await (await say(kit, "STOP", who=WHO)).settled()
        await (await kit.send(room, "an offer")).settled()
        assert sms.texts == ["echo hi"], "neither a second confirmation nor the offer"
