"""The doctor: names keys and never shows them, and ends with 1 exactly when something is broken."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from roomkit import RoomKit
from roomkit.channels import SlackChannel, WhatsAppPersonalChannel
from roomkit.cli import doctor, main
from roomkit.cli.doctor import KEYS, TOGETHER, State
from roomkit.cli.serving import listen
from roomkit.testing import FakeMessages


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [*KEYS, *(n for names in TOGETHER.values() for n in names), "ROOMKIT_PUBLIC_URL", "TWILIO_API_SECRET"]:
        monkeypatch.delenv(name, raising=False)


def program(text: str) -> str:
    Path("app.py").write_text(f"from roomkit import RoomKit, SMSChannel\nkit = {text}\n")
    return "app.py"


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["doctor", *words])
    return code, capsys.readouterr().out


def test_a_healthy_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = told(capsys, "--port", "0")
    assert code == 0, out
    assert "nothing is broken" in out
    assert all(word in out for word in ("sqlite", "[server]", "OPENAI_API_KEY is not set", "clock", "store"))


def test_keys_are_named_and_never_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-topsecret")
    code, out = told(capsys, "--port", "0")
    assert code == 0
    assert "OPENAI_API_KEY is set" in out
    monkeypatch.setenv("OPENAI_API_KEY", '"sk-topsecret"')
    code, quoted = told(capsys, "--port", "0")
    assert code == 1
    assert "quotes around it" in quoted
    assert "topsecret" not in out + quoted


def test_half_an_account_is_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC0")
    code, out = told(capsys, "--port", "0")
    assert code == 1
    assert "TWILIO_AUTH_TOKEN is missing" in out


@pytest.mark.parametrize("vendor", TOGETHER)
def test_of_a_vendor_in_use_everything_is_needed(
    vendor: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = TOGETHER[vendor]
    assert first not in told(capsys, "--port", "0")[1], "nobody who does not use it hears of it"
    monkeypatch.setenv(first, "planted-secret")
    code, out = told(capsys, "--port", "0")
    assert code == (1 if others else 0)
    assert f"{first} is set" in out
    assert not others or f"{' and '.join(others)} missing" in out
    assert "planted" not in out


def test_what_vendors_share_is_no_sign_that_all_of_them_are_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TOGETHER["whatsapp"]:
        monkeypatch.setenv(name, "planted-secret")
    code, out = told(capsys, "--port", "0")
    assert (code, "META_APP_SECRET is set" in out) == (0, True)
    assert "MESSENGER" not in out


def test_a_bot_without_a_webhook_secret_can_only_poll(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TELEGRAM_WEBHOOK_SECRET", raising=False)
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "planted-secret")
    code, out = told(capsys, "--port", "0")
    assert (code, "only long polling" in out) == (0, True)
    monkeypatch.setenv("TELEGRAM_WEBHOOK_SECRET", "planted-secret")
    assert "only long polling" not in told(capsys, "--port", "0")[1]


def test_a_fallback_that_hears_of_no_failure_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    for callback, noted in (("", True), (", webhook_url='https://x.example/webhooks/rcs'", False)):
        Path("app.py").write_text(
            "from roomkit import RoomKit\n"
            "from roomkit.channels import RCSChannel\n"
            "from roomkit.providers.telnyx.rcs import TelnyxRCSProvider\n"
            "from roomkit.providers.telnyx.sms import TelnyxOptions\n"
            "kit = RoomKit()\n"
            f"provider = TelnyxRCSProvider(TelnyxOptions('a key of ours'{callback}))\n"
            "kit.register_channel(RCSChannel('rcs', provider=provider))\n"
        )
        _, out = told(capsys, "app.py", "--port", "0", "--public-url", "https://x.example")
        assert ("have reports sent" in out) is noted


def test_a_taken_port_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        code, out = told(capsys, "--port", str(taken.getsockname()[1]))
    assert code == 0
    assert "is taken by another program" in out


def test_a_program_with_a_durable_store(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = told(capsys, program("RoomKit('sqlite:///r.db', token_secrets=['0123456789abcdef'])"), "--port", "0")
    assert code == 0, out
    assert '"r.db" is writable' in out or "r.db" in out
    assert "signed with your own secret" in out


def test_a_store_of_another_program_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    import sqlite3

    with closing(sqlite3.connect("r.db")) as db, db:
        db.execute("CREATE TABLE other (x)")
    db.close()
    code, out = told(capsys, program("RoomKit('sqlite:///r.db')"), "--port", "0")
    assert code == 1
    assert "another program" in out


def test_webhooks_need_a_public_address(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC0")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "token")
    name = program("RoomKit()")
    with Path(name).open("a") as file:
        file.write("kit.register_channel(SMSChannel('sms', provider='twilio'))\n")
        file.write("kit.register_channel(SMSChannel('silent'))\n")
    code, out = told(capsys, name, "--port", "0")
    assert code == 1
    assert "--public-url" in out
    assert '"silent" (sms) has no provider' in out
    code, out = told(capsys, name, "--port", "0", "--public-url", "https://chat.example.com/")
    assert code == 0, out
    assert "https://chat.example.com/webhooks/sms" in out
    code, out = told(capsys, name, "--port", "0", "--public-url", "http://chat.example.com/")
    assert code == 1
    assert "use https" in out


def test_a_clock_before_the_installation_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Past:
        def now(self) -> datetime:
            return datetime(2001, 1, 1, tzinfo=UTC)

    assert [finding.state for finding in doctor.clock()] == [State.OK]
    monkeypatch.setattr(doctor, "SystemClock", Past)
    assert [finding.state for finding in doctor.clock()] == [State.BAD]


def test_what_is_not_installed_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "mcp" else object())
    states = {finding.what: finding for finding in doctor.extras()}
    assert states["[mcp]"].state is State.NOTE
    assert "pip install '.[mcp]'" in states["[mcp]"].told
    assert states["[http]"].state is State.OK


@pytest.mark.parametrize("sdk", [True, False])
def test_the_api_of_telemetry_alone_sends_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sdk: bool
) -> None:
    there = lambda name: object() if sdk or name != "opentelemetry.sdk" else None  # noqa: E731 - a table of one line
    monkeypatch.setattr(doctor, "find_spec", there)
    _, out = told(capsys, "--port", "0")
    assert ("only its API" in out) is not sdk


def test_who_has_no_webhooks_needs_no_public_address() -> None:
    kit = RoomKit()
    kit.register_channel(WhatsAppPersonalChannel("wa", provider="neonize"))
    kit.register_channel(SlackChannel("slack", provider=FakeMessages()))
    assert doctor.webhooks(kit) == ("slack",)
