"""Meta's Graph API: one way to call it, its errors as ours, and the signature on its webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

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
from roomkit.models.delivery import WebhookReply, WebhookRequest
from roomkit.net.client import ClientOptions, error_from_response, http_client, parse_retry_after, vendor_errors
from roomkit.net.redaction import redact, register_secret
from roomkit.net.ssrf import Credentials, Fetched, Fetcher, FetchPolicy, Resolver
from roomkit.providers.vendor_json import part, rows
from roomkit.runtime import bounded

if TYPE_CHECKING:
    import httpx2

Raw = Mapping[str, Any]
HEADER = "x-hub-signature-256"
GRAPH_VERSION = "v25.0"
SOLE = {"sole_reaction": True}
"""The metadata of a reaction on a network where each person has one: it takes the place of theirs."""
MEDIA_HOST = "lookaside.fbsbx.com"
"""Where Meta keeps the files of WhatsApp."""

_RETRYABLE: dict[int, type[ProviderError]] = {
    1: Unavailable,
    2: Unavailable,
    1200: Unavailable,
    131000: Unavailable,
    131016: Unavailable,
    131057: Unavailable,  # the account is being maintained
    4: RateLimited,
    17: RateLimited,
    32: RateLimited,
    341: RateLimited,
    613: RateLimited,
    80006: RateLimited,
    80007: RateLimited,
    130429: RateLimited,
    131056: RateLimited,  # too much to this one person
    133016: RateLimited,
}
_UNAUTHORIZED = frozenset({0, 3, 10, 102, 190, 131005, 131031, 131045, *range(200, 300)})
WINDOW_CLOSED = "131047"


@dataclass(frozen=True, slots=True)
class MetaOptions:
    """One app's side of a channel, and the account it sends from.

    `account` is the id of the phone number (WhatsApp) or of the page (Messenger). `app_secret` proves webhooks, and our
    requests where it is given; `verify_token` is what Meta shows once when you enter the webhook's address. Times in
    seconds.
    """

    token: str = field(repr=False)
    account: str
    app_secret: str | None = field(default=None, repr=False)
    verify_token: str | None = field(default=None, repr=False)
    version: str = GRAPH_VERSION
    base_url: str = "https://graph.facebook.com"
    timeout_s: float = 15.0


class Graph:
    """Requests as one account."""

    def __init__(
        self,
        name: str,
        options: MetaOptions,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        if not re.fullmatch(r"v\d{1,3}\.\d", options.version):
            raise ConfigError(f'meta: "{options.version}" is no version of the Graph API; write e.g. {GRAPH_VERSION}')
        register_secret(options.token, options.app_secret, options.verify_token)
        self._name = name
        self._options = options
        self._network = (resolver, transport)
        proof = hmac.new((options.app_secret or "").encode(), options.token.encode(), hashlib.sha256).hexdigest()
        self._proof = {"appsecret_proof": proof} if options.app_secret else {}
        register_secret(*self._proof.values())
        self._client = http_client(
            ClientOptions(read_s=options.timeout_s, write_s=options.timeout_s),
            base_url=options.base_url,
            headers={"authorization": f"Bearer {options.token}"},
            transport=transport,
        )

    async def post(self, path: str, body: Raw) -> Raw:
        return await self._call("POST", path, json=dict(body))

    async def get(self, path: str) -> Raw:
        return await self._call("GET", path)

    async def upload(self, path: str, form: Mapping[str, str], name: str, file: tuple[str, bytes, str]) -> Raw:
        """A form with a file in the field `name`."""
        return await self._call("POST", path, data=dict(form), files={name: file})

    async def fetch(self, url: str, policy: FetchPolicy | None, *, key_host: str | None = None) -> Fetched:
        """Downloads a file; the token goes to `key_host` only."""
        credentials = Credentials.bearer(key_host, self._options.token) if key_host else None
        resolver, transport = self._network
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self._name) as fetcher:
            return await fetcher.fetch(url, credentials=credentials)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _call(self, method: str, path: str, **body: Any) -> Raw:
        options = self._options
        with vendor_errors(self._name):
            request = self._client.request(method, f"/{options.version}/{path}", params=self._proof, **body)
            response = await bounded(request, options.timeout_s, self._name)
        answer = _json(response)
        if not response.is_success or "error" in answer:
            raise _error(self._name, response, answer)
        return answer


class Webhooks:
    """What proves that a webhook is Meta's; fails closed."""

    def __init__(self, name: str, options: MetaOptions) -> None:
        self._name = name
        self._options = options

    def verify(self, request: WebhookRequest) -> None:
        options = self._options
        if request.method == "GET":
            mine, given = options.verify_token or "", request.query.get("hub.verify_token", "")
            if not mine or request.query.get("hub.mode") != "subscribe" or not _same(mine, given):
                raise AccessDenied(f"{self._name} webhook: the verify token is not ours")
            return
        if not options.app_secret:
            raise AccessDenied(f"{self._name} webhook: no app secret is configured, so nothing is accepted")
        if not _same(self._signature(request.body), request.headers.get(HEADER, "")):
            raise AccessDenied(f"{self._name} webhook: the signature does not match")

    def reply(self, request: WebhookRequest) -> WebhookReply:
        """Meta makes sure of an address by a challenge that has to come back."""
        return WebhookReply(200, request.query.get("hub.challenge", "").encode() if request.method == "GET" else b"")

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        if not self._options.app_secret:
            raise ConfigError(f"{self._name} webhook: no app secret to sign with; set META_APP_SECRET")
        return replace(request, headers={**request.headers, HEADER: self._signature(request.body)})

    def read(self, request: WebhookRequest) -> Raw:
        """The body. `AccessDenied` for one that is none of Meta's."""
        try:
            data: Any = json.loads(request.body)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise AccessDenied(f"{self._name} webhook: the body is no JSON object")
        return cast("Raw", data)

    def _signature(self, body: bytes) -> str:
        return "sha256=" + hmac.new((self._options.app_secret or "").encode(), body, hashlib.sha256).hexdigest()


