"""Crash points: where asked for the process dies, elsewhere nothing happens, and the list of them is complete."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys

import pytest

from roomkit.runtime import CRASH_POINTS, crashpoint
from tests.gates.tree import package

VISITS = """
from roomkit.runtime import crashpoint
for number in range(3):
    crashpoint("store.before_commit")
    crashpoint("store.after_commit")
    print(number, flush=True)
"""


def run(code: str, asked: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ROOMKIT_CRASH_AT": asked}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_the_process_dies_at_the_nth_visit() -> None:
    answer = run(VISITS, "store.after_commit:2")
    assert answer.returncode == -signal.SIGKILL
    assert answer.stdout == "0\n"


def test_unasked_nothing_happens() -> None:
    assert run(VISITS, "").stdout == "0\n1\n2\n"
    crashpoint("store.before_commit")


@pytest.mark.parametrize("asked", ["store.after_commit", "store.after_commit:0", "store.after_commit:x", "nowhere:1"])
def test_what_cannot_be_reached_is_refused(asked: str) -> None:
    answer = run(VISITS, asked)
    assert answer.returncode == 1
    assert "is not NAME:NTH" in answer.stderr


def test_the_list_has_every_point_in_the_package_and_no_other() -> None:
    used = {
        argument.value
        for source in package()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "crashpoint"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    assert used == CRASH_POINTS.keys()
