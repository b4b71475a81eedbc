"""Simulated messages of chat programs carry a proof that the channel's own provider accepts, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roomkit.channels.providers import find_provider
from roomkit.cli.chats import MAKERS
from roomkit.cli.send import SendOptions, signed
from roomkit.errors import AccessDenied, ConfigError
from roomkit.models.delivery import InboundMessage
from roomkit.testing.vendors.discord import FakeDiscord
from roomkit.testing.vendors.teams import FakeTeams

OPTIONS = SendOptions("chat", "Where is my order?", "U77", public_url="https://chat.example.com", message_id="1234.5")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    discord = FakeDiscord().options()
    for name, value in {
        "SLACK_BOT_TOKEN": "xoxb-of-ours",
        "SLACK_SIGNING_SECRET": "a secret of ours",
        "DISCORD_BOT_TOKEN": "a token of ours",
        "DISCORD_PUBLIC_KEY": discord.public_keys[0],
        "DISCORD_SIGNING_KEY": str(discord.signing_key),
        "TEAMS_APP_ID": "app",
        "TEAMS_APP_PASSWORD": "a password of ours",
        "TEAMS_SIGNING_KEY": FakeTeams.private_key(),
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("vendor", MAKERS)
async def test_the_provider_takes_what_is_simulated_for_it(vendor: str) -> None:
    for to, group in ((None, False), ("C9" if vendor == "slack" else "19:team", vendor != "discord")):
        request = signed(replace(OPTIONS, provider=vendor, to=to))
        provider = find_provider(vendor, vendor)
        provider.verify(request)
        (message,) = provider.parse(request, "chat")
        assert isinstance(message, InboundMessage)
        words = "/ask Where is my order?" if vendor == "discord" else "Where is my order?"
        assert (message.content.text, message.sender_id, message.group) == (words, "U77", group)
        assert to is None or message.conversation_id == to
        again = signed(replace(OPTIONS, provider=vendor, to=to))
        assert provider.parse(again, "chat")[0].external_id == message.external_id, "it can be sent again"
        with pytest.raises(AccessDenied):
            provider.verify(replace(request, headers={"content-type": "application/json"}))
        await provider.aclose()


@pytest.mark.parametrize("vendor, variable", [("discord", "DISCORD_SIGNING_KEY"), ("teams", "TEAMS_SIGNING_KEY")])
def test_what_only_the_vendor_can_sign_asks_for_a_key(
    vendor: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(ConfigError, match=variable):
        signed(replace(OPTIONS, provider=vendor))
