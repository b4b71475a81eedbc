"""Redaction before the store, a model and an export, by tenant; and nothing at all where it is off."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from roomkit import AIChannel, ChannelOutput, InboundMessage, KitOptions, RoomKit
from roomkit.ai.memory import Summarizing
from roomkit.ai.tools import tool
from roomkit.models.content import (
    Card,
    CompositeContent,
    EditContent,
    MediaContent,
    ReactionContent,
    RichContent,
    TextContent,
)
from roomkit.models.event import EventType
from roomkit.models.redaction import Redaction
from roomkit.models.stream import StreamChunk, StreamEnd, TextDelta
from roomkit.ports.store import RecordQuery
from roomkit.testing import FakeChannel, VirtualClock
from roomkit.testing.ai import ScriptedAI, call

CARD, MAIL, PHONE = "4111 1111 1111 1111", "ann@example.com", "+44 20 7946 0101"
SPOKEN = "four one one one one one one one one one one one one one one one"
EVERYTHING = f"my card is {CARD}, or {SPOKEN}; write to {MAIL} or call {PHONE}"
CLEAN = "my card is [card], or [card]; write to [email] or call [phone]"
STORE = Redaction(store=True)


def make(redaction: Any, *channels: Any, store: str | None = None) -> RoomKit:
    kit = RoomKit(store, clock=VirtualClock(), options=KitOptions(redaction=redaction))
    for channel in (FakeChannel(), *channels):
        kit.register_channel(channel, default=channel.reach == "turn")
    return kit


def clean(*things: Any) -> None:
    for thing in things:
        text = thing if isinstance(thing, str) else repr(thing)
        for secret in (CARD, MAIL, PHONE, SPOKEN):
            assert secret not in text, text[:400]


async def test_the_store_keeps_nothing_of_it(tmp_path: Path) -> None:
    """Neither words, nor the vendor's copy of them, nor what stands beside them; tools, tasks and drafts neither."""
    path = tmp_path / "rooms.db"

    meanwhile: list[Any] = []

    @tool(idempotent=True)
    async def look_up(who: str) -> str:
        """Looks somebody up."""
        meanwhile.extend(await kit.engine.store.records(RecordQuery("journal", "default")))
        return f"{who}: {PHONE}"

    brain = ScriptedAI([call("look_up", who=MAIL)], f"You are {PHONE}.", "ok", repeat=True)
    ai = AIChannel("ai", brain).configure(tools=[look_up])
    kit = make(STORE, ai, store=f"sqlite:///{path}")
    async with kit:
        message = InboundMessage.text(
            *("sms", "+442079460999", EVERYTHING),
            raw_payload={"Body": EVERYTHING},
            metadata={"subject": f"from {MAIL}", "thread": "<id-1@mail.example.com>"},
        )
        result = await kit.process_inbound(message)
        await result.settled()
        room = result.room_id or ""
        await kit.draft(room, f"we wrote to {MAIL}", by="desk")
        await kit.send(room, f"we will call {PHONE}")
        await kit.request_human(room, f"wants to be called at {PHONE}", by="desk")
        events = await kit.events(room, raw=True)
        assert events[0].text == CLEAN or CLEAN in [e.text for e in events]
        said = next(e for e in events if e.text == CLEAN)
        assert said.source.raw_payload is None
        assert said.metadata == {"subject": "from [email]", "thread": "<id-1@mail.example.com>"}
        calls = [e for e in events if e.type is EventType.TOOL_CALL_END]
        assert calls
        clean(*events, *(await kit.drafts(room)), *(await kit.tasks(room)), *brain.requests)
        assert [row.value["arguments"] for row in meanwhile] == [{"who": MAIL}], "a crash may make it run again"
    with closing(sqlite3.connect(path)) as database, database:
        dump = "\n".join(database.iterdump())
    clean(dump)


@pytest.mark.parametrize(
    "content",
    [
        RichContent(text=f"**{MAIL}**", cards=(Card(title=f"call {PHONE}"),)),
        CompositeContent(
            parts=(TextContent(text=CARD), MediaContent(url="blob:x", mime_type="image/png", caption=MAIL))
        ),
        MediaContent(url="https://x.example/ann@example.org", mime_type="image/png", caption=PHONE),
    ],
)
async def test_every_kind_of_content_is_looked_through_and_links_stay(content: Any) -> None:
    async with make(STORE) as kit:
        await kit.create_room("r", channels=["sms"])
        event = (await kit.send("r", content)).event
        assert event is not None
        clean(event.content)
        if isinstance(content, MediaContent):
            assert event.content.url == content.url  # type: ignore[union-attr]


