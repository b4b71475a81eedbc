"""What the command prints: plain lines, with a little colour where a person is looking and has not said NO_COLOR."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


def coloured(out: TextIO | None = None) -> bool:
    """Whether `out` (default: standard output) is a terminal that takes colours."""
    terminal = sys.stdout if out is None else out
    return terminal.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, out: TextIO | None = None) -> str:
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if coloured(out) else text


def say(text: str = "") -> None:
    """One line, at once: what reads us may be a pipe."""
    print(text, flush=True)


def fail(text: str) -> int:
    """One line on standard error; returns the exit code of something that did not work."""
    print(f"roomkit: {text}", file=sys.stderr, flush=True)
    return 1


def clean(text: str) -> str:
    """Text of others, without the control characters that could move a terminal's cursor or change its title."""
    return "".join(char for char in text if char in "\n\t" or char.isprintable())
