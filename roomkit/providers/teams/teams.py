"""TeamsProvider: a bot in Microsoft Teams."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

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
from roomkit.models.room import ChannelCapabilities
from roomkit.net.client import ClientOptions, error_from_response, http_client, vendor_errors
from roomkit.net.redaction import register_secret
from roomkit.net.ssrf import Credentials, Fetched, Fetcher, FetchPolicy, Resolver
from roomkit.ports.channel import VaultPort
from roomkit.providers.teams import inbound
from roomkit.providers.teams.cards import activity_of
from roomkit.providers.teams.conversations import Conversations, check_service, place_of, service_of
from roomkit.providers.teams.keys import ConnectorKeys, KeyRules
from roomkit.providers.teams.login import Login
from roomkit.providers.vendor_json import json_object, text
from roomkit.runtime import Clock, SystemClock, bounded

if TYPE_CHECKING:
    import httpx2

_SCOPE = "https://api.botframework.com/.default"
_KINDS: Mapping[str, tuple[type[ProviderError], bool]] = {
    "BotNotInConversationRoster": (Refused, False),
    "BotDisabledByAdmin": (Refused, False),
    "BotBlockedByUser": (Refused, False),
    "MessageWritesBlocked": (Refused, False),
    "MessageSizeTooBig": (Refused, False),
    "ConversationNotFound": (Refused, False),
    "ActivityNotFoundInConversation": (Refused, False),
    "BotNotRegistered": (Unauthorized, False),
    "PreconditionFailed": (Unavailable, True),
    "ConcurrentTurn": (Unavailable, True),
    "Throttled": (RateLimited, True),
}
_MAX_BYTES = 28 * 1024
"""Most that Teams takes of one activity: about 28 KB, card and text together."""
_MAX_CHARACTERS = 9000


@dataclass(frozen=True, slots=True)
class TeamsOptions:
    """One bot.

    `app_id` and `app_password` are those of its registration; `tenant` is the directory of a single-tenant bot. The
    bot's token goes to `service_hosts` only, and what is said without being asked in a conversation that has never
    written goes to `service_url`. For other clouds (US Government, China) set `issuers`, `metadata_url`, `login_url`,
    `scope` and `service_hosts`. `signing_key` (PEM) signs simulated activities: whoever has it can post, so set it for
    tests only. With `typing` the bot is shown as writing when a message has come. Times in seconds.
    """

    app_id: str = ""
    app_password: str | None = field(default=None, repr=False)
    tenant: str = "botframework.com"
    service_url: str = "https://smba.trafficmanager.net/teams"
    service_hosts: tuple[str, ...] = (
        "smba.trafficmanager.net",
        "*.botframework.com",
        "smba.infra.gcc.teams.microsoft.com",
        "smba.infra.gov.teams.microsoft.us",
        "smba.infra.dod.teams.microsoft.us",
    )
    issuers: tuple[str, ...] = ("https://api.botframework.com",)
    metadata_url: str = "https://login.botframework.com/v1/.well-known/openidconfiguration"
    login_url: str = "https://login.microsoftonline.com"
    scope: str = _SCOPE
    skew_s: float = 300.0
    signing_key: str | None = field(default=None, repr=False)
    typing: bool = True
    timeout_s: float = 15.0


class TeamsProvider:
    """The `MessageProvider` for Teams. A recipient is the id of a conversation; a thread in a channel is one.

    The Bot Connector knows no idempotency keys: an attempt without an answer is ambiguous. Its tokens do not cover the
    body of what it posts: what they prove is who posts, and TLS does the rest."""

    name = "teams"
    opt_out_codes = frozenset({"BotBlockedByUser"})

    def __init__(
        self,
        options: TeamsOptions,
        *,
        clock: Clock | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeTeams().transport()`. Raises `ConfigError`."""
        if not options.app_id or not options.app_password:
            raise ConfigError("teams: the app's id and password are needed; set TEAMS_APP_ID and TEAMS_APP_PASSWORD")
        register_secret(options.app_password, options.signing_key)
        self.options = options
        self._network = (resolver, transport)
        self._conversations = Conversations()
        timeout = options.timeout_s
        self._client = http_client(ClientOptions(read_s=timeout, write_s=timeout), transport=transport)
        form = {"grant_type": "client_credentials", "client_id": options.app_id, "scope": options.scope}
        form["client_secret"] = options.app_password
        url = f"{options.login_url}/{options.tenant}/oauth2/v2.0/token"
        self._login = Login(self._client, url, form, timeout)
        rules = KeyRules(options.app_id, options.issuers, options.metadata_url, options.skew_s, options.signing_key)
        self._keys = ConnectorKeys(rules, self._fetch_json, clock or SystemClock())

    def keep_in(self, vault: VaultPort) -> None:
        self._conversations.keep_in(vault)

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        """What a bot can do in Teams: cards with six buttons, no reactions; a message is limited in bytes, which this
        many characters of any language keep to."""
        length = min(capabilities.max_length or _MAX_CHARACTERS, _MAX_CHARACTERS)
        able = {"cards": True, "buttons": 6, "quick_replies": True, "reactions": False, "max_length": length}
        return capabilities.model_copy(update={**able, "typing": self.options.typing})

    # -- out ------------------------------------------------------------------------------------------------------

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Posts a message into a conversation, or edits or deletes one; raises `Refused` for what cannot be sent."""
        where, about = message.recipient, [_split(one) for one in message.about_ids]
        match message.content:
            case EditContent(new_content=content):
                (place, first), *rest = about
                await self._call("PUT", place, first, {**self.activity(content), "id": first})
                for place, other in rest:
                    await self._call("DELETE", place, other, gone=True)
            case DeleteContent():
                for place, other in about:
                    await self._call("DELETE", place, other, gone=True)
            case ReactionContent():
                return DeliveryResult(success=True, state=DeliveryState.SKIPPED, error="a bot cannot react in Teams")
            case content:
                activity = self.activity(content)
                if about and about[0][0] == where:
                    activity["replyToId"] = about[0][1]
                answer = await self._call("POST", where, activity.get("replyToId", ""), activity)
                ident = answer.get("id")
                if not isinstance(ident, str):
                    raise BadResponse(self.name, "accepted a message without naming it")
                return DeliveryResult(success=True, provider_message_id=inbound.id_of(where, ident))
        return DeliveryResult(success=True, provider_message_id=f"{message.content.type}:{message.idempotency_key}")

    def activity(self, content: Content) -> dict[str, Any]:
        """The activity that says `content`; `Refused` for what cannot be said, or is too large."""
        for part in content.parts if isinstance(content, CompositeContent) else (content,):
            if isinstance(part, MediaContent | AudioContent | VideoContent) and not part.url.startswith("https://"):
                raise Refused(self.name, "media must have a public https URL; configure the kit's public URL")
        said = activity_of(content)
        if not said:
            raise Refused(self.name, f"content of type {content.type} has neither text nor media to send")
        if (size := len(json.dumps(said, ensure_ascii=False).encode())) > _MAX_BYTES:
            raise Refused(self.name, f"the message has {size} bytes and Teams takes {_MAX_BYTES}; shorten it")
        return {"type": "message", **said}

    async def acknowledge(self, message: InboundMessage) -> None:
        """Shows the bot as writing, to one who has written to it."""
        asked = message.type == "message" and message.addressed_to is None and not message.group
        if self.options.typing and asked and message.conversation_id:
            await self._call("POST", message.conversation_id, "", {"type": "typing"})

    async def _call(
        self, method: str, where: str, activity: str, body: dict[str, Any] | None = None, *, gone: bool = False
    ) -> Mapping[str, Any]:
        """One call about a conversation; `gone` takes it as done when what it is about is no longer there."""
        reference = await self._conversations.find(where) or {}
        service = check_service(str(reference.get("service") or self.options.service_url), self.options.service_hosts)
        if body is not None and reference.get("bot"):
            body = {**body, "from": reference["bot"]}
        url = service + place_of(where, activity)
        response = await self._request(method, url, body)
        answer = json_object(response)
        if response.is_success:
            if answer is None and response.status_code not in {200, 202, 204}:
                raise BadResponse(self.name, "the answer is no JSON", status=response.status_code, ambiguous=True)
            return answer or {}
        if gone and response.status_code == 404:
            return {}
        raise _error(response, answer or {})

    async def _request(self, method: str, url: str, body: dict[str, Any] | None) -> httpx2.Response:
        """With the bot's token; one that is refused is renewed once."""
        for last in (False, True):
            token = await self._login.token()
            with vendor_errors(self.name):
                request = self._client.request(method, url, json=body, headers={"authorization": f"Bearer {token}"})
                response = await bounded(request, self.options.timeout_s, "teams")
            if response.status_code != 401 or last:
                break
            self._login.refused(token)
        return response

    # -- in -------------------------------------------------------------------------------------------------------

    async def prepare(self, request: WebhookRequest) -> None:
        """Fetches the Bot Connector's keys where that is needed."""
        await self._keys.prepare(request.headers.get("authorization", ""))

    def verify(self, request: WebhookRequest) -> None:
        activity = inbound.body_of(request)
        service = service_of(activity)
        self._keys.verify(request.headers.get("authorization", ""), service, text(activity, "channelId"))
        try:
            check_service(service, self.options.service_hosts)
        except Refused as error:
            raise AccessDenied(f"teams webhook: {error}") from None

    async def remember(self, request: WebhookRequest) -> None:
        """Keeps where the conversation is answered."""
        await self._conversations.note(inbound.body_of(request))

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        """Nothing of somebody who is only typing."""
        return [*inbound.read(inbound.body_of(request), channel_id)]

    def reply(self, request: WebhookRequest) -> WebhookReply:
        """Empty; to an invoke, which waits for one, the answer that it is done."""
        done: dict[str, Any] = {}
        try:
            activity = inbound.body_of(request)
        except AccessDenied:
            activity = {}
        if activity.get("type") == "invoke" and activity.get("name") == "adaptiveCard/action":
            done = {"statusCode": 200, "type": "application/vnd.microsoft.activity.message", "value": "OK"}
        return WebhookReply(200, json.dumps(done).encode(), "application/json")

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        token = self._keys.token(service_of(inbound.body_of(request)))
        return replace(request, headers={**request.headers, "authorization": f"Bearer {token}"})

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads a file; the bot's token goes to the service's own hosts only."""
        resolver, transport = self._network
        credentials = None
        try:
            check_service(attachment.url.partition("?")[0], self.options.service_hosts)
        except Refused:
            pass
        else:
            host = urlsplit(attachment.url).hostname or ""
            credentials = Credentials.bearer(host, await self._login.token())
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self.name) as fetcher:
            return await fetcher.fetch(attachment.url, credentials=credentials)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _fetch_json(self, url: str) -> Any:
        resolver, transport = self._network
        policy = FetchPolicy(max_bytes=1 << 20, total_s=self.options.timeout_s, https_only=True)
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self.name) as fetcher:
            return (await fetcher.fetch(url)).body


def provider(account: str | None = None, **options: Any) -> TeamsProvider:
    """The provider by name: TEAMS_APP_ID, TEAMS_APP_PASSWORD, TEAMS_TENANT (of a single-tenant bot) and, for `roomkit
    send`, TEAMS_SIGNING_KEY; of an account "NAME" TEAMS_APP_ID_NAME and so on. `options` win."""
    suffix = f"_{account.upper()}" if account else ""
    names = {"app_id": "APP_ID", "app_password": "APP_PASSWORD", "tenant": "TENANT", "signing_key": "SIGNING_KEY"}
    told = {name: os.environ.get(f"TEAMS_{variable}{suffix}") for name, variable in names.items()}
    found: dict[str, Any] = {name: value for name, value in told.items() if value}
    network = {name: options.pop(name) for name in ("clock", "transport", "resolver") if name in options}
    return TeamsProvider(TeamsOptions(**{**found, **options}), **network)


def _split(about: str) -> tuple[str, str]:
    where, _, ident = about.rpartition("|")
    return where, ident


def _error(response: httpx2.Response, answer: Mapping[str, Any]) -> ProviderError:
    told = answer.get("error")
    inner: Mapping[str, Any] = cast("Mapping[str, Any]", told) if isinstance(told, dict) else {}
    code = str(inner.get("code") or "")[:100]
    words = str(inner.get("message") or "")[:300]
    error = error_from_response("teams", response, words or code or None, code=code or None)
    if response.status_code == 412:
        return Unavailable("teams", words or "precondition failed", status=412, code=code or None)
    if code not in _KINDS:
        return error
    kind, retryable = _KINDS[code]
    return kind(
        "teams",
        f"{words} ({code})",
        retryable=retryable,
        retry_after=error.retry_after,
        status=error.status,
        code=code,
    )
