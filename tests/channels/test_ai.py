"""AIChannel: the seed's surface (S27-S58) and what a room may expect of it."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

import roomkit
import roomkit.ai
from roomkit.ai.memory import SlidingWindow
from roomkit.ai.policy import RoleOverride, ToolPolicy
from roomkit.ai.tools import Toolbox, ToolContext, tool
from roomkit.channels.ai import AIChannel
from roomkit.errors import ConfigError, UsageError
from roomkit.models.ai import AIProfile, ToolSpec, Usage
from roomkit.models.content import ToolCallContent
from roomkit.models.event import EventStatus, EventType, RoomEvent
from roomkit.models.room import Category, ChannelType
from roomkit.models.steering import Cancel, InjectMessage
from roomkit.models.stream import TextDelta
from roomkit.ports.channel import Channel, TurnPolicy
from roomkit.runtime import Scope, monotonic
from roomkit.testing.ai import ScriptedAI, call
from tests.ai.rooms import Talk, end_of, results_of, steps_of, text_of


@tool
async def find_order(number: int, room: ToolContext) -> str:
    """Finds an order."""
    return f"{room.tenant}/{room.room_id}: order {number}"


# -- the seed ---------------------------------------------------------------------------------------------------------


def test_s27_to_s45_the_signature_is_the_seeds() -> None:
    parameters = inspect.signature(AIChannel.__init__).parameters
    assert {name: p.default for name, p in list(parameters.items())[1:]} == {
        "channel_id": inspect.Parameter.empty,
        "provider": inspect.Parameter.empty,
        "system_prompt": None,
        "temperature": 0.7,
        "max_tokens": 1024,
        "max_context_events": 50,
        "tool_handler": None,
        "max_tool_rounds": 200,
        "tool_loop_timeout_seconds": 300.0,
        "tool_loop_warn_after": 50,
        "retry_policy": None,
        "fallback_provider": None,
        "skills": None,
        "script_executor": None,
        "memory": None,
        "tool_policy": None,
        "thinking_budget": None,
    }
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def test_the_names_of_the_brain_are_there() -> None:
    assert [name for name in roomkit.ai.__all__ if not hasattr(roomkit.ai, name)] == []
    assert set(roomkit.ai.__all__) <= set(dir(roomkit.ai))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = roomkit.ai.no_such_name


def test_s27_it_is_an_intelligence_channel_that_is_reached_by_turns() -> None:
    channel = AIChannel("ai", ScriptedAI())
    assert isinstance(channel, Channel)
    assert (channel.channel_type, channel.category, channel.reach) == (ChannelType.AI, Category.INTELLIGENCE, "turn")
    assert roomkit.AIChannel is AIChannel


async def test_s52_s55_a_reply_streams() -> None:
    ai = ScriptedAI(["Hel", "lo"])
    parts = await Talk().say(AIChannel("ai", ai))
    assert parts[:2] == [TextDelta("Hel"), TextDelta("lo")]
    assert end_of(parts).usage == {"input_tokens": 10, "output_tokens": 5}


@pytest.mark.parametrize(
    "profile",
    [
        AIProfile(streaming=True),
        AIProfile(streaming=False, structured_streaming=True),
        AIProfile(streaming=False),
    ],
)
async def test_s54_s56_s57_tools_work_with_every_kind_of_provider(profile: AIProfile) -> None:
    ai = ScriptedAI(["One moment.", call("find_order", number=7)], "Found.", profile=profile)
    parts = await Talk("r").say(AIChannel("ai", ai, tool_handler=Toolbox([find_order])))
    assert text_of(parts) == "One moment.\n\nFound."
    assert steps_of(parts) == [("find_order", "pending"), ("find_order", "completed")]
    assert results_of(ai.requests[1]) == ["default/r: order 7"]


async def test_s53_own_events_and_tool_records_are_not_answered() -> None:
    talk, channel = Talk(), AIChannel("ai", ScriptedAI(repeat=True))
    record = ToolCallContent(call_id="c", name="t")
    ignored = [
        talk.event("mine", channel="ai"),
        talk.event(record, channel="other", type=EventType.TOOL_CALL_START),
        talk.event(record, channel="other", type=EventType.TOOL_CALL_END),
        talk.event("blocked", status=EventStatus.BLOCKED),
    ]
    for event in ignored:
        assert (await channel.on_event(event, talk.binding, talk.context(event))).response_stream is None


async def test_an_agent_without_a_provider_says_nothing() -> None:
    talk = Talk()
    event = talk.event("hi")
    output = await AIChannel("ai", None).on_event(event, talk.binding, talk.context(event))
    assert output.response_stream is None


async def test_s58_deliver_is_a_harmless_no_op() -> None:
    talk, channel = Talk(), AIChannel("ai", ScriptedAI())
    event = talk.event("hi")
    assert (await channel.deliver(event, talk.binding, talk.context(event))).success


# -- what goes into a request -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given,provider,binding,expected",
    [
        (None, None, None, 1024),
        (None, 4000, None, 4000),
        (500, 4000, None, 500),
        (1024, 4000, None, 1024),
        (500, 4000, 77, 77),
    ],
)
async def test_d2_the_nearest_max_tokens_wins(given: Any, provider: Any, binding: Any, expected: int) -> None:
    ai = ScriptedAI("ok", profile=AIProfile(max_tokens=provider))
    talk = Talk()
    if binding:
        talk.metadata["max_tokens"] = binding
    await talk.say(AIChannel("ai", ai, **({"max_tokens": given} if given else {})))
    assert ai.requests[0].max_tokens == expected


async def test_each_option_reaches_the_request() -> None:
    ai = ScriptedAI("ok")
    await Talk().say(AIChannel("ai", ai, "Be kind.", 0.1, 99, thinking_budget=512))
    request = ai.requests[0]
    assert (request.system, request.temperature, request.max_tokens, request.thinking_budget) == (
        "Be kind.",
        0.1,
        99,
        512,
    )


async def test_a_binding_overrides_for_its_room_only() -> None:
    ai = ScriptedAI("ok", "ok")
    channel = AIChannel("ai", ai, "Be kind.", tool_handler=Toolbox([find_order]))
    special = Talk("special")
    special.metadata = {"system_prompt": "Be brief.", "temperature": 0.0, "thinking_budget": 9, "tools": []}
    await special.say(channel)
    await Talk("plain").say(channel)
    first, second = ai.requests
    assert (first.system, first.temperature, first.thinking_budget, first.tools) == ("Be brief.", 0.0, 9, ())
    assert (second.system, second.temperature, second.thinking_budget) == ("Be kind.", 0.7, None)
    assert [spec.name for spec in second.tools] == ["find_order"]


async def test_the_newest_events_are_in_the_context() -> None:
    ai = ScriptedAI("ok")
    talk = Talk()
    for n in range(80):
        talk.event(f"old {n}")
    await talk.say(AIChannel("ai", ai, max_context_events=3), "new")
    assert [message.text for message in ai.requests[0].messages] == ["old 78", "old 79", "new"]


async def test_what_asked_is_in_the_request_even_where_history_is_silent() -> None:
    ai = ScriptedAI("ok")
    talk = Talk()
    event = talk.event("hello?")
    talk.log.clear()
    output = await AIChannel("ai", ai).on_event(event, talk.binding, talk.context(event))
    assert output.response_stream is not None
    assert text_of([part async for part in output.response_stream]) == "ok"
    assert [message.text for message in ai.requests[0].messages] == ["hello?"]


async def test_tools_are_not_offered_to_a_model_without_tools() -> None:
    ai = ScriptedAI("ok", profile=AIProfile(tools=False))
    await Talk().say(AIChannel("ai", ai, tool_handler=Toolbox([find_order])))
    assert ai.requests[0].tools == ()


async def test_earlier_turns_come_back_with_their_tool_calls() -> None:
    ai = ScriptedAI([call("find_order", number=7)], "Found.", "Bye.")
    talk = Talk("r")
    channel = AIChannel("ai", ai, tool_handler=Toolbox([find_order]))
    await talk.say(channel, "where is 7?")
    await talk.say(channel, "thanks")
    roles = [message.role for message in ai.requests[2].messages]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


# -- memory -----------------------------------------------------------------------------------------------------------


class Recording(SlidingWindow):
    def __init__(self) -> None:
        self.ingested: list[tuple[str, str]] = []
        self.closed = False
        self.reach = 7
        self.offered = 0

    async def retrieve(self, room_id: str, events: Any, limit: int) -> Any:
        self.offered = len(events)
        return await super().retrieve(room_id, events, limit)

    async def ingest(self, room_id: str, event: RoomEvent) -> None:
        self.ingested.append((room_id, event.text))

    async def close(self) -> None:
        self.closed = True


async def test_a_memory_hears_every_message_and_is_offered_as_far_as_it_reaches() -> None:
    memory = Recording()
    talk = Talk("r")
    for n in range(30):
        talk.event(f"old {n}")
    channel = AIChannel("ai", ScriptedAI("ok"), memory=memory, max_context_events=2)
    await talk.say(channel, "new")
    assert memory.ingested == [("r", "new")]
    assert memory.offered == 14
    await channel.close()
    assert memory.closed


async def test_a_memory_that_breaks_ends_the_reply_with_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SlidingWindow):
        async def retrieve(self, room_id: str, events: Any, limit: int) -> Any:
            raise KeyError("password=hush")

    channel = AIChannel("ai", ScriptedAI("never"), memory=Broken())
    end = end_of(await Talk().say(channel))
    assert (end.reason, end.error) == ("error", "the reply could not be prepared: KeyError")
    assert channel.active_loops == {}


# -- many rooms -------------------------------------------------------------------------------------------------------


async def test_two_rooms_interleaved_through_one_channel_share_nothing() -> None:
    box = Toolbox([find_order])

    def script(request: Any) -> Any:
        asked = [m.text for m in request.messages if m.role == "user"][-1]
        results = results_of(request)
        return [0.5, f"{asked} {results[-1]}"] if results else [0.5, call("find_order", "same-id", number=1)]

    ai = ScriptedAI(script, repeat=True)
    channel = AIChannel("ai", ai, tool_handler=box)
    talks = [Talk(f"r{n}", tenant=f"t{n % 2}") for n in range(6)]
    async with Scope("test") as scope:
        running = [scope.spawn(talk.say(channel, f"I am {talk.room.id}"), name="x", awaited=True) for talk in talks]
        replies = [text_of(await task) for task in running]
    assert replies == [f"I am r{n} t{n % 2}/r{n}: order 1" for n in range(6)]


async def test_d11_steering_needs_a_clear_target() -> None:
    channel = AIChannel("ai", ScriptedAI(["Hm.", 10.0], repeat=True))
    one, two = Talk("one"), Talk("two", tenant="acme")
    with pytest.raises(UsageError, match=r"no such reply is active.*none"):
        channel.steer(Cancel())
    async with Scope("test") as scope:
        first = scope.spawn(one.say(channel), name="one", awaited=True)
        second = scope.spawn(two.say(channel), name="two", awaited=True)
        await asyncio.sleep(1)
        assert channel.active_loops == {"one-turn-1": "one", "two-turn-1": "two"}
        with pytest.raises(UsageError, match=r"several.*one-turn-1 \(room one\), two-turn-1 \(room two\)"):
            channel.steer(Cancel())
        with pytest.raises(UsageError):
            channel.steer(Cancel(), room_id="one", tenant="acme")
        with pytest.raises(UsageError):
            channel.steer(Cancel(), loop_id="three")
        channel.steer(Cancel("first"), room_id="one")
        assert end_of(await first).error == "first"
        channel.steer(Cancel("second"))  # the only one left
        assert end_of(await second).error == "second"
        assert monotonic() < 5


async def test_steering_while_a_reply_is_still_being_prepared_is_not_lost() -> None:
    class Slow(SlidingWindow):
        async def retrieve(self, room_id: str, events: Any, limit: int) -> Any:
            await asyncio.sleep(5)
            return await super().retrieve(room_id, events, limit)

    ai = ScriptedAI("ok", "more")
    channel = AIChannel("ai", ai, memory=Slow())
    async with Scope("test") as scope:
        running = scope.spawn(Talk().say(channel), name="x", awaited=True)
        await asyncio.sleep(1)
        channel.steer(InjectMessage("Be quick."))
        parts = await running
        assert ai.requests[0].messages[-1].text == "Be quick."
        assert text_of(parts) == "ok"
        running = scope.spawn(Talk().say(channel), name="x", awaited=True)
        await asyncio.sleep(1)
        channel.steer(Cancel("stop"))
        assert end_of(await running).reason == "cancelled"
    assert len(ai.requests) == 1


# -- tools ------------------------------------------------------------------------------------------------------------


async def test_s46_the_handler_can_be_wrapped_and_keeps_its_tools_and_its_room() -> None:
    ai = ScriptedAI([call("find_order", number=7)], "ok")
    channel = AIChannel("ai", ai, tool_handler=Toolbox([find_order]))
    seen: list[str] = []
    inner = channel.tool_handler
    assert inner is not None

    async def wrapped(name: str, arguments: dict[str, Any]) -> Any:
        seen.append(name)
        return await inner(name, arguments)  # type: ignore[operator]

    channel.tool_handler = wrapped
    assert channel.tool_handler is wrapped
    await Talk("r", tenant="acme").say(channel)
    assert seen == ["find_order"]
    assert results_of(ai.requests[1]) == ["acme/r: order 7"]
    channel.tool_handler = None
    ai.add("ok")
    await Talk().say(channel)
    assert ai.requests[2].tools == ()


async def test_a_plain_handler_serves_declared_tools() -> None:
    async def handler(name: str, arguments: dict[str, Any]) -> Any:
        return {"name": name, **arguments}

    ai = ScriptedAI([call("lookup", n=1)], "ok")
    channel = AIChannel("ai", ai, tool_handler=handler).configure(tools=[ToolSpec(name="lookup")])
    await Talk().say(channel)
    assert results_of(ai.requests[1]) == ['{"name": "lookup", "n": 1}']


async def test_functions_and_boxes_can_be_configured_beside_the_handler() -> None:
    @tool
    async def other() -> str:
        """Another."""
        return "other"

    async def plain(n: int) -> int:
        """Doubles."""
        return 2 * n

    ai = ScriptedAI([call("other"), call("plain", n=4)], "ok")
    channel = AIChannel("ai", ai).configure(tools=[Toolbox([other]), plain])
    await Talk().say(channel)
    assert results_of(ai.requests[1]) == ["other", "8"]
    assert len(channel.options.tools) == 2


async def test_the_model_can_ask_for_a_person_where_that_is_offered() -> None:
    for offered in (False, True):
        talk = Talk()
        ai = ScriptedAI([call("request_human", reason="angry")], "ok")
        await talk.say(AIChannel("ai", ai).configure(human_tool=offered))
        assert talk.turn is not None
        assert talk.turn.humans == (["angry"] if offered else [])


async def test_options_of_the_channel_change_what_happens() -> None:
    policy = TurnPolicy(mode="interrupt")
    channel = AIChannel("ai", ScriptedAI()).configure(turn_policy=policy, calls_per_round=1)
    assert channel.turn_policy is policy
    ai = ScriptedAI([call("find_order", number=1), call("find_order", number=2)], "ok")
    channel = AIChannel("ai", ai, tool_handler=Toolbox([find_order])).configure(calls_per_round=1)
    assert [status for _, status in steps_of(await Talk().say(channel))] == ["denied", "pending", "completed"]
    with pytest.raises(TypeError):
        channel.configure(no_such_option=1)


async def test_other_agents_are_bots_to_the_policy() -> None:
    policy = ToolPolicy(roles={"bot": RoleOverride(deny=("*",)), "member": RoleOverride()})
    talk = Talk()
    talk.person("guest")
    talk.bindings.append(talk.bind("agent", Category.INTELLIGENCE))
    ai = ScriptedAI([call("find_order", number=1)], "ok", [call("find_order", number=2)], "ok")
    channel = AIChannel("ai", ai, tool_handler=Toolbox([find_order]), tool_policy=policy)
    assert steps_of(await talk.say(channel))[-1][1] == "completed"
    assert steps_of(await talk.say(channel, channel="agent", who=None))[-1][1] == "denied"


# -- usage, names, the end --------------------------------------------------------------------------------------------


async def test_usage_is_the_sum_of_all_rounds_with_cached_tokens_counted_once() -> None:
    usage = Usage(input_tokens=100, output_tokens=10, cache_read_tokens=60)
    ai = ScriptedAI([call("find_order", number=1)], [call("find_order", number=2)], "ok", usage=usage)
    end = end_of(await Talk().say(AIChannel("ai", ai, tool_handler=Toolbox([find_order]))))
    assert end.usage == {"input_tokens": 300, "output_tokens": 30, "cache_read_tokens": 180}


def test_an_unknown_vendor_is_refused_in_one_line() -> None:
    for name in ("nobody:model", "../x", "", "no such"):
        with pytest.raises(UsageError, match="there is no AI provider"):
            AIChannel("ai", name)


async def test_a_vendor_is_found_by_name() -> None:
    channel = AIChannel("ai", "offline", fallback_provider="offline:x")
    assert channel.provider is not None
    assert channel.provider.name
    await channel.close()


async def test_vendors_of_other_distributions_are_found_by_their_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "acme_rooms"
    package.mkdir()
    package.joinpath("__init__.py").touch()
    code = "from roomkit.testing.ai import ScriptedAI\nprovider = lambda model: ScriptedAI(name=f'acme {model}')\n"
    package.joinpath("ai.py").write_text(code, encoding="utf-8")
    info = tmp_path / "acme_rooms-1.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: acme-rooms\nVersion: 1\n", encoding="utf-8")
    info.joinpath("entry_points.txt").write_text("[roomkit.providers]\nacme = acme_rooms\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    channel = AIChannel("ai", "acme:fast")
    assert channel.provider is not None
    assert channel.provider.name == "acme fast"


async def test_given_providers_are_left_open_for_their_owner() -> None:
    ai = ScriptedAI("ok")
    channel = AIChannel("ai", ai)
    await channel.close()
    assert not ai.shut


def test_a_script_executor_without_skills_is_a_mistake() -> None:
    async def execute(path: Any, arguments: list[str]) -> str:
        return ""

    with pytest.raises(UsageError, match="skills"):
        AIChannel("ai", ScriptedAI(), script_executor=execute)
    with pytest.raises(ConfigError):
        AIChannel("ai", ScriptedAI(), skills="nowhere")
