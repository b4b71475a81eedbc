from __future__ import annotations

import logging

import httpx2
import pytest

from roomkit.errors import (
    BadResponse,
    ConfigError,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.net import ClientOptions, error_from_response, http_client, parse_retry_after, vendor_errors


def answering(status: int, headers: dict[str, str] | None = None) -> httpx2.Response:
    return httpx2.Response(status, headers=headers)


async def test_requests_carry_our_user_agent_the_base_url_and_the_limits():
    seen: list[httpx2.Request] = []

    def vendor(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return answering(302, {"location": "https://elsewhere.example/"})

    options = ClientOptions(read_s=7, connect_s=1)
    client = http_client(
        options, base_url="https://api.example/v1/", auth=("sid", "token"), transport=httpx2.MockTransport(vendor)
    )
    async with client:
        response = await client.get("messages")
    assert response.status_code == 302, "redirects are not followed"
    (request,) = seen
    assert str(request.url) == "https://api.example/v1/messages"
    assert request.headers["user-agent"].startswith("roomkit")
    assert request.extensions["timeout"]["read"] == 7
    assert request.extensions["timeout"]["connect"] == 1


async def test_proxies_of_the_environment_are_off_by_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with http_client() as client:
        assert not client.trust_env
        assert not client._mounts
    async with http_client(ClientOptions(trust_env=True)) as client:
        assert client._mounts


async def test_what_the_http_library_logs_is_redacted(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    transport = httpx2.MockTransport(lambda _: answering(200))
    async with http_client(transport=transport) as client:
        await client.get("https://api.example/?token=planted-canary")
    assert "HTTP Request" in caplog.text
    assert "planted-canary" not in caplog.text


@pytest.mark.parametrize(
    "raised, kind, retryable, ambiguous",
    [
        (httpx2.ConnectError("x"), Unavailable, True, False),
        (httpx2.ConnectTimeout("x"), ProviderTimeout, True, False),
        (httpx2.PoolTimeout("x"), ProviderTimeout, True, False),
        (httpx2.ProxyError("x"), Unavailable, True, False),
        (httpx2.ReadTimeout("x"), ProviderTimeout, True, True),
        (httpx2.WriteTimeout("x"), ProviderTimeout, True, True),
        (httpx2.ReadError("x"), Unavailable, True, True),
        (httpx2.WriteError("x"), Unavailable, True, True),
        (httpx2.RemoteProtocolError("x"), Unavailable, True, True),
        (httpx2.DecodingError("x"), BadResponse, False, False),
        (TimeoutError("x"), ProviderTimeout, True, True),
    ],
)
def test_failures_of_the_network(raised: Exception, kind: type[ProviderError], retryable: bool, ambiguous: bool):
    with pytest.raises(ProviderError) as caught, vendor_errors("acme"):
        raise raised
    error = caught.value
    assert (type(error), error.retryable, error.ambiguous) == (kind, retryable, ambiguous)
    assert error.provider == "acme"


def test_a_wrong_url_is_the_hosts_mistake_and_other_errors_pass():
    with pytest.raises(ConfigError, match="check the URL"), vendor_errors("acme"):
        raise httpx2.UnsupportedProtocol("missing protocol")
    with pytest.raises(KeyError), vendor_errors("acme"):
        raise KeyError("ours")


@pytest.mark.parametrize(
    "status, kind, retryable",
    [
        (302, BadResponse, False),
        (400, Refused, False),
        (401, Unauthorized, False),
        (403, Unauthorized, False),
        (404, Refused, False),
        (408, ProviderTimeout, True),
        (425, Unavailable, True),
        (429, RateLimited, True),
        (500, Unavailable, True),
        (501, Unavailable, False),
        (503, Unavailable, True),
        (529, Unavailable, True),
    ],
)
def test_status_codes(status: int, kind: type[ProviderError], retryable: bool):
    error = error_from_response("acme", answering(status, {"retry-after": "3"}), "told password=hunter2", code="E7")
    assert (type(error), error.retryable, error.status, error.retry_after, error.code) == (
        kind,
        retryable,
        status,
        3,
        "E7",
    )
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({}, None),
        ({"retry-after": "12"}, 12),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None):
    assert parse_retry_after(httpx2.Headers(headers)) == seconds
