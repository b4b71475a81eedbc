"""Both pages in a real browser against a real server."""

from __future__ import annotations

import json
import re
import struct
import urllib.request
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.cast import LONG
from tests.e2e.driver import Pages, Server

pytestmark = pytest.mark.browser
SLOW = 15_000
"""Milliseconds that a page may need on a busy machine."""


def say(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Write a message").fill(text)
    page.keyboard.press("Enter")


def bubbles(page: Page, text: str | re.Pattern[str]) -> Any:
    return page.locator(".message", has_text=text)


def replies(page: Page) -> Any:
    """What others wrote in the chat, complete."""
    return page.locator(".message:not(.own):not([aria-busy])")


def desk(page: Page, mode: str, text: str) -> None:
    page.get_by_role("radio", name=mode).click()
    page.locator(".desk textarea").fill(text)
    page.keyboard.press("Enter")


def numbers(upto: int) -> str:
    return " ".join(str(n) for n in range(1, upto + 1))


def api(server: Server, who: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"{server.base}/api/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {server.tokens[who]}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def shown(page: Page) -> list[tuple[str, str]]:
    """The messages on the chat page, in order: (event id, text)."""
    found = page.eval_on_selector_all(
        ".message[data-event]",
        "all => all.map(one => [one.dataset.event, one.querySelector('.bubble').innerText.trim()])",
    )
    return [(key, text) for key, text in found]


def stored(server: Server, room: str) -> list[tuple[str, str]]:
    events = api(server, "sam", f"rooms/{room}/events?limit=200&raw=true")["events"]
    return [
        (event["id"], event["content"]["text"].strip())
        for event in events
        if (event["type"], event["status"]) == ("message", "committed") and event["source"]["channel_type"] != "system"
    ]


def grown(page: Page) -> list[str]:
    """Every state of a growing reply that was on the screen."""
    return page.evaluate("window.grown")


def test_two_browsers_in_one_room_see_the_reply_grow(server: Server, pages: Pages, room: str) -> None:
    here, there = pages.open(server, "", room), pages.open(server, "", room, width=390)
    expect(there.get_by_text("How can we help?")).to_be_visible()
    say(here, "count 30")
    for page in (here, there):
        expect(page.locator(".message.own")).to_have_count(1)
        expect(replies(page)).to_contain_text(numbers(30), timeout=SLOW)
        states = grown(page)
        assert len(states) >= 10, "the reply came in lumps"
        assert all(after.startswith(before) for before, after in pairwise(states))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert [text for _, text in shown(here)] == [text for _, text in shown(there)]
    assert shown(here) == stored(server, room)
    expect(here.get_by_text("You are talking to an AI assistant")).to_have_count(1)
    expect(here.get_by_text("An AI assistant answers here")).to_have_count(0)


@pytest.mark.parametrize("prefix", ["/", "/help/desk"])
def test_killed_in_mid_reply_nothing_is_missing_or_doubled(
    own_server: Callable[..., Server], pages: Pages, prefix: str
) -> None:
    server = own_server(prefix)
    pages.expected = ("ERR_CONNECTION_REFUSED", "WebSocket connection", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
    chat, watching = pages.open(server, "", "ada"), pages.open(server, "supervisor?ada", "sam", width=1400)
    say(chat, "hello")
    expect(replies(chat)).to_have_count(1, timeout=SLOW)
    say(chat, "count 200")
    expect(chat.locator("[aria-busy]")).to_contain_text(" 15 ", timeout=SLOW)
    server.kill()
    expect(chat.get_by_text("Reconnecting… nothing is lost")).to_be_visible()
    expect(chat.locator(".top")).to_contain_text("Not connected at the moment")
    before = grown(chat)[-1]
    say(chat, "still there?")
    expect(bubbles(chat, "still there?")).to_contain_text("Sending…")
    server.start()
    expect(chat.get_by_text("Back", exact=True)).to_be_visible(timeout=20_000)
    expect(watching.locator(".link")).to_have_text(re.compile("Back|Live"), timeout=20_000)
    expect(replies(chat)).to_have_count(3, timeout=20_000)
    expect(chat.locator("[aria-busy], .sending, .failed")).to_have_count(0, timeout=SLOW)
    texts = [text for _, text in shown(chat)]
    assert texts.count("still there?") == 1
    cut = texts[3]
    assert numbers(200).startswith(cut), cut
    assert len(cut) >= len(before.strip()) - 1024, "a checkpoint may miss the last kilobyte, not more"
    assert shown(chat) == stored(server, "ada")
    seen = watching.eval_on_selector_all(".said.message[data-index]", "all => all.map(one => one.dataset.event)")
    assert seen == [key for key, _ in stored(server, "ada")]
    assert [text for text in texts[3:] if text.startswith("1 2 3")] == [cut]


def test_a_reload_shows_the_same_and_leaves_no_token_in_the_address(server: Server, pages: Pages, room: str) -> None:
    chat = pages.open(server, "", room)
    say(chat, "hello")
    expect(replies(chat)).to_have_count(1, timeout=SLOW)
    assert chat.url == f"{server.base}/"
    before = shown(chat)
    chat.reload()
    expect(replies(chat)).to_have_count(1, timeout=SLOW)
    assert shown(chat) == before


def test_a_person_takes_over_and_hands_back(server: Server, pages: Pages, room: str) -> None:
    chat, desk_page = pages.open(server, "", room), pages.open(server, f"supervisor?{room}", "sam", width=1400)
    say(chat, "count 300")
    expect(desk_page.locator("[aria-busy]")).to_contain_text(" 5 ", timeout=SLOW)
    desk_page.locator(".room-top").get_by_role("button", name="Take over").click()
    expect(chat.get_by_text("Sam has joined and answers from now on")).to_be_visible()
    expect(chat.locator("[aria-busy]")).to_have_count(0)
    expect(desk_page.get_by_text("You have the floor").first).to_be_visible()
    expect(desk_page.locator(".room-top .lease")).to_have_text(re.compile(r"^[12]:\d\d$"))
    desk(desk_page, "Reply", "Sam speaking, how can I help?")
    expect(replies(chat).last).to_contain_text("Sam speaking")
    say(chat, "thank you Sam")
    expect(desk_page.locator(".said", has_text="thank you Sam")).to_be_visible()
    desk_page.get_by_role("textbox", name="Note for the AI").fill("They wanted to count")
    desk_page.get_by_role("button", name="Hand back to the AI").click()
    expect(chat.get_by_text("The assistant answers again")).to_be_visible()
    expect(desk_page.locator(".said.note")).to_contain_text("They wanted to count")
    say(chat, "hello machine")
    expect(replies(chat).last).to_contain_text("hello machine. This answer", timeout=SLOW)
    expect(chat.get_by_text("They wanted to count")).to_have_count(0)
    assert len([text for _, text in shown(chat) if text.startswith("1 2 3")]) == 1


def test_asking_for_a_person_rings_the_supervisor(own_server: Callable[..., Server], pages: Pages) -> None:
    server = own_server()
    chat, desk_page = pages.open(server, "", "ada"), pages.open(server, "supervisor", "sam", width=1400)
    expect(desk_page.get_by_text("Nobody is waiting.")).to_be_visible()
    desk_page.get_by_role("button", name="Sound when somebody waits").click()
    expect(desk_page.get_by_role("button", name="Sound when somebody waits")).to_have_attribute("aria-pressed", "true")
    chat.get_by_role("button", name="Talk to a person").click()
    expect(chat.get_by_text("A person has been asked to join. You can go on writing meanwhile.")).to_be_visible()
    waiting = desk_page.locator(".queue .waiting")
    expect(waiting).to_contain_text("Asked for a person in the chat")
    expect(waiting.locator("time")).to_have_text(re.compile(r"^0:\d\d$"))
    expect(desk_page).to_have_title("(1) Supervisor")
    desk_page.keyboard.press("g")
    expect(desk_page.locator(".room-top")).to_be_visible()
    desk_page.keyboard.press("t")
    expect(waiting).to_have_count(0)
    expect(desk_page).to_have_title("Supervisor")


def test_the_word_human_is_answered_honestly(own_server: Callable[..., Server], pages: Pages) -> None:
    server = own_server()
    chat, desk_page = pages.open(server, "", "ada"), pages.open(server, "supervisor", "sam", width=1400)
    say(chat, "Human!")
    expect(chat.get_by_text("People waiting before you: 0.")).to_be_visible()
    expect(chat.get_by_text("A person has been asked to join")).to_have_count(2)  # the log and the line below the title
    expect(desk_page.locator(".queue .waiting")).to_contain_text("asked for a person")


HELD_UP = """
const send = WebSocket.prototype.send;
let held = null;
WebSocket.prototype.send = function (data) {
  if (held === null && data.includes('"watch"')) {
    held = [];
    setTimeout(() => { for (const one of held) send.call(this, one); held = undefined; }, 4000);
  }
  if (held) held.push(data); else send.call(this, data);
};
"""


def test_who_asks_before_the_desk_is_told_of_all_rooms_is_not_missed(
    own_server: Callable[..., Server], pages: Pages
) -> None:
    server = own_server()
    chat = pages.open(server, "", "ada")
    desk_page = pages.open(server, "supervisor", "sam", width=1400, script=HELD_UP)
    expect(desk_page.get_by_text("Nobody is waiting.")).to_be_visible()
    say(chat, "Human!")
    expect(desk_page.locator(".queue .waiting")).to_contain_text("asked for a person")


def test_a_supervisor_sees_everything_and_a_guest_only_the_conversation(
    server: Server, pages: Pages, room: str
) -> None:
    chat, desk_page = pages.open(server, "", room), pages.open(server, f"supervisor?{room}", "sam", width=1400)
    say(chat, "where is my order?")
    tool = desk_page.locator(".tool", has_text="order lookup")
    expect(tool).to_contain_text("completed", timeout=SLOW)
    tool.locator("summary").click()
    expect(tool.locator("pre").first).to_contain_text('"order": "1042"')
    expect(tool.locator("pre").last).to_contain_text("in transit")
    expect(replies(chat)).to_have_count(1, timeout=SLOW)
    say(chat, "this is forbidden")
    expect(bubbles(chat, "this is forbidden")).to_contain_text("Not sent: this message could not be sent")
    expect(desk_page.locator(".said.blocked")).to_contain_text("Blocked by no secrets: secrets stay in the house")
    desk(desk_page, "Note", "a note for colleagues")
    desk(desk_page, "Whisper", "a hint for the machine")
    expect(desk_page.locator(".said.note")).to_contain_text("a note for colleagues")
    expect(desk_page.locator(".said.whisper")).to_contain_text("only assistant")
    say(chat, "hello again")
    expect(replies(chat)).to_have_count(2, timeout=SLOW)
    for secret in ("order lookup", "order_lookup", "a note for colleagues", "a hint for the machine"):
        expect(chat.get_by_text(secret)).to_have_count(0)
    bubbles(chat, "this is forbidden").get_by_role("button", name="Remove").click()
    expect(bubbles(chat, "this is forbidden")).to_have_count(0)


@pytest.mark.parametrize("answer, outcome", [("Approve", "completed"), ("Deny", "denied")])
def test_a_tool_that_needs_approval_waits_for_the_answer(
    server: Server, pages: Pages, room: str, answer: str, outcome: str
) -> None:
    chat, desk_page = pages.open(server, "", room), pages.open(server, f"supervisor?{room}", "sam", width=1400)
    say(chat, "please refund me")
    decision = desk_page.locator(".decision")
    expect(decision).to_contain_text('"amount": 12.9', timeout=SLOW)
    queued = desk_page.locator(".queue .waiting", has_text=room).filter(has_text="Yes or no: refund order?")
    expect(queued).to_be_visible()
    expect(chat.get_by_text("Waiting for a person’s OK")).to_be_visible()
    decision.get_by_role("textbox", name="Reason").fill("as agreed")
    decision.get_by_role("button", name=answer).click()
    expect(decision).to_have_count(0)
    expect(chat.get_by_text("Waiting for a person’s OK")).to_have_count(0)
    expect(desk_page.locator(".queue .waiting", has_text=room)).to_have_count(0)
    expect(desk_page.locator(".tool", has_text="refund order")).to_contain_text(outcome, timeout=SLOW)
    expect(replies(chat)).to_have_count(1, timeout=SLOW)
    expect(bubbles(chat, "refunded 12.90")).to_have_count(1 if answer == "Approve" else 0)


def test_a_draft_waits_for_approval(server: Server, pages: Pages, room: str) -> None:
    chat, desk_page = pages.open(server, "", room), pages.open(server, f"supervisor?{room}", "sam", width=1400)
    expect(chat.get_by_text("How can we help?")).to_be_visible()
    desk(desk_page, "Draft", "Dear customer")
    decision = desk_page.locator(".decision")
    expect(decision).to_contain_text("Dear customer")
    expect(chat.get_by_text("Dear customer")).to_have_count(0)
    decision.get_by_role("button", name="Send it").click()
    expect(replies(chat)).to_contain_text("Dear customer")
    expect(decision).to_have_count(0)


def test_a_whisper_to_one_person(server: Server, pages: Pages, room: str) -> None:
    chat, desk_page = pages.open(server, "", room), pages.open(server, f"supervisor?{room}", "sam", width=1400)
    say(chat, "hello")
    expect(replies(chat)).to_have_count(1, timeout=SLOW)
    desk_page.get_by_role("radio", name="Whisper").click()
    desk_page.locator(".desk select").select_option(f"person:{room}")
    desk(desk_page, "Whisper", "for you alone")
    expect(bubbles(chat, "for you alone")).to_have_count(1)
    expect(bubbles(chat, "for you alone").locator(".name")).to_have_text("Sam")
    expect(desk_page.locator(".said.whisper")).to_contain_text(f"only {room.title()}")


def test_stopping_muting_closing_and_reopening(server: Server, pages: Pages, room: str) -> None:
    chat, desk_page = pages.open(server, "", room), pages.open(server, f"supervisor?{room}", "sam", width=1400)
    say(chat, "count 300")
    expect(chat.locator("[aria-busy]")).to_contain_text(" 5 ", timeout=SLOW)
    desk_page.get_by_role("button", name="Stop this reply").click()
    expect(chat.locator("[aria-busy]")).to_have_count(0)
    expect(replies(chat)).to_contain_text("stopped early")
    assistant = desk_page.locator(".channels li", has_text="assistant")
    assistant.get_by_role("button", name="Mute").click()
    expect(assistant.get_by_role("button", name="Unmute")).to_be_visible()
    say(chat, "are you muted?")
    expect(desk_page.locator(".said.blocked", has_text="are you muted?")).to_contain_text("muted", timeout=SLOW)
    expect(replies(chat)).to_have_count(1)
    desk_page.get_by_role("button", name="Close this room").click()
    desk_page.get_by_role("button", name="Keep it open").click()
    expect(chat.get_by_role("textbox")).to_be_enabled()
    desk_page.get_by_role("button", name="Close this room").click()
    desk_page.get_by_role("button", name="Yes, close it").click()
    expect(chat.get_by_role("textbox")).to_be_disabled()
    expect(desk_page.get_by_role("button", name="Take over")).to_have_count(0)
    expect(chat.get_by_text("This conversation is closed").first).to_be_visible()
    desk_page.get_by_role("button", name="Reopen this room").click()
    expect(chat.get_by_role("textbox")).to_be_enabled()


@pytest.mark.parametrize("width", [320, 375, 720])
def test_nothing_is_pushed_out_of_a_narrow_screen(server: Server, pages: Pages, room: str, width: int) -> None:
    """375 points are a phone, 720 a laptop at twice the size of print."""
    api(server, "sam", f"rooms/{room}/bindings", {"channel_id": "sms"})
    for path, who in (("", room), (f"supervisor?{room}", "sam"), ("supervisor", "sam")):
        page = pages.open(server, path, who, width=width, height=700)
        if path:
            expect(page.get_by_role("button", name="undelivered")).to_be_visible(timeout=SLOW)
            expect(page.get_by_role("button", name="Light or dark")).to_be_in_viewport(ratio=1)
        else:
            say(page, "hello")
            expect(replies(page)).to_have_count(1)
            expect(page.locator("[aria-busy]")).to_have_count(0, timeout=SLOW)
        outside = "all => all.filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.className)"
        scrolled = page.evaluate("document.documentElement.scrollWidth")
        assert scrolled <= width, page.eval_on_selector_all("body *", outside)


def test_who_else_is_looking(server: Server, pages: Pages, room: str) -> None:
    first = pages.open(server, f"supervisor?{room}", "sam", width=1400)
    expect(first.locator(".looking")).to_contain_text("only you")
    second = pages.open(server, f"supervisor?{room}", "rita", width=1400)
    expect(first.locator(".looking")).to_contain_text("Rita too")
    expect(second.locator(".room-top")).to_be_visible()
    second.keyboard.press("t")
    expect(first.get_by_text("Rita has the floor").first).to_be_visible()
    first.get_by_role("button", name="Take over from Rita").click()
    expect(second.get_by_text("Sam has the floor").first).to_be_visible()
    second.close()
    expect(first.locator(".looking")).to_contain_text("only you")


def png(width: int, height: int) -> bytes:
    """A picture, made here."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes((x * 3 % 256, y * 5 % 256, 140)[c] for x in range(width) for c in range(3)) for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_erased_messages_leave_open_pages_at_once(server: Server, pages: Pages, room: str) -> None:
    chat, watching = pages.open(server, "", room), pages.open(server, f"supervisor?{room}", "sam", width=1400)
    say(chat, "my secret is marmalade")
    expect(replies(chat)).to_have_count(1, timeout=SLOW)
    expect(watching.get_by_text("my secret is marmalade").first).to_be_visible()
    assert api(server, "root", "erasures", {"who": room})["erasure"]["rooms"] == {room: 1}
    expect(bubbles(chat, "Message deleted")).to_have_count(1)
    expect(chat.locator(".message.own", has_text="marmalade")).to_have_count(0)
    expect(watching.locator(".said-text", has_text="Deleted")).to_have_count(1)
    expect(replies(chat)).to_have_count(1)  # What others quoted is theirs.


def test_a_picture_is_sent_and_seen(server: Server, pages: Pages, room: str) -> None:
    chat, desk_page = pages.open(server, "", room), pages.open(server, f"supervisor?{room}", "sam", width=1400)
    expect(chat.get_by_role("textbox")).to_be_focused()
    chat.set_input_files("input[type=file]", {"name": "door.png", "mimeType": "image/png", "buffer": png(80, 60)})
    expect(chat.get_by_text("door.png")).to_be_visible()
    say(chat, "my door")
    for page in (chat, desk_page):
        picture = page.get_by_role("img", name="my door")
        expect(picture).to_be_visible()
        picture.scroll_into_view_if_needed()
        page.wait_for_timeout(200)
        assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") == 80
    chat.set_input_files(
        "input[type=file]", {"name": "run.exe", "mimeType": "application/x-msdownload", "buffer": b"MZ"}
    )
    pages.expected = ("415",)
    say(chat, "a program")
    expect(chat.locator(".attached.bad")).to_be_visible()


@pytest.mark.parametrize("url", ["http://[", "javascript:window.hit=1", "data:text/html,x"])
def test_an_address_that_is_none_or_a_script_breaks_and_reaches_nothing(
    server: Server, pages: Pages, room: str, url: str
) -> None:
    chat, watching = pages.open(server, "", room), pages.open(server, f"supervisor?{room}", "sam", width=1400)
    for kind in ("image/png", "application/pdf"):
        content = {"type": "media", "url": url, "mime_type": kind, "filename": "bad"}
        api(server, "sam", f"rooms/{room}/messages", {"content": content})
    api(server, "sam", f"rooms/{room}/messages", {"text": "after that"})
    for page in (chat, watching):
        expect(page.get_by_text("after that").first).to_be_visible()
        expect(page.get_by_text("not available any more").first).to_be_visible()
        assert page.locator("a.file[href], a.frame[href]").count() == 0


def test_writing_with_the_keyboard(server: Server, pages: Pages, room: str) -> None:
    chat = pages.open(server, "", room, width=390, height=700)
    box = chat.get_by_role("textbox", name="Write a message")
    expect(box).to_be_focused()
    chat.keyboard.type("first line")
    chat.keyboard.press("Shift+Enter")
    chat.keyboard.type("second line")
    expect(box).to_have_value("first line\nsecond line")
    chat.keyboard.press("Enter")
    expect(box).to_have_value("")
    expect(box).to_be_focused()
    expect(chat.locator(".message.own br")).to_have_count(1)
    expect(chat.get_by_role("log", name="Conversation")).to_have_attribute("aria-live", "polite")
    expect(replies(chat)).to_have_count(1, timeout=SLOW)


def test_typing_is_shown_to_the_other_side(server: Server, pages: Pages, room: str) -> None:
    chat, desk_page = pages.open(server, "", room), pages.open(server, f"supervisor?{room}", "sam", width=1400)
    expect(desk_page.locator(".room-top")).to_be_visible()
    say(chat, "hello")  # who has said nothing is not yet a participant
    chat.reload()
    expect(desk_page.locator(".presence")).to_have_text("online")
    chat.get_by_role("textbox").press_sequentially("hm")
    expect(desk_page.locator(".signs")).to_contain_text("typing")
    chat.get_by_role("textbox").fill("")
    expect(desk_page.locator(".signs")).not_to_contain_text("typing")


def test_finding_rooms(server: Server, pages: Pages, room: str) -> None:
    page = pages.open(server, "supervisor", "sam", width=1400)
    expect(page.locator(".room", has_text=f"Support for {room}").or_(page.locator(".room").first)).not_to_have_count(0)
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type(room)
    expect(page.locator(".list .room")).to_have_count(1)
    page.keyboard.press("Escape")
    page.get_by_role("searchbox").fill("nobody of that name")
    expect(page.get_by_text("No room matches.")).to_be_visible()
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="Closed", exact=True).click()
    expect(page.locator(".room", has_text=f"Support for {room}")).to_have_count(0)
    page.get_by_role("heading").first.click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()


def test_a_long_history_is_read_backwards_page_by_page(server: Server, pages: Pages) -> None:
    chat, desk_page = pages.open(server, "", "long"), pages.open(server, "supervisor?long", "sam", width=1400)
    for page, log, line in ((chat, ".log", ".message"), (desk_page, ".transcript", ".said")):
        last = page.locator(line, has_text=f"number {LONG - 1}")
        expect(last).to_be_in_viewport()
        for _ in range(20):
            if page.get_by_role("button", name=re.compile("^Earlier")).count() == 0:
                break
            before = page.locator(line).count()
            page.locator(log).evaluate("box => { box.scrollTop = 0; }")
            expect(page.locator(line)).not_to_have_count(before)
        texts = page.eval_on_selector_all(f"{line} .prose", "all => all.map(one => one.textContent)")
        assert texts == [f"number {n}" for n in range(LONG)]
        page.get_by_role("button", name=re.compile("Latest|new")).click()
        expect(last).to_be_in_viewport()


def test_doors_stay_shut(server: Server, pages: Pages) -> None:
    pages.expected = ("401", "403", "WebSocket")
    expect(pages.open(server, "", None).get_by_text("This page needs its link")).to_be_visible()
    expect(pages.open(server, "", "rk1.made-up").get_by_text("This link has expired")).to_be_visible()
    expect(pages.open(server, "supervisor", None).get_by_text("Sign in")).to_be_visible()
    expect(pages.open(server, "supervisor", "rk1.made-up").get_by_text("Please sign in again")).to_be_visible()
    expect(pages.open(server, "supervisor", "ada").get_by_text("This page is for staff")).to_be_visible()
    page = pages.open(server, "supervisor", None)
    page.get_by_label("Key or link").fill(f"{server.base}/supervisor#token={server.tokens['sam']}")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("Needs a person")).to_be_visible()
