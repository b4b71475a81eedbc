"""The verdict: what the SQLite file and the vendor's say, read without the server's code, against what people saw."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from proofs.world import World
from roomkit.cli.witness import Stored, history_of, read_room
from roomkit.testing.history import check_history


def open_rows(db: Path, kind: str) -> list[str]:
    """The keys of all rows of one kind (stream, turn, outbox), read from the file itself."""
    with closing(sqlite3.connect(f"{db.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM records WHERE kind = ?", (kind,))]


def lost(world: World) -> list[str]:
    """Right after a kill: every acknowledged message is in the file, once, where the acknowledgement said."""
    wrong: list[str] = []
    for room_id, people in world.people.items():
        stored = read_room(world.server.db, room_id)
        wrong += _log(room_id, stored)
        places = {event["id"]: event["index"] for event in stored.events}
        for person in people:
            for ack in person.acks:
                if "acked_at" in ack and places.get(ack["event_id"]) != ack["index"]:
                    wrong.append(f"{ack['client_id']} was acknowledged at {room_id}[{ack['index']}] and is not there")
    return wrong


def verdict(world: World) -> tuple[list[str], Counter[str]]:
    """When all is quiet: everything that is wrong, and the figures."""
    wrong: list[str] = []
    figures: Counter[str] = Counter()
    deliveries = _deliveries(world.sink)
    for room_id, people in world.people.items():
        stored = read_room(world.server.db, room_id)
        wrong += _log(room_id, stored)
        wrong += [f"{count} {kind} rows are left open in {room_id}" for kind, count in stored.unsettled.items()]
        wrong += _messages(world, room_id, stored)
        history: list[Mapping[str, Any]] = history_of(room_id, stored, people)
        lane: list[Mapping[str, Any]] = []
        if "sink" in world.channels:
            lane, more = _lane(room_id, stored, deliveries[room_id], figures)
            wrong += more
        wrong += [str(violation) for violation in check_history([*history, *lane])]
        for person in people:
            texts = {event["id"]: event["content"] for event in stored.events}
            wrong += [
                f"{person.name} saw {e['id']} in other words" for e in person.seen if texts.get(e["id"]) != e["content"]
            ]
            figures["seen"] += len(person.seen)
            figures["resumed"] += person.resumed
            hanging = [
                stream for stream, grown in person.growing.items() if not _over(stream, grown.ended_at, person.seen)
            ]
            figures["withdrawn"] += len(hanging)
        figures["events"] += len(stored.events)
        figures["replies"] += sum(e["source"]["channel_id"] == "ai" and e["type"] == "message" for e in stored.events)
        figures["acknowledged"] += sum("acked_at" in ack for person in people for ack in person.acks)
        figures["interrupted"] += sum(event["metadata"].get("end_reason") == "interrupted" for event in stored.events)
    return wrong, figures


def _over(stream_id: str, ended_at: float | None, seen: list[dict[str, Any]]) -> bool:
    return ended_at is not None or any(event["id"] == stream_id for event in seen)


def _log(room_id: str, stored: Stored) -> list[str]:
    wrong = [] if stored.integrity == "ok" else [f"the file is damaged: {stored.integrity}"]
    if [event["index"] for event in stored.events] != list(range(stored.next_index)):
        wrong.append(f"the indexes of {room_id} have a gap, or do not end at its head")
    if not all(event["agrees"] for event in stored.events):
        wrong.append(f"an event of {room_id} is not what its row says")
    return wrong


def _messages(world: World, room_id: str, stored: Stored) -> list[str]:
    """Acknowledged ones are there exactly once, all others at most once."""
    counts = Counter(event["metadata"].get("client_id") for event in stored.events)
    wrong: list[str] = []
    for person in world.people[room_id]:
        for ack in person.acks:
            found = counts[ack["client_id"]]
            if found > 1 or ("acked_at" in ack and found != 1):
                wrong.append(f"message {ack['client_id']} is stored {found} times")
    return wrong


def _deliveries(path: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        record = json.loads(line)
        found[record["room"]].append(record)
    return found


def _lane(
    room_id: str, stored: Stored, deliveries: list[dict[str, Any]], figures: Counter[str]
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """What the vendor got of one room: all of it, in order; repetitions under the same key, and only over a crash."""
    wrong: list[str] = []
    first: dict[str, dict[str, Any]] = {}
    lives: dict[int, int] = {}
    lane: list[Mapping[str, Any]] = []
    for one in deliveries:
        key, life = one["key"], one["life"]
        if one["index"] <= lives.get(life, -1):
            wrong.append(f"{key} came out of order within life {life}")
        lives[life] = one["index"]
        before = first.setdefault(key, one)
        if before is one:
            lane.append({"kind": "lane", "channel": "sink", "room": room_id, "index": one["index"]})
            continue
        figures["repeated"] += 1
        if before["event_id"] != one["event_id"]:
            wrong.append(f"{key} was used for two events")
        if life == before["life"]:
            wrong.append(f"{key} was delivered twice without a crash in between")
    for event in stored.events:
        due = event["type"] == "message" and event.get("status", "committed") == "committed"
        if due and f"{room_id}:{event['index']}:sink" not in first:
            wrong.append(f"{room_id}[{event['index']}] was never delivered")
    figures["delivered"] += len(first)
    return lane, wrong
