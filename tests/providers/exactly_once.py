"""Exactly one effect, for every provider: each webhook many times over, shuffled, 64 at once, across a restart.

    @ONCE
    async def test_exactly_one_effect(tmp_path):
        await exactly_once(make, lambda cid, p: SMSChannel(cid, provider=p), golden("telnyx"), folder=tmp_path)

`ROOMKIT_REPEATS=1000` (or `repeats=`) sets how often each webhook comes; `python -m proofs webhooks` does. The name of
the test is how it finds them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from roomkit import RoomKit
from roomkit.models.delivery import (
    DeliveryResult,
    DeliveryState,
    DeliveryStatus,
    InboundMessage,
    Outgoing,
    WebhookRequest,
    forward,
)
from roomkit.models.hooks import StatusChanged
from roomkit.ports.channel import Channel
from roomkit.testing import VirtualClock
from tests.servers.house import House, house

REPEATS = int(os.environ.get("ROOMKIT_REPEATS", "50"))
SEED = int(os.environ.get("ROOMKIT_SEED", "7"))
AT_ONCE = 64
PUBLIC = "https://rooms.example"
HOOK = f"{PUBLIC}/webhooks/hook"
GOLDEN = Path(__file__).parents[1] / "golden"
ONCE = pytest.mark.time_limit(60 + REPEATS)
Change = Callable[[bytes], bytes]


def golden(vendor: str, *names: str, content_type: str = "application/json") -> list[WebhookRequest]:
    """The vendor's documented webhooks, tests/golden/VENDOR/*.json, unsigned; by name, else all of them in order."""
    paths = [GOLDEN / vendor / f"{name}.json" for name in names] or sorted((GOLDEN / vendor).glob("*.json"))
    assert paths, f"there are no golden webhooks of {vendor}"
    return [WebhookRequest("POST", HOOK, {"content-type": content_type}, path.read_bytes()) for path in paths]


def golden_form(vendor: str, *names: str) -> list[WebhookRequest]:
    """The same for vendors that send forms: the JSON file holds the fields."""
    from urllib.parse import urlencode

    kind = "application/x-www-form-urlencoded"
    found = golden(vendor, *names, content_type=kind)
    return [replace(one, body=urlencode(json.loads(one.body)).encode()) for one in found]


async def exactly_once(
    make: Callable[[VirtualClock], Any],
    channel: Callable[[str, Any], Channel],
    webhooks: Sequence[WebhookRequest],
    *,
    folder: Path,
    before: Sequence[WebhookRequest] = (),
    repeats: int | None = None,
    seed: int = SEED,
) -> list[Any]:
    """Posts every webhook `repeats` times, and fails unless all of them together have the effect of one each.

    `make` builds the provider, again after the restart; `webhooks` are unsigned (the provider signs each copy anew);
    `before` come once, in order, before the storm: what edits and reactions point at. A delivery report finds a message
    that we sent; its state ends where the furthest report takes it and never goes back. Returns the inbound events.
    """
    clock, dice = VirtualClock(), random.Random(seed)
    storm = [replace(one, url=_url(one)) for one in webhooks for _ in range(repeats or REPEATS)]
    dice.shuffle(storm)
    probe = make(clock)
    messages, reports = _expected(probe, [*before, *webhooks])
    await _closed(probe)
    seen: list[tuple[str, DeliveryState]] = []
    half = len(storm) // 2
    for run, part in enumerate((storm[:half], storm[half:])):
        provider = make(clock)
        kit = RoomKit(f"sqlite:///{folder / 'once.db'}", clock=clock, token_secrets=["a secret for these tests only"])
        kit.register_channel(channel("hook", _Sender(provider)))
        kit.on(StatusChanged)(_hears(seen))
        async with AsyncExitStack() as stack:
            h = await stack.enter_async_context(house(kit, public_url=PUBLIC))
            if run == 0:
                await _send(kit, reports)
                for request in before:
                    await _post(h, provider.sign(replace(request, url=_url(request))))
            for at in range(0, len(part), AT_ONCE):
                await asyncio.gather(*(_post(h, provider.sign(request)) for request in part[at : at + AT_ONCE]))
            if run == 0:
                await _hang_up(h, [provider.sign(replace(one, url=_url(one))) for one in webhooks], dice)
            await asyncio.sleep(60)
            events = await _inbound(kit)
            states = await _states(kit)
        await _closed(provider)
    _judge_messages(messages, events)
    _judge_reports(reports, states, seen)
    return events


