"""Letters as the mail programs and servers write them, in their own spelling; names and addresses are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from roomkit.protocols.mail.letter import Letter, read_letter
from roomkit.protocols.mail.reports import Report, automatic_kind, report_of
from roomkit.protocols.mail.threads import answered_id
from roomkit.protocols.mail.trust import verdict_of

GOLDEN = Path(__file__).parents[2] / "golden/mail"
OURS = "rkbbbbbbbbbbbbbbbbbbbbbbbbbb@shop.example"


def read(name: str) -> Letter:
    return read_letter((GOLDEN / f"{name}.eml").read_bytes())


@pytest.mark.parametrize(
    "name, sender, text, quoted",
    [
        ("gmail_reply", "ada@x.example", "Yes, the green one, please – thank you!", "which lamp would you like?"),
        ("outlook_reply", "bob@y.example", "Grüße, ich nehme die grüne Lampe.", "Dear Bob, which lamp would you like?"),
        ("apple_reply", "zoe@z.example", "La verte, voici une photo :\ufffc", "Quelle lampe ?"),
    ],
)
def test_answers(name: str, sender: str, text: str, quoted: str):
    letter = read(name)
    assert (letter.sender, letter.text.replace("\n", "")) == (sender, text)
    assert letter.quoted.rstrip("> \n").endswith(quoted)
    assert answered_id(letter, "shop.example") == OURS
    assert automatic_kind(letter) is None
    assert report_of(letter) is None


def test_what_else_is_in_them():
    apple, gmail = read("apple_reply"), read("gmail_reply")
    assert (apple.sender_name, apple.subject) == ("Zoë Wolf", "Re: Votre lampe préférée")
    assert apple.signature == "Envoyé de mon iPhone"
    (picture,) = apple.files
    assert (picture.name, picture.content_id, picture.data) == ("IMG_0001.png", "lamp@z.example", b"\x89PNG\r\n\x1a\n")
    verdict = verdict_of(gmail, ("mx.shop.example",))
    assert (verdict.verified, verdict.dmarc, verdict.dkim, verdict.spf) == (True, "pass", "pass", "pass")
    invitation = read("invitation")
    assert invitation.text == "You have been invited to a lamp fitting."
    assert [file.mime_type for file in invitation.files] == ["text/calendar", "application/ics"]


def test_what_programs_wrote():
    assert automatic_kind(read("exchange_away")) == "auto-generated"
    assert automatic_kind(read("list_letter")) == "list"
    told = "550 5.1.1 <bob@y.example>: Recipient address rejected: User unknown"
    assert report_of(read("postfix_bounce")) == Report("failed", OURS, "bob@y.example", "5.1.1", told)
    report = report_of(read("gmail_bounce"))
    assert report is not None
    assert (report.state, report.message_id, report.status) == ("delayed", OURS, "4.4.1")
