"""Attacking webhook signatures: one thing of a signed request is changed at a time, and no lie may pass.

A mutant that is accepted and yet says the same (`%41` for `A`, parameters in another order where order is not signed)
is harmless; one that says something else is a forgery, and so is one whose proof (a header without which nothing is
believed) is not the one that was given: a signature of which a part is enough can be guessed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import parse_qsl, quote

from roomkit.errors import AccessDenied
from roomkit.models.delivery import WebhookRequest
from roomkit.ports.message import MessageProvider

Mutator = Callable[[WebhookRequest, random.Random], WebhookRequest]


@dataclass(slots=True)
class FuzzReport:
    """`forged` and `crashed` name the mutations which passed, or broke the check in another way than refusing. Of those
    tried, `different` were not tried before: dice come upon some again and again."""

    tried: int = 0
    different: int = 0
    refused: int = 0
    harmless: int = 0
    excused: int = 0
    forged: list[str] = field(default_factory=list[str])
    crashed: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        return not self.forged and not self.crashed and self.refused > 0


def fuzz_signatures(
    provider: MessageProvider,
    signed: Sequence[WebhookRequest],
    *,
    n: int,
    seed: int = 0,
    channel_id: str = "fuzz",
    excused: Callable[[WebhookRequest, WebhookRequest], bool] | None = None,
) -> FuzzReport:
    """Tries `n` mutants of correctly signed requests. Deterministic for a seed. `excused(request, mutant)` names what
    the vendor's own scheme cannot tell apart; such mutants are counted, not reported."""
    fuzzed = [Fuzzed(provider, request, channel_id, excused) for request in signed]
    report = FuzzReport()
    attack_at_random(fuzzed, report, n=n, rng=random.Random(seed))
    return report


def attack_at_random(fuzzed: Sequence[Fuzzed], report: FuzzReport, *, n: int, rng: random.Random) -> None:
    """Tries mutants until the report counts `n`."""
    while report.tried < n:
        one = fuzzed[rng.randrange(len(fuzzed))]
        name, mutant = mutate(one.request, rng)
        if rng.random() < 0.2:
            second, mutant = mutate(mutant, rng)
            name = f"{name}, {second}"
        one.attack(report, name, mutant)


class Fuzzed:
    """A signed request under attack. Raises `AccessDenied` when it is not rightly signed to begin with."""

    def __init__(
        self,
        provider: MessageProvider,
        request: WebhookRequest,
        channel_id: str = "fuzz",
        excused: Callable[[WebhookRequest, WebhookRequest], bool] | None = None,
    ) -> None:
        self.request = request
        self._provider = provider
        self._channel_id = channel_id
        self._excused = excused
        self._known: dict[int, str] = {}
        provider.verify(request)
        self._meaning = _meaning(provider, request, channel_id)
        self._proof = {name: _gist(value) for name, value in request.headers.items() if self._needs(name)}

    def _needs(self, name: str) -> bool:
        if name == "content-type":  # How the body is to be read: that is its meaning, which is compared.
            return False
        rest = {other: value for other, value in self.request.headers.items() if other != name}
        try:
            self._provider.verify(replace(self.request, headers=rest))
        except AccessDenied:
            return True
        return False

    def attack(self, report: FuzzReport, name: str, mutant: WebhookRequest) -> None:
        """Tries one mutant; one that is no other request is not counted, and one that is known is only counted."""
        if mutant == self.request:
            return
        report.tried += 1
        same = hash((mutant.method, mutant.url, mutant.body, tuple(sorted(mutant.headers.items()))))
        verdict = self._known.get(same)
        if verdict is None:
            report.different += 1
            verdict = self._known[same] = self._try(report, name, mutant)
        if verdict:
            setattr(report, verdict, getattr(report, verdict) + 1)

    def _try(self, report: FuzzReport, name: str, mutant: WebhookRequest) -> str:
        """Which counter of the report it belongs to; "" when it is named there."""
        try:
            self._provider.verify(mutant)
            same = _meaning(self._provider, mutant, self._channel_id) == self._meaning
        except AccessDenied:
            return "refused"
        except Exception as error:  # noqa: BLE001 - any other way out is what this looks for
            report.crashed.append(f"{name}: {type(error).__name__}: {error}")
            return ""
        if any(_gist(mutant.headers.get(name, "")) != value for name, value in self._proof.items()):
            report.forged.append(f"{name}, which leaves the proof whole no more: {mutant}")
            return ""
        if same:
            return "harmless"
        if self._excused is not None and self._excused(self.request, mutant):
            return "excused"
        report.forged.append(f"{name}: {mutant}")
        return ""


