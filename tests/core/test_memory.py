"""MemoryStore: the conformance kit, and what is its own."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterable

import pytest

from roomkit.core.memory import MemoryStore
from roomkit.core.state import participant_record
from roomkit.errors import Fenced, StoreUnavailable, UsageError
from roomkit.models.room import Participant
from roomkit.ports.store import (
    Batch,
    DedupeKey,
    EventQuery,
    Record,
    RecordKey,
    RecordQuery,
    Store,
    json_of,
    model_of,
)
from roomkit.testing import FakeChannel
from roomkit.testing.stores import CHECKS, START, Check, check_store, event, record, run_check
from tests.core.rooms import kit_with, say


def make(name: str) -> Store:
    return MemoryStore()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Check) -> None:
    await run_check(check, make)


async def test_the_kit_runs_without_pytest() -> None:
    assert await check_store(make) == len(CHECKS)


async def test_values_are_shared_not_copied() -> None:
    store = MemoryStore()
    first, kept = event(0), record("k", "a", {"n": []})
    await store.commit(Batch("t", 1, "r", (first,), put=(kept,)))
    assert (await store.events(EventQuery("t", "r")))[0] is first
    assert (await store.records(RecordQuery("k", "t")))[0] is kept


def test_a_commit_never_suspends() -> None:
    coroutine = MemoryStore().commit(Batch("t", 1, "r", (event(0),)))
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value is None


async def test_a_new_owner_fences_the_old_one() -> None:
    store = MemoryStore()
    old = await store.open()
    new = store.take_over()
    assert new.incarnation == old.incarnation
    with pytest.raises(Fenced):
        await store.commit(Batch("t", old.epoch, "r", (event(0),)))
    await store.commit(Batch("t", new.epoch, "r", (event(0),)))


async def test_closed_it_refuses_and_open_again_it_goes_on() -> None:
    store = MemoryStore()
    old = await store.open()
    await store.commit(Batch("t", old.epoch, "r", (event(0),)))
    await store.aclose()
    assert not store.health().writable
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.commit(Batch("t", old.epoch, "r", (event(1),)))
    new = await store.open()
    assert new.epoch > old.epoch
    await store.commit(Batch("t", new.epoch, "r", (event(1),)))
    assert len(await store.events(EventQuery("t", "r"))) == 2


@pytest.mark.may_block
async def test_replaced_due_times_do_not_pile_up() -> None:
    store = MemoryStore()
    await store.commit(Batch("t", 1, put=(record("timer", "other", due=1.0),)))
    gc.collect()
    tracemalloc.start()
    for second in range(2_000):  # A room's timer moves with every message.
        await store.commit(Batch("t", 1, put=(record("timer", "r", due=float(second)),)))
    for number in range(2_000):  # Delivery rows come and go.
        await store.commit(Batch("t", 1, put=(record("outbox", str(number), room_id="r", due=1.0, terms=("x",)),)))
        await store.commit(Batch("t", 1, delete=(RecordKey("outbox", "t", str(number)),)))
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 30_000
    due = await store.records(RecordQuery("timer", None, due_before=1e9, order="due"))
    assert [one.key for one in due] == ["other", "r"]


@pytest.mark.may_block
async def test_an_idle_room_is_small() -> None:
    store = MemoryStore()

    async def rooms(start: int, stop: int) -> None:
        for number in range(start, stop):
            room = f"room{number}"
            put = (
                record("room", room, room_id=room, due=float(number), terms=("status:active",)),
                record("binding", f"{room}/sms", room_id=room, terms=(f"address:{number}",)),
                record("participant", f"{room}/p", room_id=room),
            )
            await store.commit(Batch("t", 1, room, put=put, activity_at=START))

    await rooms(0, 1_000)
    gc.collect()
    tracemalloc.start()
    await rooms(1_000, 2_000)
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown / 1_000 < 4_096  # Records and keys included, of the 8 KiB that a whole idle room may cost.


@pytest.mark.may_block
async def test_a_whole_idle_room_is_small() -> None:
    """Its log, its records and what the kit holds of it."""
    async with kit_with(FakeChannel(), FakeChannel("out", "email")) as kit:

        async def rooms(start: int, stop: int) -> None:
            for number in range(start, stop):
                await kit.create_room(f"room{number}", channels=["sms", "out"])
                result = await say(kit, "hello", f"room{number}", external_id=f"m{number}")
                await result.settled()

        await rooms(0, 100)
        gc.collect()
        tracemalloc.start()
        await rooms(100, 400)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert grown / 300 < (10_000 if sys.version_info < (3, 12) else 14_000)  # Later ones lay objects out differently.


async def test_what_most_records_say_is_found_as_well_as_what_few_do() -> None:
    store = MemoryStore()

    async def found(*terms: str, room_id: str | None = None) -> list[str]:
        query = RecordQuery("k", "t", room_id=room_id, terms=terms, limit=1_000)
        return [one.key for one in await store.records(query)]

    def named(numbers: Iterable[int]) -> list[str]:
        return [f"{number:03}" for number in numbers]

    for number in range(300):
        terms = ("all", *(("third",) if number % 3 == 0 else ()), *(("few",) if number % 50 == 0 else ()))
        await store.commit(Batch("t", 1, put=(record("k", f"{number:03}", room_id="r", terms=terms),)))
    assert await found("all") == await found(room_id="r") == named(range(300))
    assert await found("third") == named(range(0, 300, 3))
    assert await found("few") == await found("few", "all") == named(range(0, 300, 50))
    assert await found("third", "few", room_id="r") == named(range(0, 300, 150))
    assert await found("none") == await found("all", "none") == []
    for number in range(3, 300):  # What was common becomes rare.
        await store.commit(Batch("t", 1, put=(record("k", f"{number:03}", room_id="s", terms=("other",)),)))
    assert await found("all") == await found(room_id="r") == named(range(3))
    assert await found("third") == await found("few") == ["000"]
    await store.commit(Batch("t", 1, delete=(RecordKey("k", "t", "001"),)))
    assert await found("all") == await found(room_id="r") == ["000", "002"]
    for number in (0, 2):
        await store.commit(Batch("t", 1, delete=(RecordKey("k", "t", f"{number:03}"),)))
    assert await found("all") == await found(room_id="r") == []


async def test_of_keys_that_expire_together_each_goes_in_its_time() -> None:
    store = MemoryStore()
    for number in range(3):
        dedupe = DedupeKey("sms", f"m{number}", "r", f"e{number}", number, 1_000.0 + number)
        await store.commit(Batch("t", 1, "r", (event(number),), (dedupe, dedupe)))
    for gone in range(4):
        await store.commit(Batch("u", 1, prune_dedupe_before=1_000.0 + gone))
        kept = [one.due for one in await store.records(RecordQuery("dedupe", "t"))]
        assert kept == [1_000.0, 1_001.0, 1_002.0][gone:]


async def test_a_record_of_a_model_reads_as_its_json_and_is_the_model_itself() -> None:
    store = MemoryStore()
    person = Participant(id="p", room_id="r", tenant="t", channel_id="sms", display_name="Ann", joined_at=START)
    kept = participant_record(person)
    await store.commit(Batch("t", 1, put=(kept,)))
    (found,) = await store.records(RecordQuery("participant", "t"))
    told = {"id": "p", "room_id": "r", "tenant": "t", "channel_id": "sms", "display_name": "Ann"}
    assert found.value == {**told, "joined_at": person.model_dump(mode="json")["joined_at"]}
    assert json_of(found) == json_of(Record(*found[:3], found.value))
    assert model_of(Participant, found) is person
    assert model_of(Participant, found._replace(value={**found.value, "display_name": "Bo"})).display_name == "Bo"
    for odd in ({"display_name": "\ud800"}, {"metadata": {"at": object()}}, {"connected_via": ("\ud800",)}):
        with pytest.raises(UsageError, match="JSON"):
            await store.commit(Batch("t", 1, put=(participant_record(person.replaced(**odd)),)))
