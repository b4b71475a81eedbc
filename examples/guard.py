"""Guards look at what is about to be written, change it or stop it. What was stopped is kept and marked, and unseen."""

from __future__ import annotations

import asyncio
import re

from roomkit import BeforeCommit, Block, EventType, Modify, RoomKit, TextContent

kit = RoomKit()
CARD = re.compile(r"\b(?:\d[ -]?){13,16}\b")


@kit.on_message
async def reply(ctx, message):
    return f"You said: {message.text}"


@kit.before(BeforeCommit, priority=-10, on_error="block")
def no_spam(moment):
    if "free money" in moment.value.text.casefold():
        return Block("looks like spam")
    return None


@kit.before(BeforeCommit, on_error="block")
def hide_cards(moment):
    if CARD.search(moment.value.text):
        hidden = CARD.sub("[card number]", moment.value.text)
        return Modify(moment.value.model_copy(update={"content": TextContent(text=hidden)}))
    return None


async def main() -> None:
    async with kit:
        room = await kit.create_room(channels=["app"])
        for text in ("Hello", "FREE MONEY here!", "My card is 4111 1111 1111 1111"):
            result = await kit.send(room.id, text, by="ann")
            print(f"{text!r:36} -> {'blocked: ' + result.reason if result.blocked else result.event.text!r}")
            await result.settled()
        print()
        for event in await kit.events(room.id, raw=True):
            if event.type is EventType.MESSAGE:
                mark = f"   (blocked by {event.blocked_by}: {event.blocked_reason})" if event.blocked else ""
                print(f"{event.index:>2}  {event.source.channel_id:<5} {event.text}{mark}")


if __name__ == "__main__":
    asyncio.run(main())
