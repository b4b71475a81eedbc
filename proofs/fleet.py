"""Several server processes on one PostgreSQL, people at their sockets, and the verdict over what they saw."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from proofs.node import SECRET
from roomkit.cli.witness import Stored, Witness, guest_may_see, history_of
from roomkit.errors import StateError
from roomkit.net.room_client import ClientOptions, RoomClient
from roomkit.net.tokens import Tokens
from roomkit.testing.history import check_history
from roomkit.testing.postgres import PostgresCluster

START_S = 60.0
QUICK = ClientOptions(tail=200, backoff_s=0.05, max_backoff_s=0.3, frames=100_000)
LEASE_S = 2.0


@dataclass(slots=True)
class Node:
    """One server process, in all its lives: one port."""

    name: str
    url: str
    secret: str
    words: int = 20
    pause: float = 0.01
    port: int = 0
    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None
    _answers: dict[int, asyncio.Future[Any]] = field(default_factory=dict[int, asyncio.Future[Any]])
    _number: int = 0

    async def start(self) -> None:
        import sys

        arguments = (self.url, str(self.port), str(self.words), str(self.pause))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proofs.node", *arguments),
            env={**os.environ, SECRET: self.secret, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START_S)
        if not line.strip():
            raise RuntimeError(f"node {self.name} did not start")
        self.port = int(line)
        self._reading = asyncio.create_task(self._read(self._process.stdout))

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        while line := await stdout.readline():
            told = json.loads(line)
            future = self._answers.pop(told["number"], None)
            if future is not None and not future.done():
                future.set_result(told)

    async def ask(self, do: str, **more: Any) -> Any:
        """Has the process do something; returns what came of it."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._number += 1
        future = self._answers[self._number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"number": self._number, "do": do, "with": more}).encode() + b"\n")
        told = await future
        if "error" in told:
            raise RuntimeError(f"{do} at {self.name}: {told['error']}")
        return told["value"]

    def signal(self, what: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(what)

    async def ended(self) -> int:
        assert self._process is not None
        code = await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()
        return code

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.ended(), 30)
            except TimeoutError:
                self.signal(signal.SIGKILL)
                await self.ended()


class Person(Witness):
    """Comes in whenever a server lets them."""

    async def __aenter__(self) -> Self:
        self.client.start()
        self._scope.spawn(self._watch(), name=f"{self.name} watches")
        return self


