from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkit.protocols.mail.letter import MAX_DEPTH, Letter, addresses, decoded, ids, read_letter, safe_name
from roomkit.protocols.mail.reports import Report, automatic_kind, report_of

PLAIN = "Content-Type: text/plain; charset=utf-8"


def made(body: str | bytes = "hello", *lines: str, kind: str = PLAIN) -> Letter:
    head = "\r\n".join(["From: Ada <Ada@X.example>", *lines, kind]).encode("utf-8", "surrogateescape")
    return read_letter(head + b"\r\n\r\n" + (body if isinstance(body, bytes) else body.encode()))


def multi(subtype: str, *parts: str, boundary: str = "bb") -> str:
    body = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    return f"{body}--{boundary}--\r\n"


def kind_of(subtype: str, boundary: str = "bb") -> str:
    return f'Content-Type: multipart/{subtype}; boundary="{boundary}"'


def test_headers_of_every_spelling():
    letter = made(
        "x",
        'To: Bob <bob@y.example>, "Eve, of Z" <EVE@z.example>',
        "Cc: carol@y.example",
        "Reply-To: Ada at home <home@x.example>",
        "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?iso-8859-1?Q?_aus_K=F6ln?=",
        "Message-ID: <one@x.example>",
        "In-Reply-To: <two@y.example>",
        "References: <zero@y.example>\r\n\t<two@y.example>",
        "Date: Tue, 1 Jan 2030 02:00:00 +0200",
    )
    assert (letter.sender, letter.sender_name) == ("ada@x.example", "Ada")
    assert letter.to == ("bob@y.example", "eve@z.example")
    assert (letter.cc, letter.reply_to) == (("carol@y.example",), "home@x.example")
    assert letter.subject == "Grüße aus Köln"
    assert (letter.message_id, letter.in_reply_to) == ("one@x.example", ("two@y.example",))
    assert letter.references == ("zero@y.example", "two@y.example")
    assert letter.sent_at == datetime(2030, 1, 1, tzinfo=UTC)


def test_a_name_cannot_pass_for_an_address():
    for name in (
        "=?utf-8?q?ada=40x.example=2C?=",
        "=?utf-8?q?=22?= ada@x.example",
        '"ada@x.example,"',
        "ada@x.example",
    ):
        letter = read_letter(f"From: {name} <eve@z.example>\r\n\r\nx".encode())
        assert letter.sender in {"eve@z.example", ""} or letter.senders > 1, name
    letter = read_letter(b"From: =?utf-8?q?B=C3=BCro=2C_Ada?= <ada@x.example>\r\n\r\nx")
    assert (letter.sender, letter.sender_name, letter.senders) == ("ada@x.example", "Büro, Ada", 1)
    assert read_letter(b"From: ada@x.example\r\nFrom: eve@z.example\r\n\r\nx").senders == 2
    assert read_letter(b"From: ada@x.example, eve@z.example\r\n\r\nx").senders == 2


@pytest.mark.parametrize(
    "data, charset, text",
    [
        ("Grüße €".encode(), "utf-8", "Grüße €"),
        ("Grüße".encode("latin-1"), "iso-8859-1", "Grüße"),
        ("Grüße €".encode("cp1252"), "iso-8859-1", "Grüße €"),
        ("привет".encode("koi8-r"), "koi8-r", "привет"),
        ("你好".encode("gb2312"), "gb2312", "你好"),
        ("こんにちは".encode("iso-2022-jp"), "iso-2022-jp", "こんにちは"),
        ("Grüße".encode(), "us-ascii", "Grüße"),
        ("Grüße".encode(), "no-such-charset", "Grüße"),
        (b"\xff\xfe\xfd", "utf-8", "\xff\xfe\xfd"),
        ("Gr\u00fc\u00dfe".encode("utf-16"), "utf-16", "Grüße"),
    ],
)
def test_bodies_of_every_charset(data: bytes, charset: str, text: str):
    for coding, body in (("8bit", data), ("base64", base64.encodebytes(data))):
        letter = made(body, f"Content-Transfer-Encoding: {coding}", kind=f"Content-Type: text/plain; charset={charset}")
        assert letter.text == text


def test_one_letter_in_several_forms():
    text, html = f"{PLAIN}\r\n\r\nYes.", "Content-Type: text/html\r\n\r\n<p>Yes.</p>"
    letter = made(multi("alternative", text, html), kind=kind_of("alternative"))
    assert (letter.text, letter.html, letter.files) == ("Yes.", "<p>Yes.</p>", ())
    only = made("<p>Only <b>HTML</b></p>", kind="Content-Type: text/html")
    assert only.text == "Only HTML"
    blank = made(multi("alternative", f"{PLAIN}\r\n\r\n \r\n", html), kind=kind_of("alternative"))
    assert blank.text == "Yes.", "a text part with nothing in it says nothing"
    footer = f"{PLAIN}\r\n\r\n-- list"
    mixed = made(multi("mixed", html, footer), kind=kind_of("mixed"))
    assert mixed.text == "Yes.\n-- list", "a footer beside the HTML does not replace it"


