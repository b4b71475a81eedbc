"""`roomkit migrate`: one line, and an exit code that a deployment can trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from roomkit.cli.app import run
from roomkit.testing.postgres import PostgresCluster, find_binaries


def test_a_file_is_brought_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [run(["migrate", f"sqlite:///{tmp_path}/rooms.db"]) for _ in range(2)] == [0, 0]
    assert capsys.readouterr().out == "schema 2: migrated from 0\nschema 2: nothing to do\n"


@pytest.mark.parametrize(
    "url, code, fix",
    [
        ("rooms.db", 2, "write sqlite:///FILE"),
        ("oracle://h/d", 2, "or postgresql://"),
        ("sqlite:////nowhere/at/all/rooms.db", 2, "create it"),
        ("postgresql://127.0.0.1:1/rooms", 1, "nothing was migrated: "),
    ],
)
def test_what_cannot_be_migrated_is_one_line(url: str, code: int, fix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate", url]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("roomkit: ")
    assert told.err.count("\n") == 1
    assert fix in told.err
    assert "tried again" not in told.err, "nobody does"


@pytest.mark.skipif(find_binaries() is None, reason="PostgreSQL is not installed (apt-get install postgresql)")
def test_a_database_is_migrated_once(capsys: pytest.CaptureFixture[str]) -> None:
    with PostgresCluster() as cluster:
        assert [run(["migrate", cluster.url]) for _ in range(2)] == [0, 0]
    assert capsys.readouterr().out == "schema 1: migrated from 0\nschema 1: nothing to do\n"
