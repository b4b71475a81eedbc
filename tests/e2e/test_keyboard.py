"""The supervisor's page for somebody without a mouse: everything is reached, and nobody is thrown back to the start."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.driver import Pages, Server
from tests.e2e.test_pages import SLOW, say

pytestmark = pytest.mark.browser
MOST = 60
"""Presses of the tab key after which nobody would go on."""


def tab_to(page: Page, wanted: Locator) -> None:
    expect(wanted).to_be_enabled()
    for _ in range(MOST):
        page.keyboard.press("Tab")
        if wanted.evaluate("one => one === document.activeElement"):
            return
    raise AssertionError(f"not reached with {MOST} tabs: {wanted}")


def held(page: Page) -> Locator:
    """What has the focus, as long as that is more than the page as a whole."""
    return page.locator(":focus:not(body)")


def test_the_desk_with_the_keyboard_alone(server: Server, pages: Pages, room: str) -> None:
    chat = pages.open(server, "", room)
    say(chat, "please refund me")
    page = pages.open(server, "supervisor", "sam", width=1400)
    keys = page.keyboard

    expect(page.locator(".list .room").first).to_be_visible(timeout=SLOW)
    keys.press("/")
    keys.type(f"for {room}")
    line = page.locator(".list .room")
    expect(line).to_have_count(1)
    keys.press("ArrowDown")
    expect(line).to_be_focused()
    keys.press("Enter")
    decision = page.locator(".decision")
    expect(decision).to_contain_text("12.9", timeout=SLOW)
    expect(line).to_be_focused()

    tab_to(page, decision.get_by_role("button", name="Approve"))
    keys.press("Enter")
    expect(decision).to_have_count(0)
    expect(held(page)).to_have_count(1)
    expect(page.locator(".panel :focus")).to_have_count(1)

    keys.press("n")
    keys.type("known since May")
    keys.press("Enter")
    expect(page.locator(".said.note")).to_contain_text("known since May")
    keys.press("Escape")
    keys.press("w")
    keys.type("be kind")
    keys.press("Enter")
    expect(page.locator(".said.whisper")).to_contain_text("be kind")

    keys.press("Escape")
    keys.press("t")
    expect(page.locator(".holder")).to_contain_text("You have the floor")
    expect(page.locator(".desk textarea")).to_be_focused()
    tab_to(page, page.get_by_role("button", name="Hand back to the AI"))
    keys.press("Enter")
    expect(page.locator(".panel .section-body").first.get_by_role("button", name="Take over")).to_be_focused()

    tab_to(page, page.get_by_role("button", name="Close this room"))
    keys.press("Enter")
    expect(page.get_by_role("button", name="Keep it open")).to_be_focused()
    keys.press("Escape")
    expect(page.get_by_role("button", name="Close this room")).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_role("button", name="Keep it open")).to_be_focused()
    keys.press("Shift+Tab")
    keys.press("Enter")
    expect(page.get_by_role("button", name="Reopen this room")).to_be_visible()
    expect(page.locator(".panel :focus")).to_have_count(1)


def test_the_list_is_one_stop_and_what_to_write_is_chosen_with_arrows(server: Server, pages: Pages) -> None:
    page = pages.open(server, "supervisor", "sam", width=1400)
    keys, lines = page.keyboard, page.locator(".list .room")
    expect(lines.nth(2)).to_be_visible(timeout=SLOW)
    expect(page.locator('.list .room[tabindex="0"]')).to_have_count(1)
    keys.press("/")
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    expect(lines.nth(1)).to_be_focused()
    expect(lines.nth(1)).to_have_attribute("tabindex", "0")
    keys.press("Enter")
    tab_to(page, page.get_by_role("radio", name="Reply"))
    keys.press("ArrowRight")
    whisper = page.get_by_role("radio", name="Whisper")
    expect(whisper).to_be_focused()
    expect(whisper).to_be_checked()
    keys.press("ArrowLeft")
    keys.press("ArrowLeft")
    expect(page.get_by_role("radio", name="Draft")).to_be_checked()
    keys.press("/")
    expect(page.locator("#search")).to_be_focused()
    keys.press("Escape")
    expect(held(page)).to_have_count(0)


def test_a_person_who_asked_for_a_person_goes_on_with_the_keyboard(server: Server, pages: Pages, room: str) -> None:
    chat = pages.open(server, "", room)
    say(chat, "hello")
    ask = chat.get_by_role("button", name="Talk to a person")
    tab_to(chat, ask)
    chat.keyboard.press("Enter")
    expect(ask).to_have_count(0)
    expect(held(chat)).to_have_count(1)


def test_what_covers_a_narrow_screen_goes_with_escape(server: Server, pages: Pages, room: str) -> None:
    page = pages.open(server, f"supervisor?{room}", "sam", width=320, height=640)
    button = page.get_by_role("button", name="Room actions")
    expect(button).to_have_attribute("aria-expanded", "false", timeout=SLOW)
    button.press("Enter")
    expect(page.get_by_role("complementary", name="Room actions")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary", name="Room actions")).to_be_hidden()
    expect(button).to_be_focused()
