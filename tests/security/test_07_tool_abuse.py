"""Line 7: ten thousand adversarial plans. Whatever a model calls, with whatever arguments, in whatever order: a tool
runs only if it is this room's, allowed to everybody who speaks, well-formed, within the budget, and approved."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any, ClassVar

import pytest

from roomkit import AIChannel, RoomKit
from roomkit.ai.budget import Budget, SpendLimits
from roomkit.ai.gate import GateRules, ToolGate
from roomkit.ai.policy import RoleOverride, ToolPolicy
from roomkit.ai.tools import Toolbox, ToolContext, ToolSource, tool
from roomkit.models.ai import ToolCallPart, ToolSpec
from roomkit.models.content import ToolCallContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.room import Assurance
from roomkit.ports.channel import ApprovalAnswer
from roomkit.testing import VirtualClock
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.channels import FakeChannel
from tests.ai.rooms import FakeTurn

PLANS = 10_000
RAN: list[tuple[str, dict[str, Any]]] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()


@tool
async def look(key: str) -> str:
    """For everybody."""
    RAN.append(("look", {"key": key}))
    return "seen"


@tool
async def pay(amount: int, to: str = "shop") -> str:
    """For owners, who are verified."""
    RAN.append(("pay", {"amount": amount, "to": to}))
    return "paid"


@tool(needs_approval=True)
async def refund(amount: int) -> str:
    """With a person's yes."""
    RAN.append(("refund", {"amount": amount}))
    return "refunded"


@tool
async def drop_tables(sure: bool) -> str:
    """For nobody."""
    RAN.append(("drop_tables", {"sure": sure}))
    return "dropped"


TOOLS = ("look", "pay", "refund", "drop_tables")
NAMES = (
    *TOOLS,
    *(
        "LOOK",
        "look ",
        " pay",
        "pay\n",
        "p\u0430y",
        "pay\u200b",
        "drop_tables;",
        "drop*",
        "*",
        "",
        "__class__",
        "look.__call__",
    ),
    *("roomkit.look", "Pay", "refund()", "read_stored_result", "request_human", "activate_skill", "../pay", "pay\x00"),
)
ODD: tuple[Any, ...] = (
    *(
        0,
        -1,
        10**30,
        1.5,
        float("nan"),
        "5",
        "",
        None,
        True,
        [],
        {},
        [1],
        {"amount": 1},
        "x" * 5000,
        "\x00",
        "../../etc",
    ),
    *("'; DROP TABLE rooms; --", "${jndi:ldap://evil}", {"$ref": "#"}, {"__proto__": {"admin": True}}, [[[[[]]]]]),
)
KEYS = (
    "amount",
    "to",
    "key",
    "sure",
    "AMOUNT",
    "amount ",
    "role",
    "approved",
    "self",
    "context",
    "__class__",
    "idempotency_key",
)
POLICY = ToolPolicy(
    deny=("drop_*",),
    roles={"owner": RoleOverride("replace", deny=("drop_*",)), "*": RoleOverride("restrict", deny=("pay",))},
    assurance={"pay": Assurance.VERIFIED},
)


class Open:
    """A stile that lets everything through."""

    async def ready(self, call_id: str, arguments: dict[str, Any]) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


def arguments(rng: random.Random) -> dict[str, Any]:
    return {rng.choice(KEYS): rng.choice(ODD) for _ in range(rng.randrange(4))}


def good(rng: random.Random, name: str) -> dict[str, Any]:
    made: dict[str, dict[str, Any]] = {
        "look": {"key": "k"},
        "pay": {"amount": rng.randrange(100)},
        "refund": {"amount": rng.randrange(100)},
        "drop_tables": {"sure": True},
    }
    return made.get(name) or arguments(rng)


