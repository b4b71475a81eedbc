"""`roomkit demo --check` for real: a server, sockets, a kill -9, a verdict; and a verdict that can be no."""

from __future__ import annotations

from pathlib import Path

import pytest

from roomkit.cli.check import Play
from tests.cli.conftest import Command


def test_the_check_passes(command: Command) -> None:
    done = command("demo", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    # What is imported for the first time is compiled first, and a slow machine says so.
    assert not [line for line in done.stderr.splitlines() if not line.startswith("the event loop has been blocked")]
    assert "PASSED: all " in done.stdout
    assert "kill -9 in mid-reply" in done.stdout
    assert "\n   0  " in done.stdout.replace("    0  ", "   0  ")


def test_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    play = Play(tmp_path)
    play.claim(True, "this held")
    assert play.verdict(1.0) == 1  # never came to its end
    play.stopped_with = 0
    assert play.verdict(1.0) == 0
    play.claim(False, "this did not")
    assert play.verdict(1.0) == 1
    assert "1 of 2 claims did not hold" in capsys.readouterr().out
