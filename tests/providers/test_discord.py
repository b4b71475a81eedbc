from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from discord_interactions import verify_key
from nacl.signing import SigningKey

from roomkit import RoomKit
from roomkit.channels import DiscordChannel
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
    Button,
    Card,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    MediaContent,
    ReactionContent,
    RichContent,
    TextContent,
    UnknownContent,
    text_of,
)
from roomkit.models.delivery import DeliveryState, InboundMessage, WebhookRequest
from roomkit.models.event import EventType
from roomkit.providers.discord.discord import DiscordOptions, DiscordProvider, provider
from roomkit.runtime import monotonic
from roomkit.testing import VirtualClock, check_message_provider, fuzz_signatures
from roomkit.testing.messages import message_to
from roomkit.testing.vendors.discord import FakeDiscord
from tests.providers.exactly_once import GOLDEN, HOOK, ONCE, exactly_once, golden
from tests.providers.spoilt import check_spoilt
from tests.providers.vendor_calls import check_no_answer, check_no_bodies, failing, public
from tests.servers.house import House, house

PICTURE = MediaContent(url="https://x.example/a.png", mime_type="image/png")
NAMES = sorted(path.stem for path in (GOLDEN / "discord").glob("*.json"))
SILENT = {"ping", "event_ping", "autocomplete"}


def made(fake: FakeDiscord, clock: Any = None, **more: Any) -> DiscordProvider:
    clock = clock or fake.clock
    return DiscordProvider(fake.options(**more), clock=clock, transport=fake.transport(), resolver=public)


def parsed(name: str) -> list[Any]:
    return made(FakeDiscord()).parse(golden("discord", name)[0], "discord")


async def post(h: House, request: WebhookRequest) -> Any:
    return await h.http.post("/webhooks/hook", content=request.body, headers=dict(request.headers))


def kit_with(fake: FakeDiscord, clock: VirtualClock, store: str | None = None, **more: Any) -> RoomKit:
    kit = RoomKit(store, clock=clock) if store else RoomKit(clock=clock)
    kit.register_channel(DiscordChannel("hook", provider=made(fake, clock, **more)))
    return kit


async def test_conformance() -> None:
    fake = FakeDiscord()
    await check_message_provider(
        lambda: made(fake),
        inbound=[one for name, one in zip(NAMES, golden("discord"), strict=True) if name not in SILENT],
        outgoing=message_to("C1", "hello"),
        secrets=[fake.bot_token, bytes(fake.key).hex()],
        without_secret=lambda: DiscordProvider(DiscordOptions("other"), transport=fake.transport()),
    )


# -- in -------------------------------------------------------------------------------------------------------------


def test_every_documented_request_says_what_it_is() -> None:
    guild, private, mason = "645027906669510667", "1197680541219864637", "53908232506183680"
    expected: dict[str, list[tuple[str, str, str | None, str]]] = {
        "command": [("text", "/cardsearch The Gitrog Monster", guild, mason)],
        "command_options": [("text", "/order new item: lamp count: 2 gift: true", private, mason)],
        "command_file": [("composite", "/report broken", private, mason)],
        "command_on_message": [("text", "/summarize some message", guild, mason)],
        "button": [("text", "The blue one", guild, mason)],
        "select": [("text", "Mage, Rogue", private, mason)],
        "form": [("text", "street: Elm Street 1\ncity: Springwood", private, mason)],
        "unknown_interaction": [("unknown", "", private, mason)],
        "event_authorized": [("unknown", "", None, mason)],
        "event_entitlement": [("unknown", "", None, mason)],
        **{name: [] for name in SILENT},
    }
    for name in NAMES:
        found = parsed(name)
        told = [(one.content.type, text_of(one.content), one.conversation_id, one.sender_id) for one in found]
        assert told == expected[name], name
        assert all(one.external_id and "token" not in one.raw_payload for one in found)
    assert parsed("command")[0].group
    assert not parsed("form")[0].group
    assert parsed("command")[0].sender_name == "Mason"
    assert (parsed("button")[0].metadata, parsed("select")[0].metadata) == (
        {"button": "blue"},
        {"button": ["mage", "rogue"]},
    )
    assert parsed("event_authorized")[0].addressed_to == ()
    assert parsed("command")[0].sent_at.year == 2020
    (file,) = parsed("command_file")[0].attachments
    assert (file.filename, file.size_bytes, file.needs_auth) == ("lamp.png", 43518, False)


def test_whatever_stands_anywhere_in_a_body_breaks_nothing() -> None:
    check_spoilt(made(FakeDiscord()), golden("discord"), n=3000)


def test_hostile_bodies_are_refused_or_read_but_break_nothing() -> None:
    discord = made(FakeDiscord())
    check_no_bodies(discord, HOOK)
    base = json.loads(golden("discord", "command_file")[0].body)
    odd: list[Any] = [None, 1, "x", [], [1], {"options": [1, {"name": 5}], "resolved": {"attachments": {"1": 2}}}]
    for kind in (2, 3, 5, "x", None):
        for data in odd:
            body = json.dumps({**base, "type": kind, "data": data, "member": data, "user": data, "id": data}).encode()
            (found,) = discord.parse(WebhookRequest("POST", HOOK, {}, body), "c")
            assert isinstance(found, InboundMessage)
            assert found.external_id


# -- signatures -----------------------------------------------------------------------------------------------------


async def test_signatures_agree_with_the_vendors_own_code_in_both_directions() -> None:
    fake = FakeDiscord(clock=VirtualClock())
    discord = made(fake)
    public_key = bytes(fake.key.verify_key).hex()
    rng = random.Random(5)
    for _ in range(30):
        theirs = fake.command("U1", "ask", "".join(rng.choice('aé€😀"\\\n{}') for _ in range(rng.randrange(30))))
        discord.verify(theirs)
        ours = discord.sign(replace(theirs, headers={"content-type": "application/json"}))
        headers = ours.headers
        assert verify_key(ours.body, headers["x-signature-ed25519"], headers["x-signature-timestamp"], public_key)
        assert headers["x-signature-ed25519"] == theirs.headers["x-signature-ed25519"]


async def test_old_ones_other_keys_and_no_key_are_refused() -> None:
    clock = VirtualClock()
    fake = FakeDiscord(clock=clock)
    discord = made(fake)
    request = fake.command("U1", "ask")
    await asyncio.sleep(300)
    discord.verify(request)
    await asyncio.sleep(2)
    with pytest.raises(AccessDenied, match="302 s old"):
        discord.verify(request)
    stranger = FakeDiscord(signing_key=b"a stranger's key of 32 bytes ...", clock=clock)
    with pytest.raises(AccessDenied, match="does not match"):
        discord.verify(stranger.command("U1", "ask"))
    both = made(fake, public_keys=(bytes(stranger.key.verify_key).hex(), bytes(fake.key.verify_key).hex()))
    both.verify(stranger.command("U1", "ask"))
    both.verify(fake.command("U1", "ask"))
    with pytest.raises(AccessDenied, match="no public key"):
        made(fake, public_keys=()).verify(fake.command("U1", "ask"))
    with pytest.raises(ConfigError, match="DISCORD_SIGNING_KEY"):
        made(fake, signing_key=None).sign(request)


async def test_no_mutant_is_believed() -> None:
    fake = FakeDiscord(clock=VirtualClock())
    signed = [made(fake).sign(one) for one in golden("discord")]
    report = fuzz_signatures(made(fake), signed, n=1500, seed=4)
    assert report.ok, (report.forged[:3], report.crashed[:3])


# -- the door -------------------------------------------------------------------------------------------------------


async def test_the_handshake_bad_signatures_and_what_is_only_typed() -> None:
    clock = VirtualClock()
    fake = FakeDiscord(clock=clock)
    async with house(kit_with(fake, clock), public_url="https://rooms.example") as h:
        ping = fake.interaction(1, "U1")
        answer = await post(h, ping)
        assert (answer.status_code, answer.json()) == (200, {"type": 1})
        forged = replace(ping, headers={**ping.headers, "x-signature-ed25519": "00" * 64})
        assert (await post(h, forged)).status_code == 401, "Discord takes no endpoint that refuses in another way"
        assert (await post(h, fake.interaction(4, "U1", data={}))).json() == {"type": 8, "data": {"choices": []}}
        assert (await post(h, fake.json({"version": 1, "type": 0}))).status_code == 204
        assert await h.kit.list_rooms() == []


