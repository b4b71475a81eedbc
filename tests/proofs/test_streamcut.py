"""A reply cut at a few of its chunks, and a screen that shows what goes wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from proofs import streamcut
from proofs.streamcut import Screen
from roomkit.protocols.room_socket.messages import SERVER_FRAME


@pytest.mark.real_time
@pytest.mark.may_block
async def test_whenever_the_server_dies_all_screens_end_with_the_stored_text() -> None:
    proof = await streamcut.prove(3, seed=3, chunks=60)
    assert proof.wrong == []
    assert proof.figures["deaths"] == 3
    assert proof.figures["replies"] >= 3
    assert proof.figures["interrupted"] > 0


def _reply(text: str, *, index: int = 1, ident: str = "e1") -> dict[str, Any]:
    return {
        "id": ident,
        "index": index,
        "type": "message",
        "source": {"channel_id": "ai", "channel_type": "ai"},
        "content": {"type": "text", "text": text},
    }


def _frames(*frames: dict[str, Any]) -> Screen:
    screen = Screen()
    for frame in frames:
        screen.note(SERVER_FRAME.validate_python(frame))
    return screen


def _end(text: str) -> dict[str, Any]:
    return {"type": "stream_end", "stream_id": "e1", "room_id": "r", "index": 1, "prev": 0, "event": _reply(text)}


@pytest.mark.parametrize(
    "ends, told",
    [
        ([_end("all of it")], []),
        ([_end("all of it"), _end("all of it")], ["end 2 times"]),
        ([], ["end 0 times"]),
        ([_end("half")], ["another text"]),
    ],
)
def test_a_screen_that_differs_from_the_log_is_told(
    ends: list[dict[str, Any]], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    question = {**_reply("?", index=0, ident="e0"), "source": {"channel_id": "web"}}
    stored = SimpleNamespace(events=[question, _reply("all of it")])
    monkeypatch.setattr(streamcut, "read_room", lambda *_: stored)
    proof = streamcut.Proof()
    person: Any = SimpleNamespace(name="ann", screen=_frames(*ends))
    world: Any = SimpleNamespace(server=SimpleNamespace(db=None))
    streamcut._compare(world, [person], proof)
    assert len(proof.wrong) == len(told)
    assert all(one in wrong for one, wrong in zip(told, proof.wrong, strict=True))
    stored.events.pop()
    proof = streamcut.Proof()
    streamcut._compare(world, [SimpleNamespace(name="ann", screen=Screen())], proof)
    assert any("never answered" in one for one in proof.wrong)
