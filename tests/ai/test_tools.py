"""Tools from typed functions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from roomkit.ai.tools import Toolbox, ToolContext, ToolSource, tool
from roomkit.channels.ai import AIChannel
from roomkit.errors import ToolFailed, ToolRetry, UsageError
from roomkit.testing.ai import ScriptedAI, call
from tests.ai.rooms import Talk, results_of

HERE = ToolContext(room_id="room")


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Address(BaseModel):
    street: str
    number: int = 1


@tool
async def order(
    size: Size,
    to: Address,
    note: Annotated[str, Field(description="for the kitchen", max_length=10)] = "",
    speed: Literal["fast", "slow"] = "slow",
    context: ToolContext | None = None,
) -> str:
    """Orders a pizza."""
    return f"{size.value} to {to.street} {to.number}"


def test_the_schema_comes_from_the_signature() -> None:
    @tool
    async def find(number: int, detail: Annotated[str, Field(description="what to tell")] = "all") -> str:
        """Finds an order.

        Only ours.
        """
        return ""

    assert find.spec.name == "find"
    assert find.spec.description == "Finds an order.\n\nOnly ours."
    assert find.spec.parameters == {
        "type": "object",
        "properties": {
            "number": {"type": "integer"},
            "detail": {"type": "string", "description": "what to tell", "default": "all"},
        },
        "required": ["number"],
        "additionalProperties": False,
    }
    assert (find.spec.idempotent, find.spec.needs_approval, find.spec.timeout_s) == (False, False, None)


def test_marks_and_names_can_be_given() -> None:
    made = tool(name="n", description="d", idempotent=True, needs_approval=True, timeout_s=3.0)(lambda: "x")
    assert made.spec.model_dump(exclude={"parameters"}) == {
        "name": "n",
        "description": "d",
        "idempotent": True,
        "needs_approval": True,
        "timeout_s": 3.0,
    }
    assert made() == "x"


async def test_functions_get_real_values() -> None:
    box = Toolbox([order])
    assert (
        await box.run("order", {"size": "large", "to": {"street": "High St", "number": 4}}, HERE)
        == "large to High St 4"
    )
    with pytest.raises(ToolRetry, match=r"size: .*small.*large"):
        await box.run("order", {"size": "huge", "to": {"street": "x"}}, HERE)
    with pytest.raises(ToolRetry, match="note"):
        await box.run("order", {"size": "small", "to": {"street": "x"}, "note": "x" * 11}, HERE)


async def test_the_context_is_hidden_from_the_model_and_given_to_the_function() -> None:
    @tool
    async def where(ctx: ToolContext, loud: bool = False) -> str:
        """Says where it is."""
        return f"{ctx.tenant}/{ctx.room_id}/{ctx.idempotency_key}"

    assert list(where.spec.parameters["properties"]) == ["loud"]
    talk = Talk("r1", tenant="acme")
    ai = ScriptedAI([call("where", "c1")], "ok")
    await talk.say(AIChannel("ai", ai, tool_handler=Toolbox([where])))
    assert results_of(ai.requests[1]) == ["acme/r1/r1-turn-1:c1"]


async def test_synchronous_functions_run_in_a_thread_of_their_own() -> None:
    here = threading.get_ident()

    @tool
    def blocking() -> bool:
        """Blocks."""
        return threading.get_ident() != here

    box = Toolbox([blocking])
    assert await box.run("blocking", {}, HERE) is True
    await box.aclose()


async def test_a_function_that_returns_a_coroutine_is_awaited() -> None:
    async def inner() -> str:
        return "inner"

    def outer() -> Any:
        return inner()

    box = Toolbox([outer])
    assert await box("outer", {}) == "inner"
    await box.aclose()


async def test_a_box_is_a_tool_handler_of_the_seed() -> None:
    box = Toolbox()

    @box.add
    async def double(n: int) -> int:
        """Doubles."""
        return 2 * n

    assert await box("double", {"n": 4}) == 8
    with pytest.raises(ToolFailed, match="double"):
        await box("triple", {"n": 4})
    with pytest.raises(UsageError, match="already"):
        box.add(double)


async def test_without_a_room_a_function_that_needs_one_says_so() -> None:
    @tool
    async def where(ctx: ToolContext) -> str:
        """Needs a room."""
        return ctx.room_id

    with pytest.raises(UsageError, match="ToolContext"):
        await Toolbox([where])("where", {})


def test_functions_the_model_cannot_call_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\*args"):

        @tool
        def anything(*args: str) -> None: ...


def test_types_that_no_json_can_hold_are_refused() -> None:
    with pytest.raises(UsageError, match="no JSON"):

        @tool
        def hook(callback: Callable[[], None]) -> None: ...

    class Local(BaseModel):
        n: int

    with pytest.raises(UsageError, match="Local"):

        @tool
        def local(it: Local) -> None: ...


async def test_a_source_without_tools_says_so() -> None:
    source = ToolSource()
    assert source.specs == ()
    with pytest.raises(ToolFailed):
        await source.run("x", {}, HERE)
    await source.open()
    await source.aclose()