async def test_a_command_is_deferred_and_its_answer_given_once() -> None:
    clock = VirtualClock()
    fake = FakeDiscord(clock=clock)
    kit = kit_with(fake, clock)

    @kit.on_message
    async def answer(context: Any, message: Any) -> str:
        await asyncio.sleep(60)
        return f"You said: {message.text}"

    async with house(kit, public_url="https://rooms.example") as h:
        asked = fake.command("U1", "ask", "one", channel="C9")
        before = monotonic()
        for _ in range(3):
            assert (await post(h, asked)).json() == {"type": 5}
        assert monotonic() - before < 3
        await asyncio.sleep(90)
        (only,) = fake.messages
        assert (only.text, only.answers, only.edits) == ("You said: /ask one", f"token-of-{_id(asked)}", 0)
        assert (await post(h, asked)).json() == {"type": 5}, "a late repetition of the request"
        (room,) = await kit.list_rooms()
        await (await kit.send(room.id, "By the way", by="ann")).settled()
        assert [one.text for one in fake.messages[:2]] == ["You said: /ask one", "By the way"], "it is no second answer"
        assert fake.messages[1].channel == "C9"
        assert fake.leaks == []


async def test_an_answer_survives_a_restart_and_the_loss_of_its_acknowledgement(tmp_path: Path) -> None:
    clock = VirtualClock()
    fake = FakeDiscord(clock=clock)
    url = f"sqlite:///{tmp_path / 'rooms.db'}"
    kit = kit_with(fake, clock, url)
    async with house(kit, public_url="https://rooms.example") as h:
        assert (await post(h, fake.command("U1", "ask", "one", channel="C9"))).json() == {"type": 5}
        (room,) = await kit.list_rooms()
    kit = kit_with(fake, clock, url)
    async with kit:
        fake.mishaps.lose_answer()
        result = await kit.send(room.id, "word " * 700, by="ann")
        await result.settled()
        first, second = fake.messages
        assert first.answers is not None
        assert first.edits == 1, "the answer was given twice, which is once"
        assert "POST follow-up" in fake.calls, "what is too long goes on after it"
        assert f"{first.text} {second.text}".split() == ["word"] * 700


async def test_after_fifteen_minutes_it_is_a_message_like_any_other() -> None:
    clock = VirtualClock()
    fake = FakeDiscord(clock=clock)
    kit = kit_with(fake, clock)
    async with house(kit, public_url="https://rooms.example") as h:
        await post(h, fake.command("U1", "ask", "one", channel="C9"))
        (room,) = await kit.list_rooms()
        await asyncio.sleep(15 * 60)
        await (await kit.send(room.id, "sorry, late", by="ann")).settled()
        assert [(one.text, one.answers) for one in fake.messages] == [("sorry, late", None)]
        await post(h, fake.command("U1", "ask", "two", channel="C9"))
        fake.tokens.clear()
        await (await kit.send(room.id, "and this", by="ann")).settled()
        assert [(one.text, one.answers) for one in fake.messages[1:]] == [("and this", None)], "Discord had enough"


async def test_a_receipt_takes_the_place_of_thinking() -> None:
    clock = VirtualClock()
    fake = FakeDiscord(clock=clock)
    kit = kit_with(fake, clock, receipt="We are on it.")
    async with house(kit, public_url="https://rooms.example") as h:
        answer = await post(h, fake.command("U1", "ask", "one", channel="C9"))
        assert answer.json() == {"type": 4, "data": {"content": "We are on it.", "flags": 64}}
        (room,) = await kit.list_rooms()
        await (await kit.send(room.id, "Here", by="ann")).settled()
        assert fake.messages[0].answers is None


# -- out ------------------------------------------------------------------------------------------------------------


async def send_failing(fake: FakeDiscord, content: Content | str = "x", **more: Any) -> ProviderError:
    return await failing(made(fake, **more), message_to("C1", content))


async def test_text_goes_out_as_it_is_and_calls_nobody() -> None:
    fake = FakeDiscord()
    discord = made(fake)
    await discord.send(message_to("C1", "@everyone *so* <@1> 2. > x\n- y", idempotency_key="r:1:c:0"))
    (sent,) = fake.messages
    assert sent.text == "@everyone \\*so\\* \\<@1\\> 2. \\> x\n\\- y"
    assert sent.body["allowed_mentions"] == {"parse": []}
    await discord.send(message_to("C1", "*" * 1500, idempotency_key="r:2:c:0"))
    assert fake.messages[1].text == "*" * 1500, "where there is no room for escapes the marks stay"
    answer = message_to("C1", "yes", about_ids=(sent.id,), idempotency_key="r:3:c:0")
    await discord.send(answer)
    assert fake.messages[2].body["message_reference"] == {"message_id": sent.id, "fail_if_not_exists": False}
    await discord.send(answer)
    assert len(fake.messages) == 3, "a repeated attempt is known by its nonce"
    await discord.aclose()


