"""A fake Bot Connector: publishes keys, gives out tokens, and takes activities as strictly as the real one.

    fake = FakeTeams()
    provider = TeamsProvider(fake.options(), transport=fake.transport(), clock=clock, resolver=public)
    request = fake.message("29:1", "hello")              # a signed activity

Activities are checked by the models of `botbuilder-schema`, tokens are made without a JWT library. `fake.mishaps`
scripts refusals, lost answers and silence. Needs `botbuilder-schema`, `cryptography` and the [server] extra.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roomkit.models.delivery import WebhookRequest
from roomkit.providers.teams.teams import TeamsOptions
from roomkit.runtime import Clock, SystemClock
from roomkit.testing.asgi import StreamingASGITransport
from roomkit.testing.vendors.mishaps import Mishaps

ISSUER = "https://api.botframework.com"
SERVICE = "https://smba.trafficmanager.net/teams/"
_SENT = frozenset(
    {"type", "text", "textFormat", "attachments", "attachmentLayout", "replyToId", "from", "id", "summary", "entities"}
)


@dataclass(slots=True)
class TeamsActivity:
    """An activity as it stands in Teams."""

    id: str
    conversation: str
    body: dict[str, Any]
    reply_to: str | None = None
    deleted: bool = False
    edits: int = 0

    @property
    def text(self) -> str:
        return str(self.body.get("text", ""))


@dataclass(slots=True)
class _Published:
    kid: str
    key: rsa.RSAPrivateKey = field(repr=False)
    endorsements: tuple[str, ...] = ("msteams",)


class FakeTeams:
    """One bot. `messages` is what it has written; `calls` are the requests taken, in order."""

    def __init__(
        self,
        *,
        app_id: str = "11111111-2222-3333-4444-555555555555",
        app_password: str = "fake-teams-password",  # noqa: S107 - a fake
        webhook_url: str = "https://rooms.example/webhooks/teams",
        clock: Clock | None = None,
    ) -> None:
        self.app_id = app_id
        self.app_password = app_password
        self.webhook_url = webhook_url
        self.clock = clock or SystemClock()
        self.mishaps = Mishaps()
        self.messages: list[TeamsActivity] = []
        self.typing: list[str] = []
        self.calls: list[str] = []
        self.leaks: list[str] = []
        """Hosts which were sent the bot's token although they are not the service's."""
        self.pictures: dict[str, bytes] = {}
        self.keys = [_Published("first", _key(0))]
        self.keys_down = False
        self.lifetime_s = 3600
        self.tokens: set[str] = set()
        self._count = 0

    def options(self, **more: Any) -> TeamsOptions:
        """Settings of a provider for this bot."""
        values: dict[str, Any] = {"app_id": self.app_id, "app_password": self.app_password, **more}
        return TeamsOptions(**values)

    def transport(self) -> StreamingASGITransport:
        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        conversation = "/teams/v3/conversations/{conversation}/activities"
        return Starlette(
            routes=[
                Route("/v1/.well-known/openidconfiguration", self._metadata),
                Route("/v1/.well-known/keys", self._jwks),
                Route("/{tenant}/oauth2/v2.0/token", self._token, methods=["POST"]),
                Route(conversation, self._connector(self._post), methods=["POST"]),
                Route(conversation + "/{activity}", self._connector(self._post), methods=["POST"]),
                Route(conversation + "/{activity}", self._connector(self._put), methods=["PUT"]),
                Route(conversation + "/{activity}", self._connector(self._delete), methods=["DELETE"]),
                Route("/teams/v3/attachments/{name}/views/original", self._picture),
                Route("/{rest:path}", self._elsewhere),
            ]
        )

    @staticmethod
    def private_key() -> str:
        """A key in PEM, for a provider's `signing_key`."""
        return _key(2).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def rotate(self) -> None:
        """Another key takes the place of the one that signs now, as the Bot Connector does every few days."""
        self.keys = [_Published(f"key-{secrets.token_hex(4)}", _key(1))]

    # -- what it sends ------------------------------------------------------------------------------------------

    def message(
        self, user: str, text: str, *, conversation: str = "a:1personal", ident: str | None = None, **more: Any
    ) -> WebhookRequest:
        """A signed message of `user`; in a personal chat unless the conversation is a thread ("19:...")."""
        return self.activity(
            {"type": "message", "text": text, "textFormat": "plain", **more}, user, conversation, ident
        )

    def activity(
        self,
        more: Mapping[str, Any],
        user: str = "29:1user",
        conversation: str = "a:1personal",
        ident: str | None = None,
    ) -> WebhookRequest:
        """Any activity, with what all of them have, signed."""
        self._count += 1
        group = conversation.startswith("19:")
        stamp = datetime.fromtimestamp(1_893_456_000 + self._count, UTC).isoformat(timespec="milliseconds")
        return self.signed(
            {
                "id": ident or str(1_893_456_000_000 + self._count),
                "timestamp": stamp.replace("+00:00", "Z"),
                "serviceUrl": SERVICE,
                "channelId": "msteams",
                "from": {"id": user, "name": user, "aadObjectId": "5d2c"},
                "conversation": {
                    "id": conversation,
                    "conversationType": "channel" if group else "personal",
                    **({"isGroup": True} if group else {}),
                    "tenantId": "72f988bf",
                },
                "recipient": {"id": f"28:{self.app_id}", "name": "Shop"},
                "channelData": {"tenant": {"id": "72f988bf"}},
                **more,
            }
        )

    def signed(self, activity: Mapping[str, Any], **claims: Any) -> WebhookRequest:
        """An activity with a token of the newest key; `claims` replace those of the token."""
        token = self.bearer(str(activity.get("serviceUrl", SERVICE)), **claims)
        headers = {"content-type": "application/json; charset=utf-8", "authorization": f"Bearer {token}"}
        return WebhookRequest("POST", self.webhook_url, headers, json.dumps(activity).encode())

    def bearer(self, service: str = SERVICE, *, kid: str | None = None, alg: str = "RS256", **claims: Any) -> str:
        """A token as the Bot Connector makes it."""
        now = int(self.clock.now().timestamp())
        told: dict[str, Any] = {"serviceurl": service, "nbf": now, "exp": now + self.lifetime_s}
        told |= {"iss": ISSUER, "aud": self.app_id, **claims}
        head = {"alg": alg, "kid": kid or self.keys[-1].kid, "typ": "JWT"}
        signed = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(told).encode())}"
        return f"{signed}.{_b64(self.keys[-1].key.sign(signed.encode(), padding.PKCS1v15(), SHA256()))}"

    # -- what it takes ------------------------------------------------------------------------------------------

    async def _metadata(self, request: Request) -> Response:
        self.calls.append("metadata")
        if self.keys_down:
            return JSONResponse({}, status_code=503)
        keys = "https://login.botframework.com/v1/.well-known/keys"
        return JSONResponse({"issuer": ISSUER, "jwks_uri": keys, "authorization_endpoint": "https://invalid.example"})

    async def _jwks(self, request: Request) -> Response:
        return JSONResponse({"keys": [_jwk(one) for one in self.keys]})

    async def _token(self, request: Request) -> Response:
        self.calls.append("token")
        return await self.mishaps.answer(request, self._login)

    async def _login(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        expected = {
            "grant_type": "client_credentials",
            "client_id": self.app_id,
            "client_secret": self.app_password,
            "scope": "https://api.botframework.com/.default",
        }
        if form != expected:
            told = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}
            return JSONResponse(told, status_code=401)
        self._count += 1
        made = f"bot-token-{self._count}"
        self.tokens.add(made)
        return JSONResponse({"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": made})

    def _connector(self, do: Any) -> Any:
        async def checked(request: Request) -> Response:
            self.calls.append(f"{request.method} {request.url.path}")
            if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
                return _no(401, "Unauthorized", "Authorization has been denied for this request.")
            return await self.mishaps.answer(request, do)

        return checked

    async def _post(self, request: Request) -> Response:
        body, where = json.loads(await request.body()), request.path_params["conversation"]
        if body == {**body, "type": "typing"}:
            self.typing.append(where)
            return JSONResponse({"id": "typing"}, status_code=201)
        if problem := _objection(body):
            return _no(400, "BadSyntax", problem)
        self._count += 1
        made = TeamsActivity(str(1_893_456_000_000 + self._count), where, body, request.path_params.get("activity"))
        self.messages.append(made)
        return JSONResponse({"id": made.id}, status_code=201)

    async def _put(self, request: Request) -> Response:
        body, found = json.loads(await request.body()), self._find(request)
        if found is None:
            return _no(404, "ActivityNotFoundInConversation", "Activity not found in conversation.")
        if problem := _objection(body):
            return _no(400, "BadSyntax", problem)
        found.body, found.edits = body, found.edits + 1
        return JSONResponse({"id": found.id})

    async def _delete(self, request: Request) -> Response:
        found = self._find(request)
        if found is None:
            return _no(404, "ActivityNotFoundInConversation", "Activity not found in conversation.")
        found.deleted = True
        return Response(status_code=200)

    async def _picture(self, request: Request) -> Response:
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _no(401, "Unauthorized", "Authorization has been denied for this request.")
        return Response(self.pictures[request.path_params["name"]], media_type="image/png")

    async def _elsewhere(self, request: Request) -> Response:
        if "authorization" in request.headers:
            self.leaks.append(request.headers.get("host", ""))
        return Response(b"a file", media_type="application/octet-stream")

    def _find(self, request: Request) -> TeamsActivity | None:
        place = (request.path_params["conversation"], request.path_params["activity"])
        return next((one for one in self.messages if (one.conversation, one.id) == place and not one.deleted), None)


