"""One way to make HTTP clients, and one mapping of their failures onto our errors. Needs the [http] extra."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from roomkit.errors import (
    BadResponse,
    ConfigError,
    MissingExtra,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.net.redaction import redact, redact_logs

if TYPE_CHECKING:
    import ssl
    from types import ModuleType

    import httpx2


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Limits of one client; times in seconds. Proxies and CA files of the environment count only with `trust_env`."""

    connect_s: float = 5.0
    read_s: float = 30.0
    write_s: float = 30.0
    pool_s: float = 10.0
    max_connections: int = 100
    max_keepalive: int = 20
    keepalive_s: float = 30.0
    user_agent: str | None = None
    proxy: str | None = None
    trust_env: bool = False


def http_client(
    options: ClientOptions | None = None,
    *,
    base_url: str = "",
    headers: Mapping[str, str] | None = None,
    auth: tuple[str, str] | httpx2.Auth | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> httpx2.AsyncClient:
    """A client with limits, our user agent and redacted logs; close it with `aclose()`.

    It follows no redirects (a vendor's API has none, and credentials must not travel). `transport` replaces the
    network, e.g. `httpx2.ASGITransport(fake_vendor)` in tests. Raises `MissingExtra` without httpx2.
    """
    httpx2 = load_httpx2()
    options = options or ClientOptions()
    return httpx2.AsyncClient(
        base_url=base_url,
        headers={"user-agent": options.user_agent or default_user_agent(), **(headers or {})},
        auth=auth,
        transport=transport,
        verify=ssl_context(options.trust_env) if transport is None else True,
        proxy=options.proxy,
        trust_env=options.trust_env,
        follow_redirects=False,
        timeout=httpx2.Timeout(
            connect=options.connect_s, read=options.read_s, write=options.write_s, pool=options.pool_s
        ),
        limits=httpx2.Limits(
            max_connections=options.max_connections,
            max_keepalive_connections=options.max_keepalive,
            keepalive_expiry=options.keepalive_s,
        ),
    )


def load_httpx2() -> ModuleType:
    """The HTTP library, its logs redacted; `MissingExtra` where it is not installed."""
    try:
        import httpx2
    except ImportError as error:
        raise MissingExtra("the HTTP client", "httpx2", "http") from error
    redact_logs("httpx2", "httpcore2")
    return httpx2


@cache
def default_user_agent() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"roomkit/{version('roomkit-framework')}"
    except PackageNotFoundError:  # used from a source tree
        return "roomkit"


@cache
def ssl_context(trust_env: bool = False) -> ssl.SSLContext:
    """Loading the CA store takes milliseconds of the event loop, so all clients share one context."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=trust_env)


@contextmanager
def vendor_errors(provider: str) -> Generator[None]:
    """Turn what the HTTP client raises inside the block into our `ProviderError`s.

    `ambiguous` is set where the request may have reached the vendor although no answer came back.
    """
    import httpx2

    try:
        yield
    except httpx2.HTTPStatusError as error:
        raise error_from_response(provider, error.response) from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise ConfigError(f"{provider}: {redact(str(error))}; check the URL") from error
    except (httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        raise ProviderTimeout(provider, "no connection in time") from error
    except (httpx2.TimeoutException, TimeoutError) as error:
        raise ProviderTimeout(provider, "no answer in time", ambiguous=True) from error
    except (httpx2.ConnectError, httpx2.ProxyError) as error:
        raise Unavailable(provider, f"no connection: {_told(error)}") from error
    except (httpx2.DecodingError, httpx2.LocalProtocolError) as error:
        raise BadResponse(provider, _told(error)) from error
    except httpx2.TransportError as error:
        raise Unavailable(provider, f"the connection broke: {_told(error)}", ambiguous=True) from error


def error_from_response(
    provider: str, response: httpx2.Response, message: str | None = None, *, code: str | None = None
) -> ProviderError:
    """The error for an unsuccessful response; `message` and `code` as the vendor's own body tells them.

    The body itself is not quoted, because it may repeat what was sent.
    """
    return error_from_status(
        provider, response.status_code, response.headers, message or response.reason_phrase, code=code
    )


def error_from_status(
    provider: str, status: int, headers: Mapping[str, str], message: str | None = None, *, code: str | None = None
) -> ProviderError:
    """The same where there is no response object: a refused web socket. `headers` look names up in lower case."""
    kind, retryable = _kind(status)
    return kind(
        provider,
        f"{redact(message) if message else 'unexpected answer'} (HTTP {status})",
        retryable=retryable,
        retry_after=parse_retry_after(headers),
        status=status,
        code=code,
        ambiguous=status in {408, 500, 502, 504},
    )


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as told by `retry-after-ms` or `retry-after`, or None.

    A date is read relative to the answer's own `date` header, so that a wrong clock on either side does not matter.
    `headers` must look names up in lower case.
    """
    if (exact := _number(headers.get("retry-after-ms"))) is not None:
        return exact / 1000
    value = headers.get("retry-after")
    if (seconds := _number(value)) is not None or value is None:
        return seconds
    from email.utils import parsedate_to_datetime

    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers["date"])
    except (ValueError, TypeError, KeyError):
        return None
    return max(0.0, wait.total_seconds())


def _kind(status: int) -> tuple[type[ProviderError], bool]:
    exact: dict[int, tuple[type[ProviderError], bool]] = {
        401: (Unauthorized, False),
        403: (Unauthorized, False),
        408: (ProviderTimeout, True),
        425: (Unavailable, True),
        429: (RateLimited, True),
        501: (Unavailable, False),
        505: (Unavailable, False),
    }
    if status in exact:
        return exact[status]
    if status >= 500:
        return Unavailable, True
    return (Refused, False) if status >= 400 else (BadResponse, False)


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _told(error: Exception) -> str:
    return redact(str(error)) or type(error).__name__