def test_files_inline_pictures_invitations_and_letters_in_letters():
    picture = (
        "Content-Type: image/png\r\nContent-ID: <lamp@x>\r\nContent-Disposition: inline; "
        'filename="=?utf-8?b?TMOkbXA=?=.png"'
        "\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw=="
    )
    html = 'Content-Type: text/html\r\n\r\n<p>See <img src="cid:lamp@x"></p>'
    related = f"{kind_of('related', 'rr')}\r\n\r\n{multi('related', html, picture, boundary='rr')}"
    invitation = "Content-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\nEND:VCALENDAR"
    inner = "Content-Type: message/rfc822\r\n\r\nFrom: bob@y.example\r\nSubject: inner\r\n\r\ninner text"
    named = 'Content-Type: text/plain\r\nContent-Disposition: attachment; filename="../../etc/passwd"\r\n\r\nroot'
    letter = made(multi("mixed", related, invitation, inner, named), kind=kind_of("mixed"))
    assert letter.text == "See"
    lamp, calendar, eml, passwd = letter.files
    assert (lamp.name, lamp.mime_type, lamp.content_id, lamp.inline) == ("Lämp.png", "image/png", "lamp@x", True)
    assert lamp.data == base64.b64decode("iVBORw==")
    assert (calendar.mime_type, calendar.name) == ("text/calendar", "file-2.ics")
    assert (eml.mime_type, b"inner text" in eml.data) == ("message/rfc822", True)
    assert passwd.name == "etc_passwd"
    assert "inner text" not in letter.text


def test_what_is_passed_on_is_not_cut():
    body = "Look:\r\n\r\n-----Original Message-----\r\nFrom: Bob\r\nSent: x\r\nTo: y\r\nSubject: z\r\n\r\nthe point"
    assert "the point" in made(body, "Subject: Fwd: z").text
    assert "the point" in made(body, "Subject: WG: z").text
    assert made(body, "Subject: Re: z").text == "Look:"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 1000,
        b"no colon anywhere",
        b"From: \r\nTo: \r\n\r\n",
        b"From: =?utf-8?b?////=?= <a@b>\r\n\r\nx",
        b"From: =?no-such?q?x?= <a@x.example>\r\n\r\nx",
        b"From: a@x.example\r\nContent-Type: multipart/mixed\r\n\r\nno boundary",
        b"From: a@x.example\r\nContent-Type: multipart/mixed; boundary=\r\n\r\n--\r\nx",
        b"From: a@x.example\r\nContent-Type: text/plain; charset=\xff\r\n\r\nx",
        b"From: a@x.example\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!not base64!!!",
        b"From: a@x.example\r\nContent-Type: text/plain; name*0*=utf-8''%E2%82; name*1=x\r\n\r\nx",
        b"Content-Type: message/rfc822\r\n\r\n" * 300 + b"\r\nx",
        b"Date: Mon, 99 Foo 99999 99:99:99 +9999\r\nMessage-ID: <>\r\n\r\nx",
        b"From: " + b"(" * 50_000 + b"\r\n\r\nx",
        b"From: " + b'"a' * 50_000 + b"\r\n\r\nx",
        b"From: a@x.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 20_000,
        b"Subject: " + b"=?utf-8?q?=?=" * 20_000 + b"\r\n\r\nx",
        b"X: y\r\n" * 50_000 + b"\r\nx",
        b"References: " + b"<a@b> " * 50_000 + b"\r\n\r\nx",
    ],
    ids=range(19),
)
def test_broken_letters_are_read_all_the_same_and_soon(data: bytes):
    start = time.process_time()
    letter = read_letter(data)
    assert isinstance(letter.text, str)
    report_of(letter)
    automatic_kind(letter)
    assert read_letter(data) == letter
    assert time.process_time() - start < 6


def test_a_letter_of_boxes_in_boxes_has_a_bottom():
    body = "text at the bottom"
    head = PLAIN
    for level in range(200):
        body = f"--b{level}\r\n{head}\r\n\r\n{body}\r\n--b{level}--\r\n"
        head = f'Content-Type: multipart/mixed; boundary="b{level}"'
    letter = made(body, kind=head)
    assert letter.text == ""
    body, head = "text at the bottom", PLAIN
    for level in range(MAX_DEPTH - 1):
        body = f"--b{level}\r\n{head}\r\n\r\n{body}\r\n--b{level}--\r\n"
        head = f'Content-Type: multipart/mixed; boundary="b{level}"'
    assert made(body, kind=head).text == "text at the bottom"


