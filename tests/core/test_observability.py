"""What an operator sees: every number moves when the thing happens, and one trace tells a message's whole story."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from roomkit import AIChannel, Allow, BeforeCommit, RoomKit
from roomkit.ai.budget import Budget, SpendLimits
from roomkit.ai.tools import Toolbox, tool
from roomkit.core.engine import KitOptions
from roomkit.core.meters import COUNTERS, GAUGES
from roomkit.errors import ProviderError, Unavailable
from roomkit.models.ai import Finished, TextChunk, Usage
from roomkit.models.delivery import DeliveryResult
from roomkit.models.steering import Cancel
from roomkit.testing import VirtualClock
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.channels import FakeChannel
from tests.core.rooms import Brain, kit_with, say, stream
from tests.gates.tree import ROOT
from tests.servers.house import House, house


class Numbers:
    """What `/metrics` says: `numbers["roomkit_x", "label", ...]`, 0 for what is not there."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._values: dict[tuple[str, ...], float] = {}
        for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
            self._values[name, *re.findall(r'"([^"]*)"', labels)] = float(value)

    def __getitem__(self, key: str | tuple[str, ...]) -> float:
        return self._values.get((key,) if isinstance(key, str) else key, 0.0)

    def __contains__(self, name: str) -> bool:
        return any(name == one[0] for one in self._values)


async def metrics(h: House) -> Numbers:
    answer = await h.http.get("/metrics")
    assert answer.status_code == 200
    return Numbers(answer.text)


def open_house(kit: RoomKit) -> Any:
    return house(kit, open_metrics=True)


@tool
async def look() -> str:
    """Looks."""
    await asyncio.sleep(1)
    return "seen"


# -- metrics ----------------------------------------------------------------------------------------------------------


async def test_the_time_of_a_durable_commit_is_told(tmp_path: Path) -> None:
    """Of a store in memory there is nothing to tell: a commit is no wait."""
    stores: tuple[str | None, ...] = (f"sqlite:///{tmp_path}/rooms.db", None)
    for store in stores:
        async with open_house(kit_with(FakeChannel("sms"), FakeChannel("mail"), store=store)) as h:
            await h.kit.create_room("r", channels=["sms", "mail"])
            await (await say(h.kit, "hello", "r")).settled()
            told = await metrics(h)
        assert (told["roomkit_commit_seconds_count"] >= 2) is (store is not None)
        assert told["roomkit_commit_seconds_bucket", "+Inf"] == told["roomkit_commit_seconds_count"]


async def test_commits_and_messages_are_counted() -> None:
    async with open_house(kit_with(FakeChannel("sms"), FakeChannel("mail"))) as h:
        await h.kit.create_room("r", channels=["sms", "mail"])
        before = await metrics(h)
        await (await say(h.kit, "hello", "r", external_id="1")).settled()
        await say(h.kit, "hello", "r", external_id="1")
        after = await metrics(h)

    def moved(name: str) -> float:
        return after[name] - before[name]

    assert (moved("roomkit_inbound_total"), moved("roomkit_duplicates_total")) == (2, 1)
    assert moved("roomkit_delivered_total") == 1
    assert moved("roomkit_events_total") >= 1
    assert after["roomkit_store_commits_total"] > 0


async def test_a_lane_that_hangs_is_seen_by_its_age_and_length() -> None:
    sms, mail = FakeChannel("sms"), FakeChannel("mail", "email")
    async with open_house(kit_with(sms, mail)) as h:
        for room in ("r1", "r2"):
            await h.kit.create_room(room, channels=["sms", "mail"])
        sms.hang()
        for text in ("one", "two", "three"):
            await h.kit.send("r1", text)
            await asyncio.sleep(2)
        await h.kit.send("r2", "other room")
        numbers = await metrics(h)
        assert numbers["roomkit_outbox_oldest_seconds"] == 6
        assert (numbers["roomkit_lane_lag_events", "sms"], numbers["roomkit_lane_lag_seconds", "sms"]) == (3, 6)
        assert (numbers["roomkit_lane_lag_events", "mail"], numbers["roomkit_lane_lag_seconds", "mail"]) == (0, 0)
        assert numbers["roomkit_outbox_backlog"] == 4
        sms.resume()
        await asyncio.sleep(1)
        numbers = await metrics(h)
        assert numbers["roomkit_outbox_oldest_seconds"] == numbers["roomkit_lane_lag_events", "sms"] == 0


