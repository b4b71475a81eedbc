"""A fake Slack: takes calls of its Web API as strictly as the real one, and signs webhooks with Slack's own code.

    fake = FakeSlack()
    provider = SlackProvider(fake.options(), transport=fake.transport(), clock=clock)
    request = fake.message("U1", "hello")              # a signed event

Blocks are checked by the models of `slack_sdk`, which it needs besides the [server] extra. `fake.mishaps` scripts
refusals, lost answers and silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.models.blocks import Block
from slack_sdk.signature import SignatureVerifier
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roomkit.models.delivery import WebhookRequest
from roomkit.providers.slack.slack import SlackOptions
from roomkit.runtime import Clock, SystemClock
from roomkit.testing.asgi import StreamingASGITransport
from roomkit.testing.vendors.mishaps import Mishaps

_BLOCKS: Any = Block
_FIELDS: Mapping[str, frozenset[str]] = {
    "chat.postMessage": frozenset({"channel", "text", "blocks", "thread_ts", "unfurl_links", "unfurl_media", "mrkdwn"}),
    "chat.update": frozenset({"channel", "ts", "text", "blocks"}),
    "chat.delete": frozenset({"channel", "ts"}),
    "reactions.add": frozenset({"channel", "timestamp", "name"}),
    "reactions.remove": frozenset({"channel", "timestamp", "name"}),
}


@dataclass(slots=True)
class SlackMessage:
    """A message as it stands at Slack."""

    channel: str
    ts: str
    text: str
    blocks: list[Any] = field(default_factory=list[Any])
    thread_ts: str | None = None
    reactions: list[str] = field(default_factory=list[str])
    deleted: bool = False
    edits: int = 0


class FakeSlack:
    """One app in one workspace. `messages` is what it has posted, `calls` the methods called, in order."""

    def __init__(
        self,
        *,
        bot_token: str = "xoxb-fake-slack-token",  # noqa: S107 - a fake
        signing_secret: str = "fake-slack-signing-secret",  # noqa: S107 - a fake
        webhook_url: str = "https://rooms.example/webhooks/slack",
        clock: Clock | None = None,
    ) -> None:
        self.bot_token = bot_token
        self.signing_secret = signing_secret
        self.webhook_url = webhook_url
        self.clock = clock or SystemClock()
        self.mishaps = Mishaps()
        self.messages: list[SlackMessage] = []
        self.calls: list[str] = []
        self.files: dict[str, tuple[str, bytes]] = {}
        self.leaks: list[str] = []
        """Hosts which were sent the app's token although they are not Slack's."""
        self.unknown_channels: set[str] = set()
        self._count = 0

    def options(self, **more: Any) -> SlackOptions:
        """Settings of a provider for this app."""
        values: dict[str, Any] = {"bot_token": self.bot_token, "signing_secrets": (self.signing_secret,), **more}
        return SlackOptions(**values)

    def transport(self) -> StreamingASGITransport:
        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/{method}", self._api, methods=["POST"]),
                Route("/files-pri/{name}", self._file),
                Route("/{rest:path}", self._elsewhere),
            ]
        )

    # -- what it sends ------------------------------------------------------------------------------------------

    def message(
        self, user: str, text: str, *, channel: str = "D024BE91L", ts: str | None = None, **more: Any
    ) -> WebhookRequest:
        """A signed event: `user` has written `text`; in a direct message unless `channel` says otherwise."""
        kind = {"D": "im", "G": "group"}.get(channel[:1], "channel")
        event = {"type": "message", "user": user, "text": text, "channel": channel, "channel_type": kind}
        return self.event({**event, "ts": ts or self._ts(), **more})

    def event(self, event: Mapping[str, Any], *, event_id: str | None = None) -> WebhookRequest:
        """Any event in its envelope, signed."""
        self._count += 1
        event = {"event_ts": f"{1890000000 + self._count}.000100", **event}
        body = {
            "token": "deprecated-verification-token",
            "team_id": "T061EG9R6",
            "api_app_id": "A0PNCHHK2",
            "event": event,
            "type": "event_callback",
            "event_id": event_id or f"Ev{self._count:08d}",
            "event_time": 1890000000 + self._count,
            "authorizations": [{"enterprise_id": None, "team_id": "T061EG9R6", "user_id": "U0BOT", "is_bot": True}],
            "is_ext_shared_channel": False,
        }
        return self.json(body)

    def json(self, body: Any) -> WebhookRequest:
        return self._signed("application/json", json.dumps(body).encode())

    def interaction(self, payload: Mapping[str, Any]) -> WebhookRequest:
        """An interactive payload, which comes as a form."""
        form = urlencode({"payload": json.dumps(payload)})
        return self._signed("application/x-www-form-urlencoded", form.encode())

    def form(self, fields: Mapping[str, str]) -> WebhookRequest:
        """A slash command."""
        return self._signed("application/x-www-form-urlencoded", urlencode(fields).encode())

    def file(self, name: str, mime: str, data: bytes) -> dict[str, Any]:
        """A file of a message, to be downloaded from here."""
        self.files[name] = (mime, data)
        url = f"https://files.slack.com/files-pri/{name}"
        return {"id": "F1", "name": name, "mimetype": mime, "size": len(data), "url_private": url}

    def _signed(self, kind: str, body: bytes) -> WebhookRequest:
        stamp = str(int(self.clock.now().timestamp()))
        made = SignatureVerifier(self.signing_secret).generate_signature(timestamp=stamp, body=body)
        headers = {"content-type": kind, "x-slack-request-timestamp": stamp, "x-slack-signature": str(made)}
        return WebhookRequest("POST", self.webhook_url, headers, body)

    def _ts(self) -> str:
        self._count += 1
        return f"{1893456000 + self._count}.{self._count:06d}"

    # -- what it takes ------------------------------------------------------------------------------------------

    async def _api(self, request: Request) -> Response:
        return await self.mishaps.answer(request, self._method)

    async def _method(self, request: Request) -> Response:
        method = request.path_params["method"]
        self.calls.append(method)
        if request.headers.get("authorization") != f"Bearer {self.bot_token}":
            return _no("invalid_auth")
        if not request.headers.get("content-type", "").startswith("application/json"):
            return _no("invalid_post_type")
        fields: dict[str, Any] = json.loads(await request.body())
        known = _FIELDS.get(method)
        if known is None:
            return _no("unknown_method")
        if problem := "invalid_arguments" if set(fields) - known else _wrong(fields):
            return _no(problem)
        if fields.get("channel") in self.unknown_channels:
            return _no("channel_not_found")
        if method == "chat.postMessage":
            return self._post(fields)
        return self._change(method, fields)

    def _post(self, fields: Mapping[str, Any]) -> Response:
        if not fields.get("text") and not fields.get("blocks"):
            return _no("no_text")
        if len(fields.get("text", "")) > 40_000:
            return _no("msg_too_long")
        channel, ts = fields["channel"], self._ts()
        channel = f"D{channel[1:]}" if channel.startswith("U") else channel
        made = SlackMessage(channel, ts, fields["text"], fields.get("blocks", []), fields.get("thread_ts"))
        self.messages.append(made)
        return JSONResponse({"ok": True, "channel": channel, "ts": ts, "message": {"text": made.text, "ts": ts}})

    def _change(self, method: str, fields: Mapping[str, Any]) -> Response:
        ts = fields.get("ts") or fields.get("timestamp")
        found = next((one for one in self.messages if (one.channel, one.ts) == (fields.get("channel"), ts)), None)
        if method.startswith("reactions."):
            return self._react(method, found, str(fields["name"]))
        if found is None or found.deleted:
            return _no("message_not_found")
        if method == "chat.delete":
            found.deleted = True
        else:
            found.text, found.blocks = fields["text"], fields.get("blocks", found.blocks)
            found.edits += 1
        return JSONResponse({"ok": True, "channel": found.channel, "ts": found.ts, "text": found.text})

    def _react(self, method: str, found: SlackMessage | None, name: str) -> Response:
        reactions = found.reactions if found is not None else []
        if (method == "reactions.add") == (name in reactions):
            return _no("already_reacted" if name in reactions else "no_reaction")
        reactions.append(name) if method == "reactions.add" else reactions.remove(name)
        return JSONResponse({"ok": True})

    async def _file(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.bot_token}":
            return Response("<html>Sign in to your workspace</html>", media_type="text/html")
        mime, data = self.files[request.path_params["name"]]
        return Response(data, media_type=mime)

    async def _elsewhere(self, request: Request) -> Response:
        if "authorization" in request.headers:
            self.leaks.append(request.headers.get("host", ""))
        return Response(b"from elsewhere", media_type="image/png")


def _no(error: str) -> Response:
    return JSONResponse({"ok": False, "error": error})


def _wrong(fields: Mapping[str, Any]) -> str:
    """What Slack's own models say against the blocks."""
    try:
        for block in fields.get("blocks", ()):
            parsed: Any = _BLOCKS.parse(block)
            if parsed is None or parsed.to_dict() != block:
                return "invalid_blocks"
    except (SlackObjectFormationError, TypeError):
        return "invalid_blocks"
    return ""
