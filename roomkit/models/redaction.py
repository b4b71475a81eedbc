"""What is taken out of words, and where: the settings of redaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Redaction:
    """Switch on with `RoomKit(options=KitOptions(redaction=Redaction()))`, or with a mapping of tenants ("*": others).

    `model` and `export` take it out of what goes to a language model and into an export. `store` takes it out before
    anything is kept: then nobody ever reads it, and nobody it is sent to either. `kinds` are "card", "email" and
    "phone"; a finder of your own tells (start, end, kind) of what else there is in a text. `mask` stands in its place.
    Logs are always clean of them (`redact_personal` of `roomkit.net.redaction`). Addresses of seats and of people stay:
    without them nobody could be reached.
    """

    store: bool = False
    model: bool = True
    export: bool = True
    kinds: tuple[str, ...] = ("card", "email", "phone")
    finders: tuple[Callable[[str], Iterable[tuple[int, int, str]]], ...] = ()
    mask: str = "[{kind}]"
