"""`roomkit run`: refuses what would be open to everybody, serves, and drains."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from roomkit.cli.run import RunOptions, kit_and_app, refuse_open_doors
from roomkit.errors import ConfigError, UsageError
from roomkit.kit import RoomKit
from tests.cli.conftest import Command, hear, stop


def test_serving_and_draining(command: Command, app_file: Path) -> None:
    process = command.start("run", "app:kit", "--port", "0", ROOMKIT_LOG="WARNING")
    line = hear(process, "roomkit: serving app:kit on http://127.0.0.1:")
    with urllib.request.urlopen(f"{line.split()[4]}/readyz", timeout=10) as answer:
        assert json.load(answer)["ready"]
    assert stop(process) == 0


@pytest.mark.parametrize(
    "made, open_to_all",
    [
        ("RoomKit()", True),
        ("RoomKit(token_secrets=['0123456789abcdef'])", False),
        ("RoomKit().asgi(authenticate=lambda connection: None)", False),
        ("RoomKit().asgi()", True),
    ],
)
def test_off_loopback_somebody_must_decide_who_comes_in(
    made: str, open_to_all: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text(f"from roomkit import RoomKit\nkit = {made}\n")
    monkeypatch.chdir(tmp_path)
    for host in ("127.0.0.1", "0.0.0.0"):
        options = RunOptions("app.py:kit", host)
        kit, app = kit_and_app(options)
        if open_to_all and host == "0.0.0.0":
            with pytest.raises(ConfigError, match="nothing says who may come in"):
                refuse_open_doors(kit, app, options)
        else:
            refuse_open_doors(kit, app, options)


def test_what_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROOMKIT_PUBLIC_URL", "https://chat.example.com")
    (tmp_path / "app.py").write_text(
        "from roomkit import RoomKit\nkit = RoomKit()\nmine = kit.asgi(public_url='https://other.example.com')\nn = 3\n"
    )
    kit, app = kit_and_app(RunOptions("app.py:kit"))
    assert isinstance(kit, RoomKit)
    assert app.door.options.base_url == "https://chat.example.com"
    with pytest.raises(ConfigError, match="give it in one place"):
        kit_and_app(RunOptions("app.py:mine"))
    monkeypatch.delenv("ROOMKIT_PUBLIC_URL")
    assert kit_and_app(RunOptions("app.py:mine"))[1].door.options.base_url == "https://other.example.com"
    with pytest.raises(UsageError, match="neither a RoomKit nor"):
        kit_and_app(RunOptions("app.py:n"))
