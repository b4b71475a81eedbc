"""The audit chain: whatever is altered or deleted behind the back of roomkit is pointed at; erasing breaks nothing."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from roomkit import RoomKit
from roomkit.cli import main
from roomkit.core.audit import Sealer, leaf
from roomkit.core.engine import KitOptions
from roomkit.models.content import SystemContent, TextContent
from roomkit.models.event import EventType, RoomEvent
from roomkit.ports.store import Record, RecordQuery
from tests.core.rooms import Brain, kit_with, say
from tests.core.test_erasure import PHONE, conversation
from tests.core.test_fork import Phone
from tests.core.test_transfer import lively

SEALED = KitOptions(audit=True)


def tenant_of(kit: RoomKit) -> Any:
    store: Any = kit.engine.store
    return store._tenants["default"]


def alter(kit: RoomKit, room_id: str, index: int, **update: Any) -> None:
    """Behind the back of the room."""
    log: list[RoomEvent] = tenant_of(kit).logs[room_id]
    log[index] = log[index].replaced(**update)


@pytest.mark.parametrize("seed", range(15))
async def test_an_honest_log_passes_whatever_has_happened_in_it(seed: int) -> None:
    async with kit_with(Phone(), Brain(), options=SEALED) as kit:
        room_id = await lively(kit, seed)
        await asyncio.sleep(10)
        report = await kit.audit_room(room_id)
        assert (report.ok, report.unsealed, report.sealed) == (True, 0, (await kit.get_room(room_id)).event_count)
        await kit.send(room_id, "not sealed yet", by="ann")
        later = await kit.audit_room(room_id, anchor=report.head)
        assert (later.ok, later.unsealed, later.head) == (True, 1, report.head)


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_row_is_altered_or_deleted_the_report_points_at_it(seed: int) -> None:
    dice = random.Random(seed)
    async with kit_with(Phone(), Brain(), options=SEALED, token_secrets="a key that is not in the database") as kit:
        room_id = await lively(kit, 7)
        await asyncio.sleep(10)
        for number in range(300):  # More than one seal.
            await kit.send(room_id, f"more {number}", by="ann")
        await asyncio.sleep(10)
        log = tenant_of(kit).logs[room_id]
        index = dice.randrange(len(log))
        seals = tenant_of(kit).tables["seal"].records
        name = dice.choice(sorted(seals))
        seal: Record = seals[name]
        match seed % 5:
            case 0:
                alter(kit, room_id, index, metadata={"changed": True})
            case 1:
                alter(kit, room_id, index, created_at=log[index].created_at.replace(microsecond=7))
            case 2:
                del log[index]
            case 3:
                index = seal.value["first"]
                seals[name] = seal._replace(value={**seal.value, "leaves": ["0" * 64, *seal.value["leaves"][1:]]})
            case _:
                index = seal.value["first"]
                forged = {**seal.value, "mac": "0" * 64}
                seals[name] = seal._replace(value=forged)
        report = await kit.audit_room(room_id)
        assert (report.ok, report.index) == (False, index)


async def test_the_marks_of_edits_must_follow_from_the_log() -> None:
    async with kit_with(Phone(), options=SEALED) as kit:
        room_id = (await say(kit, "one")).room_id or ""
        marks: Any = tenant_of(kit).tables.setdefault("mutation", type(tenant_of(kit).tables["room"])())
        value = {"index": 1, "deleted": True, "reason": None}
        marks.replace(f"{room_id}\n{1:010d}", Record("mutation", "default", f"{room_id}\n{1:010d}", value, room_id))
        report = await kit.audit_room(room_id)
        assert (report.index, report.problem) == (
            1,
            "how it reads today does not follow from the log: a mark was added",
        )


async def test_a_log_that_was_replaced_or_cut_short_as_a_whole_does_not_contain_the_anchor() -> None:
    async with kit_with(Phone(), options=SEALED) as kit:
        room_id = (await say(kit, "one")).room_id or ""
        await asyncio.sleep(10)
        head = (await kit.audit_room(room_id)).head
        await kit.send(room_id, "two", by="ann")
        await asyncio.sleep(10)
        assert (await kit.audit_room(room_id, anchor=head)).ok
        there = [line async for line in kit.export_room(room_id)]
        async with kit_with(Phone(), options=SEALED) as other:
            await other.import_room([line.replace("nothing", "nothing") for line in there])
            await asyncio.sleep(10)
            assert (await other.audit_room(room_id)).ok
            assert not (await other.audit_room(room_id, anchor=head)).ok


async def test_erasing_a_person_leaves_the_chain_whole_and_the_leaves_say_nothing() -> None:
    async with kit_with(options=SEALED) as kit:
        room_id = await conversation(kit)
        await asyncio.sleep(10)
        before = await kit.audit_room(room_id)
        assert before.ok
        await kit.erase_person(PHONE)
        report = await kit.audit_room(room_id, anchor=before.head)
        assert report.ok, report
        assert report.erased >= 4
        await asyncio.sleep(10)
        report = await kit.audit_room(room_id, anchor=before.head)
        assert (report.ok, report.unsealed) == (True, 0)
        (seal, *_) = await kit.engine.store.records(RecordQuery("seal", "default", room_id=room_id))
        gone = [e.index for e in await kit.events(room_id, raw=True, limit=1000) if e.metadata.get("erased")]
        assert [seal.value["salts"][index] for index in gone] == [None] * len(gone)


async def test_writing_over_an_event_and_its_salt_without_an_erasure_is_seen() -> None:
    async with kit_with(Phone(), options=SEALED) as kit:
        room_id = (await say(kit, "one")).room_id or ""
        await asyncio.sleep(10)
        seals = tenant_of(kit).tables["seal"].records
        (name,) = seals
        salts = [None if place == 1 else salt for place, salt in enumerate(seals[name].value["salts"])]
        seals[name] = seals[name]._replace(value={**seals[name].value, "salts": salts})
        alter(kit, room_id, 1, metadata={"erased": True})
        report = await kit.audit_room(room_id)
        assert (report.index, report.problem) == (1, "it was written over, and no erasure in the log says so")


def erased_by_hand(kit: RoomKit, room_id: str, index: int) -> None:
    """What somebody who can write the database, and has no key, can do to pass a falsified event off as erased."""
    seals = tenant_of(kit).tables["seal"].records
    (name,) = seals
    value = seals[name].value
    event: RoomEvent = tenant_of(kit).logs[room_id][index]
    forged = event.replaced(content=TextContent(text="I owe you 1,000,000"), metadata={"erased": True})
    tenant_of(kit).logs[room_id][index] = forged
    salts = [None if place == index else salt for place, salt in enumerate(value["salts"])]
    graves = {str(index): ["00" * 16, leaf(forged, "00" * 16)]}
    seals[name] = seals[name]._replace(value={**value, "salts": salts, "graves": graves})


@pytest.mark.parametrize("key", ["", "a key that is not in the database"])
async def test_a_forged_event_that_is_passed_off_as_erased_is_seen(key: str) -> None:
    async with kit_with(Phone(), options=SEALED, token_secrets=key or None) as kit:
        room_id = (await say(kit, "one")).room_id or ""
        await asyncio.sleep(10)
        erased_by_hand(kit, room_id, 1)
        log: list[RoomEvent] = tenant_of(kit).logs[room_id]
        content = SystemContent(code="person_erased", data={"event_ids": [log[1].id]})
        await kit.send(room_id, "two", by="ann")
        last = log[-1].replaced(type=EventType.SYSTEM, content=content)
        log[-1] = last  # not sealed yet
        report = await kit.audit_room(room_id)
        assert not report.ok
        told = "made with the key" if key else "the erasure that says so is not sealed: not verified"
        assert told in (report.problem or "")
        await asyncio.sleep(10)
        assert (await kit.audit_room(room_id)).ok is not bool(key), (
            "without a key, whoever writes the database forges all"
        )


async def test_what_was_erased_cannot_be_written_over_once_more() -> None:
    async with kit_with(options=SEALED, token_secrets="a key that is not in the database") as kit:
        room_id = await conversation(kit)
        await kit.erase_person(PHONE)
        report = await kit.audit_room(room_id)
        assert report.ok, report
        gone = next(e.index for e in await kit.events(room_id, raw=True, limit=1000) if e.metadata.get("erased"))
        alter(kit, room_id, gone, content=TextContent(text="I owe you 1,000,000"))
        report = await kit.audit_room(room_id)
        assert report.index == gone
        assert "not as its erasure was to leave it" in (report.problem or "")


async def test_two_erasures_of_one_room_and_more_messages_leave_the_chain_whole() -> None:
    async with kit_with(Phone(), options=SEALED, token_secrets="a key that is not in the database") as kit:
        await kit.create_room("r", channels=())
        for who in ("ann", "bob"):
            await kit.add_member("r", who)
        for number in range(20):
            await kit.send("r", f"{number} to ann and bob", by=("ann", "bob", "eve")[number % 3])
        await asyncio.sleep(10)
        head = (await kit.audit_room("r")).head
        for who in ("ann", "bob"):
            await kit.erase_person(who)
            await kit.send("r", "more", by="eve")
            assert (await kit.audit_room("r", anchor=head)).ok
            await asyncio.sleep(10)
        report = await kit.audit_room("r", anchor=head)
        assert (report.ok, report.unsealed) == (True, 0), report
        assert report.erased >= 14


async def test_a_store_that_does_not_write_is_sealed_later() -> None:
    async with kit_with(Phone()) as kit:
        room_id = (await say(kit, "one")).room_id or ""
        sealer = Sealer(kit.engine, 5)
        store = kit.engine.store
        commit = store.commit

        async def full(batch: Any) -> Any:
            from roomkit.errors import StoreUnavailable

            raise StoreUnavailable("the disk is full")

        store.commit = full  # type: ignore[method-assign]
        await sealer.seal_all()
        store.commit = commit  # type: ignore[method-assign]
        assert (await kit.audit_room(room_id)).sealed == 0
        await sealer.seal_all()
        await sealer.seal_all()
        report = await kit.audit_room(room_id)
        assert (report.ok, report.unsealed) == (True, 0)


@pytest.mark.real_time
@pytest.mark.may_block
def test_the_command_points_at_the_row_that_was_altered_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = tmp_path / "rooms.db"

    async def fill() -> None:
        options = KitOptions(audit=True, audit_every_s=0.05)
        for _ in range(2):
            async with RoomKit(f"sqlite:///{db}", options=options, token_secrets="s3cret" * 6) as kit:
                if not await kit.list_rooms():
                    await kit.create_room("r", channels=())
                for number in range(5):
                    await kit.send("r", f"m{number}", by="ann")
                async with asyncio.timeout(20):
                    while (await kit.audit_room("r")).unsealed:
                        await asyncio.sleep(0.02)

    asyncio.run(fill())
    assert main(["audit", "r", "--store", str(db)]) == 0
    assert "11 events are as they were sealed, 0 not sealed yet; the seals were not checked" in capsys.readouterr().out
    monkeypatch.setenv("ROOMKIT_SECRET", "s3cret" * 6)
    assert main(["audit", "r", "--store", str(db), "--json"]) == 0
    head = json.loads(capsys.readouterr().out)["head"]
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE events SET body = replace(body, 'm3', 'm9') WHERE pos & 4294967295 = 9")
    assert main(["audit", "r", "--store", str(db), "--anchor", head]) == 1
    assert "r: event 9: it was altered after it was sealed" in capsys.readouterr().err
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("DELETE FROM events WHERE pos & 4294967295 = 4")
    assert main(["audit", "r", "--store", str(db)]) == 1
    assert "r: event 4: it was deleted" in capsys.readouterr().err
    monkeypatch.setenv("ROOMKIT_SECRET", "another")
    assert main(["audit", "r", "--store", str(db)]) == 1
    assert "not made with the key" in capsys.readouterr().err
