from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult

from roomkit import RoomKit
from roomkit.channels import EmailChannel
from roomkit.errors import (
    AccessDenied,
    ConfigError,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.models.content import CompositeContent, MediaContent, RichContent, TextContent
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.models.room import Assurance
from roomkit.providers.mail import MailSettings
from roomkit.providers.smtp.email import SMTPOptions, SMTPProvider, provider
from roomkit.testing import VirtualClock, check_message_provider
from roomkit.testing.messages import message_to
from tests.providers.exactly_once import GOLDEN, ONCE, exactly_once
from tests.providers.letters import ADA, HELP, bounce, letter
from tests.providers.mailbox import certificate
from tests.servers.house import house

SECRET = "a secret of the mail server only"
OURS = "mx.shop.example;"
HOOK = "https://rooms.example/webhooks/email"


class Postbox:
    """A real SMTP server's handler: keeps what comes, or answers as told."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, list[str], bytes]] = []
        self.answers: dict[str, str] = {}
        self.cut = False
        self.silent = False

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802 - the library's name
        if "mail" in self.answers:
            return self.answers["mail"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802 - the library's name
        if "rcpt" in self.answers:
            return self.answers["rcpt"]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - the library's name
        self.letters.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        if self.cut:
            server.transport.abort()
        if self.silent:
            await asyncio.sleep(60)
        return self.answers.get("data", "250 2.0.0 queued as 4F2A")


@asynccontextmanager
async def server(postbox: Postbox, **more: Any) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def protocol() -> Any:
        made.append(SMTP(postbox, hostname="mx.x.example", loop=loop, **more))
        return made[-1]

    listening = await loop.create_server(protocol, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for one in made:
            one._handler_coroutine.cancel()
        await asyncio.gather(*(one._handler_coroutine for one in made), return_exceptions=True)


def made(port: int, *, clock: Any = None, **more: Any) -> SMTPProvider:
    names = MailSettings.__dataclass_fields__
    mail: dict[str, Any] = {"from_address": f"Shop <{HELP}>", "trusted_servers": ("mx.shop.example",)}
    mail |= {name: more.pop(name) for name in list(more) if name in names}
    tls = more.pop("tls", None)
    values: dict[str, Any] = {"host": "127.0.0.1", "port": port, "security": "none", "webhook_secrets": (SECRET,)}
    return SMTPProvider(SMTPOptions(mail=MailSettings(**mail), **{**values, **more}), clock=clock, tls=tls)


def posted(data: bytes) -> WebhookRequest:
    return WebhookRequest("POST", HOOK, {"content-type": "message/rfc822"}, data)


async def failing(port: int, content: Any = "x", recipient: str = ADA, **more: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await made(port, **more).send(message_to(recipient, content))
    return caught.value


@pytest.mark.real_time
async def test_a_real_server_gets_a_letter_that_others_can_read():
    postbox = Postbox()
    async with server(postbox) as port:
        mine = made(port, reply_to="help+{id}@shop.example", list_unsubscribe="mailto:stop@shop.example")
        picture = MediaContent(url="data:image/png;base64,iVBORw==", mime_type="image/png", filename="grün.png")
        content = CompositeContent(parts=(RichContent(text="Grüße, **Ada**\n.dot"), picture))
        extra = {"subject": "Über Lampen", "automatic": True, "list_unsubscribe": "https://shop.example/u?a"}
        result = await mine.send(message_to(ADA, content, about_ids=("q@x.example",), extra=extra))
    ((sender, recipients, data),) = postbox.letters
    assert (sender, recipients) == (HELP, [ADA])
    assert result.provider_message_id == result.reference
    read = email.message_from_bytes(data, policy=email.policy.default)
    assert read["subject"] == "Über Lampen"
    assert read["from"].addresses[0].display_name == "Shop"
    assert read["message-id"] == f"<{result.reference}>"
    assert str(result.reference).partition("@")[0] in read["reply-to"]
    assert read["in-reply-to"] == "<q@x.example>"
    assert read["references"].split()[-1] == "<q@x.example>"
    assert (read["auto-submitted"], read["x-auto-response-suppress"]) == ("auto-replied", "OOF, AutoReply")
    assert read["list-unsubscribe"] == "<https://shop.example/u?a>"
    assert read["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    plain, html = read.get_body(("plain",)), read.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().splitlines() == ["Grüße, **Ada**", ".dot"]
    assert "<b>Ada</b>" in html.get_content()
    (file,) = read.iter_attachments()
    assert (file.get_filename(), file.get_content()) == ("grün.png", base64.b64decode("iVBORw=="))


@pytest.mark.real_time
async def test_login_over_tls_and_no_password_without(tmp_path: Path):
    signed = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(signed))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed, tmp_path / "key.pem")

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(handled=False, success=data.login == b"shop" and data.password == b"right password")

    postbox = Postbox()
    more: dict[str, Any] = {
        "authenticator": check,
        "auth_required": True,
        "tls_context": context,
        "require_starttls": True,
    }
    login: dict[str, Any] = {"security": "starttls", "username": "shop"}
    async with server(postbox, **more) as port:
        good = made(port, tls=trusting, **login, password="right password", host="localhost")
        assert (await good.send(message_to(ADA))).success
        assert isinstance(
            await failing(port, tls=trusting, **login, password="wrong password", host="localhost"), Unauthorized
        )
        error = await failing(port, **login, password="right password", host="localhost")
        assert isinstance(error, Unavailable), "a certificate that nobody vouches for"
        assert not error.ambiguous
    async with server(postbox) as port:
        error = await failing(port, **login, password="right password")
        assert isinstance(error, Unavailable), "a server without STARTTLS gets no password"
    assert len(postbox.letters) == 1
    with pytest.raises(ConfigError, match="encrypted"):
        made(25, username="shop", password="a password")


@pytest.mark.real_time
@pytest.mark.parametrize(
    "step, answer, kind, retryable, code",
    [
        ("rcpt", "550 5.1.1 no such user", Refused, False, "5.1.1"),
        ("rcpt", "450 4.2.0 greylisted", Unavailable, True, "4.2.0"),
        ("rcpt", "452 4.2.2 mailbox full", Unavailable, True, "4.2.2"),
        ("mail", "421 4.7.0 too many connections", RateLimited, True, "4.7.0"),
        ("mail", "530 5.7.0 authentication required", Unauthorized, False, "5.7.0"),
        ("data", "554 5.7.1 spam", Refused, False, "5.7.1"),
        ("data", "451 4.3.0 later", Unavailable, True, "4.3.0"),
    ],
)
async def test_refusals_say_who_must_act(step: str, answer: str, kind: type[ProviderError], retryable: bool, code: str):
    postbox = Postbox()
    postbox.answers[step] = answer
    async with server(postbox) as port:
        error = await failing(port)
    assert (type(error), error.retryable, error.code, error.ambiguous) == (kind, retryable, code, False)


@pytest.mark.real_time
async def test_what_breaks_after_the_letter_is_ambiguous_and_before_it_is_not():
    postbox = Postbox()
    postbox.cut = True
    async with server(postbox) as port:
        error = await failing(port)
        assert isinstance(error, Unavailable)
        assert error.ambiguous
        postbox.cut, postbox.silent = False, True
        error = await failing(port, timeout_s=0.5)
        assert isinstance(error, ProviderTimeout)
        assert error.ambiguous
    assert len(postbox.letters) == 2, "both had been handed over"
    error = await failing(port)
    assert isinstance(error, Unavailable)
    assert not error.ambiguous
    async with server(postbox, data_size_limit=2_000) as port:
        assert (await failing(port, "x" * 3_000)).code == "too_large"


async def test_a_letter_that_would_smuggle_a_header_is_refused():
    for recipient in ("a@x.example\r\nBcc: b@y.example", "a@x.example, b@y.example", "a b@x.example", "@", "a@x@y"):
        assert (await failing(1, recipient=recipient)).code == "invalid_address"
    with pytest.raises(ConfigError):
        made(1, from_address="Shop <help@shop.example>\nBcc: x@y.example")
    evil = {"in_reply_to": "a@b>\r\nBcc: <x@y.example", "subject": "x"}
    with pytest.raises(Refused, match="message id"):
        await made(1).send(message_to(ADA, extra=evil))
    with pytest.raises(Refused, match="line break"):
        await made(1).send(message_to(ADA, extra={"list_unsubscribe": "https://x.example/\r\nBcc: x@y.example"}))


def test_configuration_errors_name_the_variables(monkeypatch: pytest.MonkeyPatch):
    for name in ("HOST", "PORT", "SECURITY", "USERNAME", "PASSWORD", "FROM", "REPLY_TO", "AUTHSERV", "WEBHOOK_SECRET"):
        monkeypatch.delenv(f"SMTP_{name}", raising=False)
    with pytest.raises(ConfigError, match="SMTP_HOST"):
        provider()
    monkeypatch.setenv("SMTP_HOST", "mail.shop.example")
    monkeypatch.setenv("SMTP_USERNAME", "shop")
    with pytest.raises(ConfigError, match="SMTP_PASSWORD"):
        provider()
    monkeypatch.setenv("SMTP_PASSWORD", "a planted password")
    monkeypatch.setenv("SMTP_AUTHSERV", "mx.shop.example, mx2.shop.example")
    found = provider()
    assert found.options.mail.trusted_servers == ("mx.shop.example", "mx2.shop.example")
    assert "planted" not in repr(found.options)
    for name, value in (("SMTP_PORT", "x"), ("SMTP_SECURITY", "ssl")):
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=name):
            provider()
        monkeypatch.delenv(name)


async def test_conformance_of_letters_that_are_posted():
    clock = VirtualClock()
    inbound = [
        posted(letter("hello é", subject="Lamp")),
        posted(letter("I am away", Auto_Submitted="auto-replied")),
        posted(bounce("rk" + "a" * 26 + "@shop.example")),
        posted(b"\xff\x00 no letter at all"),
        posted(b""),
    ]
    await check_message_provider(
        lambda: made(1, clock=clock),
        inbound=inbound,
        secrets=[SECRET],
        without_secret=lambda: made(1, clock=clock, webhook_secrets=()),
    )
    with pytest.raises(AccessDenied, match="no secret"):
        made(1, webhook_secrets=()).verify(inbound[0])
    with pytest.raises(ConfigError, match="SMTP_WEBHOOK_SECRET"):
        made(1, webhook_secrets=()).sign(inbound[0])


@ONCE
async def test_exactly_one_effect(tmp_path: Path):
    ours = "rk" + "a" * 26 + "@shop.example"
    letters = [
        letter("one"),
        letter(
            "two", sender="bob@y.example", Authentication_Results="mx.shop.example; dmarc=pass header.from=y.example"
        ),
        letter("I am away", Auto_Submitted="auto-replied"),
        bounce(ours),
        bounce(ours, action="delayed", status="4.4.1"),
        bounce("foreign@elsewhere.example"),
        b"no letter at all",
        *(path.read_bytes() for path in sorted((GOLDEN / "mail").glob("*.eml"))),
    ]
    await exactly_once(
        lambda clock: made(1, clock=clock),
        lambda cid, p: EmailChannel(cid, provider=p),
        [
            replace(posted(one), headers={"content-type": "message/rfc822", "webhook-id": str(n)})
            for n, one in enumerate(letters)
        ],
        folder=tmp_path,
    )


class Exchange:
    """Two kits that write to each other by real letters, without a network: each one's post is the other's mail."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.homes: dict[str, tuple[RoomKit, SMTPProvider]] = {}

    def join(self, address: str, *, headers: Callable[[bytes], bytes] = lambda data: data, **more: Any) -> RoomKit:
        kit = RoomKit(clock=VirtualClock())
        mine = made(1, clock=VirtualClock(), from_address=address, **more)

        async def hand_over(sender: str, recipient: str, data: bytes) -> str:
            self.sent.append((recipient, headers(data)))
            return "250 OK"

        mine._hand_over = hand_over  # type: ignore[method-assign] - the wire, not what is sent over it
        kit.register_channel(EmailChannel("email", provider=mine))

        @kit.on_message
        async def answer(ctx: Any, message: Any) -> str:
            return f"Thank you for your letter of {len(self.sent)}"

        self.homes[address] = (kit, mine)
        return kit

    async def deliver(self) -> int:
        """Brings the post until there is none, or too much of it; the number of letters."""
        for number in range(200):
            if number == len(self.sent):
                return number
            recipient, data = self.sent[number]
            kit, mine = self.homes[recipient]
            for item in mine.take(data, "email"):
                if isinstance(item, DeliveryStatus):
                    await kit.delivery_status(item)
                else:
                    await (await kit.process_inbound(item)).settled()
        return len(self.sent)


async def test_two_programs_that_answer_everything_end():
    post = Exchange()
    one, two = post.join("one@a.example"), post.join("two@b.example")
    async with one, two:
        await one.create_room("r", channels=[])
        await one.attach_channel("r", "email", metadata={"email_address": "two@b.example", "address": "two@b.example"})
        await (await one.send("r", "Good morning")).settled()
        assert await post.deliver() == 2, "the answer of a program is answered by nobody"
        events = [e for e in await one.events("r") if e.source.channel_id == "email"]
        assert [(e.visibility, e.metadata["automatic"]) for e in events] == [("internal", "auto-replied")]


async def test_a_program_that_does_not_say_so_is_answered_only_so_often():
    def silent(data: bytes) -> bytes:
        return b"\r\n".join(line for line in data.split(b"\r\n") if not line.startswith((b"Auto-", b"X-Auto")))

    post = Exchange()
    one = post.join("one@a.example", headers=silent, loop_limit=5)
    two = post.join("two@b.example", headers=silent, loop_limit=1000)
    async with one, two:
        await one.create_room("r", channels=["app"])
        await one.attach_channel("r", "email", metadata={"email_address": "two@b.example", "address": "two@b.example"})
        await (await one.send("r", "Good morning")).settled()
        assert await post.deliver() < 20, "it would go on for ever"
        failed = [d for d in await one.deliveries("r", 0, 100) if d.state is DeliveryState.FAILED]
        assert [d.reason for d in failed] != []
        assert "program answers ours" in str(failed[0].reason)


async def test_a_bounce_fails_the_letter_and_a_receipt_reads_it():
    kit = RoomKit(clock=VirtualClock())
    post = Exchange()
    kit = post.join(HELP)
    mine = post.homes[HELP][1]
    async with kit:
        for name in ("lost", "late", "read"):
            await kit.create_room(name, channels=[])
            await kit.attach_channel(name, "email", metadata={"email_address": ADA, "address": ADA})
            await (await kit.send(name, "hello")).settled()
        ids = [email.message_from_bytes(data)["message-id"].strip("<>") for _, data in post.sent]
        reports = [
            bounce(ids[0], status="5.1.1", reason="550 no such user"),
            bounce(ids[1], action="delayed", status="4.4.1"),
            letter(
                "",
                subject="Read",
                kind='multipart/report; report-type=disposition-notification; boundary="b"',
                body=(
                    f"--b\r\nContent-Type: message/disposition-notification\r\n\r\nOriginal-Message-ID: <{ids[2]}>\r\n"
                    "Disposition: manual-action/MDN-sent-manually; displayed\r\n--b--\r\n"
                ),
            ),
        ]
        for report in reports:
            (status,) = mine.take(report, "email")
            assert isinstance(status, DeliveryStatus)
            await kit.delivery_status(status)
        found = {name: (await kit.deliveries(name))[0] for name in ("lost", "late", "read")}
        assert [one.state for one in found.values()] == [DeliveryState.FAILED, DeliveryState.SENT, DeliveryState.READ]
        assert found["lost"].reason == "550 no such user"
        assert len(await kit.list_rooms()) == 3, "no room for the mail daemon"
        # One about a letter of somebody else's is seen by staff, under the address it names.
        (item,) = mine.take(bounce("foreign@elsewhere.example"), "email")
        assert isinstance(item, InboundMessage)
        assert (item.sender_id, item.visibility, item.addressed_to) == (ADA, "internal", ())


async def test_a_forged_sender_gets_nothing_of_a_proven_one():
    post = Exchange()
    kit = post.join(HELP)
    mine = post.homes[HELP][1]
    proven = "mx.shop.example; dmarc=pass header.from=x.example"
    async with kit:
        (first,) = mine.take(letter("my order?", Authentication_Results=proven), "email")
        assert isinstance(first, InboundMessage)
        result = await kit.process_inbound(first)
        await result.settled()
        ours = email.message_from_bytes(post.sent[0][1])["message-id"]
        # The id of our answer, and her address; but no server that we trust has vouched for it.
        for claim in (
            {},
            {"Authentication_Results": "evil.example; dmarc=pass header.from=x.example"},
            {"Authentication_Results": f"{OURS} dmarc=fail header.from=x.example; dkim=pass header.d=x.example"},
            {"Authentication_Results": "mx.shop.example; dmarc=pass header.from=evil.example"},
            {"Authentication_Results": f"{OURS} dkim=pass header.d=evil.example; spf=pass smtp.mailfrom=evil.example"},
        ):
            (forged,) = mine.take(letter("send it to me instead", In_Reply_To=ours, **claim), "email")
            assert isinstance(forged, InboundMessage)
            other = await kit.process_inbound(forged)
            await other.settled()
            assert other.room_id != result.room_id, claim
        (again,) = mine.take(letter("thanks", In_Reply_To=ours, Authentication_Results=proven), "email")
        assert isinstance(again, InboundMessage)
        assert (await kit.process_inbound(again)).room_id == result.room_id


async def test_files_of_a_room_go_out_as_files_and_come_in_as_files():
    post = Exchange()
    one, two = post.join("one@a.example"), post.join("two@b.example")
    async with one, two:
        await one.create_room("r", channels=[])
        await one.attach_channel("r", "email", metadata={"email_address": "two@b.example", "address": "two@b.example"})

        async def chunks() -> AsyncIterator[bytes]:
            yield b"\x89PNG\r\n\x1a\n" + bytes(range(256))

        info = await one.blobs.put("default", chunks(), mime_type="image/png", filename="lamp.png", room_id="r")
        picture = MediaContent(url=f"blob:{info.id}", mime_type="image/png", filename="lamp.png")
        await (await one.send("r", CompositeContent(parts=(TextContent(text="Look"), picture)))).settled()
        await post.deliver()
        (room,) = await two.list_rooms()
        (event,) = [e for e in await two.events(room.id) if e.source.channel_id == "email"]
        assert isinstance(event.content, CompositeContent)
        got = event.content.parts[1]
        assert isinstance(got, MediaContent)
        assert got.url.startswith("blob:")
        data = b"".join([chunk async for chunk in two.blobs.read("default", got.url.removeprefix("blob:"))])
        assert (got.filename, data) == ("lamp.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)))


async def test_a_file_that_is_not_taken_in_leaves_its_name_and_no_bytes():
    post = Exchange()
    kit = post.join(HELP)
    part = 'Content-Type: application/x-msdownload; name="a.exe"\r\n\r\nMZ' + "x" * 5_000
    body = f"--b\r\nContent-Type: text/plain\r\n\r\nRun it\r\n--b\r\n{part}\r\n--b--\r\n"
    async with kit:
        (item,) = post.homes[HELP][1].take(letter("", kind='multipart/mixed; boundary="b"', body=body), "email")
        assert isinstance(item, InboundMessage)
        result = await kit.process_inbound(item)
        assert result.event is not None
        assert isinstance(result.event.content, CompositeContent)
        file = result.event.content.parts[1]
        assert isinstance(file, MediaContent)
        assert (file.filename, file.url, result.event.metadata["not_fetched"]) == ("a.exe", "about:blank", 1)
        assert len(result.event.model_dump_json()) < 3_000


async def test_a_letter_of_two_senders_proves_neither():
    mine = made(1)
    proven = f"{OURS} dmarc=pass header.from=x.example"
    (one,) = mine.take(letter("x", Authentication_Results=proven), "email")
    (two,) = mine.take(letter("x", sender=f"{ADA}, eve@z.example", Authentication_Results=proven), "email")
    assert isinstance(one, InboundMessage)
    assert isinstance(two, InboundMessage)
    assert (one.assurance, two.assurance) == ("verified", "claimed")


async def test_an_answer_whose_program_dropped_everything_but_the_subject_finds_its_room():
    post = Exchange()
    kit = post.join(HELP, subject_mark=True)
    mine = post.homes[HELP][1]
    async with kit:
        for room in ("lamp", "bill"):
            await kit.create_room(room, channels=[])
            await kit.attach_channel(room, "email", metadata={"email_address": "Ada@X.example", "subject": room})
            await (await kit.send(room, "hello")).settled()
        subject = email.message_from_bytes(post.sent[0][1], policy=email.policy.default)["subject"]
        assert subject.startswith("lamp [#rk")
        (item,) = mine.take(letter("yes", subject=f"Antw: {subject.upper()}"), "email")
        assert isinstance(item, InboundMessage)
        result = await kit.process_inbound(item)
        assert result.room_id == "lamp"
        (other,) = mine.take(letter("yes", subject=f"Antw: {subject}", sender="eve@z.example"), "email")
        assert isinstance(other, InboundMessage)
        assert (await kit.process_inbound(other)).room_id not in {"lamp", "bill"}


async def test_a_large_letter_comes_through_the_door_and_is_read_elsewhere():
    clock = VirtualClock()
    mine = made(1, clock=clock)
    kit = RoomKit(clock=clock)
    kit.register_channel(EmailChannel("email", provider=mine))
    picture = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 12_000
    data = base64.encodebytes(picture).decode().replace("\n", "\r\n")
    part = f"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n{data}"
    body = f"--b\r\nContent-Type: text/plain\r\n\r\nLook\r\n--b\r\n{part}\r\n--b--\r\n"
    big = letter("", kind='multipart/mixed; boundary="b"', body=body)
    assert len(big) > 4_000_000
    async with house(kit, public_url="https://rooms.example") as h:
        signed = mine.sign(posted(big))
        for _ in range(2):
            answer = await h.http.post("/webhooks/email", content=signed.body, headers=dict(signed.headers))
            assert answer.status_code == 200
        (room,) = await kit.list_rooms()
        (event,) = [e for e in await kit.events(room.id) if e.source.channel_id == "email"]
        assert isinstance(event.content, CompositeContent)
        file = event.content.parts[1]
        assert isinstance(file, MediaContent)
        stored = [chunk async for chunk in kit.blobs.read("default", file.url.removeprefix("blob:"))]
        assert b"".join(stored) == picture
        too_large = await h.http.post("/webhooks/email", content=b"x" * (41 * 2**20))
        assert too_large.status_code == 413


async def test_a_room_begun_for_a_proven_address_is_closed_to_a_claim():
    post = Exchange()
    kit = post.join(HELP)
    mine = post.homes[HELP][1]
    async with kit:
        await kit.create_room("bill", channels=[])
        await kit.attach_channel("bill", "email", metadata={"email_address": ADA}, assurance=Assurance.VERIFIED)
        await (await kit.send("bill", "Here is your bill")).settled()
        ours = email.message_from_bytes(post.sent[0][1])["message-id"]
        for more, there in (
            ({}, False),
            ({"Authentication_Results": f"{OURS} dmarc=pass header.from=x.example"}, True),
        ):
            (item,) = mine.take(letter("thanks", In_Reply_To=ours, **more), "email")
            assert isinstance(item, InboundMessage)
            assert ((await kit.process_inbound(item)).room_id == "bill") is there
