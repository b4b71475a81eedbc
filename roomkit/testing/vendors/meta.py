"""A fake Meta: takes WhatsApp's and Messenger's messages as strictly as the real Graph API, and signs webhooks.

    fake = FakeMeta()
    provider = MetaWhatsAppProvider(fake.whatsapp_options(), transport=fake.transport())
    request = fake.text("15550123", "hello")               # a signed WhatsApp webhook
    reports = fake.reports(fake.messages[0], "sent", "read")

It can be slow (`delay_s`), refuse (`fail`), lose the answer after accepting (`lose_answer`), and repeat and reorder
(`disorder`) its webhooks. The signature is written anew here, not taken from the provider. Needs the [server] extra.
"""

from __future__ import annotations

import asyncio
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
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roomkit.models.delivery import WebhookRequest
from roomkit.providers.meta.graph import HEADER, MetaOptions
from roomkit.testing.asgi import ConnectionCut, StreamingASGITransport

_ENVELOPE = {"messaging_product", "recipient_type", "to", "recipient", "type", "context", "biz_opaque_callback_data"}
_NUMBER = re.compile(r"\+?[1-9][0-9]{6,14}")
_KINDS: Mapping[str, set[str]] = {
    "text": {"body", "preview_url"},
    "image": {"link", "id", "caption"},
    "video": {"link", "id", "caption"},
    "audio": {"link", "id"},
    "sticker": {"link", "id"},
    "document": {"link", "id", "caption", "filename"},
    "location": {"latitude", "longitude", "name", "address"},
    "reaction": {"message_id", "emoji"},
    "template": {"name", "language", "components"},
    "interactive": {"type", "body", "header", "footer", "action"},
}
_MESSENGER = {"recipient", "messaging_type", "tag", "message", "sender_action"}
_MESSENGER_ACTIONS = {"typing_on", "typing_off", "mark_seen"}


@dataclass(frozen=True, slots=True)
class FakeMetaMessage:
    """A message that the fake has accepted, as it was asked for; `file` is what was uploaded with it."""

    name: str
    to: str
    body: Mapping[str, Any]
    file: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    code: int
    message: str
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class _Webhooks:
    """What Meta tells a server, signed as the app."""

    app_secret: str
    verify_token: str
    phone_number_id: str
    page_id: str
    webhook_url: str
    _count = 0

    def text(self, sender: str, body: str, *, name: str | None = None, **more: Any) -> WebhookRequest:
        """A signed WhatsApp webhook with one text; `sender` as digits."""
        return self.message(sender, {"type": "text", "text": {"body": body}, **({"id": name} if name else {}), **more})

    def message(self, sender: str, message: Mapping[str, Any]) -> WebhookRequest:
        """A signed WhatsApp webhook with a message of any kind; id, sender and time are added."""
        sender = sender.removeprefix("+")
        whole = {"from": sender, "id": self._name("wamid"), "timestamp": "1893456000", **message}
        contact = {"profile": {"name": "Ada Byron"}, "wa_id": sender}
        return self.whatsapp({"contacts": [contact], "messages": [whole]})

    def reports(self, message: FakeMetaMessage, *states: str, error: int | None = None) -> list[WebhookRequest]:
        """Signed WhatsApp delivery reports, one for each state; `error` goes with the failed ones."""
        found: list[WebhookRequest] = []
        for state in states:
            status: dict[str, Any] = {
                "id": message.name,
                "status": state,
                "timestamp": "1893456100",
                "recipient_id": message.to.removeprefix("+"),
            }
            if error is not None and state == "failed":
                data = {"details": "scripted"}
                status["errors"] = [{"code": error, "title": "Failed", "message": "Failed", "error_data": data}]
            found.append(self.whatsapp({"statuses": [status]}))
        return found

    def whatsapp(self, value: Mapping[str, Any], *, field: str = "messages") -> WebhookRequest:
        """Any WhatsApp change, signed."""
        metadata = {"display_phone_number": "15550783881", "phone_number_id": self.phone_number_id}
        whole = {"messaging_product": "whatsapp", "metadata": metadata, **value}
        entry = {"id": "102290129340398", "changes": [{"value": whole, "field": field}]}
        return self.json({"object": "whatsapp_business_account", "entry": [entry]})

    def event(self, *events: Mapping[str, Any], sender: str = "24000000001") -> WebhookRequest:
        """A signed Messenger webhook; sender, page and time are added to each event."""
        whole = [
            {"sender": {"id": sender}, "recipient": {"id": self.page_id}, "timestamp": 1893456000000, **one}
            for one in events
        ]
        return self.json({"object": "page", "entry": [{"id": self.page_id, "time": 1893456000500, "messaging": whole}]})

    def json(self, data: Any) -> WebhookRequest:
        """Any data, signed."""
        body = json.dumps(data, ensure_ascii=True).encode()
        digest = hmac.digest(self.app_secret.encode(), body, "sha256").hex()
        headers = {"content-type": "application/json", HEADER: f"sha256={digest}"}
        return WebhookRequest("POST", self.webhook_url, headers, body)

    def challenge(self, token: str | None = None, challenge: str = "1158201444") -> WebhookRequest:
        """The GET by which Meta makes sure of the address."""
        query = {
            "hub.mode": "subscribe",
            "hub.verify_token": self.verify_token if token is None else token,
            "hub.challenge": challenge,
        }
        url = self.webhook_url + "?" + "&".join(f"{name}={value}" for name, value in query.items())
        return WebhookRequest("GET", url, {}, b"", query)

    @staticmethod
    def disorder(requests: Sequence[WebhookRequest], rng: random.Random, *, repeats: int = 2) -> list[WebhookRequest]:
        """The same webhooks as a bad day delivers them: each up to `repeats` times, in any order."""
        mixed = [request for request in requests for _ in range(rng.randint(1, repeats))]
        rng.shuffle(mixed)
        return mixed

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}.HBgL{self._count:016X}" if kind == "wamid" else f"{kind}{self._count:024d}"


