"""Fanout: batches of signs, for every wire the same."""

from __future__ import annotations

from roomkit.models.stream import Ephemeral
from roomkit.providers.fanout import WAITING, Fanout


def sign(room_id: str = "r", text: str = "") -> Ephemeral:
    return Ephemeral(kind="typing", room_id=room_id, sender="ann", data={"text": text} if text else {})


def pair(largest: int = 1000) -> tuple[Fanout, Fanout]:
    return Fanout(largest, lambda: None), Fanout(largest, lambda: None)


def carry(here: Fanout, there: Fanout) -> list[str]:
    payloads = here.payloads()
    for payload in payloads:
        there.hear(payload)
    return payloads


def test_signs_reach_their_room_of_their_tenant_in_order_and_once() -> None:
    here, there = pair()
    heard: list[Ephemeral] = []
    at_home: list[Ephemeral] = []
    there.subscribe("t", "r", heard.append)
    here.subscribe("t", "r", at_home.append)
    for number in range(5):
        here.publish("t", sign(text=str(number)))
    here.publish("u", sign())
    here.publish("t", sign("other"))
    payloads = carry(here, there)
    assert len(payloads) == 1
    here.hear(payloads[0])  # A wire gives everybody's back to its sender as well.
    assert [m.data["text"] for m in heard] == [m.data["text"] for m in at_home] == ["0", "1", "2", "3", "4"]


def test_no_payload_is_larger_than_the_wire_takes_and_what_fits_in_none_is_dropped() -> None:
    here, there = pair(300)
    heard: list[Ephemeral] = []
    there.subscribe("t", "r", heard.append)
    for text in ("a" * 100, "é" * 50, "b" * 100, "x" * 300, "c" * 100, "line\nbreak\u2028"):
        here.publish("t", sign(text=text))
    payloads = carry(here, there)
    assert all(len(payload.encode()) <= 300 for payload in payloads)
    assert [m.data["text"][:2] for m in heard] == ["aa", "éé", "bb", "cc", "li"]
    assert here.counters["oversize"] == 1


def test_the_oldest_signs_are_dropped_when_too_many_wait() -> None:
    here, there = pair(10_000_000)
    heard: list[Ephemeral] = []
    there.subscribe("t", "r", heard.append)
    for number in range(WAITING + 3):
        here.publish("t", sign(text=str(number)))
    carry(here, there)
    assert (len(heard), heard[0].data["text"], here.counters["dropped"]) == (WAITING, "3", 3)


def test_repeated_changes_are_one_and_too_many_become_look_at_everything() -> None:
    here, there = pair(10_000_000)
    seen: list[tuple[str, str]] = []
    there.watch(lambda tenant, room_id: seen.append((tenant, room_id)))
    for _ in range(3):
        here.changed("t", "r")
    carry(here, there)
    assert seen == [("t", "r")]
    for number in range(WAITING + 2):
        here.changed("t", str(number))
    carry(here, there)
    assert seen[1:] == [("", "")]


def test_what_cannot_be_read_is_counted_and_the_rest_heard() -> None:
    _, there = pair()
    heard: list[Ephemeral] = []
    there.subscribe("t", "r", heard.append)
    good = '["t",{"kind":"typing","room_id":"r","sender":"ann"}]'
    there.hear(f'other\nnonsense\n["t"]\n["t",{{"kind":"typing","future":1}}]\n{good}')
    there.hear("")
    assert heard == [sign()]
    assert there.counters["unreadable"] == 4
