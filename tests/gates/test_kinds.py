"""Every kind of record has been thought about by those who copy rooms."""

from __future__ import annotations

import ast

from roomkit.core import transfer
from tests.gates.tree import package

PEOPLE = {"room", "binding", "participant", "identity", "revoked"}
OTHER = {"consumer", "consumer_dead", "dedupe", "erasure", "head", "inbox", "inbox_refused", "seal"}
"""Of no room, or made anew with a copy."""


def test_every_kind_of_record_is_either_taken_along_or_left_on_purpose() -> None:
    """A new kind has to be thought about: does it belong to the room's past, or is it something still to be done?"""
    kinds: set[str] = set()
    for source in package():
        if "/testing/" in source.path:
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Record":
                kinds |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    assert {"outbox", "mutation", "journal"} <= kinds
    assert kinds <= {*transfer.TAKEN, *transfer.LEFT, *PEOPLE, *OTHER}
