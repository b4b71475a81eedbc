"""No key and no place of anybody's machine in the repository."""

from __future__ import annotations

import re

import pytest

from tests.gates.tree import ROOT, tracked

# Written in halves, so that this file does not contain what it looks for.
PLACES = ["/wo" + "rk/", ".libr" + "ary", "/tmp/" + "brief", "/ro" + "ot/", "/opt/" + "pypi"]
HOSTS = ["py" + "pi.org", "pythonho" + "sted.org", "registry.np" + "mjs.org", "deb." + "debian.org"]
FORBIDDEN = re.compile("|".join(re.escape(text) for text in PLACES + HOSTS))
KEYS = re.compile(
    r"\b(?:sk-(?:ant-|proj-)?[A-Za-z0-9_-]{20,}|(?:AC|SK)[0-9a-f]{32}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|xox[abpr]-[A-Za-z0-9-]{20,}|AIza[0-9A-Za-z_-]{35})\b|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----(?:$|\\n[\w+/]{40})"
)
MADE_UP = re.compile(r"planted|canary|fake|example|test|secret|dummy", re.IGNORECASE)
BINARY = {".png", ".jpg", ".gif", ".ico", ".webp", ".wav", ".ogg", ".mp3", ".woff2", ".db"}


def made_up(key: str) -> bool:
    """Keys invented for a test say so, or repeat a few characters, or count; real ones do not."""
    return bool(MADE_UP.search(key)) or len(set(key)) <= 9 or "123456789" in key


def findings(text: str) -> list[str]:
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := FORBIDDEN.search(line):
            found.append(f"{number}: a place or host: {match[0]}")
        found += [f"{number}: looks like a key" for match in KEYS.finditer(line) if not made_up(match[0])]
    return found


def test_no_keys_and_no_places() -> None:
    found: list[str] = []
    for path in tracked():
        if path.suffix not in BINARY:
            name = path.relative_to(ROOT).as_posix()
            found += [f"{name}:{line}" for line in findings(path.read_text(encoding="utf-8", errors="replace"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "see /wo" + "rk/main",
        "pip install --index-url https://py" + "pi.org/simple",
        "key = 's" + "k-ant-abcdefghijklmnopqrstuvw'",
        "sid = 'A" + "C0f1e52a93b84c7d60192a3b4c5d6e7f8'",
        "-----BEGIN RSA PRIV" + "ATE KEY-----",
    ],
)
def test_the_gate_bites(text: str) -> None:
    assert findings(text)


def test_made_up_keys_are_fine() -> None:
    assert not findings("sk-" + "test" * 8 + " AC" + "0" * 32 + " AC" + "0123456789abcdef" * 2)
