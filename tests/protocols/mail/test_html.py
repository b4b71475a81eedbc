from __future__ import annotations

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.protocols.mail.html import safe_html, text_of_html

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    '<a href="&#106;avascript:alert(1)">x</a>',
    "<a href=' data:text/html,<script>alert(1)</script>'>x</a>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<math><mtext><img src=x onerror=alert(1)></mtext></math>",
    '<iframe src="https://evil.example"></iframe>',
    "<style>@import url(https://evil.example/x.css)</style>",
    '<div style="background:url(https://evil.example/x)">x</div>',
    '<link rel=stylesheet href="https://evil.example/x.css">',
    '<meta http-equiv=refresh content="0;url=https://evil.example">',
    '<base href="https://evil.example/">',
    "<form action=https://evil.example><input name=password><button>x</button></form>",
    "<object data=https://evil.example></object><embed src=https://evil.example>",
    "<<script>alert(1)//<</script>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<img src=x onerror=alert(1)>]]>",
    "<img src='https://tracker.example/p.gif?who=ada'>",
    "<img src='//tracker.example/p.gif'>",
    "<img src='data:image/svg+xml;base64,PHN2Zy8+'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
    "<textarea></textarea><img src=x onerror=alert(1)>",
    '<p title="x" onmouseover="alert(1)">x</p>',
    "<a href='https://x.example' target=_self ping='https://evil.example'>x</a>",
    "<template><img src=x onerror=alert(1)></template>",
]
KEPT = {"href", "rel", "target", "src", "alt", "colspan", "rowspan"}


class Looks(HTMLParser):
    """Fails on whatever a page must not show."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {
            "script",
            "style",
            "iframe",
            "object",
            "embed",
            "form",
            "input",
            "svg",
            "math",
            "link",
            "meta",
            "base",
        }
        for name, value in attrs:
            assert name in KEPT, (tag, name)
            if name == "href":
                assert (value or "").lower().startswith(("http://", "https://", "mailto:", "tel:"))
            if name == "src":
                assert (value or "").startswith(
                    ("cid:", "data:image/png", "data:image/gif", "data:image/jpeg", "data:image/webp")
                )


def check(html: str) -> str:
    safe = safe_html(html)
    looks = Looks()
    looks.feed(safe)
    looks.close()
    assert safe_html(safe) == safe, "it is safe as it is"
    return safe


@pytest.mark.parametrize("html", HOSTILE)
def test_nothing_that_acts_is_left(html: str):
    check(html)
    check(f"<p>before {html} after</p>")
    check(html * 3)


@given(
    st.lists(
        st.sampled_from([*HOSTILE, "<", ">", '"', "<p>", "</p>", "text", "<b", "<!--", "-->", "<a href="]), max_size=12
    )
)
def test_no_mixture_of_it_acts(pieces: list[str]):
    check("".join(pieces))


def test_what_is_harmless_is_kept():
    link, picture = '<a href="https://x.example/a?b=1&amp;c=2">this</a>', '<img src="cid:lamp@x" alt="Lamp">'
    safe = check(f"<p>Hello <b>Ada</b>, see {link}<br>{picture}</p>")
    assert "<b>Ada</b>" in safe
    assert 'href="https://x.example/a?b=1&amp;c=2" rel="noopener noreferrer nofollow"' in safe
    assert '<img src="cid:lamp@x" alt="Lamp">' in safe
    assert check("<table><tr><td colspan=2>x</td></tr></table>") == '<table><tr><td colspan="2">x</td></tr></table>'
    assert check("<p>open <b>ends") == "<p>open <b>ends</b></p>"
    assert check('<img src="https://t.example/x.gif" alt="our logo">') == "[our logo]"
    assert check("1 < 2 & 3 > 2") == "1 &lt; 2 &amp; 3 &gt; 2"


def test_text_with_links_lists_and_pictures():
    link, picture = '<a href="https://x.example/a">here</a>', '<img alt="Lamp" src="cid:x">'
    html = f"<h1>Hi</h1><ul><li>one</li><li>two</li></ul><p>see {link} {picture}</p>"
    assert text_of_html(html)[0] == "Hi\n\n- one\n\n- two\n\nsee here (https://x.example/a) [Lamp]"
    assert text_of_html('<a href="https://x.example/">https://x.example</a>')[0] == "https://x.example"
    assert text_of_html("<style>p{}</style><p>a</p><script>b()</script>")[0] == "a"
    hidden = text_of_html("<head><title>x</title></head><body>y</body>")
    assert hidden[0] == "y"


@pytest.mark.parametrize(
    "hidden",
    [
        '<div style="display:none">obey me</div>',
        '<span style="color:red; FONT-SIZE : 0px">obey me</span>',
        "<p hidden>obey me</p>",
        '<div style="visibility: hidden"><div><p>obey</p></div> me</div>',
        '<div style="opacity:0"><img src=x><br>obey<p>me</div>',
        '<div style="max-height:0;mso-hide:all">obey me</div>',
    ],
)
def test_words_that_nobody_is_shown_are_not_read(hidden: str):
    assert text_of_html(f"<p>Hello</p>{hidden}<p>Ada</p>")[0] == "Hello\n\nAda"
    assert "obey" not in check(f"<p>Hello</p>{hidden}<p>Ada</p>")
    assert text_of_html('<p style="font-size:0.9em;opacity:0.5">Ada</p>')[0] == "Ada"


@pytest.mark.parametrize(
    "quote",
    [
        '<div class="gmail_quote"><div class="gmail_attr">On Tue Ada wrote:</div><blockquote>old</blockquote></div>',
        '<blockquote type="cite">On Tue Ada wrote:<br>old</blockquote>',
        '<div id="appendonsend"></div><hr><div id="divRplyFwdMsg">On Tue Ada wrote:</div><div>old</div>',
        '<div class="yahoo_quoted">On Tue Ada wrote:<br>old</div>',
        '<div class="moz-cite-prefix">On Tue Ada wrote:</div><blockquote type="cite">old</blockquote>',
    ],
)
def test_what_mail_programs_mark_as_quoted_is_told_apart(quote: str):
    said, quoted = text_of_html(f"<html><body><div>Yes.</div>{quote}</body></html>")
    assert said == "Yes."
    assert "old" in quoted
    assert "wrote" in quoted
    everything, nothing = text_of_html(f"<div>Yes.</div>{quote}", keep_quotes=True)
    assert ("old" in everything, nothing) == (True, "")
    assert "old" in text_of_html(quote)[0] + text_of_html(quote)[1]


@pytest.mark.parametrize(
    "piece", ["<", "<!--", "<p ", "<div>", "&", "<a href=x>", "<script>", "</div>", "<!", "<a b='"]
)
def test_a_hostile_letter_takes_no_time(piece: str):
    start = time.process_time()
    safe_html(piece * 30_000)
    text_of_html(piece * 30_000)
    assert time.process_time() - start < 5
