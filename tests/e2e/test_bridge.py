"""The bridge as a story: who watches it sees what each channel was sent of every message."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.driver import Pages, Server
from tests.e2e.test_pages import api

pytestmark = pytest.mark.browser


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, app="tests.e2e.bridge_app").start()
    yield server
    server.stop()


def opened(page: Page, text: str) -> dict[str, tuple[str, list[str]]]:
    """What the page tells of a message: by channel how it arrived, and in which parts."""
    message = page.locator(".said", has_text=text).last
    message.get_by_role("button", name="What arrived").click()
    received = message.get_by_role("list", name="What each channel received")
    expect(received).to_be_visible()
    return {
        str(item.get_attribute("data-channel")): (
            item.locator(".received-how").inner_text(),
            [part.inner_text() for part in item.locator("ol > li").all()],
        )
        for item in received.locator("> li").all()
    }


def test_a_supervisor_sees_what_each_channel_was_sent(bridge: Server, pages: Pages) -> None:
    (room,) = api(bridge, "sam", "rooms")["rooms"]
    page = pages.open(bridge, f"supervisor?{room['id']}", "sam", width=1300, height=1000)
    expect(page.locator(".said", has_text="Which colour")).to_be_visible()
    for name in ("Ann", "Ben", "Cleo"):
        expect(page.locator(".said.guest header b", has_text=name)).to_be_visible()

    colours = opened(page, "Which colour")
    assert set(colours) == {"sms", "whatsapp", "email"}
    how, parts = colours["sms"]
    assert "changed for this channel" in how
    assert [line.strip("-• ") for line in parts[0].splitlines() if line.strip()][1:] == ["Red", "Green", "Blue"]
    assert "as written" in colours["whatsapp"][0]
    assert colours["whatsapp"][1] == []

    care = opened(page, "Wipe the lamp")
    how, parts = care["sms"]
    assert "2 parts" in how
    assert len(parts) == 2
    assert parts[0].startswith("Wipe the lamp")
    assert "as written" in care["email"][0]
    last = page.locator(".said", has_text="Wipe the lamp").last
    expect(last.locator(".chip", has_text="whatsapp read")).to_be_visible()
    expect(last.locator(".chip", has_text="sms sent")).to_be_visible()

    bens = opened(page, "I share the desk")
    assert bens["sms"][1][0].startswith("Ben: I share"), "a phone cannot show who writes"
    if folder := os.environ.get("ROOMKIT_PICTURES"):  # for whoever wants to look
        page.screenshot(path=Path(folder) / "bridge.png")
