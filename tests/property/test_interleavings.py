"""Many clients at once on a loop that shuffles who goes first: the history that comes out keeps every promise."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from roomkit import InboundMessage, KitOptions, Modify, RoomKit, TurnPolicy
from roomkit.core.streams import INTERNAL
from roomkit.errors import RoomClosed, StateError, StoreUnavailable
from roomkit.models.content import TextContent
from roomkit.models.event import RoomEvent
from roomkit.models.hooks import BeforeCommit, Moment
from roomkit.models.stream import StreamChunk, StreamEnd, StreamError, StreamStart
from roomkit.testing import FakeChannel, VirtualClock, check_history
from roomkit.testing.loop import run
from tests.core.faults import FaultyStore
from tests.core.rooms import Brain, stream

SEEDS = 300
ROOMS = ("r0", "r1", "r2")


class Moody(FaultyStore):
    """Every commit takes its own time; some are refused."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance

    async def commit(self, batch: Any) -> Any:
        self.delay = self.chance.choice((0.0, 0.0, 0.01, 0.2))
        self.judge = (lambda _: True) if self.chance.random() < 0.03 else None
        return await super().commit(batch)


class World:
    """One schedule: what clients did and were told, as records of `roomkit.testing.history`."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.records: list[dict[str, Any]] = []
        self.results: list[Any] = []
        self.views: list[tuple[str, str, list[Any]]] = []
        self.store = Moody(self.chance)
        self.outs = {name: FakeChannel(name, temper=self.temper) for name in ("sms", "mail")}
        web = FakeChannel("web")
        web.reach = "cursor"
        brain = Brain(script=self.script)
        brain.turn_policy = TurnPolicy(self.chance.choice(("coalesce", "queue", "interrupt")))
        options = KitOptions(resident_rooms=self.chance.choice((1, 100)))
        self.kit = RoomKit(self.store, clock=VirtualClock(), options=options)
        for channel in (*self.outs.values(), web, brain):
            self.kit.register_channel(channel)
        self.kit.before(BeforeCommit)(self.guard)

    def temper(self, event: RoomEvent, number: int) -> Any:
        return self.chance.choice((None, None, 0.05, 3.0))

    async def guard(self, moment: Moment[Any]) -> Modify | None:
        await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.1, 1.0)))
        if moment.value.text and self.chance.random() < 0.1:
            return Modify(moment.value.replaced(content=TextContent(text=moment.value.text + "!")))
        return None

    def script(self, context: Any, event: RoomEvent) -> Any:
        if self.chance.random() < 0.1:
            raise RuntimeError("the brain broke")
        return stream(*event.text.split(), "ok", every=self.chance.choice((0.0, 0.05, 0.5)))

    async def nap(self) -> None:
        await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.01, 0.3, 2.0)))

    async def client(self, name: str) -> None:
        for number in range(6):
            await self.nap()
            room, channel = self.chance.choice(ROOMS), self.chance.choice(("sms", "mail", "web"))
            message = InboundMessage.text(channel, name, f"{name} {number}", external_id=f"{name}{number}")
            call = self.say(name, room, message)
            if self.chance.random() < 0.3:
                await asyncio.gather(call, self.say(name, room, message))
            else:
                await call

    async def say(self, name: str, room: str, message: InboundMessage) -> None:
        """As a vendor does: what was not acknowledged is brought again, under the same id."""
        while True:
            sent = asyncio.get_running_loop().time()
            task = asyncio.ensure_future(self.kit.process_inbound(message, room_id=room))
            if self.chance.random() < 0.1:
                await self.nap()
                task.cancel()
            try:
                result = await task
            except (StateError, StoreUnavailable, asyncio.CancelledError):
                continue
            break
        self.results.append(result)
        if result.event is None:
            assert result.reason == "room_closed"
            return
        acked = asyncio.get_running_loop().time()
        # The answer to a repetition tells when the first one was stored at the latest, not when it was sent.
        if not result.duplicate:
            self.record("ack", result.event, client=name, sent_at=sent, acked_at=acked)

    def record(self, kind: str, event: RoomEvent, **more: Any) -> None:
        self.records.append({"kind": kind, "room": event.room_id, "index": event.index, "event_id": event.id, **more})

    async def supervisor(self, who: str) -> None:
        for _ in range(5):
            await self.nap()
            room = self.chance.choice(ROOMS)
            try:
                await self.chance.choice(deeds(self.kit, room, who))()
            except (RoomClosed, StateError, StoreUnavailable):
                pass  # told, and nothing has changed

    async def viewer(self, name: str) -> None:
        """Comes, goes, and comes back to where it was."""
        room = self.chance.choice(ROOMS)
        items: list[Any] = []
        self.views.append((name, room, items))
        last: int | None = None
        for _ in range(3):
            live: list[Any] = []
            after = -1 if last is None else last
            view = await self.kit.open_view(room, INTERNAL, live.append, after=after)
            items += view.events
            known = {start.stream_id: len(text) for start, text in view.streams}
            last = view.index
            await self.nap()
            await self.nap()
            view.close()
            items += live
            events = [i for i in (i.event if isinstance(i, StreamEnd) else i for i in live) if isinstance(i, RoomEvent)]
            last = max([last, *(e.index for e in events)])
            grown(live, known)

    async def live(self) -> None:
        await self.kit.start()
        for room in ROOMS:
            while True:
                try:
                    await self.kit.create_room(room, channels=["sms", "mail", "web", "ai"], delivery="every_channel")
                except StoreUnavailable:
                    continue
                break
        people = [self.client(f"c{i}") for i in range(4)]
        people += [self.supervisor(f"s{i}") for i in range(2)]
        people += [self.viewer(f"v{i}") for i in range(3)]
        await asyncio.gather(*people)
        for result in self.results:
            await result.settled(600)
        await self.rest()
        await self.collect()
        await self.kit.aclose()

    async def rest(self) -> None:
        engine = self.kit.engine
        for _ in range(1000):
            if not engine.turns.active() and not engine.turns.waiting() and not engine.lanes.backlog:
                break
            await asyncio.sleep(0.5)
        await asyncio.sleep(5)
        assert await self.store.rows() == {}

    async def collect(self) -> None:
        for room in ROOMS:
            for event in await self.kit.events(room, raw=True, limit=10_000):
                key = f"{event.source.channel_id}:{event.idempotency_key}" if event.idempotency_key else None
                self.record("commit", event, **({"key": key} if key else {}))
        for name, _, items in self.views:
            events = (i.event if isinstance(i, StreamEnd) else i for i in items)
            for event in events:
                if isinstance(event, RoomEvent):
                    self.record("observe", event, observer=name, complete=True)
        for name, out in self.outs.items():
            for event in out.events:
                self.record("lane", event, channel=name)


def deeds(kit: RoomKit, room: str, who: str) -> tuple[Any, ...]:
    return (
        lambda: kit.take_over(room, who, force=True),
        lambda: kit.release(room, None, note="yours"),
        lambda: kit.mute(room, "ai"),
        lambda: kit.unmute(room, "ai"),
        lambda: kit.close_room(room),
        lambda: kit.reopen_room(room),
        lambda: kit.send(room, f"{who} says", by=who),
        lambda: kit.note(room, "hm", who),
    )


def grown(live: list[Any], streams: dict[str, int]) -> None:
    """Every reply that a view saw grow, it saw from its start, without a gap, and to one end at most."""
    for item in live:
        if isinstance(item, StreamStart):
            assert item.stream_id not in streams
            streams[item.stream_id] = 0
        elif isinstance(item, StreamChunk):
            assert item.offset == streams[item.stream_id]
            streams[item.stream_id] += len(item.delta)
        elif isinstance(item, StreamError):
            assert streams.pop(item.stream_id, None) is not None
        elif isinstance(item, StreamEnd):
            streams.pop(item.stream_id, None)


def play(seed: int) -> list[Any]:
    world = World(seed)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        await world.live()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    problems: list[Any] = []
    run(main(), seed=seed)
    assert problems == []
    return world.records


@pytest.mark.time_limit(240)
def test_every_schedule_makes_a_history_that_keeps_the_promises(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="roomkit")
    committed = 0
    for seed in range(SEEDS):
        records = play(seed)
        assert check_history(records) == [], f"seed {seed}"
        committed += sum(record["kind"] == "commit" for record in records)
    assert committed > SEEDS * 40, "the schedules do too little"
