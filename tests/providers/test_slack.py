from __future__ import annotations

import asyncio
import hmac
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from slack_sdk.models.blocks import Block
from slack_sdk.signature import SignatureVerifier

from roomkit import RoomKit
from roomkit.channels import SlackChannel
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
)
from roomkit.models.delivery import Attachment, DeliveryState, InboundMessage, WebhookRequest
from roomkit.models.event import EventType
from roomkit.providers.slack.slack import SlackOptions, SlackProvider, provider
from roomkit.testing import VirtualClock, check_message_provider, fuzz_signatures
from roomkit.testing.messages import message_to
from roomkit.testing.vendors.slack import FakeSlack
from tests.providers.exactly_once import GOLDEN, HOOK, ONCE, exactly_once, golden
from tests.providers.spoilt import check_spoilt
from tests.providers.vendor_calls import check_no_answer, check_no_bodies, failing, public
from tests.servers.house import house

FORM = "application/x-www-form-urlencoded"
PICTURE = MediaContent(url="https://x.example/a.png", mime_type="image/png")


def made(fake: FakeSlack, clock: Any = None, **more: Any) -> SlackProvider:
    return SlackProvider(fake.options(**more), clock=clock or fake.clock, transport=fake.transport(), resolver=public)


def document(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / "slack" / f"{name}.json").read_bytes())


def webhook(name: str) -> WebhookRequest:
    """One documented request, unsigned, in the wrapping that Slack gives it."""
    body = document(name)
    if name.startswith("form_"):
        return WebhookRequest("POST", HOOK, {"content-type": FORM}, urlencode(body).encode())
    if name.startswith("payload_"):
        return WebhookRequest("POST", HOOK, {"content-type": FORM}, urlencode({"payload": json.dumps(body)}).encode())
    return golden("slack", name)[0]


NAMES = sorted(path.stem for path in (GOLDEN / "slack").glob("*.json"))
SILENT = {"handshake", "own_message", "unfurled"}


def parsed(name: str) -> list[Any]:
    return made(FakeSlack()).parse(webhook(name), "slack")


async def send_failing(fake: FakeSlack, content: Content | str = "x", **more: Any) -> ProviderError:
    return await failing(made(fake, **more), message_to("C1", content))


async def test_conformance() -> None:
    fake = FakeSlack()
    await check_message_provider(
        lambda: made(fake),
        inbound=[webhook(name) for name in NAMES if name not in SILENT],
        outgoing=message_to("C1", "hello"),
        secrets=[fake.bot_token, fake.signing_secret],
        without_secret=lambda: SlackProvider(SlackOptions("xoxb-other"), transport=fake.transport()),
    )


# -- in -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_documented_request_says_what_it_is(name: str) -> None:
    expected: dict[str, list[tuple[str, Any, str | None, str]]] = {
        "event_message_im": [("message", "Hello hello can you hear me? <3", None, "U2147483697")],
        "event_message_channel": [
            ("message", "see the lamp (https://shop.example/a?x=1&y=2), #general @here", "C2147483705", "U2147483697")
        ],
        "event_app_mention": [
            ("message", "see the lamp (https://shop.example/a?x=1&y=2), #general @here", "C2147483705", "U2147483697")
        ],
        "event_message_thread": [("message", "In the thread", "C2147483705", "U2147483828")],
        "event_message_file": [("message", "the broken one", None, "U2147483697")],
        "event_message_changed": [("edit", "Hello, world!", None, "U2147483697")],
        "event_message_deleted": [("delete", "", "C2147483705", "U2147483828")],
        "event_reaction_added": [("reaction", "", None, "U2147483697")],
        "event_reaction_removed": [("reaction", "", None, "U2147483697")],
        "event_channel_join": [("message", "@cal has joined the channel", "C2147483705", "U2147483999")],
        "event_member_joined_channel": [("message", "", "C2147483705", "U2147483999")],
        "event_app_home_opened": [("message", "", None, "U2147483697")],
        "event_user_change": [("message", "", None, "U2147483697")],
        "event_other_bot": [("message", "Build 7 is broken", "C2147483705", "BB12033")],
        "rate_limited": [("message", "", None, "slack")],
        "form_command": [("message", "/lamp where is 94070", "C2147483705", "U2147483697")],
        "payload_block_actions": [("message", "The blue one", "C2147483705", "U2147483697")],
        "payload_select": [("message", "Large", None, "U2147483697")],
        "payload_view_submission": [("message", "", None, "U2147483697")],
        "payload_shortcut": [("message", "", None, "U2147483697")],
        **{name: [] for name in SILENT},
    }
    found = parsed(name)
    from roomkit.models.content import text_of

    told = [(str(one.type), text_of(one.content), one.conversation_id, one.sender_id) for one in found]
    assert told == expected[name]
    for one in found:
        assert one.external_id
        assert "token" not in one.raw_payload
        assert "response_url" not in one.raw_payload


