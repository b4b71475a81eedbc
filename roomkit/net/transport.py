"""The transport that reaches only public addresses. Imports httpx2; loaded on first use only."""

from __future__ import annotations

from collections.abc import Iterable

import httpx2

from roomkit.net.addresses import parse_networks
from roomkit.net.client import ssl_context
from roomkit.net.ssrf import Resolver, resolve_checked, system_resolver

_ATTEMPTS = 4  # addresses of one host tried in turn when connecting fails


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Resolves each host once, refuses it unless all its addresses are public, and connects to the address it checked.

    The certificate is checked against the host's name, and so is what the server sees (SNI, Host header); a name that
    changes its address between check and use (DNS rebinding) gains nothing. Wrap it in a client for any request to a
    URL that somebody else chose; every redirect passes here again. `allowed` names networks of your own, as CIDR.
    """

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport | None = None,
        *,
        resolver: Resolver | None = None,
        allowed: Iterable[str] = (),
    ) -> None:
        self._inner = inner or httpx2.AsyncHTTPTransport(
            verify=ssl_context(),
            trust_env=False,
            limits=httpx2.Limits(max_connections=100, max_keepalive_connections=0),
        )
        self._resolver = resolver or system_resolver
        self._allowed = parse_networks(allowed)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        host = request.url.raw_host.decode("ascii").lower().removesuffix(".")
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        addresses = (await resolve_checked(host, port, resolver=self._resolver, allowed=self._allowed))[:_ATTEMPTS]
        for address in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_pinned(request, host, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_pinned(request, host, addresses[-1]))

    async def aclose(self) -> None:
        await self._inner.aclose()


def _pinned(request: httpx2.Request, host: str, address: str) -> httpx2.Request:
    headers = request.headers.copy()
    headers["host"] = request.url.netloc.decode("ascii")
    # A pool sees the address only: it would hand one host's connection to another host on the same address.
    headers["connection"] = "close"
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )
