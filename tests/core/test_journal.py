"""The journal of tool calls: one row a call, the same in every store, whatever the model wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roomkit import AIChannel
from roomkit.ai.tools import Toolbox, tool
from roomkit.core.journal import JournalRecord
from roomkit.models.content import ToolCallContent
from roomkit.ports.store import Record, RecordQuery, json_of
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.channels import FakeChannel
from tests.core.rooms import kit_with, say


@tool(idempotent=True)
async def weigh(kilos: float) -> str:
    """Weighs."""
    return f"{kilos} kg, \u00e9"


async def rows_in(store: str | None) -> list[Record]:
    """What is kept of a reply that calls tools well and badly."""
    calls = [call("weigh", "a", kilos=2), call("weigh", "b", kilos=1.5), call("w\ud800", "c", kilos="\ud83d\ude00")]
    ai = AIChannel("ai", ScriptedAI(calls, "Well."), tool_handler=Toolbox([weigh]))
    async with kit_with(FakeChannel("sms"), ai, store=store) as kit:
        result = await say(kit, "how heavy?")
        await result.settled()
        rows = await kit.engine.store.records(RecordQuery("journal", "default", room_id=result.room_id))
        log = {e.content.call_id: e.content for e in await kit.events(result.room_id or "", raw=True) if _ended(e)}
    assert [row.value["call_id"] for row in rows] == ["a", "b", "c"]
    for row in rows:
        assert (
            ToolCallContent.model_validate({k: row.value[k] for k in ToolCallContent.model_fields})
            == log[row.value["call_id"]]
        ), "the row says what the log says"
    return rows


def _ended(event: Any) -> bool:
    return isinstance(event.content, ToolCallContent) and event.content.status != "pending"


async def test_a_row_says_the_same_in_memory_and_on_disk(tmp_path: Path) -> None:
    kept = [await rows_in(None), await rows_in(f"sqlite:///{tmp_path}/rooms.db")]
    said = [[{**row.value, "reply": "", "duration_ms": 0} for row in rows] for rows in kept]
    assert said[0] == said[1]
    assert [(row["status"], row["channel"], row["idempotent"]) for row in said[0]] == [
        ("completed", "ai", True),
        ("completed", "ai", True),
        ("failed", "ai", False),
    ]


def test_a_row_whose_value_was_replaced_says_the_new_one() -> None:
    held: Any = ({"call_id": "a", "arguments": {"x": 1}}, "reply", "ai", False)
    row = JournalRecord("journal", "default", "r\na", held, "r")
    assert row.value == {"call_id": "a", "arguments": {"x": 1}, "reply": "reply", "channel": "ai", "idempotent": False}
    emptied = row._replace(value={**row.value, "arguments": {}})
    assert emptied.value == {**row.value, "arguments": {}}
    assert emptied.plain
    assert not row._replace(value={"x": object()}).plain
    assert json_of(emptied).startswith('{"call_id":"a","arguments":{}')