async def test_formatted_text_cards_and_buttons() -> None:
    fake = FakeDiscord()
    discord = made(fake)
    rich = RichContent(
        text="<b>Bold</b> a_b <i>it</i> <a href='https://x.example/(1)'>site</a>",
        format="html",
        buttons=tuple(Button(label=f"Yes {n}", value="y") for n in range(6)),
        cards=(
            Card(title="T" * 300, text="Blue", image_url="https://x.example/l.png", buttons=(Button(label="Buy"),)),
        ),
        quick_replies=("Later",),
    )
    await discord.send(message_to("C1", rich))
    (sent,) = fake.messages
    assert sent.text == "**Bold** a\\_b *it* [site](https://x.example/(1%29)"
    rows = sent.body["components"]
    assert [len(row["components"]) for row in rows] == [5, 3]
    assert [one["custom_id"] for row in rows for one in row["components"]][5:] == ["b5:y", "b6:Later", "c0.0:Buy"]
    assert sent.body["embeds"][0]["image"] == {"url": "https://x.example/l.png"}
    link = RichContent(text="x", buttons=(Button(label="Open", url="https://x.example/"),))
    await discord.send(message_to("C1", link, idempotency_key="r:2:c:0"))
    assert fake.messages[1].body["components"][0]["components"][0]["url"] == "https://x.example/"
    await discord.aclose()


async def test_pictures_are_shown_and_other_files_are_links() -> None:
    fake = FakeDiscord()
    discord = made(fake)
    report = MediaContent(url="https://x.example/r_1.pdf", mime_type="application/pdf", caption="see")
    parts = CompositeContent(parts=(TextContent(text="two"), PICTURE, report))
    for number, content in enumerate((PICTURE.model_copy(update={"caption": "a*b"}), report, parts)):
        await discord.send(message_to("C1", content, idempotency_key=f"r:{number}:c:0"))
    one, two, three = fake.messages
    assert (one.text, one.body["embeds"]) == ("a\\*b", [{"image": {"url": PICTURE.url}}])
    assert two.text == "see\nhttps://x.example/r_1.pdf"
    assert (three.text, len(three.body["embeds"])) == ("two\nsee\nhttps://x.example/r_1.pdf", 1)
    long = RichContent(text="*" + "a_" * 900 + "*")
    for content, why in (
        (AudioContent(url="blob:1"), "public https URL"),
        (UnknownContent(kind="poll"), "neither"),
        (long, "at most 2000"),
    ):
        with pytest.raises(Refused, match=why):
            await discord.send(message_to("C1", content))
    assert len(fake.messages) == 3
    await discord.aclose()


async def test_edits_deletions_and_reactions() -> None:
    fake = FakeDiscord()
    discord = made(fake)
    ids: list[str] = []
    for number, text in enumerate(("one", "two")):
        sent = await discord.send(message_to("C1", text, idempotency_key=f"r:1:c:{number}"))
        ids.append(sent.provider_message_id or "")
    edit = EditContent(target_event_id="e", new_content=TextContent(text="new"))
    await discord.send(message_to("C1", edit, about_ids=tuple(ids)))
    assert (fake.messages[0].text, fake.messages[0].body["components"], fake.messages[1].deleted) == ("new", [], True)
    for removed, left in ((False, ["❤️"]), (False, ["❤️"]), (True, []), (True, [])):
        reaction = ReactionContent(target_event_id="e", emoji="❤️", removed=removed)
        assert (await discord.send(message_to("C1", reaction, about_ids=(ids[0],)))).success
        assert fake.messages[0].reactions == left
    odd = ReactionContent(target_event_id="e", emoji=":party_parrot:")
    assert (await discord.send(message_to("C1", odd, about_ids=(ids[0],)))).state is DeliveryState.SKIPPED
    for _ in range(2):
        gone = await discord.send(message_to("C1", DeleteContent(target_event_id="e"), about_ids=(ids[0],)))
        assert gone.success, "also when somebody was faster"
    assert fake.messages[0].deleted
    with pytest.raises(Refused):
        await discord.send(message_to("C1", edit, about_ids=(ids[0],)))
    await discord.aclose()


