"""What a participant of the check saw, and whether it is what the SQLite file says, read without the server's code."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from roomkit.net.room_client import RoomClient
from roomkit.protocols.room_socket.messages import (
    EphemeralFrame,
    EventFrame,
    Resumed,
    ServerFrame,
    Snapshot,
    StreamChunkFrame,
    StreamEndFrame,
    StreamStartFrame,
)
from roomkit.runtime import Scope, Wakeup, bounded, monotonic

Event = dict[str, Any]


@dataclass(slots=True)
class Growing:
    """A reply as it was seen to grow."""

    chunks: int = 0
    text: str = ""
    first_at: float = 0.0
    ended_at: float | None = None


@dataclass(slots=True)
class Witness:
    """One person at one socket, who writes down everything."""

    name: str
    client: RoomClient
    staff: bool = False
    seen: list[Event] = field(default_factory=list[Event])
    growing: dict[str, Growing] = field(default_factory=dict[str, Growing])
    acks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    resumed: int = 0
    signs: set[str] = field(default_factory=set[str])
    _news: Wakeup = field(default_factory=Wakeup)
    _scope: Scope = field(default_factory=lambda: Scope("witness"))

    async def __aenter__(self) -> Self:
        self.client.start()
        self._scope.spawn(self._watch(), name=f"{self.name} watches")
        await self.until(lambda: self.client.live, 10, "entering the room")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.client.aclose()
        await self._scope.aclose()

    async def _watch(self) -> None:
        async for frame in self.client:
            self.note(frame)
            self._news.set()

    def note(self, frame: ServerFrame) -> None:
        match frame:
            case Snapshot() | Resumed():
                self.resumed += isinstance(frame, Resumed)
                for event in frame.events:
                    self._see(event)
                for stream in frame.streams:
                    self.growing.setdefault(stream.stream_id, Growing(first_at=monotonic())).text = stream.text
            case EventFrame():
                self._see(frame.event)
            case StreamStartFrame():
                self.growing[frame.stream_id] = Growing(first_at=monotonic())
            case StreamChunkFrame():
                reply = self.growing.setdefault(frame.stream_id, Growing(first_at=monotonic()))
                if not reply.chunks:
                    reply.first_at = monotonic()
                reply.chunks += 1
                reply.text = reply.text[: frame.offset] + frame.delta
            case StreamEndFrame():
                self.growing.setdefault(frame.stream_id, Growing()).ended_at = monotonic()
                self._see(frame.event)
            case EphemeralFrame():
                self.signs.add(frame.kind)
            case _:
                pass

    def _see(self, event: Event) -> None:
        self.seen.append(event)

    async def say(self, text: str) -> Event:
        """Sends, waits for the acknowledgement and returns it as a record of the history."""
        client_id = f"{self.name}-{len(self.acks) + 1}"
        record: dict[str, Any] = {"kind": "ack", "client": self.name, "client_id": client_id, "sent_at": monotonic()}
        self.acks.append(record)
        ack = await self.client.send(text, client_id=client_id)
        record |= {"index": ack.index, "event_id": ack.event_id, "acked_at": monotonic(), "duplicate": ack.duplicate}
        return record

    async def until(self, found: Callable[[], Any], within: float, what: str) -> Any:
        """The first true answer of `found`. Raises `TimeoutError` naming `what` after `within` seconds."""

        async def look() -> Any:
            while not (answer := found()):
                await self._news.wait()
            return answer

        return await bounded(look(), within, f"{self.name} waited {within:g} s for {what}")

    async def reply(self, after: int, within: float = 15.0, *, containing: str = "") -> Event:
        """The first finished message of the assistant with an index above `after`."""
        return await self.until(
            lambda: next(
                (e for e in self.seen if e["index"] > after and said_by_ai(e) and containing in text_of(e)), None
            ),
            within,
            f"a reply{f' with {containing!r}' if containing else ''}",
        )


def said_by_ai(event: Event) -> bool:
    return event["type"] == "message" and event["source"]["channel_id"] == "assistant"


def text_of(event: Event) -> str:
    content = event["content"]
    return str(content.get("text") or content.get("body") or content.get("message") or "")


@dataclass(frozen=True, slots=True)
class Stored:
    """The log of one room as the file has it."""

    events: list[Event]
    next_index: int
    integrity: str
    unsettled: dict[str, int]


def read_room(path: Path, room_id: str) -> Stored:
    """Reads the file itself: plain SQL, none of the server's code."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        ((integrity,),) = db.execute("PRAGMA integrity_check").fetchall()
        ((number, next_index),) = db.execute(
            "SELECT rid, next_index FROM heads WHERE room_id = ?", (room_id,)
        ).fetchall()
        rows = db.execute(
            "SELECT pos & 4294967295, id, body FROM events WHERE pos >> 32 = ? ORDER BY pos", (number,)
        ).fetchall()
        open_rows = db.execute(
            "SELECT kind, count(*) FROM records WHERE room_id = ? "
            "AND kind IN ('stream', 'turn', 'outbox') GROUP BY kind",
            (room_id,),
        ).fetchall()
    events: list[Event] = []
    for index, event_id, body in rows:
        event: Event = json.loads(body)
        events.append(
            {**event, "index": index, "id": event_id, "agrees": (event["index"], event["id"]) == (index, event_id)}
        )
    return Stored(events, next_index, integrity, dict(open_rows))


def guest_may_see(event: Event, channel_id: str = "web") -> bool:
    """The rule as documented: not blocked, and its own or visible to all, to transports or to this very channel."""
    if event.get("status", "committed") != "committed":
        return False
    if event["source"]["channel_id"] == channel_id:
        return True
    visibility = event.get("visibility", "all")
    return visibility in ("all", "transport") or channel_id in [part.strip() for part in visibility.split(",")]


def history_of(room_id: str, stored: Stored, witnesses: Iterable[Witness]) -> list[Mapping[str, Any]]:
    """Everything stored, acknowledged and seen, as records for the history checker."""
    records: list[Mapping[str, Any]] = []
    witnesses = list(witnesses)
    for event in stored.events:
        visible_to = [one.name for one in witnesses if one.staff or guest_may_see(event)]
        base = {"kind": "commit", "room": room_id, "index": event["index"], "event_id": event["id"]}
        records.append({**base, "visible_to": visible_to})
    for one in witnesses:
        records += [{**ack, "room": room_id} for ack in one.acks if "acked_at" in ack]
        for event in one.seen:
            records.append(
                {
                    "kind": "observe",
                    "observer": one.name,
                    "room": room_id,
                    "index": event["index"],
                    "event_id": event["id"],
                }
            )
        records.append({"kind": "range", "observer": one.name, "room": room_id, "from": 0})
    return records


def violations_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the history checker finds; it runs as the command that anybody can run."""
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    command = [sys.executable, "-m", "roomkit.testing.history", "-"]
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        command, input=lines, capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode not in (0, 1):
        return [f"the history checker failed: {(done.stderr or done.stdout).strip()}"]
    return done.stdout.splitlines()[:-1]
