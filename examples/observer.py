"""Observers hear what has happened. They run beside the room: a slow or broken one costs the room nothing."""

from __future__ import annotations

import asyncio

from roomkit import Committed, EventType, RoomKit
from roomkit.models.hooks import HookFailed, ReplyFinished

kit = RoomKit()
counted: dict[str, int] = {}
heard = asyncio.Event()


@kit.on_message
async def reply(ctx, message):
    return "Noted."


@kit.on(Committed)
async def count(notice: Committed) -> None:
    counted[notice.event.type] = counted.get(notice.event.type, 0) + 1


@kit.on(Committed)
async def broken(notice: Committed) -> None:
    if notice.event.type is EventType.MESSAGE and notice.event.text == "Hello":
        raise RuntimeError("the dashboard is down")


@kit.on(HookFailed)
async def tell(notice: HookFailed) -> None:
    print(f"an observer failed ({notice.error}); the room did not notice")


@kit.on(ReplyFinished)
async def timed(notice: ReplyFinished) -> None:
    print(f"{notice.channel_id} answered {notice.event.text!r} ({notice.reason})")
    heard.set()


async def main() -> None:
    async with kit:
        room = await kit.create_room()
        result = await kit.send(room.id, "Hello", by="ann")
        await result.settled()
        await heard.wait()
        print("events by type:", counted)


if __name__ == "__main__":
    asyncio.run(main())
