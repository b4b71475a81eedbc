"""What a proof acts on: a server in a process of its own, the vendor behind it, and people at room sockets."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import roomkit
from proofs.server import SECRET
from roomkit.cli.witness import Witness
from roomkit.errors import StateError
from roomkit.net.room_client import ClientOptions, RoomClient
from roomkit.net.tokens import Tokens

START_S = 60.0
QUICK = ClientOptions(tail=200, backoff_s=0.05, max_backoff_s=0.3, frames=100_000)


async def _spawn(*arguments: str, **environment: str) -> tuple[asyncio.subprocess.Process, int | None]:
    """Starts one of our modules; returns it with the port it prints, None when it ended without."""
    root = str(Path(roomkit.__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        env={**os.environ, "PYTHONPATH": paths, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), START_S)
    return process, int(line) if line.strip() else None


class Server:
    """All lives of one server: one file, one port."""

    def __init__(self, folder: Path, rooms: list[str], sink_port: int) -> None:
        self.db = folder / "rooms.db"
        self.secret = secrets.token_urlsafe(24)
        self.life = 0
        self.port = 0
        self._rooms = rooms
        self._sink_port = sink_port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, crash_at: str | None = None) -> bool:
        """Starts the next life; False when it died before it served."""
        self.life += 1
        environment = {SECRET: self.secret}
        if crash_at is not None:
            environment["ROOMKIT_CRASH_AT"] = crash_at
        arguments = ("proofs.server", str(self.db), str(self.port), str(self._sink_port), str(self.life), *self._rooms)
        self._process, port = await _spawn(*arguments, **environment)
        self.port = port or self.port
        return port is not None

    async def kill(self) -> None:
        """kill -9: it gets to do nothing any more."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def died(self, within: float) -> bool:
        """Waits until it has killed itself."""
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), within) == -signal.SIGKILL
        except TimeoutError:
            return False

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 20)
            await self.kill()


class Person(Witness):
    """Comes in whenever the server lets them."""

    async def __aenter__(self) -> Self:
        self.client.start()
        self._scope.spawn(self._watch(), name=f"{self.name} watches")
        return self


@dataclass(slots=True)
class World:
    """A server with its vendor and, in each of its rooms, people who write as fast as they are acknowledged.

    The first one in each room only listens."""

    folder: Path
    rooms: list[str]
    writers: int = 2
    server: Server = field(init=False)
    people: dict[str, list[Person]] = field(default_factory=dict[str, list[Person]])
    _vendor: asyncio.subprocess.Process | None = None
    _writing: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _quiet: bool = False

    @property
    def sink(self) -> Path:
        return self.folder / "sink.jsonl"

    async def __aenter__(self) -> Self:
        self._vendor, port = await _spawn("proofs.sink", str(self.sink))
        assert port is not None
        self.server = Server(self.folder, self.rooms, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()
        await self.server.end()
        if self._vendor is not None:
            self._vendor.kill()
            await self._vendor.wait()

    async def enter(self) -> None:
        """People come in and begin to write."""
        tokens = Tokens([self.server.secret])
        url = f"ws://127.0.0.1:{self.server.port}/socket"
        for room_id in self.rooms:
            for number in range(self.writers + 1):
                name = f"{room_id}-{number}"
                token = tokens.mint("guest", room_id, 86_400, id=name)
                person = Person(name, RoomClient(url, room_id, token, QUICK))
                await person.__aenter__()
                self.people.setdefault(room_id, []).append(person)
                if number:
                    self._writing.append(asyncio.create_task(self._write(person)))

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