class FakeMeta(_Webhooks):
    """One app with a phone number and a page. `messages` is what was accepted; to numbers in `closed` the 24-hour
    window is shut, those in `unknown` are not on WhatsApp."""

    def __init__(
        self,
        *,
        token: str = "fake-meta-access-token",  # noqa: S107 - a fake
        app_secret: str = "fake-meta-app-secret",  # noqa: S107 - a fake
        verify_token: str = "fake-meta-verify-token",  # noqa: S107 - a fake
        phone_number_id: str = "106540352242922",
        page_id: str = "1234567890",
        version: str = "v25.0",
        webhook_url: str = "https://rooms.example/webhooks/whatsapp",
    ) -> None:
        self.token = token
        self.app_secret = app_secret
        self.verify_token = verify_token
        self.phone_number_id = phone_number_id
        self.page_id = page_id
        self.version = version
        self.webhook_url = webhook_url
        self.delay_s = 0.0
        self.messages: list[FakeMetaMessage] = []
        self.actions: list[Mapping[str, Any]] = []
        """What is no message: read receipts and signs of typing."""
        self.closed: set[str] = set()
        self.unknown: set[str] = set()
        self.templates: set[str] = {"hello_world"}
        self.files: dict[str, tuple[str, bytes]] = {}
        self.proofs: list[str | None] = []
        self.leaks: list[str] = []
        """Hosts which were sent the token although they are not Meta's."""
        self._script: deque[_Refusal | str] = deque()

    def whatsapp_options(self, **more: Any) -> MetaOptions:
        values: dict[str, Any] = {**self._options(), "account": self.phone_number_id, **more}
        return MetaOptions(**values)

    def messenger_options(self, **more: Any) -> MetaOptions:
        values: dict[str, Any] = {**self._options(), "account": self.page_id, **more}
        return MetaOptions(**values)

    def _options(self) -> dict[str, Any]:
        return {"token": self.token, "app_secret": self.app_secret, "verify_token": self.verify_token}

    def transport(self) -> StreamingASGITransport:
        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        api = f"/{self.version}"
        return Starlette(
            routes=[
                Route(f"{api}/{self.phone_number_id}/messages", self._whatsapp, methods=["POST"]),
                Route(f"{api}/{self.phone_number_id}/media", self._upload, methods=["POST"]),
                Route(f"{api}/{self.page_id}/messages", self._messenger, methods=["POST"]),
                Route(f"{api}/{{media}}", self._media),
                Route("/whatsapp_business/attachments/{media}", self._cdn),
                Route("/elsewhere/{media}", self._cdn),
            ]
        )

    def fail(
        self,
        status: int,
        code: int,
        message: str = "scripted failure",
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        """The next request is refused; `more` goes into the error, e.g. `error_subcode=2018278`."""
        self._script.append(_Refusal(status, code, message, more, headers or {}))

    def lose_answer(self) -> None:
        """The next message is accepted, but the connection breaks before the answer."""
        self._script.append("lose")

    def hang(self) -> None:
        """The next message is accepted, but the answer never comes."""
        self._script.append("hang")

    def file(self, data: bytes, mime: str = "image/jpeg") -> str:
        """A file that can be downloaded from here; its media id."""
        name = str(int(hashlib.md5(data, usedforsecurity=False).hexdigest()[:12], 16))
        self.files[name] = (mime, data)
        return name

    # -- the Graph API ----------------------------------------------------------------------------------

    def _authorized(self, request: Request) -> bool:
        proof = request.query_params.get("appsecret_proof")
        self.proofs.append(proof)
        right = hmac.new(self.app_secret.encode(), self.token.encode(), hashlib.sha256).hexdigest()
        return request.headers.get("authorization") == f"Bearer {self.token}" and proof in (None, right)

    async def _taken(
        self, request: Request, body: Mapping[str, Any], objection: _Refusal | None
    ) -> Response | str | None:
        """A refusal; or what is to go wrong after the message was accepted."""
        if not self._authorized(request):
            return _problem(_Refusal(401, 190, "Invalid OAuth access token."))
        script = self._script.popleft() if self._script else None
        if isinstance(script, _Refusal):
            return _problem(script)
        del body
        return _problem(objection) if objection else script

    async def _whatsapp(self, request: Request) -> Response:
        body = cast("dict[str, Any]", json.loads(await request.body()))
        taken = await self._taken(request, body, self._whatsapp_objection(body))
        if isinstance(taken, Response):
            return taken
        if "status" in body:
            self.actions.append(body)
            return JSONResponse({"success": True})
        to = str(body.get("to") or body.get("recipient"))
        message = FakeMetaMessage(self._name("wamid"), to, body)
        self.messages.append(message)
        await self._trouble(taken)
        digits = to.removeprefix("+")
        return JSONResponse(
            {
                "messaging_product": "whatsapp",
                "contacts": [{"input": to, "wa_id": digits}],
                "messages": [{"id": message.name, "message_status": "accepted"}],
            }
        )

    def _whatsapp_objection(self, body: Mapping[str, Any]) -> _Refusal | None:
        if "status" in body:
            fine = body.keys() <= {"messaging_product", "status", "message_id", "typing_indicator"}
            return None if fine and body["status"] == "read" else _Refusal(400, 100, "(#100) Invalid parameter")
        kind = str(body.get("type", ""))
        inner = cast("dict[str, Any]", body.get(kind) or {})
        to = str(body.get("to", ""))
        stranger = body.keys() - _ENVELOPE - {kind} or inner.keys() - _KINDS.get(kind, set())
        checks = (
            (body.get("messaging_product") != "whatsapp", 100, "(#100) The parameter messaging_product is required."),
            (kind not in _KINDS or not inner or bool(stranger), 100, f"(#100) Invalid parameter: {kind} {stranger}"),
            (("to" in body) == ("recipient" in body), 131008, "Required parameter is missing"),
            (
                body.get("recipient_type") == "individual" and bool(to) and not _NUMBER.fullmatch(to),
                131009,
                "Parameter value is not valid",
            ),
            (to in self.unknown, 131026, "Message undeliverable"),
            (to in self.closed and kind != "template", 131047, "Re-engagement message"),
            (not self._fits(kind, inner), 131009, f"Parameter value is not valid: {kind}"),
        )
        return next((_Refusal(400, code, told) for wrong, code, told in checks if wrong), None)

    def _fits(self, kind: str, inner: Mapping[str, Any]) -> bool:
        match kind:
            case "text":
                return 0 < len(inner["body"]) <= 4096
            case "image" | "video" | "audio" | "document" | "sticker":
                by_link = str(inner.get("link", "")).startswith("http")
                named = "id" in inner and str(inner["id"]) in self.files
                return by_link != named and len(inner.get("caption", "")) <= 1024
            case "location":
                return -90 <= inner["latitude"] <= 90 and -180 <= inner["longitude"] <= 180
            case "template":
                return inner["name"] in self.templates and "code" in inner["language"] and _good_parameters(inner)
            case "interactive":
                return _good_interactive(inner)
            case _:
                return "message_id" in inner

    async def _upload(self, request: Request) -> Response:
        if not self._authorized(request):
            return _problem(_Refusal(401, 190, "Invalid OAuth access token."))
        async with request.form() as form:
            file = form.get("file")
            if form.get("messaging_product") != "whatsapp" or not isinstance(file, UploadFile):
                return _problem(_Refusal(400, 100, "(#100) Invalid parameter"))
            return JSONResponse({"id": self.file(await file.read(), str(form.get("type")))})

    async def _media(self, request: Request) -> Response:
        name = request.path_params["media"]
        if not self._authorized(request):
            return _problem(_Refusal(401, 190, "Invalid OAuth access token."))
        if name not in self.files:
            return _problem(_Refusal(400, 100, "Unsupported get request.", {"error_subcode": 33}))
        mime, data = self.files[name]
        return JSONResponse(
            {
                "messaging_product": "whatsapp",
                "url": f"https://lookaside.fbsbx.com/whatsapp_business/attachments/{name}",
                "mime_type": mime,
                "sha256": hashlib.sha256(data).hexdigest(),
                "file_size": len(data),
                "id": name,
            }
        )

    async def _cdn(self, request: Request) -> Response:
        host = request.headers.get("host", "")
        own = host == "lookaside.fbsbx.com"
        if not own and "authorization" in request.headers:
            self.leaks.append(host)
        if own and request.headers.get("authorization") != f"Bearer {self.token}":
            return Response(status_code=401)
        mime, data = self.files[request.path_params["media"]]
        return Response(data, media_type=mime)

    async def _messenger(self, request: Request) -> Response:
        file: bytes | None = None
        if request.headers.get("content-type", "").startswith("application/json"):
            body = cast("dict[str, Any]", json.loads(await request.body()))
        else:
            async with request.form() as form:
                body = {name: _parsed(str(value)) for name, value in form.items() if not isinstance(value, UploadFile)}
                upload = form.get("filedata")
                file = await upload.read() if isinstance(upload, UploadFile) else None
        taken = await self._taken(request, body, self._messenger_objection(body, file))
        if isinstance(taken, Response):
            return taken
        to = str(body["recipient"]["id"])
        if "sender_action" in body:
            self.actions.append(body)
            return JSONResponse({"recipient_id": to})
        message = FakeMetaMessage(self._name("m_"), to, body, file)
        self.messages.append(message)
        await self._trouble(taken)
        return JSONResponse({"recipient_id": to, "message_id": message.name})

    def _messenger_objection(self, body: Mapping[str, Any], file: bytes | None) -> _Refusal | None:
        recipient = cast("dict[str, Any]", body.get("recipient") or {})
        to = str(recipient.get("id", ""))
        message = cast("dict[str, Any]", body.get("message") or {})
        action = body.get("sender_action")
        tagged = body.get("messaging_type") == "MESSAGE_TAG"
        window = {"error_subcode": 2018278}
        checks: tuple[tuple[bool, _Refusal], ...] = (
            (bool(body.keys() - _MESSENGER), _Refusal(400, 100, "(#100) Invalid parameter")),
            (
                to in self.unknown or not to.isdecimal(),
                _Refusal(400, 100, "(#100) No matching user found", {"error_subcode": 2018001}),
            ),
            (
                action is not None and (action not in _MESSENGER_ACTIONS or bool(message)),
                _Refusal(400, 100, "(#100) sender_action"),
            ),
            (
                action is None and not _good_message(message, file),
                _Refusal(400, 100, "(#100) Param message must be valid"),
            ),
            (
                action is None and body.get("messaging_type") not in ("RESPONSE", "UPDATE", "MESSAGE_TAG"),
                _Refusal(400, 100, "(#100) messaging_type"),
            ),
            (tagged != ("tag" in body), _Refusal(400, 100, "(#100) Tag is required with MESSAGE_TAG")),
            (
                to in self.closed and not tagged,
                _Refusal(400, 10, "(#10) This message is sent outside of allowed window.", window),
            ),
        )
        return next((refusal for wrong, refusal in checks if wrong), None)

    async def _trouble(self, script: str | None) -> None:
        await asyncio.sleep(1e9 if script == "hang" else self.delay_s)
        if script == "lose":
            raise ConnectionCut


def _parsed(value: str) -> Any:
    return json.loads(value) if value[:1] in "{[" else value


def _good_parameters(template: Mapping[str, Any]) -> bool:
    texts = [
        str(parameter.get("text", "x"))
        for component in template.get("components", ())
        for parameter in component["parameters"]
    ]
    return all(text.strip() and not re.search(r"[\n\t]| {4,}", text) for text in texts)


def _good_interactive(inner: Mapping[str, Any]) -> bool:
    action, text = inner["action"], inner["body"]["text"]
    match inner["type"]:
        case "button":
            replies = [one["reply"] for one in action["buttons"]]
            titles = [one["title"] for one in replies]
            fine = all(0 < len(one["title"]) <= 20 and 0 < len(one["id"]) <= 256 for one in replies)
            return 0 < len(text) <= 1024 and 1 <= len(replies) <= 3 and fine and len(set(titles)) == len(titles)
        case "list":
            rows = [row for section in action["sections"] for row in section["rows"]]
            fine = all(
                0 < len(row["title"]) <= 24 and 0 < len(row["id"]) <= 200 and len(row.get("description", "")) <= 72
                for row in rows
            )
            return 0 < len(text) <= 4096 and 1 <= len(rows) <= 10 and fine and 0 < len(action["button"]) <= 20
        case "cta_url":
            told = action["parameters"]
            return 0 < len(text) <= 1024 and len(told["display_text"]) <= 20 and told["url"].startswith("http")
        case _:
            return False


def _good_message(message: Mapping[str, Any], file: bytes | None) -> bool:
    if message.keys() - {"text", "attachment", "quick_replies"} or not message:
        return False
    replies = message.get("quick_replies", ())
    fine = len(replies) <= 13 and all(0 < len(one["title"]) <= 20 and len(one["payload"]) <= 1000 for one in replies)
    if "text" in message:
        return fine and "attachment" not in message and 0 < len(message["text"]) <= 2000
    attachment = message["attachment"]
    payload = attachment["payload"]
    if attachment["type"] == "template":
        buttons = payload["buttons"]
        links = all(one["type"] in ("web_url", "postback") and 0 < len(one["title"]) <= 20 for one in buttons)
        return (
            fine
            and payload["template_type"] == "button"
            and 0 < len(payload["text"]) <= 640
            and 1 <= len(buttons) <= 3
            and links
        )
    return (
        fine
        and attachment["type"] in ("image", "video", "audio", "file")
        and (file is not None or payload["url"].startswith("http"))
    )


def _problem(refusal: _Refusal) -> JSONResponse:
    error = {
        "message": refusal.message,
        "type": "OAuthException",
        "code": refusal.code,
        "fbtrace_id": "AXkvS1mFakeTrace",
        **refusal.more,
    }
    return JSONResponse({"error": error}, status_code=refusal.status, headers=dict(refusal.headers))
