"""Tool policy: deny wins, lists are white lists, roles restrict or replace."""

from __future__ import annotations

import pytest

from roomkit.ai.policy import RoleOverride, ToolPolicy
from roomkit.models.room import Assurance


@pytest.mark.parametrize(
    "allow,deny,name,allowed",
    [
        ((), (), "x", True),
        (("a_*",), (), "a_1", True),
        (("a_*",), (), "b_1", False),
        ((), ("b_*",), "b_1", False),
        (("*",), ("b_1",), "b_1", False),
        (("A",), (), "a", False),
    ],
)
def test_lists(allow: tuple[str, ...], deny: tuple[str, ...], name: str, allowed: bool) -> None:
    assert (ToolPolicy(allow, deny).refusal(name) is None) is allowed


def test_a_restricting_role_never_gets_more() -> None:
    policy = ToolPolicy(
        allow=("a", "b"), deny=("d",), roles={"member": RoleOverride(allow=("b", "c", "d"), deny=("e",))}
    )
    assert [n for n in "abcde" if policy.refusal(n, ["member"]) is None] == ["b"]
    assert [n for n in "abcde" if policy.refusal(n, ["owner"]) is None] == ["a", "b"]


def test_a_replacing_role_has_its_own_lists() -> None:
    policy = ToolPolicy(allow=("a",), roles={"owner": RoleOverride("replace", allow=("*",), deny=("d",))})
    assert [n for n in "abd" if policy.refusal(n, ["owner"]) is None] == ["a", "b"]


def test_roles_without_an_override_can_have_a_rule_of_their_own() -> None:
    policy = ToolPolicy(roles={"owner": RoleOverride(), "*": RoleOverride(deny=("*",))})
    assert policy.refusal("a", ["owner"]) is None
    assert policy.refusal("a", ["member"]) is not None
    assert policy.refusal("a") is not None  # nobody known is nobody trusted
    assert policy.refusal("a", ["owner", "member"]) is not None


def test_assurance_of_nobody_is_none() -> None:
    policy = ToolPolicy(assurance={"pay*": Assurance.VERIFIED})
    assert policy.refusal("pay_bill") is not None
    assert policy.refusal("pay_bill", assurance=Assurance.CLAIMED) is not None
    assert policy.refusal("pay_bill", assurance=Assurance.AUTHENTICATED) is None
    assert policy.refusal("look") is None
