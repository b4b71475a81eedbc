"""One of several server processes on one PostgreSQL: `python -m proofs.node URL PORT WORDS PAUSE` (its token secret in
the environment). It prints its port when it serves, then does what its standard input tells, a line of JSON each."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Any

from proofs.server import UNLIMITED
from roomkit import AIChannel, Allow, BeforeCommit, KitOptions, RoomKit, WebSocketChannel
from roomkit.cli.serving import Serving, listen
from roomkit.errors import RoomKitError
from roomkit.ports.node import NodeOptions
from roomkit.servers import node, run  # noqa: F401 - loaded now, so that it does not stall the loop later
from roomkit.testing.ai import ScriptedAI

SECRET = "ROOMKIT_PROOF_SECRET"
AT_ONCE = 200


class Hands:
    """What the proof asks of this process."""

    def __init__(self, kit: RoomKit) -> None:
        self.kit = kit
        self._hammering: list[asyncio.Task[None]] = []

    async def create(self, rooms: list[str], channels: list[str]) -> int:
        await _each(rooms, lambda room: self.kit.create_room(room, channels=channels))
        return len(rooms)

    async def serve(self, rooms: list[str], name: str) -> list[float]:
        """One message into each room, by this process; when each was taken (Unix time)."""
        done: list[float] = []

        async def one(room: str) -> None:
            await self.kit.send(room, f"{name} in {room}")
            done.append(time.time())

        await _each(rooms, one)
        return done

    async def hammer(self, rooms: list[str]) -> int:
        """From now on a message is always on its way into each room."""

        async def go_on(room: str) -> None:
            number = 0
            while True:
                number += 1
                try:
                    await self.kit.send(room, f"{number} of {os.getpid()}")
                except RoomKitError:
                    await asyncio.sleep(0.01)

        self._hammering = [asyncio.create_task(go_on(room)) for room in rooms]
        return len(rooms)

    async def rest(self) -> dict[str, float]:
        for task in self._hammering:
            task.cancel()
        await asyncio.gather(*self._hammering, return_exceptions=True)
        return dict(self.kit.engine.counters)

    async def counters(self) -> dict[str, float]:
        return dict(self.kit.engine.counters)


async def _each(rooms: Iterable[str], work: Any) -> None:
    waiting = iter(rooms)

    async def worker() -> None:
        for room in waiting:
            await work(room)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def _obey(hands: Hands) -> None:
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    doing: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(_do(hands, json.loads(line)))
        doing.add(task)
        task.add_done_callback(doing.discard)


async def _do(hands: Hands, told: dict[str, Any]) -> None:
    try:
        answer: dict[str, Any] = {"value": await getattr(hands, told["do"])(**told["with"])}
    except Exception as error:  # noqa: BLE001 - the proof is told
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({"number": told["number"], **answer}), flush=True)


async def main(url: str, port: int, words: int, pause: float) -> int:
    listener = listen("127.0.0.1", port)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    kit = RoomKit(url, token_secrets=[os.environ[SECRET]], options=KitOptions(node=NodeOptions(address)))
    brain = ScriptedAI(lambda _request: [f"word{number} " for number in range(words)], repeat=True, delay=pause)
    for channel in (WebSocketChannel("web"), AIChannel("ai", brain)):
        kit.register_channel(channel)

    @kit.before(BeforeCommit)
    async def mark(moment: BeforeCommit) -> Allow:  # pyright: ignore[reportUnusedFunction]
        """Who writes, and under which lease."""
        actor = kit.engine.table.loaded("default", moment.room.id)
        return Allow(metadata={"epoch": actor.epoch if actor is not None else 0, "pid": os.getpid()})

    app = kit.asgi(limits=UNLIMITED, pages=False, max_connections_per_principal=10_000)
    async with kit:
        serving = Serving(app, listener)
        serving.quietly = True
        obeying = asyncio.create_task(_obey(Hands(kit)))
        try:
            return await serving.run(lambda: print(listener.getsockname()[1], flush=True))
        finally:
            obeying.cancel()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
