"""The wheel: two hard dependencies, and everything in the package, pages and scripts included."""

from __future__ import annotations

import re
import subprocess
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
    found = [path for path in ROOT.glob("*.md") if re.search(r"pip install roomkit\b", path.read_text("utf-8"))]
    found += [path for path in (ROOT / "docs").rglob("*.md") if "pip install roomkit" in path.read_text("utf-8")]
    assert not found


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