async def test_no_plan_runs_what_is_not_allowed() -> None:
    rng = random.Random(7)
    box = Toolbox([look, pay, refund, drop_tables])
    outcomes: Counter[str] = Counter()
    for number in range(PLANS):
        RAN.clear()
        await asyncio.sleep(0)
        roles = tuple(rng.choices(("owner", "member", "agent", "unknown", "bot"), k=rng.randrange(1, 3)))
        sure = rng.choice((None, *Assurance))
        allowed = rng.choice((None, None, frozenset({"look"}), frozenset[str](), frozenset(TOOLS)))
        limit = rng.randrange(4)
        granted: list[str] = []

        def answer(asked: ToolCallContent, granted: list[str] = granted) -> ApprovalAnswer:
            yes = rng.random() < 0.5
            granted += [str(asked.arguments)] if yes else []
            return ApprovalAnswer(yes, "ann")

        rules = GateRules(POLICY, roles, sure, allowed, Budget(SpendLimits(room_tool_calls=limit)))
        turn = FakeTurn(answer=answer) if rng.random() < 0.8 else None
        gate = ToolGate([box], ToolContext("r"), turn=turn, rules=rules)
        shown = frozenset(spec.name for spec in gate.specs)
        for n in range(rng.randrange(1, 6)):
            name = rng.choice(NAMES)
            given = good(rng, name) if rng.random() < 0.5 else arguments(rng)
            offered = shown if rng.random() < 0.7 else frozenset(NAMES)
            outcome = await gate.run(ToolCallPart(call_id=f"c{n}", name=name, arguments=given), Open(), offered)
            outcomes[outcome.status] += 1
        trace = f"plan {number}: {roles} {sure} {allowed} limit {limit}: {RAN}"
        assert len(RAN) <= limit, trace
        for name, used in RAN:
            assert allowed is None or name in allowed, trace
            assert name != "drop_tables", trace
            if name == "pay":
                assert set(roles) == {"owner"}, trace
                assert sure in (Assurance.VERIFIED, Assurance.AUTHENTICATED), trace
            if name == "refund":
                assert str(used) in granted, trace
            assert not isinstance(used.get("amount", 0), bool), trace
            assert isinstance(used.get("amount", 0), int), trace
    assert outcomes["completed"] > 500, "the plans are not all nonsense"
    assert outcomes["denied"] > 3000
    assert outcomes["failed"] > 3000


class Raw(ToolSource):
    """A host's own tools, which look at nothing themselves: what they say they take is all that protects them."""

    schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {"amount": {"type": "integer", "minimum": 1}, "to": {"enum": ["shop", "bank"]}},
        "required": ["amount"],
        "additionalProperties": False,
    }

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return (ToolSpec(name="raw", description="Takes what it is given.", parameters=self.schema),)

    async def run(self, name: str, arguments: dict[str, Any], context: ToolContext) -> str:
        RAN.append((name, arguments))
        return "done"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"amount": "5"},
        {"amount": True},
        {"amount": 1.5},
        {"amount": None},
        {"amount": 0},
        {"amount": [5]},
        {"amount": {"$gt": 0}},
        {"amount": 5, "to": "me"},
        {"amount": 5, "more": 1},
        {"Amount": 5},
    ],
)
async def test_a_tool_that_checks_nothing_is_given_only_what_it_takes(given: dict[str, Any]) -> None:
    gate = ToolGate([Raw()], ToolContext("r"), turn=FakeTurn(), rules=GateRules(ToolPolicy()))
    ran = await gate.run(ToolCallPart(call_id="1", name="raw", arguments=given), Open(), frozenset({"raw"}))
    assert (ran.status, RAN) == ("failed", [])
    good = ToolCallPart(call_id="2", name="raw", arguments={"amount": 5, "to": "shop"})
    assert (await gate.run(good, Open(), frozenset({"raw"}))).status == "completed"


async def test_plans_in_a_room_end_and_stay_within_their_limits() -> None:
    """The same through the whole machine: a model that never stops calling, many calls at once, ids that repeat."""
    rng = random.Random(70)

    def plan(_request: Any) -> list[Any]:
        return [
            call(rng.choice(NAMES), rng.choice(("", "c1", "c1", "x" * 300)), **arguments(rng))
            for _ in range(rng.choice((1, 2, 60)))
        ]

    budget = Budget(SpendLimits(room_tool_calls=5, tenant_tool_calls=50, room_tokens=500))
    brain = ScriptedAI(plan, repeat=True)
    ai = AIChannel("ai", brain, tool_handler=Toolbox([look, pay, refund, drop_tables]), tool_policy=POLICY)
    ai.limits = type(ai.limits)(20, 60.0, 5)
    ai.configure(budget=budget, approval_expires_s=1.0)
    kit = RoomKit(clock=VirtualClock())
    kit.register_channel(ai, default=True)
    kit.register_channel(FakeChannel("sms"))
    async with kit:
        for n in range(40):
            await (await kit.process_inbound(InboundMessage.text("sms", f"+1{n}", "go on"))).settled()
    assert len(brain.requests) <= 40 * 21
    assert len(RAN) <= 50
    assert {name for name, _ in RAN} <= {"look"}
