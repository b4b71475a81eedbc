from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.net.addresses import checked_address, host_problem, is_public, parse_networks

REFUSED = [
    *(
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
    ),
    *(
        "127.0.0.1",
        "127.1.2.3",
        "168.63.129.16",
        "169.254.169.254",
    ),
    *(
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.192",
        "192.0.2.1",
    ),
    *(
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
    ),
    *(
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ),
    *(
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:a9fe:a9fe",
    ),
    *(
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
    ),
    *(
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::",
    ),
    *(
        "3fff::1",
        "5f00::1",
        "fc00::1",
    ),
    *(
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "2606:4700::1%eth0",
    ),
]
PUBLIC = [
    *(
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.255.255",
        "172.32.0.1",
    ),
    *(
        "192.167.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.254",
    ),
    *(
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ),
]


@pytest.mark.parametrize("text", REFUSED)
def test_not_public(text: str):
    assert not is_public(ipaddress.ip_address(text))
    assert checked_address(text) is None


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str):
    assert is_public(ipaddress.ip_address(text))
    assert checked_address(text) == ipaddress.ip_address(text)


@given(st.ip_addresses())
def test_never_more_generous_than_the_standard_library(address: ipaddress.IPv4Address | ipaddress.IPv6Address):
    if is_public(address):
        inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        assert (inner or address).is_global
        assert not address.is_multicast


def test_allowed_networks_are_reached_however_they_are_spelled_and_nothing_else_is():
    networks = parse_networks(["10.1.0.0/16", "fd00::/8"])
    assert checked_address("10.1.2.3", networks)
    assert checked_address("::ffff:10.1.2.3", networks)
    assert checked_address("fd00::1", networks)
    assert not checked_address("10.2.0.1", networks)
    assert not checked_address("no address", networks)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "127.1",
            "127.0.1",
            "1.2.3.4.5",
            "256.1.1.1",
        ),
        *(
            "08.8.8.8",
            "8.8.8.010",
            "0x",
            "a.b.1",
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.",
            "-a.com",
            "a-.com",
            "a b",
            "a%00.com",
        ),
        *("localhost%2f", "[::1]", "::g", "1::2::3", "a" * 254, "ex\u00e4mple.com", "a/b", "a@b", "a\nb"),
    ],
)
def test_host_is_refused_for_its_spelling(host: str):
    assert host_problem(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "a.b-c.example",
        "_sip.example.com",
        "xn--bcher-kva.example",
        "8.8.8.8",
        "2606:4700::1",
        "3com.com",
    ],
)
def test_host_is_fine(host: str):
    assert host_problem(host) is None
