"""MemoryBus: signs of life reach who watches the room, and nobody else."""

from __future__ import annotations

import pytest

from roomkit.core.bus import MemoryBus
from roomkit.models.stream import Ephemeral


def typing(room_id: str = "r") -> Ephemeral:
    return Ephemeral(kind="typing", room_id=room_id, sender="ann")


def test_listeners_hear_their_room_of_their_tenant() -> None:
    bus, heard = MemoryBus(), []
    bus.subscribe("t", "r", heard.append)
    bus.publish("t", typing())
    bus.publish("t", typing("other"))
    bus.publish("u", typing())
    assert heard == [typing()]


def test_one_function_twice_is_two_subscriptions_and_leaving_is_idempotent() -> None:
    bus, heard = MemoryBus(), []
    leave = bus.subscribe("t", "r", heard.append)
    bus.subscribe("t", "r", heard.append)
    bus.publish("t", typing())
    leave()
    leave()
    bus.publish("t", typing())
    assert len(heard) == 3


def test_who_leaves_while_it_is_told_hears_no_more() -> None:
    bus, heard = MemoryBus(), []
    leaves = []
    bus.subscribe("t", "r", lambda message: leaves[0]())
    leaves.append(bus.subscribe("t", "r", heard.append))
    bus.publish("t", typing())
    assert heard == []


def test_a_failing_listener_does_not_silence_the_others(caplog: pytest.LogCaptureFixture) -> None:
    bus, heard = MemoryBus(), []

    def fail(message: Ephemeral) -> None:
        raise RuntimeError("no")

    bus.subscribe("t", "r", fail)
    bus.subscribe("t", "r", heard.append)
    bus.publish("t", typing())
    assert heard == [typing()]
    assert "failed on typing" in caplog.text


async def test_closed_it_is_silent() -> None:
    bus, heard = MemoryBus(), []
    bus.subscribe("t", "r", heard.append)
    await bus.aclose()
    bus.publish("t", typing())
    assert heard == []
