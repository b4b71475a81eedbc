"""Line 15: more than fifty canaries, in every place where a secret is configured or could turn up; none of them comes
out in a log, a repr, an error, a number or the history. Traces and doors: tests/servers/test_secrets.py."""

from __future__ import annotations

import inspect
import json
import logging
import pprint
import re
import secrets
import traceback
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

import pytest

from roomkit import AIChannel, BeforeCommit, HTTPChannel, RoomKit, SMSChannel
from roomkit.ai.mcp import MCPTools
from roomkit.ai.tools import Toolbox, tool
from roomkit.errors import RoomKitError
from roomkit.models.delivery import DeliveryPolicy, InboundMessage
from roomkit.net.redaction import redact
from roomkit.net.ssrf import Credentials
from roomkit.net.tokens import Tokens
from roomkit.providers.anthropic.ai import AnthropicProvider
from roomkit.providers.http.http import HTTPWebhookOptions, HTTPWebhooks
from roomkit.providers.mail import MailSettings
from roomkit.providers.openai.ai import OpenAIProvider
from roomkit.providers.redis import RedisBus
from roomkit.providers.sse.source import SSESource
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.providers.websocket.source import WebSocketSource
from roomkit.testing import VirtualClock
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.vendors.anthropic import FakeAnthropic
from roomkit.testing.vendors.openai import FakeOpenAI
from roomkit.testing.vendors.script import Trouble
from roomkit.testing.vendors.twilio import FakeTwilio
from tests.security.adapters import modules

SECRETISH = re.compile(r"(?:.*_)?(?:key|secret|secrets|token|password|headers|credentials|hello)|.+_keys")
HARMLESS = {"key_variable", "max_tokens", "idempotency_key"}


def canary(where: str) -> str:
    return f"canary{secrets.token_hex(12)}{where}"


def keyed() -> dict[str, type[Any]]:
    """Every public class of a provider that is given a secret."""
    found: dict[str, type[Any]] = {}
    for module in modules():
        for name, one in vars(module).items():
            if not inspect.isclass(one) or one.__module__ != module.__name__ or name.startswith("_"):
                continue
            try:
                given = inspect.signature(one).parameters
            except ValueError:
                continue
            if any(SECRETISH.fullmatch(each) and each not in HARMLESS for each in given):
                found[f"{module.__name__.removeprefix('roomkit.providers.')}.{name}"] = one
    return found


def planted(one: type[Any]) -> tuple[Any, list[str]]:
    """One of these, with a canary in each place for a secret."""
    canaries: list[str] = []
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(one).parameters.items():
        kind = str(parameter.annotation)
        if SECRETISH.fullmatch(name) and name not in HARMLESS:
            canaries.append(canary(name))
            given[name] = _shaped(name, kind, canaries[-1])
        elif parameter.default is inspect.Parameter.empty:
            given[name] = _filler(name, kind)
    return one(**given), canaries


def _shaped(name: str, kind: str, value: str) -> Any:
    if name == "headers":
        return {"authorization": f"Bearer {value}", "x-api-key": value}
    if "Mapping" in kind or "dict" in kind:
        return {"one": value}
    if "tuple" in kind or "Sequence" in kind or "Iterable" in kind or "list" in kind:
        return (value,)
    return value


def _filler(name: str, kind: str) -> Any:
    if "url" in name:
        return "wss://a.example/x" if "ws" in name else "https://a.example/x"
    if "Options" in kind or "Callable" in kind or name in ("parse", "options"):
        return None
    if kind == "MailSettings":
        return MailSettings()
    return f"any-{name}"


def shown(*things: Any) -> str:
    """All the ways in which an object gets into print by accident."""
    told: list[str] = []
    for thing in things:
        told += [repr(thing), str(thing), f"{thing}", repr([thing]), pprint.pformat({"it": thing})]
        try:
            raise RuntimeError(thing)
        except RuntimeError:
            told.append(traceback.format_exc())
    return "\n".join(told)


@pytest.mark.parametrize("name", keyed())
def test_whatever_is_given_a_secret_hides_it(name: str) -> None:
    """By enumeration: a new provider with a key is tried here without a word."""
    made, canaries = planted(keyed()[name])
    assert canaries
    for secret in canaries:
        assert secret not in shown(made), f"{name} shows its secret"
        if not is_dataclass(made):
            assert secret not in redact(f"the vendor said {secret}, sorry"), f"{name} does not call register_secret()"


def test_a_new_class_with_a_secret_is_found() -> None:
    assert len(keyed()) >= 5
    assert any("OpenAIProvider" in name for name in keyed())

    class Newcomer:
        def __init__(self, api_key: str) -> None:
            self.api_key = api_key

        def __repr__(self) -> str:
            return f"Newcomer({self.api_key})"

    made, (secret,) = planted(Newcomer)
    assert secret in shown(made)


