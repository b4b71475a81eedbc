"""An HTTP channel in a real room: answers go to the configured address, never to the name that a sender gave."""

from __future__ import annotations

from roomkit import HTTPChannel, InboundMessage, RoomKit
from roomkit.models.delivery import DeliveryState
from roomkit.testing import FakeMessages, VirtualClock


def kit_with(url: str | None) -> tuple[RoomKit, FakeMessages]:
    kit, fake = RoomKit(clock=VirtualClock()), FakeMessages("http")
    kit.register_channel(HTTPChannel("crm", provider=fake, url=url))

    @kit.on_message
    def reply(_: object, message: object) -> str:
        return "Ticket opened"

    return kit, fake


async def test_an_answer_goes_to_the_configured_address() -> None:
    kit, fake = kit_with("https://crm.example/inbox")
    async with kit:
        result = await kit.process_inbound(InboundMessage.text("crm", "https://evil.example/", "The lamp is broken"))
        await result.settled()
        assert [(message.recipient, message.text) for message in fake.sent] == [
            ("https://crm.example/inbox", "Ticket opened")
        ]


async def test_without_an_address_it_says_so() -> None:
    kit, fake = kit_with(None)
    async with kit:
        result = await kit.process_inbound(InboundMessage.text("crm", "ann", "The lamp is broken"))
        await result.settled()
        assert fake.sent == []
        (record,) = await kit.deliveries(result.room_id or "")
        assert (record.state, record.reason) == (DeliveryState.FAILED, "no_recipient")
