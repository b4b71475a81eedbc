"""Colours only where a person looks; texts of others cannot drive the terminal."""

from __future__ import annotations

import io

import pytest

from roomkit.cli.console import clean, coloured, fail, paint


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_needs_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured(Terminal())
    assert paint("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert paint("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not coloured(Terminal())


def test_control_characters_are_left_out() -> None:
    assert clean("a\x1b[2Jb\x07\r\n\tc é 你 \x9b31m") == "a[2Jb\n\tc é 你 31m"


def test_a_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail("it broke") == 1
    assert capsys.readouterr().err == "roomkit: it broke\n"
