"""The witness notices what a server could get wrong, and what somebody could do to the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from roomkit.cli.check import Play
from roomkit.cli.witness import (
    Stored,
    Witness,
    guest_may_see,
    history_of,
    read_room,
    said_by_ai,
    text_of,
    violations_of,
)
from roomkit.kit import RoomKit
from roomkit.net.room_client import RoomClient
from roomkit.protocols.room_socket.messages import SERVER_FRAME


def witness(name: str = "ada", *, staff: bool = False) -> Witness:
    return Witness(name, RoomClient("ws://127.0.0.1:1/socket", "r", "token"), staff)


def event(index: int, text: str = "hi", channel: str = "web", **more: Any) -> dict[str, Any]:
    source = {"channel_id": channel, "channel_type": channel, "direction": "inbound"}
    return {
        "id": f"e{index}",
        "index": index,
        "type": "message",
        "source": source,
        "content": {"type": "text", "text": text},
        "metadata": {},
        "created_at": "2030-01-01T00:00:00Z",
        "agrees": True,
        **more,
    }


def stored(*events: dict[str, Any]) -> Stored:
    return Stored(list(events), len(events), "ok", {})


async def kept(path: Path, *texts: str) -> str:
    """A room in a file, written by a real kit; returns its id."""
    async with RoomKit(f"sqlite:///{path}") as kit:
        room = await kit.create_room()
        for text in texts:
            await kit.send(room.id, text)
        return room.id


async def test_the_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    room = await kept(path, "one", "two")
    found = read_room(path, room)
    assert [text_of(one) for one in found.events][-2:] == ["one", "two"]
    assert [one["index"] for one in found.events] == list(range(found.next_index))
    assert found.integrity == "ok"
    assert all(one["agrees"] for one in found.events)
    assert found.unsettled == {}


@pytest.mark.parametrize(
    "damage, claim",
    [
        ("DELETE FROM events WHERE pos = (SELECT max(pos) - 1 FROM events)", "the file is whole"),
        ("UPDATE events SET body = replace(body, 'two', 'tow')", "word for word"),
        ("UPDATE heads SET next_index = next_index + 1", "the file is whole"),
        ("UPDATE events SET body = replace(body, '\"index\":2', '\"index\":7')", "the file is whole"),
        ("UPDATE events SET pos = pos + 3 WHERE pos = (SELECT max(pos) FROM events)", "exactly what is stored"),
        (None, None),
    ],
)
@pytest.mark.may_block
async def test_damage_is_noticed(damage: str | None, claim: str | None, tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.room = await kept(play.server.db, "one", "two", "three")
    one = witness(staff=True)
    one.seen = [dict(found) for found in read_room(play.server.db, play.room).events]
    one.acks = [{"kind": "ack", "client": "ada", "client_id": None, "index": 0, "event_id": one.seen[0]["id"]}]
    play.witnesses = [one]
    if damage is not None:
        with closing(sqlite3.connect(play.server.db)) as db, db:
            db.execute(damage)
    play.judge()
    failed = [what for held, what in play.claims if not held and "acknowledged" not in what]
    assert bool(failed) == (damage is not None), failed
    assert claim is None or any(claim in what for what in failed), failed


@pytest.mark.may_block
async def test_what_was_seen_is_compared_with_what_is_stored() -> None:
    log = stored(event(0), event(1, channel="assistant", visibility="internal"), event(2))
    right, blind, spy, late = witness("ada"), witness("ben"), witness("eve"), witness("boss", staff=True)
    right.seen = [event(0), event(2)]
    assert violations_of(history_of("r", log, [right])) == []
    blind.seen = [event(0)]
    assert "[complete]" in violations_of(history_of("r", log, [blind]))[0]
    spy.seen = [event(0), event(1), event(2)]
    assert "[hidden]" in violations_of(history_of("r", log, [spy]))[0]
    late.seen = [event(0), event(2), event(1)]
    assert "[increasing]" in violations_of(history_of("r", log, [late]))[0]
    right.acks = [{"kind": "ack", "client": "ada", "index": 1, "event_id": "lost", "sent_at": 1.0, "acked_at": 2.0}]
    assert "[acked]" in violations_of(history_of("r", log, [right]))[0]


@pytest.mark.parametrize(
    "more, sees",
    [
        ({}, True),
        ({"visibility": "transport"}, True),
        ({"visibility": "sms, web"}, True),
        ({"visibility": "internal"}, True),
        ({"visibility": "internal", "channel": "assistant"}, False),
        ({"visibility": "sms", "channel": "assistant"}, False),
        ({"visibility": "intelligence", "channel": "assistant"}, False),
        ({"status": "blocked"}, False),
    ],
)
def test_what_a_guest_may_see(more: dict[str, Any], sees: bool) -> None:
    assert guest_may_see(event(0, **more)) is sees


async def test_frames_become_a_record() -> None:
    one = witness()
    stream = {"room_id": "r", "stream_id": "e3"}
    view = {"room_id": "r", "epoch": "x", "room": {}, "participants": []}
    for frame in (
        {"type": "snapshot", **view, "index": 0, "events": [event(0)]},
        {"type": "stream_start", **stream},
        {"type": "stream_chunk", **stream, "offset": 0, "delta": "Hel"},
        {"type": "stream_chunk", **stream, "offset": 3, "delta": "lo"},
        {"type": "event", "index": 1, "prev": 0, "event": event(1)},
        {"type": "resumed", **view, "from": 1, "index": 2, "events": [event(2)], "streams": []},
        {"type": "stream_end", **stream, "index": 3, "prev": 2, "event": event(3, "Hello", "assistant")},
    ):
        one.note(SERVER_FRAME.validate_python(frame))
    assert [seen["index"] for seen in one.seen] == [0, 1, 2, 3]
    assert (one.growing["e3"].text, one.growing["e3"].chunks, one.resumed) == ("Hello", 2, 1)
    assert said_by_ai(one.seen[-1])
    assert not said_by_ai(one.seen[0])


async def test_waiting_has_an_end_that_says_what_for() -> None:
    with pytest.raises(TimeoutError, match="ada waited 5 s for a reply"):
        await witness().reply(0, 5)
