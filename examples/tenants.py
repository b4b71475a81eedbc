"""Two tenants share one kit, even ids, and never see each other."""

from __future__ import annotations

import asyncio

from roomkit import InboundMessage, RoomKit, WebSocketChannel
from roomkit.errors import RoomNotFound

kit = RoomKit()
acme, globex = kit.tenant("acme"), kit.tenant("globex")
acme.register_channel(WebSocketChannel("acme-web"))
globex.register_channel(WebSocketChannel("globex-web"))


async def main() -> None:
    async with kit:
        for tenant, channel in ((acme, "acme-web"), (globex, "globex-web")):
            await tenant.create_room("lobby", channels=[channel])
            message = InboundMessage.text(channel, "ann", f"hello {tenant.tenant_id}", external_id="1")
            await tenant.process_inbound(message, room_id="lobby")
        for tenant in (acme, globex):
            events = await tenant.events("lobby")
            print(f"{tenant.tenant_id:<7} {[room.id for room in await tenant.list_rooms()]} {events[-1].text!r}")
        print("the bare kit is the default tenant and has", await kit.list_rooms())
        try:
            await kit.get_room("lobby")
        except RoomNotFound as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(main())
