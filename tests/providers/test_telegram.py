from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import telegram as ptb

from roomkit import KitOptions, RoomKit
from roomkit.channels import TelegramChannel
from roomkit.errors import (
    AccessDenied,
    BadResponse,
    ConfigError,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.models.consent import ConsentPolicy
from roomkit.models.content import (
    AudioContent,
    Button,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    ReactionContent,
    RichContent,
    TextContent,
    UnknownContent,
    VideoContent,
    text_of,
)
from roomkit.models.delivery import Attachment, InboundMessage, WebhookRequest
from roomkit.models.event import EventType
from roomkit.providers.chat_text import TELEGRAM, chat_text
from roomkit.providers.telegram.outbound import MAX_UPLOAD
from roomkit.providers.telegram.polling import PollingOptions, TelegramPolling
from roomkit.providers.telegram.telegram import HEADER, TelegramProvider, provider
from roomkit.runtime import monotonic
from roomkit.testing import VirtualClock, check_message_provider, fuzz_signatures
from roomkit.testing.messages import message_to
from roomkit.testing.vendors.telegram import FakeTelegram
from tests.providers.exactly_once import GOLDEN, ONCE, exactly_once, golden
from tests.providers.vendor_calls import public
from tests.servers.house import MemoryBlobs, house

TO = "5550123"
PUBLIC = "https://rooms.example"
FILES = sorted((GOLDEN / "telegram").glob("*.json"))


def made(fake: FakeTelegram, **more: Any) -> TelegramProvider:
    return TelegramProvider(fake.options(**more), transport=fake.transport(), resolver=public)


async def sent(fake: FakeTelegram, content: Content | str = "hi", to: str = TO, **more: Any) -> Any:
    bot = made(fake)
    try:
        return await bot.send(message_to(to, content, **more))
    finally:
        await bot.aclose()


async def failing(fake: FakeTelegram, content: Content | str = "hi", to: str = TO, **more: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await sent(fake, content, to, **more)
    return caught.value


def read(name: str) -> InboundMessage:
    (item,) = read_all(name)
    return item


def read_all(name: str) -> list[InboundMessage]:
    (request,) = golden("telegram", name)
    items = made(FakeTelegram()).parse(request, "tg")
    assert all(isinstance(item, InboundMessage) for item in items)
    return items  # type: ignore[return-value]


async def test_conformance():
    fake = FakeTelegram()
    await check_message_provider(
        lambda: made(fake),
        inbound=golden("telegram"),
        outgoing=message_to(TO),
        secrets=[fake.token, fake.secret],
        without_secret=lambda: made(fake, webhook_secret=None),
        mutants=0,
    )


# -- sending --------------------------------------------------------------------------------------------


async def test_text_goes_out_and_is_named_by_chat_and_number():
    fake = FakeTelegram()
    result = await sent(fake, "hello <b>& all")
    (message,) = fake.messages
    assert (message.method, message.text, message.chat_id) == ("sendMessage", "hello <b>& all", 5550123)
    assert "parse_mode" not in message.fields
    assert result.provider_message_id == f"5550123:{message.message_id}"
    await sent(fake, "in a topic", to="-1001234:45")
    assert (fake.messages[1].chat_id, fake.messages[1].fields["message_thread_id"]) == (-1001234, 45)


async def test_an_answer_quotes_only_what_is_of_the_same_chat_and_only_once():
    fake = FakeTelegram()
    await sent(fake, about_ids=("5550123:7", "5550123:8"))
    await sent(fake, about_ids=("999:7",))
    await sent(fake, about_ids=("5550123:7",), part=1, parts=2)
    quoted = [message.fields.get("reply_parameters") for message in fake.messages]
    assert quoted == [{"message_id": 8, "allow_sending_without_reply": True}, None, None]


@pytest.mark.parametrize(
    "content, shown",
    [
        (
            RichContent(text="**Bold** and *soft* `x<y` [site](https://x.example/?a=1&b=2)"),
            '<b>Bold</b> and <i>soft</i> <code>x&lt;y</code> <a href="https://x.example/?a=1&amp;b=2">site</a>',
        ),
        (
            RichContent(text="# Title\n- one\n- two\n\n```py\na < b\n```\ndone"),
            "<b>Title</b>\n• one\n• two\n\n<pre>a &lt; b</pre>\n\ndone",
        ),
        (RichContent(text=r"2 \* 3 < 7 & snake_case_name ~~no~~"), "2 * 3 &lt; 7 &amp; snake_case_name <s>no</s>"),
        (
            RichContent(
                text="<p>Hi <strong>you <em>there</strong></em></p><script>x</script><p>a &lt; b</p>", format="html"
            ),
            "Hi <b>you <i>there</i></b>\n\na &lt; b",
        ),
        (
            RichContent(
                text='<a href="javascript:x">bad</a> <a href="https://x.example">good</a> <blink>b</blink>',
                format="html",
            ),
            'bad <a href="https://x.example">good</a> b',
        ),
    ],
)
async def test_formatted_text_uses_telegrams_marks_and_escapes_the_rest(content: RichContent, shown: str):
    fake = FakeTelegram()
    await sent(fake, content)
    assert (fake.messages[0].text, fake.messages[0].fields["parse_mode"]) == (shown, "HTML")


def test_marks_that_nothing_closes_are_closed_at_the_end():
    assert chat_text(RichContent(text="a <b>bold <i>both", format="html"), TELEGRAM) == "a <b>bold <i>both</i></b>"


def test_whatever_is_written_the_marks_are_ones_that_telegram_takes():
    from roomkit.testing.vendors.telegram import _balanced  # the fake's own judge

    dice = random.Random(4)
    pieces = [
        "**",
        "*",
        "_",
        "__",
        "`",
        "```\n",
        "\n",
        "[a](https://x.example)",
        "<b>",
        "</i>",
        "<",
        "&",
        "é",
        "a b",
        "# ",
        "- ",
        "\\*",
        "~~",
        "<!--",
        "](",
    ]
    for _ in range(3000):
        text = "".join(dice.choice(pieces) for _ in range(dice.randrange(25)))
        for form in ("markdown", "html"):
            out = chat_text(RichContent(text=text, format=form), TELEGRAM)  # type: ignore[arg-type]
            assert _balanced(out), (text, out)


async def test_marks_that_telegram_does_not_take_are_left_out_rather_than_the_message():
    fake = FakeTelegram()
    fake.fail(400, "Bad Request: can't parse entities: Unsupported start tag")
    await sent(fake, RichContent(text="**x**", plain_text="x"))
    (message,) = fake.messages
    assert (message.text, message.fields.get("parse_mode")) == ("x", None)


async def test_buttons_and_what_they_may_hold():
    fake = FakeTelegram()
    yes, site = Button(label="Yes", value="order:1"), Button(label="Site", url="https://x.example")
    await sent(fake, RichContent(text="Order?", buttons=(yes, Button(label="No"), site)))
    assert fake.messages[0].fields["reply_markup"] == {
        "inline_keyboard": [
            [{"text": "Yes", "callback_data": "order:1"}],
            [{"text": "No", "callback_data": "No"}],
            [{"text": "Site", "url": "https://x.example"}],
        ]
    }
    error = await failing(fake, RichContent(text="x", buttons=(Button(label="a", value="é" * 33),)))
    assert "64 bytes" in str(error)


@pytest.mark.parametrize(
    "content, method, fields",
    [
        (
            MediaContent(url="https://x.example/a.png", mime_type="image/png", caption="cap"),
            "sendPhoto",
            {"photo": "https://x.example/a.png", "caption": "cap"},
        ),
        (
            MediaContent(url="https://x.example/a.gif", mime_type="image/gif"),
            "sendAnimation",
            {"animation": "https://x.example/a.gif"},
        ),
        (
            MediaContent(url="https://x.example/a.pdf", mime_type="application/pdf"),
            "sendDocument",
            {"document": "https://x.example/a.pdf"},
        ),
        (MediaContent(url="telegram:AgAD", mime_type="text/plain"), "sendDocument", {"document": "AgAD"}),
        (
            VideoContent(url="https://x.example/a.mp4", caption="v"),
            "sendVideo",
            {"video": "https://x.example/a.mp4", "caption": "v"},
        ),
        (
            AudioContent(url="https://x.example/a.ogg", mime_type="audio/ogg"),
            "sendVoice",
            {"voice": "https://x.example/a.ogg"},
        ),
        (
            AudioContent(url="https://x.example/a.mp3", mime_type="audio/mpeg"),
            "sendAudio",
            {"audio": "https://x.example/a.mp3"},
        ),
        (LocationContent(latitude=1.5, longitude=2.5), "sendLocation", {"latitude": 1.5, "longitude": 2.5}),
        (
            LocationContent(latitude=1.5, longitude=2.5, label="Shop"),
            "sendVenue",
            {"latitude": 1.5, "longitude": 2.5, "title": "Shop", "address": "Shop"},
        ),
    ],
)
async def test_files_and_places(content: Content, method: str, fields: dict[str, Any]):
    fake = FakeTelegram()
    await sent(fake, content)
    (message,) = fake.messages
    assert (message.method, dict(message.fields)) == (method, {"chat_id": 5550123, **fields})


async def test_what_telegram_would_not_fetch_is_uploaded():
    fake = FakeTelegram()
    data = MediaContent(url="data:text/plain;base64,aGVsbG8=", mime_type="text/plain", filename="é.txt", caption="c")
    await sent(fake, data, about_ids=("5550123:7",))
    (message,) = fake.messages
    assert (message.method, message.file, message.fields["caption"]) == ("sendDocument", b"hello", "c")
    assert message.fields["reply_parameters"]["message_id"] == 7
    name = fake.file(b"<svg/>")["file_id"]
    url = f"https://files.example/file/bot{fake.token}/documents/{name}.bin"
    await sent(fake, MediaContent(url=url, mime_type="image/svg+xml"))
    assert fake.messages[1].file == b"<svg/>"


async def test_what_cannot_be_sent_is_told_before_sending():
    fake = FakeTelegram()
    for content, told in (
        (MediaContent(url="blob:1", mime_type="image/png"), "public URL"),
        (MediaContent(url="https://x.example/a", mime_type="x/y", size_bytes=MAX_UPLOAD + 1), "too large"),
        (UnknownContent(kind="poll"), "neither text nor media"),
        (TextContent(text="x" * 4097), "too long"),
        (EditContent(target_event_id="e", new_content=LocationContent(latitude=1, longitude=1)), "cannot be changed"),
    ):
        error = await failing(fake, content, about_ids=("5550123:7",))
        assert isinstance(error, Refused)
        assert told in str(error)
    assert fake.calls == []


async def test_edits_deletions_and_reactions_reach_the_message_that_went_out():
    fake = FakeTelegram()
    names = tuple([(await sent(fake, text)).provider_message_id for text in ("one", "two", "three")])
    edit = EditContent(target_event_id="e", new_content=TextContent(text="all of it"))
    result = await sent(fake, edit, about_ids=names)
    assert (result.success, result.provider_message_id) == (True, None)
    assert fake.messages[0].text == "all of it"
    numbers = [int(name.partition(":")[2]) for name in names]
    assert fake.calls[-1] == ("deleteMessages", {"chat_id": 5550123, "message_ids": numbers[1:]})
    assert (await sent(fake, edit, about_ids=names[:1])).success, "an edit that was made before is no failure"
    await sent(fake, DeleteContent(target_event_id="e"), about_ids=names)
    assert fake.calls[-1][1]["message_ids"] == numbers
    for emoji, removed, wanted in (("❤️", False, [{"type": "emoji", "emoji": "❤"}]), ("❤️", True, [])):
        reaction = ReactionContent(target_event_id="e", emoji=emoji, removed=removed)
        await sent(fake, reaction, about_ids=names[:1])
        assert fake.calls[-1] == (
            "setMessageReaction",
            {"chat_id": 5550123, "message_id": numbers[0], "reaction": wanted},
        )
    picture = MediaContent(url="https://x.example/b.png", mime_type="image/png", caption="new")
    await sent(fake, EditContent(target_event_id="e", new_content=picture), about_ids=names[:1])
    media = {"type": "photo", "media": "https://x.example/b.png", "caption": "new"}
    assert fake.calls[-1][1]["media"] == media
    assert isinstance(await failing(fake, DeleteContent(target_event_id="e")), Refused)


@pytest.mark.parametrize(
    "status, told, more, kind, retryable",
    [
        (429, "Too Many Requests: retry after 7", {"retry_after": 7}, RateLimited, True),
        (401, "Unauthorized", {}, Unauthorized, False),
        (404, "Not Found", {}, Unauthorized, False),
        (403, "Forbidden: user is deactivated", {}, Refused, False),
        (400, "Bad Request: chat not found", {}, Refused, False),
        (413, "Request Entity Too Large", {}, Refused, False),
        (502, "Bad Gateway", {}, Unavailable, True),
    ],
)
async def test_telegrams_errors_become_ours(
    status: int, told: str, more: Any, kind: type[ProviderError], retryable: bool
):
    fake = FakeTelegram()
    fake.fail(status, told, **more)
    error = await failing(fake)
    assert (type(error), error.retryable, error.status) == (kind, retryable, status)
    assert error.retry_after == more.get("retry_after")
    assert told in str(error)


async def test_a_blocked_bot_and_a_group_that_moved_are_told_apart():
    fake = FakeTelegram()
    fake.blocked.add(5550123)
    assert (await failing(fake)).code == "blocked"
    fake.fail(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-100999)
    error = await failing(fake, to="-55")
    assert (error.code, "-100999" in str(error)) == ("migrated", True)


async def test_no_answer_is_ambiguous():
    fake = FakeTelegram()
    fake.hang()
    error = await failing(fake)
    assert isinstance(error, ProviderTimeout)
    assert error.ambiguous
    fake.lose_answer()
    assert (await failing(fake)).ambiguous
    assert len(fake.messages) == 2, "both were accepted"


async def test_an_answer_that_is_none_of_the_bot_apis_is_bad():
    import httpx2

    for body in ("<html>", "[]", '{"ok": true}', '{"ok": true, "result": {}}'):
        transport = httpx2.MockTransport(lambda _, body=body: httpx2.Response(200, text=body))
        bot = TelegramProvider(FakeTelegram().options(), transport=transport)
        with pytest.raises(BadResponse):
            await bot.send(message_to(TO))
        await bot.aclose()


async def test_the_token_is_in_no_error_log_or_event(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    fake = FakeTelegram()
    fake.fail(500, f"https://api.telegram.org/bot{fake.token}/x")
    error = await failing(fake)
    assert fake.token.partition(":")[2] not in str(error)
    bot = made(fake)
    update = fake.update(message=fake.message(document=fake.file(b"bytes", mime_type="text/plain")))
    (message,) = bot.parse(fake.request(update), "tg")
    assert isinstance(message, InboundMessage)
    got = await bot.fetch_media(message.attachments[0])
    assert (got.body, got.url) == (b"bytes", message.attachments[0].url)
    await bot.aclose()
    secret = fake.token.partition(":")[2]
    assert secret not in repr(got)
    assert secret not in message.model_dump_json()
    assert caplog.text
    assert secret not in caplog.text


async def test_a_file_with_a_strange_path_is_not_fetched():
    import httpx2

    for path in ("../bot/secret", "/etc/passwd", None, 5):
        answer = {"ok": True, "result": {"file_id": "x", "file_path": path}}
        transport = httpx2.MockTransport(lambda _, answer=answer: httpx2.Response(200, json=answer))
        bot = TelegramProvider(FakeTelegram().options(), transport=transport, resolver=public)
        with pytest.raises(BadResponse):
            await bot.fetch_media(Attachment(url="telegram:x"))
        await bot.aclose()


def test_configuration_errors_name_the_variables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TELEGRAM_BOT_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="TELEGRAM_BOT_TOKEN"):
        provider()
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "1:planted-token")
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN_SUPPORT", "2:planted-token")
    monkeypatch.setenv("TELEGRAM_WEBHOOK_SECRET", "planted-secret")
    assert (provider().options.bot_token, provider("support").options.bot_token) == (
        "1:planted-token",
        "2:planted-token",
    )
    assert "planted" not in repr(provider().options)
    with pytest.raises(ConfigError, match="letters"):
        provider(webhook_secret="not allowed!")


# -- webhooks -------------------------------------------------------------------------------------------


def test_the_secret_is_what_a_webhook_is_known_by():
    fake = FakeTelegram()
    bot, request = made(fake), fake.text("hi")
    bot.verify(request)
    assert bot.sign(replace(request, headers={"content-type": "application/json"})) == request
    for bad in (
        {},
        {**request.headers, "x-telegram-bot-api-secret-token": "fake-telegram-secreT"},
        {**request.headers, "x-telegram-bot-api-secret-token": ""},
        {**request.headers, "x-telegram-bot-api-secret-token": "é"},
    ):
        with pytest.raises(AccessDenied):
            bot.verify(replace(request, headers=bad))
    for body in (b"", b"[]", b"{}", b"x", b"\xff", b"[" * 100_000):
        with pytest.raises(AccessDenied, match="no update"):
            bot.verify(replace(request, body=body))
    with pytest.raises(AccessDenied):
        bot.verify(replace(request, method="GET"))
    with pytest.raises(AccessDenied, match="no secret is configured"):
        made(fake, webhook_secret=None).verify(request)


def test_mutants_without_the_secret_do_not_pass_and_none_breaks_the_parser():
    fake = FakeTelegram()
    # The scheme is a shared secret: who has it may say anything, and that is not what this looks for.
    report = fuzz_signatures(
        made(fake),
        [made(fake).sign(request) for request in golden("telegram")],
        n=8000,
        seed=5,
        excused=lambda request, mutant: mutant.headers.get(HEADER) == request.headers[HEADER],
    )
    assert report.ok, (report.forged[:3], report.crashed[:3])
    assert report.refused > 1000


def test_broken_updates_are_visible_and_break_nothing():
    bot, dice = made(FakeTelegram()), random.Random(6)
    odd: list[Any] = [None, 7, "x", [], {}, [1], {"id": {}}, True, -1, [[]], {"a": [{}]}]

    def spoil(value: Any) -> Any:
        if dice.random() < 0.15:
            return dice.choice(odd)
        if isinstance(value, dict):
            return {name: spoil(one) for name, one in value.items()}
        return [spoil(one) for one in value] if isinstance(value, list) else value

    for path in FILES * 40:
        update = spoil(json.loads(path.read_text()))
        if isinstance(update, dict) and update:
            request = WebhookRequest("POST", PUBLIC, {}, json.dumps(update).encode())
            found = bot.parse(request, "tg")
            assert found
            assert all(isinstance(item, InboundMessage) and item.external_id for item in found)


def test_messages_are_read_whole():
    text = read("text")
    assert (text.sender_id, text.sender_name, text.conversation_id, text.group) == ("1111111", "Ada Byron", None, False)
    assert text.content == TextContent(text="/start Where is my lamp? é 🙂")
    assert text.external_id == "1111111:1365"
    assert text.raw_payload["message"]["entities"]
    assert text.sent_at is not None
    assert text.sent_at.year == 2015
    assert read("reply").about_id == "1111111:1365"
    photo = read("photo")
    assert isinstance(photo.content, MediaContent)
    assert (photo.content.url, photo.content.caption, photo.content.mime_type) == (
        "telegram:AgACAgIAAxkBAAp3",
        "my lamp",
        "image/jpeg",
    )
    assert [(a.url, a.needs_auth, a.size_bytes) for a in photo.attachments] == [(photo.content.url, True, 53000)]
    document = read("document").content
    assert isinstance(document, MediaContent)
    assert (document.filename, document.mime_type) == ("invoice é.pdf", "application/pdf")
    kinds = {
        name: read(name).content.type for name in ("album", "animation", "video", "voice", "video_note", "sticker")
    }
    assert list(kinds.values()) == ["media", "media", "video", "audio", "video", "media"]
    assert read("album").channel_data["telegram"]["media_group_id"]
    voice, song = read("voice").content, read("audio").content
    assert isinstance(voice, AudioContent)
    assert (voice.duration_ms, voice.mime_type) == (5000, "audio/ogg")
    assert isinstance(song, CompositeContent)
    assert [part.type for part in song.parts] == ["text", "audio"]
    assert read("location").content == LocationContent(latitude=47.376888, longitude=8.541694)
    venue = read("venue").content
    assert isinstance(venue, LocationContent)
    assert (venue.label, venue.address) == ("Lamp shop", "Bahnhofstrasse 1")


def test_groups_topics_and_channels_are_conversations_of_their_own():
    group, topic, opened = read("group"), read("forum_topic"), read("forum_opened")
    assert (group.sender_id, group.address, group.group) == ("1111111", "-4012345", True)
    assert (topic.address, topic.about_id) == ("-1001234567890:45", None)
    assert opened.content == UnknownContent(kind="forum_topic_created", text=None)
    boss, news = read("anonymous_admin"), read("channel_post")
    assert (boss.sender_id, boss.sender_name) == ("-1001234567890", "Lamp support")
    assert (news.sender_id, news.address, news.group) == ("-1009876543210", "-1009876543210", True)
    change = read("edited_channel_post")
    assert (change.type, change.about_id) == (EventType.EDIT, "-1009876543210:5")


def test_edits_taps_and_reactions_name_what_they_are_about():
    edit = read("edited_message")
    assert isinstance(edit.content, EditContent)
    assert (edit.type, edit.about_id, edit.content.new_content) == (
        EventType.EDIT,
        "1111111:1365",
        TextContent(text="Where is my *red* lamp?"),
    )
    assert edit.external_id.startswith("update:")
    tap = read("callback_query")
    assert (tap.content, tap.about_id) == (TextContent(text="Red lamp"), "1111111:1500")
    assert tap.channel_data["telegram"]["callback_data"] == "order:red"
    assert tap.external_id == "callback:4382bfdwdsb323b2d9"
    assert read("callback_inaccessible").content == TextContent(text="order:blue")
    assert (read("callback_inline").content, read("callback_inline").about_id) == (TextContent(text="again"), None)
    changes = [(item.content.emoji, item.content.removed) for item in read_all("reaction")]  # type: ignore[union-attr]
    assert changes == [("👍", True), ("❤", False), (":5368324170671202286:", False)]
    assert len({item.external_id for item in read_all("reaction")}) == 3
    assert read("reaction_removed").about_id == "1111111:1365"


def test_what_there_is_no_content_for_is_visible():
    told = {path.stem: read_all(path.stem)[0].content for path in FILES}
    unknown = {name: (c.kind, c.text) for name, c in told.items() if isinstance(c, UnknownContent)}
    assert unknown == {
        "contact": ("contact", "Bob +15550123"),
        "dice": ("dice", "🎲 4"),
        "poll": ("poll", "Which lamp?\n- Red\n- Blue"),
        "forum_opened": ("forum_topic_created", None),
        "group_joined": ("new_chat_members", "Lamp shop"),
        "group_migrated": ("migrate_to_chat_id", "-1001234567890"),
        "reaction_count": ("message_reaction_count", None),
        "blocked": ("my_chat_member", "kicked"),
        "poll_answer": ("poll_answer", None),
        "join_request": ("chat_join_request", None),
        "inline_query": ("inline_query", None),
        "not_yet_known": ("brain_wave", None),
    }


def test_a_tap_is_answered_with_the_webhook():
    bot = made(FakeTelegram())
    (tap,), (text,) = golden("telegram", "callback_query"), golden("telegram", "text")
    answer = {"method": "answerCallbackQuery", "callback_query_id": "4382bfdwdsb323b2d9"}
    assert (json.loads(bot.reply(tap).body), bot.reply(tap).content_type) == (answer, "application/json")
    assert bot.reply(text).body == b""


# -- the vendor's types, as its independent Python library has them -----------------------------------------


def test_the_golden_updates_are_ones_that_another_implementation_reads_alike():
    for path in FILES:
        data = json.loads(path.read_text())
        update = ptb.Update.de_json(data, None)
        assert update is not None
        message = update.effective_message
        ours = read_all(path.stem)[0]
        if update.effective_user is not None and not getattr(message, "sender_chat", None):
            assert ours.sender_id == str(update.effective_user.id), path.stem
        if update.effective_chat is not None:
            assert ours.address.partition(":")[0] == str(update.effective_chat.id), path.stem
        if update.message is not None:
            assert ours.external_id == f"{update.message.chat_id}:{update.message.message_id}"
            assert text_of(ours.content) == (update.message.text or update.message.caption or text_of(ours.content))


async def test_every_field_that_we_send_is_one_that_the_method_has():
    fake = FakeTelegram()
    picture = MediaContent(url="https://x.example/a.png", mime_type="image/png", caption="c")
    rich = RichContent(text="**x**", buttons=(Button(label="a"),))
    contents: list[Any] = [
        "x",
        rich,
        picture,
        picture.replaced(mime_type="image/gif"),
        picture.replaced(mime_type="application/pdf"),
        VideoContent(url="https://x.example/a"),
        AudioContent(url="https://x.example/a", mime_type="audio/ogg"),
        AudioContent(url="https://x.example/a", mime_type="audio/mpeg"),
        LocationContent(latitude=1, longitude=2),
        LocationContent(latitude=1, longitude=2, label="x"),
        DeleteContent(target_event_id="e"),
        ReactionContent(target_event_id="e", emoji="👍"),
    ]
    for content in contents:
        await sent(fake, content, to="5550123:4", about_ids=("5550123:7",))
    bot = made(fake, typing=True)
    await bot.set_webhook(f"{PUBLIC}/webhooks/tg")
    await bot.delete_webhook()
    await bot.acknowledge(read("text"))
    await bot.aclose()
    name = (await sent(fake, "x")).provider_message_id
    for new in (TextContent(text="y"), picture):
        await sent(fake, EditContent(target_event_id="e", new_content=new), about_ids=(name,))
    seen = {method for method, _ in fake.calls}
    assert len(seen) >= 14
    for method, fields in fake.calls:
        snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in method)
        known = set(inspect.signature(getattr(ptb.Bot, snake)).parameters)
        assert set(fields) <= known, (method, set(fields) - known)


