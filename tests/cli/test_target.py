"""Finding the RoomKit in the user's program, and saying in one line why it cannot be found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from roomkit.cli.target import load, load_kit, source_of
from roomkit.errors import ConfigError, UsageError
from roomkit.kit import RoomKit

KIT = "from roomkit import RoomKit\n"


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("prog"):
            del sys.modules[name]


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


def test_a_file_and_the_kit_in_it() -> None:
    write("prog1.py", KIT + "other = 1\nkit = RoomKit()\n")
    assert isinstance(load_kit("prog1.py"), RoomKit)
    assert load_kit("prog1.py:kit") is sys.modules["prog1"].kit


def test_another_name_is_found_when_it_is_the_only_one() -> None:
    write("prog2.py", KIT + "rooms = RoomKit()\nsame = rooms\n")
    assert load_kit("prog2.py") is sys.modules["prog2"].rooms


def test_kit_wins_among_several_and_otherwise_one_must_say_which() -> None:
    write("prog3.py", KIT + "a = RoomKit()\nkit = RoomKit()\n")
    assert load_kit("prog3.py") is sys.modules["prog3"].kit
    write("prog4.py", KIT + "a = RoomKit()\nb = RoomKit()\n")
    with pytest.raises(UsageError, match=r"several RoomKits \(a, b\); say which, e.g. prog4.py:a"):
        load_kit("prog4.py")
    assert load_kit("prog4.py:b") is sys.modules["prog4"].b


def test_modules_packages_attributes_and_factories() -> None:
    write("prog5/__init__.py", "")
    write("prog5/rooms.py", KIT + "class box:\n    kit = RoomKit()\ndef make():\n    return RoomKit()\n")
    assert isinstance(load_kit("prog5.rooms:box.kit"), RoomKit)
    assert isinstance(load_kit("prog5.rooms:make"), RoomKit)
    assert isinstance(load_kit("prog5/rooms.py:make"), RoomKit)


def test_an_import_beside_the_file_works() -> None:
    write("sub/prog6_part.py", "NAME = 'x'\n")
    write("sub/prog6.py", KIT + "import prog6_part\nkit = RoomKit()\n")
    assert isinstance(load_kit("sub/prog6.py"), RoomKit)


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("prog7.py", "x = 1\n", "has no RoomKit; add a line like: kit = RoomKit()"),
        ("prog8.py", "def f(:\n", r"could not be imported: SyntaxError.*line 1"),
        ("prog9.py", "\n\nx = missing\n", r"NameError: name 'missing' is not defined \(prog9.py, line 3\)"),
        ("prog10.py", "raise SystemExit('no')\n", "SystemExit: no"),
        ("prog11.py", KIT + "RoomKit('mongo://x')\n", "names no store"),
    ],
)
def test_what_is_wrong_with_the_program_is_told_in_one_line(name: str, text: str, told: str) -> None:
    write(name, text)
    with pytest.raises(UsageError, match=told) as raised:
        load_kit(name)
    assert "\n" not in str(raised.value)


def test_our_own_errors_keep_their_kind() -> None:
    write("prog12.py", KIT + "RoomKit('mongo://x')\n")
    with pytest.raises(ConfigError):
        load_kit("prog12.py")


def test_names_that_are_nearly_right() -> None:
    write("prog13.py", KIT + "kit = RoomKit()\n")
    with pytest.raises(UsageError, match=r'did you mean "prog13\.py"'):
        load("prog31.py")
    with pytest.raises(UsageError, match='did you mean "kit"'):
        load("prog13.py:kti")
    with pytest.raises(UsageError, match='there is no module "prog99"'):
        load("prog99:kit")


def test_something_else_is_not_a_kit() -> None:
    write("prog14.py", "kit = 3\ndef needs(x):\n    return x\ndef breaks():\n    return 1 / 0\n")
    with pytest.raises(UsageError, match="is a int, not a RoomKit"):
        load_kit("prog14.py:kit")
    with pytest.raises(UsageError, match="is a function, not a RoomKit"):
        load_kit("prog14.py:needs")
    with pytest.raises(UsageError, match=r"breaks\(\) failed: ZeroDivisionError"):
        load_kit("prog14.py:breaks")


def test_where_a_program_lives() -> None:
    assert source_of("sub/app.py:kit") == Path.cwd() / "sub/app.py"
    assert source_of("package.app:kit") == Path.cwd()
