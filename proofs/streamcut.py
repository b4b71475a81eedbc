"""A reply is streamed to three people, and the server is killed between two of its chunks: at each of them in turn."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proofs.judge import open_rows, verdict
from proofs.kill9 import CLOSED_S, Proof
from proofs.patience import patience
from proofs.world import Person, World
from roomkit.cli.witness import guest_may_see, read_room, text_of
from roomkit.protocols.room_socket.messages import (
    EventFrame,
    Resumed,
    ServerFrame,
    Snapshot,
    StreamEndFrame,
    StreamErrorFrame,
    StreamStartFrame,
)

TITLE = "the server is killed between two chunks of a reply that three people watch"
CHUNKS = 200
PAUSE_S = 0.002
AFTER_S = (0.0, 0.0, 0.005, 0.05, 0.4)
"""How long a chunk was out when the server died: up to more than it takes to be kept."""
ROOM = "r"
ERA = 25


@dataclass(slots=True)
class Screen:
    """What a person has before their eyes: the replies that are growing, and how each that ended has ended."""

    growing: set[str] = field(default_factory=set[str])
    ended: Counter[str] = field(default_factory=Counter[str])
    texts: dict[str, str] = field(default_factory=dict[str, str])

    def note(self, frame: ServerFrame) -> None:
        match frame:
            case Snapshot() | Resumed():
                self.growing = {stream.stream_id for stream in frame.streams}
                for event in frame.events:
                    self._end(event)
            case StreamStartFrame():
                self.growing.add(frame.stream_id)
            case StreamErrorFrame():
                self.growing.discard(frame.stream_id)
                self.ended[frame.stream_id] += 1
            case EventFrame() | StreamEndFrame():
                self._end(frame.event)
            case _:
                pass

    def _end(self, event: dict[str, Any]) -> None:
        if event["type"] == "message" and event["source"]["channel_id"] == "ai":
            self.growing.discard(event["id"])
            self.ended[event["id"]] += 1
            self.texts[event["id"]] = text_of(event)


@dataclass(slots=True)
class Watcher(Person):
    """A person whose screen we see."""

    screen: Screen = field(default_factory=Screen)

    def note(self, frame: ServerFrame) -> None:
        Person.note(self, frame)
        self.screen.note(frame)


async def prove(n: int, seed: int, chunks: int = CHUNKS) -> Proof:
    """`n` deaths, spread over all borders between `chunks` chunks; each border once when `n` is `chunks`."""
    proof, dice = Proof(), random.Random(seed)
    borders = (
        [number * chunks // n for number in range(n)] if n <= chunks else [dice.randrange(chunks) for _ in range(n)]
    )
    for start in range(0, n, ERA):
        with tempfile.TemporaryDirectory(prefix="roomkit-streamcut-") as folder:
            async with World(Path(folder), [ROOM], 0, ("web", "ai"), chunks, PAUSE_S, tools=False) as world:
                await _era(world, proof, dice, borders[start : start + ERA])
        if proof.wrong:
            break
    return proof


async def _era(world: World, proof: Proof, dice: random.Random, borders: list[int]) -> None:
    await world.server.start()
    people = [await world.person(ROOM, number, Watcher) for number in range(3)]
    for border in borders:
        after = dice.choice(AFTER_S)
        before = len(proof.wrong)
        asking = asyncio.create_task(
            dice.choice(people).say(f"Question: end life {world.server.life} at chunk {border} after {after} s")
        )
        if not await world.server.died(60):
            proof.wrong.append("the server never came to that chunk")
            return
        proof.figures["deaths"] += 1
        await world.server.start()
        ready = time.monotonic()
        await asyncio.wait_for(asking, 60)
        await _settled(world, people, proof, ready)
        _compare(world, people, proof)
        proof.wrong[before:] = [f"chunk {border}, {after} s after it: {what}" for what in proof.wrong[before:]]
    wrong, figures = verdict(world)
    proof.wrong += wrong
    proof.figures += Counter({name: figures[name] for name in ("replies", "interrupted", "resumed", "withdrawn")})


async def _settled(world: World, people: list[Watcher], proof: Proof, ready: float) -> None:
    """Waits until nothing grows on any screen, and everybody has the whole log."""
    limit = CLOSED_S * patience()
    while _moving(world, people):
        if time.monotonic() - ready > limit:
            proof.wrong.append(f"not at rest {limit:.1f} s after the restart: {_moving(world, people)}")
            return
        await asyncio.sleep(0.01)
    proof.took("from restart to the end of the reply", time.monotonic() - ready)


def _moving(world: World, people: list[Watcher]) -> str:
    for kind in ("turn", "stream"):
        if rows := open_rows(world.server.db, kind):
            return f"{len(rows)} {kind} rows are open"
    head = max(e["index"] for e in read_room(world.server.db, ROOM).events if guest_may_see(e))
    for one in people:
        if not one.client.live or one.client.position < head:
            return f"{one.name} is at {one.client.position} of {head}"
        if one.screen.growing:
            return f"{one.name} sees {len(one.screen.growing)} replies grow"
    return ""


def _compare(world: World, people: list[Watcher], proof: Proof) -> None:
    """Each reply in the log ended once on each screen, with the words of the log; nothing else did."""
    stored = read_room(world.server.db, ROOM).events
    replies = {e["id"]: text_of(e) for e in stored if e["type"] == "message" and e["source"]["channel_id"] == "ai"}
    for one in people:
        for reply, text in replies.items():
            if one.screen.ended[reply] != 1:
                proof.wrong.append(f"{one.name} saw reply {reply} end {one.screen.ended[reply]} times")
            elif one.screen.texts.get(reply) != text:
                proof.wrong.append(f"{one.name} reads another text of {reply} than the log has")
        if strange := set(one.screen.texts).difference(replies):
            proof.wrong.append(f"{one.name} reads replies that are not in the log: {strange}")
    asked = [e for e in stored if e["type"] == "message" and e["source"]["channel_id"] == "web"]
    heard = {e["index"] for e in stored if e["source"]["channel_id"] == "ai" or e["type"] == "system"}
    for question, following in zip(asked, [*asked[1:], None], strict=True):
        end = following["index"] if following is not None else len(stored)
        if not heard.intersection(range(question["index"] + 1, end)):
            proof.wrong.append(f"question {question['id']} was never answered, nor told to be lost")
