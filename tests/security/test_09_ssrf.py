"""Line 9: whatever address a stranger makes us fetch, we reach the public internet or nothing: in every spelling,
through redirects and through names that change their address; and what is meant for a vendor goes to its host only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx2
import pytest

from roomkit.errors import ProviderError, Refused, RoomKitError
from roomkit.models.content import TextContent
from roomkit.models.delivery import Attachment, Outgoing
from roomkit.net import FetchPolicy, fetch
from roomkit.net.ssrf import Credentials
from roomkit.providers.http.http import HTTPWebhookOptions, HTTPWebhooks
from roomkit.testing import VirtualClock
from tests.security.adapters import SECRET, WEBHOOKS, WebhookCase

PUBLIC_IP = "93.184.215.14"
INSIDE: tuple[str, ...] = (
    # Loopback in all its spellings.
    *("127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.255.255.254", "0", "0.0.0.0", "2130706433", "0x7f000001"),
    *(
        "0x7f.0.0.1",
        "0x7F.1",
        "0177.0.0.1",
        "017700000001",
        "0177.1",
        "127.0.0.0x1",
        "127.000.000.001",
        "00000000177.1",
    ),
    *("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[0::1]"),
    *("localhost", "LOCALHOST", "localhost.", "app.localhost", "localhost.localdomain", "ip6-localhost"),
    # Private networks, this network, link-local, carrier's, benchmarks, documentation, multicast, reserved.
    *("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255", "100.64.0.1"),
    *("169.254.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1"),
    *("255.255.255.255", "192.88.99.1", "0.1.2.3", "3232235777", "0xc0a80101", "0300.0250.0.1", "012.1.2.3", "10.1"),
    # Metadata services.
    *("169.254.169.254", "169.254.169.253", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16", "2852039166"),
    *("0xa9fea9fe", "0251.0376.0251.0376", "metadata.google.internal", "metadata", "[::ffff:169.254.169.254]"),
    # IPv6: unique local, link-local, with zone, NAT64, 6to4, Teredo, documentation, multicast, discard.
    *(
        "[fc00::1]",
        "[fd12:3456::1]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[64:ff9b::a00:1]",
        "[64:ff9b:1::1]",
        "[2002:a00:1::]",
    ),
    *(
        "[2001:0:5ef5:79fb::1]",
        "[2001:db8::1]",
        "[ff02::1]",
        "[100::1]",
        "[fec0::1]",
        "[::ffff:0:10.0.0.1]",
        "[3fff::1]",
    ),
    # Other characters for the same.
    *("127。0。0。1", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "127.0.0.1%2f@good.example", "good.example%00.evil"),
    # Names that lead inside.
    *("inside.example", "mixed.example", "six.example", "mapped.example", "empty.example", "127.0.0.1.nip.example"),
)
NAMES: dict[str, Sequence[str]] = {
    "localhost": ["127.0.0.1", "::1"],
    "app.localhost": ["::1"],
    "localhost.localdomain": ["127.0.0.1"],
    "ip6-localhost": ["::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata": ["169.254.169.254"],
    "inside.example": ["10.0.0.1"],
    "mixed.example": [PUBLIC_IP, "10.0.0.1"],
    "six.example": ["fd00::1"],
    "mapped.example": ["::ffff:10.0.0.1"],
    "empty.example": [],
    "127.0.0.1.nip.example": ["127.0.0.1"],
}
URLS = (
    *(
        "http://u@10.0.0.1/",
        "http://good.example@127.0.0.1/",
        "http://good.example:80@127.0.0.1/",
        "http://good.example\\@10.0.0.1/",
    ),
    *(
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_INFO",
        "dict://127.0.0.1:11211/",
        "ftp://good.example/",
        "ldap://good.example/",
    ),
    *(
        "jar:http://good.example!/",
        "data:text/plain,x",
        "unix:///run/docker.sock",
        "http:///etc/passwd",
        "//good.example/",
        "",
        "http://",
    ),
)


class Resolver:
    """Names as an attacker's server tells them; each look-up of "rebind" is answered otherwise."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int, /) -> Sequence[str]:
        self.asked.append(host)
        if host.startswith("rebind"):
            return [PUBLIC_IP] if self.asked.count(host) % 2 else ["127.0.0.1"]
        return NAMES.get(host, [PUBLIC_IP])


class Net(httpx2.AsyncBaseTransport):
    """What would be connected to."""

    def __init__(self, answer: Callable[[httpx2.Request], httpx2.Response] | None = None) -> None:
        self.answer = answer or (lambda _: httpx2.Response(200, content=b"inside"))
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self.answer(request)

    @property
    def hosts(self) -> set[str]:
        return {request.url.host for request in self.requests}


