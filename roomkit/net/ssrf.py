"""Fetching URLs that strangers chose: media of messages, link previews, webhooks of customers. Needs the [http] extra.

Only public addresses are reached, each redirect is checked again, and bytes, time, redirects and decompression are
capped. Credentials go to the host they were made for and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol, Self

from roomkit.errors import BadResponse, ConfigError, Refused, Unavailable, UsageError
from roomkit.net.addresses import Network, checked_address, host_problem
from roomkit.net.client import default_user_agent, error_from_response, load_httpx2, vendor_errors
from roomkit.net.redaction import redact
from roomkit.runtime import bounded

if TYPE_CHECKING:
    import httpx2

_WHO = "fetch"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GUARDED_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "host", "x-api-key"})
_RATIO_FREE = 1 << 20  # small bodies may compress as well as they like


class Resolver(Protocol):
    """Turns a host name into addresses (text), or raises `OSError`."""

    async def __call__(self, host: str, port: int, /) -> Sequence[str]: ...


async def system_resolver(host: str, port: int, /) -> Sequence[str]:
    """The operating system's resolver, in its preferred order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def resolve_checked(host: str, port: int, *, resolver: Resolver, allowed: Sequence[Network] = ()) -> list[str]:
    """The addresses of `host`, every one checked; never empty.

    One address that is not public condemns the whole host: an honest one has no reason to mix them. The error does not
    tell the address, because it may be shown to whoever chose the URL.
    """
    if problem := host_problem(host):
        raise Refused(_WHO, f'host "{host}" is refused: {problem}')
    literal = ":" in host or host.rsplit(".", 1)[-1].isdigit()
    try:
        found = [host] if literal else list(await resolver(host, port))
    except (OSError, UnicodeError) as error:
        raise Unavailable(_WHO, f'host "{host}" was not found') from error
    if not found:
        raise Unavailable(_WHO, f'host "{host}" has no address')
    checked = [str(address) for text in found if (address := checked_address(text, allowed)) is not None]
    if len(checked) != len(found):
        raise Refused(
            _WHO, f'host "{host}" is refused: it is not on the public internet; allow its network if it is yours'
        )
    return checked


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """Limits of one fetch; times in seconds, sizes in bytes.

    `content_types` are patterns such as `image/*`, empty for any. `max_ratio` bounds decompressed to transferred size.
    `allowed_networks` (CIDR) may be reached although they are not public.
    """

    max_bytes: int = 20 * 1024 * 1024
    total_s: float = 30.0
    connect_s: float = 5.0
    read_s: float = 10.0
    max_redirects: int = 3
    max_ratio: float = 100.0
    https_only: bool = False
    content_types: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Credentials:
    """Headers for one vendor's host, sent over https to exactly that host, on whichever hop it appears."""

    host: str
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def basic(cls, host: str, user: str, password: str) -> Credentials:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        return cls(host, {"authorization": f"Basic {token}"})

    @classmethod
    def bearer(cls, host: str, token: str) -> Credentials:
        return cls(host, {"authorization": f"Bearer {token}"})

    def headers_for(self, url: httpx2.URL) -> Mapping[str, str]:
        fits = url.scheme == "https" and url.port is None and _host(url) == self.host.lower().removesuffix(".")
        return self.headers if fits else {}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched: the whole body, the media type (lower case, no parameters) and where it really came from."""

    url: str
    status: int
    content_type: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    headers: Mapping[str, str]
    content: bytes
    credentials: Credentials | None


class Fetcher:
    """Fetches under one policy; keep it, and `aclose()` it at the end."""

    def __init__(
        self,
        policy: FetchPolicy | None = None,
        *,
        resolver: Resolver | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        who: str = _WHO,
    ) -> None:
        """`transport` replaces the network below the checks (tests: `httpx2.ASGITransport(app)`); the checks stay.

        `who` is the provider's name in errors of the far end.
        """
        load_httpx2()
        from roomkit.net.transport import GuardedTransport

        self.policy = policy or FetchPolicy()
        self._who = who
        self._own_transport = transport is None
        try:
            self._transport = GuardedTransport(transport, resolver=resolver, allowed=self.policy.allowed_networks)
        except ValueError as error:
            raise ConfigError(f"FetchPolicy.allowed_networks: {error}; write networks as 10.0.0.0/8") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the network; a `transport` that was passed in is its owner's to close."""
        if self._own_transport:
            await self._transport.aclose()

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        credentials: Credentials | None = None,
    ) -> Fetched:
        """The body behind `url`, within the policy.

        Other methods than GET follow no redirect. `headers` go to the first host only. Raises `Refused` for what is
        not allowed, `BadResponse` for too much or broken data, `ProviderTimeout`, `Unavailable`, or the error for the
        status of an unsuccessful answer. Cancellation closes the connection.
        """
        headers = {name.lower(): value for name, value in (headers or {}).items()}
        if guarded := _GUARDED_HEADERS.intersection(headers):
            raise UsageError(f"fetch: header {min(guarded)!r} would follow redirects; pass it as credentials=")
        with vendor_errors(self._who):
            call = _Call(method.upper(), headers, content, credentials)
            return await bounded(self._follow(url, call), self.policy.total_s, "fetch")

    async def _follow(self, url: str, call: _Call) -> Fetched:
        here = first = self._checked_url(url)
        for _ in range(self.policy.max_redirects + 1):
            response = await self._transport.handle_async_request(
                self._request(here, call, known=_site(here) == _site(first))
            )
            try:
                location = response.headers.get("location")
                if response.status_code not in _REDIRECTS or location is None:
                    return await self._received(here, response)
            finally:
                await response.aclose()
            if call.method != "GET":
                raise Refused(_WHO, f"the server redirects a {call.method}; give the final URL")
            here = self._redirected(here, location)
        raise Refused(_WHO, f"more than {self.policy.max_redirects} redirects")

    def _checked_url(self, text: str) -> httpx2.URL:
        import httpx2

        try:
            url = httpx2.URL(text)
        except httpx2.InvalidURL as error:
            raise Refused(_WHO, f"the URL is not valid: {redact(str(error))}") from error
        schemes = ("https",) if self.policy.https_only else ("https", "http")
        if url.scheme not in schemes:
            raise Refused(_WHO, f'scheme "{url.scheme}" is refused; use {" or ".join(schemes)}')
        if url.port is not None and not 0 < url.port < 65536:
            raise Refused(_WHO, f"there is no port {url.port}")
        if url.userinfo:
            raise Refused(_WHO, "a URL with a user name or password in it is refused; pass credentials=")
        return url.copy_with(fragment=None)

    def _redirected(self, here: httpx2.URL, location: str) -> httpx2.URL:
        import httpx2

        try:
            url = self._checked_url(str(here.join(location)))
        except httpx2.InvalidURL as error:
            raise BadResponse(_WHO, "the server redirects to an invalid URL") from error
        if here.scheme == "https" and url.scheme != "https":
            raise Refused(_WHO, "the server redirects from https to http")
        return url

    def _request(self, url: httpx2.URL, call: _Call, *, known: bool) -> httpx2.Request:
        import httpx2

        policy = self.policy
        headers = {"user-agent": default_user_agent(), "accept": "*/*", "accept-encoding": "identity"}
        if known:
            headers.update(call.headers)
        if call.credentials is not None:
            headers.update(call.credentials.headers_for(url))
        timeout = {"connect": policy.connect_s, "read": policy.read_s, "write": policy.read_s, "pool": policy.total_s}
        return httpx2.Request(call.method, url, headers=headers, content=call.content, extensions={"timeout": timeout})

    async def _received(self, url: httpx2.URL, response: httpx2.Response) -> Fetched:
        if not response.is_success:
            raise error_from_response(self._who, response)
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower() or "application/octet-stream"
        accepted = self.policy.content_types
        if accepted and not any(fnmatchcase(kind, pattern) for pattern in accepted):
            raise BadResponse(_WHO, f'content type "{kind[:80]}" is not one of {", ".join(accepted)}')
        body = await self._body(response)
        return Fetched(str(url), response.status_code, kind, body, dict(response.headers.items()))

    async def _body(self, response: httpx2.Response) -> bytes:
        import httpx2

        limit = self.policy.max_bytes
        declared = response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise BadResponse(_WHO, f"{int(declared[:20])} bytes announced, {limit} allowed")
        decoder = _decoder(response.headers.get("content-encoding", ""))
        body = bytearray()
        transferred = 0
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        async for chunk in stream:
            transferred += len(chunk)
            inflated = max(_RATIO_FREE, int(transferred * self.policy.max_ratio))
            body += decoder.decode(chunk, min(limit, inflated) + 1 - len(body))
            if len(body) > limit or transferred > limit:
                raise BadResponse(_WHO, f"more than {limit} bytes")
            if len(body) > inflated:
                raise BadResponse(_WHO, f"it decompresses to more than {self.policy.max_ratio:g} times its size")
        decoder.finish()
        return bytes(body)