async def test_dead_letters_count_up_for_good_and_the_kept_ones_go_when_sent_again() -> None:
    broken = DeliveryResult(success=False, error="no such number")
    sms = FakeChannel("sms", temper=lambda event, number: broken if number == 0 else None)
    async with open_house(kit_with(sms)) as h:
        await h.kit.create_room("r", channels=["sms"])
        await (await h.kit.send("r", "hello")).settled()
        numbers = await metrics(h)
        assert (numbers["roomkit_dead_letters_total"], numbers["roomkit_dead_letters_kept"]) == (1, 1)
        (letter,) = await h.kit.dead_letters()
        await h.kit.resend(letter["id"])
        await asyncio.sleep(1)
        numbers = await metrics(h)
        assert (numbers["roomkit_dead_letters_total"], numbers["roomkit_dead_letters_kept"]) == (1, 0)


async def test_dead_letters_of_the_last_run_are_counted_again(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/rooms.db"
    refused = DeliveryResult(success=False, error="no")
    for expected in (1, 2):
        kit = RoomKit(url, clock=VirtualClock())
        kit.register_channel(FakeChannel("sms", temper=lambda event, number: refused))
        async with kit:
            await kit.create_room(f"r{expected}", channels=["sms"])
            await (await kit.send(f"r{expected}", "hello")).settled()
            assert kit.stats()["dead_letters_kept"] == expected
            assert kit.stats()["leases"] == 1


async def test_a_full_mailbox_is_seen() -> None:
    gate = asyncio.Event()
    async with open_house(kit_with(FakeChannel("sms"))) as h:
        await h.kit.create_room("r", channels=["sms"])
        await h.kit.create_room("idle", channels=["sms"])

        @h.kit.before(BeforeCommit, budget_s=100)
        async def wait(moment: BeforeCommit) -> None:
            await gate.wait()

        sends = [asyncio.ensure_future(h.kit.send("r", f"{n}")) for n in range(5)]
        await asyncio.sleep(1)
        numbers = await metrics(h)
        assert (numbers["roomkit_mailbox_depth"], numbers["roomkit_mailbox_depth_max"]) == (4, 4)
        gate.set()
        await asyncio.gather(*sends)
        assert (await metrics(h))["roomkit_mailbox_depth"] == 0


async def test_turns_first_words_tokens_and_money_are_counted_for_each_channel() -> None:
    usage = Usage(input_tokens=100, output_tokens=20, cache_read_tokens=80, thinking_tokens=7)
    brain = ScriptedAI(
        [2.0, "One moment.", call("look", "c1"), Finished("tool_calls", usage, "m-1")],
        [1.0, "All is well.", Finished("stop", usage, "m-1")],
    )
    budget = Budget(SpendLimits(cost=lambda usage, model: usage["output_tokens"] * 0.5))
    ai = AIChannel("ai", brain, tool_handler=Toolbox([look])).configure(budget=budget)
    async with open_house(kit_with(FakeChannel("sms"), ai)) as h:
        result = await say(h.kit, "how are you?")
        await asyncio.sleep(1)
        during = await metrics(h)
        assert (during["roomkit_turns_active"], during["roomkit_turn_seconds_count", "ai"]) == (1, 0)
        await say(h.kit, "hello?", result.room_id)
        assert (await metrics(h))["roomkit_lane_lag_events", "ai"] == 1
        await result.settled()
        after = await metrics(h)
    assert after["roomkit_turn_seconds_sum", "ai"] >= 4
    assert after["roomkit_first_token_seconds_bucket", "ai", "1"] == 0
    assert after["roomkit_first_token_seconds_bucket", "ai", "2.5"] >= 1
    kinds = {k: after["roomkit_tokens_total", "ai", "m-1", k] for k in ("input", "output", "cache_read", "thinking")}
    assert kinds == {"input": 200, "output": 40, "cache_read": 160, "thinking": 14}
    assert after["roomkit_spend_total", "ai", "m-1"] == 20


async def test_a_turn_that_is_cut_short_has_spent_its_tokens_all_the_same() -> None:
    brain = ScriptedAI(["Let me see.", call("look", "c1"), Finished("tool_calls", Usage(10, 5), "m")], ["never"])
    ai = AIChannel("ai", brain, tool_handler=Toolbox([look]))
    async with open_house(kit_with(FakeChannel("sms"), ai)) as h:
        result = await say(h.kit, "hello")
        await asyncio.sleep(0.5)
        await h.kit.take_over(result.room_id or "", "ann")
        await result.settled()
        assert (await metrics(h))["roomkit_tokens_total", "ai", "m", "input"] == 10


async def test_sockets_rooms_by_status_and_channels_that_fail() -> None:
    def fails(context: Any, event: Any) -> Any:
        raise RuntimeError("broken")

    async with open_house(kit_with(FakeChannel("sms"), Brain("ai", fails))) as h:
        for room in ("r1", "r2", "r3"):
            await h.kit.create_room(room, channels=["sms", "web", "ai"])
        await h.kit.close_room("r2")
        await h.kit.pause_room("r3")
        async with h.joined("r1"):
            await (await say(h.kit, "hello", "r1")).settled()
            numbers = await metrics(h)
            assert numbers["roomkit_sockets"] == 1
        assert [numbers["roomkit_rooms", status] for status in ("active", "paused", "closed", "archived")] == [
            1,
            1,
            1,
            0,
        ]
        assert numbers["roomkit_turn_errors_total"] == 1
        await asyncio.sleep(1)
        assert (await metrics(h))["roomkit_sockets"] == 0


@pytest.mark.real_time
@pytest.mark.may_block
async def test_a_blocked_loop_is_counted_and_its_culprit_named(caplog: pytest.LogCaptureFixture) -> None:
    kit = RoomKit(options=KitOptions(stall_threshold_s=0.05))

    def the_culprit() -> None:
        deadline = time.monotonic() + 30
        while not kit.engine.counters.get("loop_stalls") and time.monotonic() < deadline:
            time.sleep(0.01)

    async with open_house(kit) as h:
        assert (await metrics(h))["roomkit_loop_stalls_total"] == 0  # the server's first request begins to watch
        the_culprit()
        await asyncio.sleep(0)
        assert (await metrics(h))["roomkit_loop_stalls_total"] == 1
    assert "the_culprit" in caplog.text


@pytest.mark.real_time
@pytest.mark.parametrize("watch, watches", [(None, False), (True, True), (False, False)])
async def test_an_embedded_kit_in_memory_is_watched_when_asked(watch: bool | None, watches: bool) -> None:
    import threading

    def watching() -> bool:
        return any(thread.name == "roomkit-watchdog" for thread in threading.enumerate())

    before = watching()
    async with RoomKit(options=KitOptions(watch_loop=watch, stall_threshold_s=30)):
        assert watching() == (watches or before)
    assert watching() == before


def test_everything_counted_in_the_code_has_a_line_of_help() -> None:
    counted: set[str] = set()
    for path in (ROOT / "roomkit").rglob("*.py"):
        counted |= set(re.findall(r"\.count\(\s*\"(\w+)\"", path.read_text()))
        counted |= set(re.findall(r"engine\.counters\[\"(\w+)\"\]", path.read_text()))
        for pair in re.findall(r"count(?:\(|\[)\"(\w+)\" if .* else \"(\w+)\"", path.read_text()):
            counted |= set(pair)
    assert len(counted) > 15
    assert counted <= set(COUNTERS)


async def test_names_have_help_and_type_and_stay() -> None:
    """Dashboards and alerts are built on these: a name that goes is a breaking change."""
    async with open_house(kit_with(FakeChannel("sms"), Brain())) as h:
        await (await say(h.kit, "hello")).settled()
        text = (await metrics(h)).text
    helped = set(re.findall(r"^# HELP (\w+) \S.*$", text, re.MULTILINE))
    typed = re.findall(r"^# TYPE (\w+) (?:counter|gauge|histogram)$", text, re.MULTILINE)
    samples = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"^(roomkit\w+)", text, re.MULTILINE)}
    assert helped == set(typed) == samples
    assert len(typed) == len(helped)
    assert "Counted by a part of this kit" not in text
    always = {f"roomkit_{name}" for name in GAUGES} | {
        "roomkit_commit_seconds",
        "roomkit_turn_seconds",
        "roomkit_first_token_seconds",
        "roomkit_lane_lag_events",
        "roomkit_lane_lag_seconds",
        "roomkit_rooms",
        "roomkit_sockets",
        "roomkit_write_errors_total",
        "roomkit_loop_stalls_total",
        "roomkit_dead_letters_total",
        "roomkit_inbound_total",
    }
    assert always <= helped


