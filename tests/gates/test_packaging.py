"""The wheel: two hard dependencies, and everything in the package, pages and scripts included."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.gates.tree import ROOT, git


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=! ;]", requirement)[0]


def test_two_hard_dependencies() -> None:
    assert {name_of(it) for it in project()["dependencies"]} == {"pydantic", "typing-extensions"}


def test_all_means_every_extra_for_users() -> None:
    extras = project()["optional-dependencies"]
    apart = {"neonize", "google-adk", "claude-agent"}  # why these are left out, pyproject.toml says
    users = set(extras) - {"all", "dev", "docs"} - apart
    assert extras["all"] == [f"roomkit-framework[{','.join(it for it in extras if it in users)}]"]


def test_the_readme_names_every_extra() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = readme.partition("| extra | what for |")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z-]+)`", rows))
    assert set(project()["optional-dependencies"]) - {"dev", "docs"} - named == set()


def test_git_ignores_nothing_of_the_package() -> None:
    """The wheel leaves out what git ignores, so an ignored page would be missing where roomkit is installed."""
    ignored = git("ls-files", "--others", "--ignored", "--exclude-standard", "--", "roomkit").split()
    assert not [path for path in ignored if "__pycache__" not in path]


def test_the_readme_never_installs_somebody_elses_package() -> None:
    """On the public index `roomkit` is another project."""
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "roomkit").rglob("*.py")]
    # And nothing of that name with "-framework" is there yet.
    assert not [path for path in texts if re.search(r"pip install '?roomkit\b", path.read_text("utf-8"))]


BARE = """
import sys
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "starlette", "twilio", "cryptography", "google", "httpx2"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Bare())
from importlib import import_module
from roomkit.errors import MissingExtra
for wanted in sys.argv[1:]:
    module, _, name = wanted.partition(":")
    try:
        getattr(import_module(module), name) if name else import_module(module)
    except MissingExtra as error:
        print(error)
"""


def test_what_is_not_installed_is_told_with_its_extra() -> None:
    """By whatever name it is come upon first; a bare ModuleNotFoundError says what, and not what to do."""
    wanted = {
        "roomkit:VoiceChannel": "voice",
        "roomkit.channels:RealtimeVoiceChannel": "voice",
        "roomkit.testing:FakeTwilio": "server",
        "roomkit.testing:FakeTwilioCall": "voice",
        "roomkit.protocols.rtvi.frames": "rtvi",
    }
    command = [sys.executable, "-c", BARE, *wanted]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    told = ran.stdout.splitlines()
    assert [re.findall(r"the \[(\w+)\] extra", line) for line in told] == [[extra] for extra in wanted.values()]


@pytest.mark.parametrize("script", sorted((ROOT / ".ci").iterdir()), ids=lambda path: path.name)
def test_ci_scripts_can_be_run(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    shell = "bash" if "bash" in script.read_text(encoding="utf-8").splitlines()[0] else "sh"
    subprocess.run([shell, "-n", str(script)], check=True, timeout=10)


def test_the_interpreter_finder_runs_what_it_finds(tmp_path: Path) -> None:
    """A shim without a version behind it is on the PATH, but it is no interpreter."""
    shim = tmp_path / "python9.9"
    shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    ran = subprocess.run([ROOT / ".ci" / "find-python", "9.9"], env=environment, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, b"")
