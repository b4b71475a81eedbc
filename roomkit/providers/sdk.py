"""Vendor SDKs at arm's length: built in a thread at first use, their errors mapped onto ours, their refusals learned.

The SDKs of OpenAI and Anthropic come from one generator, so their exceptions have the same names and shapes.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

from roomkit.errors import (
    BadResponse,
    ConfigError,
    ContextOverflow,
    MissingExtra,
    ProviderError,
    ProviderTimeout,
    Unavailable,
)
from roomkit.net import redact, redact_logs, register_secret
from roomkit.runtime import WorkerThread

C = TypeVar("C")

_TOO_LONG = re.compile(
    r"context[ _-]?(length|window)|maximum context|prompt is too long|input is too long|too many (input )?tokens"
    r"|exceeds? the (model's )?(maximum|limit of) .*tokens",
    re.IGNORECASE,
)
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n[o']t (?:be )?(?:permitted|allowed|accepted)|unrecognized"
    r"|unknown (?:name|parameter|field)|deprecated|extra inputs|must be verified|only (?:be set|the default)",
    re.IGNORECASE,
)
_STATUS = {
    "overloaded_error": 529,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "invalid_request_error": 400,
}
_NEVER_BETTER = frozenset({"insufficient_quota", "billing_error", "billing_hard_limit_reached"})


class LazyClient(Generic[C]):
    """Imports an SDK and builds its client in a thread, once: it takes seconds of CPU the event loop has not got."""

    def __init__(self, who: str, extra: str, build: Callable[[], C]) -> None:
        self._who = who
        self._extra = extra
        self._build = build
        self._client: C | None = None
        self._loading: asyncio.Future[C] | None = None

    @property
    def built(self) -> C | None:
        return self._client

    def dropped(self) -> C | None:
        """The client, for its last user to close; the next `get` builds another."""
        client, self._client, self._loading = self._client, None, None
        return client

    async def get(self) -> C:
        """The client; raises `MissingExtra` when the SDK is not installed. A cancelled caller cancels nobody else."""
        client = self._client
        if client is None:
            if self._loading is None or self._loading.done():
                thread = WorkerThread(f"{self._extra}-sdk")
                self._loading = thread.submit(self._build)
                thread.close()
            try:
                client = await asyncio.shield(self._loading)
            except ImportError as error:
                raise MissingExtra(self._who, f"the {self._extra} SDK", self._extra) from error
            redact_logs(self._extra)
            self._client = client
        return client


def read_key(who: str, given: str | None, variable: str | None, *, required: bool = True) -> str | None:
    """The API key as given or from the vendor's environment variable; `ConfigError` names the variable, not the key."""
    key = given or (os.environ.get(variable) if variable else None)
    if not key:
        if not required:
            return None
        fix = f"set {variable} or pass api_key=" if variable else "pass api_key="
        raise ConfigError(f"{who} needs an API key: {fix}")
    register_secret(key)
    return key


@contextmanager
def sdk_errors(provider: str, sdk: Any, *, streaming: bool) -> Generator[None]:
    """Raise what the SDK raises inside the block as a `ProviderError`. `streaming`: the answer had already begun."""
    import httpx2

    try:
        yield
    except ProviderError:
        raise
    except sdk.APIStatusError as error:
        raise _from_status(provider, error) from error
    except (sdk.APITimeoutError, httpx2.TimeoutException) as error:
        raise ProviderTimeout(provider, "no answer in time", ambiguous=True) from error
    except (sdk.APIConnectionError, httpx2.TransportError) as error:
        cause = error.__cause__ if isinstance(error, sdk.APIConnectionError) else error
        told = redact(str(cause or error)) or type(cause or error).__name__
        if streaming:
            raise _cut(provider, told) from error
        raise Unavailable(provider, f"no connection: {told}") from error
    except sdk.APIError as error:  # told inside the stream, after the HTTP status had been 200
        code = getattr(error, "code", None) or getattr(error, "type", None)
        raise vendor_error(provider, str(error.message), code=code) from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        if not streaming:
            raise
        # The SDKs build their objects without validating, so an event of the wrong shape fails where it is read.
        raise BadResponse(provider, f"an event is not what the vendor documents ({type(error).__name__})") from error


def vendor_error(provider: str, message: str, *, code: str | None, response: Any = None) -> ProviderError:
    """The error for a failure told by the vendor's `code`; `response` is the HTTP answer where there was a status."""
    import httpx2

    from roomkit.net.client import error_from_response

    status = _STATUS.get(code or "")
    if response is not None and response.status_code >= 400:
        status = int(response.status_code)
    if code == "context_length_exceeded" or status == 413 or (status in {None, 400, 422} and _TOO_LONG.search(message)):
        return ContextOverflow(provider, redact(message), status=status, code=code)
    if status is None:
        return BadResponse(provider, redact(message) or "the vendor reports an error without a reason", code=code)
    headers = response.headers if response is not None else None
    error = error_from_response(provider, httpx2.Response(status, headers=headers), message, code=code)
    if code in _NEVER_BETTER:
        error.retryable = False
    return error


def ended_early(provider: str) -> BadResponse:
    return _cut(provider, "the stream ended before the reply did")


def is_unsupported(message: str) -> bool:
    return _UNSUPPORTED.search(message) is not None


def rejected_parameter(
    message: str, told: str | None, sent: Mapping[str, Any], droppable: Collection[str]
) -> str | None:
    """Which of the `droppable` parameters a vendor's 400 complains about, if it does: the most specific one sent.

    `told` is the parameter the vendor names beside its message, if it does. Names may be paths: `reasoning.summary`.
    """
    if not is_unsupported(message):
        return None
    words = told or message
    found = [name for name in droppable if _sent(sent, name) and _names(words, name)]
    return max(found, key=len, default=None)


def _names(words: str, name: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", words) is not None


def _sent(sent: Mapping[str, Any], path: str) -> bool:
    value: Any = sent
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = cast("Mapping[str, Any]", value)[key]
    return True


def _cut(provider: str, told: str) -> BadResponse:
    return BadResponse(provider, f"the reply was cut off: {told}", retryable=True, code="cut")


def _from_status(provider: str, error: Any) -> ProviderError:
    body: Any = error.body
    if isinstance(body, dict) and isinstance(cast("dict[str, Any]", body).get("error"), dict):
        body = cast("dict[str, Any]", body)["error"]
    told: dict[str, Any] = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    code = told.get("code") or told.get("type")
    message = told.get("message")
    reason = message if isinstance(message, str) else ""
    return vendor_error(provider, reason, code=str(code) if code else None, response=error.response)