def test_the_matrix_is_large_enough() -> None:
    assert len(set(INSIDE)) >= 60


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_spelling_leads_inside(scheme: str) -> None:
    for host in INSIDE:
        for port in ("", ":80", ":6379"):
            net = Net()
            with pytest.raises(ProviderError):
                await fetch(f"{scheme}://{host}{port}/latest/meta-data", resolver=Resolver(), transport=net)
            assert not net.requests, host


@pytest.mark.parametrize("url", URLS)
async def test_other_schemes_and_disguises_are_refused(url: str) -> None:
    net = Net()
    with pytest.raises(Refused):
        await fetch(url, resolver=Resolver(), transport=net)
    assert not net.requests


async def test_a_redirect_leads_no_further_than_a_url() -> None:
    for host in INSIDE:
        for location in (f"http://{host}/", f"//{host}/"):
            net = Net(
                lambda request, to=location: (
                    httpx2.Response(302, headers=[(b"location", to.encode())])
                    if request.url.host == PUBLIC_IP
                    else httpx2.Response(200, content=b"inside")
                )
            )
            with pytest.raises(ProviderError):
                await fetch("http://good.example/", resolver=Resolver(), transport=net)
            assert net.hosts == {PUBLIC_IP}, location


async def test_a_name_that_changes_its_address_gains_nothing() -> None:
    """Each fetch looks up once and connects to what it checked, under every redirect."""
    for n in range(50):
        resolver, net = Resolver(), Net(lambda r: httpx2.Response(302, headers={"location": "/again"}))
        with pytest.raises(ProviderError):
            await fetch(f"http://rebind{n}.example/", resolver=resolver, transport=net)
        assert net.hosts == {PUBLIC_IP}


@pytest.mark.parametrize("host", INSIDE)
async def test_a_customers_webhook_cannot_be_pointed_inside(host: str) -> None:
    net = Net()
    provider = HTTPWebhooks(
        HTTPWebhookOptions(secrets=(SECRET,)), clock=VirtualClock(), resolver=Resolver(), transport=net
    )
    message = Outgoing(
        recipient=f"http://{host}/hook",
        content=TextContent(text="hello"),
        channel_id="crm",
        room_id="r",
        event_id="e",
        idempotency_key="k",
    )
    with pytest.raises(ProviderError):
        await provider.send(message)
    await provider.aclose()
    assert not net.requests


MEDIA = {name: case for name, case in WEBHOOKS.items() if hasattr(case.kind, "fetch_media")}


@pytest.mark.parametrize("case", MEDIA.values(), ids=MEDIA)
async def test_no_attachment_leads_inside_and_no_key_goes_to_a_stranger(case: WebhookCase) -> None:
    """A signed webhook with a foreign media URL: the vendor's credentials stay with the vendor's own host."""
    assert case.fetching is not None, f"say in adapters.py how {case.kind.__name__} fetches"
    net, host = Net(), case.key_host
    provider = case.fetching(net, Resolver())
    for inside in INSIDE:
        with pytest.raises(RoomKitError):
            await provider.fetch_media(Attachment(url=f"http://{inside}/x", needs_auth=True))
    assert not net.requests
    strangers = [
        *("https://evil.example/x", f"http://{host}/x", f"https://{host}:8443/x", f"https://{host}.evil.example/"),
        *(f"https://x{host}/", f"https://evil.example/{host}", f"https://evil.example?{host}"),
    ]
    for url in strangers if host else strangers[:1]:
        await provider.fetch_media(Attachment(url=url, needs_auth=True))
    assert net.requests
    assert all("authorization" not in request.headers for request in net.requests)
    if not host:
        return
    net.requests.clear()
    await provider.fetch_media(Attachment(url=f"https://{host}/x", needs_auth=True))
    assert "authorization" in net.requests[0].headers
    hop = Net(
        lambda r: (
            httpx2.Response(302, headers={"location": "https://evil.example/"})
            if host in r.headers["host"]
            else httpx2.Response(200)
        )
    )
    await case.fetching(hop, Resolver()).fetch_media(Attachment(url=f"https://{host}/x"))
    assert ["authorization" in request.headers for request in hop.requests] == [True, False]


async def test_credentials_are_for_one_host_in_one_spelling() -> None:
    key = Credentials.bearer("api.vendor.example", "planted-key")
    for url in ("https://API.vendor.example./x", "https://api.vendor.example/x"):
        net = Net()
        await fetch(url, credentials=key, resolver=Resolver(), transport=net)
        assert "authorization" in net.requests[0].headers


async def test_an_own_network_is_allowed_by_name_only() -> None:
    policy = FetchPolicy(allowed_networks=("10.0.0.0/8",))
    net = Net()
    await fetch("http://inside.example/", policy=policy, resolver=Resolver(), transport=net)
    assert net.hosts == {"10.0.0.1"}
    for host in ("127.0.0.1", "192.168.0.1", "[::1]", "169.254.169.254"):
        with pytest.raises(Refused):
            await fetch(f"http://{host}/", policy=policy, resolver=Resolver(), transport=Net())
