from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.protocols.mail.quotes import split_reply

QUOTE = "> Guten Tag,\n> what is it?\n"
SAID = "Yes, please."


@pytest.mark.parametrize(
    "border",
    [
        "On Tue, 3 May 2030 at 10:00, Ada Byron <ada@x.example> wrote:",
        "On Tue, 3 May 2030 at 10:00, Ada Byron\n<ada@x.example>\nwrote:",
        "On 3 May 2030, at 10:00, Ada wrote:",
        "Am 03.05.2030 um 10:00 schrieb Ada Byron <ada@x.example>:",
        "Am Di., 3. Mai 2030 um 10:00 Uhr schrieb Ada\n<ada@x.example>:",
        "Le mar. 3 mai 2030 à 10:00, Ada <ada@x.example> a écrit :",
        "El mar, 3 may 2030 a las 10:00, Ada (<ada@x.example>) escribió:",
        "Em ter., 3 de mai. de 2030 às 10:00, Ada <ada@x.example> escreveu:",
        "Il giorno mar 3 mag 2030 alle ore 10:00 Ada <ada@x.example> ha scritto:",
        "Op di 3 mei 2030 om 10:00 schreef Ada <ada@x.example>:",
        "Den tis 3 maj 2030 kl 10:00 skrev Ada <ada@x.example>:",
        "W dniu 3.05.2030 o 10:00, Ada napisał(a):",
        "вт, 3 мая 2030 г. в 10:00, Ada <ada@x.example>:",
        "3 мая 2030 г., Ada пишет:",
        "2030年5月3日 10:00 Ada <ada@x.example> 写道：",
        "2030-05-03 10:00 GMT+02:00 Ada <ada@x.example>:",
    ],
)
def test_what_is_quoted_under_a_line_of_any_language_is_told_apart(border: str):
    for between in ("\n", "\n\n"):
        text = f"{SAID}\n\n{border}{between}{QUOTE}"
        said, quoted, signature = split_reply(text.replace("\n", "\r\n"))
        assert (said, signature) == (SAID, "")
        assert quoted.endswith("> what is it?")
        assert quoted.startswith(border.partition("\n")[0])


@pytest.mark.parametrize(
    "head",
    [
        "-----Original Message-----\nFrom: Ada\nSent: Monday\nTo: Bob\nSubject: x",
        "________________________________\nFrom: Ada <a@x.example>\nSent: Monday\nTo: Bob\nSubject: x",
        "*From:* Ada\n*Sent:* Monday\n*To:* Bob\n*Subject:* x",
        "Von: Ada\nGesendet: Montag\nAn: Bob\nBetreff: x",
        "De : Ada\nEnvoyé : lundi\nÀ : Bob\nObjet : x",
        "De: Ada\nEnviado el: lunes\nPara: Bob\nAsunto: x",
        "Da: Ada\nInviato: lunedì\nA: Bob\nOggetto: x",
        "Van: Ada\nVerzonden: maandag\nAan: Bob\nOnderwerp: x",
        "От: Ada\nОтправлено: понедельник\nКому: Bob\nТема: x",
        "发件人: Ada\n发送时间: 星期一\n收件人: Bob\n主题: x",
    ],
)
def test_what_stands_under_the_head_of_another_letter_is_quoted(head: str):
    said, quoted, _ = split_reply(f"{SAID}\n\n{head}\n\nThe old letter, unmarked.\nAll of it.\n")
    assert said == SAID
    assert quoted == f"{head}\n\nThe old letter, unmarked.\nAll of it."


def test_answers_beneath_and_between():
    said, quoted, _ = split_reply(f"{QUOTE}\nIt is a lamp.\nA green one.\n")
    assert (said, quoted) == ("It is a lamp.\nA green one.", QUOTE.strip())
    between = "Ada wrote:\n> one?\n\nyes\n\n> two?\n\nno"
    assert split_reply(between) == (between, "", ""), "answers in between keep what they answer"


@pytest.mark.parametrize(
    "text",
    [
        "On Monday we met: it was nice\nOn Tuesday too",
        "From: here to there it is far.\nThat is all.",
        "Le prix : 10 euros\nSubject to change",
        "> only a quote\n> of two lines",
        "a > b and c > d",
        "Please call:\nmonday: 10\ntuesday: 11",
    ],
)
def test_what_only_looks_like_a_quote_is_the_message(text: str):
    assert split_reply(text) == (text, "", "")


def test_signatures():
    assert split_reply("Thanks\n\n-- \nBob\nACME") == ("Thanks", "", "--\nBob\nACME")
    for line in (
        "Sent from my iPhone",
        "Von meinem iPhone gesendet",
        "Envoyé de mon iPhone",
        "Enviado desde mi iPhone",
    ):
        assert split_reply(f"Ok\n\n{line}") == ("Ok", "", line)
    assert split_reply("-- \nBob")[0] == "--\nBob", "a letter that is all signature is its own message"
    assert split_reply("Sent from my heart, with all my love and some more words\nthan one line")[2] == ""


@given(st.text(alphabet="ab>:\n <@On wrote-_Vrm\r", max_size=400))
def test_nothing_is_lost(text: str):
    said, quoted, signature = split_reply(text)
    letters = sorted(f"{said}\n{quoted}\n{signature}".split())
    assert letters == sorted(text.split())
    assert said.strip() or not text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "On a\n" * 20_000,
        "On x wrote:\n" * 20_000,
        ("On " + "wrote " * 90 + ":\n") * 800,
        "a <b@c>:\n" * 20_000,
        "> x\ny\n" * 20_000,
        "From: x\n" * 20_000,
    ],
)
def test_a_hostile_text_takes_no_time(text: str):
    start = time.process_time()
    split_reply(text)
    assert time.process_time() - start < 3
