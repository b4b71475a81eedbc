from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gates import layers


def house(folder: Path, files: dict[str, str]) -> Path:
    """A small package called roomkit with these files."""
    package = folder / "roomkit"
    for name, text in {"__init__.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    return package


def test_every_module_stands_in_a_layer() -> None:
    assert layers.uncovered() == set()


def test_a_module_without_a_layer_is_noticed(tmp_path: Path) -> None:
    package = house(tmp_path, {"errors.py": "", "attic/box.py": "", "cli/__init__.py": ""})
    assert layers.uncovered(package) == {"attic"}


def test_the_layers_are_kept() -> None:
    """In a process of its own: import-linter configures logging for the whole process."""
    command = [sys.executable, "-m", "tests.gates.layers"]
    ran = subprocess.run(command, cwd=layers.ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_what_does_not_exist_yet_is_left_out(tmp_path: Path) -> None:
    written = layers.config(house(tmp_path, {"errors.py": "", "core/policy.py": "", "ai/loop.py": ""}))
    assert "core | ai\n" in written
    assert "kit" not in written.replace("roomkit", "")
    assert "roomkit.core.policy" in written
    assert "roomkit.voice.turn" not in written


@pytest.mark.parametrize(
    "path, line, contract",
    [
        ("ai/loop.py", "from roomkit.core import policy", "layers-go-one-way"),
        ("models/event.py", "import roomkit.errors, roomkit.net.client", "layers-go-one-way"),
        ("core/policy.py", "import time", "pure-modules-do-not-wait"),
        ("channels/sms.py", "import roomkit.providers.twilio.sms", "nobody-imports-a-provider"),
        ("providers/twilio/sms.py", "import roomkit.providers.openai.ai", "vendors-do-not-know-each-other"),
    ],
)
def test_breaking_a_layer_is_noticed(tmp_path: Path, path: str, line: str, contract: str) -> None:
    """Runs the real import-linter, on a small house whose one wrong import is `line`."""
    sound = {
        "errors.py": "",
        "models/event.py": "",
        "net/client.py": "",
        "core/policy.py": "",
        "ai/loop.py": "",
        "channels/sms.py": "",
        "providers/twilio/sms.py": "",
        "providers/openai/ai.py": "",
    }
    package = house(tmp_path, {**sound, path: line + "\n"})
    (package / "providers" / "__init__.py").touch()
    (tmp_path / "contracts.ini").write_text(layers.config(package))
    tool = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert tool
    command = [tool, "--config", "contracts.ini", "--no-cache", "--contract", contract]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "BROKEN" in ran.stdout
