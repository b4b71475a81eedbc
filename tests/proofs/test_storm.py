"""A small storm, and a crowd that notices what it should."""

from __future__ import annotations

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
@pytest.mark.time_limit(120)
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
