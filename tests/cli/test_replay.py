"""`roomkit replay`: the log of a room, while its server runs and after it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from roomkit import RoomKit
from roomkit.cli import main
from roomkit.models.content import EditContent, TextContent
from roomkit.testing.postgres import PostgresCluster, find_binaries
from tests.cli.conftest import clean_environment

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]


async def fill(kit: RoomKit) -> None:
    await kit.create_room("r", channels=())
    first = await kit.send("r", "Hello \x1b[2Jworld", by="ann")
    assert first.event is not None
    await kit.send("r", "second\nline", by="bob", visibility="internal")
    await kit.send(
        "r", EditContent(target_event_id=first.event.id, new_content=TextContent(text="Hello all")), by="ann"
    )


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["replay", *arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out.splitlines()


def test_a_room_reads_as_it_does_today_or_as_it_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = str(tmp_path / "rooms.db")

    async def prepare() -> None:
        async with RoomKit(f"sqlite:///{db}") as kit:
            await fill(kit)

    asyncio.run(prepare())
    today = shown(capsys, "r", "--store", db)
    assert today[0] == "room r, active, floor ai, 4 events"
    assert "room_created" in today[1]
    assert today[2].endswith("Hello all  [edited]")
    assert today[3].endswith("second")
    assert today[4].strip() == "line  [internal]"
    raw = shown(capsys, "r", "--store", db, "--raw", "--to", "1")
    assert len(raw) == 3
    assert raw[2].endswith("Hello [2Jworld"), "no control character of others reaches the terminal"
    lines = [json.loads(line) for line in shown(capsys, "r", "--store", f"sqlite:///{db}", "--json", "--raw")]
    assert [line["index"] for line in lines] == [0, 1, 2, 3]


def test_what_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.db").write_bytes(b"")
    for place, told in (("none.db", "there is no file"), ("other.db", "another program")):
        assert main(["replay", "r", "--store", str(tmp_path / place)]) == 1
        assert told in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists(), "looking makes nothing"
    assert main(["replay", "r"]) == 2
    assert "--store" in capsys.readouterr().err


async def test_a_room_can_be_read_while_its_server_runs(tmp_path: Path) -> None:
    db = str(tmp_path / "rooms.db")
    async with RoomKit(f"sqlite:///{db}") as kit:
        await fill(kit)
        command = (sys.executable, "-m", "roomkit", "replay", "r", "--store", db)
        done = await asyncio.to_thread(
            subprocess.run, command, env=clean_environment(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "Hello all" in done.stdout
        await kit.send("r", "still writing", by="ann")


@pytest.mark.skipif(find_binaries() is None, reason="PostgreSQL is not installed (apt-get install postgresql)")
async def test_a_room_in_postgresql_can_be_read_while_its_server_runs() -> None:
    with PostgresCluster() as cluster:
        async with RoomKit(cluster.url) as kit:
            await fill(kit)
            command = (sys.executable, "-m", "roomkit", "replay", "r", "--store", cluster.url)
            done = await asyncio.to_thread(
                subprocess.run, command, env=clean_environment(), capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert "Hello all" in done.stdout