@dataclass(slots=True)
class Fleet:
    """Three nodes on a schema of their own."""

    cluster: PostgresCluster
    names: tuple[str, ...] = ("a", "b", "c")
    words: int = 20
    pause: float = 0.01
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    people: dict[str, list[Person]] = field(default_factory=dict[str, list[Person]])
    _schema: str = ""
    _secret: str = ""
    _sql: Any = None
    _writing: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _quiet: bool = False

    async def __aenter__(self) -> Self:
        self._schema = f"f{secrets.token_hex(6)}"
        self._secret = secrets.token_urlsafe(24)
        url = f"{self.cluster.url}?schema={self._schema}"
        self.nodes = {name: Node(name, url, self._secret, self.words, self.pause) for name in self.names}
        first, *others = self.nodes.values()
        await first.start()
        await asyncio.gather(*(node.start() for node in others))
        connect: Callable[..., Awaitable[Any]] = vars(asyncpg)["connect"]
        self._sql = await connect(self.cluster.url, server_settings={"search_path": self._schema})
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._writing:
            task.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)
        for room in self.people.values():
            for person in room:
                await person.__aexit__()
        await asyncio.gather(*(node.end() for node in self.nodes.values()))
        await self._sql.close()

    async def sql(self, query: str, *args: Any) -> list[Any]:
        return [tuple(row) for row in await self._sql.fetch(query, *args)]

    async def owned(self) -> Counter[str]:
        """How many rooms each address has."""
        rows = await self.sql("SELECT n.address FROM leases l JOIN nodes n ON n.id = l.node WHERE l.tenant <> ''")
        return Counter(address for (address,) in rows)

    # -- people -------------------------------------------------------------------------------------------------------

    async def person(self, room_id: str, node: str, *, writes: bool, pause: float = 0.0) -> Person:
        people = self.people.setdefault(room_id, [])
        name = f"{room_id}-{len(people)}-at-{node}"
        token = Tokens([self._secret]).mint("guest", room_id, 86_400, id=name)
        url = f"ws://127.0.0.1:{self.nodes[node].port}/socket"
        person = Person(name, RoomClient(url, room_id, token, QUICK))
        await person.__aenter__()
        people.append(person)
        if writes:
            self._writing.append(asyncio.create_task(self._write(person, pause)))
        return person

    async def _write(self, person: Person, pause: float) -> None:
        with suppress(StateError):
            while not self._quiet:
                await person.say(f"message {len(person.acks)} of {person.name}")
                await asyncio.sleep(pause)

    async def hush(self, within: float = 60.0) -> None:
        """Nobody writes any more; what was sent gets its answer, and everybody sees the end of each log."""
        self._quiet = True
        async with asyncio.timeout(within):
            await asyncio.gather(*self._writing)
            while await self.sql("SELECT 1 FROM records WHERE kind IN ('turn', 'stream', 'outbox') LIMIT 1"):
                await asyncio.sleep(0.05)
            for room_id, people in self.people.items():
                events = (await self.stored(room_id)).events  # All alike may only say that nobody was told of the end.
                end = max((event["index"] for event in events if guest_may_see(event)), default=-1)
                while any(max((e["index"] for e in one.seen), default=-1) < end for one in people):
                    await asyncio.sleep(0.05)

    # -- the verdict --------------------------------------------------------------------------------------------------

    async def stored(self, room_id: str) -> Stored:
        """What the tables say at one moment, read without the server's code."""
        async with self._sql.transaction(isolation="repeatable_read", readonly=True):
            rows = await self.sql("SELECT idx, id, body FROM events WHERE room_id = $1 ORDER BY idx", room_id)
            ((head,),) = await self.sql("SELECT next_index FROM heads WHERE room_id = $1", room_id)
            left = await self.sql(
                "SELECT kind, count(*) FROM records WHERE room_id = $1 AND kind IN ('turn', 'stream', 'outbox') "
                "GROUP BY kind",
                room_id,
            )
        events = [
            {
                **(event := json.loads(body)),
                "index": index,
                "id": key,
                "agrees": (event["index"], event["id"]) == (index, key),
            }
            for index, key, body in rows
        ]
        return Stored(events, head, "ok", dict(left))

    async def verdict(self) -> tuple[list[str], Counter[str]]:
        """When all is quiet: everything that is wrong in the rooms with people, and the figures."""
        wrong: list[str] = []
        figures: Counter[str] = Counter()
        for room_id, people in self.people.items():
            stored = await self.stored(room_id)
            wrong += log_of(room_id, stored)
            history: list[Mapping[str, Any]] = history_of(room_id, stored, people)
            wrong += [str(violation) for violation in check_history(history)]
            times = Counter(event["metadata"].get("client_id") for event in stored.events)
            for person in people:
                for ack in person.acks:
                    if times[ack["client_id"]] != 1:
                        wrong.append(f"message {ack['client_id']} is stored {times[ack['client_id']]} times")
                over = {event["id"] for event in person.seen}
                wrong += [
                    f"{person.name} never saw the end of reply {stream}"
                    for stream, grown in person.growing.items()
                    if grown.ended_at is None and stream not in over and any(e["id"] == stream for e in stored.events)
                ]
                figures["seen"] += len(person.seen)
                figures["resumed"] += person.resumed
                figures["acknowledged"] += len(person.acks)
            figures["events"] += len(stored.events)
            figures["interrupted"] += sum(e["metadata"].get("end_reason") == "interrupted" for e in stored.events)
        return wrong, figures


def log_of(room_id: str, stored: Stored) -> list[str]:
    """Whether a log has no gap, and was written by one owner after the other."""
    wrong = [f"{count} {kind} rows are left open in {room_id}" for kind, count in stored.unsettled.items()]
    if [event["index"] for event in stored.events] != list(range(stored.next_index)):
        wrong.append(f"the indexes of {room_id} have a gap, or do not end at its head")
    if not all(event["agrees"] for event in stored.events):
        wrong.append(f"an event of {room_id} is not what its row says")
    newest, writers = 0, dict[int, int]()
    for event in stored.events:
        epoch, pid = event["metadata"].get("epoch"), event["metadata"].get("pid")
        if epoch is None:
            continue
        if epoch < newest:
            wrong.append(f"{room_id}[{event['index']}] was written under epoch {epoch} after epoch {newest} had begun")
        newest = max(newest, epoch)
        if writers.setdefault(epoch, pid) != pid:
            wrong.append(f"{room_id}[{event['index']}]: two processes have written under epoch {epoch}")
    return wrong
