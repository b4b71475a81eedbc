"""WhatsApp's 24 hours: known from the room's own log; what comes later is refused unsent, or goes as a template."""

from __future__ import annotations

import asyncio

from roomkit import RoomKit
from roomkit.channels import WhatsAppChannel
from roomkit.models.content import TemplateContent
from roomkit.providers.meta.whatsapp import MetaWhatsAppProvider, WhatsAppOptions
from roomkit.testing import VirtualClock, run
from roomkit.testing.vendors.meta import FakeMeta

HOURS = 3600
ADA = "+15550123"


async def main() -> None:
    meta = FakeMeta()  # a real account: WhatsAppChannel("whatsapp", provider="meta")
    options = WhatsAppOptions(templates=("hello_world",))
    provider = MetaWhatsAppProvider(meta.whatsapp_options(), options, transport=meta.transport())
    kit = RoomKit(clock=VirtualClock())
    kit.register_channel(WhatsAppChannel("whatsapp", provider=provider))
    async with kit:
        (hello,) = provider.parse(meta.text(ADA, "Is my lamp there?"), "whatsapp")
        room = (await kit.process_inbound(hello)).room_id
        await (await kit.send(room, "Not yet, I will tell you")).settled()
        print("within the window:", meta.messages[-1].body["text"]["body"])

        await asyncio.sleep(25 * HOURS)
        await (await kit.send(room, "It is here")).settled()
        record = (await kit.deliveries(room))[-1]
        print("after it:", record.state, "-", record.reason)

        await (await kit.send(room, TemplateContent(template_id="hello_world", fallback="It is here"))).settled()
        print("as a template:", meta.messages[-1].body["template"]["name"])


if __name__ == "__main__":
    run(main())
