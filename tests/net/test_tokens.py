"""Signed tokens and links (D31): good ones pass, everything else does not."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.errors import AccessDenied, ConfigError, UsageError
from roomkit.models.access import PrincipalRole
from roomkit.net.tokens import MAX_TTL_S, Tokens

OLD, NEW = "an old secret of some length", "a new secret of some length"


def test_a_token_says_who_and_for_how_long(clock) -> None:
    tokens = Tokens([NEW], clock=clock)
    minted = tokens.issue("guest", "r1", 60, id="ada", tenant="acme", display_name="Ada")
    principal = tokens.verify(minted.token)
    assert principal == minted.principal
    assert (principal.id, principal.role, principal.room_id, principal.tenant) == (
        "ada",
        PrincipalRole.GUEST,
        "r1",
        "acme",
    )
    assert principal.expires_at == pytest.approx(clock.now().timestamp() + 60)
    assert minted.token not in repr(minted)
    assert NEW not in repr(tokens)


async def test_it_expires(clock) -> None:
    tokens = Tokens([NEW], clock=clock)
    token = tokens.mint("agent", ttl=60)
    await asyncio.sleep(59)
    tokens.verify(token)
    await asyncio.sleep(1)
    with pytest.raises(AccessDenied, match="expired"):
        tokens.verify(token)


def test_two_secrets_live_at_once_and_the_first_signs(clock) -> None:
    before = Tokens([OLD], clock=clock).mint("admin")
    both = Tokens([NEW, OLD], clock=clock)
    assert both.verify(before).role is PrincipalRole.ADMIN
    after = both.mint("admin")
    Tokens([NEW], clock=clock).verify(after)
    for token, secret in ((after, OLD), (before, NEW)):
        with pytest.raises(AccessDenied):
            Tokens([secret], clock=clock).verify(token)


async def test_revocation_is_told_kept_and_forgotten_in_time(clock) -> None:
    kept: dict[str, float] = {}
    tokens = Tokens([NEW], clock=clock, on_revoke=kept.__setitem__)
    minted = tokens.issue("agent", ttl=60)
    tokens.revoke(minted.token_id, until=minted.expires_at)
    with pytest.raises(AccessDenied, match="revoked"):
        tokens.verify(minted.token)
    again = Tokens([NEW], clock=clock)
    again.restore(kept)
    assert again.revoked(minted.principal)
    await asyncio.sleep(61)
    again.restore({})
    assert not again.revoked(minted.principal)


SIGNER = Tokens([NEW])
TOKEN = SIGNER.mint("guest", "r1", id="ada")


@given(st.integers(0, 10_000), st.characters())
def test_no_mutant_passes(at: int, new: str) -> None:
    at %= len(TOKEN)
    mutant = TOKEN[:at] + new + TOKEN[at + 1 :]
    for bad in (mutant, TOKEN[:at], TOKEN + new, TOKEN[1:], f"{TOKEN}\n"):
        if bad != TOKEN:
            with pytest.raises(AccessDenied):
                SIGNER.verify(bad)


def test_the_claims_cannot_be_changed_even_by_another_signer() -> None:
    tokens = Tokens([NEW])
    guest = tokens.mint("guest", "r1")
    admin = Tokens([OLD]).mint("admin")
    prefix, key, _, signature = guest.split(".")
    with pytest.raises(AccessDenied):
        tokens.verify(".".join((prefix, key, admin.split(".")[2], signature)))


@pytest.mark.parametrize(
    "role, more", [("guest", {}), ("boss", {}), ("agent", {"ttl": 0}), ("agent", {"ttl": MAX_TTL_S + 1})]
)
def test_impossible_tokens_are_refused(role: str, more: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Tokens([NEW]).mint(role, **more)


def test_a_short_secret_is_refused_and_none_makes_a_private_one() -> None:
    with pytest.raises(ConfigError):
        Tokens(["short"])
    assert Tokens().ephemeral
    with pytest.raises(AccessDenied):
        Tokens().verify(Tokens().mint("agent"))


async def test_links_are_bound_to_purpose_value_and_time(clock) -> None:
    tokens = Tokens([NEW, OLD], clock=clock)
    until = clock.now().timestamp() + 10
    signature = tokens.sign("media", "blob-1", until)
    tokens.check("media", "blob-1", until, signature)
    for purpose, value, at, proof in (
        ("other", "blob-1", until, signature),
        ("media", "blob-2", until, signature),
        ("media", "blob-1", until + 1, signature),
        ("media", "blob-1", until, signature[:-2] + "zz"),
        ("media", "blob-1", until, "nonsense"),
        ("media", "blob-1", until, signature + "é"),
    ):
        with pytest.raises(AccessDenied):
            tokens.check(purpose, value, at, proof)
    await asyncio.sleep(10)
    with pytest.raises(AccessDenied, match="expired"):
        tokens.check("media", "blob-1", until, signature)