class _Sender:
    """A provider whose messages get the id that they say: so that a documented report is about one of ours."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def send(self, message: Outgoing) -> DeliveryResult:
        return DeliveryResult(success=True, provider_message_id=message.text)


def _url(request: WebhookRequest) -> str:
    query = urlsplit(request.url).query
    return HOOK + (f"?{query}" if query else "")


def _expected(
    provider: Any, webhooks: Iterable[WebhookRequest]
) -> tuple[dict[str, InboundMessage], dict[str, set[DeliveryState]]]:
    messages: dict[str, InboundMessage] = {}
    reports: defaultdict[str, set[DeliveryState]] = defaultdict(set)
    for request in webhooks:
        found = provider.parse(provider.sign(replace(request, url=_url(request))), "hook")
        assert found, f"it is parsed to nothing: {request.body[:200]!r}"
        for item in found:
            if isinstance(item, DeliveryStatus):
                reports[item.provider_message_id].add(item.state)
            else:
                assert item.external_id, f"nothing tells its repeats apart from others: {item!r}"
                messages[item.external_id] = item
    return messages, reports


def _hears(seen: list[tuple[str, DeliveryState]]) -> Callable[[StatusChanged], Any]:
    async def hear(notice: StatusChanged) -> None:
        seen.append((notice.record.provider_message_id or "", notice.record.state))

    return hear


async def _send(kit: RoomKit, reports: Iterable[str]) -> None:
    channel: Any = kit.channels["hook"]
    await kit.create_room("sent", channels=[])
    await kit.attach_channel("sent", "hook", metadata={channel.recipient_key: "nobody", "address": "nobody"})
    for name in reports:
        await kit.send("sent", name)
    await asyncio.sleep(5)


async def _post(h: House, request: WebhookRequest) -> None:
    query = urlsplit(request.url).query
    path = "/webhooks/hook" + (f"?{query}" if query else "")
    answer = await h.http.request(request.method, path, content=request.body, headers=dict(request.headers))
    assert answer.is_success, f"{answer.status_code} to {request.body[:200]!r}: {answer.text[:200]}"


async def _hang_up(h: House, requests: Sequence[WebhookRequest], dice: random.Random) -> None:
    """A vendor that does not wait for the answers, right before the restart."""
    posts = [asyncio.create_task(_post(h, request)) for request in requests]
    for _ in range(dice.randrange(20)):
        await asyncio.sleep(0)
    for post in posts:
        post.cancel()
    await asyncio.gather(*posts, return_exceptions=True)


async def _inbound(kit: RoomKit) -> list[Any]:
    found: list[Any] = []
    for room in await kit.list_rooms():
        events = await kit.events(room.id, limit=1000, raw=True)
        found += [e for e in events if e.source.channel_id == "hook" and e.source.provider_message_id]
    return found


async def _states(kit: RoomKit) -> dict[str, DeliveryState]:
    return {record.provider_message_id or "": record.state for record in await kit.deliveries("sent")}


def _judge_messages(messages: dict[str, InboundMessage], events: Sequence[Any]) -> None:
    got = Counter(event.source.provider_message_id for event in events)
    expected = Counter(dict.fromkeys(messages, 1))
    assert got == expected, f"too many: {got - expected}, missing: {expected - got}"


def _judge_reports(
    reports: dict[str, set[DeliveryState]],
    states: dict[str, DeliveryState],
    seen: Sequence[tuple[str, DeliveryState]],
) -> None:
    for name, said in reports.items():
        ends = {DeliveryState.SENT}
        for _ in range(len(said)):  # every order in which they can come
            ends |= {forward(state, new) for state in ends for new in said}
        final = {end for end in ends if all(forward(end, new) is end for new in said)}
        assert states[name] in final, f"{name} ended as {states[name]}, of {sorted(said)}"
        state = DeliveryState.SENT
        for moved in (change for which, change in seen if which == name):
            assert forward(state, moved) is moved is not state, f"{name} went from {state} to {moved}"
            state = moved


async def _closed(provider: Any) -> None:
    if (close := getattr(provider, "aclose", None)) is not None:
        await close()
