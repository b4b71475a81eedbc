"""A fake Elastic Email: takes letters as strictly as the vendor's own types describe them, and posts its webhooks.

    fake = FakeElasticEmail()
    provider = ElasticEmailProvider(fake.options(), clock=fake.clock, transport=fake.transport())
    request = fake.letter("ada@x.example", "hello")           # as an inbound route posts it, with our token
    reports = fake.reports(fake.letters[0], "Sent", "Opened")  # signed, as JSON

It can be slow, refuse, lose its answer or never give one (`mishaps`). Needs the [server] extra.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roomkit.models.delivery import WebhookRequest
from roomkit.providers.elasticemail.email import ElasticEmailOptions
from roomkit.providers.mail import MailSettings
from roomkit.runtime import Clock
from roomkit.testing.asgi import StreamingASGITransport
from roomkit.testing.clock import VirtualClock
from roomkit.testing.vendors.mishaps import Mishaps

_WHO = re.compile(r"(?:[^<>\r\n]*<)?[^\s@<>\"]+@[^\s@<>\"]+\.[^\s@<>\"]+>?")
_CONTENT = {
    "Body": list,
    "Merge": dict,
    "Attachments": list,
    "Headers": dict,
    "Postback": str,
    "EnvelopeFrom": str,
    "From": str,
    "ReplyTo": str,
    "Subject": str,
    "TemplateName": str,
    "AttachFiles": list,
    "Utm": dict,
}
_KINDS = {"HTML", "PlainText", "AMP", "CSS"}


@dataclass(frozen=True, slots=True)
class FakeElasticLetter:
    """A letter that the fake has accepted; `body` is the request's JSON."""

    id: str
    transaction: str
    to: str
    body: Mapping[str, Any]

    @property
    def content(self) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", self.body["Content"])

    @property
    def text(self) -> str:
        return next(
            (str(one["Content"]) for one in self.content.get("Body", ()) if one["ContentType"] == "PlainText"), ""
        )


