"""Which network addresses and host names may be reached on behalf of a stranger.

The tables are our own copy of the IANA special-purpose registries, because `ipaddress.is_global` answers differently
from one Python patch release to the next. IPv6 is an allow-list: only 2000::/3 is routed on the public internet.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(n)
    for n in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host agent behind a public-looking address
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_ROUTED_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(ipaddress.IPv6Network(n) for n in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def is_public(address: Address) -> bool:
    """Whether `address` is a unicast address of the public internet.

    IPv4 inside IPv6 (mapped, NAT64) counts as the IPv4 address it leads to; 6to4 and Teredo are refused.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    if (inner := _inner_v4(address)) is not None:
        return is_public(inner)
    if address.scope_id is not None or address not in _ROUTED_V6:
        return False
    return not any(address in network for network in _REFUSED_V6)


def checked_address(text: str, allowed: Iterable[Network] = ()) -> Address | None:
    """The address in `text` when it may be reached: public, or inside one of the `allowed` networks; else None."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    target = address
    if isinstance(address, ipaddress.IPv6Address):
        target = _inner_v4(address) or address
    if is_public(address) or any(target in network for network in allowed if network.version == target.version):
        return address
    return None


def parse_networks(allowed: Iterable[str]) -> tuple[Network, ...]:
    """Networks in CIDR notation; raises `ValueError` for anything else."""
    return tuple(ipaddress.ip_network(text) for text in allowed)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_problem(host: str) -> str | None:
    """Why `host` (ASCII, lower case, without brackets) is not acceptable at all, or None.

    Numbers that some resolvers read as an address (`2130706433`, `0x7f.1`, `0177.0.0.1`) are refused as such: an IPv4
    address has one spelling.
    """
    if ":" in host:
        return None if _is_address(host) else "it is no IPv6 address"
    if not host or len(host) > 253 or not _HOST.fullmatch(host):
        return "it is no valid host name"
    if _NUMBER.fullmatch(host.rsplit(".", 1)[-1]) and not _is_address(host):
        return "a numeric host must be written as four decimal numbers"
    return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _inner_v4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None
