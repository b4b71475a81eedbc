"""Line 1: without a secret no webhook is taken, whichever provider it is for; nothing unsigned gets in either."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roomkit import RoomKit
from roomkit.channels.transport import TransportChannel
from roomkit.errors import AccessDenied, ConfigError
from roomkit.models.delivery import WebhookRequest
from roomkit.testing import VirtualClock
from tests.security.adapters import HOOK, PUBLIC, WEBHOOKS, WebhookCase, modules
from tests.servers.house import House, house

CASES = pytest.mark.parametrize("case", WEBHOOKS.values(), ids=WEBHOOKS)


async def post(h: House, body: bytes, headers: dict[str, str]) -> int:
    return (await h.http.post("/webhooks/hook", content=body, headers=headers)).status_code


@CASES
async def test_without_a_secret_nothing_is_taken(case: WebhookCase) -> None:
    request = case.signed(VirtualClock())
    try:
        provider = case.bare()
    except ConfigError:
        return
    for headers in (request.headers, {}, {"authorization": "Bearer x"}):
        with pytest.raises(AccessDenied):
            provider.verify(replace(request, headers=headers))
    kit = RoomKit(clock=VirtualClock())
    kit.register_channel(case.channel("hook", provider))
    async with house(kit, public_url=PUBLIC) as h:
        assert await post(h, request.body, dict(request.headers)) == case.refused
        assert await kit.list_rooms() == []


@CASES
async def test_what_is_not_signed_is_not_read(case: WebhookCase) -> None:
    clock = VirtualClock()
    request = case.signed(clock)
    spoilt = {name: {**request.headers, name: value[:-4] + "AAAA"} for name, value in request.headers.items()}
    bare = {name: value for name, value in request.headers.items() if name == "content-type"}
    async with house(case.kit(clock), public_url=PUBLIC) as h:
        proofs = [name for name in spoilt if "signature" in name or name == "authorization"]
        for headers in (bare, *(spoilt[name] for name in proofs)):
            assert await post(h, request.body, headers) == case.refused
        assert await post(h, b"", dict(request.headers)) == case.refused
        if case.signs_body:
            assert await post(h, request.body + b" ", dict(request.headers)) == case.refused
        assert await h.kit.list_rooms() == []
        assert await post(h, request.body, dict(request.headers)) == 200
        assert len(await h.kit.list_rooms()) == 1


async def test_a_provider_that_cannot_verify_is_refused_at_the_door() -> None:
    class Newcomer:
        """Sends, and forgot the other half."""

        name = "newcomer"

        async def send(self, message: object) -> None: ...

    kit = RoomKit(clock=VirtualClock())
    kit.register_channel(TransportChannel("hook", "sms", provider=Newcomer()))
    async with house(kit, public_url=PUBLIC) as h:
        assert await post(h, b"{}", {}) == 403
        assert HOOK.endswith("/webhooks/hook")
        assert await kit.list_rooms() == []


def test_who_has_no_webhooks_takes_none() -> None:
    without = [one for module in modules() for one in vars(module).values() if getattr(one, "webhooks", True) is False]
    assert without
    for kind in without:
        for signed in ({}, {"authorization": "Bearer x"}, {"x-signature": "x"}):
            with pytest.raises(AccessDenied):
                kind().verify(WebhookRequest("POST", HOOK, signed, b"{}"))