def own_id(what: Any) -> str:
    """An id for what Meta gave none: the same for the same news."""
    return "sha256:" + hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:40]


def _same(mine: str, given: str) -> bool:
    return hmac.compare_digest(mine.encode(), given.encode(errors="replace"))


def _json(response: httpx2.Response) -> Raw:
    try:
        answer: Any = response.json()
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return cast("Raw", answer)
    return {} if not response.is_success else {"error": {"message": "the answer is no JSON object", "code": -1}}


def _error(name: str, response: httpx2.Response, answer: Raw) -> ProviderError:
    told = part(answer, "error")
    code = told.get("code")
    subcode = told.get("error_subcode")
    details = part(told, "error_data").get("details")
    text = redact(": ".join(str(one) for one in (told.get("message"), details) if one))[:300] or response.reason_phrase
    if not isinstance(code, int):
        return error_from_response(name, response, text)
    if code == -1:
        return BadResponse(name, text, status=response.status_code)
    kind, retryable = _kind(code, subcode, told, response)
    named = f"{code}" + (f"/{subcode}" if subcode else "")
    return kind(
        name,
        f"{text} (error {named})",
        retryable=retryable,
        retry_after=_wait(response) if retryable else None,
        status=response.status_code,
        code=WINDOW_CLOSED if subcode == 2018278 else str(code),
        ambiguous=response.status_code >= 500 and code not in _RETRYABLE,
    )


def _kind(code: int, subcode: Any, told: Raw, response: httpx2.Response) -> tuple[type[ProviderError], bool]:
    if code in _RETRYABLE:
        return _RETRYABLE[code], True
    if subcode in (2018278, 2018065, 2018108, 1545041):  # what this person may be sent, not who we are
        return Refused, False
    if code in _UNAUTHORIZED:
        return Unauthorized, False
    if told.get("is_transient") is True or response.status_code >= 500:
        return Unavailable, True
    return (RateLimited, True) if response.status_code == 429 else (Refused, False)


def _wait(response: httpx2.Response) -> float | None:
    """Seconds until calls are taken again; Meta tells minutes, per account and kind of call."""
    if (seconds := parse_retry_after(response.headers)) is not None:
        return seconds
    try:
        usage: Any = json.loads(response.headers.get("x-business-use-case-usage", ""))
    except ValueError:
        return None
    found = cast("Raw", usage).values() if isinstance(usage, dict) else ()
    minutes = [one.get("estimated_time_to_regain_access") for many in found for one in rows(many)]
    return max((60.0 * one for one in minutes if isinstance(one, int | float) and one > 0), default=None)
