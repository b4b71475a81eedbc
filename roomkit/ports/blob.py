"""BlobStore: media, voice notes and recordings, beside the log (D35)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """`id` is opaque; `blob:<id>` is its URL inside events. Sizes in bytes."""

    id: str
    tenant: str
    mime_type: str
    size_bytes: int
    filename: str | None = None
    room_id: str | None = None


class BlobStore(Protocol):
    async def put(
        self,
        tenant: str,
        data: AsyncIterator[bytes],
        *,
        mime_type: str,
        filename: str | None = None,
        room_id: str | None = None,
    ) -> BlobInfo:
        """Durable when it returns. Raises `UsageError` for a type or size that is not allowed."""
        ...

    async def info(self, tenant: str, blob_id: str) -> BlobInfo | None: ...

    def read(self, tenant: str, blob_id: str) -> AsyncIterator[bytes]: ...

    async def delete(self, tenant: str, blob_id: str) -> bool: ...