def test_what_edits_reactions_and_answers_are_about() -> None:
    (edit,), (gone,), (liked,), (parrot,) = map(
        parsed, ("event_message_changed", "event_message_deleted", "event_reaction_added", "event_reaction_removed")
    )
    assert edit.about_id == liked.about_id == "D024BE91L:1355517523.000005"
    assert edit.content == EditContent(
        target_event_id="1355517523.000005", new_content=TextContent(text="Hello, world!")
    )
    assert gone.about_id == "C2147483705:1355517530.000007"
    assert isinstance(gone.content, DeleteContent)
    assert (liked.content.emoji, liked.content.removed) == ("👍", False)
    assert (parrot.content.emoji, parrot.content.removed) == (":party_parrot:", True)
    (answer,) = parsed("event_message_thread")
    assert answer.about_id == "C2147483705:1355517524.000006"
    (root,) = parsed("event_message_channel")
    assert (root.external_id, root.about_id) == ("C2147483705:1355517524.000006", None)
    assert (root.group, parsed("event_message_im")[0].group) == (True, False)


def test_a_mention_is_the_same_message_as_the_one_it_stands_in() -> None:
    assert parsed("event_app_mention")[0].external_id == parsed("event_message_channel")[0].external_id


def test_what_no_person_has_said_asks_nobody() -> None:
    for name in ("event_other_bot", "event_channel_join", "event_member_joined_channel", "rate_limited"):
        assert parsed(name)[0].addressed_to == (), name
    assert parsed("event_message_im")[0].addressed_to is None
    kinds = [parsed(name)[0].content.kind for name in ("event_user_change", "payload_shortcut", "event_channel_join")]
    assert kinds == ["user_change", "shortcut", "channel_join"]


def test_buttons_tell_their_value() -> None:
    (pressed,) = parsed("payload_block_actions")
    assert (pressed.content, pressed.metadata) == (TextContent(text="The blue one"), {"button": "blue"})
    assert pressed.about_id == "C2147483705:1355517524.000006", "the thread that the buttons stand in"
    assert parsed("payload_select")[0].metadata == {"button": "L"}


def test_files_are_fetched_with_the_token_of_the_app() -> None:
    (message,) = parsed("event_message_file")
    (attachment,) = message.attachments
    assert (attachment.needs_auth, attachment.mime_type, attachment.size_bytes) == (True, "image/png", 43518)
    assert isinstance(message.content, MediaContent)
    assert (message.content.caption, message.content.filename) == ("the broken one", "lamp.png")


async def test_the_handshake_gets_its_challenge_back_and_nothing_else_happens() -> None:
    clock = VirtualClock()
    fake = FakeSlack(clock=clock)
    kit = RoomKit(clock=clock)
    kit.register_channel(SlackChannel("hook", provider=made(fake)))
    async with house(kit, public_url="https://rooms.example") as h:
        signed = fake.json(document("handshake"))
        answer = await h.http.post("/webhooks/hook", content=signed.body, headers=dict(signed.headers))
        assert (answer.status_code, answer.text) == (200, document("handshake")["challenge"])
        forged = await h.http.post("/webhooks/hook", content=signed.body)
        assert forged.status_code == 403
        assert await kit.list_rooms() == []


def test_whatever_stands_anywhere_in_a_body_breaks_nothing() -> None:
    check_spoilt(
        made(FakeSlack()),
        golden("slack", *(name for name in NAMES if not name.startswith("form_"))),
        n=3000,
    )


def test_hostile_bodies_are_refused_or_read_but_break_nothing() -> None:
    slack = made(FakeSlack())
    check_no_bodies(slack, HOOK, {"content-type": "application/json"})
    base = document("event_message_im")
    odd: list[Any] = [None, 1, "x", [], {}, {"user": {}, "channel": {}, "ts": 5, "files": [1, {"size": "x"}]}]
    for event in [
        *odd,
        *(
            {"type": kind, **one}
            for kind in ("message", "reaction_added")
            for one in odd
            if one and isinstance(one, dict)
        ),
    ]:
        body = json.dumps({**base, "event": event}).encode()
        found = slack.parse(WebhookRequest("POST", HOOK, {"content-type": "application/json"}, body), "c")
        assert all(isinstance(one, InboundMessage) for one in found)
        assert len(found) == 1


