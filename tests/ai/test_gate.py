"""The gate: catalogue, policy, schema, guard, approval, in this order, before every execution."""

from __future__ import annotations

from typing import Any

import pytest

from roomkit.ai.policy import RoleOverride, ToolPolicy
from roomkit.ai.tools import Toolbox, ToolContext, tool
from roomkit.channels.ai import AIChannel
from roomkit.models.content import ToolCallContent
from roomkit.models.hooks import Block
from roomkit.models.room import Assurance, Role
from roomkit.models.stream import ToolStep
from roomkit.ports.channel import ApprovalAnswer
from roomkit.testing.ai import ScriptedAI, call
from tests.ai.rooms import FakeTurn, Talk, results_of, steps_of

RAN: list[dict[str, Any]] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()


@tool
async def pay(amount: int, note: str = "") -> str:
    """Pays."""
    RAN.append({"amount": amount, "note": note})
    return f"paid {amount}"


async def result(talk: Talk, *calls: Any, box: Toolbox | None = None, **options: Any) -> tuple[list[str], Any]:
    ai = ScriptedAI([*calls], "ok")
    channel = AIChannel("ai", ai, tool_handler=box or Toolbox([pay]), **options)
    parts = await talk.say(channel)
    return results_of(ai.requests[1]), parts


async def test_an_allowed_call_runs() -> None:
    results, parts = await result(Talk(), call("pay", amount=5))
    assert results == ["paid 5"]
    assert steps_of(parts) == [("pay", "pending"), ("pay", "completed")]
    assert RAN == [{"amount": 5, "note": ""}]


async def test_an_unknown_tool_is_answered_with_a_hint() -> None:
    results, parts = await result(Talk(), call("pya", amount=5))
    assert results == ['Not run: there is no tool "pya". Did you mean "pay"?']
    assert steps_of(parts) == [("pya", "failed")]


@pytest.mark.parametrize(
    "arguments", [{}, {"amount": "5"}, {"amount": 5, "to": "me"}, {"amount": True}, {"amount": 5, "note": None}]
)
async def test_arguments_that_do_not_fit_the_closed_schema_are_refused(arguments: dict[str, Any]) -> None:
    results, parts = await result(Talk(), call("pay", **arguments))
    assert results[0].startswith("Not run: arguments")
    assert steps_of(parts) == [("pay", "failed")]
    assert RAN == []


async def test_policy_is_enforced_when_the_tool_runs_and_in_what_the_model_is_shown() -> None:
    ai = ScriptedAI([call("pay", amount=5)], "ok")
    policy = ToolPolicy(allow=("pay",), deny=("p*",))
    parts = await Talk().say(AIChannel("ai", ai, tool_handler=Toolbox([pay]), tool_policy=policy))
    assert ai.requests[0].tools == ()
    assert steps_of(parts) == [("pay", "denied")]
    assert RAN == []


async def test_an_empty_toolset_of_the_room_denies_everything() -> None:
    for names, expected in (([], "denied"), (["other"], "denied"), (["pay"], "completed")):
        talk = Talk()
        talk.metadata["tools"] = names
        _, parts = await result(talk, call("pay", amount=5))
        assert steps_of(parts)[-1] == ("pay", expected)


async def test_a_tool_must_be_allowed_for_everybody_who_speaks_in_the_turn() -> None:
    policy = ToolPolicy(deny=("*",), roles={"owner": RoleOverride("replace", allow=("pay",))})
    for speakers, status in ((["boss"], "completed"), (["boss", "kid"], "denied"), (["nobody"], "denied")):
        talk = Talk()
        talk.person("boss", role=Role.OWNER)
        talk.person("kid", role=Role.MEMBER)
        events = [talk.event("hi", who=who) for who in speakers]
        channel = AIChannel(
            "ai", ScriptedAI([call("pay", amount=5)], "ok"), tool_handler=Toolbox([pay]), tool_policy=policy
        )
        output = await channel.on_event(events[-1], talk.binding, talk.context(*events))
        assert output.response_stream is not None
        parts = [part async for part in output.response_stream]
        assert steps_of(parts)[-1] == ("pay", status), speakers


async def test_a_tool_can_need_everybody_to_be_verified() -> None:
    policy = ToolPolicy(assurance={"pay": Assurance.VERIFIED})
    for assurances, status in (
        ([Assurance.AUTHENTICATED, Assurance.CLAIMED], "denied"),
        ([Assurance.VERIFIED], "completed"),
    ):
        talk = Talk()
        talk.bindings = [talk.bind(f"c{n}", assurance=each) for n, each in enumerate(assurances)]
        _, parts = await result(talk, call("pay", amount=5), tool_policy=policy)
        assert steps_of(parts)[-1] == ("pay", status)


async def test_a_guard_may_stop_a_call() -> None:
    talk = Talk()
    talk.turn = FakeTurn(guard=lambda call: Block("too much"))
    results, parts = await result(talk, call("pay", amount=5))
    assert results == ["Not allowed: too much"]
    assert steps_of(parts) == [("pay", "denied")]


