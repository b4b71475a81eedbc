"""Small runs of the proofs with several processes on one PostgreSQL."""

from __future__ import annotations

import os

import pytest

from roomkit.testing.postgres import find_binaries

if find_binaries() is None and os.environ.get("CI") != "true":
    pytest.skip("PostgreSQL is not installed (apt-get install postgresql)", allow_module_level=True)

from proofs import failover, fleet, rolling, zombie
from roomkit.cli.witness import Stored

pytestmark = [pytest.mark.real_time, pytest.mark.may_block, pytest.mark.time_limit(600)]


async def test_a_killed_owner_is_replaced_and_nobody_loses_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "ROOMS", 100)
    proof = await failover.prove(1, seed=7)
    assert proof.wrong == []
    assert proof.figures["owned_rooms"] >= 100 + failover.WATCHED, "one process owned them all"
    assert proof.figures["acknowledged"] > 0


async def test_a_paused_owner_writes_nothing_when_it_goes_on() -> None:
    proof = await zombie.prove(40, seed=7)
    assert proof.wrong == []
    assert proof.figures["writes_tried"] == 40
    assert proof.figures["rooms_lost_at_a_refused_write"] > 0, "no write was tried: the proof is blind"


async def test_restarts_drop_no_stream() -> None:
    proof = await rolling.prove(1, seed=7)
    assert proof.wrong == []
    assert proof.figures["restarts"] == 3
    assert proof.figures["replies"] > 0


def test_a_zombies_write_is_noticed() -> None:
    events = [
        {"index": index, "agrees": True, "metadata": {"epoch": epoch, "pid": pid}}
        for index, (epoch, pid) in enumerate([(1, 10), (2, 20), (1, 10), (2, 10)])
    ]
    wrong = fleet.log_of("r", Stored(events, 4, "ok", {}))
    assert [line.split(" ", 1)[1] for line in wrong] == [
        "was written under epoch 1 after epoch 2 had begun",
        "two processes have written under epoch 2",
    ]