S = secrets.token_hex(10)
LINES: dict[str, str] = {
    "bearer": f"authorization: Bearer {S}",
    "bearer in JSON": json.dumps({"Authorization": f"Bearer {S}"}),
    "basic": f"Authorization: Basic {S}==",
    "bearer header dump": str([("authorization", f"Bearer {S}")]),
    "header bytes": str([(b"authorization", f"Bearer {S}".encode())]),
    "x-api-key": f"x-api-key: {S}",
    "api_key": f"api_key={S}",
    "apikey": f"apikey: '{S}'",
    "API-Key": f"API-Key={S}",
    "json api key": json.dumps({"api_key": S}),
    "python dict": str({"api_key": S, "n": 1}),
    "keyword": f"Client(api_key='{S}', model='x')",
    "password": f"password={S}",
    "passwd": f"passwd: {S}",
    "pwd": f"pwd={S};",
    "json password": json.dumps({"password": S}),
    "token": f"token={S}",
    "access token": f"access_token={S}&x=1",
    "refresh token": json.dumps({"refresh_token": S}),
    "auth token": f"auth_token: {S}",
    "id token": f"https://a.example/#id_token={S}",
    "client secret": f"client_secret={S}",
    "secret": f"secret='{S}'",
    "webhook secret": f"webhook_secret: {S}",
    "signature": f"X-Twilio-Signature: {S}",
    "sig": f"https://a.example/x?sig={S}&e=1",
    "query key": f"https://a.example/x?key={S}",
    "query token": f"GET /socket?token={S} HTTP/1.1",
    "url password": f"postgresql://user:{S}@db.example/rooms",
    "url user": f"https://{S}@a.example/",
    "redis url": f"redis://:{S}@cache.example:6379/0",
    "amqp url": f"amqp://u:{S}@q.example//",
    "cookie": f"cookie: session={S}",
    "set-cookie": f"Set-Cookie: session={S}; HttpOnly",
    "private key": f"-----BEGIN PRIVATE KEY-----\n{S}\n-----END PRIVATE KEY-----",
    "rsa key": f"-----BEGIN RSA PRIVATE KEY-----\n{S}",
    "private_key": f"private_key: {S}",
    "openai": f"Incorrect API key provided: sk-proj-{S}.",
    "anthropic": f"x sk-ant-api03-{S} y",
    "stripe": f"sk_live_{S}",
    "aws": f"AKIA{S[:16].upper()}",
    "slack": f"xoxb-{S}",
    "github": f"ghp_{S}",
    "google": f"AIza{S}{S}",
    "jwt": f"eyJhbGciOiJIUzI1NiJ9.{S}.{S}",
    "our token": f"rk1.abcdef.{S}.{S}",
    "our token, cut": f"rk1.abcdef.{S}",
    "card": "4111 1111 1111 1111",
    "card with lines": "5500-0000-0000-0004",
    "card in one": "378282246310005",
    "card in words": "card: 4012888888881881, exp 12/30",
    "env dump": f"OPENAI_API_KEY={S}",
    "env dump 2": f"environ({{'TWILIO_AUTH_TOKEN': '{S}', 'HOME': '/'}})",
    "shell": f"export DB_PASSWORD={S}",
}
CARDS = ("4111", "5500", "378282", "4012888888881881")


def gone(text: str) -> bool:
    cut = S[:16].upper()
    return S not in text and cut not in text and not any(card in text for card in CARDS)