# -- signatures -----------------------------------------------------------------------------------------------------


async def test_signatures_agree_with_the_vendors_own_code_in_both_directions() -> None:
    clock = VirtualClock()
    fake = FakeSlack(clock=clock)
    slack = made(fake)

    class Moment:
        def now(self) -> float:
            return clock.now().timestamp()

    judge = SignatureVerifier(fake.signing_secret, Moment())
    for name in NAMES:
        bare = webhook(name)
        ours = slack.sign(bare)
        assert judge.is_valid_request(bare.body, dict(ours.headers))
        theirs = fake._signed(bare.headers["content-type"], bare.body)
        slack.verify(theirs)
        assert theirs.headers["x-slack-signature"] == ours.headers["x-slack-signature"]


async def test_five_minutes_are_fresh_and_more_are_not() -> None:
    clock = VirtualClock()
    fake = FakeSlack(clock=clock)
    slack = made(fake)
    request = fake.message("U1", "hi")
    await asyncio.sleep(300)
    slack.verify(request)
    await asyncio.sleep(2)
    with pytest.raises(AccessDenied, match="302 s old"):
        slack.verify(request)
    late = fake.message("U1", "from the future")
    early = replace(late, headers={**late.headers, "x-slack-request-timestamp": "99999999999"})
    with pytest.raises(AccessDenied):
        slack.verify(early)


def test_a_secret_can_be_changed_without_a_gap() -> None:
    old, new = FakeSlack(), FakeSlack(signing_secret="the next signing secret")
    slack = made(new, signing_secrets=(new.signing_secret, old.signing_secret))
    slack.verify(old.message("U1", "a"))
    slack.verify(new.message("U1", "b"))
    with pytest.raises(AccessDenied):
        made(new).verify(old.message("U1", "a"))


def test_no_mutant_is_believed() -> None:
    fake = FakeSlack()
    signed = [made(fake).sign(webhook(name)) for name in NAMES if name not in SILENT]
    report = fuzz_signatures(made(fake), signed, n=1500, seed=4)
    assert report.ok, (report.forged[:3], report.crashed[:3])


# -- out ------------------------------------------------------------------------------------------------------------


async def test_text_goes_out_as_it_is_and_calls_nobody() -> None:
    fake = FakeSlack()
    slack = made(fake)
    result = await slack.send(message_to("C1", "<!channel> 1 < 2 & *so* <@U1>"))
    (sent,) = fake.messages
    assert sent.text == "&lt;!channel&gt; 1 &lt; 2 &amp; *so* &lt;@U1&gt;"
    assert (result.success, result.provider_message_id) == (True, f"C1:{sent.ts}")
    await slack.send(message_to("C1", "in a thread", about_ids=(f"C1:{sent.ts}",)))
    await slack.send(message_to("C2", "elsewhere", about_ids=(f"C1:{sent.ts}",)))
    assert [one.thread_ts for one in fake.messages] == [None, sent.ts, None]
    await slack.aclose()


async def test_formatted_text_cards_and_buttons_are_blocks_that_slacks_own_models_take() -> None:
    fake = FakeSlack()
    slack = made(fake)
    rich = RichContent(
        text="**Bold** & _it_ <!here> [site](https://x.example/?a=1&b=2)\n" + "long " * 900,
        buttons=(Button(label="Yes", value="y"), Button(label="Open " * 30, url="https://x.example/")),
        cards=(
            Card(title="Lamp <b>", text="Blue", image_url="https://x.example/l.png", buttons=(Button(label="Buy"),)),
        ),
        quick_replies=("Later",),
    )
    await slack.send(message_to("C1", rich))
    (sent,) = fake.messages
    assert sent.text.startswith("*Bold* &amp; _it_ &lt;!here&gt; <https://x.example/?a=1&amp;b=2|site>")
    kinds = [block["type"] for block in sent.blocks]
    assert kinds == ["section", "section", "section", "actions", "actions"]
    assert [e["value"] for e in sent.blocks[-1]["elements"]] == ["y", ("Open " * 30), "Later"]
    assert "".join(b["text"]["text"] for b in sent.blocks[:2]).count("long") == 900
    assert all(Block.parse(block) is not None for block in sent.blocks)
    await slack.aclose()


