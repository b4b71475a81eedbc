"""The room socket: our own protocol between a room and a page or program (docs/reference/room-socket.md)."""

from roomkit.protocols.room_socket.client import ClientSession
from roomkit.protocols.room_socket.codec import Chunk, Close, Refused, ServerSession, merge_outgoing, wire
from roomkit.protocols.room_socket.messages import CLOSE_CODES, VERSION, ClientFrame, Limits, ServerFrame

__all__ = [
    "CLOSE_CODES",
    "VERSION",
    "Chunk",
    "ClientFrame",
    "ClientSession",
    "Close",
    "Limits",
    "Refused",
    "ServerFrame",
    "ServerSession",
    "merge_outgoing",
    "wire",
]
