"""A fake Discord: takes calls of its REST API as strictly as the real one, and signs interactions with PyNaCl.

    fake = FakeDiscord()
    provider = DiscordProvider(fake.options(), transport=fake.transport(), clock=clock)
    request = fake.command("U1", "ask", "where is my lamp?")       # a signed interaction

`fake.mishaps` scripts refusals, lost answers and silence. Needs `pynacl` and the [server] extra.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nacl.signing import SigningKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roomkit.models.delivery import WebhookRequest
from roomkit.providers.discord.discord import DiscordOptions
from roomkit.runtime import Clock, SystemClock
from roomkit.testing.asgi import StreamingASGITransport
from roomkit.testing.vendors.mishaps import Mishaps

_FIELDS = frozenset(
    {"content", "embeds", "components", "allowed_mentions", "nonce", "enforce_nonce", "message_reference"}
)
_EMBED = frozenset({"title", "description", "url", "image"})
_FIRST = (1_893_456_000_000 - 1_420_070_400_000) << 22


@dataclass(slots=True)
class DiscordMessage:
    """A message as it stands at Discord. `answers` is the interaction that it is the answer of."""

    id: str
    channel: str
    body: dict[str, Any]
    answers: str | None = None
    reactions: list[str] = field(default_factory=list[str])
    deleted: bool = False
    edits: int = 0

    @property
    def text(self) -> str:
        return str(self.body.get("content", ""))


class FakeDiscord:
    """One app. `messages` is what it has written, `calls` the requests taken, in order."""

    def __init__(
        self,
        *,
        bot_token: str = "fake-discord-bot-token",  # noqa: S107 - a fake
        signing_key: bytes = b"discord's own key, 32 bytes long",
        webhook_url: str = "https://rooms.example/webhooks/discord",
        clock: Clock | None = None,
    ) -> None:
        self.bot_token = bot_token
        self.key = SigningKey(signing_key)
        self.webhook_url = webhook_url
        self.clock = clock or SystemClock()
        self.application_id = "845027738276462632"
        self.mishaps = Mishaps()
        self.messages: list[DiscordMessage] = []
        self.calls: list[str] = []
        self.tokens: dict[str, str] = {}
        """Open interactions: token -> channel."""
        self.leaks: list[str] = []
        self.bucket: dict[str, str] = {}
        """Headers of every answer, for tests of rate limits."""
        self._nonces: dict[tuple[str, str], DiscordMessage] = {}
        self._count = 0

    def options(self, **more: Any) -> DiscordOptions:
        """Settings of a provider for this app."""
        values: dict[str, Any] = {
            "bot_token": self.bot_token,
            "public_keys": (bytes(self.key.verify_key).hex(),),
            "signing_key": bytes(self.key).hex(),
            **more,
        }
        return DiscordOptions(**values)

    def transport(self) -> StreamingASGITransport:
        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        message = "/api/v10/channels/{channel}/messages/{message}"
        return Starlette(
            routes=[
                Route("/api/v10/channels/{channel}/messages", self._bot(self._create), methods=["POST"]),
                Route(message, self._bot(self._edit), methods=["PATCH"]),
                Route(message, self._bot(self._delete), methods=["DELETE"]),
                Route(message + "/reactions/{emoji}/@me", self._bot(self._react), methods=["PUT", "DELETE"]),
                Route("/api/v10/webhooks/{app}/{token}/messages/@original", self._answer, methods=["PATCH"]),
                Route("/api/v10/webhooks/{app}/{token}", self._follow, methods=["POST"]),
                Route("/{rest:path}", self._elsewhere),
            ]
        )

    # -- what it sends ------------------------------------------------------------------------------------------

    def command(
        self, user: str, name: str, text: str | None = None, *, channel: str = "D1", ident: str | None = None
    ) -> WebhookRequest:
        """A signed command with one option, in a direct message unless `channel` begins otherwise."""
        options = [] if text is None else [{"name": "text", "type": 3, "value": text}]
        data = {"id": "771825006014889984", "name": name, "type": 1, "options": options}
        return self.interaction(2, user, channel=channel, ident=ident, data=data)

    def interaction(
        self, kind: int, user: str, *, channel: str = "D1", ident: str | None = None, **more: Any
    ) -> WebhookRequest:
        """Any interaction of a person, signed. Its token is good until the test ends it."""
        ident = ident or self._id()
        token = f"token-of-{ident}"
        self.tokens[token] = channel
        who = {"id": user, "username": user.lower(), "global_name": None, "discriminator": "0", "avatar": None}
        group = not channel.startswith("D")
        place: dict[str, Any] = (
            {"guild_id": "290926798626357999", "member": {"user": who, "roles": []}} if group else {"user": who}
        )
        body = {"id": ident, "application_id": self.application_id, "type": kind, "token": token, "version": 1}
        return self.json({**body, "channel_id": channel, "locale": "en-US", **place, **more})

    def json(self, body: Any) -> WebhookRequest:
        """Any body, signed."""
        data, stamp = json.dumps(body).encode(), str(int(self.clock.now().timestamp()))
        signature = self.key.sign(stamp.encode() + data).signature.hex()
        headers = {"content-type": "application/json", "x-signature-timestamp": stamp, "x-signature-ed25519": signature}
        return WebhookRequest("POST", self.webhook_url, headers, data)

    def _id(self) -> str:
        self._count += 1
        return str(_FIRST + self._count)

    # -- what it takes ------------------------------------------------------------------------------------------

    def _bot(self, do: Any) -> Any:
        async def checked(request: Request) -> Response:
            self.calls.append(f"{request.method} {request.url.path}")
            if request.headers.get("authorization") != f"Bot {self.bot_token}":
                return _no(401, 0, "401: Unauthorized")
            return await self._scripted(request, do)

        return checked

    async def _scripted(self, request: Request, do: Any) -> Response:
        response = await self.mishaps.answer(request, do)
        response.headers.update(self.bucket)
        return response

    async def _create(self, request: Request) -> Response:
        body = await _body(request)
        if problem := _objection(body):
            return _no(400, 50035, problem)
        channel, nonce = request.path_params["channel"], body.get("nonce")
        known = self._nonces.get((channel, str(nonce))) if body.get("enforce_nonce") else None
        if known is not None:
            return JSONResponse(_shown(known))
        made = DiscordMessage(self._id(), channel, body)
        self.messages.append(made)
        self._nonces[channel, str(nonce)] = made
        return JSONResponse(_shown(made))

    async def _edit(self, request: Request) -> Response:
        body = await _body(request)
        if problem := _objection(body):
            return _no(400, 50035, problem)
        found = self._find(request)
        if found is None:
            return _no(404, 10008, "Unknown Message")
        found.body |= body
        found.edits += 1
        return JSONResponse(_shown(found))

    async def _delete(self, request: Request) -> Response:
        found = self._find(request)
        if found is None:
            return _no(404, 10008, "Unknown Message")
        found.deleted = True
        return Response(status_code=204)

    async def _react(self, request: Request) -> Response:
        found, emoji = self._find(request), request.path_params["emoji"]
        if found is None:
            return _no(404, 10008, "Unknown Message")
        if emoji.isascii() and not re.fullmatch(r"\w+:\d+", emoji):
            return _no(400, 10014, "Unknown Emoji")
        found.reactions = [one for one in found.reactions if one != emoji]
        if request.method == "PUT":
            found.reactions.append(emoji)
        return Response(status_code=204)

    async def _answer(self, request: Request) -> Response:
        self.calls.append(f"{request.method} @original")
        return await self._scripted(request, self._original)

    async def _original(self, request: Request) -> Response:
        body, token = await _body(request), request.path_params["token"]
        if "authorization" in request.headers:
            self.leaks.append("the bot's token, where the interaction's own is enough")
        if token not in self.tokens or request.path_params["app"] != self.application_id:
            return _no(404, 10015, "Unknown Webhook")
        if problem := _objection(body, answer=True):
            return _no(400, 50035, problem)
        found = next((one for one in self.messages if one.answers == token), None)
        if found is None:
            found = DiscordMessage(self._id(), self.tokens[token], body, answers=token)
            self.messages.append(found)
        else:
            found.edits += 1
            found.body = body
        return JSONResponse(_shown(found))

    async def _follow(self, request: Request) -> Response:
        self.calls.append(f"{request.method} follow-up")
        body, token = await _body(request), request.path_params["token"]
        if token not in self.tokens:
            return _no(404, 10015, "Unknown Webhook")
        if problem := _objection(body, answer=True):
            return _no(400, 50035, problem)
        made = DiscordMessage(self._id(), self.tokens[token], body)
        self.messages.append(made)
        return JSONResponse(_shown(made))

    async def _elsewhere(self, request: Request) -> Response:
        if "authorization" in request.headers:
            self.leaks.append(request.headers.get("host", ""))
        return Response(b"a file", media_type="image/png")

    def _find(self, request: Request) -> DiscordMessage | None:
        place = (request.path_params["channel"], request.path_params["message"])
        return next((one for one in self.messages if (one.channel, one.id) == place and not one.deleted), None)


async def _body(request: Request) -> dict[str, Any]:
    return json.loads(await request.body())


def _shown(message: DiscordMessage) -> dict[str, Any]:
    return {"id": message.id, "channel_id": message.channel, "content": message.text, "type": 0}


def _no(status: int, code: int, message: str) -> Response:
    return JSONResponse({"message": message, "code": code}, status_code=status)


def _objection(body: Mapping[str, Any], *, answer: bool = False) -> str:
    """Why Discord does not take a message."""
    known = _FIELDS - {"nonce", "enforce_nonce", "message_reference"} if answer else _FIELDS
    rows = body.get("components", [])
    buttons = [button for row in rows for button in row.get("components", ())]
    ids = [button["custom_id"] for button in buttons if "custom_id" in button]
    embeds = body.get("embeds", [])
    checks = (
        (bool(set(body) - known), "unknown field"),
        (len(body.get("content", "")) > 2000, "content: Must be 2000 or fewer in length."),
        (not any(body.get(name) for name in ("content", "embeds", "components")), "Cannot send an empty message"),
        (len(embeds) > 10 or any(set(one) - _EMBED for one in embeds), "embeds"),
        (any(len(one.get("title", "")) > 256 or len(one.get("description", "")) > 4096 for one in embeds), "embed"),
        (len(rows) > 5 or any(not 1 <= len(row["components"]) <= 5 for row in rows), "components"),
        (any(row["type"] != 1 or set(row) != {"type", "components"} for row in rows), "rows"),
        (any(not _button_ok(button) for button in buttons), "button"),
        (len(set(ids)) != len(ids), "custom_id: Component custom id cannot be duplicated"),
        (len(str(body.get("nonce", ""))) > 25, "nonce: Must be 25 or fewer in length."),
        (body.get("allowed_mentions") != {"parse": []}, "this test allows no mentions"),
    )
    return next((told for wrong, told in checks if wrong), "")


def _button_ok(button: Mapping[str, Any]) -> bool:
    if button.get("type") != 2 or not 1 <= len(button.get("label", "")) <= 80:
        return False
    if button.get("style") == 5:
        return set(button) == {"type", "style", "label", "url"} and len(button["url"]) <= 512
    return set(button) == {"type", "style", "label", "custom_id"} and 1 <= len(button["custom_id"]) <= 100
