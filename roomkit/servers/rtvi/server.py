"""RTVIServer: all clients of one kit, and what the app may do with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roomkit.ai.tools import Tool
from roomkit.channels.websocket import WebSocketChannel
from roomkit.errors import ConfigError
from roomkit.models.access import Principal
from roomkit.servers.client_tools import ClientTools
from roomkit.servers.rtvi.call import ClientCall
from roomkit.servers.rtvi.client import Client

if TYPE_CHECKING:
    from roomkit.kit import RoomKit

OnMessage = Callable[[Client, str, Any], Any]
"""(client, type, data) -> what to answer; None answers nothing, and an exception refuses."""


@dataclass(frozen=True, slots=True)
class RTVIOptions:
    """`room_of(principal, query)` names the room: by default the token's own, else the query's `room`, else one for the
    person. `on_message` answers the app's own messages; `on_shown(client, kind, data)` hears of the client's page. A
    function of the client's has `tool_s` seconds. `voice` is the id of a voice channel with an `RTVIBackend`: every
    client has a call of it, and speaks and hears; without it there is text alone."""

    channel_id: str = "rtvi"
    room_of: Callable[[Principal, dict[str, str]], str] | None = None
    on_message: OnMessage | None = None
    on_shown: Callable[[Client, str, dict[str, Any]], Any] | None = None
    tool_s: float = 60.0
    voice: str | None = None


class RTVIServer:
    """All clients of one kit. The channel `options.channel_id` is registered unless the kit has it. Raises
    `ConfigError` where `options.voice` is no voice channel with an `RTVIBackend`."""

    def __init__(self, kit: RoomKit, options: RTVIOptions | None = None) -> None:
        self.kit = kit
        self.options = options or RTVIOptions()
        if self.options.channel_id not in kit.engine.channels:
            kit.register_channel(WebSocketChannel(self.options.channel_id))
        self.clients: dict[Client, None] = {}
        self.calls: dict[str, ClientCall] = {}
        self.voice = self._voice(self.options.voice)
        self._tools = ClientTools(self._ask, self.options.tool_s)

    def _voice(self, channel_id: str | None) -> Any:
        if channel_id is None:
            return None
        channel: Any = self.kit.engine.channels.get(channel_id)
        if getattr(getattr(channel, "backend", None), "entry", "") != "rtvi" or not hasattr(channel, "answer"):
            raise ConfigError(
                f'RTVIOptions(voice="{channel_id}") needs that channel registered first: '
                f'kit.register_channel(VoiceChannel("{channel_id}", backend=RTVIBackend(), ...))'
            )
        channel.on_trace(self._traced)
        return channel

    def call_of(self, client: Client, by: str) -> ClientCall | None:
        """The call of a client that comes in, where there is a voice for its tenant."""
        voice = self.voice
        if voice is None or self.kit.channel_tenant(voice.channel_id) != client.tenant:
            return None
        return ClientCall(client, voice, voice.backend, by=by)

    def _traced(self, line: dict[str, Any]) -> None:
        call = self.calls.get(line.get("session", ""))
        if call is not None:
            call.traced(line)

    def client_tool(self, function: Callable[..., Any]) -> Tool:
        """Makes a tool of a typed function whose body the client has (`registerFunctionCallHandler` there)."""
        return self._tools.tool(function)

    def push(self, room_id: str, data: Any, *, tenant: str = "default") -> int:
        """Sends a message of the app's own to every client in the room; returns how many there are."""
        here = self._here(tenant, room_id)
        for client in here:
            client.post(client.session.push(data))
        return len(here)

    def answered(self, tenant: str, room_id: str, call_id: str, result: Any) -> None:
        self._tools.answered(tenant, room_id, call_id, result)

    def _ask(self, tenant: str, room_id: str, call_id: str, name: str, arguments: dict[str, Any]) -> bool:
        """Of several clients in a room the one that came first is asked."""
        here = [client for client in self._here(tenant, room_id) if client.session.ready]
        for client in here[:1]:
            client.post(client.session.function(call_id, name, arguments))
        return bool(here)

    def _here(self, tenant: str, room_id: str) -> list[Client]:
        return [client for client in self.clients if (client.tenant, client.room_id) == (tenant, room_id)]
