"""What the tests of several messaging vendors ask alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from roomkit.errors import AccessDenied, ProviderError, ProviderTimeout, Unavailable
from roomkit.models.content import MediaContent
from roomkit.models.delivery import Outgoing, WebhookRequest
from roomkit.runtime import monotonic

NO_BODIES = (b"", b"[]", b"1", b"\xff", b"{", b"[" * 100_000)


async def public(host: str, port: int, /) -> Sequence[str]:
    """Every name is somewhere in the world outside."""
    return ["93.184.215.14"]


async def failing(provider: Any, message: Outgoing) -> ProviderError:
    """How sending fails."""
    with pytest.raises(ProviderError) as caught:
        await provider.send(message)
    await provider.aclose()
    return caught.value


async def check_no_answer(
    make: Callable[[], Any], message: Outgoing, *, hang: Callable[[], Any], lose: Callable[[], Any] | None = None
) -> None:
    """A vendor who does not answer in 15 seconds, and one whose answer is lost, may have acted."""
    hang()
    start = monotonic()
    error = await failing(make(), message)
    assert isinstance(error, ProviderTimeout)
    assert error.ambiguous
    assert monotonic() - start == pytest.approx(15)
    if lose is not None:
        lose()
        error = await failing(make(), message)
        assert isinstance(error, Unavailable)
        assert error.ambiguous


def check_no_bodies(provider: Any, url: str, headers: Mapping[str, str] | None = None) -> None:
    for body in NO_BODIES:
        with pytest.raises(AccessDenied):
            provider.parse(WebhookRequest("POST", url, dict(headers or {}), body), "c")


async def send_own_files(kit: Any, room_id: str) -> None:
    """One file that the room has, and one that is another room's."""
    blobs = kit.engine.blobs()

    async def chunks() -> Any:
        yield b"the bill"

    info = await blobs.put("default", chunks(), mime_type="application/pdf", filename="bill.pdf", room_id=room_id)
    await kit.send(room_id, MediaContent(url=f"blob:{info.id}", mime_type="application/pdf", filename="bill.pdf"))
    other = await blobs.put("default", chunks(), mime_type="application/pdf", room_id="another room")
    await kit.send(room_id, MediaContent(url=f"blob:{other.id}", mime_type="application/pdf"))
