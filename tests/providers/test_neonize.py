"""The adapter for personal WhatsApp accounts, held to neonize's own messages and signatures. Never live: WhatsApp has
no place for tests, and ends accounts that it takes for programs."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx2
import pytest

from roomkit import RoomKit
from roomkit.channels import WhatsAppPersonalChannel
from roomkit.errors import AccessDenied, ConfigError, MissingExtra, ProviderTimeout, Refused, Unavailable
from roomkit.models.content import (
    AudioContent,
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    ReactionContent,
    TextContent,
    UnknownContent,
    VideoContent,
)
from roomkit.models.delivery import DeliveryState, WebhookRequest
from roomkit.models.event import EventType
from roomkit.net import FetchPolicy
from roomkit.providers.neonize.inbound import read, receipts
from roomkit.providers.neonize.source import NeonizeSource
from roomkit.providers.neonize.whatsapp_personal import NeonizeOptions, WhatsAppPersonalProvider, provider
from roomkit.providers.neonize.wire import NeonizeWire
from roomkit.testing import VirtualClock
from roomkit.testing.messages import message_to
from tests.providers.vendor_calls import public

FOLDER = Path(__file__).parents[2] / ".venv" / "neonize"
pytestmark = pytest.mark.skipif(not (FOLDER / "neonize").exists(), reason="neonize is missing: run .ci/neonize")
ANN, ME = "4915112345", "4930999"


@cache
def signatures() -> dict[str, inspect.Signature]:
    """What neonize's client can do, as its source says: its library is not loaded."""
    source = ast.parse((FOLDER / "neonize" / "aioze" / "client.py").read_text("utf-8"))
    (client,) = [one for one in source.body if isinstance(one, ast.ClassDef) and one.name == "NewAClient"]
    found: dict[str, inspect.Signature] = {}
    for method in client.body:
        if isinstance(method, ast.AsyncFunctionDef | ast.FunctionDef):
            space: dict[str, Any] = {}
            arguments = ast.unparse(_bare(method.args))
            exec(f"def f({arguments}): ...", space)
            found[method.name] = inspect.signature(space["f"])
    return found


def _bare(arguments: ast.arguments) -> ast.arguments:
    for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if one is not None:
            one.annotation = None
    arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
    arguments.kw_defaults = [one and ast.Constant(None) for one in arguments.kw_defaults]
    return arguments


class Client:
    """Takes calls as `NewAClient` does: what its signatures do not know is a `TypeError`."""

    made: list[Client] = []
    fail: Exception | None = None
    slow = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        signatures()["__init__"].bind(self, *args, **kwargs)
        self.listeners: dict[str, Any] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.event = _Events(self)
        self.stopped = False
        Client.made.append(self)

    def __getattr__(self, name: str) -> Any:
        signature = signatures()[name]

        async def call(*args: Any, **kwargs: Any) -> Any:
            bound = dict(signature.bind(self, *args, **kwargs).arguments)
            self.calls.append((name, bound))
            if Client.slow:
                await asyncio.sleep(1e6)
            if Client.fail is not None:
                raise Client.fail
            return self.answer(name, bound)

        return call

    def answer(self, name: str, bound: dict[str, Any]) -> Any:
        from neonize.proto import Neonize_pb2 as types

        match name:
            case "get_me":
                return types.Device(JID=jid(ME))
            case "build_reaction":
                return type(types.Message().Message)(reactionMessage={"text": bound["reaction"]})
            case "download_any":
                return b"decrypted"
            case "stop":
                self.stopped = True
                return None
            case "connect" | "send_chat_presence":
                return None
            case _:
                return types.SendResponse(ID=f"3EB0{len(self.calls)}")


class _Events:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.qr_shown: Any = None

    def __call__(self, kind: Any) -> Any:
        def register(listener: Any) -> None:
            self.client.listeners[kind.__name__] = listener

        return register

    def qr(self, shown: Any) -> None:
        self.qr_shown = shown


