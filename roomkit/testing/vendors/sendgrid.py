"""A fake SendGrid: takes letters as strictly as the real one, and signs its events and its Inbound Parse posts.

    fake = FakeSendGrid()
    provider = SendGridProvider(fake.options(), clock=fake.clock, transport=fake.transport())
    request = fake.letter("ada@x.example", "hello")           # a signed letter, taken apart
    reports = fake.reports(fake.letters[0], "processed", "delivered")

It can be slow, refuse, lose its answer or never give one (`mishaps`). Needs the [sendgrid] and [server] extras.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roomkit.errors import MissingExtra
from roomkit.models.delivery import WebhookRequest
from roomkit.providers.mail import MailSettings
from roomkit.providers.sendgrid.email import SendGridOptions
from roomkit.runtime import Clock
from roomkit.testing.asgi import StreamingASGITransport
from roomkit.testing.clock import VirtualClock
from roomkit.testing.vendors.mishaps import Mishaps

try:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
except ModuleNotFoundError as error:
    raise MissingExtra("FakeSendGrid", "cryptography", "sendgrid") from error

_ADDRESS = re.compile(r"[^\s@<>\"]+@[^\s@<>\"]+\.[^\s@<>\"]+")
_KNOWN = {
    "personalizations": list,
    "from": dict,
    "reply_to": dict,
    "subject": str,
    "content": list,
    "attachments": list,
    "template_id": str,
    "headers": dict,
    "categories": list,
    "custom_args": dict,
    "mail_settings": dict,
    "tracking_settings": dict,
    "asm": dict,
    "send_at": int,
    "ip_pool_name": str,
}
_PERSON = {"to", "cc", "bcc", "from", "subject", "headers", "substitutions", "dynamic_template_data", "custom_args"}
# Headers that SendGrid makes itself and refuses to be given.
_RESERVED = frozenset(
    {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding", "to", "from"}
    | {"subject", "reply-to", "cc", "bcc"}
)


@dataclass(frozen=True, slots=True)
class FakeLetter:
    """A letter that the fake has accepted; `body` is the request's JSON."""

    id: str
    to: str
    body: Mapping[str, Any]

    @property
    def text(self) -> str:
        found = [part["value"] for part in self.body.get("content", ()) if part["type"] == "text/plain"]
        return str(found[0]) if found else ""

    @property
    def headers(self) -> Mapping[str, str]:
        return cast("Mapping[str, str]", self.body.get("headers", {}))

    @property
    def message_id(self) -> str:
        return self.headers.get("Message-ID", "").strip("<>")


