"""`roomkit token`: made with the program's own secrets, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from roomkit import RoomKit
from roomkit.cli.app import run

PROGRAM = """
from roomkit import RoomKit
kit = RoomKit(token_secrets={secrets!r})
"""
SECRET = "a-test-secret-that-is-long"


def program(tmp_path: Path, secrets: list[str]) -> str:
    path = tmp_path / "app.py"
    path.write_text(PROGRAM.format(secrets=secrets))
    return f"{path}:kit"


def test_a_token_opens_the_programs_own_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", program(tmp_path, [SECRET]), "--role", "admin", "--id", "ops"]) == 0
    principal = RoomKit(token_secrets=[SECRET]).tokens.verify(capsys.readouterr().out.strip())
    assert (principal.role, principal.id) == ("admin", "ops")


def test_a_token_that_would_be_worthless_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", program(tmp_path, [])]) == 1
    assert "token_secrets" in capsys.readouterr().err


def test_a_wrong_role_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", program(tmp_path, [SECRET]), "--role", "king"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
