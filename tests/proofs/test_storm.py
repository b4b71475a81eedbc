"""A small storm, and a crowd that notices what it should."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from proofs import storm
from proofs.crowd import Client, Crowd, Part
from roomkit.net.tokens import Tokens

SECRET = "a secret that is long enough for tokens"


@pytest.mark.real_time
@pytest.mark.may_block
async def test_all_clients_of_a_killed_server_come_back_and_have_missed_nothing() -> None:
    proof = await storm.prove(100, seed=7)
    assert proof.wrong == []
    assert (proof.figures["clients"], proof.figures["resumed"]) == (100, 100)
    assert proof.figures["acknowledged"] > 0


def event(index: int, ident: str) -> dict[str, Any]:
    return {"index": index, "id": ident, "type": "message", "source": {"channel_id": "web"}, "visibility": "all"}


def one_client() -> tuple[Crowd, Client]:
    crowd = Crowd(Part(1, SECRET, ("r",), 0, 0))
    client = Client(crowd, 0, "r", Tokens([SECRET]))
    client._hear({"type": "snapshot", "epoch": "e", "index": 0, "events": [event(0, "a")]})
    return crowd, client


def told(crowd: Crowd, client: Client) -> dict[str, Any]:
    seen = {"r": {f"{client.position}:{client.checksum:08x}": 1}}
    return {"live": 1, "under_way": 0, "wrong": crowd.wrong, "seen": seen, "acked": crowd.acked}


def wrong(monkeypatch: pytest.MonkeyPatch, *one: dict[str, Any]) -> list[str]:
    stored = SimpleNamespace(events=[event(0, "a"), event(1, "b"), event(2, "c")])
    monkeypatch.setattr(storm, "read_room", lambda *_: stored)
    server: Any = SimpleNamespace(plan=SimpleNamespace(rooms=("r",)), db=None)
    return storm._wrong(server, storm.Crowds([], list(one)))


def test_who_has_seen_exactly_the_log_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd, client = one_client()
    client._hear({"type": "event", "prev": 0, "index": 1, "event": event(1, "b")})
    client._hear({"type": "resumed", "epoch": "e", "index": 2, "events": [event(2, "c")]})
    crowd.acked["c0-1"] = ["r", 1, "b"]
    assert wrong(monkeypatch, told(crowd, client)) == []
    assert crowd.wrong == []


@pytest.mark.parametrize(
    "frames",
    [
        [event(1, "b")],
        [event(1, "b"), event(1, "b"), event(2, "c")],
        [event(2, "c"), event(1, "b")],
        [event(1, "b"), event(2, "other")],
    ],
    ids=["missed", "doubled", "swapped", "another"],
)
def test_who_has_not_is_told(monkeypatch: pytest.MonkeyPatch, frames: list[dict[str, Any]]) -> None:
    crowd, client = one_client()
    client._hear({"type": "resumed", "epoch": "e", "index": frames[-1]["index"], "events": frames})
    assert any("have not seen exactly its log" in one for one in wrong(monkeypatch, told(crowd, client)))


def test_a_gap_a_new_beginning_and_an_error_are_told() -> None:
    crowd, client = one_client()
    client._hear({"type": "event", "prev": 1, "index": 2, "event": event(2, "c")})
    client._hear({"type": "snapshot", "epoch": "e", "index": 2, "events": []})
    client._hear({"type": "error", "code": "internal"})
    assert len(crowd.wrong) == 3


def test_what_was_acknowledged_and_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd, client = one_client()
    for at, ident in ((1, "b"), (2, "c")):
        client._hear({"type": "event", "prev": at - 1, "index": at, "event": event(at, ident)})
    crowd.acked["c0-1"] = ["r", 1, "x"]
    assert any("was acknowledged" in one for one in wrong(monkeypatch, told(crowd, client)))
    waiting = {**told(crowd, client), "under_way": 1}
    assert wrong(monkeypatch, waiting) == ["1 messages were never acknowledged"]


def test_a_frame_is_read_whole_however_it_arrives() -> None:
    crowd, client = one_client()
    client._open = True
    big = {"type": "event", "prev": 0, "index": 1, "event": {**event(1, "b"), "text": "x" * 300}}
    payload = json.dumps(big).encode()
    data = b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload
    for at in range(0, len(data), 7):
        client.data_received(data[at : at + 7])
    assert (client.position, crowd.wrong) == (1, [])


@pytest.mark.real_time
@pytest.mark.parametrize(
    "returncode, alive, why",
    [
        (3, True, "a process of clients has ended with 3"),
        (None, False, "the server has ended by itself"),
        (None, True, "nothing has moved for"),
    ],
)
async def test_nobody_waits_for_what_cannot_come(
    returncode: int | None, alive: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storm, "STILL_S", 0.01)
    process: Any = SimpleNamespace(returncode=returncode)
    server: Any = SimpleNamespace(alive=alive)
    assert why in await storm.Crowds([process], [{"live": 1}]).until(server, lambda: False, 600)


@pytest.mark.real_time
async def test_who_is_heard_no_more_is_not_waited_for() -> None:
    async def read() -> None:
        raise ValueError("a line too long")

    reading = asyncio.create_task(read())
    await asyncio.wait([reading])
    server: Any = SimpleNamespace(alive=True)
    crowd = storm.Crowds([], [{}], [reading])
    assert "a line too long" in await crowd.until(server, lambda: False, 600)


@pytest.mark.real_time
@pytest.mark.may_block
async def test_a_storm_ends_in_any_case_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storm, "WHOLE_S", 0.0)
    assert (await storm.prove(10, seed=7)).wrong == ["it did not end: starting the server took too long"]


@pytest.mark.parametrize("answered", [True, False])
async def test_a_client_that_hears_nothing_comes_again_and_one_that_hears_shows_that_it_is_there(
    answered: bool,
) -> None:
    crowd, client = one_client()
    ended, said = asyncio.Event(), list[bytes]()
    client.connection_made(SimpleNamespace(write=said.append, abort=ended.set))
    if answered:
        client._hear({"type": "welcome", "heartbeat_s": 20.0})
    await asyncio.sleep(1e4)
    assert (ended.is_set(), crowd.gave_up) == (not answered, 0 if answered else 1)
    assert (sum(b"ping" in each for each in said) > 400) is answered
    client.connection_lost(None)
