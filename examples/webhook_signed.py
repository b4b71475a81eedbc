"""Signed webhooks: your own system talks to rooms over HTTP, both ways; what is not signed does not get in."""

from __future__ import annotations

import asyncio
import json

import httpx2

from roomkit import HTTPChannel, RoomKit
from roomkit.models.delivery import WebhookRequest
from roomkit.providers.http.http import HTTPWebhookOptions, HTTPWebhooks

SECRET = "an-example-secret-of-32-characters"  # noqa: S105 - yours comes from the environment
URL = "https://shop.example/webhooks/crm"
got: list[dict[str, object]] = []
told = asyncio.Event()


def your_system(request: httpx2.Request) -> httpx2.Response:
    headers = {name.lower(): value for name, value in request.headers.items()}
    signer.verify(WebhookRequest("POST", str(request.url), headers, request.content))  # what a receiver should do
    got.append(json.loads(request.content))
    told.set()
    return httpx2.Response(200, json={"id": "crm-1"})


async def resolve(host: str, port: int) -> list[str]:
    return ["93.184.216.34"]  # no network here: the answer of a name server


options = HTTPWebhookOptions(secrets=(SECRET,))
signer = HTTPWebhooks(options)
provider = HTTPWebhooks(options, transport=httpx2.MockTransport(your_system), resolver=resolve)
kit = RoomKit()
kit.register_channel(HTTPChannel("crm", provider=provider, url="https://crm.example/inbox"))


@kit.on_message
async def reply(ctx, message):
    return f"Ticket opened: {message.text}"


async def main() -> None:
    transport = httpx2.ASGITransport(kit.asgi(public_url="https://shop.example"))
    async with kit, httpx2.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        body = json.dumps({"type": "message", "id": "m1", "sender": "ann", "text": "The lamp is broken"}).encode()
        good = signer.sign(WebhookRequest("POST", URL, {"content-type": "application/json"}, body))
        for name, content in (("signed", body), ("forged", body.replace(b"broken", b"golden")), ("repeated", body)):
            answer = await client.post("/webhooks/crm", content=content, headers=dict(good.headers))
            print(f"{name:<8} -> {answer.status_code}")
        await told.wait()
        print("your system got:", [message["text"] for message in got])
        print("rooms:", len(await kit.list_rooms()))


if __name__ == "__main__":
    asyncio.run(main())
