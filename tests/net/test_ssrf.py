from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Sequence

import httpx2
import pytest

from roomkit.errors import BadResponse, ConfigError, ProviderTimeout, Refused, Unavailable, UsageError
from roomkit.net import Credentials, Fetcher, FetchPolicy, fetch
from roomkit.runtime import monotonic

PUBLIC = "93.184.215.14"


class Names:
    """A resolver with a script; the last answer repeats."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {host.replace("_", "."): list(found) for host, found in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int, /) -> Sequence[str]:
        self.asked.append(host)
        found = self.answers.get(host, [[PUBLIC]])
        return found.pop(0) if len(found) > 1 else found[0]


class Net(httpx2.AsyncBaseTransport):
    """The network below the checks: records what would be connected to."""

    def __init__(self, answer: Callable[[httpx2.Request], httpx2.Response]) -> None:
        self.answer = answer
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self.answer(request)


class Drip(httpx2.AsyncByteStream):
    def __init__(self, chunks: Sequence[bytes], pause: float = 0) -> None:
        self.chunks, self.pause, self.closed, self.sent = chunks, pause, False, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            await asyncio.sleep(self.pause)
            self.sent += 1
            yield chunk

    async def aclose(self) -> None:
        self.closed = True


def ok(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "Image/PNG; x=1"}, content=b"data")


def redirects(**hops: str) -> Callable[[httpx2.Request], httpx2.Response]:
    def answer(request: httpx2.Request) -> httpx2.Response:
        to = hops.get(request.headers["host"].split(".")[0])
        return ok(request) if to is None else httpx2.Response(302, headers={"location": to})

    return answer


async def test_the_body_arrives_with_its_type_and_the_connection_goes_to_the_checked_address():
    net = Net(ok)
    got = await fetch("https://media.example:8443/a.png?x=1#frag", resolver=Names(), transport=net)
    assert (got.body, got.content_type, got.status) == (b"data", "image/png", 200)
    assert got.url == "https://media.example:8443/a.png?x=1"
    (request,) = net.requests
    assert request.url.host == PUBLIC
    assert request.url.port == 8443
    assert request.headers["host"] == "media.example:8443"
    assert request.extensions["sni_hostname"] == "media.example"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://127.0.0.1/",
            "http://127.0.0.1./",
            "http://127.1/",
            "http://0/",
            "http://0.0.0.0:80/",
            "http://2130706433/",
        ),
        *("http://0x7f000001/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://017700000001/", "http://[::1]/"),
        *("http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[0:0:0:0:0:ffff:a00:1]/"),
        *(
            "http://[64:ff9b::7f00:1]/",
            "http://[fe80::1%25eth0]/",
            "http://[fd00:ec2::254]/",
            "http://169.254.169.254/latest",
        ),
        *(
            "http://10.0.0.8/",
            "http://192.168.1.1/",
            "http://172.20.0.1/",
            "http://100.100.100.200/",
            "http://224.0.0.1/",
        ),
        *(
            "http://255.255.255.255/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://app.localhost/",
            "http://metadata/",
        ),
        *(
            "http://mixed.example/",
            "http://v6.example/",
            "http://rebind.example./",
            "http://127。0。0。1/",
            "http://①②⑦.⓪.⓪.①/",
        ),
        *(
            "http://user@10.0.0.1/",
            "http://good.example@127.0.0.1/",
            "http://good.example\\@127.0.0.1/",
            "http:///etc",
            "//x/",
        ),
        *(
            "file:///etc/passwd",
            "gopher://x/",
            "ftp://good.example/",
            "data:text/plain,x",
            "javascript:1",
            "",
            "good.example",
        ),
        *("http://a..b/", "http://good.example%00.evil/", "http://exa mple/", "http://good.example:99999/"),
        *(
            "http://user:secret@good.example/",
            "http://[2002:7f00:1::]/",
            "http://[2001:db8::1]/",
            "http://168.63.129.16/",
        ),
    ],
)
async def test_what_is_not_public_is_refused_before_anything_is_sent(url: str):
    inside = Names(
        localhost=[["127.0.0.1", "::1"]],
        app_localhost=[["::1"]],
        metadata=[["169.254.169.254"]],
        mixed_example=[[PUBLIC, "10.0.0.1"]],
        v6_example=[["::ffff:10.0.0.1"]],
        rebind_example=[["10.0.0.1"], [PUBLIC]],
    )
    net = Net(ok)
    with pytest.raises(Refused) as caught:
        await fetch(url, resolver=inside, transport=net)
    assert not net.requests
    assert "secret" not in str(caught.value)


async def test_rebinding_gains_nothing_because_a_name_is_resolved_once():
    names = Names(rebind_example=[[PUBLIC], ["127.0.0.1"]])
    net = Net(ok)
    await fetch("http://rebind.example/", resolver=names, transport=net)
    assert names.asked == ["rebind.example"]
    assert [r.url.host for r in net.requests] == [PUBLIC]


async def test_every_redirect_is_checked_again():
    for inside in (
        "http://10.0.0.1/",
        "//169.254.169.254/",
        "http://inner.example/",
        "http://[::1]:80/",
        "file:///etc/x",
    ):
        net = Net(redirects(start=inside))
        with pytest.raises(Refused):
            await fetch("http://start.example/", resolver=Names(inner_example=[["10.0.0.1"]]), transport=net)
        assert len(net.requests) == 1


async def test_redirects_are_followed_up_to_the_cap():
    hops = {"a": "https://b.example/", "b": "https://c.example/x", "c": "/y", "d": "https://d.example/"}
    net = Net(redirects(a="https://b.example/", b="https://e.example/x"))
    got = await fetch("https://a.example/", resolver=Names(), transport=net)
    assert got.url == "https://e.example/x"
    loop = Net(redirects(**hops))
    with pytest.raises(Refused, match="more than 3 redirects"):
        await fetch("https://d.example/", resolver=Names(), transport=loop)
    assert len(loop.requests) == 4


async def test_redirects_never_leave_https_and_are_not_followed_by_posts():
    net = Net(redirects(a="http://b.example/"))
    with pytest.raises(Refused, match="from https to http"):
        await fetch("https://a.example/", resolver=Names(), transport=net)
    async with Fetcher(resolver=Names(), transport=Net(redirects(a="https://b.example/"))) as fetcher:
        with pytest.raises(Refused, match="redirects a POST"):
            await fetcher.fetch("https://a.example/", method="POST", content=b"x")


async def test_credentials_go_to_their_host_only():
    net = Net(redirects(api="https://cdn.example/", cdn="https://api.vendor.example:444/"))
    token = Credentials.basic("api.vendor.example", "sid", "planted-canary")
    assert "planted" not in repr(token)
    headers = {"X-Custom": "mine"}
    with pytest.raises(Refused):  # the loop of this fake ends at the cap
        await fetch("https://api.vendor.example/", headers=headers, credentials=token, resolver=Names(), transport=net)
    sent = [(r.headers["host"], "authorization" in r.headers, "x-custom" in r.headers) for r in net.requests]
    assert sent[:3] == [
        ("api.vendor.example", True, True),
        ("cdn.example", False, False),
        ("api.vendor.example:444", False, False),
    ]
    plain = Net(ok)
    await fetch("http://api.vendor.example/", credentials=token, resolver=Names(), transport=plain)
    assert "authorization" not in plain.requests[0].headers


async def test_credentials_among_ordinary_headers_are_refused():
    for name in ("Authorization", "Cookie", "host"):
        with pytest.raises(UsageError, match="credentials="):
            await fetch("https://a.example/", headers={name: "x"}, resolver=Names(), transport=Net(ok))


async def test_an_announced_size_over_the_limit_is_refused_unread():
    stream = Drip([b"x"] * 10)
    net = Net(lambda _: httpx2.Response(200, headers={"content-length": "10000000000"}, stream=stream))
    with pytest.raises(BadResponse, match="10000000000 bytes announced"):
        await fetch("https://a.example/", resolver=Names(), transport=net)
    assert stream.sent == 0
    assert stream.closed


async def test_a_body_that_grows_over_the_limit_is_cut():
    stream = Drip([b"x" * 1000] * 1000)
    net = Net(lambda _: httpx2.Response(200, stream=stream))
    with pytest.raises(BadResponse, match="more than 5000 bytes"):
        await fetch("https://a.example/", policy=FetchPolicy(max_bytes=5000), resolver=Names(), transport=net)
    assert stream.sent == 6
    assert stream.closed


async def test_a_slow_drip_ends_at_the_total_time():
    stream = Drip([b"x"] * 10_000, pause=1)
    net = Net(lambda _: httpx2.Response(200, stream=stream))
    start = monotonic()
    with pytest.raises(ProviderTimeout):
        await fetch("https://a.example/", resolver=Names(), transport=net)
    assert monotonic() - start == pytest.approx(30)
    assert stream.closed


def encoded(encoding: str, body: bytes) -> Net:
    return Net(
        lambda _: httpx2.Response(200, headers={"content-encoding": encoding}, stream=Drip([body[:50], body[50:]]))
    )


async def test_compressed_bodies_are_read_but_not_bombs():
    text = b"hello " * 100
    for encoding, body in (
        ("gzip", gzip.compress(text, mtime=0)),
        ("deflate", zlib.compress(text)),
        ("identity", text),
    ):
        assert (await fetch("https://a.example/", resolver=Names(), transport=encoded(encoding, body))).body == text
    bomb = gzip.compress(bytes(3_000_000), mtime=0)
    with pytest.raises(BadResponse, match="100 times its size"):
        await fetch("https://a.example/", resolver=Names(), transport=encoded("gzip", bomb))
    small = FetchPolicy(max_bytes=100_000)
    with pytest.raises(BadResponse, match="more than 100000 bytes"):
        await fetch("https://a.example/", policy=small, resolver=Names(), transport=encoded("gzip", bomb))


@pytest.mark.parametrize(
    "encoding, body, told",
    [
        ("gzip", gzip.compress(b"x" * 999, mtime=0)[:-6], "cut short"),
        ("gzip", b"no gzip at all, not even a little bit of it, and more than fifty bytes", "broken"),
        ("gzip", gzip.compress(b"x", mtime=0) + b"trailing bytes after the end of the gzip member......", "follows"),
        ("br", b"x", "not asked for"),
        ("gzip, gzip", b"x", "not asked for"),
    ],
)
async def test_broken_encodings_are_told(encoding: str, body: bytes, told: str):
    with pytest.raises(BadResponse, match=told):
        await fetch("https://a.example/", resolver=Names(), transport=encoded(encoding, body))


async def test_policy_on_types_and_schemes():
    images = FetchPolicy(content_types=("image/*",), https_only=True)
    assert (await fetch("https://a.example/", policy=images, resolver=Names(), transport=Net(ok))).body == b"data"
    page = Net(lambda _: httpx2.Response(200, headers={"content-type": "text/html"}, content=b"<p>"))
    with pytest.raises(BadResponse, match="text/html"):
        await fetch("https://a.example/", policy=images, resolver=Names(), transport=page)
    with pytest.raises(Refused, match="use https"):
        await fetch("http://a.example/", policy=images, resolver=Names(), transport=Net(ok))


async def test_status_errors_are_mapped_and_the_next_address_is_tried_when_connecting_fails():
    gone = Net(lambda _: httpx2.Response(404))
    with pytest.raises(Refused) as caught:
        await fetch("https://a.example/", resolver=Names(), transport=gone)
    assert caught.value.status == 404

    def only_second(request: httpx2.Request) -> httpx2.Response:
        if request.url.host != PUBLIC:
            raise httpx2.ConnectError("unreachable")
        return ok(request)

    names = Names(a_example=[["2606:4700::1", PUBLIC]])
    net = Net(only_second)
    assert (await fetch("https://a.example/", resolver=names, transport=net)).body == b"data"
    assert [r.url.host for r in net.requests] == ["2606:4700::1", PUBLIC]


async def test_unknown_hosts_are_unavailable():
    async def nobody(host: str, port: int, /) -> Sequence[str]:
        raise OSError("no such host")

    with pytest.raises(Unavailable, match="was not found"):
        await fetch("https://a.example/", resolver=nobody, transport=Net(ok))
    with pytest.raises(Unavailable, match="no address"):
        await fetch("https://a.example/", resolver=Names(a_example=[[]]), transport=Net(ok))


async def test_own_networks_can_be_allowed():
    policy = FetchPolicy(allowed_networks=("10.1.0.0/16",))
    assert (await fetch("http://10.1.2.3/", policy=policy, transport=Net(ok))).status == 200
    with pytest.raises(Refused):
        await fetch("http://10.2.2.3/", policy=policy, transport=Net(ok))
    with pytest.raises(ConfigError, match="write networks as"):
        Fetcher(FetchPolicy(allowed_networks=("intranet",)))