async def test_pictures_are_shown_and_other_files_are_links() -> None:
    fake = FakeSlack()
    slack = made(fake)
    report = MediaContent(url="https://x.example/r.pdf", mime_type="application/pdf", filename="r>.pdf", caption="see")
    await slack.send(message_to("C1", PICTURE.model_copy(update={"caption": "a & b"})))
    await slack.send(message_to("C1", report))
    await slack.send(message_to("C1", CompositeContent(parts=(TextContent(text="two"), PICTURE, report))))
    one, two, three = fake.messages
    assert (one.text, one.blocks[1]["image_url"]) == ("a &amp; b", PICTURE.url)
    assert (two.text, two.blocks) == ("see\n<https://x.example/r.pdf|r&gt;.pdf>", [])
    assert [block["type"] for block in three.blocks] == ["section", "image", "section"]
    with pytest.raises(Refused, match="public https URL"):
        await slack.send(message_to("C1", AudioContent(url="blob:1")))
    with pytest.raises(Refused, match="neither text nor media"):
        await slack.send(message_to("C1", UnknownContent(kind="poll")))
    assert len(fake.messages) == 3
    await slack.aclose()


async def test_edits_deletions_and_reactions() -> None:
    fake = FakeSlack()
    slack = made(fake)
    ids = [(await slack.send(message_to("C1", text))).provider_message_id or "" for text in ("one", "two")]
    rich = RichContent(text="x", buttons=(Button(label="Yes"),))
    await slack.send(message_to("C1", EditContent(target_event_id="e", new_content=rich), about_ids=tuple(ids)))
    assert (fake.messages[0].edits, fake.messages[1].deleted) == (1, True), "what was in two parts is in one now"
    plain = EditContent(target_event_id="e", new_content=TextContent(text="new"))
    result = await slack.send(message_to("C1", plain, about_ids=(ids[0],), idempotency_key="r:5:c:0"))
    assert (fake.messages[0].text, fake.messages[0].blocks) == ("new", [])
    assert result.provider_message_id not in ids, "an edit is no second message with the id of the first"
    for removed, left in ((False, ["tada"]), (False, ["tada"]), (True, []), (True, [])):
        reaction = ReactionContent(target_event_id="e", emoji="🎉", removed=removed)
        assert (await slack.send(message_to("C1", reaction, about_ids=(ids[0],)))).success
        assert fake.messages[0].reactions == left
    odd = ReactionContent(target_event_id="e", emoji="🦩")
    assert (await slack.send(message_to("C1", odd, about_ids=(ids[0],)))).state is DeliveryState.SKIPPED
    for _ in range(2):
        gone = await slack.send(message_to("C1", DeleteContent(target_event_id="e"), about_ids=(ids[0],)))
        assert gone.success, "also when somebody was faster"
    assert fake.messages[0].deleted
    await slack.aclose()


@pytest.mark.parametrize(
    "status, body, kind, retryable",
    [
        (200, {"ok": False, "error": "channel_not_found"}, Refused, False),
        (200, {"ok": False, "error": "is_archived"}, Refused, False),
        (200, {"ok": False, "error": "msg_too_long"}, Refused, False),
        (200, {"ok": False, "error": "invalid_auth"}, Unauthorized, False),
        (200, {"ok": False, "error": "missing_scope", "needed": "chat:write"}, Unauthorized, False),
        (200, {"ok": False, "error": "ratelimited"}, RateLimited, True),
        (429, {"ok": False, "error": "ratelimited"}, RateLimited, True),
        (200, {"ok": False, "error": "fatal_error"}, Unavailable, True),
        (503, "down", Unavailable, True),
        (200, {"ok": False}, Refused, False),
        (200, ["odd"], BadResponse, False),
    ],
)
async def test_errors_say_who_must_act(status: int, body: Any, kind: type[ProviderError], retryable: bool) -> None:
    fake = FakeSlack()
    fake.mishaps.refuse(status, body, retry_after=30 if status == 429 else None)
    error = await send_failing(fake)
    assert (type(error), error.retryable) == (kind, retryable)
    assert error.retry_after == (30 if status == 429 else None)
    if isinstance(body, dict) and "error" in body:
        assert error.code == body["error"]
    if isinstance(body, dict) and "needed" in body:
        assert "needs chat:write" in str(error)
    assert fake.messages == []


