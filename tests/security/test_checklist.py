"""The 24 lines of the security checklist: each has its test here, or says what it waits for."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from tests.security.adapters import CASES, KINDS, WEBHOOKS, adapters, modules, untested

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LINES = range(1, 25)
DUE: dict[int, str] = {}
"""Lines about what does not exist yet, and what brings it: it brings the test as well."""
ELSEWHERE = {
    11: (
        "tests/providers/test_webaudio.py::test_what_comes_faster_than_sound_is_dropped_unread",
        "tests/providers/test_webaudio.py::test_nonsense_ends_the_call",
        "tests/protocols/test_twilio_media.py::test_nothing_else_ever_escapes",
    ),
    18: (
        "tests/voice/test_recorder.py::test_not_a_byte_before_consent",
        "tests/voice/test_recorder.py::test_a_withdrawal_holds_from_the_next_frame",
        "tests/servers/test_voice.py::test_only_staff_may_listen_and_a_monitor_is_never_heard",
    ),
    23: (
        "tests/core/test_audit.py::test_whatever_row_is_altered_or_deleted_the_report_points_at_it",
        "tests/core/test_audit.py::test_the_command_points_at_the_row_that_was_altered_in_the_file",
    ),
    22: (
        "tests/providers/test_postgres.py::test_a_writer_whose_store_has_a_newer_owner_is_fenced",
        "tests/providers/test_postgres.py::test_a_silent_owner_is_taken_over_and_writes_nothing_more",
        "tests/net/test_node_link.py::test_a_ticket_is_good_once_at_one_address_for_a_minute",
        "tests/net/test_node_link.py::test_no_mutant_of_a_ticket_is_good",
    ),
}
"""Lines whose tests stand with the part that they are about."""


def named_in(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name[:5] == "test_"}


@cache
def covered(folder: Path) -> set[int]:
    """The numbers of the lines that have a file with tests."""
    files = {path: re.match(r"test_(\d\d)_", path.name) for path in folder.glob("test_*.py")}
    return {int(match[1]) for path, match in files.items() if match and named_in(path)}


@pytest.mark.parametrize("line", LINES)
def test_each_line_has_a_test_or_says_what_it_waits_for(line: int) -> None:
    assert line in covered(HERE) or line in DUE or line in ELSEWHERE, f"line {line} of the checklist has no test"
    assert line not in covered(HERE) or line not in DUE, f"line {line} has a test: take it out of DUE"


@pytest.mark.parametrize("name", [name for names in ELSEWHERE.values() for name in names])
def test_what_is_tested_elsewhere_is_there(name: str) -> None:
    path, _, test = name.partition("::")
    assert test in named_in(ROOT / path), f"{name} is gone"


def test_a_line_without_a_test_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "test_01_empty.py").write_text("def helper(): ...")
    (tmp_path / "test_02_full.py").write_text("def test_it(): ...")
    assert covered(tmp_path) == {2}


@pytest.mark.parametrize("kind", KINDS)
def test_every_adapter_is_put_to_the_test(kind: str) -> None:
    assert not untested(kind, modules()), "give it a case in tests/security/adapters.py"
    gone = set(CASES[kind]) - adapters(kind, modules()).keys()
    assert not gone, f"no such adapter any more: {gone}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_without_a_case_is_noticed(kind: str) -> None:
    async def run(self: object, emit: object = None, request: object = None, message: object = None) -> None: ...

    module = ModuleType("roomkit.providers.newcomer")
    methods = dict.fromkeys(KINDS[kind], run)
    module.Newcomer = type("Newcomer", (), {**methods, "__module__": module.__name__})  # type: ignore[attr-defined]
    assert untested(kind, [*modules(), module]) == {"Newcomer"}


@pytest.mark.parametrize("name", WEBHOOKS)
def test_who_sends_can_also_verify(name: str) -> None:
    for method in ("verify", "parse", "reply", "sign"):
        assert callable(getattr(WEBHOOKS[name].kind, method, None)), f"{name} has no {method}"
