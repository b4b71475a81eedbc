"""A fake Twilio: takes messages as strictly as the real one, and signs webhooks with Twilio's own code.

    fake = FakeTwilio()
    provider = TwilioSMSProvider(fake.options(), transport=fake.transport())
    request = fake.text("+15550123", "hello")              # a signed inbound webhook
    reports = fake.reports(fake.messages[0], "sent", "delivered")

It can be slow (`delay_s`), refuse (`fail`), lose the answer after accepting (`lose_answer`), and repeat and reorder
(`disorder`) its webhooks. Needs the [twilio] and [server] extras.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from twilio.request_validator import RequestValidator  # pyright: ignore[reportMissingTypeStubs]

from roomkit.models.delivery import WebhookRequest
from roomkit.providers.twilio.sms import TwilioOptions
from roomkit.testing.asgi import ConnectionCut, StreamingASGITransport

_FORM = "application/x-www-form-urlencoded"
_KNOWN = frozenset(
    {"To", "From", "MessagingServiceSid", "Body", "MediaUrl", "StatusCallback", "ValidityPeriod"}
    | {"ContentSid", "ContentVariables", "PersistentAction"}
)
_NUMBER = re.compile(r"(?:rcs:|whatsapp:)?\+[1-9][0-9]{6,14}")
_SENDER = re.compile(r"(?:whatsapp:)?\+[1-9][0-9]{6,14}|[0-9]{3,6}|[A-Za-z0-9 ]{1,11}|rcs:[a-z0-9_]+")
_PLACE = re.compile(r"geo:-?[0-9.]+,-?[0-9.]+(?:\|.+)?")


@dataclass(frozen=True, slots=True)
class FakeMessage:
    """A message that the fake has accepted."""

    sid: str
    to: str
    sender: str
    body: str
    media: tuple[str, ...] = ()
    status_callback: str | None = None
    template: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    place: str | None = None


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    code: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class FakeTwilio:
    """One account. `messages` is what was accepted; `opted_out` and `invalid` numbers are refused as Twilio does."""

    def __init__(
        self,
        *,
        account_sid: str = "AC" + "0" * 32,
        auth_token: str = "fake-twilio-token",  # noqa: S107 - a fake
        number: str = "+15550100",
        webhook_url: str = "https://rooms.example/webhooks/sms",
    ) -> None:
        self.account_sid = account_sid
        self.auth_token = auth_token
        self.number = number
        self.webhook_url = webhook_url
        self.delay_s = 0.0
        self.messages: list[FakeMessage] = []
        self.opted_out: set[str] = set()
        self.invalid: set[str] = set()
        self.media: dict[str, tuple[str, bytes]] = {}
        self.leaks: list[str] = []
        """Hosts which were sent the account's credentials although they are not Twilio's API."""
        self._script: deque[_Refusal | str] = deque()
        self._count = 0

    def options(self, **more: Any) -> TwilioOptions:
        """Settings of a provider for this account."""
        values: dict[str, Any] = {"auth_token": self.auth_token, "from_number": self.number, **more}
        return TwilioOptions(self.account_sid, **values)

    def transport(self) -> StreamingASGITransport:
        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        account = f"/2010-04-01/Accounts/{self.account_sid}"
        return Starlette(
            routes=[
                Route(f"{account}/Messages.json", self._create, methods=["POST"]),
                Route(f"{account}/Messages/{{message}}/Media/{{media}}", self._media),
                Route("/cdn/{media}", self._cdn),
            ]
        )

    def fail(
        self, status: int, code: int, message: str = "scripted failure", *, retry_after: float | None = None
    ) -> None:
        """The next message is refused."""
        headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
        self._script.append(_Refusal(status, code, message, headers))

    def lose_answer(self) -> None:
        """The next message is accepted, but the connection breaks before the answer."""
        self._script.append("lose")

    def hang(self) -> None:
        """The next message is accepted, but the answer never comes."""
        self._script.append("hang")

    def text(
        self, sender: str, body: str, *, media: Sequence[tuple[str, bytes]] = (), sid: str | None = None, **more: str
    ) -> WebhookRequest:
        """A signed webhook for a message from `sender`; `media` are (type, bytes) pairs to be downloaded from here."""
        sid = sid or self._sid("MM" if media else "SM")
        params = {
            "ToCountry": "US",
            "SmsMessageSid": sid,
            "NumMedia": str(len(media)),
            "SmsSid": sid,
            "SmsStatus": "received",
            "Body": body,
            "To": self.number,
            "NumSegments": "1",
            "MessageSid": sid,
            "AccountSid": self.account_sid,
            "From": sender,
            "ApiVersion": "2010-04-01",
            **more,
        }
        for number, (mime, data) in enumerate(media):
            name = f"ME{hashlib.md5(data, usedforsecurity=False).hexdigest()}"
            self.media[name] = (mime, data)
            params[f"MediaContentType{number}"] = mime
            params[f"MediaUrl{number}"] = (
                f"https://api.twilio.com/2010-04-01/Accounts/{self.account_sid}/Messages/{sid}/Media/{name}"
            )
        return self.form(params)

    def reports(self, message: FakeMessage, *states: str, error: int | None = None) -> list[WebhookRequest]:
        """Signed delivery reports, one for each state; `error` goes with the failed ones."""
        requests: list[WebhookRequest] = []
        for state in states:
            params = {
                "SmsSid": message.sid,
                "SmsStatus": state,
                "MessageStatus": state,
                "To": message.to,
                "MessageSid": message.sid,
                "AccountSid": self.account_sid,
                "From": self.number if message.sender.startswith("MG") else message.sender,
                "ApiVersion": "2010-04-01",
            }
            if error is not None and state in {"failed", "undelivered"}:
                params["ErrorCode"] = str(error)
            requests.append(self.form(params, url=message.status_callback))
        return requests

    def form(self, params: Mapping[str, str], *, url: str | None = None) -> WebhookRequest:
        """Any parameters as a signed form."""
        url = url or self.webhook_url
        signature = str(self._validator().compute_signature(url, dict(params)))
        headers = {"content-type": f"{_FORM}; charset=UTF-8", "x-twilio-signature": signature}
        return WebhookRequest("POST", url, headers, urlencode(params).encode(), dict(parse_qsl(url.partition("?")[2])))

    def json(self, data: Any) -> WebhookRequest:
        """Any data as signed JSON, the body's hash in the URL."""
        body = json.dumps(data)
        url = f"{self.webhook_url}?bodySHA256={self._validator().compute_hash(body)}"
        headers = {
            "content-type": "application/json",
            "x-twilio-signature": str(self._validator().compute_signature(url, {})),
        }
        return WebhookRequest("POST", url, headers, body.encode(), dict(parse_qsl(url.partition("?")[2])))

    @staticmethod
    def disorder(requests: Sequence[WebhookRequest], rng: random.Random, *, repeats: int = 2) -> list[WebhookRequest]:
        """The same webhooks as a bad day delivers them: each up to `repeats` times, in any order."""
        mixed = [request for request in requests for _ in range(rng.randint(1, repeats))]
        rng.shuffle(mixed)
        return mixed

    def _validator(self) -> Any:
        return RequestValidator(self.auth_token)

    def _sid(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count:032x}"

    async def _create(self, request: Request) -> Response:
        if not self._authorized(request):
            return _problem(_Refusal(401, 20003, "Authentication Error - invalid username"))
        if not request.headers.get("content-type", "").startswith(_FORM):
            return _problem(_Refusal(415, 20415, "Unsupported media type"))
        pairs = parse_qsl((await request.body()).decode(), keep_blank_values=True, strict_parsing=True)
        script = self._script.popleft() if self._script else None
        if refusal := script if isinstance(script, _Refusal) else self._objection(pairs):
            return _problem(refusal)
        message = self._accept(pairs)
        await asyncio.sleep(1e9 if script == "hang" else self.delay_s)
        if script == "lose":
            raise ConnectionCut
        return JSONResponse(self._resource(message), status_code=201)

    def _objection(self, pairs: Sequence[tuple[str, str]]) -> _Refusal | None:
        values = dict(pairs)
        names = [name for name, _ in pairs]
        media = [value for name, value in pairs if name == "MediaUrl"]
        to, sender = values.get("To", ""), values.get("From")
        if unknown := set(names) - _KNOWN or {n for n in names if n != "MediaUrl" and names.count(n) > 1}:
            return _Refusal(400, 20001, f"Parameter {min(unknown)} is unknown or repeated")
        checks = (
            (not to, 21604, "A 'To' phone number is required."),
            (not _NUMBER.fullmatch(to) or to in self.invalid, 21211, f"Invalid 'To' Phone Number: {to}"),
            (to in self.opted_out, 21610, "Attempt to send to unsubscribed recipient"),
            ((sender is None) == ("MessagingServiceSid" not in values), 21603, "Exactly one sender is required."),
            (sender is not None and not _SENDER.fullmatch(sender), 21212, f"Invalid From Number: {sender}"),
            (
                "Body" not in values and not media and "ContentSid" not in values,
                21619,
                "A text message body or media urls must be specified.",
            ),
            (
                len(values.get("Body", "")) > 1600,
                21617,
                "The concatenated message body exceeds the 1600 character limit",
            ),
            (len(media) > (1 if to.startswith("whatsapp:") else 10), 21623, "Number of media files exceeds the limit"),
            (_crossed(to, sender), 63007, f"There is no channel with the sender address: {sender}"),
            (not re.fullmatch(r"HX[0-9a-f]{32}|", values.get("ContentSid", "")), 21656, "The ContentSid is invalid"),
            (not _is_table(values.get("ContentVariables", "{}")), 21656, "The ContentVariables are invalid"),
            (not _PLACE.fullmatch(values.get("PersistentAction", "geo:0,0")), 21620, "Invalid PersistentAction"),
            (any(not url.startswith("http") for url in media), 21620, "Invalid media URL(s)"),
        )
        return next((_Refusal(400, code, text) for wrong, code, text in checks if wrong), None)

    def _accept(self, pairs: Sequence[tuple[str, str]]) -> FakeMessage:
        values = dict(pairs)
        media = tuple(value for name, value in pairs if name == "MediaUrl")
        sender = values.get("From") or values.get("MessagingServiceSid", "")
        sid = self._sid("MM" if media else "SM")
        message = FakeMessage(
            sid,
            values["To"],
            sender,
            values.get("Body", ""),
            media,
            values.get("StatusCallback"),
            values.get("ContentSid"),
            json.loads(values.get("ContentVariables", "{}")),
            values.get("PersistentAction"),
        )
        self.messages.append(message)
        return message

    def _resource(self, message: FakeMessage) -> dict[str, Any]:
        path = f"/2010-04-01/Accounts/{self.account_sid}/Messages/{message.sid}"
        service = message.sender.startswith("MG")
        return {
            "account_sid": self.account_sid,
            "api_version": "2010-04-01",
            "body": message.body,
            "date_created": "Tue, 01 Jan 2030 00:00:00 +0000",
            "date_sent": None,
            "date_updated": "Tue, 01 Jan 2030 00:00:00 +0000",
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": None if service else message.sender,
            "messaging_service_sid": message.sender if service else None,
            "num_media": str(len(message.media)),
            "num_segments": "1",
            "price": None,
            "price_unit": "USD",
            "sid": message.sid,
            "status": "accepted" if service else "queued",
            "subresource_uris": {"media": f"{path}/Media.json"},
            "to": message.to,
            "uri": f"{path}.json",
        }

    async def _media(self, request: Request) -> Response:
        if not self._authorized(request):
            return _problem(_Refusal(401, 20003, "Authentication Error"))
        return RedirectResponse(f"https://mms.twiliocdn.com/cdn/{request.path_params['media']}", 307)

    async def _cdn(self, request: Request) -> Response:
        if "authorization" in request.headers:
            self.leaks.append(request.headers.get("host", ""))
        mime, data = self.media[request.path_params["media"]]
        return Response(data, media_type=mime)

    def _authorized(self, request: Request) -> bool:
        expected = base64.b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        return request.headers.get("authorization") == f"Basic {expected}"


def _crossed(to: str, sender: str | None) -> bool:
    """Whether sender and recipient are of different channels."""
    if sender is None:
        return False
    return any(to.startswith(kind) != sender.startswith(kind) for kind in ("whatsapp:", "rcs:"))


def _is_table(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _problem(refusal: _Refusal) -> JSONResponse:
    body = {
        "code": refusal.code,
        "message": refusal.message,
        "more_info": f"https://www.twilio.com/docs/errors/{refusal.code}",
        "status": refusal.status,
    }
    return JSONResponse(body, status_code=refusal.status, headers=dict(refusal.headers))