@pytest.mark.parametrize("where", LINES)
def test_what_looks_like_a_secret_is_masked_wherever_it_is_logged(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also what nobody has told us of: by its shape. In the message, in arguments, in extra fields, in tracebacks."""
    RoomKit()
    log = logging.getLogger("roomkit.tests.host")
    line = LINES[where]
    log.error(line)
    log.error("it said %s", line, extra={"detail": line})
    log.error("%(a)s", {"a": line})
    try:
        raise ValueError(line)
    except ValueError:
        log.exception("failed: %s", line)
    out = "\n".join(logging.Formatter("%(message)s").format(record) for record in caplog.records)
    assert gone(out + "".join(str(vars(record).get("detail", "")) for record in caplog.records)), out


def test_there_are_more_than_fifty() -> None:
    assert len(LINES) > 50


HIDERS: dict[str, Callable[[str], Any]] = {
    "Credentials.basic": lambda s: Credentials.basic("a.example", "user", s),
    "Credentials.bearer": lambda s: Credentials.bearer("a.example", s),
    "Tokens": lambda s: Tokens([s]),
    "RoomKit": lambda s: RoomKit(token_secrets=[s]),
    "Minted": lambda s: Tokens([s]).issue("guest", "r"),
    "HTTPChannel": lambda s: HTTPChannel("crm", url="https://a.example/x", secret=s),
    "MCP over HTTP": lambda s: MCPTools.http("m", f"https://u:{s}@a.example/", headers={"authorization": s}),
    "MCP over stdio": lambda s: MCPTools.stdio("m", "server", "--key", s, env={"KEY": s}),
    "SSE URL": lambda s: SSESource(f"https://u:{s}@a.example/x?token={s}", json.loads),
    "Redis URL": lambda s: RedisBus(f"redis://:{s}@cache.example:6379/0"),
    "WebSocket URL": lambda s: WebSocketSource(f"wss://u:{s}@a.example/x?token={s}", json.loads),
}


@pytest.mark.parametrize("name", HIDERS)
def test_parts_of_the_kit_hide_what_they_hold(name: str) -> None:
    secret = canary("hidden")
    assert secret not in shown(HIDERS[name](secret))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:{}@/x@y",
        "postgresql://u:{}#@h/db",
        "postgresql://u:{}/x@h/db",
        "mysql://u:{}@h/db",
        "redis://:{}@h/0",
    ],
)
def test_a_store_that_cannot_be_opened_does_not_tell_its_password(url: str) -> None:
    secret = canary("db")
    with pytest.raises(RoomKitError) as caught:
        RoomKit(url.format(f"{secret}"))
    assert secret not in shown(caught.value)


async def test_no_key_gets_into_the_history(caplog: pytest.LogCaptureFixture) -> None:
    """Vendors repeat keys in their errors, code of the host raises with them: nothing of it is kept or told."""
    caplog.set_level(logging.DEBUG, "roomkit")
    names = ("openai", "anthropic", "twilio", "http", "signing", "tool", "guard")
    key: Mapping[str, str] = {name: canary(name) for name in names}
    openai, anthropic, twilio = (
        FakeOpenAI(key=key["openai"]),
        FakeAnthropic(key=key["anthropic"]),
        FakeTwilio(auth_token=key["twilio"]),
    )

    @tool
    async def charge(amount: int) -> str:
        """Charges."""
        raise RuntimeError(f"https://user:{key['tool']}@pay.example refused api_key={key['tool']}")

    kit = RoomKit(clock=VirtualClock(), token_secrets=[key["signing"]])

    @kit.before(BeforeCommit)
    async def guard(moment: BeforeCommit) -> None:
        raise RuntimeError(f"password={key['guard']}")

    brains: dict[str, Any] = {
        "openai": OpenAIProvider("gpt-any", api_key=key["openai"], transport=openai.transport()),
        "anthropic": AnthropicProvider("claude-any", api_key=key["anthropic"], transport=anthropic.transport()),
        "scripted": ScriptedAI([call("charge", amount=1)], "It failed.", repeat=True),
    }
    for name, brain in brains.items():
        kit.register_channel(AIChannel(name, brain, tool_handler=Toolbox([charge])))
    sms = SMSChannel("sms", provider=TwilioSMSProvider(twilio.options(), transport=twilio.transport()))
    sms.delivery_policy = DeliveryPolicy(max_retries=0)
    crm = HTTPWebhooks(HTTPWebhookOptions(secrets=(key["http"],)), clock=VirtualClock())
    kit.register_channel(sms)
    kit.register_channel(HTTPChannel("crm", provider=crm, url=f"https://u:{key['http']}@127.0.0.1/"))
    kept: list[Any] = []
    async with kit:
        for name in brains:
            await kit.create_room(name, channels=[name, "crm"])
            await kit.attach_channel(name, "sms", metadata={"phone_number": "+15550123"})
            openai.fail(401, "invalid_api_key", f"Incorrect API key provided: {key['openai']}.")
            openai.reply("Half", Trouble("server_error", f"lost {key['openai']}"))
            anthropic.fail(401, "authentication_error", f"invalid x-api-key {key['anthropic']}")
            twilio.fail(401, 20003, f"Authenticate: {key['twilio']}")
            for _ in range(2):
                sent = await kit.process_inbound(InboundMessage.text("sms", "+15550123", "go"), room_id=name)
                await sent.settled()
            kept += [*(await kit.events(name, limit=1000, raw=True)), *(await kit.deliveries(name))]
        kept += [*(await kit.dead_letters()), *(await kit.list_rooms()), *kit.stats().items()]
        kept += [kit, kit.engine, *kit.channels.values(), *brains.values()]
    history = "\n".join(one.model_dump_json() if hasattr(one, "model_dump_json") else shown(one) for one in kept)
    logs = "\n".join(logging.Formatter("%(message)s").format(record) for record in caplog.records)
    assert "charge" in history
    assert len(caplog.records) > 5
    for name, secret in key.items():
        assert secret not in history, f"the {name} secret is in the history: {_around(history, secret)}"
        assert secret not in logs, f"the {name} secret is in a log: {_around(logs, secret)}"


def _around(text: str, secret: str) -> str:
    at = text.index(secret)
    return text[max(0, at - 200) : at + 80]
