"""The story of examples/bridge.py behind a real server: `python -m tests.e2e.bridge_app DB PORT PREFIX`."""

from __future__ import annotations

import asyncio
import sys

import httpx2

from examples.bridge import SHOP, Vendors, furnish, story
from roomkit import RoomKit
from roomkit.models.delivery import WebhookRequest
from tests.e2e.app import serve


async def main(database: str, port: int, prefix: str) -> None:
    secret = "only for the browser tests, never anywhere else"
    kit, vendors = RoomKit(f"sqlite:///{database}", token_secrets=(secret,)), Vendors()
    furnish(kit, vendors)
    door = httpx2.AsyncClient(transport=httpx2.ASGITransport(kit.asgi(public_url=SHOP)), base_url=SHOP)

    async def post(channel: str, webhook: WebhookRequest) -> None:
        answer = await door.post(f"/webhooks/{channel}", content=webhook.body, headers=dict(webhook.headers))
        assert answer.status_code == 200, answer.text

    async with kit, door:
        await story(kit, vendors, post)
        await serve(kit, port, prefix, guests=("dana",))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
