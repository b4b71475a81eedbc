"""Documented bodies with something odd in some place: what a parser must refuse or read, and never break on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from roomkit.errors import AccessDenied
from roomkit.models.content import valid
from roomkit.models.delivery import InboundMessage, WebhookRequest
from roomkit.ports.message import MessageProvider

ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e308, -1e18, "", "x", "\x00", "\ud800", "9" * 400, "1e999", "2017-13-45T99:99:99Z"),
    *([], {}, [None], [1], [{}], {"a": 1}, {"id": []}),
)


def check_spoilt(provider: MessageProvider, requests: list[WebhookRequest], *, n: int, seed: int = 3) -> None:
    """Puts something odd into `n` places of the documented bodies, one at a time."""
    rng = random.Random(seed)
    for _ in range(n):
        request = rng.choice(requests)
        document = json.loads(request.body)
        path = rng.choice([*_paths(document)])
        body = json.dumps(_put(document, path, rng.choice(ODD))).encode()
        spoilt = WebhookRequest(request.method, request.url, request.headers, body)
        try:
            for item in provider.parse(spoilt, "c"):
                valid(item)
                assert not isinstance(item, InboundMessage) or item.external_id, f"{path} of {body[:200]!r}: no id"
            provider.reply(spoilt)
        except AccessDenied:
            continue
        except Exception as error:
            raise AssertionError(f"{path} breaks it: {error!r}, {body[:300]!r}") from error


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _paths(inner, (*path, name))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _paths(inner, (*path, at))


def _put(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    first, *rest = path
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[first] = _put(changed[first], tuple(rest), odd)
    return changed
