"""Line 24: ids come from outside, by the million. What is kept per id in memory has a limit: tens of thousands are fed
to each keeper here, and a kit on a disk does not grow with the messages that it has taken."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any

import pytest

from roomkit import RoomKit
from roomkit.ai.budget import Budget, SpendLimits
from roomkit.channels.transport import TransportChannel
from roomkit.core.engine import KitOptions
from roomkit.errors import Unavailable
from roomkit.models.access import Principal, PrincipalRole
from roomkit.models.delivery import InboundMessage
from roomkit.net import redaction
from roomkit.net.breaker import Breakers
from roomkit.net.ratelimit import RateLimiter
from roomkit.net.tokens import Tokens
from roomkit.servers.asgi import create_app
from roomkit.testing import VirtualClock

IDS = 30_000
MOST = 25_000
"""More than any keeper may have."""


def limiter() -> tuple[Callable[[str], Any], Sized]:
    kept = RateLimiter(1.0)
    return kept.try_acquire, kept


def budget() -> tuple[Callable[[str], Any], Sized]:
    kept = Budget(SpendLimits(room_tool_calls=5))
    return lambda one: kept.spend_tool_call("t", one), kept._accounts


def names() -> tuple[Callable[[str], Any], Sized]:
    kept = create_app(RoomKit(clock=VirtualClock())).door.views
    return lambda one: kept.remember(Principal(id=one, role=PrincipalRole.AGENT, display_name=one)), kept._names


def senders() -> tuple[Callable[[str], Any], Sized]:
    engine = RoomKit(clock=VirtualClock(), options=KitOptions(inbound_limit=(1.0, 2))).engine
    return lambda one: engine.admit("t", "sms", one), engine._limits


def secrets() -> tuple[Callable[[str], Any], Sized]:
    return lambda one: redaction.register_secret(f"a secret {one}"), redaction._secrets


def breakers() -> tuple[Callable[[str], Any], Sized]:
    kept = Breakers()
    return lambda one: kept.acquire(one, one).failed(Unavailable("twilio", "down")), kept


def buckets() -> tuple[Callable[[str], Any], Sized]:
    lanes = RoomKit(clock=VirtualClock()).engine.lanes
    return lambda one: lanes._pacer._bucket(one, 1.0, None), lanes._pacer._buckets


KEEPERS = (limiter, budget, names, senders, secrets, breakers, buckets)


@pytest.mark.may_block
@pytest.mark.parametrize("keeper", KEEPERS, ids=lambda one: one.__name__)
async def test_a_keeper_of_ids_has_a_limit(keeper: Callable[[], tuple[Callable[[str], Any], Sized]]) -> None:
    before = dict(redaction._secrets)
    feed, kept = keeper()
    try:
        for n in range(IDS):
            feed(f"{keeper.__name__}-{n}")
        size = _size(kept)
        assert 0 <= size <= MOST
    finally:
        redaction._secrets.clear()
        redaction._secrets.update(before)


def _size(kept: Any) -> int:
    if hasattr(kept, "__len__"):
        return len(kept)
    return max(len(value) for name in type(kept).__slots__ if isinstance(value := getattr(kept, name, None), dict))


async def test_revoked_tokens_are_forgotten_when_they_would_have_expired() -> None:
    tokens = Tokens(["a secret for these tests only"], clock=VirtualClock())
    for n in range(1000):
        tokens.revoke(f"t{n}", until=-1.0)
    assert len(tokens._revoked) <= 1


@pytest.mark.may_block
async def test_a_kit_on_a_disk_does_not_grow_with_what_it_has_taken(tmp_path: Path) -> None:
    """Messages from new senders, each with an id of its own: after the first rooms are resident, the next hundreds
    take no more room than they free."""
    options = KitOptions(resident_rooms=20, inbound_limit=(1.0, 2))
    kit = RoomKit(f"sqlite:///{tmp_path / 'rooms.db'}", clock=VirtualClock(), options=options)
    kit.register_channel(TransportChannel("sms", "sms"))
    async with kit:
        await feed(kit, 0, 70)
        tracemalloc.start()
        try:
            await feed(kit, 70, 100)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            await feed(kit, 100, 200)
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert len(kit.engine.table) <= 60
    grown = (after - before) / 100
    # What remains is the sender's bucket, whose number is limited (see above), and the interpreter's own noise.
    assert grown < 1500, f"{grown:.0f} bytes stay for each message"


async def feed(kit: RoomKit, first: int, last: int) -> None:
    for n in range(first, last):
        result = await kit.process_inbound(InboundMessage.text("sms", f"+44{n}", "hello", external_id=f"id-{n}"))
        await result.settled()
