"""SlackProvider: messages of a Slack app, with signed events, buttons and slash commands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
    RichContent,
    VideoContent,
    text_of,
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
from roomkit.net.ssrf import Credentials, Fetched, Fetcher, FetchPolicy, Resolver
from roomkit.providers.chat_text import chat_text
from roomkit.providers.slack import signature
from roomkit.providers.slack.inbound import body_of, read
from roomkit.providers.slack.text import SLACK, Block, blocks_of, escaped, link, name_of, picture, sections
from roomkit.providers.vendor_json import json_object
from roomkit.runtime import Clock, SystemClock, bounded

if TYPE_CHECKING:
    import httpx2

_LOGIN = ("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope")
_KINDS: Mapping[str, tuple[type[ProviderError], bool]] = {
    **dict.fromkeys((*_LOGIN, "no_permission", "not_allowed_token_type", "ekm_access_denied"), (Unauthorized, False)),
    **dict.fromkeys(("ratelimited", "rate_limited", "message_limit_exceeded"), (RateLimited, True)),
    **dict.fromkeys(("internal_error", "fatal_error", "service_unavailable", "request_timeout"), (Unavailable, True)),
}
_AMBIGUOUS = frozenset({"internal_error", "fatal_error", "request_timeout"})
_DONE = frozenset({"already_reacted", "no_reaction"})


@dataclass(frozen=True, slots=True)
class SlackOptions:
    """One Slack app in one workspace.

    `bot_token` (`xoxb-...`) sends, `signing_secrets` check what comes: all are accepted, so that the secret can be
    changed without a gap, and the first signs simulated messages. `bot_user_id` is only needed where Slack does not
    tell it with its events. Times in seconds.
    """

    bot_token: str | None = field(default=None, repr=False)
    signing_secrets: tuple[str, ...] = field(default=(), repr=False)
    bot_user_id: str | None = None
    freshness_s: float = 300.0
    base_url: str = "https://slack.com"
    files_host: str = "files.slack.com"
    timeout_s: float = 15.0


class SlackProvider:
    """The `MessageProvider` for Slack. A recipient is a conversation (`C...`, `G...`) or, for direct messages, a
    person (`U...`).

    A message's id here is `CONVERSATION:TS`. Slack knows no idempotency keys: an attempt without an answer is
    ambiguous."""

    name = "slack"

    def __init__(
        self,
        options: SlackOptions,
        *,
        clock: Clock | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeSlack().transport()`. Raises `ConfigError`."""
        if not options.bot_token:
            raise ConfigError("slack: a bot token is needed to send; set SLACK_BOT_TOKEN (xoxb-...)")
        register_secret(options.bot_token, *options.signing_secrets)
        self.options = options
        self._clock = clock or SystemClock()
        self._network = (resolver, transport)
        self._client = http_client(
            ClientOptions(read_s=options.timeout_s, write_s=options.timeout_s),
            base_url=options.base_url,
            headers={"authorization": f"Bearer {options.bot_token}"},
            transport=transport,
        )

    # -- out ------------------------------------------------------------------------------------------------------

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Posts a message, or edits, deletes or reacts to one; raises `Refused` for what cannot be sent, an ambiguous
        `ProviderTimeout` when no answer came."""
        match message.content:
            case EditContent(new_content=content):
                return await self._edit(message, content)
            case DeleteContent():
                for about in message.about_ids:
                    await self._call("chat.delete", _place(about), gone=True)
                return DeliveryResult(success=True, provider_message_id=_new_id(message))
            case ReactionContent():
                return await self._react(message, message.content)
            case content:
                fields = {"channel": message.recipient, "unfurl_links": False, **self.fields(content)}
                if message.about_ids:
                    where, _, ts = message.about_ids[0].rpartition(":")
                    # What is sent to a person is in the direct messages with them, which have an id of their own.
                    direct = where.startswith("D") and message.recipient[:1] in ("U", "W")
                    fields |= {"thread_ts": ts} if direct or where == message.recipient else {}
                answer = await self._call("chat.postMessage", fields)
                return DeliveryResult(success=True, provider_message_id=_id(answer))

    def fields(self, content: Content) -> dict[str, Any]:
        """Text and blocks of a message; `Refused` for what has neither."""
        text, blocks = _rendered(content)
        if not text and not blocks:
            raise Refused(self.name, f"content of type {content.type} has neither text nor media to send")
        return {"text": text, "blocks": blocks} if blocks else {"text": text}

    async def _edit(self, message: Outgoing, content: Content) -> DeliveryResult:
        """The first part gets the new text; what else there was of the old message goes."""
        first, *rest = message.about_ids
        fields = self.fields(content)
        # Without them the old blocks would stay, and hide the new text.
        answer = await self._call("chat.update", {"blocks": [], **fields, **_place(first)})
        for about in rest:
            await self._call("chat.delete", _place(about), gone=True)
        return DeliveryResult(success=True, provider_message_id=f"{_id(answer)}:{message.idempotency_key}")

    async def _react(self, message: Outgoing, content: ReactionContent) -> DeliveryResult:
        name = name_of(content.emoji)
        if name is None:
            return DeliveryResult(success=True, state=DeliveryState.SKIPPED, error="slack has no name for this emoji")
        place = _place(message.about_ids[0])
        fields = {"channel": place["channel"], "timestamp": place["ts"], "name": name}
        await self._call("reactions.remove" if content.removed else "reactions.add", fields)
        return DeliveryResult(success=True, provider_message_id=_new_id(message))

    async def _call(self, method: str, fields: Mapping[str, Any], *, gone: bool = False) -> Mapping[str, Any]:
        """One method of the Web API; `gone` takes it as done when the message is no longer there."""
        with vendor_errors(self.name):
            request = self._client.post(f"/api/{method}", json=dict(fields))
            response = await bounded(request, self.options.timeout_s, "slack")
        answer = json_object(response)
        if not response.is_success:
            code = str(answer["error"])[:100] if answer and answer.get("error") else None
            raise error_from_response(self.name, response, code, code=code)
        if answer is None:
            raise BadResponse(self.name, "the answer is no JSON", status=response.status_code, ambiguous=True)
        if answer.get("ok") is True:
            return answer
        code = str(answer.get("error") or "unknown_error")
        if code in _DONE or (gone and code == "message_not_found"):
            return answer
        raise _error(code, answer, response)

    # -- in -------------------------------------------------------------------------------------------------------

    def verify(self, request: WebhookRequest) -> None:
        now = self._clock.now().timestamp()
        signature.verify(request, self.options.signing_secrets, now, self.options.freshness_s)

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        """Nothing for the handshake and for what the app itself has done."""
        return [*read(body_of(request), channel_id, self.options.bot_user_id)]

    def reply(self, request: WebhookRequest) -> WebhookReply:
        """Empty: answers go out as messages of their own. The handshake gets its challenge back."""
        try:
            payload = body_of(request)
        except AccessDenied:
            return WebhookReply()
        if payload.get("type") == "url_verification":
            return WebhookReply(200, str(payload.get("challenge", ""))[:500].encode("utf-8", "replace"), "text/plain")
        return WebhookReply()

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return signature.sign(request, self.options.signing_secrets, self._clock.now().timestamp())

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads a file; the bot's token goes to Slack's own host only. Raises `Unauthorized` where Slack answers
        with its login page, which it does when the app may not read files."""
        resolver, transport = self._network
        credentials = Credentials.bearer(self.options.files_host, self.options.bot_token or "")
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self.name) as fetcher:
            found = await fetcher.fetch(attachment.url, credentials=credentials)
        if found.content_type == "text/html" and attachment.mime_type not in (None, "text/html"):
            raise Unauthorized(self.name, "the file is behind a login; give the app the scope files:read")
        return found

    async def aclose(self) -> None:
        await self._client.aclose()


