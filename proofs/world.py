"""What a proof acts on: a server in a process of its own, the vendor behind it, and people at room sockets."""

from __future__ import annotations

import asyncio
import secrets
import signal
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, TypeVar

from proofs.nursery import Life, Nursery, spawn_module
from proofs.server import Plan
from roomkit.cli.witness import Witness
from roomkit.errors import StateError
from roomkit.net.room_client import ClientOptions, RoomClient
from roomkit.net.tokens import Tokens

START_S = 60.0
QUICK = ClientOptions(tail=200, backoff_s=0.05, max_backoff_s=0.3, frames=100_000)


class Server:
    """All lives of one server: one file, one port."""

    def __init__(self, nursery: Nursery, plan: Plan) -> None:
        self.db = Path(plan.db)
        self.plan = plan
        self.life = 0
        self._nursery = nursery
        self._alive: Life | None = None

    @property
    def port(self) -> int:
        return self.plan.port

    @property
    def pid(self) -> int:
        assert self._alive is not None
        return self._alive.pid.result()

    @property
    def alive(self) -> bool:
        return self._alive is not None and not self._alive.ended.done()

    async def start(self, crash_at: str | None = None) -> bool:
        """Starts the next life; False when it died before it served."""
        self.life += 1
        self._alive = await self._nursery.bear(replace(self.plan, life=self.life), crash_at)
        port = self._alive.port.result()
        self.plan = replace(self.plan, port=port or self.plan.port)
        return port is not None

    async def kill(self) -> None:
        """kill -9: it gets to do nothing any more."""
        assert self._alive is not None
        self._alive.kill()
        await self._alive.ended

    async def died(self, within: float) -> bool:
        """Waits until it has killed itself."""
        assert self._alive is not None
        try:
            return await asyncio.wait_for(asyncio.shield(self._alive.ended), within) == -signal.SIGKILL
        except TimeoutError:
            return False

    async def end(self) -> None:
        if self._alive is not None and not self._alive.ended.done():
            self._alive.kill(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._alive.ended), 20)
            await self.kill()


class Person(Witness):
    """Comes in whenever the server lets them."""

    async def __aenter__(self) -> Self:
        self.client.start()
        self._scope.spawn(self._watch(), name=f"{self.name} watches")
        return self


Someone = TypeVar("Someone", bound=Person)


@dataclass(slots=True)
class World:
    """A server with its vendor and, in each of its rooms, people who write as fast as they are acknowledged.

    The first one in each room only listens."""

    folder: Path
    rooms: list[str]
    writers: int = 2
    channels: tuple[str, ...] = ("web", "sink", "ai")
    words: int = 20
    pause: float = 0.01
    tools: bool = True
    server: Server = field(init=False)
    people: dict[str, list[Person]] = field(default_factory=dict[str, list[Person]])
    _vendor: asyncio.subprocess.Process | None = None
    _nursery: Nursery = field(default_factory=Nursery)
    _writing: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _quiet: bool = False

    @property
    def sink(self) -> Path:
        return self.folder / "sink.jsonl"

    async def __aenter__(self) -> Self:
        self._vendor = await spawn_module("proofs.sink", str(self.sink))
        assert self._vendor.stdout is not None
        port = int(await asyncio.wait_for(self._vendor.stdout.readline(), START_S))
        await self._nursery.__aenter__()
        plan = Plan(
            db=str(self.folder / "rooms.db"),
            secret=secrets.token_urlsafe(24),
            rooms=tuple(self.rooms),
            channels=self.channels,
            sink_port=port,
            words=self.words,
            pause=self.pause,
            tools=self.tools,
        )
        self.server = Server(self._nursery, plan)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()
        await self.server.end()
        await self._nursery.__aexit__()
        if self._vendor is not None:
            self._vendor.kill()
            await self._vendor.wait()

    async def enter(self) -> None:
        """People come in and begin to write."""
        for room_id in self.rooms:
            for number in range(self.writers + 1):
                person = await self.person(room_id, number)
                if number:
                    self._writing.append(asyncio.create_task(self._write(person)))

    async def person(self, room_id: str, number: int, kind: type[Someone] = Person) -> Someone:
        """One more in a room."""
        name = f"{room_id}-{number}"
        token = Tokens([self.server.plan.secret]).mint("guest", room_id, 86_400, id=name)
        person = kind(name, RoomClient(f"ws://127.0.0.1:{self.server.port}/socket", room_id, token, QUICK))
        await person.__aenter__()
        self.people.setdefault(room_id, []).append(person)
        return person

    async def _write(self, person: Witness) -> None:
        with suppress(StateError):  # Closed with a message on its way: it may be stored or not.
            while not self._quiet:
                await person.say(f"message {len(person.acks)} of {person.name}")

    async def hush(self) -> None:
        """Nobody writes any more; what was sent gets its answer."""
        self._quiet = True
        await asyncio.wait_for(asyncio.gather(*self._writing), 60)

    async def leave(self) -> None:
        for room in self.people.values():
            for person in room:
                await person.__aexit__()
        for task in self._writing:
            task.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)
