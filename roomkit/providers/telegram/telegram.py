"""TelegramProvider: a bot of Telegram's, by webhook; `polling.TelegramPolling` fetches its updates instead."""

from __future__ import annotations

import hmac
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast
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
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding, ChannelCapabilities
from roomkit.net.client import ClientOptions, error_from_response, http_client, vendor_errors
from roomkit.net.redaction import redact, register_secret
from roomkit.net.ssrf import Fetched, Fetcher, FetchPolicy, Resolver
from roomkit.ports.channel import RoomContext
from roomkit.providers.stored_files import File, name_of, stored_files
from roomkit.providers.telegram.inbound import FILE, message_name, read
from roomkit.providers.telegram.outbound import MAX_CAPTION, MAX_UPLOAD, Call, calls, number
from roomkit.runtime import bounded

if TYPE_CHECKING:
    import httpx2

HEADER = "x-telegram-bot-api-secret-token"
_TOKEN = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{10,}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")
UPDATES = (
    *("message", "edited_message", "channel_post", "edited_channel_post", "callback_query"),
    *("message_reaction", "my_chat_member", "poll_answer", "chat_join_request"),
)


@dataclass(frozen=True, slots=True)
class TelegramOptions:
    """One bot.

    `webhook_secret` (A-Z, a-z, 0-9, _ and -) is what Telegram has to show with each webhook; without it none is taken.
    `updates` are the kinds to ask for. With `typing` the bot is shown as typing when a message has come in. Times in
    seconds.
    """

    bot_token: str = field(repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    updates: tuple[str, ...] = UPDATES
    typing: bool = False
    base_url: str = "https://api.telegram.org"
    timeout_s: float = 15.0


class TelegramProvider:
    """The `MessageProvider` for a Telegram bot. Telegram knows no idempotency keys and sends no delivery reports: an
    attempt without an answer is ambiguous, and SENT is the last that is heard of a message."""

    name = "telegram"
    opt_out_codes = frozenset({"blocked"})

    def __init__(
        self,
        options: TelegramOptions,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeTelegram().transport()`. Raises `ConfigError`."""
        if not _TOKEN.fullmatch(options.bot_token):
            raise ConfigError(
                "telegram: bot_token is missing or no bot's token; set TELEGRAM_BOT_TOKEN as @BotFather told"
            )
        if options.webhook_secret is not None and not _SECRET.fullmatch(options.webhook_secret):
            raise ConfigError("telegram: a webhook_secret has 1 to 256 letters, digits, _ and -, nothing else")
        # Both spellings: the token stands in every URL, and some write its colon otherwise.
        register_secret(options.bot_token, options.bot_token.partition(":")[2], options.webhook_secret)
        self.options = options
        self._network = (resolver, transport)
        self._client = http_client(
            ClientOptions(read_s=options.timeout_s, write_s=options.timeout_s),
            base_url=options.base_url,
            transport=transport,
        )

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        more = {"audio": True, "video": True, "threading": True, "max_caption": MAX_CAPTION}
        return capabilities.replaced(**more, max_media_bytes=MAX_UPLOAD)

    async def continuing(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> Mapping[str, Any]:
        """Files that have no public address go along as bytes."""
        return await stored_files(event, context, MAX_UPLOAD)

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Sends, edits, deletes or reacts; raises `Refused`, or an ambiguous `ProviderTimeout` when no answer came."""
        name: str | None = None
        for one in calls(message):
            answer = await self._perform(one)
            if one.names:
                if not isinstance(answer, dict) or "message_id" not in answer:
                    raise BadResponse(self.name, "accepted a message without naming it")
                name = message_name(cast("Mapping[str, Any]", answer))
        return DeliveryResult(success=True, state=DeliveryState.SENT, provider_message_id=name)

    def verify(self, request: WebhookRequest) -> None:
        secret = self.options.webhook_secret
        if not secret:
            raise AccessDenied("telegram webhook: no secret is configured, so nothing is accepted")
        if not hmac.compare_digest(request.headers.get(HEADER, "").encode(), secret.encode()):
            raise AccessDenied("telegram webhook: the secret is not ours")
        if request.method != "POST" or _update(request) is None:
            raise AccessDenied("telegram webhook: the body is no update")

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        update = _update(request)
        if update is None:
            raise AccessDenied("telegram webhook: the body is no update")
        return [*read(update, channel_id)]

    def reply(self, request: WebhookRequest) -> WebhookReply:
        """A tap on a button is answered at once, or it would go on to be shown as under way."""
        query = (_update(request) or {}).get("callback_query")
        if not isinstance(query, dict):
            return WebhookReply()
        query_id = cast("dict[str, Any]", query).get("id")
        answer = {"method": "answerCallbackQuery", "callback_query_id": str(query_id)}
        return WebhookReply(200, json.dumps(answer).encode(), "application/json")

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        if not self.options.webhook_secret:
            raise ConfigError("telegram webhook: no secret to show; set TELEGRAM_WEBHOOK_SECRET")
        return replace(request, headers={**request.headers, HEADER: self.options.webhook_secret})

    async def acknowledge(self, message: InboundMessage) -> None:
        """A message has been taken in: shows that the bot is at it, where that is wanted."""
        if self.options.typing:
            chat, _, topic = message.address.partition(":")
            more = {"message_thread_id": int(topic)} if topic.isdecimal() else {}
            await self.call("sendChatAction", {"chat_id": number(chat), "action": "typing", **more})

    async def set_webhook(self, url: str) -> None:
        """Tells Telegram where to call: `https://YOUR-PUBLIC-URL/webhooks/CHANNEL`. It ends long polling."""
        if not self.options.webhook_secret:
            raise ConfigError("telegram: without a webhook_secret no webhook is taken; set TELEGRAM_WEBHOOK_SECRET")
        secret, kinds = self.options.webhook_secret, list(self.options.updates)
        await self.call("setWebhook", {"url": url, "secret_token": secret, "allowed_updates": kinds})

    async def delete_webhook(self) -> None:
        """Ends the webhook; updates that wait are kept for long polling."""
        await self.call("deleteWebhook", {})

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads a file. Its real address has the token in it, so that what is told of it is another."""
        if not attachment.url.startswith(FILE):
            return await self._fetch(attachment.url, policy)
        found = await self.call("getFile", {"file_id": attachment.url.removeprefix(FILE)})
        path = cast("dict[str, Any]", found).get("file_path") if isinstance(found, dict) else None
        if not isinstance(path, str) or path.startswith("/") or ".." in path.split("/"):
            raise BadResponse(self.name, "the file cannot be had")
        url = f"{self.options.base_url}/file/bot{self.options.bot_token}/{quote(path)}"
        return replace(await self._fetch(url, policy), url=attachment.url)

    async def call(self, method: str, fields: Mapping[str, Any], *, wait_s: float | None = None) -> Any:
        """Any method of the Bot API; the answer's `result`. `wait_s` allows for a long poll."""
        return await self._request(method, wait_s, json=dict(fields))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _perform(self, one: Call) -> Any:
        files: dict[str, tuple[str, bytes, str]] | None = None
        if one.upload is not None:
            files = {one.upload[0]: await self._upload(*one.upload[1:])}
        try:
            if files is None:
                return await self.call(one.method, one.fields)
            form = {name: one if isinstance(one, str) else json.dumps(one) for name, one in one.fields.items()}
            return await self._request(one.method, None, data=form, files=files)
        except Refused as error:
            told = str(error)
            if "message is not modified" in told:
                return True  # an edit that was made before, its answer lost
            if one.plain is not None and "can't parse entities" in told:
                bare = {name: value for name, value in one.fields.items() if name != "parse_mode"}
                return await self._perform(replace(one, fields={**bare, "text": one.plain}, plain=None))
            raise

    async def _request(self, method: str, wait_s: float | None, **body: Any) -> Any:
        limit = self.options.timeout_s + (wait_s or 0.0)
        with vendor_errors(self.name):
            request = self._client.post(f"/bot{self.options.bot_token}/{method}", timeout=limit, **body)
            response = await bounded(request, limit, "telegram")
        try:
            answer: Any = response.json()
        except ValueError:
            answer = None
        told = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
        if told.get("ok") is True and response.is_success and "result" in told:
            return told["result"]
        raise _error(response, told)

    async def _upload(self, file: File, data: bytes | None) -> tuple[str, bytes, str]:
        if data is None:
            data = (await self._fetch(file.url, FetchPolicy(max_bytes=MAX_UPLOAD))).body
        if len(data) > MAX_UPLOAD:
            raise Refused(self.name, f"a file of {len(data)} bytes is too large; bots may send {MAX_UPLOAD}")
        return name_of(file), data, file.mime_type

    async def _fetch(self, url: str, policy: FetchPolicy | None) -> Fetched:
        resolver, transport = self._network
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self.name) as fetcher:
            return await fetcher.fetch(url)


def provider(account: str | None = None, **options: Any) -> TelegramProvider:
    """The provider by name, from the environment: TELEGRAM_BOT_TOKEN, TELEGRAM_WEBHOOK_SECRET; of "telegram:support"
    those with _SUPPORT at their end. Anything given in `options` wins."""
    end = f"_{account.upper()}" if account else ""
    names = {"bot_token": "TELEGRAM_BOT_TOKEN", "webhook_secret": "TELEGRAM_WEBHOOK_SECRET"}
    found: dict[str, Any] = {name: os.environ.get(f"{variable}{end}") or None for name, variable in names.items()}
    merged = {**found, **options}
    merged["bot_token"] = merged["bot_token"] or ""
    return TelegramProvider(TelegramOptions(**merged))


def _update(request: WebhookRequest) -> Mapping[str, Any] | None:
    try:
        data: Any = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    return cast("Mapping[str, Any]", data) if isinstance(data, dict) and data else None


def _error(response: httpx2.Response, answer: Mapping[str, Any]) -> ProviderError:
    told = redact(str(answer.get("description") or response.reason_phrase))[:300]
    found = answer.get("parameters")
    more = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    code = answer.get("error_code")
    status = code if isinstance(code, int) else response.status_code
    if moved := more.get("migrate_to_chat_id"):
        return Refused("telegram", f"the group has moved to chat {moved}: {told}", status=status, code="migrated")
    match status:
        case 429:
            wait = more.get("retry_after")
            seconds = float(wait) if isinstance(wait, int | float) else None
            return RateLimited("telegram", told, retry_after=seconds, status=status, code="429")
        case 401 | 404:
            return Unauthorized("telegram", f"{told}; is TELEGRAM_BOT_TOKEN right?", status=status, code=str(status))
        case 400 | 403 | 413:
            code = "blocked" if "blocked by the user" in told else str(status)
            return Refused("telegram", told, status=status, code=code)
        case 409:
            return Unavailable("telegram", told, status=status, code="409")
        case _ if response.is_success:
            return BadResponse("telegram", "the answer is none of the Bot API's", status=response.status_code)
        case _:
            return error_from_response("telegram", response, told, code=str(status))
