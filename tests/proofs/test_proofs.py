"""A few kills of a real server, a few crash points, and a judge who notices what is wrong."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proofs import __main__ as proofs
from proofs import crashpoints, judge, kill9
from proofs.__main__ import main
from roomkit import RoomKit
from roomkit.cli.witness import Witness
from roomkit.testing import FakeChannel
from tests.core.rooms import say


@pytest.mark.real_time
@pytest.mark.may_block
async def test_three_kills_lose_double_and_reorder_nothing() -> None:
    proof = await kill9.prove(3, seed=7)
    assert proof.wrong == []
    assert proof.figures["kills"] == 3
    assert proof.figures["acknowledged"] > 0
    assert proof.figures["seen"] >= proof.figures["acknowledged"]
    assert proof.figures["replies"] > 0


@pytest.mark.real_time
@pytest.mark.may_block
async def test_the_server_may_end_after_sending_and_in_the_middle_of_a_reply() -> None:
    proof = await crashpoints.prove(
        1, seed=7, where=(("outbox", "outbox.after_send"), ("turn", "reply.after_checkpoint"))
    )
    assert proof.wrong == []
    assert proof.figures["crashes"] == 2
    assert proof.figures["repeated"] > 0, "what was sent without its answer kept is sent again, under the same key"
    assert proof.figures["cut_replies"] > 0


def test_a_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["kill9", "--n", "0"])
    assert "--n must be 1 or more" in capsys.readouterr().err


def test_all_proofs_end_in_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"figures": {}, "slowest_s": {}, "seconds": 2.0, "n": 1000, "seed": 7}
    verdicts = iter([["lost one"], *[[]] * 99])
    monkeypatch.setattr(proofs, "_run", lambda name, *_: {"name": name, **told, "violations": next(verdicts)})
    assert main([]) == 1
    out = capsys.readouterr().out
    assert "1 VIOLATIONS (--seed 7)" in out
    assert all(name in out for name in proofs.NAMES)
    assert out.count("kept") == len(proofs.NAMES) - 1


Evidence = SimpleNamespace


async def collect(tmp_path: Path) -> Any:
    """A room with four messages, a vendor who got them, and a person who wrote and saw them."""
    db = tmp_path / "rooms.db"
    person: Any = SimpleNamespace(name="ann", staff=True, resumed=0, growing={}, acks=[], seen=[])
    sent: list[dict[str, Any]] = []
    async with RoomKit(f"sqlite:///{db}") as kit:
        for channel in (FakeChannel("web"), FakeChannel("sink")):
            kit.register_channel(channel)
        await kit.create_room("r", channels=["web", "sink"])
        for number in range(4):
            result = await say(kit, f"message {number}", "r", channel="web", metadata={"client_id": f"ann-{number}"})
            await result.settled()
            event = result.event
            assert event is not None
            at = {"index": event.index, "event_id": event.id}
            times = {"sent_at": number, "acked_at": number + 0.5}
            person.acks.append({"kind": "ack", "client": "ann", "client_id": f"ann-{number}", **times, **at})
            sent.append({"key": f"r:{event.index}:sink", "room": "r", "life": 1 + number // 2, **at})
    person.seen = judge.read_room(db, "r").events
    (tmp_path / "sink.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in sent))
    where = {"server": SimpleNamespace(db=db), "sink": tmp_path / "sink.jsonl", "channels": ("web", "sink")}
    return Evidence(**where, people={"r": [person]}, sent=sent)


async def test_a_clean_story_has_no_violation(tmp_path: Path) -> None:
    evidence = await collect(tmp_path)
    wrong, figures = judge.verdict(evidence)
    assert wrong == []
    assert (figures["acknowledged"], figures["delivered"], figures["repeated"]) == (4, 4, 0)
    assert judge.lost(evidence) == []


def _run(evidence: Any, statement: str) -> None:
    with closing(sqlite3.connect(evidence.server.db)) as db:
        db.execute(statement)
        db.commit()


def _resend(evidence: Any, *lines: dict[str, Any]) -> None:
    evidence.sink.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _lose_last(e: Any) -> None:
    _run(e, "DELETE FROM events WHERE pos = (SELECT max(pos) FROM events)")


def _store_twice(e: Any) -> None:
    _run(e, "UPDATE events SET body = replace(body, 'ann-2', 'ann-1')")


TAMPERED: dict[str, tuple[Callable[[Any], None], str]] = {
    "an event is lost": (_lose_last, "have a gap, or do not end at its head"),
    "a message is there twice": (_store_twice, "message ann-1 is stored 2 times"),
    "a body is not its row's": (
        lambda e: _run(e, "UPDATE events SET body = replace(body, '\"index\":2', '\"index\":7')"),
        "is not what its row says",
    ),
    "a delivery is missing": (lambda e: _resend(e, *e.sent[:-1]), "was never delivered"),
    "two deliveries changed places": (
        lambda e: _resend(e, e.sent[1], e.sent[0], *e.sent[2:]),
        "came out of order within life 1",
    ),
    "a delivery came twice in one life": (lambda e: _resend(e, *e.sent, e.sent[-1]), "without a crash in between"),
    "a key was used for another event": (
        lambda e: _resend(e, *e.sent, {**e.sent[-1], "life": 9, "event_id": "other"}),
        "was used for two events",
    ),
    "a row is left open": (
        lambda e: _run(
            e, "UPDATE records SET kind = 'turn' WHERE key IN (SELECT min(key) FROM records WHERE kind = 'delivery')"
        ),
        "turn rows are left open",
    ),
    "somebody missed an event": (lambda e: e.people["r"][0].seen.pop(2), "[complete]"),
    "somebody saw an event twice": (
        lambda e: e.people["r"][0].seen.append(e.people["r"][0].seen[-1]),
        "[increasing]",
    ),
    "somebody saw other words": (
        lambda e: e.people["r"][0].seen.__setitem__(-1, {**e.people["r"][0].seen[-1], "content": {}}),
        "in other words",
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
async def test_the_judge_notices(tmp_path: Path, how: str) -> None:
    evidence = await collect(tmp_path)
    tamper, told = TAMPERED[how]
    tamper(evidence)
    wrong, _ = judge.verdict(evidence)
    assert any(told in one for one in wrong), wrong


async def test_an_acknowledgement_without_its_event_is_told_right_after_the_kill(tmp_path: Path) -> None:
    evidence = await collect(tmp_path)
    evidence.people["r"][0].acks[1]["event_id"] = "gone"
    assert any("ann-1 was acknowledged" in one for one in judge.lost(evidence))


def test_a_witness_keeps_what_the_judge_needs() -> None:
    assert {"acks", "seen", "growing", "resumed", "staff", "name"} <= set(Witness.__dataclass_fields__)