async def test_an_edit_brings_nothing_back() -> None:
    """Nor does it in the row that says how the message reads today, which is what the audit compares with the log."""
    kit = RoomKit(clock=VirtualClock(), options=KitOptions(redaction=STORE, audit=True))
    kit.register_channel(FakeChannel())
    async with kit:
        event = (await kit.process_inbound(InboundMessage.text("sms", "+15550123", "hello"))).event
        assert event is not None
        room = event.room_id
        edit = EditContent(target_event_id=event.id, new_content=TextContent(text=f"write to {MAIL}"))
        await kit.process_inbound(InboundMessage(channel_id="sms", sender_id="+15550123", content=edit))
        heart = ReactionContent(target_event_id=event.id, emoji="+")
        await kit.process_inbound(InboundMessage(channel_id="sms", sender_id="+15550123", content=heart))
        shown = next(e for e in await kit.events(room) if e.id == event.id)
        assert shown.text == "write to [email]"
        assert shown.metadata["reactions"] == {"+": ["sms:+15550123"]}
        rows = await kit.engine.store.records(RecordQuery("mutation", "default"))
        clean(*rows, *await kit.events(room, raw=True))
        await asyncio.sleep(10)
        report = await kit.audit_room(room)
        assert (report.problem, report.unsealed) == (None, 0)


async def test_what_an_approval_was_asked_for_stays_only_until_it_is_used() -> None:
    ran: list[str] = []

    @tool(needs_approval=True)
    def write_to(who: str) -> str:
        """Writes."""
        ran.append(who)
        return "done"

    async with make(
        STORE, AIChannel("ai", ScriptedAI([call("write_to", who=MAIL)], "ok")).configure(tools=[write_to])
    ) as kit:
        result = await kit.process_inbound(InboundMessage.text("sms", "+1", "please"))
        await asyncio.sleep(1)
        (asked,) = await kit.approvals()
        assert asked["arguments"] == {"who": MAIL}, "whoever decides has to see it"
        await kit.answer_approval(asked["id"], True, by="boss", reason=f"{PHONE} said so")
        await result.settled()
        assert ran == [MAIL]
        clean(*await kit.events(result.room_id or "", raw=True), *await kit.approvals(status="used"))


async def test_who_sums_up_is_a_model_too() -> None:
    short, brain = ScriptedAI("All was said.", repeat=True), ScriptedAI("ok", repeat=True)
    ai = AIChannel("ai", brain, memory=Summarizing(short, window_tokens=20))
    async with make(Redaction(), ai) as kit:
        for text in (EVERYTHING, "and then?", "what else?", EVERYTHING):
            await (await kit.process_inbound(InboundMessage.text("sms", "+1", text))).settled()
    assert short.requests
    clean(*short.requests, *brain.requests)
    assert "[card]" in str(short.requests)


async def test_a_reply_in_pieces_shows_nothing_on_the_way() -> None:
    """Cut at every offset, with a card whose groups are sentences of their own."""
    sentence = f"Sure! Your card is {CARD}, and I write to {MAIL} today. Anything else?"
    cuts = [[sentence[:at], sentence[at:]] for at in range(0, len(sentence), 2)] + [list(sentence)]
    plans = iter(cuts)
    kit = make(STORE)
    sms = kit.channels["sms"]

    @kit.on_message
    async def answer(context: Any, message: Any) -> ChannelOutput:
        async def parts() -> AsyncIterator[TextDelta]:
            for piece in next(plans):
                yield TextDelta(piece)

        return ChannelOutput(response_stream=parts())

    async with kit:
        for n, cut in enumerate(cuts):
            room, seen = f"r{n}", []
            await kit.create_room(room, channels=["app", "sms"])
            await kit.open_view(room, "sms", seen.append)
            await (await kit.process_inbound(InboundMessage.text("sms", "+1", "hi"), room_id=room)).settled()
            grown = "".join(item.delta for item in seen if isinstance(item, StreamChunk))
            ends = [item.event.text for item in seen if isinstance(item, StreamEnd)]
            clean(*map(repr, seen))
            assert [grown] == ends == ["Sure! Your card is [card], and I write to [email] today. Anything else?"], cut
            assert isinstance(sms, FakeChannel)
            assert sms.texts[-1] == grown