async def test_no_answer_is_ambiguous_and_comes_in_time() -> None:
    fake = FakeSlack()
    mishaps = fake.mishaps
    await check_no_answer(lambda: made(fake), message_to("C1", "x"), hang=mishaps.hang, lose=mishaps.lose_answer)
    assert len(fake.messages) == 2, "both were accepted"
    assert isinstance(await send_failing(fake, bot_token="xoxb-wrong"), Unauthorized)


async def test_files_with_the_token_from_slack_only() -> None:
    fake = FakeSlack()
    slack = made(fake)
    file = fake.file("a.png", "image/png", b"png bytes")
    found = await slack.fetch_media(Attachment(url=file["url_private"], mime_type="image/png", needs_auth=True))
    assert (found.body, found.content_type) == (b"png bytes", "image/png")
    for host in ("slack.com.evil.example", "evilslack.com", "files.slack.com.", "x.example"):
        await slack.fetch_media(Attachment(url=f"https://{host}/a.png", mime_type="image/png", needs_auth=True))
    assert [one for one in fake.leaks if one != "files.slack.com."] == []
    await slack.aclose()
    stranger = made(fake, bot_token="xoxb-without-scope")
    with pytest.raises(Unauthorized, match="files:read"):
        await stranger.fetch_media(Attachment(url=file["url_private"], mime_type="image/png", needs_auth=True))
    await stranger.aclose()


def test_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET", "SLACK_BOT_USER_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="SLACK_BOT_TOKEN"):
        provider()
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-planted")
    monkeypatch.setenv("SLACK_SIGNING_SECRET", "planted-one, planted-two")
    found = provider()
    assert found.options.signing_secrets == ("planted-one", "planted-two")
    assert "planted" not in repr(found.options)
    monkeypatch.setenv("SLACK_BOT_TOKEN_SHOP", "xoxb-shop")
    assert provider("shop").options == SlackOptions("xoxb-shop")


# -- in a room ------------------------------------------------------------------------------------------------------


async def test_a_conversation_with_threads_edits_and_reactions() -> None:
    clock = VirtualClock()
    fake = FakeSlack(clock=clock)
    kit = RoomKit(clock=clock)
    kit.register_channel(SlackChannel("hook", provider=made(fake)))

    @kit.on_message
    async def answer(context: Any, message: Any) -> str:
        return f"You said: {message.text}"

    async def post(request: WebhookRequest) -> None:
        answered = await h.http.post("/webhooks/hook", content=request.body, headers=dict(request.headers))
        assert answered.status_code == 200
        await asyncio.sleep(5)

    async with house(kit, public_url="https://rooms.example") as h:
        for user, ts, text in (("U1", "1.1", "<@U0BOT> one"), ("U2", "1.2", "two")):
            await post(fake.message(user, text, channel="C9", ts=ts))
        (room,) = await kit.list_rooms()
        assert [one.text for one in fake.messages] == ["You said: one", "You said: two"]
        assert {one.channel for one in fake.messages} == {"C9"}
        people = await kit.participants(room.id)
        assert {"slack:U1", "slack:U2"} <= {person.id for person in people}

        await post(fake.message("U2", "three", channel="C9", ts="1.3", thread_ts="1.1"))
        assert fake.messages[-1].thread_ts == "1.1", "an answer stays in its thread"
        mine = fake.messages[0]
        item = {"type": "message", "channel": "C9", "ts": mine.ts}
        await post(fake.event({"type": "reaction_added", "user": "U2", "reaction": "+1", "item": item}))
        edited = {"type": "message", "user": "U1", "text": "one, no: 1", "ts": "1.1", "edited": {"ts": "2.0"}}
        changed = {"subtype": "message_changed", "channel": "C9", "channel_type": "channel", "ts": "2.0"}
        await post(fake.event({"type": "message", **changed, "message": edited, "previous_message": {"text": "one"}}))
        stranger = {**edited, "ts": "0.5"}
        await post(fake.event({"type": "message", **changed, "message": stranger, "previous_message": {"text": "x"}}))

        raw = await kit.events(room.id, raw=True)
        events = {event.text: event for event in raw}
        assert events["three"].parent_event_id == events["one"].id
        assert "one, no: 1" in [event.text for event in await kit.events(room.id) if event.id == events["one"].id]
        liked = next(event for event in raw if event.type is EventType.REACTION)
        assert liked.content.target_event_id == events["You said: one"].id
        lost = next(event for event in raw if isinstance(event.content, UnknownContent))
        assert (lost.content.kind, lost.text, lost.metadata["unknown_target"]) == ("edit", "one, no: 1", "C9:0.5")


