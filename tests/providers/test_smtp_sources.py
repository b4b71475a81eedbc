"""Mailboxes of a real IMAP server, and a mail server that hands over by LMTP."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roomkit import RoomKit
from roomkit.channels import EmailChannel
from roomkit.errors import ProviderError, Unauthorized, Unavailable, UsageError
from roomkit.models.delivery import DeliveryStatus, InboundMessage
from roomkit.models.hooks import Committed
from roomkit.providers.mail import MailSettings
from roomkit.providers.smtp.email import SMTPOptions, SMTPProvider
from roomkit.providers.smtp.imap import IMAPOptions, IMAPSource
from roomkit.providers.smtp.lmtp import LMTPOptions, LMTPSource
from tests.providers.letters import ADA, HELP, bounce, letter
from tests.providers.mailbox import PASSWORD, Mailbox, mailbox

pytestmark = pytest.mark.real_time


@pytest.fixture(scope="module")
def server() -> Iterator[Mailbox]:
    with mailbox() as one:
        yield one


def channel() -> Any:
    options = SMTPOptions("127.0.0.1", MailSettings(from_address=HELP), security="none")
    return EmailChannel("email", provider=SMTPProvider(options))


def options(server: Mailbox, user: str, **more: Any) -> IMAPOptions:
    values: dict[str, Any] = {"password": PASSWORD, "port": server.port, "security": "none", "poll_s": 0.05}
    return IMAPOptions("127.0.0.1", user, **{**values, **more})


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.02)


async def texts(kit: RoomKit) -> list[str]:
    found: list[tuple[Any, str]] = []
    for room in await kit.list_rooms():
        found += [(e.created_at, e.text) for e in await kit.events(room.id) if e.source.channel_id == "email"]
    return [text for _, text in sorted(found)]


async def test_letters_of_a_mailbox_come_once_each_across_restarts_and_new_numbers(server: Mailbox, tmp_path: Path):
    store = f"sqlite:///{tmp_path / 'rooms.db'}"
    server.put(letter("before we were there"), "one")

    async def run(*put: bytes, expect: int) -> list[str]:
        kit = RoomKit(store)
        email = channel()
        kit.register_channel(email)
        async with kit:
            handle = await kit.attach_source(IMAPSource(email, options(server, "one")))
            await until(lambda: handle.health.connected)
            await asyncio.sleep(0.3)
            for one in put:
                server.put(one, "one")
            await until(lambda: handle.health.messages >= expect)
            await asyncio.sleep(0.3)
            await handle.aclose()
            return await texts(kit)

    again = letter("twice in the box")
    assert await run(letter("hello"), again, again, expect=3) == ["hello", "twice in the box"]
    server.put(letter("while we were away"), "one")
    assert (await run(expect=1))[2:] == ["while we were away"]
    server.number_anew("one")
    # What may have come meanwhile is looked at again: so the oldest, which we had never taken, comes too.
    found = await run(letter("after the restore"), expect=6)
    assert found[3:] == ["before we were there", "after the restore"]


async def test_idle_hears_at_once_and_ends_at_once(server: Mailbox):
    kit = RoomKit()
    email = channel()
    kit.register_channel(email)
    async with kit:
        source = IMAPSource(email, options(server, "two", idle_s=60, from_start=True, mark_seen=True))
        handle = await kit.attach_source(source)
        await until(lambda: handle.health.connected)
        server.put(letter("a question"), "two")
        server.put(bounce("rk" + "a" * 26 + "@shop.example"), "two")
        await until(lambda: handle.health.messages == 2)
        await until(lambda: sum(one.name.endswith("S") for one in (server.folder / "mail/two/cur").iterdir()) == 2)
        async with asyncio.timeout(2):
            await handle.aclose()
        assert await texts(kit) == ["a question"], "the bounce is news of a delivery"


async def test_a_letter_that_is_announced_under_another_command_does_not_wait(server: Mailbox):
    kit = RoomKit()
    email = channel()
    kit.register_channel(email)

    @kit.on(Committed)
    async def another(committed: Committed) -> None:
        if committed.event.text == "first":
            server.put(letter("second"), "eight")  # The server tells of it while the first is marked as read.

    async with kit:
        source = IMAPSource(email, options(server, "eight", idle_s=60, from_start=True, mark_seen=True))
        handle = await kit.attach_source(source)
        await until(lambda: handle.health.connected)
        server.put(letter("first"), "eight")
        await until(lambda: handle.health.messages == 2)
        await handle.aclose()
        assert await texts(kit) == ["first", "second"]


async def test_a_mailbox_without_idle_is_looked_at(server: Mailbox):
    kit = RoomKit()
    email = channel()
    kit.register_channel(email)
    async with kit:
        handle = await kit.attach_source(IMAPSource(email, options(server, "three", idle=False, from_start=True)))
        await until(lambda: handle.health.connected)
        await asyncio.sleep(0.1)
        server.put(letter("a question"), "three")
        server.put(letter("x" * 5_000, subject="a large one"), "three")
        await until(lambda: handle.health.messages == 2)
        await handle.aclose()
        assert await texts(kit) == ["a question", "x" * 5_000]


async def test_a_letter_that_is_too_large_comes_as_its_headers(server: Mailbox):
    kit = RoomKit()
    email = channel()
    kit.register_channel(email)
    async with kit:
        server.put(letter("x" * 50_000, subject="a large one"), "four")
        handle = await kit.attach_source(IMAPSource(email, options(server, "four", max_bytes=10_000, from_start=True)))
        await until(lambda: handle.health.messages == 1)
        await handle.aclose()
        assert await texts(kit) == ["a large one"]


async def test_over_tls_and_only_with_a_certificate_that_somebody_vouches_for(server: Mailbox):
    trusting = ssl.create_default_context(cafile=str(server.folder / "cert.pem"))
    server.put(letter("a question"), "six")
    for security, port in (("tls", server.tls_port), ("starttls", server.port)):
        settings = IMAPOptions("localhost", "six", PASSWORD, port=port, security=security, from_start=True)
        kit = RoomKit()
        email = channel()
        kit.register_channel(email)
        async with kit:
            handle = await kit.attach_source(IMAPSource(email, settings, tls=trusting))
            await until(lambda handle=handle: handle.health.messages == 1)
            await handle.aclose()
            with pytest.raises(Unavailable, match=r"(?i)certificate"):
                await IMAPSource(email, settings).run(lambda _: asyncio.sleep(0), lambda: None)


async def test_what_goes_wrong_is_told_as_ours(server: Mailbox):
    async def failing(**more: Any) -> ProviderError:
        email = channel()
        RoomKit().register_channel(email)
        source = IMAPSource(email, options(server, "five", **more))

        async def emit(_: InboundMessage | DeliveryStatus) -> None:
            raise AssertionError("nothing can have come")

        with pytest.raises(ProviderError) as caught:
            await source.run(emit, lambda: None)
        return caught.value

    assert isinstance(await failing(password="a wrong password"), Unauthorized)
    assert isinstance(await failing(port=1), Unavailable)
    assert isinstance(await failing(folder="No such folder"), Unavailable)
    source = IMAPSource(channel(), options(server, "five"))
    with pytest.raises(UsageError, match="register the channel"):
        await source.run(lambda _: asyncio.sleep(0), lambda: None)
    with pytest.raises(UsageError, match="encrypted"):
        IMAPSource(channel(), IMAPOptions("imap.shop.example", "help", "a password", security="none"))
    with pytest.raises(UsageError, match="password"):
        IMAPSource(channel(), IMAPOptions("imap.shop.example", "help"))
    assert "wrong" not in repr(options(server, "five", password="a wrong password"))


async def in_thread(fn: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def work() -> None:
        try:
            result: Any = fn()
        except Exception as error:
            result = error
        loop.call_soon_threadsafe(done.set_result, result)

    threading.Thread(target=work).start()
    return await done


async def test_a_mail_server_hands_over_and_hears_of_each_letter(tmp_path: Path):
    kit = RoomKit()
    email = channel()
    kit.register_channel(email)
    async with kit:
        path = str(tmp_path / "lmtp.sock")
        source = LMTPSource(email, LMTPOptions(path=path))
        handle = await kit.attach_source(source)
        await until(lambda: handle.health.connected)

        def post() -> Any:
            with smtplib.LMTP(path) as line:
                line.sendmail(ADA, [HELP], letter("hello"))
                line.sendmail("", [HELP], letter("I am away", subject="x"))
                line.mail(ADA)
                return line.rcpt(HELP)[0], line.rcpt("other@shop.example")[0]

        assert await in_thread(post) == (250, 452), "one recipient at a time"
        assert await texts(kit) == ["hello", "I am away"]
        (room,) = await kit.list_rooms()
        found = [e for e in await kit.events(room.id) if e.source.channel_id == "email"]
        assert [e.metadata.get("automatic") for e in found] == [None, "daemon"], "a bounce has no sender to answer"
        await handle.aclose()

        def nobody() -> Any:
            smtplib.LMTP(path)

        assert isinstance(await in_thread(nobody), OSError)
        precious = tmp_path / "precious"
        precious.write_text("a file, no socket")
        with pytest.raises(Unavailable, match="cannot listen"):
            await LMTPSource(email, LMTPOptions(path=str(precious))).run(lambda _: asyncio.sleep(0), lambda: None)
        assert precious.read_text() == "a file, no socket"


async def test_a_letter_that_is_not_taken_is_not_acknowledged():
    email = channel()
    RoomKit().register_channel(email)
    source = LMTPSource(email, LMTPOptions(port=0))
    taken: list[Any] = []

    async def emit(item: InboundMessage | DeliveryStatus) -> bool:
        taken.append(item)
        return len(taken) > 1

    up = asyncio.Event()
    running = asyncio.ensure_future(source.run(emit, up.set))
    await up.wait()

    def post() -> Any:
        with smtplib.LMTP(*source.address) as line:
            try:
                line.sendmail(ADA, [HELP], letter("hello"))
            except smtplib.SMTPDataError as error:
                return error.smtp_code, line.sendmail(ADA, [HELP], letter("hello"))

    assert await in_thread(post) == (451, {})
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [one.external_id for one in taken] != []
    with pytest.raises(UsageError, match="allow_network"):
        LMTPSource(email, LMTPOptions(host="0.0.0.0"))


async def test_a_letter_whose_place_was_not_kept_is_read_again_and_taken_once(server: Mailbox, tmp_path: Path):
    """As after a crash between the commit of a letter and the note of how far the mailbox was read."""
    kit = RoomKit(f"sqlite:///{tmp_path / 'rooms.db'}")
    email = channel()
    kit.register_channel(email)
    results: list[Any] = []
    async with kit:
        vault = email.port.vault

        class Forgetful:
            get = vault.get
            left = 1

            async def put(self, name: str, value: dict[str, Any]) -> None:
                if value["uid"] and self.left:
                    self.left -= 1
                    raise Unavailable("test", "the process ends here")
                await vault.put(name, value)

        class Port:
            vault = Forgetful()

        class Seen:
            channel_id, provider, port = email.channel_id, email.provider, Port()

        async def emit(item: InboundMessage | DeliveryStatus) -> None:
            assert isinstance(item, InboundMessage)
            results.append(await kit.process_inbound(item))

        server.put(letter("hello"), "seven")
        source = IMAPSource(Seen(), options(server, "seven", from_start=True))
        with pytest.raises(Unavailable, match="ends here"):
            await source.run(emit, lambda: None)
        again = asyncio.ensure_future(source.run(emit, lambda: None))
        await until(lambda: len(results) == 2)
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        assert [result.duplicate for result in results] == [False, True]
        assert await texts(kit) == ["hello"]
