"""What RCS cannot deliver goes by SMS, once: refused at once, or reported as failed later, however often.

Needs the [server,telnyx] extras.
"""

from __future__ import annotations

import asyncio

from roomkit import RoomKit
from roomkit.channels import RCSChannel
from roomkit.providers.telnyx.rcs import TelnyxRCSProvider
from roomkit.testing import VirtualClock, run
from roomkit.testing.vendors.telnyx import FakeTelnyx

vendor = FakeTelnyx()  # takes the account's place; for the real one: RCSChannel("rcs", provider="telnyx")
provider = TelnyxRCSProvider(vendor.options(), clock=VirtualClock(), transport=vendor.transport())
kit = RoomKit(clock=VirtualClock())
kit.register_channel(RCSChannel("rcs", provider=provider))


async def tell(room: str, text: str) -> None:
    await (await kit.send(room, text)).settled()
    print(f"to {room}: {text!r} is sent as {vendor.messages[-1].kind}")


async def main() -> None:
    async with kit:
        for room, number in (("ann", "+15550101"), ("bob", "+15550102")):
            await kit.create_room(room, channels=[])
            await kit.attach_channel(room, "rcs", metadata={"phone_number": number})
        vendor.no_rcs.add("+15550102")
        await tell("ann", "Your lamp is on its way")
        await tell("bob", "Your chair is on its way")

        failed = vendor.reports(vendor.messages[0], "delivery_failed", error="40008")[0]
        for _ in range(3):
            provider.verify(failed)
            for report in provider.parse(failed, "rcs"):
                await kit.delivery_status(report)
        await asyncio.sleep(1)
        print(
            f"the vendor reports three times that it failed: {[m.kind for m in vendor.messages if m.to.endswith('1')]}"
        )
        for room in ("ann", "bob"):
            (delivery,) = await kit.deliveries(room)
            told = delivery.details
            print(f"{room}: {delivery.state} by {told['via']} ({told['instead_of']})")
    await provider.aclose()


if __name__ == "__main__":
    run(main())