class FakeElasticEmail:
    """One account. `letters` is what was accepted."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        address: str = "help@shop.example",
        webhook_url: str = "https://rooms.example/webhooks/email",
    ) -> None:
        self.clock = clock or VirtualClock()
        self.api_key = "fake-elastic-email-key"
        self.secret = "fake-elastic-email-secret"  # noqa: S105 - a fake
        self.token = "a token of ours in the URL"  # noqa: S105 - a fake
        self.address = address
        self.webhook_url = webhook_url
        self.letters: list[FakeElasticLetter] = []
        self.mishaps = Mishaps()
        self._count = 0

    def options(self, **more: Any) -> ElasticEmailOptions:
        """Settings of a provider for this account; those of `MailSettings` may be among them."""
        mail: dict[str, Any] = {"from_address": f"Shop <{self.address}>"}
        mail |= {name: more.pop(name) for name in list(more) if name in MailSettings.__dataclass_fields__}
        values: dict[str, Any] = {
            "api_key": self.api_key,
            "mail": MailSettings(**mail),
            "signing_secrets": (self.secret,),
            "webhook_token": self.token,
        }
        return ElasticEmailOptions(**{**values, **more})

    def transport(self) -> StreamingASGITransport:
        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v4/emails/transactional", self._send, methods=["POST"])])

    # -- webhooks ---------------------------------------------------------------------------------------------------

    def letter(
        self,
        sender: str,
        text: str | None = None,
        *,
        html: str | None = None,
        files: Sequence[tuple[str, bytes]] = (),
        headers: Mapping[str, str] | None = None,
        to: str | None = None,
        signed: bool = False,
    ) -> WebhookRequest:
        """What an inbound route posts: a form with our token in the URL, or `signed` as notifications are."""
        to = to or self.address
        name, _, address = sender.rpartition("<")
        address = address.strip("> ")
        self._count += 1
        lines = {
            "From": sender,
            "To": to,
            "Subject": "A question",
            "Message-ID": f"<letter-{self._count}@{address.rpartition('@')[2]}>",
            "Date": "Tue, 01 Jan 2030 00:00:00 +0000",
            **(headers or {}),
        }
        fields = {
            "from_email": address,
            "from_name": name.strip(' "'),
            "env_from": address,
            "env_to_list": to,
            "to_list": to,
            "header_list": "".join(f"{name}: {value}\r\n" for name, value in lines.items()),
            "subject": lines["Subject"],
        }
        fields |= {"body_text": text} if text is not None else {}
        fields |= {"body_html": html} if html is not None else {}
        for number, (file, data) in enumerate(files, 1):
            fields |= {f"att{number}_name": file, f"att{number}_content": base64.b64encode(data).decode()}
        body = urlencode(fields).encode()
        kind = "application/x-www-form-urlencoded"
        return self.signed(body, kind) if signed else self.tokened("POST", body, kind)

    def reports(self, letter: FakeElasticLetter, *states: str, **more: str) -> list[WebhookRequest]:
        """Signed notifications about a letter, one for each."""
        known = {
            "to": letter.to,
            "from": self.address,
            "date": self.clock.now().isoformat(),
            "subject": str(letter.content.get("Subject", "")),
            "transaction": letter.transaction,
            "messageid": letter.id,
        }
        return [self.notice({**known, "status": state, **more}) for state in states]

    def notice(self, fields: Mapping[str, str]) -> WebhookRequest:
        """Any notification as signed JSON (`DeliveryMethod` PostJson with `EnableSigning`)."""
        return self.signed(json.dumps(dict(fields)).encode(), "application/json")

    def asked(self, fields: Mapping[str, str]) -> WebhookRequest:
        """The same as webhooks come by default: a GET with everything in the query, and our token."""
        return self.tokened("GET", b"", "", fields)

    def signed(self, body: bytes, content_type: str) -> WebhookRequest:
        stamp = str(int(self.clock.now().timestamp()))
        signature = hmac.new(self.secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {
            "content-type": content_type,
            "x-elasticemail-webhook-id": "1",
            "x-elasticemail-timestamp": stamp,
            "x-elasticemail-signature": f"v1={signature}",
        }
        return WebhookRequest("POST", self.webhook_url, headers, body)

    def tokened(
        self, method: str, body: bytes, content_type: str, fields: Mapping[str, str] | None = None
    ) -> WebhookRequest:
        query = {**(fields or {}), "token": self.token}
        headers = {"content-type": content_type} if content_type else {}
        return WebhookRequest(method, f"{self.webhook_url}?{urlencode(query)}", headers, body, query)

    # -- the API ----------------------------------------------------------------------------------------------------

    async def _send(self, request: Request) -> Response:
        if request.headers.get("x-elasticemail-apikey") != self.api_key:
            return JSONResponse({"Error": "Access Denied."}, status_code=401)
        return await self.mishaps.answer(request, self._accept)

    async def _accept(self, request: Request) -> Response:
        try:
            body = cast("dict[str, Any]", json.loads(await request.body()))
        except ValueError:
            return JSONResponse({"Error": "Bad request"}, status_code=400)
        if wrong := _objection(body):
            return JSONResponse({"Error": wrong}, status_code=400)
        number = hashlib.sha256(f"letter {len(self.letters)}".encode()).digest()
        ident = base64.urlsafe_b64encode(number[:16]).decode().rstrip("=")
        letter = FakeElasticLetter(ident, number[16:].hex(), body["Recipients"]["To"][0], body)
        self.letters.append(letter)
        return JSONResponse({"TransactionID": letter.transaction, "MessageID": letter.id})


def _objection(body: Mapping[str, Any]) -> str | None:
    content = cast("dict[str, Any]", body.get("Content") or {})
    people = cast("dict[str, list[str]]", body.get("Recipients") or {})
    parts = cast("list[dict[str, str]]", content.get("Body") or [])
    files = cast("list[dict[str, Any]]", content.get("Attachments") or [])
    headers = cast("dict[str, str]", content.get("Headers") or {})
    checks = (
        (bool(set(body) - {"Recipients", "Content", "Options"}), "an unknown field"),
        (any(name not in _CONTENT or not isinstance(value, _CONTENT[name]) for name, value in content.items()),
         "an unknown field of Content, or one of a wrong type"),
        (not people.get("To") or bool(set(people) - {"To", "CC", "BCC"}), "No recipients provided"),
        (any(not _WHO.fullmatch(one) for one in people.get("To", ())), "Invalid recipient"),
        (not _WHO.fullmatch(content.get("From", "")), "From is required"),
        ("ReplyTo" in content and not _WHO.fullmatch(content["ReplyTo"]), "Invalid ReplyTo"),
        (not parts and not content.get("TemplateName"), "Body or template is required"),
        (any(one.get("ContentType") not in _KINDS or set(one) - {"ContentType", "Content", "Charset"} for one in parts),
         "Invalid body part"),
        (any(set(one) - {"BinaryContent", "Name", "ContentType", "Size"} or not one.get("Name") for one in files),
         "Invalid attachment"),
        (any("\n" in value or "\r" in value for value in headers.values()), "Invalid header"),
    )  # fmt: skip
    return next((told for wrong, told in checks if wrong), None)