_LINES = st.sampled_from(
    [
        "From: a@x.example",
        "Content-Type: multipart/mixed; boundary=b",
        "Content-Type: text/html",
        "--b",
        "--b--",
        "",
        "Content-Transfer-Encoding: base64",
        "Content-Type: message/delivery-status",
        "Subject: =?utf-8?q?x",
        "> quoted",
        "Content-Disposition: attachment; filename*=utf-8''%ff",
        "On x, y wrote:",
        "<p><!--",
        "\x00\ud83d",
        "Message-ID: <a@b>",
    ]
)


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=600),
        st.lists(_LINES, max_size=40).map(lambda x: "\r\n".join(x).encode("utf-8", "surrogatepass")),
    )
)
def test_any_bytes_are_a_letter(data: bytes):
    letter = read_letter(data)
    said = (
        letter.text,
        letter.quoted,
        letter.signature,
        letter.subject,
        letter.sender,
        letter.sender_name,
        letter.html or "",
    )
    for one in said:
        one.encode()
        assert "\x00" not in one
    assert all("\n" not in value and "\r" not in value for _, value in letter.headers)
    assert all("/" not in file.name and file.name for file in letter.files)
    report_of(letter)
    automatic_kind(letter)


def test_small_parts():
    assert ids("<a@b> junk <c@d><a@b> <no space@e>") == ("a@b", "c@d")
    assert addresses(["a@x.example, nonsense, B <b@y.example>"]) == [("", "a@x.example"), ("B", "b@y.example")]
    assert "evil@y.example" not in [one for _, one in addresses(["a@x.example\r\nBcc: evil@y.example"])][:1]
    assert decoded("plain") == "plain"
    assert decoded("Gr\udcc3\udcbc\u00dfe").startswith("Grü")
    assert [safe_name(n, "f") for n in ("", "..", "a/b\\c", "CON\x00.txt", " .hidden ", "x" * 300)] == [
        "f",
        "f",
        "a_b_c",
        "CON_.txt",
        "hidden",
        "x" * 150,
    ]


STATUS = (
    "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx\r\n\r\n"
    "Final-Recipient: rfc822; Bob@y.example\r\nAction: {}\r\nStatus: {}\r\nDiagnostic-Code: smtp; "
    "550 5.1.1 no\r\n such user"
)


@pytest.mark.parametrize(
    "action, state", [("failed", "failed"), ("delayed", "delayed"), ("delivered", "delivered"), ("relayed", "relayed")]
)
def test_reports_of_mail_servers(action: str, state: str):
    original = "Content-Type: text/rfc822-headers\r\n\r\nSubject: x\r\nMessage-ID:\r\n <mine@shop.example>"
    body = multi("report", f"{PLAIN}\r\n\r\nSorry.", STATUS.format(action, "5.1.1"), original)
    letter = made(body, kind='Content-Type: multipart/report; report-type=delivery-status; boundary="bb"')
    assert report_of(letter) == Report(state, "mine@shop.example", "bob@y.example", "5.1.1", "550 5.1.1 no such user")


def test_bounces_without_a_form_and_what_is_none():
    plain = read_letter(
        b"From: Mail System <Mailer-Daemon@mx.y.example>\r\nSubject: Mail delivery failed: returning message\r\n"
        b"X-Failed-Recipients: bob@y.example\r\nReferences: <mine@shop.example>\r\n\r\n550 5.1.1 unknown user"
    )
    assert report_of(plain) == Report("failed", "mine@shop.example", "bob@y.example", "5.1.1", "550 5.1.1 unknown user")
    assert report_of(made("delivery failed", "Subject: Undeliverable: my parcel")) is None, "a person writes of it"
    assert report_of(made("hello")) is None


@pytest.mark.parametrize(
    "lines, kind",
    [
        ((), None),
        (("Auto-Submitted: no",), None),
        (("Auto-Submitted: auto-replied (vacation)",), "auto-generated"),
        (("Auto-Submitted: auto-replied",), "auto-replied"),
        (("Auto-Submitted: auto-generated; x=y",), "auto-generated"),
        (("X-Autoreply: yes",), "auto-replied"),
        (("Precedence: bulk",), "bulk"),
        (("Precedence: auto_reply",), "auto-replied"),
        (("List-Id: <list.x.example>",), "list"),
        (("Return-Path: <>",), "daemon"),
        (("Subject: Automatic reply: your question",), "auto-replied"),
        (("Subject: Abwesenheitsnotiz",), "auto-replied"),
        (("Subject: Réponse automatique : Lampe",), "auto-replied"),
        (("Subject: Automatic lamps",), None),
        (("Precedence: first-class",), None),
    ],
)
def test_what_programs_write_is_known(lines: tuple[str, ...], kind: str | None):
    assert automatic_kind(made("x", *lines)) == kind


def test_robots_by_their_address():
    for address in ("no-reply@x.example", "noreply+7@x.example", "mailer-daemon@x.example", "donotreply@x.example"):
        assert automatic_kind(read_letter(f"From: {address}\r\n\r\nx".encode())) is not None
    for address in ("noreplyada@x.example", "ada.noreply@x.example", "postmasterson@x.example"):
        assert automatic_kind(read_letter(f"From: {address}\r\n\r\nx".encode())) is None
