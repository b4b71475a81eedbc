"""Consumers: at least once, in the order of each room, across restarts; what fails becomes visible, never lost."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from roomkit import RoomKit
from roomkit.core.memory import MemoryStore
from roomkit.errors import Fenced, StateError, UsageError
from roomkit.models.event import EventType, RoomEvent
from roomkit.testing import VirtualClock


def kit_over(store: MemoryStore) -> RoomKit:
    return RoomKit(store, clock=VirtualClock())


async def until(condition: Any) -> None:
    async with asyncio.timeout(600):
        while not condition():
            await asyncio.sleep(0.05)


async def fill(kit: RoomKit, rooms: int = 3, messages: int = 4) -> None:
    for room in range(rooms):
        if f"r{room}" not in {r.id for r in await kit.list_rooms()}:
            await kit.create_room(f"r{room}", channels=())
    for number in range(messages):
        for room in range(rooms):
            await kit.send(f"r{room}", f"m{number}", by="ann")


def by_room(events: list[RoomEvent]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        found[event.room_id].append(event.index)
    return found


async def test_every_event_of_every_room_comes_in_order_old_and_new_ones() -> None:
    got: list[RoomEvent] = []

    async def take(event: RoomEvent) -> None:
        await asyncio.sleep(random.Random(event.index).random() / 10)
        got.append(event)

    async with kit_over(MemoryStore()) as kit:
        await fill(kit)
        consumer = kit.consume("crm", take)
        await fill(kit)
        await until(lambda: len(got) == 27)
        assert all(indexes == list(range(9)) for indexes in by_room(got).values())
        await until(lambda: consumer.lag == 0)


async def test_only_the_kinds_and_the_tenant_that_were_asked_for() -> None:
    got: list[RoomEvent] = []
    async with kit_over(MemoryStore()) as kit:
        kit.consume("crm", got.append, kinds=["message"])
        await fill(kit, rooms=1)
        acme = kit.tenant("acme")
        await acme.create_room("a", channels=())
        await acme.send("a", "not yours", by="ann")
        await until(lambda: len(got) == 4)
        await asyncio.sleep(60)
        assert [e.type for e in got] == [EventType.MESSAGE] * 4


async def test_it_goes_on_after_a_restart_where_it_was() -> None:
    store, got = MemoryStore(), list[RoomEvent]()

    async def take(event: RoomEvent) -> None:
        got.append(event)

    async with kit_over(store) as kit:
        await fill(kit)
        kit.consume("crm", take)
        await until(lambda: len(got) == 15)
        await asyncio.sleep(1)
    async with kit_over(store) as kit:
        kit.consume("other", take, start="now")
        await asyncio.sleep(60)
        await fill(kit, messages=1)
        await until(lambda: len(got) == 18)
    async with kit_over(store) as kit:
        kit.consume("crm", take)  # What was committed while it was away comes now.
        await until(lambda: len(got) == 21)
        await asyncio.sleep(60)
    assert len(got) == 21, "nothing comes again without a reason"


@pytest.mark.parametrize("seed", range(20))
async def test_whenever_it_is_cut_nothing_is_skipped_or_out_of_order(seed: int) -> None:
    dice, store, got = random.Random(seed), MemoryStore(), list[RoomEvent]()

    async def take(event: RoomEvent) -> None:
        await asyncio.sleep(dice.random() / 10)
        if dice.random() < 0.1:
            raise ValueError("not now")
        got.append(event)

    for _ in range(5):
        async with kit_over(store) as kit:
            kit.consume("crm", take, retries=1000)
            await fill(kit, messages=dice.randrange(4))
            await asyncio.sleep(dice.random() * 3)
    async with kit_over(store) as kit:
        consumer = kit.consume("crm", take, retries=1000)
        await asyncio.sleep(10)
        await until(lambda: consumer.lag == 0)
        for room in await kit.list_rooms():
            first: list[int] = list(dict.fromkeys(by_room(got)[room.id]))
            assert first == list(range(room.event_count))


async def test_what_fails_is_tried_again_and_then_put_aside_where_it_can_be_seen() -> None:
    tried: list[int] = []

    async def take(event: RoomEvent) -> None:
        tried.append(event.index)
        if event.text == "m1":
            raise ValueError("cannot take m1")

    async with kit_over(MemoryStore()) as kit:
        consumer = kit.consume("crm", take, kinds=["message"], retries=2)
        await fill(kit, rooms=1, messages=3)
        await until(lambda: consumer.lag == 0 and len(tried) == 5)
        assert tried == [1, 2, 2, 2, 3]
        (dead,) = await consumer.dead_letters()
        assert (dead["room_id"], dead["index"], dead["told"]) == ("r0", 2, "cannot take m1")
        assert kit.stats()["consumer_dead_letters"] == 1
        assert 'roomkit_consumer_lag_events{consumer="crm"} 0' in kit.engine.meters.render()


async def test_a_broken_room_holds_up_no_other() -> None:
    got: list[RoomEvent] = []

    async def take(event: RoomEvent) -> None:
        if event.room_id == "r0":
            raise ValueError("never")
        got.append(event)

    async with kit_over(MemoryStore()) as kit:
        await fill(kit)
        consumer = kit.consume("crm", take, retries=10_000, concurrency=2)
        await until(lambda: len(got) == 10)
        assert consumer.lag == 5


async def test_by_hand_what_is_not_acknowledged_comes_again() -> None:
    store = MemoryStore()
    async with kit_over(store) as kit:
        await fill(kit, rooms=1, messages=2)
        consumer = kit.consume("crm", kinds=["message"])
        seen: list[str] = []
        async for item in consumer:
            seen.append(item.event.text)
            if len(seen) == 1:
                item.nack()
                with pytest.raises(StateError, match="answered already"):
                    item.nack()
            elif len(seen) == 2:
                await item.ack()
            else:
                break
        assert seen == ["m0", "m0", "m1"]
    async with kit_over(store) as kit:
        consumer = kit.consume("crm", kinds=["message"])
        async for item in consumer:
            assert item.event.text == "m1"
            await item.ack()
            break


async def test_forks_are_no_news() -> None:
    got: list[RoomEvent] = []
    async with kit_over(MemoryStore()) as kit:
        await fill(kit, rooms=1)
        copy = await kit.fork("r0")
        kit.consume("crm", got.append)
        await until(lambda: len(got) == 5)
        await kit.send(copy.id, "an experiment")
        await asyncio.sleep(60)
        assert {e.room_id for e in got} == {"r0"}


async def test_wrong_use_is_told() -> None:
    async with kit_over(MemoryStore()) as kit:
        consumer = kit.consume("crm", lambda event: None)
        for wrong in ("", "a/b", "crm"):
            with pytest.raises(UsageError):
                kit.consume(wrong, lambda event: None)
        with pytest.raises(UsageError):
            aiter(consumer)
        with pytest.raises(ValueError, match="nonsense"):
            kit.consume("x", kinds=["nonsense"])


@pytest.mark.real_time
@pytest.mark.may_block
async def test_it_survives_a_restart_of_a_real_store_and_may_be_named_before_the_start(tmp_path: Path) -> None:
    got: list[str] = []

    async def take(event: RoomEvent) -> None:
        got.append(event.text)

    for number in range(2):
        kit = RoomKit(f"sqlite:///{tmp_path}/rooms.db")
        kit.consume("crm", take, kinds=["message"])
        async with kit:
            await fill(kit, rooms=1, messages=1)
            await until(lambda number=number: len(got) == number + 1)
            await asyncio.sleep(0.2)
    assert got == ["m0", "m0"]


async def test_an_event_that_is_given_back_for_days_ends_nothing_and_uses_up_no_retries() -> None:
    async with kit_over(MemoryStore()) as kit:
        await fill(kit, rooms=1, messages=2)
        consumer = kit.consume("crm", retries=1)
        seen = [0]

        async def read() -> None:
            async for item in consumer:
                seen[0] += 1
                await item.ack() if seen[0] > 1100 else item.nack()

        task = asyncio.ensure_future(read())
        async with asyncio.timeout(60 * 60 * 24):
            while seen[0] < 1103:
                await asyncio.sleep(60)
        await asyncio.sleep(1)
        assert consumer.lag == 0
        assert await consumer.dead_letters() == []
        task.cancel()


async def test_giving_back_and_failing_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from roomkit.core.consumers import _NotYet

    calls = [0]

    async def moody(event: RoomEvent) -> None:
        calls[0] += 1
        if calls[0] <= 5:
            raise _NotYet
        if calls[0] <= 7:
            raise ValueError("for a moment")

    async with kit_over(MemoryStore()) as kit:
        await kit.create_room("r", channels=())
        consumer = kit.consume("crm", moody, retries=2)
        await asyncio.sleep(600)
        assert (calls[0], consumer.lag) == (8, 0)
        assert await consumer.dead_letters() == []


async def test_a_room_whose_notes_the_store_refuses_is_put_off_and_the_others_go_on() -> None:
    store, got = MemoryStore(), list[RoomEvent]()
    async with kit_over(store) as kit:
        await fill(kit, rooms=2, messages=1)
        commit, full = store.commit, [True]

        async def refuses(batch: Any) -> Any:
            if full[0] and any(r.kind == "consumer" and r.value["room_id"] == "r0" for r in batch.put):
                raise ValueError("the store's driver does not like that")
            return await commit(batch)

        store.commit = refuses  # type: ignore[method-assign]
        consumer = kit.consume("crm", got.append)
        await asyncio.sleep(30)
        assert by_room(got)["r1"] == [0, 1]
        assert kit.engine.counters["consumer_errors"] >= 2
        full[0] = False
        await asyncio.sleep(120)
        assert consumer.lag == 0
        await fill(kit, rooms=2, messages=1)
        await until(lambda: consumer.lag == 0 and by_room(got)["r1"] == [0, 1, 2])


async def test_a_dead_letter_holds_text_that_every_store_takes() -> None:
    def poison(event: RoomEvent) -> None:
        raise ValueError("poison \0 \ud83d")

    async with kit_over(MemoryStore()) as kit:
        await kit.create_room("r", channels=())
        consumer = kit.consume("crm", poison, retries=0)
        await asyncio.sleep(1)
        (letter,) = await consumer.dead_letters()
        assert letter["told"] == "poison \ufffd \ufffd"


async def test_a_start_from_now_that_was_cut_off_is_made_anew() -> None:
    store, got = MemoryStore(), list[RoomEvent]()
    async with kit_over(store) as kit:
        for number in range(1100):
            await kit.create_room(f"r{number:05}", channels=())
        commit, times = store.commit, [0]

        async def dies(batch: Any) -> Any:
            times[0] += any(r.kind == "consumer" for r in batch.put)
            if times[0] == 2:
                raise Fenced("the process ends here")
            return await commit(batch)

        store.commit = dies  # type: ignore[method-assign]
        consumer = kit.consume("crm", got.append, start="now")
        await asyncio.sleep(1)
        await consumer.aclose()
        store.commit = commit  # type: ignore[method-assign]
        kit.consume("crm", got.append, start="now")
        await asyncio.sleep(30)
        assert got == []
