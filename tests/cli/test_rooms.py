"""`roomkit rooms`, and rooms found by what their owner calls them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from roomkit import RoomKit
from roomkit.cli import main

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]


@pytest.fixture
def store(tmp_path: Path) -> str:
    db = str(tmp_path / "rooms.db")

    async def fill() -> None:
        async with RoomKit(f"sqlite:///{db}") as kit:
            await kit.create_room("r", channels=(), external_id="order-7")
            await kit.create_room("quiet", channels=())
            await kit.add_member("r", "ann", display_name="Ann")
            await kit.send("r", "Hello", by="ann")
            await kit.create_room("one", channels=(), external_id="twice")
            await kit.create_room("two", channels=(), external_id="twice")

    asyncio.run(fill())
    return db


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(list(arguments))
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    return code, told.err


def test_the_rooms_of_a_store_are_listed(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rooms", "--store", store]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "order-7" in line]
    assert line.endswith("r  (order-7)  active  Ann")
    assert main(["rooms", "--store", store, "--json"]) == 0
    rooms = {one["id"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert set(rooms) == {"r", "quiet", "one", "two"}
    assert rooms["r"]["people"] == ["Ann"]
    assert main(["rooms", "--store", store, "--limit", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    code, told = refused(capsys, "rooms", "--store", store, "--tenant", "acme")
    assert (code, "acme" in told) == (1, True)


def test_a_room_is_found_by_its_external_id(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "order-7", "--store", store]) == 0
    assert "room r," in capsys.readouterr().out
    assert main(["export", "order-7", "--store", store, "--out", str(tmp_path / "r.jsonl")]) == 0
    capsys.readouterr()
    for command in ("replay", "export", "audit"):
        code, told = refused(capsys, command, "nowhere", "--store", store)
        assert code == 1
        assert "roomkit rooms" in told
        assert "--tenant" in told
    assert "several rooms" in refused(capsys, "replay", "twice", "--store", store)[1]


def test_a_log_that_was_never_sealed_is_no_good_log(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = refused(capsys, "audit", "r", "--store", store)
    assert (code, "nothing is sealed" in told) == (1, True)


def test_a_place_that_is_no_store_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = refused(capsys, "rooms", "--store", "mysql://x")
    assert code == 2
    assert all(word in told for word in ("--store", "sqlite", "postgresql"))
    code, told = refused(capsys, "rooms", "--store", "postgresql://nobody@127.0.0.1:1/rooms")
    assert code == 1
    assert "tried again" not in told
    assert "check that the database runs" in told


def test_a_refused_import_leaves_nothing(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong, fresh = tmp_path / "wrong.jsonl", tmp_path / "new" / "fresh.db"
    fresh.parent.mkdir()
    wrong.write_text("nothing of ours\n")
    assert refused(capsys, "import", str(wrong), "--store", str(fresh))[0] == 2
    assert list(fresh.parent.iterdir()) == []
    whole = tmp_path / "r.jsonl"
    assert main(["export", "r", "--store", store, "--out", str(whole)]) == 0
    capsys.readouterr()
    assert "--room" in refused(capsys, "import", str(whole), "--store", store)[1]


def test_nobody_is_asked_about_somebody_unknown(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = refused(capsys, "erase", "nobody", "--store", store, "--tenant", "default")
    assert (code, 'tenant "default"' in told) == (1, True)