@pytest.fixture(autouse=True)
def neonize() -> Iterator[None]:
    """neonize without its library: its messages are real, its client is the one above."""
    before = {name for name in sys.modules if name.partition(".")[0] == "neonize"}
    path = list(sys.path)
    for name in ("neonize", "neonize.aioze", "neonize.utils"):
        module = ModuleType(name)
        module.__path__ = [str(FOLDER.joinpath(*name.split(".")))]
        sys.modules[name] = module
    client = ModuleType("neonize.aioze.client")
    client.NewAClient = Client  # type: ignore[attr-defined]
    sys.modules["neonize.aioze.client"] = client
    sys.modules["neonize.aioze"].client = client  # type: ignore[attr-defined]
    Client.made, Client.fail, Client.slow = [], None, False
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "neonize" and name not in before]:
        if not name.startswith("neonize.proto"):  # their messages are registered once for a process
            del sys.modules[name]


def jid(user: str, server: str = "s.whatsapp.net") -> Any:
    from neonize.proto import Neonize_pb2 as types

    return types.JID(User=user, Server=server, RawAgent=0, Device=0, Integrator=0, IsEmpty=False)


def event(message: dict[str, Any], ident: str = "A1", **source: Any) -> Any:
    """A message event of neonize's own."""
    from neonize.proto import Neonize_pb2 as types

    where = {"Chat": jid(ANN), "Sender": jid(ANN), "IsFromMe": False, "IsGroup": False, **source}
    info = {"MessageSource": types.MessageSource(**where), "ID": ident, "Pushname": "Ann", "Timestamp": 1893456000}
    made = types.Message(Info=types.MessageInfo(**info, Type="text"))
    made.Message.MergeFrom(type(made.Message)(**message))
    return made


def receipt(kind: int, *idents: str) -> Any:
    from neonize.proto import Neonize_pb2 as types

    source = types.MessageSource(Chat=jid(ANN), Sender=jid(ANN), IsFromMe=False, IsGroup=False)
    return types.Receipt(MessageSource=source, MessageIDs=list(idents), Timestamp=1893456000, Type=kind)


# -- in -------------------------------------------------------------------------------------------------------------

