"""Checks what rooms promise, from a record of what happened: `check_history(records)`, or on a file of JSON lines

    python -m roomkit.testing.history FILE.jsonl        (`-` reads standard input)

which prints each violation and exits with 1 if there is one, 2 if the file cannot be read. One record is one object:

    {"kind": "commit", "room": "r", "index": 0, "event_id": "e", "key": "k", "visible_to": ["ann"]}
        An event was stored. `key` (optional) is its idempotency key; `visible_to` (optional) the observers that may
        see it, all if absent.
    {"kind": "ack", "room": "r", "index": 0, "event_id": "e", "client": "c", "sent_at": 1.0, "acked_at": 1.5}
        A client was told that its event is stored. Times are seconds on one clock for the whole history.
    {"kind": "observe", "observer": "ann", "room": "r", "index": 0, "event_id": "e", "prev": null, "complete": true}
        An observer got an event; records stand in the order in which it got them, reconnects included. `prev`
        (optional) is the index which the sender says the observer had before, null for the first. `complete: true`,
        on any of its records, claims that it missed nothing visible between its first and its last one.
    {"kind": "range", "observer": "ann", "room": "r", "from": 0, "to": 9}
        The observer must have got everything visible from `from` to `to` inclusive (to the end if absent).
    {"kind": "lane", "channel": "sms", "room": "r", "index": 0, "part": 0, "retry": false}
        An event (or a part of it) was delivered to a channel, in this order. A `retry` may repeat the last delivery.
    {"kind": "counter", "name": "fenced_after_commit", "value": 0}
        A safety net. It must never have been needed: behind it another defence has failed.

The rules: `gapless` indexes 0, 1, 2 ... in each room · `unique` ids in all, keys in their room · `acked` implies
committed, with this id and index · `real-time`: acknowledged before another was sent means a smaller index ·
`increasing` and `subsequence`: an observer sees committed events only, each once, in order · `hidden`: only those it
may see · `complete`: none missed · `lane` order · `safety-net` at zero · `format` of the records themselves.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

Record = Mapping[str, Any]
_Seat = tuple[str, str]  # (observer or channel, room)

_NEEDED: dict[str, dict[str, tuple[type, ...]]] = {
    "commit": {"room": (str,), "index": (int,), "event_id": (str,)},
    "ack": {
        "room": (str,),
        "index": (int,),
        "event_id": (str,),
        "client": (str,),
        "sent_at": (int, float),
        "acked_at": (int, float),
    },
    "observe": {"observer": (str,), "room": (str,), "index": (int,), "event_id": (str,)},
    "range": {"observer": (str,), "room": (str,), "from": (int,)},
    "lane": {"channel": (str,), "room": (str,), "index": (int,)},
    "counter": {"name": (str,), "value": (int, float)},
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: the rule, what is wrong in words, and the number of the record (from 1) that shows it."""

    rule: str
    message: str
    record: int | None = None

    def __str__(self) -> str:
        place = "" if self.record is None else f"record {self.record}: "
        return f"[{self.rule}] {place}{self.message}"


def check_history(records: Iterable[Record]) -> list[Violation]:
    """Everything that is wrong with a history; an empty list means that every promise was kept."""
    history = _History()
    for number, record in enumerate(records, 1):
        history.add(number, record)
    return history.check()