# -- in a room ------------------------------------------------------------------------------------------


def kit_of(fake: FakeTelegram, clock: VirtualClock | None = None, store: str | None = None, **more: Any) -> RoomKit:
    kit = RoomKit(
        store, clock=clock or VirtualClock(), token_secrets=["a secret for these tests only"], blobs=MemoryBlobs()
    )
    kit.register_channel(TelegramChannel("tg", provider=made(fake, **more)))
    return kit


async def post(h: Any, request: WebhookRequest) -> Any:
    return await h.http.post("/webhooks/tg", content=request.body, headers=dict(request.headers))


async def test_a_conversation_with_edits_reactions_replies_and_a_file():
    fake = FakeTelegram()
    async with house(kit_of(fake, typing=True), public_url=PUBLIC) as h:
        said = fake.message("where is my lamp")
        assert (await post(h, fake.request(fake.update(message=said)))).status_code == 200
        (room,) = await h.kit.list_rooms()
        assert ("sendChatAction", {"chat_id": 5550123, "action": "typing"}) in fake.calls
        await post(
            h,
            fake.request(fake.update(edited_message={**said, "text": "where is my red lamp", "edit_date": 1893456100})),
        )
        assert [e.text for e in await h.kit.events(room.id) if e.type == "message"] == ["where is my red lamp"]
        ours = await h.kit.send(room.id, "on its way")
        await asyncio.sleep(3)
        (message,) = fake.messages
        assert (message.text, message.chat_id) == ("on its way", 5550123)
        reaction = {
            "chat": said["chat"],
            "message_id": message.message_id,
            "user": said["from"],
            "date": 1,
            "old_reaction": [],
            "new_reaction": [{"type": "emoji", "emoji": "👍"}],
        }
        await post(h, fake.request(fake.update(message_reaction=reaction)))
        events = await h.kit.events(room.id, raw=True)
        assert [(e.content.emoji, e.content.target_event_id) for e in events if e.type == "reaction"] == [
            ("👍", ours.event.id)
        ]  # type: ignore[union-attr]
        file = fake.file(b"the bill", mime_type="application/pdf", file_name="bill.pdf")
        await post(
            h,
            fake.request(
                fake.update(
                    message=fake.message(
                        document=file, reply_to_message={"message_id": message.message_id, "chat": said["chat"]}
                    )
                )
            ),
        )
        last = (await h.kit.events(room.id))[-1]
        assert isinstance(last.content, MediaContent)
        assert last.content.url.startswith("blob:")
        assert last.parent_event_id == ours.event.id
        await h.kit.send(
            room.id, EditContent(target_event_id=ours.event.id, new_content=TextContent(text="it is here"))
        )
        await asyncio.sleep(3)
        assert [m.text for m in fake.messages] == ["it is here"]


