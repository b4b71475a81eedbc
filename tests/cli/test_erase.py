"""`roomkit erase`: asks first, and prints a receipt without saying whom."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from roomkit import RoomKit
from roomkit.cli import main

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]


def test_a_person_is_erased_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = str(tmp_path / "rooms.db")

    async def fill() -> None:
        async with RoomKit(f"sqlite:///{db}") as kit:
            await kit.create_room("r", channels=())
            await kit.add_member("r", "ann", display_name="Ann")
            await kit.send("r", "Marmalade", by="ann")

    asyncio.run(fill())
    assert main(["erase", "nobody", "--store", db, "--yes"]) == 1
    capsys.readouterr()
    assert main(["erase", "ann", "--store", db, "--yes"]) == 0
    told = capsys.readouterr().out
    assert json.loads(told)["rooms"] == {"r": 1}
    assert "ann" not in told.lower()
    assert b"Marmalade" not in Path(db).read_bytes()
    assert main(["replay", "r", "--store", db]) == 0
    assert "Marmalade" not in capsys.readouterr().out
