"""What goes wrong at a vendor, in the order that a test says: refusals, answers that get lost or never come."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from roomkit.models.delivery import WebhookRequest
from roomkit.testing.asgi import ConnectionCut

Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class Mishaps:
    """The next calls go wrong as scripted, all others take `delay_s` seconds."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self._script: deque[_Refusal | str] = deque()

    def refuse(self, status: int, body: Any, *, retry_after: float | None = None) -> None:
        """The next call is answered with this, and nothing is done."""
        headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
        self._script.append(_Refusal(status, body, headers))

    def lose_answer(self) -> None:
        """The next call is carried out, but the connection breaks before the answer."""
        self._script.append("lose")

    def hang(self) -> None:
        """The next call is carried out, but the answer never comes."""
        self._script.append("hang")

    async def answer(self, request: Request, do: Answer) -> Response:
        """What `do` answers, unless something else is to happen."""
        script = self._script.popleft() if self._script else None
        if isinstance(script, _Refusal):
            return JSONResponse(script.body, status_code=script.status, headers=dict(script.headers))
        response = await do(request)
        if script == "lose":
            raise ConnectionCut
        await asyncio.sleep(1e9 if script == "hang" else self.delay_s)
        return response


def disorder(requests: Sequence[WebhookRequest], rng: random.Random, *, repeats: int = 2) -> list[WebhookRequest]:
    """The same webhooks as a bad day delivers them: each up to `repeats` times, in any order."""
    mixed = [request for request in requests for _ in range(rng.randint(1, repeats))]
    rng.shuffle(mixed)
    return mixed