async def test_a_file_of_the_kits_own_store_goes_out_without_a_public_address():
    fake = FakeTelegram()
    async with kit_of(fake) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "tg", metadata={"telegram_chat_id": TO})
        assert kit.engine.media_link is None
        blobs = kit.engine.blobs()  # type: ignore[misc]

        async def chunks():
            yield b"the bill"

        info = await blobs.put("default", chunks(), mime_type="application/pdf", filename="bill.pdf", room_id="r")
        await kit.send("r", MediaContent(url=f"blob:{info.id}", mime_type="application/pdf", filename="bill.pdf"))
        other = await blobs.put("default", chunks(), mime_type="application/pdf", room_id="another room")
        await kit.send("r", MediaContent(url=f"blob:{other.id}", mime_type="application/pdf"))
        await asyncio.sleep(10)
        (message,) = fake.messages
        assert (message.method, message.file) == ("sendDocument", b"the bill")


async def test_a_group_and_its_topics_are_rooms_of_several_people():
    fake = FakeTelegram()
    forum = {"id": -100123, "title": "Lamps", "type": "supergroup", "is_forum": True}
    topic = {"chat": forum, "message_thread_id": 45, "is_topic_message": True}
    async with house(kit_of(fake), public_url=PUBLIC) as h:
        await post(h, fake.text("in general", sender=1, chat=forum))
        await post(h, fake.text("from ann", sender=1, **topic))
        await post(h, fake.text("from bob", sender=2, **topic))
        rooms = {
            room.id: [e.text for e in await h.kit.events(room.id) if e.type == "message"]
            for room in await h.kit.list_rooms()
        }
        assert sorted(rooms.values()) == [["from ann", "from bob"], ["in general"]]
        (lamps,) = [name for name, said in rooms.items() if len(said) == 2]
        assert len(await h.kit.participants(lamps)) == 2
        await h.kit.send(lamps, "to both")
        await asyncio.sleep(5)
        (message,) = fake.messages
        assert (message.chat_id, message.fields["message_thread_id"]) == (-100123, 45)