class _History:
    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.commits: dict[str, dict[int, Record]] = defaultdict(dict)
        self.places: dict[str, tuple[str, int]] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.acks: list[tuple[int, Record]] = []
        self.observed: dict[_Seat, list[tuple[int, Record]]] = defaultdict(list)
        self.ranges: list[tuple[int, Record]] = []
        self.lanes: dict[_Seat, list[tuple[int, Record]]] = defaultdict(list)

    def add(self, number: int, record: Record) -> None:
        if not self._well_formed(number, record):
            return
        kind = record["kind"]
        if kind == "commit":
            self._commit(number, record)
        elif kind == "ack":
            self.acks.append((number, record))
        elif kind == "observe":
            self.observed[record["observer"], record["room"]].append((number, record))
        elif kind == "range":
            self.ranges.append((number, record))
        elif kind == "lane":
            self.lanes[record["channel"], record["room"]].append((number, record))
        elif record["value"] != 0:
            self._wrong("safety-net", number, f"counter {record['name']} is {record['value']}, it must be 0")

    def check(self) -> list[Violation]:
        for room, commits in self.commits.items():
            self._check_gapless(room, commits)
        self._check_acks()
        self._check_real_time()
        for (observer, room), seen in self.observed.items():
            self._check_observer(observer, room, seen)
        for number, claim in self.ranges:
            room, last = claim["room"], claim.get("to")
            end = max(self.commits[room], default=-1) if last is None else last
            self._check_complete(claim["observer"], room, claim["from"], end, number)
        for (channel, room), deliveries in self.lanes.items():
            self._check_lane(channel, room, deliveries)
        return self.violations

    def _wrong(self, rule: str, number: int | None, message: str) -> None:
        self.violations.append(Violation(rule, message, number))

    def _well_formed(self, number: int, record: Record) -> bool:
        needed = _NEEDED.get(record.get("kind", ""))
        if needed is None:
            self._wrong("format", number, f"kind {record.get('kind')!r} is none of {', '.join(_NEEDED)}")
            return False
        for name, types in needed.items():
            value = record.get(name)
            if not isinstance(value, types) or isinstance(value, bool):
                expected = " or ".join(one.__name__ for one in types)
                self._wrong("format", number, f"{record['kind']} needs {name!r} as {expected}, not {value!r}")
                return False
        return True

    def _commit(self, number: int, record: Record) -> None:
        room, index, event_id = record["room"], record["index"], record["event_id"]
        if event_id in self.places:
            before = _place(*self.places[event_id])
            self._wrong("unique", number, f"event {event_id} is committed at {_place(room, index)} and at {before}")
        self.places.setdefault(event_id, (room, index))
        if index in self.commits[room]:
            other = self.commits[room][index]["event_id"]
            self._wrong("gapless", number, f"{_place(room, index)} is given to {event_id} and to {other}")
        self.commits[room].setdefault(index, record)
        key = record.get("key")
        if key is not None and self.keys.setdefault((room, key), event_id) != event_id:
            first = self.keys[room, key]
            self._wrong("unique", number, f"key {key!r} in room {room} made two events, {first} and {event_id}")

    def _check_gapless(self, room: str, commits: dict[int, Record]) -> None:
        indexes = sorted(commits)
        if indexes[0] < 0:
            self._wrong("gapless", None, f"room {room} has the negative index {indexes[0]}")
        missing = [index for index in range(indexes[-1] + 1) if index not in commits]
        if missing:
            self._wrong("gapless", None, f"room {room} has no index {_spans(missing)}, yet it goes on to {indexes[-1]}")

    def _matches(self, rule: str, number: int, record: Record, who: str) -> bool:
        """Is this index of the room committed, with this id?"""
        room, index, event_id = record["room"], record["index"], record["event_id"]
        commit = self.commits.get(room, {}).get(index)
        if commit is not None and commit["event_id"] == event_id:
            return True
        fact = "nothing was committed there" if commit is None else f"committed there is {commit['event_id']}"
        self._wrong(rule, number, f"{who} event {event_id} at {_place(room, index)}, but {fact}")
        return False

    def _check_acks(self) -> None:
        for number, ack in self.acks:
            self._matches("acked", number, ack, f"client {ack['client']} was acknowledged")
            if ack["acked_at"] < ack["sent_at"]:
                self._wrong("format", number, f"acknowledged at {ack['acked_at']}, before it was sent")

    def _check_real_time(self) -> None:
        """A client may send again what is stored, so of one event the first send and the first answer count."""
        sent: dict[str, dict[str, tuple[float, int, int]]] = defaultdict(dict)
        acked: dict[str, dict[str, tuple[float, int, str]]] = defaultdict(dict)
        for number, ack in self.acks:
            event_id, index = ack["event_id"], ack["index"]
            first_sent, first_acked = sent[ack["room"]], acked[ack["room"]]
            first_sent[event_id] = min(first_sent.get(event_id, (float("inf"), 0, 0)), (ack["sent_at"], index, number))
            first_acked[event_id] = min(
                first_acked.get(event_id, (float("inf"), 0, "")), (ack["acked_at"], index, event_id)
            )
        for room, sends in sent.items():
            answers = sorted(acked[room].values())
            passed = 0
            highest = (-1, "", 0.0)
            for event_id, (at, index, number) in sorted(sends.items(), key=lambda one: one[1]):
                while passed < len(answers) and answers[passed][0] < at:
                    answered, earlier, earlier_id = answers[passed]
                    highest = max(highest, (earlier, earlier_id, answered))
                    passed += 1
                if highest[0] > index:
                    self._wrong(
                        "real-time",
                        number,
                        f"in room {room}, {event_id} was sent at {at} and got index {index}, although {highest[1]}, "
                        f"acknowledged before that at {highest[2]}, has index {highest[0]}",
                    )

    def _check_observer(self, observer: str, room: str, seen: list[tuple[int, Record]]) -> None:
        last: int | None = None
        for number, record in seen:
            index = record["index"]
            if self._matches("subsequence", number, record, f"observer {observer} saw"):
                self._check_visible(observer, number, self.commits[room][index])
            if last is not None and index <= last:
                how = "again" if index == last else f"after {last}"
                self._wrong("increasing", number, f"observer {observer} saw {_place(room, index)} {how}")
            if last is not None and "prev" in record and record["prev"] != last:
                told = f"observer {observer} got {_place(room, index)} as the one after {record['prev']}"
                self._wrong("subsequence", number, f"{told}, but it had {last} before")
            last = index if last is None else max(last, index)
        if any(record.get("complete") is True for _, record in seen):
            indexes = [record["index"] for _, record in seen]
            self._check_complete(observer, room, min(indexes), max(indexes), seen[-1][0])

    def _check_visible(self, observer: str, number: int, commit: Record) -> None:
        if not _may_see(observer, commit):
            place = _place(commit["room"], commit["index"])
            self._wrong("hidden", number, f"observer {observer} saw {place} ({commit['event_id']}), not meant for it")

    def _check_complete(self, observer: str, room: str, first: int, last: int, number: int) -> None:
        seen = {record["index"] for _, record in self.observed.get((observer, room), ())}
        commits = self.commits.get(room, {})
        missed = [
            index
            for index in range(first, last + 1)
            if index in commits and index not in seen and _may_see(observer, commits[index])
        ]
        if missed:
            self._wrong("complete", number, f"observer {observer} never saw {_spans(missed)} of room {room}")

    def _check_lane(self, channel: str, room: str, deliveries: list[tuple[int, Record]]) -> None:
        last: tuple[int, int] | None = None
        for number, record in deliveries:
            index, part = record["index"], record.get("part", 0)
            here = f"{_place(room, index)} part {part}"
            if index not in self.commits.get(room, {}):
                self._wrong("lane", number, f"channel {channel} delivered {here}, which was never committed")
            repeated = last == (index, part)
            if last is not None and (index, part) <= last and not (repeated and record.get("retry") is True):
                how = "twice" if repeated else f"after {last[0]} part {last[1]}"
                self._wrong("lane", number, f"channel {channel} delivered {here} {how}")
            last = (index, part) if last is None else max(last, (index, part))