async def test_a_model_is_told_nothing_of_it_while_people_read_it() -> None:
    brain = ScriptedAI([call("find", who="x")], "Noted.", repeat=True)

    @tool
    def find(who: str) -> str:
        """Finds."""
        return f"lives at {MAIL}"

    ai = AIChannel("ai", brain, system_prompt=f"Our own number is {PHONE}.").configure(tools=[find])
    async with make(Redaction(), ai) as kit:
        result = await kit.process_inbound(InboundMessage.text("sms", "+1", EVERYTHING))
        await result.settled()
        requests = brain.requests
        told = json.dumps([[m.model_dump(mode="json") for m in r.messages] for r in requests])
        clean(told)
        assert "[card]" in told
        assert "lives at [email]" in told
        assert PHONE in (requests[0].system or "")
        assert EVERYTHING in [e.text for e in await kit.events(result.room_id or "")]


async def test_an_export_has_nothing_of_it_and_comes_back_whole() -> None:
    async with make(Redaction(model=False)) as kit:
        message = InboundMessage.text("sms", "+15550101", EVERYTHING, raw_payload={"Body": EVERYTHING})
        room = (await kit.process_inbound(message)).room_id or ""
        await kit.draft(room, f"to {MAIL}", by="desk")
        lines = [line async for line in kit.export_room(room)]
        clean(*lines)
        other = kit.tenant("other")
        copy = await other.import_room(lines)
        assert CLEAN in [e.text for e in await other.events(copy.id)]
        assert EVERYTHING in [e.text for e in await kit.events(room)]


async def test_an_export_is_whole_where_the_host_says_so() -> None:
    async with make(Redaction(model=False, export=False)) as kit:
        room = (await kit.process_inbound(InboundMessage.text("sms", "+15550101", EVERYTHING))).room_id or ""
        assert any(MAIL in line for line in [line async for line in kit.export_room(room)])


async def test_tenants_have_their_own_and_finders_are_added() -> None:
    def badge(text: str) -> list[tuple[int, int, str]]:
        at = text.find("K-4711")
        return [(at, at + 6, "badge")] if at >= 0 else []

    only = {"acme": Redaction(store=True, kinds=("email",), finders=(badge,), mask="***{kind}***")}
    async with make(only) as kit:
        for tenant, want in (("default", f"{MAIL} {PHONE} K-4711"), ("acme", f"***email*** {PHONE} ***badge***")):
            rooms = kit.tenant(tenant)
            result = await rooms.process_inbound(InboundMessage.text("sms", "+1", f"{MAIL} {PHONE} K-4711"))
            assert result.event is not None
            assert result.event.text == want


async def test_off_is_off() -> None:
    kit = RoomKit(clock=VirtualClock())
    kit.register_channel(FakeChannel())
    async with kit:
        result = await kit.process_inbound(InboundMessage.text("sms", "+1", EVERYTHING, raw_payload={"a": 1}))
        assert result.event is not None
        assert (result.event.text, result.event.source.raw_payload) == (EVERYTHING, {"a": 1})
        assert kit.engine.redactions is None


def test_a_log_is_always_clean(caplog: pytest.LogCaptureFixture) -> None:
    RoomKit()
    logging.getLogger("roomkit.elsewhere").error("%s and %s", MAIL, PHONE, extra={"who": MAIL})
    clean(caplog.records[-1].getMessage(), str(vars(caplog.records[-1])["who"]))


def letter_beside(raw: Any, text: str = "Thanks", **more: str) -> InboundMessage:
    beside = {"subject": f"call {PHONE}", "quoted": f"> my card is {CARD}", "signature": MAIL, "html": f"<p>{CARD}</p>"}
    data = {**beside, "message_id": "<9@mail.example.com>", **more}
    return InboundMessage.text("sms", "+15550101", text, raw_payload=raw, channel_data=data)


async def test_the_words_beside_a_letter_are_words_too() -> None:
    """What is quoted, the subject and the signature, where the letter itself says nothing of it."""
    want = {"subject": "call [phone]", "quoted": "> my card is [card]", "signature": "[email]", "html": "<p>[card]</p>"}
    async with make(STORE) as kit:
        event = (await kit.process_inbound(letter_beside({"text": CARD}))).event
        assert event is not None
        assert event.channel_data == {**want, "message_id": "<9@mail.example.com>"}
        assert event.source.raw_payload is None
        nothing = dict.fromkeys(want, "")
        only = (await kit.process_inbound(letter_beside({"text": [CARD]}, **nothing))).event
        assert only is not None
        assert only.source.raw_payload is None, "the vendor's copy may say more than the message"
        plain = (await kit.process_inbound(letter_beside({"text": "Thanks"}, **nothing))).event
        assert plain is not None
        assert plain.source.raw_payload == {"text": "Thanks"}
    async with make(Redaction(model=False)) as kit:
        room = (await kit.process_inbound(letter_beside({"text": CARD}))).room_id or ""
        await kit.process_inbound(letter_beside({"text": CARD}, **nothing))
        clean(*[line async for line in kit.export_room(room)])