async def test_a_rate_limit_is_waited_out_and_what_was_lost_is_marked():
    fake = FakeTelegram()
    async with house(kit_of(fake), public_url=PUBLIC) as h:
        await post(h, fake.text("hi"))
        (room,) = await h.kit.list_rooms()
        fake.fail(429, "Too Many Requests: retry after 30", retry_after=30)
        start = monotonic()
        await (await h.kit.send(room.id, "in a while")).settled(timeout=120)
        assert 30 <= monotonic() - start < 60
        assert [message.text for message in fake.messages] == ["in a while"]
        fake.lose_answer()
        await (await h.kit.send(room.id, "twice, maybe")).settled(timeout=120)
        assert [message.text for message in fake.messages] == ["in a while", "twice, maybe", "twice, maybe"]
        assert [record.maybe_duplicate for record in await h.kit.deliveries(room.id)] == [False, True]


async def test_who_blocks_the_bot_is_left_alone_until_it_is_started_again():
    fake = FakeTelegram()
    options = KitOptions(consent=ConsentPolicy())
    kit = RoomKit(clock=VirtualClock(), token_secrets=["a secret for these tests only"], options=options)
    kit.register_channel(TelegramChannel("tg", provider=made(fake)))
    person, bot = fake.message("hi")["from"], {"id": 123456, "is_bot": True, "first_name": "Fake"}

    def changed(status: str) -> WebhookRequest:
        chat = {"id": person["id"], "type": "private"}
        was = {"user": bot, "status": "member" if status == "kicked" else "kicked"}
        now = {"user": bot, "status": status}
        change = {"chat": chat, "from": person, "date": 1, "old_chat_member": was, "new_chat_member": now}
        return fake.request(fake.update(my_chat_member=change))

    async with house(kit, public_url=PUBLIC) as h:
        await post(h, fake.text("hi"))
        (room,) = await kit.list_rooms()
        await post(h, changed("kicked"))
        await kit.send(room.id, "too late")
        await asyncio.sleep(5)
        assert fake.messages == []
        await post(h, changed("member"))
        await kit.send(room.id, "welcome back")
        await asyncio.sleep(5)
        assert [message.text for message in fake.messages] == ["welcome back"]


