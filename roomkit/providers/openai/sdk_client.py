"""The SDK's client for speech: the same key, address and limits as for replies."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from roomkit.net import ClientOptions
from roomkit.providers.sdk import LazyClient, read_key

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

NAME = "openai"


def speech_client(
    who: str,
    *,
    api_key: str | None,
    base_url: str | None,
    options: ClientOptions | None,
    transport: httpx2.AsyncBaseTransport | None,
) -> LazyClient[AsyncOpenAI]:
    """A foreign `base_url` never gets OPENAI_API_KEY. Raises `ConfigError` without a key where one is needed."""
    key = read_key(who, api_key, "OPENAI_API_KEY" if base_url is None else None, required=base_url is None)
    address = base_url or os.environ.get("OPENAI_BASE_URL") or None

    def build() -> AsyncOpenAI:
        import openai

        from roomkit.net.client import http_client

        client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=address,
            max_retries=0,
            http_client=http_client(options or ClientOptions(), transport=transport),
        )
        _ = client.audio.transcriptions, client.audio.speech  # loads what the first word would wait for
        return client

    return LazyClient(who, "openai", build)