def _gist(value: str) -> str:
    """What of a header counts: hex is the same in capitals, and base64 without its padding."""
    return value.strip(" =").casefold()


def every_mutant(request: WebhookRequest) -> Iterator[tuple[str, WebhookRequest]]:
    """Each bit of the body, each byte removed, doubled or cut off; the same of the URL behind the host and of each
    header; each header left out; headers of proxies added; other moments for each header that is a number."""
    body, url, headers = request.body, request.url, dict(request.headers)
    for at in range(len(body)):
        for bit in range(8):
            yield f"bit {bit} of byte {at}", replace(request, body=_put(body, at, body[at] ^ 1 << bit))
        yield f"without byte {at}", replace(request, body=body[:at] + body[at + 1 :])
        yield f"byte {at} twice", replace(request, body=body[: at + 1] + body[at:])
        yield f"cut at {at}", replace(request, body=body[:at])
    for at in range(url.index("/", url.index("//") + 2), len(url) + 1):
        for what in _CHARACTERS:
            yield f"url {at} {what!r}", replace(request, url=url[:at] + what + url[at + 1 :])
        yield f"url cut at {at}", replace(request, url=url[:at])
    for name, value in headers.items():
        rest = {other: kept for other, kept in headers.items() if other != name}
        yield f"without {name}", replace(request, headers=rest)
        for at in range(len(value) + 1):
            for what in _CHARACTERS:
                yield (
                    f"{name} {at} {what!r}",
                    replace(request, headers={**rest, name: value[:at] + what + value[at + 1 :]}),
                )
            yield f"{name} cut at {at}", replace(request, headers={**rest, name: value[:at]})
        if value.isdecimal():
            for seconds in (*range(-4000, 4001, 40), -int(value), 10**9):
                yield f"{name} moved", replace(request, headers={**rest, name: str(int(value) + seconds)})
    for name, value in _PROXIES.items():
        yield name, replace(request, headers={**headers, name: value})
        for forged in ("https://evil.example/hook", url.replace("https://", "http://")):
            yield f"{name} and {forged}", replace(request, url=forged, headers={**headers, name: value})


