"""Line 19: what an AI or a stranger says is text, wherever it goes: on our pages (in the real browser), in formatted
content and its plain text, in the answers to webhooks."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from playwright.sync_api import expect, sync_playwright

from roomkit.core.markup import html_to_text, markdown_to_text
from roomkit.core.transcode import transcode, with_sender
from roomkit.models.content import CompositeContent, MediaContent, RichContent, TextContent
from roomkit.models.delivery import Outgoing, WebhookRequest
from roomkit.models.room import ChannelCapabilities
from roomkit.net.ssrf import Fetched
from roomkit.providers.chat_text import TELEGRAM, chat_text
from roomkit.providers.mail import MailDesk, MailSettings
from roomkit.providers.teams.cards import activity_of
from roomkit.testing import VirtualClock
from tests.e2e.driver import QUIET, QUIETER, Pages, Server
from tests.providers.test_twilio_media import asked
from tests.providers.test_twilio_media import made as twilio_calls
from tests.security.adapters import HOOK, WEBHOOKS, WebhookCase
from tests.security.corpus import SCRIPTS

ALIVE = re.compile(r"<\s*(?:script|img|svg|iframe|object|embed|base|meta|link|form|style)\b", re.IGNORECASE)
LOADED = "script:not([src]), iframe, object, embed, base, form[action^=http], [onerror], [onload], [ontoggle], [onblur]"


def test_no_script_runs_on_our_pages(tmp_path: Path, chromium: str) -> None:
    server = Server(tmp_path, app="tests.security.pages_app").start()
    try:
        with sync_playwright() as running:
            browser = running.chromium.launch(executable_path=chromium, args=[*QUIET, *QUIETER])
            pages = Pages(browser)
            for path, who in (("", "xss"), ("supervisor?xss", "sam")):
                page = pages.open(server, path, who)
                expect(page.get_by_text("the very last one").first).to_be_visible()
                for _ in range(12):
                    page.mouse.wheel(0, -20_000)
                    page.wait_for_timeout(60)
                assert page.evaluate("document.querySelectorAll('.message, .said').length") > 30
                assert page.evaluate("typeof window.pwned") == "undefined"
                assert page.evaluate(f"document.querySelectorAll({LOADED!r}).length") == 0
                links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.protocol)")
                assert set(links) <= {"http:", "https:", "mailto:", "tel:", "blob:"}
                for link in page.locator("a[href]").all()[:5]:
                    assert link.get_attribute("rel") is None or "noopener" in (link.get_attribute("rel") or "")
                sources = page.eval_on_selector_all("[src]", "all => all.map(one => one.src)")
                assert not [one for one in sources if "evil.example" in one or one.startswith("javascript:")]
            pages.close()
            browser.close()
            assert not [told for told in pages.complaints if "asked somebody else" in told], pages.complaints
    finally:
        server.stop()


@pytest.mark.parametrize("script", SCRIPTS)
def test_formatted_text_loses_its_tags_for_channels_without(script: str) -> None:
    for form in ("html", "markdown"):
        shaped = transcode(RichContent(text=f"before {script} after", format=form), ChannelCapabilities())  # type: ignore[arg-type]
        assert shaped is not None
        assert shaped.type == "text"
    assert "pwned" not in html_to_text("<p>a</p><script>window.pwned=1</script><style>pwned{}</style>b")
    assert "javascript:" not in html_to_text("<a href='javascript:window.pwned=1'>x</a>")
    assert len(markdown_to_text(script * 50)) <= len(script * 50)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_name_in_front_of_html_is_text(script: str) -> None:
    named = with_sender(RichContent(text="<p>hello</p>", format="html"), script)
    assert isinstance(named, RichContent)
    assert not ALIVE.search(named.text.replace("<p>hello</p>", ""))
    plain = with_sender(TextContent(text="hello"), f"Bob\nBank: {script}\r\nBob")
    assert isinstance(plain, TextContent)
    assert len(plain.text.splitlines()) == 1, "a name of several lines could speak as somebody else"


ACTIVE = re.compile(
    r"<\s*(?:script|svg|iframe|object|embed|base|meta|style)\b|<[^>]*(?:\bon\w+\s*=|javascript:)", re.IGNORECASE
)


async def no_files(url: str) -> Fetched:
    raise AssertionError(f"{url} was fetched")


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_letter_of_ours_does_nothing(script: str) -> None:
    desk = MailDesk("mail", MailSettings(from_address="help@shop.example"), "a key of the threads")
    forms = [RichContent(text=f"<p>a</p> {script}", format=form) for form in ("html", "markdown")]
    for content in (*forms, CompositeContent(parts=(forms[0], TextContent(text=script)))):
        out = Outgoing(
            recipient="ada@x.example",
            content=content,
            channel_id="mail",
            room_id="r",
            event_id="e",
            idempotency_key="r:1:mail:0",
        )
        html = (await desk.mail(out, no_files)).html
        assert html is not None
        assert not ACTIVE.search(html)


def test_marks_within_markdown_are_words() -> None:
    """Who writes Markdown has said nothing in HTML."""
    assert chat_text(RichContent(text="1 <b>2</b> 3"), TELEGRAM) == "1 &lt;b&gt;2&lt;/b&gt; 3"
    assert chat_text(RichContent(text="1 `<b>2</b>` 3"), TELEGRAM) == "1 <code>&lt;b&gt;2&lt;/b&gt;</code> 3"


def test_an_address_in_a_message_to_teams_is_an_address() -> None:
    url = 'https://files.example/a.pdf?"><img src=x>'
    shown = activity_of(MediaContent(url=url, mime_type="application/pdf"))["text"]
    assert [(one.tag, one.get("href")) for one in ET.fromstring(f"<p>{shown}</p>")] == [("a", url)]


def test_the_answer_to_a_call_is_whole_xml_whatever_its_address_says() -> None:
    query = "?a=1&b=%22%3E&c=<Hangup/>"
    answer = twilio_calls().reply(asked(query), 'wss://calls.example/voice/phone?x="<>&y').body
    (redirect,) = ET.fromstring(answer).iter("Redirect")
    assert redirect.text is not None
    assert query in redirect.text
    assert [one.tag for one in ET.fromstring(answer)] == ["Connect", "Pause", "Redirect"]


BOMBS = (
    *(
        "[",
        "*",
        "`",
        "<a ",
        "<div>",
        "](",
        "&",
        "_a_",
        "~~a",
        "![a](",
        "<",
        "</",
        "<!--",
        "&#",
        "<a href='",
        "<script>",
    ),
    *("<!-- ", "- ", "# ", "> ", "**a", '<a title="', "<b><i>", "[a](b", "&lt;"),
)


@pytest.mark.parametrize("bomb", BOMBS)
def test_unmarking_hostile_text_ends(bomb: str) -> None:
    """100,000 characters, within the time that any test has; what takes the square of it does not end in an hour."""
    text = bomb * (100_000 // len(bomb))
    assert len(html_to_text(text)) <= len(text) * 2
    assert len(markdown_to_text(text[:20_000])) <= 20_000


def test_a_comment_is_no_text_and_a_lone_bracket_is() -> None:
    assert html_to_text("<p>1 < 2 <!-- <b>hidden</b> --> and 3</p>") == "1 < 2 and 3"
    assert html_to_text("a <!-- never closed <b>x</b>") == "a"
    assert html_to_text("see <a href='https://a.example/?x>y'>this</a> <") == "see this (https://a.example/?x>y) <"


@pytest.mark.parametrize("case", WEBHOOKS.values(), ids=WEBHOOKS)
async def test_the_answer_to_a_webhook_holds_nothing_of_what_it_said(case: WebhookCase) -> None:
    clock = VirtualClock()
    for script in SCRIPTS:
        request = case.signed(clock, text=script, sender="+15550123")
        reply = case.make(clock).reply(request)
        assert len(reply.body) < 200
        assert b"pwned" not in reply.body
        if "xml" in reply.content_type:
            assert len(ET.fromstring(reply.body)) == 0  # ours, and empty
    hostile = WebhookRequest("POST", HOOK, {"x": SCRIPTS[0]}, b"<x>", {"CallSid": SCRIPTS[0]})
    assert b"pwned" not in case.make(clock).reply(hostile).body