async def test_direct_messages_are_at_the_persons_own_address() -> None:
    clock = VirtualClock()
    fake = FakeSlack(clock=clock)
    kit = RoomKit(clock=clock)
    kit.register_channel(SlackChannel("hook", provider=made(fake)))
    async with house(kit, public_url="https://rooms.example") as h:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "hook", metadata={"slack_channel_id": "U7"})
        await (await kit.send("r", "Your lamp is ready", by="ann")).settled()
        (first,) = fake.messages
        assert first.channel == "D7"
        answer = fake.message("U7", "thank you", channel="D7", ts="1.5", thread_ts=first.ts)
        await h.http.post("/webhooks/hook", content=answer.body, headers=dict(answer.headers))
        (room,) = await kit.list_rooms()
        thanks = (await kit.events(room.id))[-1]
        assert thanks.text == "thank you", "in the room that wrote first"
        assert thanks.parent_event_id is not None
        reply = await kit.send("r", "You are welcome", by="ann", parent_event_id=thanks.parent_event_id)
        await reply.settled()
        assert (fake.messages[1].channel, fake.messages[1].thread_ts) == ("D7", first.ts)


async def test_what_is_edited_and_deleted_in_the_room_is_at_slack_too() -> None:
    clock = VirtualClock()
    fake = FakeSlack(clock=clock)
    kit = RoomKit(clock=clock)
    kit.register_channel(SlackChannel("slack", provider=made(fake)))
    async with kit:
        await kit.create_room("r", channels=[])
        await kit.send("r", "before the channel came", by="ann")
        await kit.attach_channel("r", "slack", metadata={"slack_channel_id": "C1"})
        sent = await kit.send("r", "word " * 1700, by="ann")
        await sent.settled()
        assert len(fake.messages) == 3, "in parts"
        assert sent.event is not None
        edit = EditContent(target_event_id=sent.event.id, new_content=TextContent(text="short"))
        await (await kit.send("r", edit, type=EventType.EDIT, by="ann")).settled()
        assert [one.deleted for one in fake.messages] == [False, True, True]
        assert fake.messages[0].text == "short"
        gone = DeleteContent(target_event_id=sent.event.id)
        await (await kit.send("r", gone, type=EventType.DELETE, by="ann")).settled()
        assert fake.messages[0].deleted
        count = len(fake.calls)
        (early,) = [event for event in await kit.events("r") if event.text == "before the channel came"]
        late = EditContent(target_event_id=early.id, new_content=TextContent(text="better"))
        await (await kit.send("r", late, type=EventType.EDIT, by="ann")).settled()
        assert fake.messages[-1].text == "Correction: better"
        assert fake.calls[count:] == ["chat.postMessage"]


# -- once -----------------------------------------------------------------------------------------------------------


@ONCE
async def test_exactly_one_effect(tmp_path: Path) -> None:
    first = ("event_message_im", "event_message_channel", "event_message_thread")
    events = await exactly_once(
        lambda clock: made(FakeSlack(clock=clock)),
        lambda cid, p: SlackChannel(cid, provider=p),
        [webhook(name) for name in NAMES if name not in {"handshake", "own_message", "unfurled"}],
        before=[webhook(name) for name in first],
        folder=tmp_path,
    )
    assert {event.type for event in events} == {"message", "edit", "delete", "reaction"}


def test_secrets_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeSlack()
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AccessDenied) as caught:
        made(fake).verify(webhook("form_command"))
    assert fake.signing_secret not in caplog.text + str(caught.value)


def test_an_empty_secret_opens_nothing() -> None:
    request = FakeSlack().message("U1", "a")
    signed = f"v0:{request.headers['x-slack-request-timestamp']}:".encode() + request.body
    signature = f"v0={hmac.new(b'', signed, 'sha256').hexdigest()}"
    forged = replace(request, headers={**request.headers, "x-slack-signature": signature})
    with pytest.raises(AccessDenied, match="no signing secret"):
        made(FakeSlack(), signing_secrets=("",)).verify(forged)
