"""A fake Sinch: takes batches as strictly as the SMS API describes them, and signs its callbacks.

    fake = FakeSinch()
    provider = SinchSMSProvider(fake.options(), clock=clock, transport=fake.transport())
    request = fake.text("+15550123", "hello")                # a signed mo_text
    reports = fake.reports(fake.messages[0], "Dispatched", "Delivered")

It can be slow (`delay_s`), refuse (`fail`), lose the answer after accepting (`lose_answer`), and repeat and reorder
(`disorder`) its callbacks. Needs the [http] and [server] extras.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
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

from roomkit.models.delivery import WebhookRequest
from roomkit.providers.sinch.sms import SinchOptions
from roomkit.runtime import Clock
from roomkit.testing.asgi import ConnectionCut, StreamingASGITransport
from roomkit.testing.clock import VirtualClock

_NUMBER = re.compile(r"\+?[1-9][0-9]{6,14}")
_SENDER = re.compile(r"\+?[1-9][0-9]{2,14}|[A-Za-z0-9 ]{1,11}")
_FIELDS = frozenset(
    {"to", "from", "type", "body", "delivery_report", "callback_url", "client_reference", "send_at", "expire_at"}
)
_REPORTS = frozenset({"none", "summary", "full", "per_recipient", "per_recipient_final"})


@dataclass(frozen=True, slots=True)
class FakeBatch:
    """A batch that the fake has accepted."""

    id: str
    to: str
    sender: str | None
    text: str
    media: str | None
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    code: str
    text: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class FakeSinch:
    """One service plan. `messages` is what was accepted."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        number: str = "+15550100",
        webhook_url: str = "https://rooms.example/webhooks/sms",
    ) -> None:
        self.plan = "fakeplan0000"
        self.token = "fake-sinch-token"  # noqa: S105 - a fake
        self.secret = "fake-sinch-webhook-secret"  # noqa: S105 - a fake
        self.number = number
        self.webhook_url = webhook_url
        self.delay_s = 0.0
        self.messages: list[FakeBatch] = []
        self.media: dict[str, tuple[str, bytes]] = {}
        self.leaks: list[str] = []
        """Hosts which were sent the plan's token although they are not Sinch's API."""
        self._clock = clock or VirtualClock()
        self._script: deque[_Refusal | str] = deque()
        self._count = 0

    def options(self, **more: Any) -> SinchOptions:
        """Settings of a provider for this plan."""
        values: dict[str, Any] = {
            "service_plan_id": self.plan,
            "api_token": self.token,
            "webhook_secrets": (self.secret,),
            "from_number": self.number,
        }
        return SinchOptions(**{**values, **more})

    def transport(self) -> StreamingASGITransport:
        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route(f"/xms/v1/{self.plan}/batches", self._create, methods=["POST"]),
                Route("/media/{media}", self._media),
            ]
        )

    def fail(self, status: int, code: str, text: str = "scripted failure", *, retry_after: float | None = None) -> None:
        """The next message is refused."""
        headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
        self._script.append(_Refusal(status, code, text, headers))

    def lose_answer(self) -> None:
        """The next message is accepted, but the connection breaks before the answer."""
        self._script.append("lose")

    def hang(self) -> None:
        """The next message is accepted, but the answer never comes."""
        self._script.append("hang")

    def text(
        self, sender: str, text: str, *, media: Sequence[tuple[str, bytes]] = (), ident: str | None = None, **more: Any
    ) -> WebhookRequest:
        """A signed mo_text, or mo_media with `media`, (type, bytes) pairs to be downloaded from here."""
        files: list[dict[str, Any]] = []
        for mime, data in media:
            name = hashlib.sha256(data).hexdigest()
            self.media[name] = (mime, data)
            url = f"https://us.sms.api.sinch.com/media/{name}"
            files.append({"url": url, "content_type": mime, "status": "Uploaded", "code": 0})
        body = {
            "id": ident or self._id(),
            "type": "mo_media" if media else "mo_text",
            "from": sender.removeprefix("+"),
            "to": self.number.removeprefix("+"),
            "body": {"message": text, "media": files} if media else text,
            "operator_id": "310260",
            "received_at": self._clock.now().isoformat(),
            **more,
        }
        return self.signed(json.dumps(body).encode())

    def reports(self, message: FakeBatch, *states: str, code: int = 0) -> list[WebhookRequest]:
        """Signed recipient delivery reports, one for each state; `code` goes with all of them."""
        return [
            self.signed(
                json.dumps(
                    {
                        "type": "recipient_delivery_report_sms",
                        "batch_id": message.id,
                        "recipient": message.to.removeprefix("+"),
                        "code": code,
                        "status": state,
                        "at": self._clock.now().isoformat(),
                        "client_reference": message.body.get("client_reference"),
                    }
                ).encode()
            )
            for state in states
        ]

    def signed(self, body: bytes) -> WebhookRequest:
        """Any bytes, signed."""
        stamp, nonce = str(int(self._clock.now().timestamp())), f"01FJA8B4A7BM43YGWSG9{self._id()[-6:]}"
        data = b".".join((body, nonce.encode(), stamp.encode()))
        signature = base64.b64encode(hmac.new(self.secret.encode(), data, hashlib.sha256).digest()).decode()
        headers = {
            "content-type": "application/json",
            "x-sinch-webhook-signature": signature,
            "x-sinch-webhook-signature-nonce": nonce,
            "x-sinch-webhook-signature-timestamp": stamp,
            "x-sinch-webhook-signature-algorithm": "HmacSHA256",
        }
        return WebhookRequest("POST", self.webhook_url, headers, body)

    @staticmethod
    def disorder(requests: Sequence[WebhookRequest], rng: random.Random, *, repeats: int = 2) -> list[WebhookRequest]:
        """The same callbacks as a bad day delivers them: each up to `repeats` times, in any order."""
        mixed = [request for request in requests for _ in range(rng.randint(1, repeats))]
        rng.shuffle(mixed)
        return mixed

    def _id(self) -> str:
        self._count += 1
        return f"01FC66621XXXXX119Z{self._count:08d}"

    async def _create(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return Response(status_code=401)
        try:
            parsed: Any = json.loads(await request.body())
        except ValueError:
            return _problem(_Refusal(400, "syntax_invalid_json", "The JSON is invalid"))
        body = cast("dict[str, Any]", parsed)
        script = self._script.popleft() if self._script else None
        if refusal := script if isinstance(script, _Refusal) else _objection(body):
            return _problem(refusal)
        media = cast("dict[str, Any]", body["body"]) if isinstance(body["body"], dict) else {}
        text = str(media.get("message", "") if media else cast("object", body["body"]))
        batch = FakeBatch(self._id(), body["to"][0], body.get("from"), text, media.get("url"), body)
        self.messages.append(batch)
        await asyncio.sleep(1e9 if script == "hang" else self.delay_s)
        if script == "lose":
            raise ConnectionCut
        stamp = self._clock.now().isoformat()
        told = {**body, "id": batch.id, "canceled": False, "created_at": stamp, "modified_at": stamp}
        return JSONResponse(told, status_code=201)

    async def _media(self, request: Request) -> Response:
        if "authorization" in request.headers:
            self.leaks.append(request.headers.get("host", ""))
        mime, data = self.media[request.path_params["media"]]
        return Response(data, media_type=mime)


def _objection(body: Mapping[str, Any]) -> _Refusal | None:
    to, kind, said = body.get("to"), body.get("type", "mt_text"), body.get("body")
    numbers = cast("list[Any]", to) if isinstance(to, list) else []
    media = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    form, rule = "syntax_invalid_parameter_format", "syntax_constraint_violation"
    checks = (
        (bool(body.keys() - _FIELDS), form, f"unknown field {body.keys() - _FIELDS}"),
        (not numbers, rule, "'to' is required"),
        (any(not _NUMBER.fullmatch(str(one)) for one in numbers), form, "invalid number"),
        ("from" in body and not _SENDER.fullmatch(str(body["from"])), form, "invalid sender"),
        (kind not in {"mt_text", "mt_media"}, form, "invalid type"),
        (kind == "mt_text" and not (isinstance(said, str) and 0 < len(said) <= 2000), rule, "invalid body"),
        (kind == "mt_media" and not str(media.get("url", "")).startswith("http"), rule, "'body.url' is required"),
        (bool(media.keys() - {"url", "message", "subject"}), form, "unknown field in body"),
        (body.get("delivery_report", "none") not in _REPORTS, form, "invalid delivery_report"),
    )
    return next((_Refusal(400, code, text) for wrong, code, text in checks if wrong), None)


def _problem(refusal: _Refusal) -> JSONResponse:
    told = {"code": refusal.code, "text": refusal.text}
    return JSONResponse(told, status_code=refusal.status, headers=dict(refusal.headers))
