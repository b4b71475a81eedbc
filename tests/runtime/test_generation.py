from __future__ import annotations

from roomkit.runtime import Generation


def test_a_bump_makes_what_came_before_stale() -> None:
    generation = Generation()
    before = generation.current
    assert generation.is_current(before)
    now = generation.bump()
    assert now == generation.current > before
    assert generation.is_current(now)
    assert not generation.is_current(before)
