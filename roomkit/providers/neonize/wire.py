"""The one place that calls neonize. Its library is large and written in Go, so it is loaded when it is used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from roomkit.errors import ConfigError, MissingExtra, ProviderTimeout, Refused, Unavailable
from roomkit.providers.neonize.inbound import PHONES
from roomkit.runtime import bounded

Hear = Callable[[str, Any], Awaitable[None]]
"""(kind of event, event): "message", "receipt", "connected", "disconnected", "over"."""
_EVENTS = {
    "Message": "message",
    "Receipt": "receipt",
    "Connected": "connected",
    "Disconnected": "disconnected",
    "LoggedOut": "over",
    "TemporaryBan": "over",
    "ClientOutdated": "over",
    "StreamReplaced": "over",
}


@dataclass(frozen=True, slots=True)
class Number:
    """A member of one of neonize's enums, of which only the number counts: where they are defined much else is."""

    value: int


COMPOSING, TEXT = Number(0), Number(0)
"""`ChatPresence.CHAT_PRESENCE_COMPOSING` and `ChatPresenceMedia.CHAT_PRESENCE_MEDIA_TEXT`."""


class NeonizeWire:
    """One linked account. `database` is the file that keeps its keys: whoever has it is the account."""

    def __init__(self, database: str, timeout_s: float) -> None:
        self._database = database
        self._timeout_s = timeout_s
        self._client: Any = None

    async def connect(self, hear: Hear, show_qr: Callable[[bytes], Awaitable[None]] | None) -> None:
        """Begins to connect. `hear` is called on the event loop; `show_qr` gets the code to scan while the account is
        not linked yet, without it neonize prints one. Raises `MissingExtra`."""
        client_module, types = _neonize()
        client = self._client = client_module.NewAClient(self._database)
        for name, kind in _EVENTS.items():
            client.event(getattr(types, name))(_listener(hear, kind))
        if show_qr is not None:
            client.event.qr(_shower(show_qr))
        await client.connect()

    async def disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.stop()

    async def send_text(self, chat: str, text: str) -> str:
        """The id of the message that was sent."""
        _, types = _neonize()
        # As a message and not as text: in text the client would look for people to call.
        return await self._sent(self._up.send_message(self._jid(chat), _message(types, conversation=text)))

    async def send_file(
        self, chat: str, kind: str, data: bytes, *, words: str | None, name: str | None, mime: str
    ) -> str:
        """`kind` is image, video, audio or document."""
        jid, client = self._jid(chat), self._up
        match kind:
            case "image":
                return await self._sent(client.send_image(jid, data, caption=words))
            case "video":
                return await self._sent(client.send_video(jid, data, caption=words))
            case "audio":
                return await self._sent(client.send_audio(jid, data, ptt=mime.startswith("audio/ogg")))
            case _:
                return await self._sent(
                    client.send_document(jid, data, caption=words, filename=name, title=name, mimetype=mime)
                )

    async def send_place(self, chat: str, latitude: float, longitude: float, name: str, address: str) -> str:
        _, types = _neonize()
        place = {"degreesLatitude": latitude, "degreesLongitude": longitude, "name": name, "address": address}
        message = _message(types, locationMessage=place)
        return await self._sent(self._up.send_message(self._jid(chat), message))

    async def edit(self, chat: str, ident: str, text: str) -> None:
        _, types = _neonize()
        await self._sent(self._up.edit_message(self._jid(chat), ident, _message(types, conversation=text)))

    async def revoke(self, chat: str, ident: str) -> None:
        me = await self._bounded(self._up.get_me())
        await self._sent(self._up.revoke_message(self._jid(chat), me.JID, ident))

    async def react(self, chat: str, author: str | None, ident: str, emoji: str) -> None:
        """`author` is who wrote the message, None for ourselves; an empty `emoji` takes the reaction back."""
        sender = self._jid(author) if author else (await self._bounded(self._up.get_me())).JID
        message = await self._bounded(self._up.build_reaction(self._jid(chat), sender, ident, emoji))
        await self._sent(self._up.send_message(self._jid(chat), message))

    async def typing(self, chat: str) -> None:
        await self._bounded(self._up.send_chat_presence(self._jid(chat), COMPOSING, TEXT))

    async def download(self, message: Any) -> bytes:
        return bytes(await self._bounded(self._up.download_any(message)))

    @property
    def _up(self) -> Any:
        if self._client is None:
            raise Unavailable("neonize", "the account is not connected; attach a NeonizeSource")
        return self._client

    def _jid(self, place: str) -> Any:
        _, types = _neonize()
        user, at, server = place.removeprefix("+").partition("@")
        if not user or (not at and not user.isdecimal()):
            raise Refused("neonize", "the recipient is no phone number and no id of WhatsApp's")
        where = server or PHONES
        return types.JID(User=user, Server=where, RawAgent=0, Device=0, Integrator=0, IsEmpty=False)

    async def _sent(self, call: Coroutine[Any, Any, Any]) -> str:
        return str((await self._bounded(call)).ID)

    async def _bounded(self, call: Coroutine[Any, Any, Any]) -> Any:
        """What neonize raises becomes ours. It says in words only why something failed, so that nothing is told for
        sure: it may be tried again."""
        try:
            return await bounded(call, self._timeout_s, "neonize")
        except TimeoutError as error:
            raise ProviderTimeout("neonize", "no answer in time", ambiguous=True) from error
        except Exception as error:
            if not type(error).__module__.startswith("neonize"):
                raise
            raise Unavailable("neonize", type(error).__name__, ambiguous=True) from error


def _listener(hear: Hear, kind: str) -> Callable[[Any, Any], Awaitable[None]]:
    async def heard(_: Any, event: Any) -> None:
        await hear(kind, event)

    return heard


def _shower(show: Callable[[bytes], Awaitable[None]]) -> Callable[[Any, bytes], Awaitable[None]]:
    async def shown(_: Any, code: bytes) -> None:
        await show(code)

    return shown


def _message(types: Any, **fields: Any) -> Any:
    """A message as it travels, inside of what neonize calls one."""
    return type(types.Message().Message)(**fields)


def _neonize() -> tuple[Any, Any]:
    """Its client and its types."""
    return _loaded("neonize.aioze.client"), _loaded("neonize.proto.Neonize_pb2")


def _loaded(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra("a personal WhatsApp account", "neonize", "neonize") from error
    except (ImportError, OSError) as error:  # its library, or libmagic
        raise ConfigError(f"neonize cannot be loaded: {error}") from error