@pytest.mark.parametrize(
    "status, body, kind, retryable",
    [
        (403, {"message": "Missing Access", "code": 50001}, Unauthorized, False),
        (403, {"message": "Missing Permissions", "code": 50013}, Unauthorized, False),
        (403, {"message": "Cannot send messages to this user", "code": 50007}, Refused, False),
        (404, {"message": "Unknown Channel", "code": 10003}, Refused, False),
        (400, {"message": "Invalid Form Body", "code": 50035}, Refused, False),
        (401, {"message": "401: Unauthorized", "code": 0}, Unauthorized, False),
        (503, {"message": "API resource is currently overloaded", "code": 130000}, Unavailable, True),
        (502, "bad gateway", Unavailable, True),
        (200, ["odd"], BadResponse, False),
    ],
)
async def test_errors_say_who_must_act(status: int, body: Any, kind: type[ProviderError], retryable: bool) -> None:
    fake = FakeDiscord()
    fake.mishaps.refuse(status, body)
    error = await send_failing(fake)
    assert (type(error), error.retryable) == (kind, retryable)
    if isinstance(body, dict) and body["code"]:
        assert error.code == str(body["code"])
    assert fake.messages == []


async def test_rate_limits_are_kept_per_bucket_and_channel() -> None:
    fake = FakeDiscord()
    discord = made(fake)

    async def say(channel: str, number: int) -> float:
        start = monotonic()
        await discord.send(message_to(channel, "x", idempotency_key=f"r:{number}:c:0"))
        return monotonic() - start

    fake.bucket = {"x-ratelimit-bucket": "abcd", "x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "1.5"}
    assert await say("C1", 1) == pytest.approx(0)
    assert await say("C1", 2) == pytest.approx(1.5), "it waits for its turn instead of running into the limit"
    assert await say("C2", 3) == pytest.approx(0), "another channel has a limit of its own"
    fake.bucket = {}
    fake.mishaps.refuse(429, {"message": "You are being rate limited.", "retry_after": 60.5, "global": False})
    for _ in range(2):
        with pytest.raises(RateLimited) as caught:
            await say("C1", 4)
        assert caught.value.retry_after == pytest.approx(60.5)
    count = len(fake.calls)
    with pytest.raises(RateLimited):
        await say("C1", 5)
    assert len(fake.calls) == count, "nothing is asked before the time has come"
    await say("C2", 6)
    fake.mishaps.refuse(429, {"message": "You are being rate limited.", "retry_after": 8, "global": True})
    with pytest.raises(RateLimited):
        await say("C2", 7)
    with pytest.raises(RateLimited):
        await say("C3", 8)
    await asyncio.sleep(61)
    await say("C1", 9)
    await discord.aclose()


async def test_no_answer_is_ambiguous_and_comes_in_time() -> None:
    fake = FakeDiscord()
    await check_no_answer(lambda: made(fake), message_to("C1", "x"), hang=fake.mishaps.hang)
    assert isinstance(await send_failing(fake, bot_token="wrong"), Unauthorized)


def test_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISCORD_BOT_TOKEN", "DISCORD_PUBLIC_KEY", "DISCORD_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="DISCORD_BOT_TOKEN"):
        provider()
    key = bytes(SigningKey.generate().verify_key).hex()
    monkeypatch.setenv("DISCORD_BOT_TOKEN", "planted")
    monkeypatch.setenv("DISCORD_PUBLIC_KEY", f"{key}, {key}")
    found = provider()
    assert found.options.public_keys == (key, key)
    assert "planted" not in repr(found.options)
    monkeypatch.setenv("DISCORD_PUBLIC_KEY", "nonsense")
    with pytest.raises(ConfigError, match="32 bytes in hex"):
        provider()
    monkeypatch.setenv("DISCORD_BOT_TOKEN_SHOP", "shop")
    assert provider("shop").options.bot_token == "shop"


async def test_what_is_edited_in_the_room_is_at_discord_too() -> None:
    clock = VirtualClock()
    fake = FakeDiscord(clock=clock)
    kit = kit_with(fake, clock)
    async with house(kit, public_url="https://rooms.example") as h:
        await post(h, fake.command("U1", "ask", "one", channel="C9"))
        (room,) = await kit.list_rooms()
        said = await kit.send(room.id, "Monday", by="ann")
        await said.settled()
        assert said.event is not None
        edit = EditContent(target_event_id=said.event.id, new_content=TextContent(text="Tuesday"))
        await (await kit.send(room.id, edit, type=EventType.EDIT, by="ann")).settled()
        assert [one.text for one in fake.messages] == ["Tuesday"]


# -- once -----------------------------------------------------------------------------------------------------------


@ONCE
async def test_exactly_one_effect(tmp_path: Path) -> None:
    await exactly_once(
        lambda clock: made(FakeDiscord(clock=clock), clock),
        lambda cid, p: DiscordChannel(cid, provider=p),
        golden("discord", *(name for name in NAMES if name not in SILENT)),
        folder=tmp_path,
    )


def _id(request: WebhookRequest) -> str:
    return str(json.loads(request.body)["id"])
