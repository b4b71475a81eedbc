"""A simulated letter is one that the channel's own provider accepts."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from roomkit.channels.providers import find_provider
from roomkit.cli.doctor import State, keys
from roomkit.cli.send import SendOptions, signed
from roomkit.errors import ConfigError, UsageError
from roomkit.models.delivery import InboundMessage


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    known = {
        "SENDGRID_API_KEY": "SG.x",
        "SENDGRID_FROM": "help@shop.example",
        "SENDGRID_WEBHOOK_KEY": base64.b64encode(public).decode(),
        "SENDGRID_SIGNING_KEY": pem.replace("\n", "\\n"),
        "ELASTICEMAIL_API_KEY": "x",
        "ELASTICEMAIL_FROM": "help@shop.example",
        "ELASTICEMAIL_WEBHOOK_TOKEN": "a token of enough letters",
        "SMTP_HOST": "mail.shop.example",
        "SMTP_FROM": "help@shop.example",
        "SMTP_WEBHOOK_SECRET": "a secret of enough letters",
    }
    for name, value in known.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("vendor", ["sendgrid", "elasticemail", "smtp"])
async def test_a_simulated_letter_is_accepted(vendor: str) -> None:
    options = SendOptions("email", "Where is my lamp? é", "ada@x.example", provider=vendor, message_id="m1@x.example")
    request = signed(options)
    provider: Any = find_provider(vendor, "email")
    provider.verify(request)
    (message,) = provider.parse(request, "email")
    assert isinstance(message, InboundMessage)
    assert (message.sender_id, message.recipient_id) == ("ada@x.example", "help@shop.example")
    assert (message.content.text, message.external_id) == ("Where is my lamp? é", "m1@x.example")
    await provider.aclose()
    with pytest.raises(UsageError, match="no email address"):
        signed(SendOptions("email", "x", "+15550123", provider=vendor))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENDGRID_SIGNING_KEY")
    with pytest.raises(ConfigError, match="SENDGRID_SIGNING_KEY"):
        signed(SendOptions("email", "x", "ada@x.example", provider="sendgrid"))
    monkeypatch.delenv("ELASTICEMAIL_WEBHOOK_TOKEN")
    bad = [finding.told for finding in keys() if finding.state is State.BAD]
    assert any("ELASTICEMAIL_WEBHOOK_TOKEN" in told for told in bad)
    assert not any("SENDGRID" in told or "SMTP" in told for told in bad)
