"""The whole error taxonomy, named by who must act.

    RoomKitError
    ├── UsageError        you: fix the code or the configuration
    │   ├── ConfigError
    │   └── MissingExtra
    ├── StateError        you: the wrong moment
    │   ├── RoomNotFound · RoomClosed · ChannelNotFound · AlreadyRegistered · SessionEnded
    │   ├── Elsewhere     another process has the room (never seen outside)
    │   └── FloorTaken    somebody else holds the floor
    ├── StoreError        the operator: the durable store refuses to write
    │   ├── StoreUnavailable   disk full, failed fsync: nothing is acknowledged until it recovers
    │   ├── StoreLocked        another process owns the file
    │   └── Fenced             a newer owner has taken over: this writer must stop
    ├── ProtocolError     LocalProtocolError (we) · RemoteProtocolError (the peer; offending message attached)
    ├── ProviderError     the provider: retryable, retry_after, status
    │   └── ProviderTimeout · Unavailable · RateLimited · Unauthorized · Refused · BadResponse · ContextOverflow
    ├── ToolError         the model: ToolRetry · ToolFailed
    ├── AccessDenied      the principal: not allowed here
    └── Overloaded        the caller: slow down

Messages say what happened, why, and the fix. Secrets never appear in them.
"""

from __future__ import annotations

from collections.abc import Iterable


class RoomKitError(Exception):
    """Root of every error that roomkit raises on purpose."""


class UsageError(RoomKitError):
    """The call cannot work as written; fix the code."""


class ConfigError(UsageError):
    """A setting is missing or contradicts another one."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, who: str, what: str, extra: str) -> None:
        super().__init__(
            f"{who} needs {what}: install roomkit with the [{extra}] extra, from a checkout: pip install '.[{extra}]'"
        )
        self.extra = extra


_EXTRAS = {
    "numpy": "voice",
    "starlette": "server",
    "httpx2": "http",
    "google": "rtvi",
    "twilio": "twilio",
    "openai": "openai",
    "anthropic": "anthropic",
}
"""Which extra brings a package that a name of ours wants as soon as it is asked for."""


def told_with_extra(who: str, error: ModuleNotFoundError) -> ModuleNotFoundError | MissingExtra:
    """`error`, or what to install where the package that was not found is one of an extra."""
    extra = _EXTRAS.get((error.name or "").partition(".")[0])
    return MissingExtra(who, str(error.name), extra) if extra else error


class StateError(RoomKitError):
    """The call is right but the moment is wrong."""


class RoomNotFound(StateError):
    def __init__(self, room_id: str, known: Iterable[str] = ()) -> None:
        super().__init__(f'room "{room_id}" does not exist{_hint(room_id, known)}; create it with kit.create_room()')
        self.room_id = room_id


class Elsewhere(StateError):
    """Another process has the room, at `address` ("" where nobody can be asked now). `Rooms` asks there instead, so
    that this is seen by nobody else."""

    def __init__(self, tenant: str, room_id: str, address: str) -> None:
        super().__init__(f'room "{room_id}" is in the hands of another process; it is asked there')
        self.tenant = tenant
        self.room_id = room_id
        self.address = address


class RoomClosed(StateError):
    def __init__(self, room_id: str, status: str = "closed") -> None:
        fix = "reopen it with kit.reopen_room()" if status == "closed" else "an archived room cannot be reopened"
        super().__init__(f'room "{room_id}" is {status} and takes no more events; {fix}')
        self.room_id = room_id


class ChannelNotFound(StateError):
    def __init__(self, channel_id: str, known: Iterable[str] = (), *, where: str = "this kit") -> None:
        super().__init__(
            f'channel "{channel_id}" is not part of {where}{_hint(channel_id, known)}; '
            "register it with kit.register_channel() and attach it with kit.attach_channel()"
        )
        self.channel_id = channel_id


class AlreadyRegistered(StateError):
    def __init__(self, channel_id: str) -> None:
        super().__init__(f'channel "{channel_id}" is already registered; unregister the old one first')
        self.channel_id = channel_id


class SessionEnded(StateError):
    """A voice or socket session is over and cannot be used again."""


class FloorTaken(StateError):
    def __init__(self, room_id: str, holder: str) -> None:
        super().__init__(f'the floor of room "{room_id}" is held by {holder}; pass force=True to take it anyway')
        self.room_id = room_id
        self.holder = holder


class StoreError(RoomKitError):
    """The durable store cannot do its work; the operator must act."""


class StoreUnavailable(StoreError):
    """Writing failed (disk full, failed fsync). Nothing is acknowledged until it works again; retry later."""


class StoreLocked(StoreError):
    """Another process owns this store file."""


class Fenced(StoreError):
    """A newer owner has taken over this room or store; this writer may not write any more."""


class ProtocolError(RoomKitError):
    """A wire protocol was violated."""

    def __init__(self, message: str, *, code: str = "protocol_error", offending: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.offending = offending


class LocalProtocolError(ProtocolError):
    """Our side tried to send what the protocol forbids."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids; `offending` holds the message."""


class ProviderError(RoomKitError):
    """A vendor said no or did not answer. Mapped once, at the edge, from the vendor's own exception."""

    retryable: bool = False

    def __init__(
        self,
        provider: str,
        message: str,
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        status: int | None = None,
        code: str | None = None,
        ambiguous: bool = False,
    ) -> None:
        """`retry_after` in seconds; `ambiguous` when the vendor may have acted although no answer came."""
        super().__init__(f"{provider}: {message}")
        self.provider = provider
        self.retryable = type(self).retryable if retryable is None else retryable
        self.retry_after = retry_after
        self.status = status
        self.code = code
        self.ambiguous = ambiguous


class ProviderTimeout(ProviderError):
    retryable = True


class Unavailable(ProviderError):
    retryable = True


class RateLimited(ProviderError):
    retryable = True


class Unauthorized(ProviderError):
    """The credentials were refused."""


class Refused(ProviderError):
    """The provider understood and declines (content policy, blocked recipient, opt-out)."""


class BadResponse(ProviderError):
    """The answer is not what the vendor documents."""


class ContextOverflow(ProviderError):
    """The request is larger than the model's context window."""


class ToolError(RoomKitError):
    """Tells the model something about a tool call."""


class ToolRetry(ToolError):
    """The model should correct its arguments and call again."""


class ToolFailed(ToolError):
    """The tool did not work; the model should go on without it."""


class AccessDenied(RoomKitError):
    """The principal may not do this here."""


class Overloaded(RoomKitError):
    """A bound was reached; the caller should slow down. `retry_after` in seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def _hint(name: str, known: Iterable[str]) -> str:
    import difflib  # only when something went wrong: every program pays for what is imported above

    close = difflib.get_close_matches(name, list(known), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""
