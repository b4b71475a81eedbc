"""Planting: a bug is put into the real core, from outside, for as long as a schedule is played."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Bug:
    """`within`: so many schedules are enough to find it, from the seed `since` on (0 unless it shows seldom). `patches`
    are (where, name, what is put there). `nodes`, `tight` (one room in memory) and `features` choose the schedules in
    which it can show."""

    name: str
    within: int
    patches: tuple[Patch, ...]
    nodes: int | None = None
    tight: bool = False
    features: tuple[str, ...] = ()
    since: int = 0


PLANTED: dict[str, Bug] = {}


@contextmanager
def planted(name: str) -> Generator[Bug]:
    """The bug is in the core for as long as this lasts."""
    bug = PLANTED[name]
    with ExitStack() as stack:
        for where, attribute, fake in bug.patches:
            stack.callback(setattr, where, attribute, where.__dict__[attribute])
            setattr(where, attribute, fake)
        yield bug


def bug(
    name: str,
    within: int,
    *patches: Patch,
    nodes: int | None = None,
    tight: bool = False,
    features: tuple[str, ...] = (),
    since: int = 0,
) -> None:
    """Makes a bug known by its name."""
    PLANTED[name] = Bug(name, within, patches, nodes, tight, features, since)
