"""Line 4: a webhook that is sent again has no second effect, however often; where the scheme signs the time, an old one
is refused."""

from __future__ import annotations

import asyncio

import pytest

from roomkit.testing import VirtualClock
from tests.security.adapters import PUBLIC, WEBHOOKS, WebhookCase
from tests.servers.house import house

REPLAYS = 1000
CASES = pytest.mark.parametrize("case", WEBHOOKS.values(), ids=WEBHOOKS)


@CASES
async def test_a_thousand_replays_have_one_effect(case: WebhookCase) -> None:
    clock = VirtualClock()
    async with house(case.kit(clock), public_url=PUBLIC) as h:
        replies: list[str] = []

        @h.kit.on_message
        async def answer(context, message):
            replies.append(message.text)

        request = case.signed(clock)
        codes: set[int] = set()
        for burst in range(0, REPLAYS, 20):
            sent = (h.http.post("/webhooks/hook", content=request.body, headers=request.headers) for _ in range(20))
            codes |= {one.status_code for one in await asyncio.gather(*sent)}
            if burst == 500:
                await asyncio.sleep(120)
        assert codes == {200}
        (room,) = await h.kit.list_rooms()
        events = await h.kit.events(room.id, limit=1000, raw=True)
        assert [event.text for event in events if event.type == "message"] == ["hello"]
        assert replies == ["hello"]


@pytest.mark.parametrize("case", [c for c in WEBHOOKS.values() if c.signs_time], ids=lambda c: c.kind.__name__)
async def test_an_old_one_is_refused_where_the_time_is_signed(case: WebhookCase) -> None:
    clock = VirtualClock()
    async with house(case.kit(clock), public_url=PUBLIC) as h:
        request = case.signed(clock)
        await asyncio.sleep(301)
        answer = await h.http.post("/webhooks/hook", content=request.body, headers=request.headers)
        assert answer.status_code == case.refused
        assert await h.kit.list_rooms() == []
        again = {**request.headers, "webhook-timestamp": str(int(clock.now().timestamp()))}
        assert (await h.http.post("/webhooks/hook", content=request.body, headers=again)).status_code == case.refused


@pytest.mark.parametrize("case", [c for c in WEBHOOKS.values() if not c.signs_time], ids=lambda c: c.kind.__name__)
async def test_the_others_are_known_for_a_week(case: WebhookCase) -> None:
    clock = VirtualClock()
    async with house(case.kit(clock), public_url=PUBLIC) as h:
        request = case.signed(clock)
        for _ in range(3):
            assert (
                await h.http.post("/webhooks/hook", content=request.body, headers=request.headers)
            ).status_code == 200
            await asyncio.sleep(2 * 86_400)
        (room,) = await h.kit.list_rooms()
        assert [e.text for e in await h.kit.events(room.id) if e.type == "message"] == ["hello"]