KEY = {"ID": "A1", "fromMe": False, "remoteJID": f"{ANN}@s.whatsapp.net"}
SAID: dict[str, tuple[dict[str, Any], Content | None]] = {
    "text": ({"conversation": "hi"}, TextContent(text="hi")),
    "longer text": (
        {"extendedTextMessage": {"text": "see https://x.example"}},
        TextContent(text="see https://x.example"),
    ),
    "wrapped": ({"ephemeralMessage": {"message": {"conversation": "gone soon"}}}, TextContent(text="gone soon")),
    "picture": (
        {"imageMessage": {"mimetype": "image/jpeg", "caption": "look", "fileLength": 9}},
        MediaContent(url="whatsapp-media:A1", mime_type="image/jpeg", caption="look", size_bytes=9),
    ),
    "seen once": (
        {"viewOnceMessageV2": {"message": {"videoMessage": {"mimetype": "video/mp4"}}}},
        VideoContent(url="whatsapp-media:A1", mime_type="video/mp4"),
    ),
    "voice": (
        {"audioMessage": {"mimetype": "audio/ogg; codecs=opus", "seconds": 3, "PTT": True}},
        AudioContent(url="whatsapp-media:A1", mime_type="audio/ogg", duration_ms=3000),
    ),
    "document": (
        {
            "documentWithCaptionMessage": {
                "message": {"documentMessage": {"mimetype": "application/pdf", "fileName": "a.pdf"}}
            }
        },
        MediaContent(url="whatsapp-media:A1", mime_type="application/pdf", filename="a.pdf"),
    ),
    "place": (
        {"locationMessage": {"degreesLatitude": 1.5, "degreesLongitude": 2.5, "name": "Shop"}},
        LocationContent(latitude=1.5, longitude=2.5, label="Shop"),
    ),
    "button": (
        {"buttonsResponseMessage": {"selectedDisplayText": "Yes", "selectedButtonID": "y"}},
        TextContent(text="Yes"),
    ),
    "list": ({"listResponseMessage": {"title": "Large"}}, TextContent(text="Large")),
    "contact": (
        {"contactMessage": {"displayName": "Ben", "vcard": "x"}},
        UnknownContent(kind="contactMessage", text="Ben"),
    ),
    "poll": ({"pollCreationMessage": {"name": "When?"}}, UnknownContent(kind="pollCreationMessage")),
    "reaction": ({"reactionMessage": {"key": KEY, "text": "👍"}}, ReactionContent(target_event_id="A1", emoji="👍")),
    "reaction taken back": (
        {"reactionMessage": {"key": KEY, "text": ""}},
        ReactionContent(target_event_id="A1", emoji="?", removed=True),
    ),
    "deletion": ({"protocolMessage": {"key": KEY, "type": 0}}, DeleteContent(target_event_id="A1")),
    "edit": (
        {
            "editedMessage": {
                "message": {"protocolMessage": {"key": KEY, "type": 14, "editedMessage": {"conversation": "ho"}}}
            }
        },
        EditContent(target_event_id="A1", new_content=TextContent(text="ho")),
    ),
    "settings": ({"protocolMessage": {"type": 3, "ephemeralExpiration": 60}}, None),
    "keys": ({"senderKeyDistributionMessage": {"groupID": "g"}}, None),
    "nothing": ({}, UnknownContent(kind="unknown")),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_is_read(name: str) -> None:
    message, expected = SAID[name]
    found = read(event(message), "wa")
    assert [one.content for one in found] == ([] if expected is None else [expected])
    for one in found:
        assert (one.external_id, one.sender_id, one.conversation_id) == (f"+{ANN}:A1", f"+{ANN}", f"+{ANN}")
        assert one.sender_name == "Ann"
        acts = isinstance(expected, ReactionContent | DeleteContent | EditContent)
        assert one.about_id == (f"+{ANN}:A1" if acts else None)


def test_who_says_it_and_where() -> None:
    group, hidden = jid("123-456", "g.us"), jid("987654", "lid")
    (said,) = read(event({"conversation": "x"}, Chat=group, IsGroup=True), "wa")
    assert (said.sender_id, said.conversation_id, said.group) == (f"+{ANN}", "123-456@g.us", True)
    (said,) = read(event({"conversation": "x"}, Chat=hidden, Sender=hidden, SenderAlt=jid(ANN)), "wa")
    assert (said.sender_id, said.conversation_id) == (f"+{ANN}", f"+{ANN}"), "the number that the id hides"
    (said,) = read(event({"conversation": "x"}, Chat=hidden, Sender=hidden), "wa")
    assert said.sender_id == "987654@lid"
    (said,) = read(event({"conversation": "x"}, Sender=jid(ME), IsFromMe=True), "wa")
    assert (said.sender_id, said.conversation_id, said.addressed_to) == (f"+{ME}", f"+{ANN}", ())
    (said,) = read(event({"extendedTextMessage": {"text": "yes", "contextInfo": {"stanzaID": "B2"}}}), "wa")
    assert said.about_id == f"+{ANN}:B2", "an answer"


def test_receipts_are_states_that_move_forward() -> None:
    told = [(one.provider_message_id, one.state) for one in receipts(receipt(1, "X", "Y"), "wa")]
    assert told == [(f"+{ANN}:X", DeliveryState.DELIVERED), (f"+{ANN}:Y", DeliveryState.DELIVERED)]
    assert [one.state for one in receipts(receipt(4, "X"), "wa")] == [DeliveryState.READ]
    assert [one.state for kind in (2, 3, 5, 8, 11) for one in receipts(receipt(kind, "X"), "wa")] == []


# -- out, through neonize's own signatures --------------------------------------------------------------------------


async def linked(transport: Any = None, **options: Any) -> tuple[WhatsAppPersonalProvider, Client]:
    made = WhatsAppPersonalProvider(NeonizeOptions(**options), transport=transport, resolver=public)

    async def ignore(kind: str, event: Any) -> None: ...

    await made.wire.connect(ignore, None)
    return made, Client.made[-1]


async def test_everything_that_is_sent_fits_the_client() -> None:
    whatsapp, client = await linked(httpx2.MockTransport(lambda _: httpx2.Response(200, content=b"data")))
    kinds = {"image/png": "send_image", "video/mp4": "send_video", "application/pdf": "send_document"}
    files: list[Content] = [MediaContent(url="https://x.example/f", mime_type=mime, filename="f") for mime in kinds]
    voice = AudioContent(url="https://x.example/f", mime_type="audio/ogg")
    place = LocationContent(latitude=1, longitude=2, label="Shop")
    for content in (TextContent(text="hi @4915"), *files, voice, place):
        result = await whatsapp.send(message_to(f"+{ANN}", content))
        assert (result.provider_message_id or "").startswith(f"+{ANN}:3EB0")
    names = [name for name, _ in client.calls if name != "connect"]
    assert names == ["send_message", *kinds.values(), "send_audio", "send_message"]
    said = dict(client.calls[1][1])
    assert (said["to"].User, said["to"].Server, said["message"].conversation) == (ANN, "s.whatsapp.net", "hi @4915")
    assert client.calls[2][1]["file"] == b"data"
    assert client.calls[-1][1]["message"].locationMessage.name == "Shop"


async def test_typing_has_the_numbers_of_neonizes_own_enums() -> None:
    whatsapp, client = await linked()
    await whatsapp.wire.typing(f"+{ANN}")
    _, bound = client.calls[-1]
    source = ast.parse((FOLDER / "neonize" / "utils" / "enum.py").read_text("utf-8"))
    numbers = {
        ast.unparse(one.targets[0]): ast.literal_eval(one.value)
        for kind in source.body
        if isinstance(kind, ast.ClassDef) and kind.name in ("ChatPresence", "ChatPresenceMedia")
        for one in kind.body
        if isinstance(one, ast.Assign)
    }
    assert bound["state"].value == numbers["CHAT_PRESENCE_COMPOSING"]
    assert bound["media"].value == numbers["CHAT_PRESENCE_MEDIA_TEXT"]


async def test_edits_deletions_and_reactions() -> None:
    whatsapp, client = await linked()
    sent = (await whatsapp.send(message_to(f"+{ANN}", "one"))).provider_message_id or ""
    edit = EditContent(target_event_id="e", new_content=TextContent(text="new"))
    await whatsapp.send(message_to(f"+{ANN}", edit, about_ids=(sent, f"+{ANN}:B2")))
    await whatsapp.send(message_to(f"+{ANN}", DeleteContent(target_event_id="e"), about_ids=(sent,)))
    like = ReactionContent(target_event_id="e", emoji="👍")
    for about in (f"+{ANN}:C3", sent):
        await whatsapp.send(message_to(f"+{ANN}", like, about_ids=(about,)))
    calls = dict(client.calls)
    assert (calls["edit_message"]["message_id"], calls["edit_message"]["new_message"].conversation) == (
        sent.rpartition(":")[2],
        "new",
    )
    assert calls["revoke_message"]["sender"].User == ME
    authors = [bound["sender"].User for name, bound in client.calls if name == "build_reaction"]
    assert authors == [ANN, ME]
    group = await whatsapp.send(message_to("1-2@g.us", like, about_ids=("1-2@g.us:C3",)))
    assert group.state is DeliveryState.SKIPPED


async def test_what_goes_wrong_is_told() -> None:
    whatsapp, client = await linked(timeout_s=5)
    for recipient in ("", "ann", "+49 151"):
        with pytest.raises(Refused, match="no phone number"):
            await whatsapp.send(message_to(recipient, "x"))
    with pytest.raises(Refused, match="neither text nor media"):
        await whatsapp.send(message_to(f"+{ANN}", UnknownContent(kind="poll")))
    Client.fail = type("SendMessageError", (Exception,), {"__module__": "neonize.exc"})("server: token abc")
    with pytest.raises(Unavailable) as caught:
        await whatsapp.send(message_to(f"+{ANN}", "x"))
    assert caught.value.ambiguous
    assert "token" not in str(caught.value)
    Client.fail, Client.slow = None, True
    with pytest.raises(ProviderTimeout):
        await whatsapp.send(message_to(f"+{ANN}", "x"))
    Client.slow = False
    await whatsapp.aclose()
    assert client.stopped
    with pytest.raises(Unavailable, match="not connected"):
        await whatsapp.send(message_to(f"+{ANN}", "x"))


async def test_it_has_no_webhooks() -> None:
    whatsapp = WhatsAppPersonalProvider()
    request = WebhookRequest("POST", "https://rooms.example/webhooks/wa", {}, b"{}")
    for call in (whatsapp.verify, lambda it: whatsapp.parse(it, "wa")):
        with pytest.raises(AccessDenied):
            call(request)
    with pytest.raises(ConfigError):
        whatsapp.sign(request)


async def test_without_neonize_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "neonize"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra, match=r"\[neonize\]"):
        await NeonizeWire("x.db", 5).connect(lambda kind, event: asyncio.sleep(0), None)
    monkeypatch.setenv("NEONIZE_DATABASE", "other.db")
    assert (provider().options.database, provider("mine.db").options.database) == ("other.db", "mine.db")


