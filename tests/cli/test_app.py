"""Every wrong use is one line that says what, why and the fix, with exit code 2."""

from __future__ import annotations

import pytest

from roomkit.cli import main

WRONG = [
    (["dmo"], "No such command 'dmo'. Did you mean 'demo'"),
    (["demo", "--prt", "1"], "No such option: --prt"),
    (["demo", "--port", "many"], "--port"),
    (["demo", "--brain", "big"], "'big' is not one of"),
    (["demo", "--port", "99999"], "--port 99999 is not a port"),
    (["demo", "--host", "0.0.0.0"], "serve others with: roomkit run"),
    (["demo", "--db", "nowhere/rooms.db"], 'there is no directory "nowhere"'),
    (["demo", "--brain", "openai"], "needs OPENAI_API_KEY"),
    (["run"], "Missing argument"),
    (["run", "nothing.py"], 'there is no file "nothing.py"'),
    (["run", "no-such-module:kit"], "neither a Python file nor a module"),
    (["run", "nosuchmodule:kit"], 'there is no module "nosuchmodule"'),
    (["run", "app.py", "--workers", "2"], "it must be 1"),
    (["dev", "app.py", "--host", "0.0.0.0"], "stays on this machine"),
    (["send", "--channel", "sms", "--from", "+15550123"], "Missing option '--text'"),
    (["send", "--channel", "sms", "--from", "+15550123", "--text", "hi", "--url", "host"], "is not a URL"),
    (["send", "--channel", "sms", "--from", "+15550123", "--text", "hi"], "TWILIO_ACCOUNT_SID"),
    (["send", "--channel", "x", "--from", "a", "--text", "hi", "--provider", "acme"], "use twilio or"),
    (["send", "--channel", "x", "--from", "a", "--text", "hi", "--provider", "http"], "ROOMKIT_WEBHOOK_SECRET"),
    (["send", "--channel", "x", "--from", "a", "--text", "hi", "--db", "no.db"], '"no.db" does not exist'),
    (["doctor", "app.py:kot"], "did you mean"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, app_file):
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))


@pytest.mark.parametrize("words, told", WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_use_is_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("roomkit: ")
    assert err.count("\n") == 1
    assert told in err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("demo", "dev", "run", "doctor", "send"))
    assert "..." not in listed.partition("Commands:")[2], "what a command does is cut off"
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("roomkit ")


def test_a_missing_extra_is_one_line(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("roomkit.cli.environment.find_spec", lambda name: None)
    assert main(["demo"]) == 2
    err = capsys.readouterr().err
    assert "[cli] extra" in err
    assert "pip install roomkit" not in err
    assert err.count("\n") == 1


def test_python_m_roomkit_is_the_command(command) -> None:
    done = command("--help")
    assert done.returncode == 0
    assert "demo" in done.stdout
    assert command("dmo").returncode == 2
