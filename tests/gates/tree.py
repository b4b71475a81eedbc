"""The tree as the gates see it: parsed source files of the package, tracked files, and the waivers."""

from __future__ import annotations

import ast
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAIVERS = ROOT / "docs" / "decisions" / "waivers.md"
WAIVER = re.compile(r"^`(?P<path>[^`:]+)::(?P<name>[\w.]+) (?P<budget>[a-z]+)=(?P<value>\d+)` (?P<reason>\S.*)$")


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root of the project, its text and its tree."""

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def of(cls, text: str, path: str = "roomkit/example.py") -> Source:
        return cls(path, text, ast.parse(text))

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def inside(self, *folders: str) -> bool:
        return self.path.startswith(tuple(f"roomkit/{folder}" for folder in folders))


@dataclass(frozen=True)
class Waiver:
    path: str
    name: str
    budget: str
    value: int
    reason: str


@cache
def package() -> tuple[Source, ...]:
    """Every Python file of roomkit/, parsed."""
    files = sorted((ROOT / "roomkit").rglob("*.py"))
    return tuple(Source.of(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()) for path in files)


def tracked(*patterns: str) -> list[Path]:
    """Files in git or about to be (not ignored), as absolute paths; all of them without patterns."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns)
    return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def parse_waivers(text: str) -> list[Waiver]:
    found = [match for line in text.splitlines() if (match := WAIVER.match(line.removeprefix("* ")))]
    return [Waiver(m["path"], m["name"], m["budget"], int(m["value"]), m["reason"]) for m in found]


def waivers() -> list[Waiver]:
    return parse_waivers(WAIVERS.read_text(encoding="utf-8")) if WAIVERS.exists() else []