async def fetch(
    url: str,
    *,
    policy: FetchPolicy | None = None,
    headers: Mapping[str, str] | None = None,
    credentials: Credentials | None = None,
    resolver: Resolver | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> Fetched:
    """`Fetcher.fetch` for a single GET."""
    async with Fetcher(policy, resolver=resolver, transport=transport) as fetcher:
        return await fetcher.fetch(url, headers=headers, credentials=credentials)


class _Plain:
    def decode(self, chunk: bytes, limit: int) -> bytes:
        return chunk

    def finish(self) -> None:
        return


class _Inflate:
    """gzip or zlib, never inflating more than asked for, whatever the input claims."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def decode(self, chunk: bytes, limit: int) -> bytes:
        try:
            data = self._inflater.decompress(self._inflater.unconsumed_tail + chunk, limit)
        except zlib.error as error:
            raise BadResponse(_WHO, "the compressed body is broken") from error
        if self._inflater.unused_data:
            raise BadResponse(_WHO, "data follows the compressed body")
        return data

    def finish(self) -> None:
        if not self._inflater.eof:
            raise BadResponse(_WHO, "the compressed body is cut short")


def _decoder(encoding: str) -> _Plain | _Inflate:
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return _Plain()
    if encoding in {"gzip", "x-gzip", "deflate"}:
        return _Inflate()
    raise BadResponse(_WHO, f'content encoding "{encoding[:40]}" was not asked for')


def _site(url: httpx2.URL) -> tuple[str, int | None]:
    return _host(url), url.port


def _host(url: httpx2.URL) -> str:
    return url.raw_host.decode("ascii").lower().removesuffix(".")
