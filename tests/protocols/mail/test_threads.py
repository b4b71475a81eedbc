from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.protocols.mail.compose import Mail, split_address, subject_line, thread_headers, written
from roomkit.protocols.mail.form import read_form
from roomkit.protocols.mail.letter import Letter, MailFile, read_letter
from roomkit.protocols.mail.threads import answered_id, bare_subject, mark_of, own_marks, reply_subject, thread_secret
from roomkit.protocols.mail.trust import aligned, verdict_from, verdict_of

SECRET = thread_secret(None, "a key")
MARK = mark_of(SECRET, "default", "r:0:email:0")
OTHER = mark_of(SECRET, "default", "r:1:email:0")
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def mail(**more: object) -> Mail:
    values = {
        "sender": "help@shop.example",
        "recipient": "ada@x.example",
        "subject": "S",
        "text": "t",
        "message_id": "m@x",
    }
    return Mail(**{**values, **more})  # type: ignore[arg-type] - whatever a test says


def test_marks_are_their_secrets_own():
    assert mark_of(SECRET, "default", "r:0:email:0") == MARK
    assert len({MARK, OTHER, mark_of(thread_secret("x", "a key"), "default", "r:0:email:0")}) == 3
    assert mark_of(SECRET, "a", "bc") != mark_of(SECRET, "ab", "c")
    assert len(MARK) == 28


def test_a_mark_is_found_wherever_it_survives_nearest_first():
    domain = "shop.example"
    assert own_marks(Letter(to=(f"help+{MARK}@in.shop.example",)), domain) == (MARK,)
    assert own_marks(Letter(headers=(("delivered-to", f"{MARK}@in.shop.example"),)), domain) == (MARK,)
    assert own_marks(Letter(in_reply_to=(f"{MARK}@{domain}",)), domain) == (MARK,)
    assert own_marks(Letter(references=(f"{OTHER}@{domain}", f"{MARK}@{domain}")), domain) == (MARK, OTHER)
    assert own_marks(Letter(subject=f"AW: Lamp [#{MARK.upper()}]"), domain) == (MARK,)
    assert own_marks(Letter(in_reply_to=(f"{MARK}@elsewhere.example",)), domain) == (), "another's, made as ours are"
    assert own_marks(Letter(to=(f"x{MARK}@shop.example",), subject=MARK), domain) == ()
    letter = Letter(to=(f"help+{MARK}@shop.example",), in_reply_to=("foreign@y.example",))
    assert answered_id(letter, domain) == f"{MARK}@{domain}"
    assert answered_id(Letter(in_reply_to=("foreign@y.example",)), domain) == "foreign@y.example"
    assert answered_id(Letter(references=("a@y", "b@y")), domain) == "b@y"
    assert answered_id(Letter(), domain) is None


@pytest.mark.parametrize(
    "subject", ["Lamp", "Re: Lamp", "AW: Re: Lamp", "RE : Lamp", "Sv: Re[2]: Lamp", "回复：Lamp", f"Re: Lamp [#{MARK}]"]
)
def test_subjects_are_answered_once(subject: str):
    assert bare_subject(subject) == "Lamp"
    assert reply_subject(subject) == "Re: Lamp"
    assert bare_subject("Regarding: Lamp") == "Regarding: Lamp"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "@",
        "a",
        "a@",
        "@b",
        "a@b@c.example",
        "a b@c.example",
        "a@b c.example",
        "a@x.example, b@y.example",
        "a@x.example\n",
        "A <a@x.example>\r\nBcc: b@y.example",
        "a..b@x.example",
        "<a@x.example> <b@y.example>",
        "a@x.example;b@y.example",
        "a@[127.0.0.1]",
    ],
)
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(ValueError, match="no email address"):
        split_address(address)
    with pytest.raises(ValueError, match="no email address"):
        written(mail(recipient=address), NOW)


def test_addresses():
    assert split_address("ada@x.example") == ("", "ada@x.example")
    assert split_address('"Ada Byron" <ada+1@x.example>') == ("Ada Byron", "ada+1@x.example")
    assert split_address("Ada <ada@grüße.example>") == ("Ada", "ada@grüße.example")
    assert str(written(mail(recipient="ada@grüsse.example"), NOW)["to"]) == "ada@xn--grsse-lva.example"


EVIL = "x\r\nBcc: evil@y.example\r\n\r\nbody"


@pytest.mark.parametrize(
    "more",
    [
        {"sender": f"Shop <help@shop.example>{EVIL}"},
        {"sender": f"{EVIL} <help@shop.example>"},
        {"recipient": f"ada@x.example{EVIL}"},
        {"reply_to": f"a@x.example{EVIL}"},
        {"message_id": f"m@x{EVIL}"},
        {"in_reply_to": f"m@x{EVIL}"},
        {"headers": {"X-Mine": EVIL}},
        {"headers": {f"X-Mine: y{EVIL}": "z"}},
        {"headers": {"Bcc": "evil@y.example"}},
        {"headers": {"Content-Type": "text/html"}},
    ],
)
def test_no_header_is_smuggled_in(more: dict[str, object]):
    with pytest.raises(ValueError, match=r"address|message id|header"):
        written(mail(**more), NOW)


