"""Wrong use is told where it happens, in one line with the fix."""

from __future__ import annotations

from typing import Any

import pytest

from roomkit import BeforeCommit, Channel, Committed, RoomKit
from roomkit.errors import UsageError
from roomkit.testing import FakeChannel
from tests.core.rooms import kit_with


async def guard(moment: Any) -> None: ...


@pytest.mark.parametrize(
    "settings",
    [{"on_error": "blok"}, {"streams": "sentense"}, {"budget_s": -1}, {"where": {"types": 1}}],
)
def test_a_guard_with_a_typo_is_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RoomKit().before(BeforeCommit, **settings)(guard)


def test_a_bare_decorator_is_refused() -> None:
    kit = RoomKit()
    with pytest.raises(UsageError, match=r"@kit\.before\(BeforeCommit\)"):
        kit.before(guard)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"@kit\.on\(Committed\)"):
        kit.on(guard)  # type: ignore[arg-type]
    kit.on(Committed)(guard)


class NotAsync(Channel):
    def deliver(self, event: Any, binding: Any, context: Any) -> Any:  # type: ignore[override]
        return None


class Lost(Channel):
    reach = "outbxo"  # type: ignore[assignment]


@pytest.mark.parametrize(
    "wrong", ["web", FakeChannel, FakeChannel(""), FakeChannel("a,b"), NotAsync("x", "x"), Lost("x", "x")]
)
def test_what_is_no_channel_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError):
        RoomKit().register_channel(wrong)


async def test_what_is_no_content_is_refused() -> None:
    async with RoomKit() as kit:
        await kit.create_room("r")
        with pytest.raises(UsageError, match="not 5"):
            await kit.send("r", 5)  # type: ignore[arg-type]


def test_token_secrets_may_be_one_or_none() -> None:
    assert RoomKit(token_secrets=None).tokens.ephemeral
    secret = "a-test-secret-that-is-long"
    token = RoomKit(token_secrets=secret).tokens.mint("admin")
    assert RoomKit(token_secrets=[secret]).tokens.verify(token).role == "admin"


async def test_a_deliver_that_returns_nothing_has_delivered() -> None:
    class Plain(Channel):
        async def deliver(self, event: Any, binding: Any, context: Any) -> Any:
            return None

    async with RoomKit() as kit:
        kit.register_channel(Plain("plain", "plain"))
        await kit.create_room("r", channels=["plain"])
        await (await kit.send("r", "hello")).settled()
        assert [d.state.value for d in await kit.deliveries("r")] == ["sent"]


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"in": found}
    return found


@pytest.mark.parametrize("depth", [101, 5000])
@pytest.mark.parametrize("where", ["create", "patch", "attach", "seat", "member", "send"])
async def test_data_that_is_nested_too_deep_is_refused_and_changes_nothing(where: str, depth: int) -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"], metadata=nested(90))
        before = await kit.get_room("r")
        deep = nested(depth if where != "send" else depth * 3)
        calls = {
            "create": lambda: kit.create_room("x", metadata=deep),
            "patch": lambda: kit.update_room_metadata("r", deep),
            "attach": lambda: kit.attach_channel("r", "sms", metadata=deep),
            "seat": lambda: kit.update_binding_metadata("r", "sms", deep),
            "member": lambda: kit.add_member("r", "ann", metadata=deep),
            "send": lambda: kit.send("r", "hi", metadata=deep),
        }
        with pytest.raises(UsageError):
            await calls[where]()
        assert await kit.get_room("r") == before


async def test_data_that_is_none_is_refused() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r")
        with pytest.raises(UsageError, match="what JSON cannot"):
            await kit.update_room_metadata("r", {"who": object()})


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda kit: kit.attach_channel("r", "sms", access="all"), "read_write, read_only, write_only, none"),
        (lambda kit: kit.attach_channel("r", "sms", assurance="sure"), "claimed, verified, authenticated"),
        (lambda kit: kit.set_access("r", "sms", "rw"), "read_write, read_only"),
        (lambda kit: kit.add_member("r", "ann", role="boss"), "owner, agent, member"),
        (lambda kit: kit.update_member("r", "ann", role="boss"), "'owner', 'agent', 'member'"),
        (lambda kit: kit.set_floor("r", "robot"), "ai, human, both, none, waiting"),
        (lambda kit: kit.update_room("r", delivery="twice"), "'reach_once' or 'every_channel'"),
        (lambda kit: kit.create_room("x", delivery="twice"), "'reach_once' or 'every_channel'"),
        (lambda kit: kit.create_room("x", agent_response_policy="loud"), "'agent_chain' or 'addressed_only'"),
    ],
)
async def test_a_wrong_value_is_refused_with_the_right_ones(call: Any, told: str) -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.add_member("r", "ann")
        with pytest.raises(UsageError) as caught:
            await call(kit)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)
