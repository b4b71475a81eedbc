"""`.env` is read by the command, overrides nothing, and says which line is wrong."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from roomkit.cli.environment import read_dotenv, secret_of
from roomkit.errors import ConfigError


def test_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RK_A", "RK_B", "RK_C", "RK_D", "RK_E", "RK_F"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RK_SET", "kept")
    file = tmp_path / ".env"
    file.write_text(
        "# a comment\n\nRK_A=plain\nexport RK_B = 'in quotes # and this'\nRK_C=\"x\" # why\nRK_D=a b # c\n"
        "RK_E=\nRK_SET=new\nRK_F=a#b\n"
    )
    assert read_dotenv(file) == ["RK_A", "RK_B", "RK_C", "RK_D", "RK_E", "RK_F"]
    read = [os.environ[name] for name in ("RK_A", "RK_B", "RK_C", "RK_D", "RK_E", "RK_F", "RK_SET")]
    assert read == ["plain", "in quotes # and this", "x", "a b", "", "a#b", "kept"]


def test_a_broken_line_is_named_and_its_content_is_not(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\nsk-very-secret\n")
    with pytest.raises(ConfigError, match="line 2 is not NAME=value") as raised:
        read_dotenv(file)
    assert "very-secret" not in str(raised.value)
    assert read_dotenv(tmp_path / "none") == []


def test_the_secret_of_a_store_file_stays_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOMKIT_SECRET", raising=False)
    first = secret_of(tmp_path / "a.db")
    assert len(first) >= 32
    assert secret_of(tmp_path / "a.db") == first
    assert secret_of(tmp_path / "b.db") != first
    assert stat.S_IMODE((tmp_path / "a.db.secret").stat().st_mode) == 0o600
    monkeypatch.setenv("ROOMKIT_SECRET", "given-by-the-operator")
    assert secret_of(tmp_path / "a.db") == "given-by-the-operator"


def test_an_empty_secret_file_is_not_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOMKIT_SECRET", raising=False)
    (tmp_path / "a.db.secret").write_text("")
    with pytest.raises(ConfigError, match="is empty"):
        secret_of(tmp_path / "a.db")