def _may_see(observer: str, commit: Record) -> bool:
    visible_to = commit.get("visible_to")
    return visible_to is None or observer in visible_to


def _place(room: str, index: int) -> str:
    return f"{room}[{index}]"


def _spans(indexes: list[int]) -> str:
    """[1, 2, 3, 7] as "1-3, 7"."""
    spans: list[list[int]] = []
    for index in indexes:
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def read_history(lines: Iterable[str]) -> list[Record]:
    """Records from JSON lines; empty ones are skipped. Raises `ValueError` naming the line that is not an object."""
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record: object = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"line {number} is not a JSON object; write one record a line")  # noqa: TRY004 - bad data
        records.append(record)  # pyright: ignore[reportUnknownArgumentType]
    return records


def main(arguments: list[str], out: TextIO | None = None) -> int:
    """The command; returns its exit code."""
    printer = sys.stdout if out is None else out
    if len(arguments) != 1 or arguments[0].startswith("--"):
        printer.write("usage: python -m roomkit.testing.history FILE.jsonl   (- reads standard input)\n")
        return 0 if arguments == ["--help"] else 2
    try:
        text = sys.stdin.read() if arguments[0] == "-" else Path(arguments[0]).read_text("utf-8")
        records = read_history(text.split("\n"))
    except (OSError, ValueError) as error:
        printer.write(f"cannot read the history: {error}\n")
        return 2
    violations = check_history(records)
    printer.writelines(f"{violation}\n" for violation in violations)
    rooms = len({record.get("room") for record in records if record.get("kind") == "commit"})
    printer.write(f"{len(records)} records, {rooms} rooms: {len(violations) or 'no'} violation(s)\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