@ONCE
async def test_exactly_one_effect(tmp_path: Path):
    late = {"edited_message", "edited_caption", "edited_channel_post", "reaction", "reaction_removed"}
    names = [path.stem for path in FILES]
    await exactly_once(
        lambda clock: made(FakeTelegram()),
        lambda channel_id, bot: TelegramChannel(channel_id, provider=bot),
        golden("telegram", *(name for name in names if name in late)),
        before=golden("telegram", *(name for name in names if name not in late)),
        folder=tmp_path,
    )


@ONCE
async def test_exactly_one_effect_in_any_order(tmp_path: Path):
    names = [path.stem for path in FILES]
    await exactly_once(
        lambda clock: made(FakeTelegram()),
        lambda channel_id, bot: TelegramChannel(channel_id, provider=bot),
        golden("telegram", *names),
        folder=tmp_path,
    )


# -- long polling ---------------------------------------------------------------------------------------


async def texts(kit: RoomKit) -> list[str]:
    return [
        e.text for room in await kit.list_rooms() for e in await kit.events(room.id, limit=1000) if e.type == "message"
    ]


async def test_long_polling_takes_each_update_once_and_goes_on_after_a_restart(tmp_path: Path):
    fake, clock, store = FakeTelegram(), VirtualClock(), f"sqlite:///{tmp_path / 'tg.db'}"
    for run in range(2):
        async with kit_of(fake, clock, store) as kit:
            handle = await kit.attach_source(TelegramPolling(kit.channels["tg"]))
            await asyncio.sleep(1)
            fake.wait(*(fake.update(message=fake.message(f"{run}-{n}")) for n in range(3)))
            await asyncio.sleep(120)
            assert handle.health.connected
    async with kit_of(fake, clock, store) as kit:
        assert sorted(await texts(kit)) == [f"{run}-{n}" for run in range(2) for n in range(3)]
        before = len(fake.calls)
        await kit.attach_source(TelegramPolling(kit.channels["tg"]))
        await asyncio.sleep(1)
        (first,) = [fields for method, fields in fake.calls[before:] if method == "getUpdates"]
        assert first["offset"] == fake._update + 1, "the offset did not outlive the process"