class FakeSendGrid:
    """One account. `letters` is what was accepted."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        address: str = "help@shop.example",
        webhook_url: str = "https://rooms.example/webhooks/email",
    ) -> None:
        self.clock = clock or VirtualClock()
        self.api_key = "SG.fake-sendgrid-key"
        self.address = address
        self.webhook_url = webhook_url
        self.letters: list[FakeLetter] = []
        self.mishaps = Mishaps()
        self._key = ec.derive_private_key(int.from_bytes(b"fake sendgrid"), ec.SECP256R1())
        self._count = 0

    @property
    def verification_key(self) -> str:
        """As the console shows it."""
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    def options(self, **more: Any) -> SendGridOptions:
        """Settings of a provider for this account; those of `MailSettings` may be among them."""
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        mail: dict[str, Any] = {"from_address": f"Shop <{self.address}>"}
        mail |= {name: more.pop(name) for name in list(more) if name in MailSettings.__dataclass_fields__}
        values: dict[str, Any] = {
            "api_key": self.api_key,
            "mail": MailSettings(**mail),
            "verification_keys": (self.verification_key,),
            "signing_key": pem.decode(),
        }
        return SendGridOptions(**{**values, **more})

    def transport(self) -> StreamingASGITransport:
        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v3/mail/send", self._send, methods=["POST"])])

    # -- webhooks ---------------------------------------------------------------------------------------------------

    def letter(
        self,
        sender: str,
        text: str | None = None,
        *,
        html: str | None = None,
        files: Sequence[tuple[str, str, bytes]] = (),
        headers: Mapping[str, str] | None = None,
        to: str | None = None,
        proven: bool = True,
        charset: str = "UTF-8",
    ) -> WebhookRequest:
        """A signed Inbound Parse post, taken apart; `files` are (name, type, bytes). With `proven`, DKIM passes."""
        to = to or self.address
        address = sender.rpartition("<")[2].strip("> ")
        self._count += 1
        lines = {
            "Received": "by mx0001p1mdw1.sendgrid.net with SMTP id fake",
            "From": sender,
            "To": to,
            "Subject": "A question",
            "Message-ID": f"<letter-{self._count}@{address.rpartition('@')[2]}>",
            "Date": "Tue, 01 Jan 2030 00:00:00 +0000",
            "MIME-Version": "1.0",
            **(headers or {}),
        }
        fields: dict[str, bytes] = {
            "headers": "".join(f"{name}: {value}\n" for name, value in lines.items()).encode(),
            "dkim": f"{{@{address.rpartition('@')[2]} : {'pass' if proven else 'fail'}}}".encode(),
            "SPF": b"pass" if proven else b"softfail",
            "to": to.encode(),
            "from": sender.encode(),
            "subject": lines["Subject"].encode(),
            "sender_ip": b"192.0.2.1",
            "envelope": json.dumps({"to": [to], "from": address}).encode(),
            "charsets": json.dumps({"to": "UTF-8", "from": "UTF-8", "subject": "UTF-8", "text": charset}).encode(),
            "attachments": str(len(files)).encode(),
        }
        fields |= {"text": text.encode(charset)} if text is not None else {}
        fields |= {"html": html.encode()} if html is not None else {}
        if files:
            info = {f"attachment{n}": {"filename": f[0], "name": f[0], "type": f[1]} for n, f in enumerate(files, 1)}
            fields["attachment-info"] = json.dumps(info).encode()
        return self.form(fields, files)

    def raw_letter(
        self, data: bytes, *, to: str | None = None, proven: bool = True, sender: str = ""
    ) -> WebhookRequest:
        """A signed Inbound Parse post of the whole message, as with "post the raw, full MIME message"."""
        domain = sender.rpartition("@")[2] or "x.example"
        fields = {
            "email": data,
            "dkim": f"{{@{domain} : {'pass' if proven else 'fail'}}}".encode(),
            "SPF": b"pass" if proven else b"fail",
            "envelope": json.dumps({"to": [to or self.address], "from": sender}).encode(),
        }
        return self.form(fields)

    def form(self, fields: Mapping[str, bytes], files: Sequence[tuple[str, str, bytes]] = ()) -> WebhookRequest:
        """Any Inbound Parse post, signed as under a security policy."""
        body = b""
        for name, data in fields.items():
            body += f'--xYzZY\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for number, (name, mime, data) in enumerate(files, 1):
            head = f'--xYzZY\r\nContent-Disposition: form-data; name="attachment{number}"; filename="{name}"\r\n'
            body += f"{head}Content-Type: {mime}\r\n\r\n".encode() + data + b"\r\n"
        return self.signed(body + b"--xYzZY--\r\n", "multipart/form-data; boundary=xYzZY")

    def reports(self, letter: FakeLetter, *kinds: str, **more: Any) -> list[WebhookRequest]:
        """Signed events about a letter, one request for each."""
        return [self.events(self.event(letter, kind, **more)) for kind in kinds]

    def event(self, letter: FakeLetter, kind: str, **more: Any) -> dict[str, Any]:
        self._count += 1
        return {
            "email": letter.to,
            "timestamp": int(self.clock.now().timestamp()),
            "event": kind,
            "sg_event_id": base64.urlsafe_b64encode(
                hashlib.sha256(f"{kind}{self._count}".encode()).digest()[:16]
            ).decode(),
            "sg_message_id": f"{letter.id}.filterdrecv-5f54b5d587-x-1-2.0",
            "smtp-id": letter.headers.get("Message-ID", "<unknown@geopod-ismtpd-1>"),
            **letter.body["personalizations"][0].get("custom_args", {}),
            **more,
        }

    def events(self, *events: Mapping[str, Any]) -> WebhookRequest:
        """Events in one signed request, as they come in batches."""
        body = "[" + ",\r\n".join(json.dumps(event) for event in events) + "]\r\n"
        return self.signed(body.encode(), "application/json;charset=utf-8")

    def signed(self, body: bytes, content_type: str) -> WebhookRequest:
        stamp = str(int(self.clock.now().timestamp()))
        signature = self._key.sign(stamp.encode() + body, ec.ECDSA(SHA256()))
        headers = {
            "content-type": content_type,
            "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
            "x-twilio-email-event-webhook-timestamp": stamp,
        }
        return WebhookRequest("POST", self.webhook_url, headers, body)

    # -- the API ----------------------------------------------------------------------------------------------------

    async def _send(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            return _problem(401, "The provided authorization grant is invalid, expired, or revoked")
        return await self.mishaps.answer(request, self._accept)

    async def _accept(self, request: Request) -> Response:
        try:
            body = cast("dict[str, Any]", json.loads(await request.body()))
        except ValueError:
            return _problem(400, "Bad Request")
        if wrong := _objection(body):
            return _problem(400, *wrong)
        if body.get("mail_settings", {}).get("sandbox_mode", {}).get("enable"):
            return Response(status_code=200)
        ident = base64.urlsafe_b64encode(hashlib.sha256(f"letter {len(self.letters)}".encode()).digest()[:16])
        letter = FakeLetter(ident.decode().rstrip("="), body["personalizations"][0]["to"][0]["email"], body)
        self.letters.append(letter)
        return Response(status_code=202, headers={"x-message-id": letter.id})


def _objection(body: Mapping[str, Any]) -> tuple[str, str] | None:
    for name, value in body.items():
        if name not in _KNOWN or not isinstance(value, _KNOWN[name]):
            return f"Additional property {name} is not allowed or of a wrong type", name
    people = cast("list[dict[str, Any]]", body.get("personalizations") or [{}])
    content = cast("list[dict[str, str]]", body.get("content") or [])
    files = cast("list[dict[str, str]]", body.get("attachments") or [])
    headers = {name.lower(): value for name, value in cast("dict[str, str]", body.get("headers", {})).items()}
    checks = (
        (not people[0].get("to"), "The to array is required for all personalization objects", "personalizations.0.to"),
        (bool(set(people[0]) - _PERSON), "a personalization has an unknown field", "personalizations.0"),
        (any(not _is_who(one) for one in people[0].get("to", ())), "Does not contain a valid address.", "to.email"),
        (not _is_who(body.get("from")), "The from email does not contain a valid address.", "from.email"),
        ("reply_to" in body and not _is_who(body["reply_to"]), "The reply_to is no valid address.", "reply_to.email"),
        (
            not content and "template_id" not in body,
            "Unless a valid template_id is provided, content is required",
            "content",
        ),
        (
            any(not one.get("value") for one in content),
            "The content value must be a string of one character",
            "content",
        ),
        (
            [one["type"] for one in content] not in ([], ["text/plain"], ["text/html"], ["text/plain", "text/html"]),
            "If present, text/plain and text/html may only be provided once, in this order",
            "content",
        ),
        (
            not body.get("subject") and not people[0].get("subject") and "template_id" not in body,
            "The subject is required",
            "subject",
        ),
        (bool(_RESERVED & set(headers)), "the header is reserved", "headers"),
        (any("\n" in value or "\r" in value for value in headers.values()), "Invalid header", "headers"),
        (
            any(not one.get("content") or not one.get("filename") for one in files),
            "an attachment is empty",
            "attachments",
        ),
        (any(";" in one.get("type", "") or "\r" in one.get("type", "") for one in files), "bad type", "attachments"),
        (len(json.dumps(body.get("custom_args", {}))) > 10_000, "custom_args are too long", "custom_args"),
    )
    return next(((told, where) for wrong, told, where in checks if wrong), None)


def _is_who(value: Any) -> bool:
    who = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return set(who) <= {"email", "name"} and _ADDRESS.fullmatch(str(who.get("email", ""))) is not None


def _problem(status: int, message: str, field: str | None = None) -> JSONResponse:
    return JSONResponse({"errors": [{"message": message, "field": field, "help": None}]}, status_code=status)
