from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from roomkit.testing import check_history
from roomkit.testing.history import main, read_history

Record = dict[str, Any]


def commit(index: int, room: str = "r", event_id: str | None = None, **more: Any) -> Record:
    return {"kind": "commit", "room": room, "index": index, "event_id": event_id or f"{room}{index}", **more}


def ack(index: int, sent: float, acked: float, event_id: str | None = None, client: str = "c") -> Record:
    event_id = event_id or f"r{index}"
    return {
        "kind": "ack", "room": "r", "index": index, "event_id": event_id,
        "client": client, "sent_at": sent, "acked_at": acked,
    }  # fmt: skip


def observe(index: int, observer: str = "ann", event_id: str | None = None, **more: Any) -> Record:
    event_id = event_id or f"r{index}"
    return {"kind": "observe", "observer": observer, "room": "r", "index": index, "event_id": event_id, **more}


def lane(index: int, channel: str = "sms", **more: Any) -> Record:
    return {"kind": "lane", "channel": channel, "room": "r", "index": index, **more}


LOG = [commit(n) for n in range(5)]


def rules(*records: Record) -> list[str]:
    return [violation.rule for violation in check_history(records)]


def test_a_good_history_has_no_violation() -> None:
    assert not check_history(
        [
            *LOG,
            commit(0, "other", key="k"),
            commit(5, key="k"),
            ack(0, 1.0, 2.0),
            ack(1, 1.5, 3.0),
            ack(2, 3.5, 4.0),
            ack(0, 9.0, 9.5),  # sent again by a client that had lost the answer
            *(observe(n, prev=n - 1 if n else None) for n in range(5)),
            observe(1, "bob"),
            observe(4, "bob", prev=1),
            lane(0),
            lane(0, part=1),
            lane(0, part=1, retry=True),
            lane(3),
            lane(1, "mail"),
            {"kind": "counter", "name": "fenced", "value": 0},
            {"kind": "range", "observer": "ann", "room": "r", "from": 0, "to": 4},
        ]
    )
    assert not check_history([])


@pytest.mark.parametrize(
    "records,rule,text",
    [
        ([commit(1), commit(2), commit(5)], "gapless", "room r has no index 0, 3-4, yet it goes on to 5"),
        ([commit(-1), commit(0)], "gapless", "negative index -1"),
        ([commit(0), commit(0, event_id="x")], "gapless", "r[0] is given to x and to r0"),
        ([commit(0), commit(1, event_id="r0")], "unique", "event r0 is committed at r[1] and at r[0]"),
        ([commit(0, key="k"), commit(1, key="k")], "unique", "key 'k' in room r made two events, r0 and r1"),
        ([*LOG, ack(7, 1, 2)], "acked", "client c was acknowledged event r7 at r[7], but nothing was committed there"),
        ([*LOG, ack(3, 1, 2, "x")], "acked", "event x at r[3], but committed there is r3"),
        ([*LOG, ack(3, 2, 1)], "format", "acknowledged at 1, before it was sent"),
        ([*LOG, ack(2, 1.0, 2.0), ack(1, 3.0, 4.0)], "real-time", "r1 was sent at 3.0 and got index 1, although r2"),
        ([*LOG, observe(7)], "subsequence", "observer ann saw event r7 at r[7], but nothing was committed there"),
        ([*LOG, observe(2, event_id="x")], "subsequence", "observer ann saw event x at r[2]"),
        ([*LOG, observe(2), observe(1)], "increasing", "observer ann saw r[1] after 2"),
        ([*LOG, observe(2), observe(2)], "increasing", "observer ann saw r[2] again"),
        ([*LOG, observe(0), observe(3, prev=2)], "subsequence", "got r[3] as the one after 2, but it had 0 before"),
        ([*LOG, observe(0), observe(3, complete=True)], "complete", "observer ann never saw 1-2 of room r"),
        ([commit(0, visible_to=["bob"]), observe(0)], "hidden", "observer ann saw r[0] (r0), not meant for it"),
        (
            [*LOG, observe(0), {"kind": "range", "observer": "ann", "room": "r", "from": 0}],
            "complete",
            "observer ann never saw 1-4 of room r",
        ),
        ([*LOG, lane(2), lane(1)], "lane", "channel sms delivered r[1] part 0 after 2 part 0"),
        ([*LOG, lane(2), lane(2)], "lane", "channel sms delivered r[2] part 0 twice"),
        ([*LOG, lane(9)], "lane", "r[9] part 0, which was never committed"),
        ([{"kind": "counter", "name": "fenced", "value": 2}], "safety-net", "counter fenced is 2, it must be 0"),
        ([{"kind": "comit"}], "format", "kind 'comit' is none of commit, ack"),
        ([{"kind": "commit", "room": "r", "event_id": "e"}], "format", "commit needs 'index' as int, not None"),
        ([{"kind": "commit", "room": "r", "index": True, "event_id": "e"}], "format", "not True"),
    ],
)
def test_each_broken_promise_is_found_and_told(records: list[Record], rule: str, text: str) -> None:
    violations = check_history(records)
    assert [violation.rule for violation in violations] == [rule]
    assert text in str(violations[0])


