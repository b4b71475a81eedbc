"""The power cut proof itself: a few cuts, what the disk keeps, and that a loss would be seen."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from proofs import powercut
from proofs.disk import Disk


@pytest.mark.real_time
@pytest.mark.may_block
async def test_a_cut_at_any_moment_loses_nothing_acknowledged() -> None:
    proof = await powercut.prove(40, seed=7)
    assert proof.wrong == []
    assert proof.figures["cuts"] == 40
    assert proof.figures["acknowledged"] > 100
    assert proof.figures["erased"] > 0
    assert proof.figures["lost_at_NORMAL"] > 0, "a store that does not sync is caught"


def test_what_was_synced_survives_and_the_rest_may_not(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    db = disk.connect(str(tmp_path / "x.db"))
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "CREATE TABLE t (a)"):
        db.execute(statement)
    db.execute("INSERT INTO t VALUES ('first')")
    disk.mark("acknowledged")
    at = len(disk.log)
    db.execute("INSERT INTO t VALUES ('second')")
    db.close()
    disk.close()
    written = [op[0] for op in disk.log[at:]].index("sync")
    kept = {b"second" in disk.cut(at + written, random.Random(seed))["x.db-wal"] for seed in range(40)}
    assert kept == {True, False}
    assert all(b"first" in disk.cut(at, random.Random(seed))["x.db-wal"] for seed in range(40))
    assert b"second" in disk.cut(at + written + 1, random.Random(1))["x.db-wal"]
    assert disk.marks(at) == ["acknowledged"]
    assert disk.marks(at - 1) == []
