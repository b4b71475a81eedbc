"""What was heard of a reply, to the last whole word."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from roomkit.voice.ledger import HeardLedger

RATE = 16_000


def test_two_sentences_of_known_length() -> None:
    ledger = HeardLedger(RATE)
    ledger.say("one two three. ")
    ledger.audio(RATE)
    ledger.settle()
    ledger.say("four five six.")
    ledger.audio(RATE)
    ledger.settle()
    assert ledger.heard(0).text == ""
    assert ledger.heard(RATE // 2).text == "one two"
    assert ledger.heard(RATE).text == "one two three."
    assert ledger.heard(RATE * 3 // 2).text == "one two three. four"
    assert ledger.heard(RATE * 2).whole


def test_character_times_of_the_synthesiser_are_kept_to() -> None:
    ledger = HeardLedger(RATE)
    ledger.say("slow fast")
    ledger.audio(RATE, text_end=4)
    ledger.audio(RATE // 10, text_end=9)
    assert ledger.heard(RATE - 10).text == ""
    assert ledger.heard(RATE).text == "slow"
    assert ledger.heard(RATE + RATE // 10).text == "slow fast"


def test_before_the_synthesiser_has_said_how_long_it_takes_speech_is_of_usual_speed() -> None:
    ledger = HeardLedger(RATE)
    ledger.say("a sentence that is still being made")
    ledger.audio(RATE)
    assert ledger.heard(RATE).text == "a sentence that"


def test_writing_without_spaces_is_cut_where_it_stands() -> None:
    ledger = HeardLedger(RATE)
    ledger.say("你好世界再见")
    ledger.audio(RATE)
    ledger.settle()
    assert ledger.heard(RATE // 2).text == "你好世"


@given(
    st.lists(st.tuples(st.text("ab .", max_size=30), st.integers(0, RATE)), max_size=8),
    st.lists(st.integers(0, 9 * RATE)),
)
def test_more_played_is_never_less_heard(pieces: list[tuple[str, int]], played: list[int]) -> None:
    ledger = HeardLedger(RATE)
    for text, samples in pieces:
        ledger.say(text)
        ledger.audio(samples)
        ledger.settle()
    heard = [ledger.heard(at) for at in sorted(played)]
    assert all(ledger.text.startswith(one.text) for one in heard)
    assert all(len(a.text) <= len(b.text) for a, b in pairwise(heard))
    assert ledger.heard(ledger.samples).whole
