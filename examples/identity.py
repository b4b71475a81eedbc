"""Who is writing? An address book tells; a guard decides about those it does not know."""

from __future__ import annotations

import asyncio

from roomkit import InboundMessage, Modify, RoomKit
from roomkit.models.hooks import IdentityAnswer, IdentityQuestion
from roomkit.models.room import Identity
from roomkit.testing import FakeChannel

phone = FakeChannel("sms", "sms")
kit = RoomKit()
kit.register_channel(phone)


@kit.before(IdentityQuestion)
async def who_is_it(question: IdentityQuestion):
    if question.value.sender_id.startswith("+99"):
        return Modify(IdentityAnswer("reject", reason="numbers from there are not served"))
    newcomer = Identity(id=f"guest-{question.value.sender_id[-2:]}", display_name="New customer")
    return Modify(IdentityAnswer("create", identity=newcomer))


async def main() -> None:
    async with kit:
        ann = Identity(id="ann", display_name="Ann Lee", addresses={"sms": ("+15550101",)})
        await kit.identities.put(ann)
        for number in ("+15550101", "+15550177", "+15550177", "+99555"):
            result = await kit.process_inbound(InboundMessage.text("sms", number, "Hello"))
            if result.blocked:
                print(f"{number}: refused, {result.reason}")
                continue
            (person,) = await kit.participants(result.room_id)
            print(f"{number}: {person.display_name} ({person.id}, {person.identification})")
        print("known now:", (await kit.identities.find("default", "sms", "+15550177"))[0].id)


if __name__ == "__main__":
    asyncio.run(main())
