"""Who really sent a letter: the verdict of our own mail server on DKIM, SPF and DMARC (RFC 8601).

A From header is only a claim. Whoever can write a letter can also write an Authentication-Results header into it, so
that only the topmost one counts, and only under the name of a server that is trusted by configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from roomkit.protocols.mail.letter import Letter

_COMMENT = re.compile(r"\([^()]{0,500}\)")
_RESULT = re.compile(r"\s*([a-z0-9-]{2,20})\s*=\s*([a-z]{3,12})\b(.*)", re.DOTALL | re.IGNORECASE)
_PROPERTY = re.compile(r"([a-z]{3,10}\.[a-z-]{1,20})\s*=\s*\"?([^\s\";]{1,300})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`verified` when the address in From was proven to be its domain's own. The rest tells why, for people."""

    verified: bool = False
    dmarc: str = "none"
    dkim: str = "none"
    spf: str = "none"
    by: str | None = None


def verdict_of(letter: Letter, trusted: Iterable[str]) -> Verdict:
    """What the topmost Authentication-Results header of a trusted server says of the sender's address.

    Names in `trusted` are compared as a whole, case aside. The server has to remove headers of its own name from
    incoming mail (RFC 8601, section 5), as all common ones can."""
    names = {name.lower() for name in trusted}
    for value in letter.all("authentication-results"):
        head, _, rest = _COMMENT.sub(" ", value).partition(";")
        by = (head.split() or [""])[0].lower()
        if by in names:
            return _judged(rest, domain_of(letter.sender), by)
    return Verdict()


def verdict_from(
    sender: str, *, dkim: Iterable[tuple[str, str]] = (), spf: str = "none", envelope: str = ""
) -> Verdict:
    """The same from what a vendor found itself: (domain, result) of each DKIM signature, and SPF of the envelope."""
    domain = domain_of(sender)
    signatures = list(dkim)
    by_dkim = any(result.lower() == "pass" and aligned(signer, domain) for signer, result in signatures)
    by_spf = spf.lower() == "pass" and aligned(domain_of(envelope), domain)
    passed = "pass" if any(result.lower() == "pass" for _, result in signatures) else "fail" if signatures else "none"
    return Verdict(by_dkim or by_spf, "none", passed, spf.lower() or "none", "vendor")


def domain_of(address: str) -> str:
    return address.rpartition("@")[2].strip().strip("<>.").lower()


def aligned(one: str, other: str) -> bool:
    """DMARC's relaxed alignment, without a list of public suffixes: the same domain, or one above the other. A single
    label (a top-level domain) is nobody's."""
    one, other = one.lower().strip("."), other.lower().strip(".")
    if "." not in one or "." not in other:
        return False
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _judged(results: str, domain: str, by: str) -> Verdict:
    found = {"dmarc": "none", "dkim": "none", "spf": "none"}
    proven: set[str] = set()
    for piece in results.split(";")[:40]:
        match = _RESULT.match(piece)
        if match is None or (method := match[1].lower()) not in found:
            continue
        about = {name.lower(): value for name, value in _PROPERTY.findall(match[3])}
        if match[2].lower() == "pass" and _speaks_for(method, about, domain):
            proven.add(method)
        if found[method] != "pass":
            found[method] = match[2].lower()
    # Where the domain's own policy has spoken, nothing else counts.
    verified = "dmarc" in proven or (bool(proven) and found["dmarc"] not in {"pass", "fail"})
    return Verdict(verified, found["dmarc"], found["dkim"], found["spf"], by)


def _speaks_for(method: str, about: dict[str, str], domain: str) -> bool:
    if method == "dmarc":
        return "." in domain and domain_of(about.get("header.from", "")) == domain
    signer = about.get("header.d") or about.get("header.i", "") if method == "dkim" else about.get("smtp.mailfrom", "")
    return aligned(domain_of(signer), domain)
