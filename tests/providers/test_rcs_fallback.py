"""What RCS cannot deliver goes by SMS: once, whatever the vendor repeats and whenever the process ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from roomkit import RoomKit
from roomkit.channels import RCSChannel
from roomkit.models.content import Card, RichContent, TemplateContent
from roomkit.models.delivery import DeliveryRecord, DeliveryState
from roomkit.providers.telnyx.rcs import TelnyxRCSProvider
from roomkit.providers.twilio.rcs import TwilioRCSProvider
from roomkit.testing import FakeTwilio, VirtualClock
from roomkit.testing.messages import FakeMessages, binding_of, context_of, event_of
from roomkit.testing.vendors.telnyx import FakeTelnyx

TO = "+15550123"


@dataclass
class Vendor:
    """A vendor of RCS with its fake: how each says no, and what has gone out by which way."""

    name: str
    fake: Any

    def provider(self) -> Any:
        if self.name == "twilio":
            options = self.fake.options(rcs_sender="rcs:fake_brand_agent", messaging_service_sid="MG" + "1" * 32)
            return TwilioRCSProvider(options, transport=self.fake.transport())
        return TelnyxRCSProvider(self.fake.options(), clock=VirtualClock(), transport=self.fake.transport())

    def refuse(self) -> None:
        self.fake.fail(400, 63036 if self.name == "twilio" else "40001", "no RCS there")

    def opted_out(self) -> None:
        self.fake.fail(*((400, 21610) if self.name == "twilio" else (403, "40300")))

    def failed(self, message: Any) -> Any:
        if self.name == "twilio":
            return self.fake.reports(message, "undelivered", error=63036)[0]
        return self.fake.reports(message, "delivery_failed", error="40001")[0]

    def delivered(self, message: Any) -> Any:
        return self.fake.reports(message, "delivered")[0]

    def sent(self) -> list[tuple[str, str]]:
        """(way, text)"""
        if self.name == "twilio":
            return [("rcs" if m.to.startswith("rcs:") else "sms", m.body) for m in self.fake.messages]
        return [("rcs" if m.kind == "RCS" else "sms", m.text) for m in self.fake.messages]


@pytest.fixture(params=["twilio", "telnyx"])
def vendor(request: pytest.FixtureRequest) -> Vendor:
    return Vendor(request.param, FakeTwilio() if request.param == "twilio" else FakeTelnyx())


@asynccontextmanager
async def kit_with(vendor: Vendor, store: str | None = None, **options: Any) -> AsyncIterator[RoomKit]:
    kit = RoomKit(*filter(None, [store]), clock=VirtualClock(), token_secrets=["a secret for these tests only"])
    channel = RCSChannel("rcs", provider=vendor.provider(), **options)
    kit.register_channel(channel)
    async with kit:
        if not await kit.list_rooms():
            await kit.create_room("r", channels=[])
            await kit.attach_channel("r", "rcs", metadata={"address": TO, "phone_number": TO})
        yield kit
    await channel.close()


async def report(kit: RoomKit, vendor: Vendor, request: Any) -> None:
    provider: Any = vendor.provider()
    provider.verify(request)
    for item in provider.parse(request, "rcs"):
        await kit.delivery_status(item)
    await provider.aclose()


async def say(kit: RoomKit, content: Any = "hello") -> None:
    await kit.send("r", content)
    await asyncio.sleep(60)


async def only(kit: RoomKit) -> DeliveryRecord:
    (record,) = await kit.deliveries("r")
    return record


async def test_what_rcs_carries_goes_by_rcs(vendor: Vendor):
    async with kit_with(vendor) as kit:
        await say(kit)
        await report(kit, vendor, vendor.delivered(vendor.fake.messages[0]))
        assert vendor.sent() == [("rcs", "hello")]
        record = await only(kit)
        assert (record.state, record.details) == (DeliveryState.DELIVERED, {"via": "rcs"})


async def test_what_is_refused_goes_by_sms_at_once_and_the_room_shows_it(vendor: Vendor):
    async with kit_with(vendor) as kit:
        vendor.refuse()
        await say(kit, RichContent(text="**Look**", cards=(Card(title="Lamp", text="Warm"),)))
        ((way, text),) = vendor.sent()
        assert (way, text.split()) == ("sms", ["Look", "Lamp", "Warm"])
        record = await only(kit)
        assert (record.state, record.details["via"], record.details["segments"]) == (DeliveryState.SENT, "sms", [1])
        assert "no RCS there" in record.details["instead_of"]
        assert await kit.dead_letters() == []
        await report(kit, vendor, vendor.delivered(vendor.fake.messages[0]))
        assert (await only(kit)).state is DeliveryState.DELIVERED


async def test_what_is_reported_as_failed_goes_by_sms_once(vendor: Vendor, tmp_path: Path):
    async with kit_with(vendor, f"sqlite:///{tmp_path / 'rooms.db'}") as kit:
        await say(kit)
        failed = vendor.failed(vendor.fake.messages[0])
        await asyncio.gather(*(report(kit, vendor, failed) for _ in range(20)))
        await asyncio.sleep(60)
        await asyncio.gather(*(report(kit, vendor, failed) for _ in range(20)))
        await asyncio.sleep(60)
        assert vendor.sent() == [("rcs", "hello"), ("sms", "hello")]
        record = await only(kit)
        assert (record.state, record.details["via"]) == (DeliveryState.SENT, "sms")
        assert record.details["instead_of"]
        await report(kit, vendor, vendor.delivered(vendor.fake.messages[0]))
        assert (await only(kit)).state is DeliveryState.SENT, "late news of the first way is about nothing any more"
        await report(kit, vendor, vendor.delivered(vendor.fake.messages[1]))
        assert (await only(kit)).state is DeliveryState.DELIVERED


LONG = "word " * 630  # two parts, at one vendor and the other


async def test_a_message_in_parts_is_as_far_as_its_last_part_and_the_record_has_each(vendor: Vendor):
    async with kit_with(vendor) as kit:
        await say(kit, LONG)
        first, second = vendor.fake.messages
        await report(kit, vendor, vendor.delivered(first))
        record = await only(kit)
        assert record.state is DeliveryState.SENT
        assert list(record.part_states.values()) == [DeliveryState.DELIVERED, DeliveryState.SENT]
        await report(kit, vendor, vendor.delivered(second))
        await report(kit, vendor, vendor.failed(first))  # too late to be true
        assert (await only(kit)).state is DeliveryState.DELIVERED
        assert [way for way, _ in vendor.sent()] == ["rcs", "rcs"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_part_that_fails_is_not_hidden_by_one_that_has_arrived(vendor: Vendor, order: tuple[int, int]):
    async with kit_with(vendor) as kit:
        await say(kit, LONG)
        arrived, lost = (vendor.fake.messages[at] for at in order)
        await report(kit, vendor, vendor.delivered(arrived))
        await asyncio.gather(*(report(kit, vendor, vendor.failed(lost)) for _ in range(5)))
        await asyncio.sleep(60)
        record = await only(kit)
        assert (record.state, record.details["via"], record.part_states) == (DeliveryState.SENT, "sms", {})
        assert "1 of 2 parts had arrived and are repeated" in record.details["instead_of"]
        by_sms = " ".join(text for way, text in vendor.sent() if way == "sms")
        assert by_sms.split() == LONG.split(), "once, and whole"


async def test_a_part_that_is_refused_takes_the_whole_by_the_other_way(vendor: Vendor):
    async with kit_with(vendor) as kit:
        vendor.fake._script.append(None)  # the first goes out
        vendor.refuse()
        await say(kit, LONG)
        record = await only(kit)
        assert (record.state, record.details["via"]) == (DeliveryState.SENT, "sms")
        assert "1 of 2 parts were out and are repeated" in record.details["instead_of"]
        assert [way for way, _ in vendor.sent()].count("rcs") == 1
        assert " ".join(text for way, text in vendor.sent() if way == "sms").split() == LONG.split()
        assert await kit.dead_letters() == []
        await report(kit, vendor, vendor.failed(vendor.fake.messages[0]))
        assert (await only(kit)).state is DeliveryState.SENT, "news of the first way is about nothing any more"


async def test_where_there_is_no_other_way_a_lost_part_is_a_failure(vendor: Vendor):
    async with kit_with(vendor, fallback=False) as kit:
        await say(kit, LONG)
        first, second = vendor.fake.messages
        await report(kit, vendor, vendor.delivered(second))
        await report(kit, vendor, vendor.failed(first))
        await report(kit, vendor, vendor.delivered(second))
        record = await only(kit)
        assert record.state is DeliveryState.FAILED
        assert record.reason
        assert list(record.part_states.values()) == [DeliveryState.FAILED, DeliveryState.DELIVERED]
        assert len(vendor.fake.messages) == 2


async def test_a_report_that_is_faster_than_the_vendors_answer_is_not_lost(vendor: Vendor):
    async with kit_with(vendor) as kit:
        vendor.fake.delay_s = 1.0
        await kit.send("r", "hello")
        await asyncio.sleep(0.5)
        (message,) = vendor.fake.messages
        await asyncio.gather(report(kit, vendor, vendor.failed(message)), asyncio.sleep(60))
        assert vendor.sent() == [("rcs", "hello"), ("sms", "hello")]


async def test_when_sms_fails_too_it_is_over(vendor: Vendor):
    async with kit_with(vendor) as kit:
        await say(kit)
        await report(kit, vendor, vendor.failed(vendor.fake.messages[0]))
        await asyncio.sleep(60)
        for _ in range(3):
            await report(kit, vendor, vendor.failed(vendor.fake.messages[1]))
        await asyncio.sleep(60)
        assert [way for way, _ in vendor.sent()] == ["rcs", "sms"]
        assert (await only(kit)).state is DeliveryState.FAILED
        vendor.refuse()
        vendor.refuse()
        await say(kit, "again")
        assert len(vendor.fake.messages) == 2
        assert len(await kit.dead_letters()) == 1
        refused = (await kit.deliveries("r"))[-1]
        assert (refused.state, refused.details["via"]) == (DeliveryState.FAILED, "sms")


async def test_who_has_opted_out_gets_no_sms_either(vendor: Vendor):
    async with kit_with(vendor) as kit:
        vendor.opted_out()
        await say(kit)
        assert vendor.sent() == []
        assert (await only(kit)).state is DeliveryState.FAILED


async def test_sms_carries_what_this_vendor_can():
    vendor = Vendor("twilio", FakeTwilio())
    async with kit_with(vendor) as kit:
        vendor.refuse()
        await say(kit, TemplateContent(template_id="HX" + "a" * 32))
        assert [(m.to, m.template) for m in vendor.fake.messages] == [(TO, "HX" + "a" * 32)]
    telnyx = Vendor("telnyx", FakeTelnyx())
    channel = RCSChannel("rcs", provider=telnyx.provider())
    assert channel.stand_in is not None
    assert channel.stand_in.capabilities.max_media_bytes == 1_000_000
    binding = binding_of(channel, "r", phone_number=TO)
    event = event_of("r", TemplateContent(template_id="x"))
    result = await channel.deliver(event, binding, context_of(binding, via="sms"))
    assert (result.success, result.error) == (False, "nothing_to_show_here")
    assert telnyx.sent() == []
    await channel.close()


async def test_a_lost_answer_is_no_refusal(vendor: Vendor):
    async with kit_with(vendor) as kit:
        vendor.fake.lose_answer()
        await say(kit)
        assert {way for way, _ in vendor.sent()} == {"rcs"}


@pytest.mark.parametrize("fallback", [False, "vendor"])
async def test_without_it_there_is_no_second_way(vendor: Vendor, fallback: Any):
    async with kit_with(vendor, fallback=fallback) as kit:
        vendor.refuse()
        await say(kit)
        assert vendor.sent() == []
        assert len(await kit.dead_letters()) == 1
        await say(kit, "more")
        before = len(vendor.fake.messages)
        await report(kit, vendor, vendor.failed(vendor.fake.messages[0]))
        await asyncio.sleep(60)
        assert len(vendor.fake.messages) == before


async def test_the_vendors_own_second_way_shows_in_its_reports(vendor: Vendor):
    async with kit_with(vendor, fallback="vendor") as kit:
        if vendor.name == "telnyx":
            vendor.fake.no_rcs.add(TO)
        await say(kit)
        assert [way for way, _ in vendor.sent()] == ["sms"]
        await report(kit, vendor, vendor.delivered(vendor.fake.messages[0]))
        record = await only(kit)
        assert (record.state, record.details) == (DeliveryState.DELIVERED, {"via": "sms"})


async def test_a_process_that_ends_after_the_news_leaves_the_sms_to_the_next(vendor: Vendor, tmp_path: Path):
    store = f"sqlite:///{tmp_path / 'rooms.db'}"
    async with kit_with(vendor, store) as kit:
        await say(kit)
        kit.engine.draining = True  # from here on nothing is sent any more
        await report(kit, vendor, vendor.failed(vendor.fake.messages[0]))
        assert vendor.sent() == [("rcs", "hello")]
    for _ in range(2):
        async with kit_with(vendor, store) as kit:
            await asyncio.sleep(60)
            await report(kit, vendor, vendor.failed(vendor.fake.messages[0]))
            await asyncio.sleep(60)
            assert vendor.sent() == [("rcs", "hello"), ("sms", "hello")]
            record = await only(kit)
            assert (record.state, record.details["via"]) == (DeliveryState.SENT, "sms")


async def test_parts_of_an_sms_go_on_after_a_restart_where_they_stopped(tmp_path: Path):
    vendor, text = Vendor("twilio", FakeTwilio()), "word " * 500
    store = f"sqlite:///{tmp_path / 'rooms.db'}"
    async with kit_with(vendor, store) as kit:
        vendor.refuse()
        vendor.refuse()
        channel: Any = kit.channels["rcs"]
        send = channel.provider.send

        async def ends(message: Any) -> Any:
            if message.part == 1 and message.extra.get("via") == "sms":
                kit.engine.draining = True
                await asyncio.sleep(1e9)
            return await send(message)

        vendor.fake._script.clear()
        vendor.refuse()
        channel.provider.send = ends
        await kit.send("r", text)
        await asyncio.sleep(5)
        assert [way for way, _ in vendor.sent()] == ["sms"]
    async with kit_with(vendor, store) as kit:
        await asyncio.sleep(60)
        assert [way for way, _ in vendor.sent()] == ["sms", "sms"]
        assert " ".join(words for _, words in vendor.sent()).split() == text.split()
        assert (await only(kit)).details["segments"] == [10, 7]


def test_a_provider_without_a_second_way_has_none():
    assert RCSChannel("rcs", provider=FakeMessages()).stand_in is None
    assert RCSChannel("rcs").stand_in is None