def test_the_violation_names_the_record() -> None:
    (violation,) = check_history([*LOG, lane(2), lane(1)])
    assert violation.record == 7
    assert str(violation).startswith("[lane] record 7: ")


def test_completeness_asks_only_for_what_is_visible() -> None:
    hidden = commit(1, visible_to=["bob"])
    assert rules(commit(0), hidden, commit(2), observe(0), observe(2, complete=True, prev=0)) == []


def test_going_back_once_does_not_excuse_what_follows() -> None:
    assert rules(*LOG, observe(2), observe(1), observe(2)) == ["increasing", "increasing"]
    assert rules(*LOG, lane(2), lane(1), lane(2)) == ["lane", "lane"]


def test_rooms_observers_and_channels_do_not_mix() -> None:
    assert rules(*LOG, observe(3), observe(1, "bob"), lane(3), lane(1, "mail")) == []


def test_overlapping_messages_may_come_in_any_order() -> None:
    assert rules(*LOG, ack(2, 1.0, 3.0), ack(1, 2.0, 4.0)) == []
    assert rules(*LOG, ack(2, 1.0, 2.0), ack(1, 2.0, 4.0)) == []


def test_real_time_order_is_judged_from_the_first_send_of_an_event() -> None:
    assert rules(*LOG, ack(1, 1.0, 2.0), ack(2, 3.0, 4.0), ack(1, 5.0, 6.0)) == []


def test_reading_lines() -> None:
    assert read_history(['{"kind": "counter"}', "", "  "]) == [{"kind": "counter"}]
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_history(["{}", "{"])
    with pytest.raises(ValueError, match="line 1 is not a JSON object"):
        read_history(["[]"])


def _write(path: Path, records: list[Record]) -> str:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
    return str(path)


def test_the_command_prints_and_exits(tmp_path: Path) -> None:
    out = io.StringIO()
    assert main([_write(tmp_path / "good", [commit(0, event_id="a\u2028b")])], out) == 0
    assert main([_write(tmp_path / "bad", [commit(1)])], out) == 1
    assert main([str(tmp_path / "absent")], out) == 2
    assert main([], out) == 2
    assert main(["--help"], out) == 0
    lines = out.getvalue().splitlines()
    assert lines[0] == "1 records, 1 rooms: no violation(s)"
    assert lines[1].startswith("[gapless] room r has no index 0")
    assert lines[3].startswith("cannot read the history: ")
    assert lines[4].startswith("usage: ")


def test_the_module_runs_as_a_command(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))
    command = [sys.executable, "-W", "error", "-m", "roomkit.testing.history", "-"]
    done = subprocess.run(command, input=json.dumps(commit(0)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 records, 1 rooms: no violation(s)\n", "")
