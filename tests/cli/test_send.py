"""A simulated message carries a signature that the channel's own provider accepts, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roomkit.channels.providers import find_provider
from roomkit.cli.send import SendOptions, signed
from roomkit.errors import AccessDenied, ConfigError, UsageError
from roomkit.models.delivery import InboundMessage
from roomkit.testing.vendors.telnyx import FakeTelnyx

SID = "AC" + "1" * 32
OPTIONS = SendOptions("sms", "Where is my order?", "+15550123", url="http://127.0.0.1:8000/chat/")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", SID)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "a token of ours")
    monkeypatch.setenv("TWILIO_PHONE_NUMBER", "+15550100")
    monkeypatch.setenv("ROOMKIT_WEBHOOK_SECRET", "a secret that is long enough")


async def test_twilio() -> None:
    request = signed(OPTIONS)
    assert request.url == "http://127.0.0.1:8000/chat/webhooks/sms"
    provider = find_provider("twilio", "sms")
    provider.verify(request)
    (message,) = provider.parse(request, "sms")
    assert isinstance(message, InboundMessage)
    assert (message.sender_id, message.recipient_id) == ("+15550123", "+15550100")
    assert message.content.text == "Where is my order?"
    with pytest.raises(AccessDenied):
        provider.verify(replace(request, url="https://elsewhere.example/webhooks/sms"))
    await provider.aclose()


async def test_http() -> None:
    request = signed(replace(OPTIONS, channel="shop", provider="http", message_id="m-1"))
    provider = find_provider("http", "http", secrets=("a secret that is long enough",))
    provider.verify(request)
    (message,) = provider.parse(request, "shop")
    assert isinstance(message, InboundMessage)
    assert (message.external_id, message.sender_id, message.content.text) == ("m-1", "+15550123", "Where is my order?")


@pytest.mark.parametrize("kind", ["rcs", "whatsapp"])
async def test_twilios_other_networks(kind: str) -> None:
    request = signed(replace(OPTIONS, channel=kind, provider=f"twilio-{kind}"))
    provider = find_provider("twilio", kind)
    provider.verify(request)
    (message,) = provider.parse(request, kind)
    assert isinstance(message, InboundMessage)
    assert f"{kind}:+15550123".encode() in request.body.replace(b"%3A", b":").replace(b"%2B", b"+")
    assert (message.sender_id, message.content.text) == ("+15550123", "Where is my order?")
    await provider.aclose()


@pytest.mark.parametrize("kind", ["sms", "rcs"])
async def test_telnyx_with_a_key_of_our_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = FakeTelnyx().options()
    monkeypatch.setenv("TELNYX_API_KEY", "a key of ours")
    monkeypatch.setenv("TELNYX_PUBLIC_KEY", ",".join(options.public_keys))
    asked = replace(OPTIONS, provider="telnyx" if kind == "sms" else "telnyx-rcs")
    with pytest.raises(ConfigError, match="TELNYX_SIGNING_KEY"):
        signed(asked)
    monkeypatch.setenv("TELNYX_SIGNING_KEY", options.signing_key or "")
    request = signed(asked)
    provider = find_provider("telnyx", kind)
    provider.verify(request)
    (message,) = provider.parse(request, "sms")
    assert isinstance(message, InboundMessage)
    assert (message.sender_id, message.content.text) == ("+15550123", "Where is my order?")
    assert message.raw_payload["data"]["payload"]["type"] == kind.upper()
    await provider.aclose()


async def test_sinch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_PLAN_ID", "API_TOKEN", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"SINCH_{name}", f"our {name}")
    request = signed(replace(OPTIONS, provider="sinch"))
    provider = find_provider("sinch", "sms")
    provider.verify(request)
    (message,) = provider.parse(request, "sms")
    assert isinstance(message, InboundMessage)
    assert (message.sender_id, message.recipient_id) == ("+15550123", "+15550100")
    assert message.content.text == "Where is my order?"
    await provider.aclose()


def test_it_is_signed_for_the_public_address_and_the_same_message_can_be_sent_again() -> None:
    options = replace(OPTIONS, public_url="https://chat.example.com", message_id="SM" + "2" * 32)
    request = signed(options)
    assert request.url == "https://chat.example.com/webhooks/sms"
    assert signed(options).body == request.body
    assert signed(OPTIONS).body != signed(OPTIONS).body


def test_a_server_that_is_not_there_or_says_no(command) -> None:
    twilio = {"TWILIO_ACCOUNT_SID": SID, "TWILIO_AUTH_TOKEN": "not the demo's"}
    words = ("send", "--channel", "sms", "--from", "+15550123", "--text", "hi", "--url")
    missing = command(*words, "http://127.0.0.1:9", **twilio)
    assert missing.returncode == 1
    assert "does not answer" in missing.stderr
    process, invited = command.demo()
    refused = command(*words, invited["url"], **twilio)
    assert refused.returncode == 1
    assert "could not be verified" in refused.stderr
    assert refused.stderr.count("\n") == 1
    nobody = command("send", "--channel", "smss", *words[3:], invited["url"], "--provider", "twilio", **twilio)
    assert 'no channel "smss"' in nobody.stderr
    process.kill()


NETWORKS = {
    "telegram": ("telegram", "5550123", "5550123"),
    "whatsapp": ("meta", "+15550123", "+15550123"),
    "messenger": ("meta", "24000001", "24000001"),
}


@pytest.mark.parametrize("network", NETWORKS)
async def test_chat_networks(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "123456:a-token-of-our-own")
    monkeypatch.setenv("TELEGRAM_WEBHOOK_SECRET", "a-secret-of-our-own")
    for name in ("WHATSAPP_TOKEN", "MESSENGER_PAGE_TOKEN", "META_APP_SECRET"):
        monkeypatch.setenv(name, "a secret of our own")
    for name in ("WHATSAPP_PHONE_NUMBER_ID", "MESSENGER_PAGE_ID"):
        monkeypatch.setenv(name, "1066")
    vendor, sender, known = NETWORKS[network]
    request = signed(replace(OPTIONS, channel=network, provider=network, sender=sender, message_id="77"))
    provider = find_provider(vendor, network)
    provider.verify(request)
    (message,) = provider.parse(request, network)
    assert isinstance(message, InboundMessage)
    assert (message.sender_id, message.content.text) == (known, "Where is my order?")
    assert str(message.external_id).endswith("77")
    with pytest.raises(AccessDenied):
        provider.verify(replace(request, headers={}))
    await provider.aclose()
    if network == "telegram":
        with pytest.raises(UsageError, match="no number"):
            signed(replace(OPTIONS, provider="telegram", sender="ann"))
