"""Order: who speaks first stands first, whatever is told first, once, and nothing waits for ever (rule 51, S116)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from roomkit.voice.realtime.order import Order, Placed


def items(placed: list[Placed[str]]) -> list[str]:
    return [each.item for each in placed]


def test_what_comes_after_the_caller_waits_for_the_caller_s_words() -> None:
    order: Order[str] = Order(3.0)
    order.began("u1", 10.0)
    order.stopped("u1", 11.0)
    assert items(order.add("tool", 11.5)) == []
    assert items(order.add("assistant", 12.0)) == []
    ready = order.said("u1", "user", 12.5)
    assert items(ready) == ["user", "tool", "assistant"]
    assert ready[0].spoken_at == 10.0


def test_the_same_words_told_twice_count_once() -> None:
    order: Order[str] = Order()
    assert items(order.said("u1", "hello", 1.0)) == ["hello"]
    assert order.said("u1", "hello there", 2.0) == []
    order.began("u1", 3.0)
    assert items(order.add("next", 3.0)) == ["next"]


def test_words_that_never_come_hold_nothing_up_for_longer_than_the_limit() -> None:
    order: Order[str] = Order(3.0)
    order.began("u1", 0.0)
    assert order.deadline is None
    order.stopped("u1", 2.0)
    order.add("tool", 2.5)
    assert order.deadline == 5.0
    assert order.tick(4.9) == []
    assert items(order.tick(5.0)) == ["tool"]
    late = order.said("u1", "sorry I am late", 9.0)
    assert items(late) == ["sorry I am late"]
    assert late[0].late
    assert late[0].spoken_at == 0.0


def test_speech_without_words_takes_no_place() -> None:
    order: Order[str] = Order()
    order.began("cough", 0.0)
    order.add("assistant", 1.0)
    assert items(order.said("cough", None, 2.0)) == ["assistant"]


def test_the_end_of_the_call_writes_down_what_is_there() -> None:
    order: Order[str] = Order()
    order.began("u1", 0.0)
    order.add("assistant", 1.0)
    assert items(order.flush()) == ["assistant"]


def test_a_provider_may_name_speech_later() -> None:
    order: Order[str] = Order()
    order.began("speech-1", 0.0)
    order.rename("speech-1", "item-9")
    order.add("tool", 1.0)
    assert items(order.said("item-9", "user", 2.0)) == ["user", "tool"]


@given(st.permutations(["u1", "u2", "u3"]))
def test_whatever_order_the_words_come_in_the_log_has_the_order_of_the_conversation(told: list[str]) -> None:
    order: Order[str] = Order()
    out: list[str] = []
    for number, name in enumerate(["u1", "u2", "u3"]):
        order.began(name, float(number))
        order.stopped(name, number + 0.5)
        out += items(order.add(f"reply to {name}", number + 0.7))
    for at, name in enumerate(told):
        out += items(order.said(name, name, 3.0 + at / 10))
    assert out == ["u1", "reply to u1", "u2", "reply to u2", "u3", "reply to u3"]