def test_the_guide_lists_every_metric() -> None:
    guide = (ROOT / "docs/guides/observe.md").read_text("utf-8")
    families = RoomKit().engine.meters.registry.names()
    names = [*families, *(f"roomkit_{name}" for name in GAUGES), *(f"roomkit_{name}_total" for name in COUNTERS)]
    assert [name for name in names if f"| `{name}` |" not in guide] == []


# -- traces -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def exported() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


def tree(spans: tuple[ReadableSpan, ...]) -> list[tuple[str, str]]:
    """(parent's name, name) in order of begin."""
    names = {span.context.span_id: span.name for span in spans}
    ordered = sorted(spans, key=lambda span: span.start_time or 0)
    return [(names.get(span.parent.span_id, "?") if span.parent else "", span.name) for span in ordered]


Exported = tuple[TracerProvider, InMemorySpanExporter]


async def test_one_trace_leads_from_the_door_to_the_delivery_of_the_reply(exported: Exported) -> None:
    provider, exporter = exported
    brain = ScriptedAI(["Let me see.", call("look", "c1")], ["All is well."])
    ai = AIChannel("ai", brain, tool_handler=Toolbox([look]))
    kit = kit_with(FakeChannel("sms"), ai)
    kit.trace(provider)
    async with kit:
        result = await say(kit, "what do you see?")
        await result.settled()
    spans = exporter.get_finished_spans()
    mine = tuple(span for span in spans if span.name != "roomkit.commit")
    assert sorted(tree(mine)) == [
        ("", "roomkit.inbound"),
        ("invoke_agent ai", "chat scripted"),
        ("invoke_agent ai", "chat scripted"),
        ("invoke_agent ai", "execute_tool look"),
        ("invoke_agent ai", "roomkit.deliver"),
        ("roomkit.inbound", "invoke_agent ai"),
    ]
    assert len({span.context.trace_id for span in spans}) == 1
    commits = [above for above, name in tree(spans) if name == "roomkit.commit"]
    assert commits.count("roomkit.inbound") >= 1
    assert commits.count("invoke_agent ai") >= 3  # the call, its result, the reply
    for span in spans:
        assert (span.attributes or {})["roomkit.room.id"] == result.room_id, span.name
        assert (span.attributes or {})["roomkit.tenant"] == "default"
        assert span.end_time is not None
    by_name = {span.name: dict(span.attributes or {}) for span in spans}
    assert by_name["roomkit.deliver"]["roomkit.channel.id"] == "sms"
    assert by_name["chat scripted"]["gen_ai.usage.input_tokens"] == 10
    assert by_name["execute_tool look"]["gen_ai.tool.call.id"] == "c1"
    assert by_name["execute_tool look"]["roomkit.tool.status"] == "completed"
    assert by_name["invoke_agent ai"]["roomkit.reply.end_reason"] == "completed"
    everything = "".join(span.to_json() for span in spans)
    for said in ("what do you see", "Let me see", "All is well", "seen"):
        assert said not in everything


