"""One room, four ways in: Ann writes text messages, Ben WhatsApp, Cleo emails, Dana is at the web page; an AI helps.

Nothing here needs a key or a network: the AI is the built-in offline brain, and the vendors are roomkit's fakes, which
check our requests and sign their webhooks as the real ones do. At the end it tells what each channel was sent of the
same message: `kit.shown`, which the supervisor page has under "What arrived".

Needs the [server,http,twilio,sendgrid] extras.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx2

from roomkit import AIChannel, EventType, InboundMessage, RoomKit, SMSChannel, WebSocketChannel, tool
from roomkit.channels import EmailChannel, WhatsAppChannel
from roomkit.models.content import Button, RichContent
from roomkit.models.delivery import WebhookRequest
from roomkit.models.hooks import ReplyFinished
from roomkit.models.room import Identity
from roomkit.providers.meta.whatsapp import MetaWhatsAppProvider
from roomkit.providers.offline.ai import OfflineBrain
from roomkit.providers.offline.tools import calculator
from roomkit.providers.sendgrid.email import SendGridProvider
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.runtime import SystemClock
from roomkit.testing.vendors.meta import FakeMeta
from roomkit.testing.vendors.sendgrid import FakeSendGrid
from roomkit.testing.vendors.twilio import FakeTwilio

SHOP = "https://shop.example"
ANN, BEN, CLEO = "+15550101234", "+15550105678", "cleo@example.com"
COLOURS = RichContent(
    text="**Which colour** shall we send?",
    buttons=(Button(label="Red"), Button(label="Green"), Button(label="Blue")),
)
CARE = "Wipe the lamp with a dry cloth, never a wet one. Let it cool before you touch the bulb. " * 19
CARE += "Thank you."
Post = Callable[[str, WebhookRequest], Awaitable[None]]


@tool(idempotent=True)
def find_order(number: int) -> dict[str, object]:
    """Finds an order by its number."""
    return {"number": number, "found": True, "item": "desk lamp", "status": "on its way", "expected": "today"}


class Vendors:
    """Three companies that carry messages for us."""

    def __init__(self) -> None:
        self.twilio = FakeTwilio(webhook_url=f"{SHOP}/webhooks/sms")
        self.meta = FakeMeta(webhook_url=f"{SHOP}/webhooks/whatsapp")
        self.sendgrid = FakeSendGrid(webhook_url=f"{SHOP}/webhooks/email", clock=SystemClock())
        self.answered = asyncio.Event()


def furnish(kit: RoomKit, vendors: Vendors) -> None:
    sms = TwilioSMSProvider(vendors.twilio.options(), transport=vendors.twilio.transport())
    whatsapp = MetaWhatsAppProvider(vendors.meta.whatsapp_options(), transport=vendors.meta.transport())
    email = SendGridProvider(vendors.sendgrid.options(), transport=vendors.sendgrid.transport())
    kit.register_channel(SMSChannel("sms", provider=sms))
    kit.register_channel(WhatsAppChannel("whatsapp", provider=whatsapp))
    kit.register_channel(EmailChannel("email", provider=email))
    kit.register_channel(WebSocketChannel("web"))
    brain = OfflineBrain(first=0.0, delay=0.001)
    kit.register_channel(AIChannel("assistant", brain).configure(tools=[find_order, calculator]), default=True)

    @kit.on(ReplyFinished)
    async def note(notice: ReplyFinished) -> None:
        vendors.answered.set()


async def story(kit: RoomKit, vendors: Vendors, post: Post) -> str:
    """What happens; returns the room. `post` brings a signed webhook to our door."""
    for person in (
        Identity(id="ann", display_name="Ann", addresses={"phone": (ANN,)}),
        Identity(id="ben", display_name="Ben", addresses={"phone": (BEN,)}),
        Identity(id="cleo", display_name="Cleo", addresses={"email": (CLEO,)}),
    ):
        await kit.identities.put(person)

    # Ann writes to the shop's number. The signed webhook makes a room for her, with the AI in it.
    await post("sms", vendors.twilio.text(ANN, "Hi! Where is order 1042?"))
    await vendors.answered.wait()
    (room,) = await kit.list_rooms()

    # Ben and Cleo are asked in: a seat with an address is all that it takes. What they write finds this room.
    await kit.attach_channel(room.id, "whatsapp", metadata={"phone_number": BEN, "address": BEN}, participant_id="ben")
    await kit.attach_channel(room.id, "email", metadata={"email_address": CLEO, "address": CLEO}, participant_id="cleo")
    await kit.attach_channel(room.id, "web")
    await post("whatsapp", vendors.meta.text(BEN, "I share the desk with Ann. Is there a second lamp?"))
    await post("email", vendors.sendgrid.letter(f"Cleo <{CLEO}>", "Please send the bill to me.\n\nCleo"))

    # Dana sits at the web page, and the shop itself writes what no phone can show as it is.
    asked = InboundMessage.text("web", "dana", "What do 2 * 49.90 make?", participant_id="dana", sender_name="Dana")
    await (await kit.process_inbound(asked, room_id=room.id)).settled()
    for words in (COLOURS, CARE):
        said = await kit.send(room.id, words, metadata={"sender_name": "The shop"}, addressed_to=())
        await said.settled()

    # What the vendors tell afterwards.
    for report in vendors.meta.reports(vendors.meta.messages[-1], "sent", "delivered", "read"):
        await post("whatsapp", report)
    return room.id


async def main() -> None:
    kit, vendors = RoomKit(), Vendors()
    furnish(kit, vendors)
    app = kit.asgi(public_url=SHOP)
    async with kit, httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=SHOP) as door:

        async def post(channel: str, webhook: WebhookRequest) -> None:
            answer = await door.post(f"/webhooks/{channel}", content=webhook.body, headers=dict(webhook.headers))
            assert answer.status_code == 200, answer.text

        room_id = await story(kit, vendors, post)
        await tell(kit, vendors, room_id)


async def tell(kit: RoomKit, vendors: Vendors, room_id: str) -> None:
    print("the room")
    events = [event for event in await kit.events(room_id) if event.type is EventType.MESSAGE]
    for event in events:
        print(f"  {event.index:>2}  {event.source.channel_id:<9} {one_line(event.text)}")
    for event in events[-2:]:
        print(f"\nwhat arrived of: {one_line(event.text)}")
        states = {
            record.channel_id: record.state for record in await kit.deliveries(room_id, event.index, event.index + 1)
        }
        for one in await kit.shown(room_id, event.id):
            how = "as written" if one["same"] else "changed for this channel"
            print(f"  {one['channel_id']}: {how}, {one['count']} part(s), {states[one['channel_id']]}")
            for part in one["parts"] if not one["same"] else ():
                print(f"      {one_line(part.get('text') or part['type'])}")
    counts = len(vendors.twilio.messages), len(vendors.meta.messages), len(vendors.sendgrid.letters)
    print("\nsent: {} SMS, {} WhatsApp messages, {} letters".format(*counts))


def one_line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) < 90 else f"{words[:88]}…"


if __name__ == "__main__":
    asyncio.run(main())
