"""Thousands of schedules keep every promise; the same number is the same schedule; a failure is readable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from roomkit.runtime import CRASH_POINTS
from roomkit.testing.simulation import simulate
from roomkit.testing.simulation.process import HURRY
from roomkit.testing.simulation.runner import run_many, run_some
from roomkit.testing.simulation.world import FEATURES

SCHEDULES = int(os.environ.get("ROOMKIT_SCHEDULES", "10000"))
"""How many `make test` plays; `make prove` plays 200,000 others."""
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.time_limit(1800)  # They run behind all others, which leave them little while they last.


def test_every_schedule_keeps_every_promise() -> None:
    tally = run_many(0, SCHEDULES)
    assert not tally.failures, "\n\n".join(tally.failures.values())
    assert tally.schedules == SCHEDULES
    assert tally.events > 10 * SCHEDULES, "the schedules do too little"
    assert tally.crashes > SCHEDULES / 3, "too little goes wrong"
    assert set(tally.points) == set(CRASH_POINTS), "a crash point is never passed"
    seldom = min(tally.features[name] for name in (*FEATURES, HURRY, "nodes"))
    assert seldom > SCHEDULES / 12, "something happens too seldom"


def test_the_same_number_is_the_same_schedule_to_the_last_step() -> None:
    for seed in range(25):
        first, again = simulate(seed), simulate(seed)
        assert (first.digest, first.steps) == (again.digest, again.steps), f"seed {seed} has two histories"
    assert len({simulate(seed).digest for seed in range(10)}) == 10


def test_another_process_with_other_hashes_plays_the_same_schedules() -> None:
    code = "from roomkit.testing.simulation import simulate; print(*(simulate(seed).digest for seed in range(15)))"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert digests == {f"{' '.join(simulate(seed).digest for seed in range(15))}\n"}


def test_a_failing_schedule_tells_what_happened_and_how_to_see_it_again() -> None:
    tally = run_some(0, 30, "a reply ends twice")
    ((seed, report),) = tally.failures.items()
    assert f"--n 1 --seed {seed}" in report
    assert "end 2 times" in report
    assert "disk           p0 syncs" in report
