"""DiscordProvider: a Discord app: commands, buttons and forms in, messages out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from roomkit.errors import (
    AccessDenied,
    BadResponse,
    ConfigError,
    ProviderError,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    MediaContent,
    ReactionContent,
    VideoContent,
)
from roomkit.models.delivery import (
    Attachment,
    DeliveryResult,
    DeliveryState,
    DeliveryStatus,
    InboundMessage,
    Outgoing,
    WebhookReply,
    WebhookRequest,
)
from roomkit.net.client import ClientOptions, error_from_response, http_client, vendor_errors
from roomkit.net.redaction import register_secret
from roomkit.net.ssrf import Fetched, Fetcher, FetchPolicy, Resolver
from roomkit.ports.channel import VaultPort
from roomkit.providers.discord import inbound, text
from roomkit.providers.discord.limits import Limits
from roomkit.providers.discord.signature import DiscordKeys
from roomkit.providers.discord.waiting import Waiting
from roomkit.providers.vendor_json import json_object
from roomkit.runtime import Clock, SystemClock, bounded

if TYPE_CHECKING:
    import httpx2

_EPHEMERAL = 1 << 6
_GONE = frozenset({10008, 10014})  # the message, the emoji
_LAPSED = frozenset({10015, 10062, 50027})  # the interaction's token
_KINDS: Mapping[int, tuple[type[ProviderError], bool]] = {
    40001: (Unauthorized, False),
    40002: (Unauthorized, False),  # the account has to be verified
    50001: (Unauthorized, False),  # the app does not see the channel
    50013: (Unauthorized, False),  # it may not write there
    50007: (Refused, False),  # this person takes no direct messages
    20028: (RateLimited, True),
    40062: (RateLimited, True),
    130000: (Unavailable, True),
}


@dataclass(frozen=True, slots=True)
class DiscordOptions:
    """One Discord app.

    `bot_token` sends, `public_keys` (hex) check what comes. Discord shows "thinking" until the first message comes that
    answers a command, which must be within 15 minutes; where people answer later, `receipt` is told to the writer at
    once instead. `signing_key` (hex) signs simulated interactions; its public half must be among `public_keys`. Times
    in seconds.
    """

    bot_token: str | None = field(default=None, repr=False)
    public_keys: tuple[str, ...] = field(default=(), repr=False)
    receipt: str | None = None
    signing_key: str | None = field(default=None, repr=False)
    freshness_s: float = 300.0
    base_url: str = "https://discord.com"
    timeout_s: float = 15.0


class DiscordProvider:
    """The `MessageProvider` for Discord. A recipient is the id of a channel.

    A repeated attempt within some minutes is recognised by Discord (`nonce`); an answer to an interaction is one
    however often it is given."""

    name = "discord"
    refusal_status = 401
    """Discord tries an endpoint out with bad signatures, and takes it only when it refuses them so."""

    def __init__(
        self,
        options: DiscordOptions,
        *,
        clock: Clock | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeDiscord().transport()`. Raises `ConfigError`."""
        if not options.bot_token:
            raise ConfigError("discord: a bot token is needed to send; set DISCORD_BOT_TOKEN")
        register_secret(options.bot_token, options.signing_key)
        clock = clock or SystemClock()
        self.options = options
        self._keys = DiscordKeys(options.public_keys, options.signing_key, clock=clock, freshness_s=options.freshness_s)
        self._network = (resolver, transport)
        self._limits = Limits()
        self._waiting = Waiting(clock)
        self._client = http_client(
            ClientOptions(read_s=options.timeout_s, write_s=options.timeout_s),
            base_url=f"{options.base_url}/api/v10",
            transport=transport,
        )

    def keep_in(self, vault: VaultPort) -> None:
        self._waiting.keep_in(vault)

    # -- out ------------------------------------------------------------------------------------------------------

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Answers the oldest command of the channel that waits for it, else posts a message; or edits, deletes or
        reacts to one. Raises `Refused` for what cannot be sent."""
        channel = quote(message.recipient, safe="")
        match message.content:
            case EditContent(new_content=content):
                first, *rest = message.about_ids
                # What is left out of an edit stays as it was.
                empty: dict[str, Any] = {"content": "", "embeds": [], "components": []}
                body = {**empty, **self.body(content)}
                await self._call("PATCH", "/channels/{}/messages/{}", channel, first, body=body)
                await self._remove(channel, rest)
            case DeleteContent():
                await self._remove(channel, message.about_ids)
            case ReactionContent(emoji=emoji, removed=removed):
                if emoji.startswith(":") or not emoji:
                    return DeliveryResult(success=True, state=DeliveryState.SKIPPED, error="not an emoji of Discord's")
                place = (channel, message.about_ids[0], quote(emoji, safe=""))
                route = "/channels/{}/messages/{}/reactions/{}/@me"
                await self._call("DELETE" if removed else "PUT", route, *place, gone=removed)
            case content:
                return await self._say(message, channel, self.body(content))
        return DeliveryResult(success=True, provider_message_id=f"{message.content.type}:{message.idempotency_key}")

    def body(self, content: Content) -> dict[str, Any]:
        """The body of a message; `Refused` for what cannot be one. Nobody is called by it."""
        for part in content.parts if isinstance(content, CompositeContent) else (content,):
            if isinstance(part, MediaContent | AudioContent | VideoContent) and not part.url.startswith("https://"):
                raise Refused(self.name, "media must have a public https URL; configure the kit's public URL")
        body = text.body_of(content)
        if not body:
            raise Refused(self.name, f"content of type {content.type} has neither text nor media to send")
        if len(body.get("content", "")) > text.LIMIT:
            raise Refused(self.name, f"a message has at most {text.LIMIT} characters, formatting included; shorten it")
        return {**body, "allowed_mentions": {"parse": []}}

    async def _say(self, message: Outgoing, channel: str, body: dict[str, Any]) -> DeliveryResult:
        waiting = await self._waiting.next(message.recipient, message.idempotency_key)
        if waiting is not None:
            answer = await self._answer(message, *waiting, body)
            if answer is not None:
                return DeliveryResult(success=True, provider_message_id=_id(answer))
        if message.about_ids:
            body |= {"message_reference": {"message_id": message.about_ids[0], "fail_if_not_exists": False}}
        nonce = hashlib.sha256(f"{message.tenant}:{message.idempotency_key}".encode()).hexdigest()[:25]
        body |= {"nonce": nonce, "enforce_nonce": True}
        answer = await self._call("POST", "/channels/{}/messages", channel, body=body)
        return DeliveryResult(success=True, provider_message_id=_id(answer))

    async def _answer(
        self, message: Outgoing, app: str, token: str, first: bool, body: dict[str, Any]
    ) -> Mapping[str, Any] | None:
        """None when the time for an answer is over."""
        place = (quote(app, safe=""), quote(token, safe=""))
        try:
            if first:
                answer = await self._call("PATCH", "/webhooks/{}/{}/messages/@original", *place, body=body, bot=False)
                await self._waiting.answered(message.recipient, token, message.idempotency_key)
                return answer
            return await self._call("POST", "/webhooks/{}/{}", *place, body=body, bot=False)
        except ProviderError as error:
            if not (error.code or "").isdecimal() or int(error.code or 0) not in _LAPSED:
                raise
            await self._waiting.answered(message.recipient, token, "")
            return None

    async def _remove(self, channel: str, ids: Any) -> None:
        for one in ids:
            await self._call("DELETE", "/channels/{}/messages/{}", channel, one, gone=True)

    async def _call(
        self, method: str, route: str, *place: str, body: Any = None, gone: bool = False, bot: bool = True
    ) -> Mapping[str, Any]:
        """One request. `gone` takes it as done when what it is about is no longer there; `bot` shows the app's token,
        which interactions do not need."""
        kind, major = f"{method} {route}", ":".join(place[: 1 if bot else 2])
        await self._limits.turn(kind, major)
        headers = {"authorization": f"Bot {self.options.bot_token}"} if bot else {}
        with vendor_errors(self.name):
            request = self._client.request(method, route.format(*place), json=body, headers=headers)
            response = await bounded(request, self.options.timeout_s, "discord")
        self._limits.heard(kind, major, response.headers)
        answer = json_object(response)
        if response.is_success:
            if answer is None and response.status_code != 204:
                raise BadResponse(self.name, "the answer is no JSON", status=response.status_code, ambiguous=True)
            return answer or {}
        code = (answer or {}).get("code")
        if gone and (code in _GONE):
            return {}
        error = _error(response, answer or {})
        if isinstance(error, RateLimited) and error.retry_after is not None:
            self._limits.refused(kind, major, error.retry_after, everywhere=(answer or {}).get("global") is True)
        raise error

    # -- in -------------------------------------------------------------------------------------------------------

    def verify(self, request: WebhookRequest) -> None:
        self._keys.verify(request)

    async def remember(self, request: WebhookRequest) -> None:
        """Keeps what an interaction is answered with."""
        payload = inbound.body_of(request)
        if self._deferred(payload):
            where = str(payload.get("channel_id") or "")
            ident, app, token = (str(payload.get(name) or "") for name in ("id", "application_id", "token"))
            await self._waiting.add(where, ident, app, token)

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        """Nothing for the handshake, and for what is only being typed."""
        return [*inbound.read(inbound.body_of(request), channel_id)]

    def reply(self, request: WebhookRequest) -> WebhookReply:
        """The handshake's answer; "thinking", or the receipt, for everything that is to be answered."""
        try:
            payload = inbound.body_of(request)
        except AccessDenied:
            return _reply({})
        if inbound.is_event(payload):
            return WebhookReply(204, b"", "application/json")
        if payload.get("type") == inbound.PING:
            return _reply({"type": 1})
        if payload.get("type") == inbound.AUTOCOMPLETE:
            return _reply({"type": 8, "data": {"choices": []}})
        if self.options.receipt is not None:
            return _reply({"type": 4, "data": {"content": self.options.receipt, "flags": _EPHEMERAL}})
        return _reply({"type": 5} if self._deferred(payload) else {"type": 6})

    def _deferred(self, payload: Mapping[str, Any]) -> bool:
        """Whether an answer is promised."""
        kinds = (inbound.COMMAND, inbound.COMPONENT, inbound.MODAL)
        return self.options.receipt is None and not inbound.is_event(payload) and payload.get("type") in kinds

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return self._keys.sign(request)

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads a file; its address says all that is needed, no credentials go along."""
        resolver, transport = self._network
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self.name) as fetcher:
            return await fetcher.fetch(attachment.url)

    async def aclose(self) -> None:
        await self._client.aclose()


def provider(account: str | None = None, **options: Any) -> DiscordProvider:
    """The provider by name: DISCORD_BOT_TOKEN, DISCORD_PUBLIC_KEY (several, separated by commas) and, for `roomkit
    send`, DISCORD_SIGNING_KEY; of an account "NAME" DISCORD_BOT_TOKEN_NAME and so on."""
    suffix = f"_{account.upper()}" if account else ""
    keys = os.environ.get(f"DISCORD_PUBLIC_KEY{suffix}", "")
    found: dict[str, Any] = {
        "bot_token": os.environ.get(f"DISCORD_BOT_TOKEN{suffix}") or None,
        "public_keys": tuple(one.strip() for one in keys.split(",") if one.strip()),
        "signing_key": os.environ.get(f"DISCORD_SIGNING_KEY{suffix}") or None,
    }
    network = {name: options.pop(name) for name in ("clock", "transport", "resolver") if name in options}
    return DiscordProvider(DiscordOptions(**{**found, **options}), **network)


def _reply(body: Any) -> WebhookReply:
    return WebhookReply(200, json.dumps(body).encode(), "application/json")


def _id(answer: Mapping[str, Any]) -> str:
    ident = answer.get("id")
    if not isinstance(ident, str):
        raise BadResponse("discord", "accepted a message without naming it")
    return ident


def _error(response: httpx2.Response, answer: Mapping[str, Any]) -> ProviderError:
    code, told = answer.get("code"), answer.get("message")
    known = code if isinstance(code, int) and code else None
    words = str(told)[:300] if isinstance(told, str) else None
    error = error_from_response("discord", response, words, code=str(known) if known else None)
    after = answer.get("retry_after")
    error.retry_after = float(after) if isinstance(after, int | float) else error.retry_after
    if known is None or known not in _KINDS:
        return error
    kind, retryable = _KINDS[known]
    return kind(
        "discord",
        f"{words} (error {known})",
        retryable=retryable,
        retry_after=error.retry_after,
        status=error.status,
        code=error.code,
    )
