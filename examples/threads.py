"""Rooms from other threads (Django, Celery, a script): `kit.call` runs a method on the kit's loop and waits for it."""

from __future__ import annotations

import asyncio
import threading

from roomkit import RoomKit

kit = RoomKit()
started = threading.Event()
stop = asyncio.Event()


@kit.on_message
def reply(ctx, message):  # a plain function: it runs in a pool of threads and may block
    return f"You said: {message.text}"


async def serve() -> None:
    async with kit:
        started.set()
        await stop.wait()


async def ask(text: str) -> list[str]:
    room = await kit.create_room()
    result = await kit.send(room.id, text, by="a worker")
    await result.settled()
    return [event.text for event in await kit.events(room.id) if event.text]


def main() -> None:
    loop = threading.Thread(target=lambda: asyncio.run(serve()))
    loop.start()
    started.wait()
    for number in range(3):  # this thread has no event loop at all
        print(kit.call(ask, f"job {number}").result(timeout=10))

    async def end() -> None:
        stop.set()

    kit.call(end).result(timeout=10)
    loop.join()


if __name__ == "__main__":
    main()
