"""Line 16: what a guard takes out is nowhere afterwards: not with the model, in the store, in a view or an export; also
when it comes in pieces, cut at every offset. By `KitOptions(redaction=...)`: tests/core/test_redacting.py."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from roomkit import AIChannel, BeforeCommit, ChannelOutput, Modify, RoomKit
from roomkit.core.hooks import Streams
from roomkit.models.content import TextContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.stream import StreamChunk, StreamEnd, TextDelta
from roomkit.net.redaction import redact
from roomkit.testing import VirtualClock
from roomkit.testing.ai import ScriptedAI
from roomkit.testing.channels import FakeChannel

CARD, MAIL = "4111 1111 1111 1111", "ann@example.com"
PII = re.compile(r"\d{4}(?: ?\d{4}){3}|[\w]+@[\w.]+\w")
SENTENCE = f"Sure! Your card is {CARD} and I write to {MAIL} today. Anything else?"


def guard(kit: RoomKit, streams: Streams = "sentence") -> None:
    @kit.before(BeforeCommit, streams=streams, on_error="block")
    def take_out(moment: BeforeCommit) -> Modify | None:
        text = moment.value.text
        if not PII.search(text):
            return None
        return Modify(moment.value.model_copy(update={"content": TextContent(text=PII.sub("[...]", text))}))


def clean(*things: Any) -> None:
    for thing in things:
        text = thing if isinstance(thing, str) else repr(thing)
        assert CARD not in text, text[:500]
        assert MAIL not in text, text[:500]


@pytest.mark.parametrize("streams", ["sentence", "withhold"])
async def test_a_reply_cut_at_every_offset_leaks_nothing(streams: Streams) -> None:
    kit = RoomKit(clock=VirtualClock())
    guard(kit, streams)
    cuts: list[list[str]] = [[SENTENCE[:at], SENTENCE[at:]] for at in range(len(SENTENCE) + 1)]
    cuts += [list(SENTENCE), [SENTENCE[:at] for at in (3,)] + [SENTENCE[n : n + 2] for n in range(3, len(SENTENCE), 2)]]
    plans = iter(cuts)

    @kit.on_message
    async def answer(context: Any, message: Any) -> ChannelOutput:
        async def parts() -> AsyncIterator[TextDelta]:
            for piece in next(plans):
                yield TextDelta(piece)

        return ChannelOutput(response_stream=parts())

    channel = FakeChannel("sms")
    kit.register_channel(channel)
    async with kit:
        for n, cut in enumerate(cuts):
            room, seen = f"r{n}", []
            await kit.create_room(room, channels=["app", "sms"])
            await kit.open_view(room, "sms", seen.append)
            await (
                await kit.process_inbound(InboundMessage.text("sms", "+1", "what do you know?"), room_id=room)
            ).settled()
            grown = "".join(item.delta for item in seen if isinstance(item, StreamChunk))
            told = [grown, *(item.event.text for item in seen if isinstance(item, StreamEnd)), *map(repr, seen)]
            clean(*told, *map(repr, await kit.events(room, raw=True)))
            assert channel.texts[-1] == "Sure! Your card is [...] and I write to [...] today. Anything else?", cut
        clean(*channel.texts)


async def test_what_comes_in_is_nowhere_afterwards(tmp_path: Path) -> None:
    """Neither with the model, nor in the store's file, nor in a log; nor in the vendor's own copy of the message."""
    path = tmp_path / "rooms.db"
    kit = RoomKit(f"sqlite:///{path}", clock=VirtualClock())
    guard(kit)
    brain = ScriptedAI("I see.", repeat=True)
    kit.register_channel(AIChannel("ai", brain), default=True)
    channel = FakeChannel("sms")
    kit.register_channel(channel)
    async with kit:
        said = f"my card is {CARD}, write to {MAIL}"
        message = InboundMessage.text("sms", "+1", said, external_id="m1", raw_payload={"Body": said, "From": "+1"})
        result = await kit.process_inbound(message)
        await result.settled()
        room = result.room_id or ""
        await (await kit.send(room, f"we have {CARD} and {MAIL}")).settled()
        events = await kit.events(room, raw=True)
        clean(*events, *channel.texts, *brain.requests, *(await kit.list_rooms()), *(await kit.deliveries(room)))
        clean(json.dumps([event.model_dump(mode="json") for event in events]))
        kept = await kit.process_inbound(InboundMessage.text("sms", "+1", "nothing secret", raw_payload={"a": 1}))
        assert kept.event is not None
        assert kept.event.source.raw_payload == {"a": 1}, "what no guard has touched stays as it came"
    with closing(sqlite3.connect(path)) as database, database:
        dump = "\n".join(database.iterdump())
    clean(dump)
    for file in tmp_path.iterdir():
        assert CARD.encode() not in file.read_bytes()
        assert MAIL.encode() not in file.read_bytes()


X = "abcdefghijklmnopqrstuvwxyz"
"""Put together here, so that no scanner takes these lines for the real thing."""
SECRETS = (
    *(f"sk-{X[:16]}1234", f"Bearer {X[:16]}", f"AKIA{X[:16].upper()}", f"ghp_{X}", f"rk1.abcd.{X[:4]}.{X[4:8]}"),
    *(f"https://user:{X[:14]}@example.com", f"api_key={X[:15]}", CARD),
)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_log_line_is_clean_wherever_the_secret_stands(secret: str, caplog: pytest.LogCaptureFixture) -> None:
    """Redaction sees whole lines: at every offset within one, and whatever stands around it."""
    core = secret.rsplit("=", maxsplit=1)[-1].removeprefix("Bearer ").removeprefix("https://user:").split("@")[0]
    for around in (" ", "\n", "'", '"', "(", ",", " x" * 30 + " "):
        for at in range(0, 40, 7):
            line = f"{'y' * at}{around}{secret}{around}{'z' * at}"
            assert core not in redact(line), line
    RoomKit()
    logging.getLogger("roomkit.elsewhere").error("%s: %s", "failed", secret, extra={"detail": f"with {secret}"})
    record = caplog.records[-1]
    assert core not in record.getMessage()
    assert core not in str(vars(record)["detail"])