async def test_a_line_of_waiting_deliveries_keeps_each_in_its_own_trace(exported: Exported) -> None:
    provider, exporter = exported
    sms = FakeChannel("sms")
    kit = kit_with(sms)
    kit.trace(provider)
    async with kit:
        await kit.create_room("r", channels=["sms"])
        exporter.clear()
        sms.hang()
        sent = await asyncio.gather(*(kit.send("r", f"{n}") for n in range(3)))
        sms.resume()
        for one in sent:
            await one.settled()
    spans = [span for span in exporter.get_finished_spans() if span.name == "roomkit.deliver"]
    assert len(spans) == len({span.context.trace_id for span in spans}) == 3
    assert {above for above, name in tree(exporter.get_finished_spans()) if name == "roomkit.deliver"} == {
        "roomkit.send"
    }


async def test_operations_that_waited_in_the_mailbox_stay_in_their_own_trace(exported: Exported) -> None:
    provider, exporter = exported
    kit = kit_with(FakeChannel("sms"))
    kit.trace(provider)

    async with kit:
        await kit.create_room("r", channels=["sms"])
        exporter.clear()

        @kit.before(BeforeCommit)
        async def slow(moment: BeforeCommit) -> Allow:
            await asyncio.sleep(1)
            return Allow()

        await asyncio.gather(*(say(kit, f"{n}", "r") for n in range(3)))
    spans = exporter.get_finished_spans()
    doors = {span.context.trace_id: span.name for span in spans if span.parent is None}
    assert len(doors) == 3
    commits = [span for span in spans if span.name == "roomkit.commit"]
    assert {span.context.trace_id for span in commits} == set(doors)


