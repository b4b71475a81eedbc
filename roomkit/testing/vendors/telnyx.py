"""A fake Telnyx: takes messages as strictly as the vendor's own types describe them, and signs its webhooks.

    fake = FakeTelnyx()
    provider = TelnyxSMSProvider(fake.options(), clock=clock, transport=fake.transport())
    request = fake.text("+15550123", "hello")                # a signed message.received
    reports = fake.reports(fake.messages[0], "sent", "delivered")

It can be slow (`delay_s`), refuse (`fail`), lose the answer after accepting (`lose_answer`), and repeat and reorder
(`disorder`) its webhooks. Needs the [telnyx] and [server] extras.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roomkit.errors import MissingExtra
from roomkit.models.delivery import WebhookRequest
from roomkit.providers.telnyx.sms import TelnyxOptions
from roomkit.runtime import Clock
from roomkit.testing.asgi import ConnectionCut, StreamingASGITransport
from roomkit.testing.clock import VirtualClock

try:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
except ModuleNotFoundError as error:
    raise MissingExtra("FakeTelnyx", "cryptography", "telnyx") from error

_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_SENDER = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,6}|[A-Za-z0-9 ]{1,11}")
_SMS_FIELDS = {
    "to": str,
    "from": str,
    "text": str,
    "media_urls": list,
    "messaging_profile_id": str,
    "webhook_url": str,
    "webhook_failover_url": str,
    "use_profile_webhooks": bool,
    "type": str,
    "subject": str,
    "auto_detect": bool,
    "encoding": str,
    "send_at": str,
}
_RCS_FIELDS = {
    "agent_id": str,
    "agent_message": dict,
    "messaging_profile_id": str,
    "to": str,
    "type": str,
    "sms_fallback": dict,
    "mms_fallback": dict,
    "webhook_url": str,
}


@dataclass(frozen=True, slots=True)
class FakeTelnyxMessage:
    """A message that the fake has accepted; `kind` is SMS, MMS or RCS."""

    id: str
    kind: str
    to: str
    sender: str
    body: Mapping[str, Any]
    key: str | None = None

    @property
    def text(self) -> str:
        content = self.body.get("agent_message", {}).get("content_message", {})
        return str(self.body.get("text") or content.get("text") or "")


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    code: str
    title: str
    detail: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class FakeTelnyx:
    """One account. `messages` is what was accepted; `opted_out` numbers are refused, `no_rcs` ones by RCS only."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        number: str = "+15550100",
        webhook_url: str = "https://rooms.example/webhooks/sms",
    ) -> None:
        self.api_key = "fake-telnyx-key"
        self.number = number
        self.webhook_url = webhook_url
        self.profile = "4000eba1-a0c0-4563-9925-b25e842a7cb6"
        self.agent = "fake-agent"
        self.delay_s = 0.0
        self.messages: list[FakeTelnyxMessage] = []
        self.opted_out: set[str] = set()
        self.no_rcs: set[str] = set()
        self.media: dict[str, tuple[str, bytes]] = {}
        self.leaks: list[str] = []
        """Hosts which were sent the account's key although they are not Telnyx's API."""
        self._clock = clock or VirtualClock()
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"fake telnyx").digest())
        self._script: deque[_Refusal | str] = deque()
        self._count = 0

    @property
    def public_key(self) -> str:
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def options(self, **more: Any) -> TelnyxOptions:
        """Settings of a provider for this account."""
        values: dict[str, Any] = {
            "api_key": self.api_key,
            "public_keys": (self.public_key,),
            "signing_key": base64.b64encode(self._key.private_bytes_raw()).decode(),
            "from_number": self.number,
            "messaging_profile_id": self.profile,
            "agent_id": self.agent,
        }
        return TelnyxOptions(**{**values, **more})

    def transport(self) -> StreamingASGITransport:
        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v2/messages", self._create, methods=["POST"]),
                Route("/v2/messages/rcs", self._create, methods=["POST"]),
                Route("/cdn/{media}", self._cdn),
            ]
        )

    def fail(
        self, status: int, code: str, title: str = "scripted failure", *, retry_after: float | None = None
    ) -> None:
        """The next message is refused."""
        headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
        self._script.append(_Refusal(status, code, title, headers=headers))

    def lose_answer(self) -> None:
        """The next message is accepted, but the connection breaks before the answer."""
        self._script.append("lose")

    def hang(self) -> None:
        """The next message is accepted, but the answer never comes."""
        self._script.append("hang")

    def text(
        self, sender: str, text: str, *, media: Sequence[tuple[str, bytes]] = (), ident: str | None = None, **more: Any
    ) -> WebhookRequest:
        """A signed message.received; `media` are (type, bytes) pairs to be downloaded from here."""
        files: list[dict[str, Any]] = []
        for mime, data in media:
            name = hashlib.sha256(data).hexdigest()
            self.media[name] = (mime, data)
            url = f"https://us-central-1.telnyxcloudstorage.com/cdn/{name}"
            files.append({"url": url, "content_type": mime, "size": len(data), "hash_sha256": name})
        payload = {
            "id": ident or self._id(),
            "record_type": "message",
            "direction": "inbound",
            "type": "MMS" if media else "SMS",
            "from": {"phone_number": sender, "carrier": "T-MOBILE USA, INC.", "line_type": "Wireless"},
            "to": [{"phone_number": self.number, "status": "webhook_delivered"}],
            "text": text,
            "media": files,
            "messaging_profile_id": self.profile,
            **more,
        }
        return self.event("message.received", payload)

    def rcs(self, sender: str, **body: Any) -> WebhookRequest:
        """A signed message.received of RCS; `body` is `text`, `user_file`, `location` or `suggestion_response`."""
        payload = {
            "id": self._id(),
            "record_type": "message",
            "direction": "inbound",
            "type": "RCS",
            "from": {"phone_number": sender, "carrier": "T-Mobile"},
            "to": [{"agent_id": self.agent, "agent_name": "Fake agent"}],
            "body": body,
        }
        return self.event("message.received", payload)

    def reports(self, message: FakeTelnyxMessage, *states: str, error: str | None = None) -> list[WebhookRequest]:
        """Signed delivery reports, one for each state; `error` is the code that goes with the failed ones."""
        requests: list[WebhookRequest] = []
        for state in states:
            kind = "message.sent" if state in {"queued", "sending", "sent"} else "message.finalized"
            failed = error is not None and state.endswith(("failed", "expired"))
            payload = {
                "id": message.id,
                "record_type": "message",
                "direction": "outbound",
                "type": message.kind,
                "from": {"phone_number": message.sender},
                "to": [{"phone_number": message.to, "status": state}],
                "errors": [{"code": error, "title": "Undeliverable"}] if failed else [],
            }
            requests.append(self.event("message.read" if state == "read" else kind, payload))
        return requests

    def event(self, kind: str, payload: Mapping[str, Any]) -> WebhookRequest:
        """Any event, signed."""
        stamp = self._clock.now()
        data = {
            "record_type": "event",
            "id": self._id(),
            "event_type": kind,
            "occurred_at": stamp.isoformat(),
            "payload": payload,
        }
        body = json.dumps({"data": data, "meta": {"attempt": 1, "delivered_to": self.webhook_url}}).encode()
        return self.signed(body)

    def signed(self, body: bytes) -> WebhookRequest:
        """Any bytes, signed."""
        stamp = str(int(self._clock.now().timestamp()))
        signature = base64.b64encode(self._key.sign(f"{stamp}|".encode() + body)).decode()
        headers = {
            "content-type": "application/json",
            "telnyx-timestamp": stamp,
            "telnyx-signature-ed25519": signature,
        }
        return WebhookRequest("POST", self.webhook_url, headers, body)

    @staticmethod
    def disorder(requests: Sequence[WebhookRequest], rng: random.Random, *, repeats: int = 2) -> list[WebhookRequest]:
        """The same webhooks as a bad day delivers them: each up to `repeats` times, in any order."""
        mixed = [request for request in requests for _ in range(rng.randint(1, repeats))]
        rng.shuffle(mixed)
        return mixed

    def _id(self) -> str:
        self._count += 1
        return f"00000000-0000-4000-8000-{self._count:012x}"

    async def _create(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            return _problem(_Refusal(401, "10009", "Authentication failed"))
        try:
            parsed: Any = json.loads(await request.body())
        except ValueError:
            return _problem(_Refusal(400, "10015", "Bad Request"))
        body = cast("dict[str, Any]", parsed)
        script = self._script.popleft() if self._script else None
        rcs = request.url.path.endswith("/rcs")
        if refusal := script if isinstance(script, _Refusal) else self._objection(body, rcs=rcs):
            return _problem(refusal)
        message = self._accept(body, request.headers.get("idempotency-key"), rcs=rcs)
        await asyncio.sleep(1e9 if script == "hang" else self.delay_s)
        if script == "lose":
            raise ConnectionCut
        return JSONResponse({"data": self._resource(message)})

    def _objection(self, body: Mapping[str, Any], *, rcs: bool) -> _Refusal | None:
        known = _RCS_FIELDS if rcs else _SMS_FIELDS
        for name, value in body.items():
            if name not in known or not isinstance(value, known[name]):
                return _Refusal(422, "10015", "Bad Request", f"{name} is unknown or of a wrong type")
        to = body.get("to", "")
        if not _NUMBER.fullmatch(to):
            return _Refusal(400, "40310", "Invalid 'to' address", f"{to} is no number")
        if to in self.opted_out:
            return _Refusal(403, "40300", "Blocked due to STOP message")
        return self._rcs_objection(body) if rcs else self._sms_objection(body)

    def _sms_objection(self, body: Mapping[str, Any]) -> _Refusal | None:
        sender, text, media = body.get("from"), body.get("text", ""), body.get("media_urls", ())
        checks = (
            (sender is None and not body.get("messaging_profile_id"), "40305", "Invalid 'from' address"),
            (sender is not None and not _SENDER.fullmatch(sender), "40305", "Invalid 'from' address"),
            (body.get("messaging_profile_id") not in {None, self.profile}, "10005", "Resource not found"),
            (not text and not media, "10004", "Missing required parameter"),
            (len(media) > 10 or any(not str(url).startswith("http") for url in media), "40317", "Invalid media"),
        )
        return next((_Refusal(400, code, title) for wrong, code, title in checks if wrong), None)

    def _rcs_objection(self, body: Mapping[str, Any]) -> _Refusal | None:
        if body.get("agent_id") != self.agent or body.get("messaging_profile_id") != self.profile:
            return _Refusal(404, "10005", "Resource not found", "no such agent or profile")
        if body["to"] in self.no_rcs and "sms_fallback" not in body:
            return _Refusal(400, "40001", "Not routable", "the recipient has no RCS")
        content = body["agent_message"].get("content_message", {})
        if wrong := _wrong_content(content):
            return _Refusal(422, "10015", "Bad Request", wrong)
        return None

    def _accept(self, body: Mapping[str, Any], key: str | None, *, rcs: bool) -> FakeTelnyxMessage:
        same = next((one for one in self.messages if key is not None and one.key == key), None)
        if same is not None:
            return same
        kind = "RCS" if rcs else "MMS" if body.get("media_urls") else "SMS"
        if rcs and body["to"] in self.no_rcs:
            kind = "SMS"
        sender = str(body.get("agent_id") or body.get("from") or self.number)
        message = FakeTelnyxMessage(self._id(), kind, body["to"], sender, dict(body), key)
        self.messages.append(message)
        return message

    def _resource(self, message: FakeTelnyxMessage) -> dict[str, Any]:
        sender = {"agent_id": message.sender} if message.kind == "RCS" else {"phone_number": message.sender}
        return {
            "record_type": "message",
            "direction": "outbound",
            "id": message.id,
            "type": message.kind,
            "messaging_profile_id": self.profile,
            "from": sender,
            "to": [{"phone_number": message.to, "status": "queued", "carrier": "", "line_type": "Wireless"}],
            "errors": [],
            "received_at": self._clock.now().isoformat(),
            "sent_at": None,
            "completed_at": None,
        }

    async def _cdn(self, request: Request) -> Response:
        if "authorization" in request.headers:
            self.leaks.append(request.headers.get("host", ""))
        mime, data = self.media[request.path_params["media"]]
        return Response(data, media_type=mime)


def _wrong_content(content: Mapping[str, Any]) -> str:
    """What RCS would not take: exactly one of text, file and card; nothing too long."""
    kinds = {"text", "rich_card", "content_info"} & content.keys()
    if len(kinds) != 1 or content.keys() - kinds - {"suggestions"}:
        return "exactly one of text, rich_card and content_info"
    suggestions: list[dict[str, Any]] = list(content.get("suggestions", ()))
    card = content.get("rich_card", {})
    cards: list[dict[str, Any]] = list(card.get("carousel_card", {}).get("card_contents", ()))
    if "carousel_card" in card and not 2 <= len(cards) <= 10:
        return "a carousel has 2 to 10 cards"
    if "standalone_card" in card:
        cards.append(card["standalone_card"]["card_content"])
    for one in cards:
        if len(one.get("title", "")) > 200 or len(one.get("description", "")) > 2000:
            return "a card is too long"
        suggestions += one.get("suggestions", ())
    labels: list[str] = [str(one.get("reply", one.get("action", {})).get("text", "")) for one in suggestions]
    if len(content.get("text", "")) > 3072 or any(not 1 <= len(label) <= 25 for label in labels):
        return "a text or a label is too long"
    return ""


def _problem(refusal: _Refusal) -> JSONResponse:
    error = {
        "code": refusal.code,
        "title": refusal.title,
        "detail": refusal.detail,
        "meta": {"url": f"https://developers.telnyx.com/docs/overview/errors/{refusal.code}"},
    }
    return JSONResponse({"errors": [error]}, status_code=refusal.status, headers=dict(refusal.headers))
