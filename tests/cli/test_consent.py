"""`roomkit consent`: the ledger, in words and as lines of JSON."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from roomkit import InboundMessage, KitOptions, RoomKit
from roomkit.cli import main
from roomkit.models.consent import ConsentPolicy
from roomkit.testing import FakeChannel

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]


@pytest.fixture
def store(tmp_path: Path) -> str:
    db = str(tmp_path / "rooms.db")

    async def fill() -> None:
        kit = RoomKit(f"sqlite:///{db}", options=KitOptions(consent=ConsentPolicy()))
        kit.register_channel(FakeChannel())
        async with kit:
            await kit.process_inbound(InboundMessage.text("sms", "+15550123", "Stop!"))
            await kit.consent.allow("sms", "+15550123", by="desk", reason="called us")
            await kit.consent.stop("email", identity="ann", purpose="marketing")

    asyncio.run(fill())
    return db


def test_the_ledger_is_shown_and_taken_along(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["consent", "--store", store]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1:] for line in lines] == [
        ["+15550123", "stopped", "sms, all", 'keyword "Stop!"'],
        ["+15550123", "allowed", "sms, all", 'host desk "called us"'],
        ["ann", "stopped", "email, marketing", "host"],
    ]
    assert main(["consent", "+1 (555) 0123", "--store", store, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["granted"], one["source"]) for one in told] == [(False, "keyword"), (True, "host")]


def test_an_empty_ledger_says_so(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["consent", "nobody", "--store", store]) == 1
    assert 'no lines about "nobody"' in capsys.readouterr().err
