"""What is personal in a text, and what only looks like it; the same for a text that comes in pieces, cut anywhere."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkit.net.personal import Redactor, find
from roomkit.net.redaction import redact_personal

REDACTOR = Redactor()
PERSONAL = {
    "phone": (
        *("+44 20 7946 0101", "(555) 210-1234", "555-210-1234", "5552101234", "020 7946 0101", "0176 12345678"),
        *("01 23 45 67 89", "0044 20 7946 0101", "+1 (415) 555-0132", "+49 (0)30 1234567", "+15550101234"),
        *("oh seven nine four six, oh one oh one two three", "four one five, five five five, zero one three two"),
        *(
            "null eins sieben sechs eins zwei drei vier fünf sechs",
            "zéro six douze trente-quatre cinquante-six dix-huit",
        ),
        *(
            "seis cero cero uno dos tres cuatro cinco seis",
            "4 1 5 5 5 5 0 1 3 2",
            "plus four four two oh seven nine four",
        ),
        *("five five five uh two one oh and then one two three four", "double oh four four two oh seven nine four six"),
    ),
    "email": (
        *("ann.lee+x@mail.example.co.uk", "ANN@EXAMPLE.COM", "jürgen@müller.de", "ann dot lee at example dot com"),
        *("ann at example dot co dot uk", "ann punkt lee ät example punkt de", "ana arroba ejemplo punto es"),
    ),
    "card": (
        *("4111 1111 1111 1111", "4111111111111111", "3782 822463 10005", "5500-0000-0000-0004"),
        "four one one one one one one one one one one one one one one one",
        "four one one one, one one one one. one one one one, one one one one",
    ),
}
PLAIN = (
    *("order 1042", "the year 2026 and 2027", "at 10:30 on 2026-11-21", "2026-11-21T06:00:00+00:00", "version 1.2.3.4"),
    *("10.0.0.1:8080", "one two three go", "prices 100 200 300 400 500 600 700", "tracking 1Z999AA10123456784"),
    *(
        "order 123456789012",
        "he is at home",
        "0.000123456",
        "item 0815-4711?",
        "@ann",
        "2 * 49.90",
        "01.02.2026 12 people",
    ),
    *("550e8400-e29b-41d4-a716-446655440000", "for one to be six or seven", "room 007 of 100", "4111 1111 1111 1112"),
    *("look at the dot", "one or two, three or four, five or six", "ein oder zwei Leute und drei Hunde"),
)
SAID = [(kind, text) for kind, texts in PERSONAL.items() for text in texts]


@pytest.mark.parametrize("kind, text", SAID)
def test_it_is_found_whatever_stands_around_it(kind: str, text: str) -> None:
    for before, after in (("", ""), ("It is ", "."), ("(", ")"), ("«", "», yes"), ("call: ", "\nthanks"), ("a, ", "!")):
        assert REDACTOR.text(f"{before}{text}{after}") == f"{before}[{kind}]{after}"


@pytest.mark.parametrize("text", PLAIN)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert REDACTOR.text(text) == text
    assert find(f"Well, {text}, you see.") == []


def grown(redactor: Redactor, pieces: list[str]) -> str:
    stream = redactor.stream()
    return "".join([*map(stream.feed, pieces), stream.close()])


@pytest.mark.parametrize("kind, text", SAID)
def test_a_text_cut_at_every_offset_comes_out_the_same(kind: str, text: str) -> None:
    whole = f"Sure! I have {text} here. Anything else? It was ordered at nine, for two."
    want = REDACTOR.text(whole)
    assert text not in want
    for at in range(len(whole) + 1):
        assert grown(REDACTOR, [whole[:at], whole[at:]]) == want
    assert grown(REDACTOR, list(whole)) == want


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*(text for _, text in SAID), *PLAIN, "hello", "I", "at", "dot", "one"]), max_size=5),
    st.randoms(),
)
def test_any_text_in_any_pieces(texts: list[str], rng: random.Random) -> None:
    whole = "".join(text + rng.choice([" ", ", ", ". ", "\n", " and ", "? "]) for text in texts)
    pieces, at = [], 0
    while at < len(whole):
        size = rng.randint(1, 9)
        pieces.append(whole[at : at + size])
        at += size
    assert grown(REDACTOR, pieces) == REDACTOR.text(whole)


def test_little_is_held_back() -> None:
    stream = REDACTOR.stream()
    words = ("I ", "will ", "look ", "that ", "up ", "and ", "call ", "you ", "back ")
    shown = "".join(map(stream.feed, words))
    assert shown == "I will look that up and call ", "the last two words"


def test_a_finder_of_ones_own_and_a_mask_of_ones_own() -> None:
    def badge(text: str) -> list[tuple[int, int, str]]:
        at = text.find("Project X")
        return [(at, at + 9, "project")] if at >= 0 else []

    own = Redactor(kinds=("email",), finders=(badge,), mask="<{kind}>")
    text = "Project X is run by ann@example.com. Her number is 555-210-1234. Bye"
    want = "<project> is run by <email>. Her number is 555-210-1234. Bye"
    assert own.text(text) == want
    for at in range(len(text)):
        assert grown(own, [text[:at], text[at:]]) == want


def test_json_keeps_its_shape_and_itself_where_nothing_is_found() -> None:
    value = {"a": ["call 555-210-1234", 1, None], "b": {"c": "nothing"}}
    assert REDACTOR.value(value) == {"a": ["call [phone]", 1, None], "b": {"c": "nothing"}}
    same = {"a": ["nothing", 2]}
    assert REDACTOR.value(same) is same


def test_what_is_masked_is_not_found_again() -> None:
    for _, text in SAID:
        once = REDACTOR.text(f"x {text} y")
        assert REDACTOR.text(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "+" + "1" * 60_000,
        "1 " * 30_000,
        "und" * 20_000,
        "-" * 60_000,
        "a@" * 30_000,
        "a." * 30_000 + "@",
        "one " * 15_000,
        *("(" * 60_000, "0" * 60_000, " " * 60_000, "at " * 20_000, "a at b dot " * 6_000, "00" + " 1" * 30_000),
    ],
)
def test_no_text_makes_it_slow(text: str) -> None:
    """Each takes far less than the limit of a test; a pattern that goes back and forth would take hours."""
    for clean in (REDACTOR.text(text), redact_personal(text)):
        assert clean == text or "[" in clean or "***" in clean
        assert len(clean) <= len(text)


def test_a_log_has_no_addresses() -> None:
    line = "room sms:+15550101234 of ann@example.com waits since 2026-11-21T06:00:00+00:00 for 10.0.0.1"
    assert redact_personal(line) == "room sms:*** of *** waits since 2026-11-21T06:00:00+00:00 for 10.0.0.1"


@pytest.mark.parametrize("between", ["-", "/", " ", ", "])
def test_where_two_overlap_nothing_of_either_stays(between: str) -> None:
    whole = f"ann dot lee at example dot com{between}four one one one one one one one one one one one one one one one!"
    for text in (REDACTOR.text(whole), *(grown(REDACTOR, [whole[:at], whole[at:]]) for at in range(len(whole)))):
        assert not {"ann", "lee", "example", "four", "one"} & set(text.replace("-", " ").split()), text
