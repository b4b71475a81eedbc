"""Line 3: only the configured address counts; what a proxy, or whoever plays one, says of itself changes nothing."""

from __future__ import annotations

import pytest

from roomkit.servers.asgi import create_app
from roomkit.servers.run import server
from roomkit.testing import VirtualClock
from tests.security.adapters import PUBLIC, WEBHOOKS, WebhookCase
from tests.servers.house import house

SPOOFS: dict[str, str] = {
    "host": "evil.example",
    "x-forwarded-host": "evil.example",
    "x-forwarded-proto": "http",
    "x-forwarded-port": "8080",
    "x-forwarded-prefix": "/evil",
    "x-forwarded-server": "evil.example",
    "x-forwarded-for": "127.0.0.1",
    "x-real-ip": "127.0.0.1",
    "forwarded": 'host="evil.example";proto=http;for=127.0.0.1',
    "x-original-url": "/webhooks/other",
    "x-original-host": "evil.example",
    "x-rewrite-url": "/webhooks/other",
    "x-http-method-override": "GET",
    "x-scheme": "http",
    "via": "1.1 evil",
}
CASES = pytest.mark.parametrize("case", WEBHOOKS.values(), ids=WEBHOOKS)


@CASES
async def test_spoofed_headers_neither_admit_nor_refuse(case: WebhookCase) -> None:
    clock = VirtualClock()
    async with house(case.kit(clock), public_url=PUBLIC) as h:
        for n, (name, value) in enumerate(SPOOFS.items()):
            request = case.signed(clock, n, sender=f"+1555010{n:02}")
            headers = {**request.headers, name: value}
            answer = await h.http.post("/webhooks/hook", content=request.body, headers=headers)
            assert answer.status_code == 200, name
            unsigned = {name: value for name, value in headers.items() if name in ("content-type", *SPOOFS)}
            headers = headers if case.signs_body else unsigned
            forged = await h.http.post("/webhooks/hook", content=request.body + b"&x=1", headers=headers)
            assert forged.status_code == case.refused, name
        assert len(await h.kit.list_rooms()) == len(SPOOFS)


@pytest.mark.parametrize("case", [c for c in WEBHOOKS.values() if c.signs_url], ids=lambda c: c.kind.__name__)
async def test_a_signature_for_another_address_is_refused_whatever_the_headers_claim(case: WebhookCase) -> None:
    clock = VirtualClock()
    for public in ("https://other.example", None):
        async with house(case.kit(clock), public_url=public) as h:
            for name in SPOOFS:
                request = case.signed(clock)
                claims = {**request.headers, name: "rooms.example", "x-forwarded-proto": "https"}
                answer = await h.http.post("/webhooks/hook", content=request.body, headers=claims)
                assert answer.status_code == 403, name


async def test_the_server_itself_believes_no_proxy_and_counts_failures_by_the_real_peer() -> None:
    kit = next(iter(WEBHOOKS.values())).kit()
    assert server(create_app(kit)).config.proxy_headers is False
    async with house(failed_logins_per_s=0.1) as h:
        codes = [
            (await h.http.get("/api/me", headers={"authorization": "Bearer x", "x-forwarded-for": f"9.9.9.{n}"}))
            for n in range(5)
        ]
        assert [one.status_code for one in codes] == [401, 401, 401, 429, 429]
