"""Options of messaging vendors that change what goes over the line or what is let in: each test fails when its option
is ignored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx2
import pytest

from roomkit.channels import EmailChannel
from roomkit.errors import AccessDenied, ProviderError, ProviderTimeout, Refused, UsageError
from roomkit.models.content import Button, RichContent
from roomkit.models.delivery import Attachment, Outgoing, WebhookRequest
from roomkit.models.event import RoomEvent
from roomkit.models.room import Category
from roomkit.net.ssrf import FetchPolicy
from roomkit.providers.discord.discord import DiscordProvider
from roomkit.providers.elasticemail.email import ElasticEmailProvider
from roomkit.providers.http.http import HTTPWebhookOptions, HTTPWebhooks
from roomkit.providers.mail import MailSettings
from roomkit.providers.meta.messenger import MessengerProvider
from roomkit.providers.meta.whatsapp import MetaWhatsAppProvider, WhatsAppOptions
from roomkit.providers.sendgrid.email import SendGridProvider
from roomkit.providers.sinch.sms import SinchSMSProvider
from roomkit.providers.slack.slack import SlackProvider
from roomkit.providers.smtp.email import SMTPOptions, SMTPProvider
from roomkit.providers.smtp.lmtp import LMTPOptions, LMTPSource
from roomkit.providers.teams.teams import TeamsProvider
from roomkit.providers.telegram.telegram import TelegramProvider
from roomkit.providers.telnyx.sms import TelnyxSMSProvider
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.runtime import SystemClock, monotonic
from roomkit.testing import FakeTwilio
from roomkit.testing.messages import binding_of, context_of, event_of, message_to
from roomkit.testing.vendors.discord import FakeDiscord
from roomkit.testing.vendors.elasticemail import FakeElasticEmail
from roomkit.testing.vendors.meta import FakeMeta
from roomkit.testing.vendors.sendgrid import FakeSendGrid
from roomkit.testing.vendors.sinch import FakeSinch
from roomkit.testing.vendors.slack import FakeSlack
from roomkit.testing.vendors.teams import FakeTeams
from roomkit.testing.vendors.telegram import FakeTelegram
from roomkit.testing.vendors.telnyx import FakeTelnyx
from tests.providers.vendor_calls import public

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
HOOK = "https://rooms.example/webhooks/hook"
PHONE, ADA = "+15550123", "ada@x.example"


class Hand(SystemClock):
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = EPOCH

    def now(self) -> datetime:
        return self.at


class Line(httpx2.AsyncBaseTransport):
    """Remembers what was asked, and whom; answers as the fake vendor does, late where that is wanted."""

    def __init__(self, inner: httpx2.AsyncBaseTransport | None, delay_s: float = 0.0) -> None:
        self.asked: list[httpx2.Request] = []
        self._inner, self._delay_s = inner, delay_s

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.asked.append(request)
        await asyncio.sleep(self._delay_s)
        if self._inner is None:
            return httpx2.Response(400, json={}, request=request)
        return await self._inner.handle_async_request(request)

    @property
    def body(self) -> Any:
        return json.loads(self.asked[-1].content)


class Vendor(NamedTuple):
    make: Callable[..., Any]
    fake: Callable[[], Any]
    to: str
    options: str = "options"


def told(make: Callable[..., Any]) -> Callable[..., Any]:
    """A provider that is told neither the time nor where names lead."""
    return lambda options, clock, transport: make(options, transport=transport)


def timed(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda options, clock, transport: make(options, clock=clock, transport=transport)


def anywhere(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda options, clock, transport: make(options, clock=clock, transport=transport, resolver=public)


VENDORS = {
    "twilio": Vendor(told(TwilioSMSProvider), lambda: FakeTwilio(webhook_url=HOOK), PHONE),
    "telnyx": Vendor(timed(TelnyxSMSProvider), FakeTelnyx, PHONE),
    "sinch": Vendor(timed(SinchSMSProvider), FakeSinch, PHONE),
    "whatsapp": Vendor(told(MetaWhatsAppProvider), FakeMeta, PHONE, "whatsapp_options"),
    "messenger": Vendor(told(MessengerProvider), FakeMeta, "24000000001", "messenger_options"),
    "telegram": Vendor(told(TelegramProvider), FakeTelegram, "5550123"),
    "slack": Vendor(timed(SlackProvider), FakeSlack, "C1"),
    "discord": Vendor(timed(DiscordProvider), FakeDiscord, "1001"),
    "teams": Vendor(anywhere(TeamsProvider), FakeTeams, "a:1personal"),
    "sendgrid": Vendor(timed(SendGridProvider), FakeSendGrid, ADA),
    "elasticemail": Vendor(timed(ElasticEmailProvider), FakeElasticEmail, ADA),
}


def made(
    name: str, *, line: httpx2.AsyncBaseTransport | None = None, clock: Any = None, fake: Any = None, **options: Any
) -> Any:
    vendor = VENDORS[name]
    fake = fake or vendor.fake()
    return vendor.make(getattr(fake, vendor.options)(**options), clock or Hand(), line or fake.transport())


async def asked(name: str, message: Outgoing | None = None, *, delay_s: float = 0.0, **options: Any) -> Line:
    """What goes over the line when one message is sent."""
    line = Line(None, delay_s)
    provider = made(name, line=line, **options)
    with pytest.raises(ProviderError):
        await provider.send(message or message_to(VENDORS[name].to, "hello"))
    await provider.aclose()
    return line


# -- of them all ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(VENDORS.keys() - {"teams"}))
async def test_the_base_url_is_where_everything_goes(name: str) -> None:
    line = await asked(name, base_url="https://proxy.example")
    assert {request.url.host for request in line.asked} == {"proxy.example"}
    assert "proxy.example" not in {request.url.host for request in (await asked(name)).asked}


@pytest.mark.parametrize("name", sorted(VENDORS))
async def test_a_vendor_has_as_long_as_was_said(name: str) -> None:
    provider = made(name, line=Line(None, delay_s=600), timeout_s=3)
    start = monotonic()
    with pytest.raises(ProviderTimeout):
        await provider.send(message_to(VENDORS[name].to, "hello"))
    assert monotonic() - start == pytest.approx(3)
    await provider.aclose()


def signing(name: str, clock: Any, freshness_s: float) -> Any:
    if name == "http":
        options = HTTPWebhookOptions(secrets=("a secret of sixteen or more",), freshness_s=freshness_s)
        return HTTPWebhooks(options, clock=clock)
    if name == "smtp":
        return SMTPProvider(SMTPOptions("x", webhook_secrets=("x" * 16,), freshness_s=freshness_s), clock=clock)
    return made(name, clock=clock, freshness_s=freshness_s)


@pytest.mark.parametrize("name", ["telnyx", "sinch", "slack", "discord", "sendgrid", "elasticemail", "http", "smtp"])
def test_a_webhook_is_good_for_as_long_as_was_said(name: str) -> None:
    clock = Hand()
    provider = signing(name, clock, 60)
    request = provider.sign(WebhookRequest("POST", HOOK, {"content-type": "application/json"}, b"{}"))
    clock.at = EPOCH + timedelta(seconds=59)
    provider.verify(request)
    clock.at = EPOCH + timedelta(seconds=62)
    with pytest.raises(AccessDenied):
        provider.verify(request)
    clock.at = EPOCH
    later = signing(name, clock, 120)
    request = later.sign(WebhookRequest("POST", HOOK, {"content-type": "application/json"}, b"{}"))
    clock.at = EPOCH + timedelta(seconds=62)
    later.verify(request)


# -- of one vendor each -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sandbox", [True, False])
async def test_sendgrids_sandbox(sandbox: bool) -> None:
    line = await asked("sendgrid", message_to(ADA, "hello"), sandbox=sandbox, mail=MailSettings("help@shop.example"))
    assert ("mail_settings" in line.body) is sandbox


async def test_the_plan_and_number_of_sinch() -> None:
    line = await asked("sinch", message_to(PHONE, "hello"), service_plan_id="plan-7", from_number="+15550777")
    assert "/plan-7/" in line.asked[-1].url.path
    assert line.body["from"] == "+15550777"


@pytest.mark.parametrize("words", ["☰", "Our lamps"])
async def test_what_opens_a_list_of_whatsapp(words: str) -> None:
    line = Line(None)
    options = FakeMeta().whatsapp_options()
    whatsapp = MetaWhatsAppProvider(options, WhatsAppOptions(list_button=words), transport=line)
    choices = tuple(Button(label=f"Lamp {n}", value=f"lamp-{n}") for n in range(5))
    with pytest.raises(ProviderError):
        await whatsapp.send(message_to(PHONE, RichContent(text="Which?", buttons=choices)))
    await whatsapp.aclose()
    assert line.body["interactive"]["action"]["button"] == words


async def test_what_telegram_is_asked_to_tell() -> None:
    line = Line(None)
    bot = made("telegram", line=line, updates=("message",), webhook_secret="a-secret-of-ours")
    with pytest.raises(ProviderError):
        await bot.set_webhook("https://rooms.example/webhooks/telegram")
    await bot.aclose()
    assert line.body["allowed_updates"] == ["message"]


@pytest.mark.parametrize("own, heard", [(None, 1), ("U0SHOP", 0), ("U0OTHER", 1)])
def test_slack_does_not_hear_its_own_bot(own: str | None, heard: int) -> None:
    fake = FakeSlack()
    event = {"type": "message", "user": "U0SHOP", "text": "hi", "channel": "C1", "ts": "1.2"}
    request = fake.event({**event, "channel_type": "channel"})
    body = {**json.loads(request.body), "authorizations": []}
    assert len(made("slack", fake=fake, bot_user_id=own).parse(fake.json(body), "slack")) == heard


@pytest.mark.parametrize("host, told", [("files.slack.com", False), ("files.gov.example", True)])
async def test_slacks_token_goes_to_the_host_of_files_only(host: str, told: bool) -> None:
    line = Line(None)
    slack = SlackProvider(FakeSlack().options(files_host=host), transport=line, resolver=public)
    with pytest.raises(ProviderError):
        await slack.fetch_media(Attachment(url="https://files.gov.example/a.png", mime_type="image/png"), FetchPolicy())
    await slack.aclose()
    assert ("authorization" in line.asked[0].headers) is told


@pytest.mark.parametrize("accounts, fine", [((), False), (("AC" + "1" * 32,), True)])
def test_subaccounts_of_twilio_are_let_in_where_they_are_named(accounts: tuple[str, ...], fine: bool) -> None:
    fake = FakeTwilio(webhook_url=HOOK)
    twilio = made("twilio", fake=fake, accounts=accounts)
    request = fake.form({"AccountSid": "AC" + "1" * 32, "MessageSid": "SM" + "a" * 32, "MessageStatus": "sent"})
    if fine:
        twilio.verify(request)
    else:
        with pytest.raises(AccessDenied):
            twilio.verify(request)


# -- Teams ------------------------------------------------------------------------------------------------------------

GOVERNMENT = {
    "login_url": "https://login.example.us",
    "tenant": "directory-7",
    "scope": "https://api.example.us/.default",
    "service_url": "https://smba.example.us/teams",
    "service_hosts": ("smba.example.us",),
}


async def test_another_cloud_of_teams_is_asked_for_its_own_token() -> None:
    line = await asked("teams", app_id="the-app", **GOVERNMENT)
    login = line.asked[0]
    assert str(login.url).startswith("https://login.example.us/directory-7/")
    form = dict(httpx2.QueryParams(login.content.decode()))
    assert (form["client_id"], form["scope"]) == ("the-app", "https://api.example.us/.default")


@pytest.mark.parametrize("hosts, fine", [(("smba.trafficmanager.net",), False), (("smba.example.us",), True)])
async def test_the_token_of_teams_goes_to_its_hosts_only(hosts: tuple[str, ...], fine: bool) -> None:
    provider = made("teams", line=Line(None), **{**GOVERNMENT, "service_hosts": hosts})
    with pytest.raises(ProviderError) as caught:
        await provider.send(message_to("a:1personal", "hello"))
    await provider.aclose()
    assert ("add it to service_hosts" in str(caught.value)) is not fine
    assert isinstance(caught.value, Refused) or fine


async def let_in(fake: FakeTeams, request: WebhookRequest, line: Line, **options: Any) -> bool:
    teams = made("teams", fake=fake, line=line, clock=fake.clock, **options)
    try:
        await teams.prepare(request)
        teams.verify(request)
    except AccessDenied:
        return False
    finally:
        await teams.aclose()
    return True


async def test_who_may_have_signed_what_teams_says() -> None:
    fake = FakeTeams(clock=Hand())
    line = Line(fake.transport())
    request = fake.message("29:1user", "hi")
    assert await let_in(fake, request, line)
    assert not await let_in(fake, request, line, issuers=("https://api.example.us",))
    assert not await let_in(fake, request, line, app_id="another app")
    foreign = fake.signed(json.loads(request.body), iss="https://api.example.us")
    assert not await let_in(fake, foreign, line)
    assert await let_in(fake, foreign, line, issuers=("https://api.example.us",))


async def test_where_the_keys_of_teams_are_found() -> None:
    fake = FakeTeams(clock=Hand())
    line = Line(None)
    with pytest.raises(ProviderError):
        await let_in(fake, fake.message("29:1user", "hi"), line, metadata_url="https://keys.example.us/openid")
    assert (line.asked[0].headers["host"], line.asked[0].url.path) == ("keys.example.us", "/openid")


@pytest.mark.parametrize("skew_s, fine", [(60, False), (600, True)])
async def test_how_far_the_clocks_of_teams_may_be_apart(skew_s: float, fine: bool) -> None:
    clock = Hand()
    fake = FakeTeams(clock=clock)
    request = fake.message("29:1user", "hi")
    clock.at += timedelta(seconds=fake.lifetime_s + 120)
    assert await let_in(fake, request, Line(fake.transport()), skew_s=skew_s) is fine


# -- letters ----------------------------------------------------------------------------------------------------------


def mail(**settings: Any) -> SMTPProvider:
    values = {"from_address": "help@shop.example", **settings}
    return SMTPProvider(SMTPOptions("127.0.0.1", MailSettings(**values), security="none"), clock=Hand())


def test_the_domain_stands_in_the_ids_of_letters() -> None:
    message = message_to(ADA, "hello")
    assert mail()._desk.message_id(message).endswith("@shop.example")
    assert mail(domain="mail.example")._desk.message_id(message).endswith("@mail.example")


def test_the_secret_of_the_threads_makes_their_marks() -> None:
    message = message_to(ADA, "hello")
    marks = [mail(thread_secret=one)._desk.mark(message) for one in (None, "one secret", "one secret", "another")]
    assert marks[1] == marks[2]
    assert len(set(marks)) == 3


@pytest.mark.parametrize("given, used", [(None, "help@shop.example"), ("bounces@shop.example", "bounces@shop.example")])
async def test_who_gets_the_bounces(given: str | None, used: str) -> None:
    took: list[str] = []

    async def hand_over(sender: str, recipient: str, data: bytes) -> str:
        took.append(sender)
        return "250 OK"

    options = SMTPOptions("127.0.0.1", MailSettings("help@shop.example"), security="none", envelope_from=given)
    smtp = SMTPProvider(options, clock=Hand())
    smtp._hand_over = hand_over  # type: ignore[method-assign] - the wire, not what is sent over it
    await smtp.send(message_to(ADA, "hello"))
    assert took == [used]


@pytest.mark.parametrize("seconds, refused", [(60.0, False), (3600.0, True)])
async def test_for_how_long_the_letters_of_a_program_are_counted(seconds: float, refused: bool) -> None:
    """Two letters of ten minutes ago, and an answer that a program makes now."""
    smtp = mail(loop_limit=2, loop_window_s=seconds)
    here = binding_of(EmailChannel("email", provider=smtp), "r", address=ADA)
    program = here.model_copy(update={"channel_id": "app", "category": Category.INTELLIGENCE})
    answer = event_of("r", "Thank you", index=2, channel_id="app")
    before = answer.created_at - timedelta(minutes=10)
    letters = [
        event_of("r", "Hello", index=n, channel_id="email").model_copy(
            update={"created_at": before, "channel_data": {"message_id": f"{n}@x.example"}}
        )
        for n in range(2)
    ]

    async def history(_: int) -> list[RoomEvent]:
        return letters

    context = replace(context_of(here), bindings=(here, program), history=history)
    if refused:
        with pytest.raises(Refused, match="a program answers ours"):
            await smtp.continuing(answer, here, context)
    else:
        await smtp.continuing(answer, here, context)


def test_a_mail_server_in_the_network_has_to_be_wanted() -> None:
    with pytest.raises(UsageError, match="allow_network"):
        LMTPSource(mail(), LMTPOptions(host="0.0.0.0"))
    LMTPSource(mail(), LMTPOptions(host="0.0.0.0", allow_network=True))


# -- signed webhooks --------------------------------------------------------------------------------------------------


async def hook(answer: httpx2.Response, url: str = "https://customer.example/hook", **options: Any) -> None:
    settings = HTTPWebhookOptions(secrets=("a secret of sixteen or more",), **options)
    provider = HTTPWebhooks(settings, clock=Hand(), resolver=public, transport=httpx2.MockTransport(lambda _: answer))
    try:
        await provider.send(message_to(url))
    finally:
        await provider.aclose()


async def test_how_much_of_an_answer_is_read() -> None:
    await hook(httpx2.Response(200, content=b"x" * 1000))
    with pytest.raises(ProviderError):
        await hook(httpx2.Response(200, content=b"x" * 1000), max_answer_bytes=999)


async def test_whether_a_line_must_be_encrypted() -> None:
    await hook(httpx2.Response(200), "http://customer.example/hook")
    with pytest.raises(ProviderError):
        await hook(httpx2.Response(200), "http://customer.example/hook", https_only=True)
