"""`roomkit dev`: lines in, replies out, until the end of input; and again after each change."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.conftest import APP, Command, eventually, hear, stop


@pytest.mark.parametrize("options", [["--no-pages"], ["--port", "0"]], ids=["terminal", "with pages"])
def test_a_conversation_through_a_pipe(command: Command, app_file: Path, options: list[str]) -> None:
    done = command("dev", "app.py", *options, given="hi\n\nhow are you\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "You said: hi\nYou said: how are you\n"


def test_an_ai_answers_whole_where_nobody_watches_it_grow(command: Command) -> None:
    (command.folder / "app.py").write_text(
        "from roomkit import AIChannel, RoomKit\nfrom roomkit.providers.offline.ai import OfflineBrain\n"
        "kit = RoomKit()\nkit.register_channel(AIChannel('ai', OfflineBrain(delay=0.0)), default=True)\n"
    )
    done = command("dev", "app.py", "--no-pages", given="Who are you?\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("I am roomkit's built-in offline stand-in")
    assert done.stdout.count("offline stand-in") == 1


def test_a_function_that_breaks_is_told_and_the_talk_goes_on(command: Command) -> None:
    (command.folder / "app.py").write_text(
        APP.replace("return", "if message.text == 'bad': raise ValueError\n    return")
    )
    done = command("dev", "app.py", "--no-pages", given="bad\ngood\n")
    assert done.returncode == 0
    assert "ValueError" in done.stderr  # with its traceback: it is the program under development
    assert done.stdout == "You said: good\n"


def test_a_refusal_is_told(command: Command) -> None:
    (command.folder / "app.py").write_text(
        APP + "\nfrom roomkit import BeforeCommit, Block\n\n@kit.before(BeforeCommit)\nasync def calm(moment):\n"
        "    return Block('no shouting') if moment.value.text.isupper() else None\n"
    )
    done = command("dev", "app.py", "--no-pages", given="HELLO\nhello\n")
    assert done.stdout.splitlines()[0] == "(not accepted: no shouting)"


def test_a_program_that_seats_its_own_channels_keeps_its_choice(command: Command) -> None:
    (command.folder / "app.py").write_text(
        APP + "\nfrom roomkit import AIChannel\nkit.register_channel(AIChannel('silent', 'offline'))\n"
    )
    done = command("dev", "app.py", "--no-pages", given="hi\n")
    assert done.stdout == "You said: hi\n"


def test_reload_starts_again_when_the_program_changes(command: Command, app_file: Path) -> None:
    process = command.start("dev", "app.py", "--no-pages", "--reload")
    assert process.stdin is not None
    process.stdin.write("one\n")
    process.stdin.flush()
    hear(process, "You said: one")
    app_file.write_text(APP.replace("You said", "You wrote"))
    hear(process, "changed: starting again")
    process.stdin.write("two\n")
    process.stdin.flush()
    hear(process, "You wrote: two")
    process.stdin.close()
    assert process.wait(20) == 0


def test_ctrl_c_ends_it(command: Command, app_file: Path) -> None:
    process = command.start("dev", "app.py", "--port", "0")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("one\n")
    process.stdin.flush()
    hear(process, "You said: one")
    assert stop(process) == 0
    assert eventually(lambda: process.poll() is not None)


@pytest.mark.parametrize("options", [["--port", "0"], ["--no-pages"]])
@pytest.mark.parametrize("how", ["ctrl-c", "ctrl-c and end of input", "end of input"])
def test_it_ends_in_one_quiet_line(command: Command, app_file: Path, options: list[str], how: str) -> None:
    process = command.start("dev", "app.py", *options)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("one\n")
    process.stdin.flush()
    hear(process, "You said: one")
    if "ctrl-c" in how:
        process.send_signal(signal.SIGINT)
    if "end" in how:
        process.stdin.close()
    assert process.wait(20) == 0
    rest = process.stdout.read().splitlines()
    assert len(rest) <= 1, rest
