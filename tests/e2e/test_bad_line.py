"""The chat on a bad line: what could not be sent can be sent again, and what is half written is not lost."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route, expect

from tests.e2e.driver import Pages, Server
from tests.e2e.test_pages import SLOW, say

pytestmark = pytest.mark.browser


def test_a_file_that_did_not_get_through_is_sent_at_the_second_try(server: Server, pages: Pages, room: str) -> None:
    pages.expected = ("Failed to load resource",)
    chat = pages.open(server, "", room)
    cut: list[str] = []

    def line(route: Route) -> None:
        if cut:
            return route.continue_()
        cut.append(route.request.url)
        return route.abort("internetdisconnected")

    box = chat.get_by_role("textbox", name="Write a message")
    expect(box).to_be_visible(timeout=SLOW)
    chat.route("**/media?*", line)
    chat.locator("input[type=file]").set_input_files({"name": "note.txt", "mimeType": "text/plain", "buffer": b"hello"})
    box.press("Enter")
    expect(chat.locator(".attached")).to_contain_text("cannot be reached")
    box.press("Enter")
    expect(chat.locator(".attached")).to_have_count(0)
    expect(chat.locator(".message.own")).to_contain_text("note.txt")
    say(chat, "did it arrive?")
    expect(chat.locator(".message.own", has_text="did it arrive?")).to_have_count(1)


def test_half_written_words_survive_a_reload(server: Server, pages: Pages, room: str) -> None:
    chat = pages.open(server, "", room)
    box = chat.get_by_role("textbox", name="Write a message")
    box.fill("Could you please")
    chat.reload()
    expect(box).to_have_value("Could you please", timeout=SLOW)
    box.press("Enter")
    expect(box).to_have_value("")
    chat.reload()
    expect(chat.locator(".message.own")).to_contain_text("Could you please", timeout=SLOW)
    expect(box).to_have_value("")