async def test_what_fails_says_so_in_its_span(exported: Exported) -> None:
    provider, exporter = exported
    problems: list[ProviderError | None] = [Unavailable("vendor", "the number 4929 is down"), None]
    sms = FakeChannel("sms", temper=lambda event, number: problems[min(number, 1)])
    brain = ScriptedAI([TextChunk("Half an ans"), Unavailable("vendor", "gone, says canary")], ["never"])
    kit = kit_with(sms, AIChannel("ai", brain))
    kit.trace(provider)
    async with kit:
        await (await say(kit, "hello")).settled()
    spans = exporter.get_finished_spans()
    attempts = sorted((s for s in spans if s.name == "roomkit.deliver"), key=lambda s: s.start_time or 0)
    assert [(s.attributes or {}).get("error.type") for s in attempts] == ["Unavailable", None]
    assert [(s.attributes or {})["roomkit.delivery.attempt"] for s in attempts] == [1, 2]
    (chat,) = [s for s in spans if s.name.startswith("chat")]
    assert (chat.status.is_ok, (chat.attributes or {})["error.type"]) == (False, "Unavailable")
    (turn,) = [s for s in spans if s.name.startswith("invoke_agent")]
    assert not turn.status.is_ok
    everything = "".join(span.to_json() for span in spans)
    assert "canary" not in everything
    assert "number 4929" not in everything


async def test_a_turn_cut_short_ends_all_its_spans(exported: Exported) -> None:
    provider, exporter = exported
    brain = ScriptedAI(["One", 100.0, "two"])
    kit = kit_with(FakeChannel("sms"), AIChannel("ai", brain))
    kit.trace(provider)
    async with kit:
        result = await say(kit, "hello")
        await asyncio.sleep(1)
        await kit.take_over(result.room_id or "", "ann")
        await result.settled()
    names = [span.name for span in exporter.get_finished_spans()]
    assert "chat scripted" in names
    (turn,) = [s for s in exporter.get_finished_spans() if s.name == "invoke_agent ai"]
    assert (turn.attributes or {})["roomkit.reply.end_reason"] == "cancelled"
    assert turn.status.is_unset


async def test_a_tool_that_is_cut_short_has_ended_as_cancelled(exported: Exported) -> None:
    provider, exporter = exported

    @tool
    async def wait() -> str:
        """Takes its time."""
        await asyncio.sleep(100)
        return "late"

    ai = AIChannel("ai", ScriptedAI([call("wait", "c1")]), tool_handler=Toolbox([wait]))
    kit = kit_with(FakeChannel("sms"), ai)
    kit.trace(provider)
    async with kit:
        result = await say(kit, "hello")
        await asyncio.sleep(1)
        ai.steer(Cancel("enough"))
        await result.settled()
    (span,) = [s for s in exporter.get_finished_spans() if s.name == "execute_tool wait"]
    assert (span.attributes or {})["roomkit.cancelled"] is True
    assert "roomkit.tool.status" not in (span.attributes or {})
    assert span.status.is_unset


async def test_a_plain_brain_has_its_turn_and_a_tool_nobody_offered_no_name(exported: Exported) -> None:
    provider, exporter = exported
    brain = ScriptedAI([call("my-card-is-4929", "c1")], ["Well."])
    kit = kit_with(FakeChannel("sms"), AIChannel("ai", brain), Brain("echo", lambda c, e: stream("hi")))
    kit.trace(provider)
    async with kit:
        await (await say(kit, "hello")).settled()
    names = {span.name for span in exporter.get_finished_spans()}
    assert {"invoke_agent echo", "execute_tool unknown"} <= names
    assert "card-is-4929" not in "".join(span.to_json() for span in exporter.get_finished_spans())
