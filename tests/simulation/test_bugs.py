"""Each planted bug is found within the number of schedules that is stated for it."""

from __future__ import annotations

import pytest

from roomkit.testing.simulation.bugs import PLANTED
from roomkit.testing.simulation.runner import run_some


def test_there_are_enough_of_them() -> None:
    assert len(PLANTED) >= 50


@pytest.mark.time_limit(240)
@pytest.mark.parametrize("name", PLANTED)
def test_the_judge_finds(name: str) -> None:
    tally = run_some(PLANTED[name].since, PLANTED[name].within, name)
    assert tally.failures, f'"{name}" was not found in {tally.schedules} schedules'
    (report,) = tally.failures.values()
    assert "AttributeError" not in report, "what it breaks is not there any more; plant it anew"