def _put(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


_CHARACTERS = ("", "a", "A", "0", "=", "/", "%", "&", " ", "\x00", "é")
_PROXIES = {
    "x-forwarded-host": "evil.example",
    "x-forwarded-proto": "http",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-prefix": "/evil",
    "forwarded": "for=127.0.0.1;host=evil.example;proto=http",
    "x-original-url": "/webhooks/other",
    "x-rewrite-url": "/webhooks/other",
    "x-http-method-override": "GET",
    "host": "evil.example",
}


def mutate(request: WebhookRequest, rng: random.Random) -> tuple[str, WebhookRequest]:
    """One random change of `request`, with its name; it may come out unchanged."""
    name = rng.choice(_NAMES)
    return name, _MUTATORS[name](request, rng)


def _meaning(provider: MessageProvider, request: WebhookRequest, channel_id: str) -> list[object]:
    kept = {"raw_payload", "channel_data"}
    return [item.model_dump(exclude=kept) for item in provider.parse(request, channel_id)]


def _byte(request: WebhookRequest, rng: random.Random) -> WebhookRequest:
    body = bytearray(request.body)
    if not body:
        return replace(request, body=bytes([rng.randrange(256)]))
    at = rng.randrange(len(body))
    match rng.randrange(4):
        case 0:
            body[at] ^= 1 << rng.randrange(8)
        case 1:
            del body[at]
        case 2:
            body.insert(at, rng.randrange(256))
        case _:
            body[at] = rng.randrange(256)
    return replace(request, body=bytes(body))


def _cut(request: WebhookRequest, rng: random.Random) -> WebhookRequest:
    return replace(request, body=request.body[: rng.randrange(len(request.body) + 1)])


def _encoding(request: WebhookRequest, rng: random.Random) -> WebhookRequest:
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        return request
    codec = rng.choice(["utf-16", "utf-8-sig", "latin-1", "utf-7"])
    return replace(request, body=text.encode(codec, "replace"))


def _pairs(change: Callable[[list[tuple[str, str]], random.Random], None]) -> Mutator:
    def mutator(request: WebhookRequest, rng: random.Random) -> WebhookRequest:
        pairs = list(_parsed(request.body))
        if not pairs:
            return request
        change(pairs, rng)
        return replace(request, body="&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in pairs).encode())

    return mutator


@lru_cache(256)
def _parsed(body: bytes) -> tuple[tuple[str, str], ...]:
    return tuple(parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1"))


@lru_cache(4096)
def _quoted(text: str) -> str:
    return quote(text, safe="", encoding="latin-1")


def _drop(pairs: list[tuple[str, str]], rng: random.Random) -> None:
    del pairs[rng.randrange(len(pairs))]


def _repeat(pairs: list[tuple[str, str]], rng: random.Random) -> None:
    name, value = rng.choice(pairs)
    pairs.insert(rng.randrange(len(pairs) + 1), (name, rng.choice([value, value + "1", ""])))


def _swap(pairs: list[tuple[str, str]], rng: random.Random) -> None:
    one, two = rng.randrange(len(pairs)), rng.randrange(len(pairs))
    pairs[one], pairs[two] = (pairs[one][0], pairs[two][1]), (pairs[two][0], pairs[one][1])


def _order(pairs: list[tuple[str, str]], rng: random.Random) -> None:
    rng.shuffle(pairs)


def _border(pairs: list[tuple[str, str]], rng: random.Random) -> None:
    """Moves the border between a name and its value, or between a value and the next name."""
    at = rng.randrange(len(pairs))
    name, value = pairs[at]
    if value and rng.random() < 0.5:
        pairs[at] = (name + value[0], value[1:])
    elif len(value) > 1:
        cut, length = rng.randrange(1, len(value)), rng.randrange(1, 9)
        pairs[at : at + 1] = [(name, value[:cut]), (value[cut : cut + length], value[cut + length :])]
    elif at + 1 < len(pairs):
        following = pairs.pop(at + 1)
        pairs[at] = (name, value + following[0] + following[1])


def _url(request: WebhookRequest, rng: random.Random) -> WebhookRequest:
    start = request.url.index("/", request.url.index("//") + 2)  # the host is configuration, not the sender's
    at = rng.randrange(start, len(request.url) + 1)
    character = rng.choice("aZ0/?&=#%")
    return replace(request, url=request.url[:at] + character + request.url[at + rng.randrange(2) :])


def _header(request: WebhookRequest, rng: random.Random) -> WebhookRequest:
    headers = dict(request.headers)
    name = rng.choice(list(headers) or [""])
    value = headers.get(name, "")
    at = rng.randrange(len(value) + 1)
    match rng.randrange(6):
        case 0:
            headers.pop(name, None)
        case 1:
            headers[name] = value[:at]
        case 2:
            headers[name] = value.swapcase()
        case 3:
            headers[name] = value[:at] + rng.choice("aA0=,; é") + value[at + 1 :]
        case 4:
            headers[name] = value + value
        case _:
            headers[name] = ""
    return replace(request, headers=headers)


def _method(request: WebhookRequest, rng: random.Random) -> WebhookRequest:
    return replace(request, method=rng.choice(["GET", "PUT", "post"]))


def _proxy(request: WebhookRequest, rng: random.Random) -> WebhookRequest:
    name = rng.choice(list(_PROXIES))
    return replace(request, headers={**request.headers, name: _PROXIES[name]})


def _moment(request: WebhookRequest, rng: random.Random) -> WebhookRequest:
    """Another number in a header that is one, such as a timestamp."""
    numbers = [name for name, value in request.headers.items() if value.isdecimal()]
    if not numbers:
        return request
    name = rng.choice(numbers)
    moved = int(request.headers[name]) + rng.choice((-1, 1)) * rng.randrange(1, 10 ** rng.randrange(1, 10))
    return replace(request, headers={**request.headers, name: str(moved)})


_MUTATORS: Mapping[str, Mutator] = {
    "byte": _byte,
    "cut": _cut,
    "encoding": _encoding,
    "drop a parameter": _pairs(_drop),
    "repeat a parameter": _pairs(_repeat),
    "swap values": _pairs(_swap),
    "change the order": _pairs(_order),
    "move a border": _pairs(_border),
    "url": _url,
    "header": _header,
    "method": _method,
    "proxy": _proxy,
    "moment": _moment,
}
_NAMES = list(_MUTATORS)


def mutants(request: WebhookRequest, *, n: int, seed: int = 0) -> Iterator[tuple[str, WebhookRequest]]:
    """`n` mutants of one request, for checks of one's own."""
    rng = random.Random(seed)
    for _ in range(n):
        yield mutate(request, rng)