async def test_a_crash_between_commit_and_confirmation_has_no_second_effect(tmp_path: Path):
    fake, clock, store = FakeTelegram(), VirtualClock(), f"sqlite:///{tmp_path / 'tg.db'}"
    fake.wait(*(fake.update(message=fake.message(f"m{n}")) for n in range(3)))
    again = list(fake.waiting)
    for _ in range(2):
        async with kit_of(fake, clock, store) as kit:
            await kit.attach_source(TelegramPolling(kit.channels["tg"], PollingOptions(batch=2)))
            await asyncio.sleep(100)
        fake.waiting = list(again)
        for one in fake.waiting:  # as if Telegram had never heard the offset
            one["update_id"] += 50
    async with kit_of(fake, clock, store) as kit:
        assert sorted(await texts(kit)) == ["m0", "m1", "m2"]


async def test_never_both_ways_at_once():
    fake = FakeTelegram()
    fake.webhook = "https://elsewhere.example/hook"
    async with kit_of(fake) as kit:
        handle = await kit.attach_source(TelegramPolling(kit.channels["tg"]))
        await asyncio.sleep(60)
        assert not handle.health.running
        assert "delete_webhook" in str(handle.health.last_error)
        handle = await kit.attach_source(TelegramPolling(kit.channels["tg"], PollingOptions(take_over=True)))
        await asyncio.sleep(60)
        assert (handle.health.connected, fake.webhook) == (True, None)
        await kit.channels["tg"].provider.set_webhook(f"{PUBLIC}/webhooks/tg")  # type: ignore[attr-defined]
        await asyncio.sleep(60)
        assert not handle.health.running


