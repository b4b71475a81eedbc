"""Anthropic as an `AIProvider`: the Messages API."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

from roomkit.errors import ProviderError
from roomkit.models.ai import AIEvent, AIProfile, AIRequest
from roomkit.net import ClientOptions
from roomkit.providers.anthropic import messages
from roomkit.providers.sdk import LazyClient, is_unsupported, read_key, rejected_parameter, sdk_errors
from roomkit.providers.wire import WireNames

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic, AsyncStream, BadRequestError

DEFAULT_MODEL = "claude-haiku-4-5"
"""Used when no model is named anywhere: not as an argument, not in ROOMKIT_ANTHROPIC_MODEL, not in the request."""

DEFAULT_MAX_TOKENS = 4096
"""The API wants a limit; this one is sent when neither the request nor the provider has one."""

_PATIENT = ClientOptions(read_s=300.0, max_connections=1000, max_keepalive=100)


class AnthropicProvider:
    """Streams from Claude. The key comes from `api_key` or ANTHROPIC_API_KEY.

    A parameter that a model refuses (a thinking budget, caching) is left out or replaced from then on; `probe()`
    asks the API what the model can do instead. `max_tokens` is the limit when a request has none. `transport` replaces
    the network, in tests.

    Raises `ConfigError` without a key, `MissingExtra` at first use without the SDK.
    """

    name = "anthropic"

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        profile: AIProfile | None = None,
        max_tokens: int | None = None,
        client_options: ClientOptions | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.model = model or os.environ.get("ROOMKIT_ANTHROPIC_MODEL") or DEFAULT_MODEL
        # The key and the address of one environment belong together.
        variable = "ANTHROPIC_API_KEY" if base_url is None else None
        self._key = read_key("AnthropicProvider", api_key, variable, required=variable is not None)
        self._base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"
        self._transport = transport
        self._options = client_options or _PATIENT
        base = profile or AIProfile(vision=True, thinking=True)
        self.profile = base if max_tokens is None else base.model_copy(update={"max_tokens": max_tokens})
        self._client = LazyClient("AnthropicProvider", "anthropic", self._build)
        self._refused: dict[str, set[str]] = {}

    def __repr__(self) -> str:
        return f"AnthropicProvider({self.model!r}, base_url={self._base_url!r})"

    async def start(self) -> None:
        """Load the SDK now (in a thread) instead of at the first reply."""
        await self._client.get()

    async def probe(self) -> AIProfile:
        """Ask the API what the model can do, and use it: window, images, kinds of thinking. Raises `ProviderError`."""
        client = await self._client.get()
        import anthropic

        with sdk_errors(self.name, anthropic, streaming=False):
            info = await client.models.retrieve(self.model)
        found: dict[str, Any] = {"context_window": info.max_input_tokens}
        if (can := info.capabilities) is not None:
            found |= {"vision": can.image_input.supported, "thinking": can.thinking.supported}
            refused = self._refused.setdefault(self.model, set())
            if not can.thinking.supported:
                refused.add("thinking")
            elif not can.thinking.types.enabled.supported:
                refused.add("thinking.type.enabled")
        self.profile = self.profile.model_copy(update=found)
        return self.profile

    async def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
        """See `AIProvider`. Cancelling, or closing the iterator, closes the HTTP response."""
        client = await self._client.get()
        import anthropic

        names = messages.wire_names(request)
        with sdk_errors(self.name, anthropic, streaming=False):
            events = await self._open(client, request, names, anthropic.BadRequestError)
        reader = messages.MessagesReader(self.name, names)
        try:
            with sdk_errors(self.name, anthropic, streaming=True):
                async for event in events:
                    for ours in reader.feed(event):
                        yield ours
        except ProviderError:
            if reader.finished is None:  # Whatever breaks after the reply's end is no loss.
                raise
        finally:
            await events.close()
        yield reader.end()

    async def aclose(self) -> None:
        if self._client.built is not None:
            await self._client.built.close()

    async def _open(
        self, client: AsyncAnthropic, request: AIRequest, names: WireNames, bad_request: type[BadRequestError]
    ) -> AsyncStream[Any]:
        """Sends the request; what the model refuses to know is left out and remembered."""
        model = request.model or self.model
        refused = self._refused.setdefault(model, set())
        max_tokens = request.max_tokens or self.profile.max_tokens or DEFAULT_MAX_TOKENS
        while True:
            params = messages.parameters(
                request, model=model, provider=self.name, max_tokens=max_tokens, names=names, dropped=refused
            )
            try:
                return await cast("Any", client.messages.create)(**params, stream=True)
            except bad_request as error:
                name = _refused(error.api_message or "", params)
                if name is None or name in refused:
                    raise
                refused.add(name)

    def _build(self) -> AsyncAnthropic:
        """Runs in a thread: importing takes seconds, and so does loading the resources the first time."""
        import anthropic

        from roomkit.net.client import http_client

        client = anthropic.AsyncAnthropic(
            api_key=self._key or "none",
            base_url=self._base_url,
            max_retries=0,
            http_client=http_client(self._options, transport=self._transport),
        )
        _ = client.messages, client.models
        return client


def provider(model: str | None = None, **options: Any) -> AnthropicProvider:
    """What the name `"anthropic:MODEL"` makes."""
    return AnthropicProvider(model, **options)


def _refused(message: str, params: dict[str, Any]) -> str | None:
    thinking = params.get("thinking", {}).get("type")
    if thinking == "enabled" and ("thinking" in message or "budget_tokens" in message) and is_unsupported(message):
        return "thinking.type.enabled"
    return rejected_parameter(message, None, params, messages.DROPPABLE - {"thinking.type.enabled"})