@cache
def _key(number: int) -> rsa.RSAPrivateKey:
    """Making one takes a while; the tests share two."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _jwk(one: _Published) -> dict[str, Any]:
    numbers = one.key.public_key().public_numbers()
    n, e = (_b64(value.to_bytes((value.bit_length() + 7) // 8, "big")) for value in (numbers.n, numbers.e))
    return {"kty": "RSA", "use": "sig", "kid": one.kid, "n": n, "e": e, "endorsements": list(one.endorsements)}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _no(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


def _objection(body: Mapping[str, Any]) -> str:
    """What Microsoft's own models, and Teams, say against an activity."""
    from botbuilder.schema import Activity, Attachment  # pyright: ignore[reportMissingTypeStubs]

    models = cast("Any", (Activity, Attachment))
    if unknown := set(body) - _SENT - {"type"} or _unknown(models[0], body):
        return f"unknown field {min(unknown)}"
    if body.get("type") != "message" or not (body.get("text") or body.get("attachments")):
        return "an activity of type message needs text or attachments"
    if len(json.dumps(body, ensure_ascii=False).encode()) > 28 * 1024 + 500:
        return "the message is too large"
    for attachment in body.get("attachments", ()):
        if unknown := _unknown(models[1], attachment):
            return f"unknown field {min(unknown)} of an attachment"
        card = attachment.get("content")
        if card is not None and (card.get("type") != "AdaptiveCard" or not card.get("version") or "body" not in card):
            return "this is no Adaptive Card"
    return "" if models[0].deserialize(dict(body)).type == "message" else "the activity cannot be read"


def _unknown(model: Any, body: Mapping[str, Any]) -> set[str]:
    return set(body) - {value["key"] for value in model._attribute_map.values()}
