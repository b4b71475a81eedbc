"""One room, three ways in: Ann writes text messages, Ben sits at the web page, an AI helps both.

Nothing here needs a key or a network: the AI is the built-in offline brain, and the phone company is roomkit's fake
Twilio, which checks our requests and signs its webhooks as the real one does.
"""

from __future__ import annotations

import asyncio

import httpx2

from roomkit import AIChannel, EventType, InboundMessage, RoomKit, SMSChannel, WebSocketChannel, tool
from roomkit.models.hooks import Delivered
from roomkit.providers.offline.ai import OfflineBrain
from roomkit.providers.offline.tools import calculator
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.testing.vendors.twilio import FakeTwilio

ANN = "+15550123"
twilio = FakeTwilio(webhook_url="https://shop.example/webhooks/sms")


@tool(idempotent=True)
def find_order(number: int) -> dict[str, object]:
    """Finds an order by its number."""
    return {"number": number, "found": True, "item": "desk lamp", "status": "on its way", "expected": "today"}


kit = RoomKit()
kit.register_channel(SMSChannel("sms", provider=TwilioSMSProvider(twilio.options(), transport=twilio.transport())))
kit.register_channel(WebSocketChannel("web"))
kit.register_channel(
    AIChannel("assistant", OfflineBrain(delay=0.01)).configure(tools=[find_order, calculator]), default=True
)
app = kit.asgi(public_url="https://shop.example")

delivered = asyncio.Event()


@kit.on(Delivered)
async def note(notice: Delivered) -> None:
    delivered.set()


async def main() -> None:
    async with kit, httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="https://shop.example") as vendor:
        # Ann writes to the shop's number. The signed webhook makes a room for her, with the AI in it.
        webhook = twilio.text(ANN, "Hi! Where is order 1042?")
        answer = await vendor.post("/webhooks/sms", content=webhook.body, headers=dict(webhook.headers))
        print(f"webhook answered {answer.status_code}")
        await delivered.wait()

        # Ben, at the web page, joins the same room. Ann reads his words as a text message that names him, and the
        # AI's answer to him as well.
        (room,) = await kit.list_rooms()
        await kit.attach_channel(room.id, "web")
        said = await kit.process_inbound(
            InboundMessage.text("web", "ben", "What do 2 * 49.90 make?", participant_id="ben", sender_name="Ben"),
            room_id=room.id,
        )
        await said.settled()

        print("\nthe room")
        for event in await kit.events(room.id):
            if event.type is EventType.MESSAGE:
                print(f"  {event.index:>2}  {event.source.channel_id:<9} {one_line(event.text)}")
        print("\nAnn's phone")
        for message in twilio.messages:
            print(f"  from {message.sender}: {one_line(message.body)}")


def one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    asyncio.run(main())