# -- in a room ------------------------------------------------------------------------------------------------------


async def test_a_chat_over_the_source() -> None:
    kit = RoomKit(clock=VirtualClock())
    channel = WhatsAppPersonalChannel("wa", provider=WhatsAppPersonalProvider())
    kit.register_channel(channel)

    @kit.on_message
    async def answer(context: Any, message: Any) -> str:
        return f"You said: {message.text}"

    async with kit:
        handle = await kit.attach_source(NeonizeSource(channel))
        await asyncio.sleep(1)
        client = Client.made[-1]
        assert not handle.health.connected

        async def happens(name: str, what: Any = None) -> None:
            await client.listeners[name](client, what)
            await asyncio.sleep(5)

        await happens("Connected")
        assert handle.health.connected
        for _ in range(3):
            await happens("Message", event({"conversation": "hello"}, "A1"))
        (room,) = await kit.list_rooms()
        said = [bound["message"].conversation for name, bound in client.calls if name == "send_message"]
        assert said == ["You said: hello"], "once, however often it comes"
        assert [name for name, _ in client.calls].count("send_chat_presence") == 3
        (sent,) = [one for one in await kit.deliveries(room.id) if one.state is DeliveryState.SENT]
        await happens("Receipt", receipt(4, str(sent.provider_message_id).rpartition(":")[2]))
        assert (await kit.deliveries(room.id))[0].state is DeliveryState.READ
        revoked = {"protocolMessage": {"key": {**KEY, "ID": "A1"}, "type": 0}}
        await happens("Message", event(revoked, "A2"))
        raw = await kit.events(room.id, raw=True)
        gone = next(one for one in raw if one.type is EventType.DELETE)
        assert gone.content.target_event_id == next(one for one in raw if one.text == "hello").id

        await happens("Disconnected")
        assert client.stopped
        await asyncio.sleep(10)
        assert Client.made[-1] is not client, "it connects again"
        client = Client.made[-1]
        await happens("LoggedOut", SimpleNamespace())
        assert not handle.health.running
        assert "link the account again" in (handle.health.last_error or "")


async def test_a_file_is_decrypted_once_and_no_larger_than_allowed() -> None:
    whatsapp, client = await linked()
    said = event({"imageMessage": {"mimetype": "image/jpeg", "fileLength": 9}})
    (message,) = read(said, "wa")
    (attachment,) = message.attachments
    whatsapp.hold(attachment.url, said.Message)
    found = await whatsapp.fetch_media(attachment)
    assert (found.body, found.content_type) == (b"decrypted", "image/jpeg")
    assert client.calls[-1][1]["message"].imageMessage.mimetype == "image/jpeg"
    with pytest.raises(Refused, match="not one that has just arrived"):
        await whatsapp.fetch_media(attachment)
    for size in (9, None):
        whatsapp.hold(attachment.url, said.Message)
        with pytest.raises(Refused, match="has 9 bytes, 8"):
            await whatsapp.fetch_media(attachment.model_copy(update={"size_bytes": size}), FetchPolicy(max_bytes=8))