@given(st.text(max_size=80), st.text(max_size=200), st.text(max_size=40))
def test_whatever_is_written_stays_in_its_place(subject: str, text: str, name: str):
    letter = mail(
        subject=subject + EVIL, text=text, files=(MailFile(name, "text/plain", text.encode("utf-8", "replace")),)
    )
    if not (subject + text + name).isprintable():
        subject = subject.encode("utf-8", "ignore").decode()
    try:
        data = written(letter, NOW).as_bytes()
    except UnicodeEncodeError:
        assert any("\ud800" <= sign <= "\udfff" for sign in subject + text + name)
        return
    read = email.message_from_bytes(data, policy=email.policy.default)
    assert read["bcc"] is None
    assert [a.addr_spec for a in read["to"].addresses] == ["ada@x.example"]
    again = read_letter(data)
    assert again.subject == subject_line(subject + EVIL) or not subject.isprintable()
    assert again.sender == "help@shop.example"


def test_references_keep_their_first_and_their_latest():
    found = thread_headers(mail(references=tuple(f"{n}@x" for n in range(100))))["References"].split()
    assert (len(found), found[0], found[-1]) == (30, "<0@x>", "<99@x>")
    assert thread_headers(mail(references=("bad id", "a<b", "ok@x", "ok@x")))["References"] == "<ok@x>"


def test_a_letter_in_a_letter_goes_as_a_file():
    data = written(
        mail(files=(MailFile("a.eml", "message/rfc822", b"From: x\r\n\r\ny"), MailFile("b", "no type", b"z"))), NOW
    )
    kinds = [part.get_content_type() for part in data.iter_attachments()]
    assert kinds == ["application/octet-stream", "application/octet-stream"]


TRUSTED = ("mx.shop.example",)


def letter(*results: str) -> Letter:
    return Letter(sender="ada@x.example", headers=tuple(("authentication-results", one) for one in results))


@pytest.mark.parametrize(
    "results, verified",
    [
        (("mx.shop.example; dmarc=pass header.from=x.example",), True),
        (("MX.shop.example 1; dmarc=pass (p=reject) header.from=x.example; spf=fail",), True),
        (("mx.shop.example; dkim=pass header.d=x.example",), True),
        (("mx.shop.example; dkim=pass header.i=@mail.x.example; spf=none",), True),
        (("mx.shop.example; spf=pass smtp.mailfrom=bounce@x.example",), True),
        (("mx.shop.example; dmarc=none; dkim=pass header.d=x.example",), True),
        ((), False),
        (("mx.shop.example; none",), False),
        (("evil.example; dmarc=pass header.from=x.example",), False),
        (("mx.shop.example.evil.example; dmarc=pass header.from=x.example",), False),
        (("mx.shop.example; dmarc=fail header.from=x.example; dkim=pass header.d=x.example",), False),
        (("mx.shop.example; dmarc=pass header.from=evil.example",), False),
        (("mx.shop.example; dkim=pass header.d=evil.example",), False),
        (("mx.shop.example; dkim=pass header.d=example",), False),
        (("mx.shop.example; dkim=fail header.d=x.example",), False),
        (("mx.shop.example; dkim=fail", "mx.shop.example; dmarc=pass header.from=x.example"), False),
        (("mx.shop.example; x=y (dmarc=pass header.from=x.example)",), False),
        (("mx.shop.example; spf=pass smtp.helo=x.example",), False),
    ],
)
def test_only_a_trusted_servers_own_word_counts(results: tuple[str, ...], verified: bool):
    assert verdict_of(letter(*results), TRUSTED).verified is verified
    assert not verdict_of(letter(*results), ()).verified


def test_alignment_and_a_vendors_own_findings():
    assert aligned("x.example", "mail.x.example")
    assert aligned("mail.x.example", "x.example")
    assert not aligned("x.example", "yx.example")
    assert not aligned("a.x.example", "b.x.example")
    assert not aligned("example", "x.example")
    assert verdict_from("a@x.example", dkim=[("y.example", "pass"), ("x.example", "pass")]).verified
    assert not verdict_from("a@x.example", dkim=[("y.example", "pass"), ("x.example", "fail")]).verified
    assert verdict_from("a@x.example", spf="pass", envelope="b@x.example").verified
    assert not verdict_from("a@x.example", spf="pass", envelope="b@y.example").verified
    assert not verdict_from("", dkim=[("", "pass")]).verified


def test_forms():
    said = b"--b\r\nContent-Disposition: form-data;"
    body = (
        said
        + b' name="a"\r\n\r\none\r\ntwo\r\n'
        + said
        + b' name="f"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n\r\n\x00--b\r\n\r\n'
        + said
        + b' name="a"\r\n\r\nagain\r\n--b--\r\n'
    )
    form = read_form(body)
    assert dict(form.fields) == {"a": b"one\r\ntwo"}
    (file,) = form.files
    assert (file.under, file.name, file.mime_type, file.data) == ("f", "x.png", "image/png", b"\r\n\x00--b\r\n")
    assert form.text("a", "no such charset") == "one\r\ntwo"
    for broken in (b"", b"--", b"--b\r\n", b"--b\r\nx\r\n--b--", b"x" * 100, b"--b\r\n\r\n\r\n--b--"):
        assert read_form(broken).files == ()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_form(data: bytes):
    for body in (b"--b\r\n" + data, data):
        form = read_form(body)
        assert all(value in body for value in form.fields.values())
        assert all(file.data in body for file in form.files)
