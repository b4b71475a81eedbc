"""A messaging vendor of one's own behind the provider port, held against the conformance kit."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace

from roomkit import InboundMessage, RoomKit, SMSChannel
from roomkit.errors import AccessDenied
from roomkit.models.delivery import DeliveryResult, Outgoing, WebhookReply, WebhookRequest
from roomkit.testing import check_message_provider, run
from roomkit.testing.messages import message_to


class PigeonPost:
    name = "pigeon"

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self.sent: list[Outgoing] = []

    async def send(self, message: Outgoing) -> DeliveryResult:
        self.sent.append(message)  # a real one posts to its vendor, with message.idempotency_key
        return DeliveryResult(success=True, provider_message_id=f"pigeon-{len(self.sent)}")

    def verify(self, request: WebhookRequest) -> None:
        given = request.headers.get("x-pigeon-signature", "").encode()
        if not self._secret or not hmac.compare_digest(self._signature(request).encode(), given):
            raise AccessDenied("pigeon webhook: the signature does not match")

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage]:
        letter = json.loads(request.body)
        more = {"external_id": letter["id"], "provider": self.name, "raw_payload": letter}
        return [InboundMessage.text(channel_id, letter["from"], letter["text"], **more)]

    def reply(self, request: WebhookRequest) -> WebhookReply:
        return WebhookReply()

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return replace(request, headers={**request.headers, "x-pigeon-signature": self._signature(request)})

    def _signature(self, request: WebhookRequest) -> str:
        signed = b"\n".join((request.method.encode(), request.url.encode(), request.body))
        return hmac.new(self._secret.encode(), signed, hashlib.sha256).hexdigest()


async def main() -> None:
    letter = json.dumps({"id": "p1", "from": "+15550101", "text": "Coo"}).encode()
    webhook = WebhookRequest("POST", "https://rooms.example/webhooks/pigeons", {}, letter)
    await check_message_provider(lambda: PigeonPost("secret"), inbound=[webhook], outgoing=message_to("+15550101"))
    print("the conformance kit is content: signed, parsed, sent, and 300 forged webhooks refused")

    post, kit = PigeonPost("secret"), RoomKit()
    kit.register_channel(SMSChannel("pigeons", provider=post))
    async with kit:
        (message,) = post.parse(post.sign(webhook), "pigeons")
        room_id = (await kit.process_inbound(message)).room_id
        await (await kit.send(room_id, "Coo yourself", by="ben")).settled()
    print("sent:", [(out.recipient, out.text) for out in post.sent])


if __name__ == "__main__":
    run(main())