def provider(account: str | None = None, **options: Any) -> SlackProvider:
    """The provider by name: SLACK_BOT_TOKEN, SLACK_SIGNING_SECRET (several, separated by commas, while it is being
    changed) and SLACK_BOT_USER_ID; of an account "NAME" SLACK_BOT_TOKEN_NAME and so on. `options` win."""
    suffix = f"_{account.upper()}" if account else ""
    secrets = os.environ.get(f"SLACK_SIGNING_SECRET{suffix}", "")
    found: dict[str, Any] = {
        "bot_token": os.environ.get(f"SLACK_BOT_TOKEN{suffix}") or None,
        "bot_user_id": os.environ.get(f"SLACK_BOT_USER_ID{suffix}") or None,
        "signing_secrets": tuple(one.strip() for one in secrets.split(",") if one.strip()),
    }
    network = {name: options.pop(name) for name in ("clock", "transport", "resolver") if name in options}
    return SlackProvider(SlackOptions(**{**found, **options}), **network)


def _rendered(content: Content) -> tuple[str, list[Block]]:
    """The text, which notifications show too, and the blocks where there are any."""
    match content:
        case RichContent():
            return chat_text(content, SLACK), blocks_of(content)
        case MediaContent() | AudioContent() | VideoContent():
            return _file(content)
        case CompositeContent(parts=parts):
            rendered = [_rendered(part) for part in parts]
            text = "\n".join(text for text, _ in rendered if text)
            if not any(blocks for _, blocks in rendered):
                return text, []
            return text, [block for words, blocks in rendered for block in (blocks or sections(words))]
        case _:
            return escaped(text_of(content)), []


def _file(content: MediaContent | AudioContent | VideoContent) -> tuple[str, list[Block]]:
    """A picture as such, any other file as a link."""
    if not content.url.startswith("https://"):
        raise Refused("slack", "media must have a public https URL; configure the kit's public URL")
    words = text_of(content)
    if content.mime_type in {"image/png", "image/jpeg", "image/gif"}:
        title = words or (content.filename if isinstance(content, MediaContent) else None) or "picture"
        return escaped(title), [*(sections(escaped(words)) if words else []), picture(content.url, title)]
    name = (content.filename if isinstance(content, MediaContent) else None) or content.mime_type
    return "\n".join(filter(None, (escaped(words), link(content.url, escaped(name))))), []


def _place(about: str) -> dict[str, str]:
    where, _, ts = about.rpartition(":")
    return {"channel": where, "ts": ts}


def _id(answer: Mapping[str, Any]) -> str:
    where, ts = answer.get("channel"), answer.get("ts")
    if not isinstance(where, str) or not isinstance(ts, str):
        raise BadResponse("slack", "accepted a message without naming it")
    return f"{where}:{ts}"


def _new_id(message: Outgoing) -> str:
    """What has no message of its own at Slack is known by our own key."""
    return f"{message.content.type}:{message.idempotency_key}"


def _error(code: str, answer: Mapping[str, Any], response: httpx2.Response) -> ProviderError:
    kind, retryable = _KINDS.get(code, (Refused, False))
    missing = f" (needs {answer['needed']})" if isinstance(answer.get("needed"), str) else ""
    after = error_from_response("slack", response).retry_after
    told = f"{code[:100]}{missing}"
    return kind(
        "slack",
        told,
        retryable=retryable,
        retry_after=after,
        status=response.status_code,
        code=code[:100],
        ambiguous=code in _AMBIGUOUS,
    )