async def test_polling_waits_as_long_as_it_is_told_and_outlives_trouble():
    fake = FakeTelegram()
    async with kit_of(fake) as kit:
        handle = await kit.attach_source(TelegramPolling(kit.channels["tg"]))
        await asyncio.sleep(60)
        fake.fail(429, "Too Many Requests: retry after 30", retry_after=30)
        fake.wait(fake.update(message=fake.message("one")))
        await asyncio.sleep(60)
        fake.fail(502, "Bad Gateway")
        fake.wait(fake.update(message=fake.message("two")))
        await asyncio.sleep(120)
        assert await texts(kit) == ["one", "two"]
        assert handle.health.restarts >= 1
        assert any(tap == "answerCallbackQuery" for tap, _ in fake.calls) is False
        query = json.loads((GOLDEN / "telegram" / "callback_query.json").read_text())["callback_query"]
        fake.wait(fake.update(callback_query=query))
        await asyncio.sleep(60)
        assert ("answerCallbackQuery", {"callback_query_id": query["id"]}) in fake.calls


async def test_after_a_week_of_silence_a_lower_number_is_not_lost():
    fake = FakeTelegram()
    async with kit_of(fake) as kit:
        await kit.attach_source(TelegramPolling(kit.channels["tg"], PollingOptions(wait_s=40_000)))
        fake.wait(fake.update(message=fake.message("before")))
        await asyncio.sleep(8 * 86_400)
        fake._update = 10
        await asyncio.sleep(40_000)
        fake.wait(fake.update(message=fake.message("after")))
        await asyncio.sleep(120)
        assert await texts(kit) == ["before", "after"]


def test_polling_needs_a_channel_of_telegrams():
    with pytest.raises(ConfigError, match="TelegramChannel"):
        TelegramPolling(TelegramChannel("tg"))


def test_a_picture_of_impossible_size_is_read_all_the_same():
    sizes = [{"file_id": "a", "width": 1, "height": 1}, {"file_id": "b", "width": float("inf"), "height": 2}]
    message = {"message_id": 1, "chat": {"id": 7, "type": "private"}, "from": {"id": 7}, "photo": sizes}
    body = json.dumps({"update_id": 1, "message": message}).encode()
    (item,) = made(FakeTelegram()).parse(WebhookRequest("POST", "https://x.example/", {}, body), "tg")
    assert isinstance(item, InboundMessage)
    assert [one.url for one in item.attachments] == ["telegram:a"]