async def test_what_a_guard_changed_is_checked_again_and_is_what_runs() -> None:
    def to(arguments: dict[str, Any], name: str = "pay") -> Any:
        return lambda content: content.model_copy(update={"arguments": arguments, "name": name})

    talk = Talk()
    talk.turn = FakeTurn(guard=to({"amount": 1}))
    results, parts = await result(talk, call("pay", amount=5))
    assert results == ["paid 1"]
    assert [p.call.arguments for p in parts if hasattr(p, "call")] == [{"amount": 1}] * 2
    for changed in (to({"amount": "x"}), to({"amount": 1}, name="steal"), lambda content: None):
        RAN.clear()
        talk = Talk()
        talk.turn = FakeTurn(guard=changed)
        results, _ = await result(talk, call("pay", amount=5))
        assert results[0].startswith("Not run")
        assert RAN == []


async def test_a_guard_changes_what_a_call_does_and_not_which_call_it_is() -> None:
    keys: list[str] = []

    @tool
    async def look(number: int, context: ToolContext) -> str:
        """Looks."""
        keys.append(context.idempotency_key)
        return f"saw {number}"

    def other(asked: ToolCallContent) -> ToolCallContent:
        return asked.model_copy(update={"arguments": {"number": 2}, "call_id": "x", "status": "completed"})

    talk = Talk()
    talk.turn = FakeTurn(guard=other)
    results, parts = await result(talk, call("look", "a", number=1), box=Toolbox([look]))
    assert results == ["saw 2"]
    steps = [(p.call.call_id, p.call.status, p.call.arguments) for p in parts if isinstance(p, ToolStep)]
    assert steps == [("a", "pending", {"number": 2}), ("a", "completed", {"number": 2})]
    assert keys == ["room-turn-1:a"]


async def test_a_guard_that_breaks_fails_closed(caplog: pytest.LogCaptureFixture) -> None:
    def broken(content: ToolCallContent) -> Any:
        raise RuntimeError("hush")

    talk = Talk()
    talk.turn = FakeTurn(guard=broken)
    results, parts = await result(talk, call("pay", amount=5))
    assert steps_of(parts) == [("pay", "denied")]
    assert RAN == []
    assert "hush" not in results[0]


ASK = Toolbox([tool(name="pay", needs_approval=True)(pay.function)])


@pytest.mark.parametrize(
    "answer,status,text",
    [
        (ApprovalAnswer(True, "ann"), "completed", "paid 5"),
        (ApprovalAnswer(False, "ann", "too much"), "denied", "Not run: ann refused it: too much"),
        (ApprovalAnswer(False), "denied", "Not run: a person refused it"),
        (ApprovalAnswer(False, expired=True), "denied", "Not run: nobody approved it in time."),
    ],
)
async def test_approval_decides(answer: ApprovalAnswer, status: str, text: str) -> None:
    talk = Talk()
    talk.turn = FakeTurn(answer=lambda call: answer)
    results, parts = await result(talk, call("pay", amount=5), box=ASK)
    assert results == [text]
    assert steps_of(parts)[-1] == ("pay", status)
    assert [each.arguments for each in talk.turn.asked] == [{"amount": 5}]


async def test_people_are_asked_last_and_about_what_will_run() -> None:
    talk = Talk()
    talk.turn = FakeTurn(guard=lambda content: content.model_copy(update={"arguments": {"amount": 1}}))
    await result(talk, call("pay", amount=5), box=ASK)
    assert [each.arguments for each in talk.turn.asked] == [{"amount": 1}]
    talk.turn = FakeTurn()
    await result(talk, call("pay", amount="x"), call("pay", to="me"), box=ASK)
    assert talk.turn.asked == []


async def test_where_nobody_can_be_asked_nothing_needing_approval_runs() -> None:
    talk = Talk()
    talk.turn = None
    _, parts = await result(talk, call("pay", amount=5), box=ASK)
    assert steps_of(parts) == [("pay", "denied")]
    assert RAN == []


async def test_watchers_see_that_a_tool_runs() -> None:
    talk = Talk()
    talk.turn = FakeTurn()
    await result(talk, call("pay", "c7", amount=5))
    assert talk.turn.progress == ["c7"]


async def test_of_two_tools_with_one_name_the_first_is_used(caplog: pytest.LogCaptureFixture) -> None:
    @tool(name="pay")
    async def other(amount: int) -> str:
        """Another."""
        return "other"

    ai = ScriptedAI([call("pay", amount=5)], "ok")
    await Talk().say(AIChannel("ai", ai, tool_handler=Toolbox([pay])).configure(tools=[other]))
    assert results_of(ai.requests[1]) == ["paid 5"]
    assert "rename" in caplog.text


async def test_a_model_is_told_a_result_as_the_log_will_hold_it() -> None:
    @tool
    def emoji() -> str:
        """Half a character."""
        return "half \ud83d, whole \ud83d\ude00"

    talk, ai = Talk(), ScriptedAI([call("emoji")], "ok")
    await talk.say(AIChannel("ai", ai, tool_handler=Toolbox([emoji])))
    assert results_of(ai.requests[1]) == ["half \ufffd, whole 😀"]
