"""OpenAI as an `AIProvider`: the Responses API, or Chat Completions for everybody who speaks that."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

from roomkit.errors import ConfigError, ProviderError
from roomkit.models.ai import AIEvent, AIProfile, AIRequest
from roomkit.net import ClientOptions
from roomkit.providers.openai import chat, responses
from roomkit.providers.openai.dialects import COMPATIBLE, OPENAI, OpenAIDialect
from roomkit.providers.sdk import LazyClient, read_key, rejected_parameter, sdk_errors
from roomkit.providers.wire import WireNames

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI, AsyncStream, BadRequestError

DEFAULT_MODEL = "gpt-5-mini"
"""Used when no model is named anywhere: not as an argument, not in ROOMKIT_OPENAI_MODEL, not in the request."""

_PATIENT = ClientOptions(read_s=300.0, max_connections=1000, max_keepalive=100)


class OpenAIProvider:
    """Streams from OpenAI, or from any server that speaks its protocol at `base_url`.

    The key comes from `api_key` or OPENAI_API_KEY; a foreign `base_url` never gets OPENAI_API_KEY, its key must be
    passed (or named by the dialect) if it needs one. `dialect` defaults to the Responses API for OpenAI itself and to
    `COMPATIBLE` for a foreign `base_url`. A parameter that a model refuses ("unsupported") is left out from then on.
    `max_tokens` is the limit when a request has none. `transport` replaces the network, in tests.

    Raises `ConfigError` without a key, `MissingExtra` at first use without the SDK.
    """

    name = "openai"

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        dialect: OpenAIDialect | None = None,
        profile: AIProfile | None = None,
        max_tokens: int | None = None,
        client_options: ClientOptions | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.dialect = dialect or (OPENAI if base_url is None else COMPATIBLE)
        self.model = model or os.environ.get("ROOMKIT_OPENAI_MODEL") or (DEFAULT_MODEL if base_url is None else None)
        # The key and the address of one environment belong together.
        variable = self.dialect.key_variable
        if base_url is not None and variable == "OPENAI_API_KEY":
            variable = None
        self._key = read_key("OpenAIProvider", api_key, variable, required=variable is not None)
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self._transport = transport
        self._options = client_options or _PATIENT
        base = profile or AIProfile(vision=True, thinking=True)
        self.profile = base if max_tokens is None else base.model_copy(update={"max_tokens": max_tokens})
        self._client = LazyClient("OpenAIProvider", "openai", self._build)
        self._refused: dict[str, set[str]] = {}

    def __repr__(self) -> str:
        return f"OpenAIProvider({self.model!r}, api={self.dialect.api!r}, base_url={self._base_url!r})"

    async def start(self) -> None:
        """Load the SDK now (in a thread) instead of at the first reply."""
        await self._client.get()

    async def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
        """See `AIProvider`. Cancelling, or closing the iterator, closes the HTTP response."""
        client = await self._client.get()
        import openai

        model = request.model or self.model
        if model is None:
            raise ConfigError(f'OpenAIProvider at {self._base_url} has no model; name one, e.g. OpenAIProvider("...")')
        if request.max_tokens is None and self.profile.max_tokens is not None:
            request = request.model_copy(update={"max_tokens": self.profile.max_tokens})
        names = WireNames(tool.name for tool in request.tools)
        with sdk_errors(self.name, openai, streaming=False):
            events = await self._open(client, request, model, names, openai.BadRequestError)
        if self.dialect.api == "responses":
            reader = responses.ResponsesReader(self.name, names)
        else:
            reader = chat.ChatReader(self.name, self.dialect, names)
        try:
            with sdk_errors(self.name, openai, streaming=True):
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
        self,
        client: AsyncOpenAI,
        request: AIRequest,
        model: str,
        names: WireNames,
        bad_request: type[BadRequestError],
    ) -> AsyncStream[Any]:
        """Sends the request; what the model refuses to know is left out and remembered."""
        refused = self._refused.setdefault(model, set())
        responds = self.dialect.api == "responses"
        droppable = responses.DROPPABLE if responds else chat.DROPPABLE
        while True:
            if responds:
                params = responses.parameters(
                    request, model=model, provider=self.name, dialect=self.dialect, names=names, dropped=refused
                )
                create = cast("Any", client.responses.create)
            else:
                params = chat.parameters(request, model=model, dialect=self.dialect, names=names, dropped=refused)
                create = cast("Any", client.chat.completions.create)
            try:
                return await create(**params, stream=True)
            except bad_request as error:
                name = rejected_parameter(error.message, error.param, params, droppable)
                if name is None or name in refused:
                    raise
                refused.add(name)

    def _build(self) -> AsyncOpenAI:
        """Runs in a thread: importing takes seconds, and so does loading the resources the first time."""
        import openai

        from roomkit.net.client import http_client

        client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            max_retries=0,
            http_client=http_client(self._options, transport=self._transport),
        )
        _ = client.responses if self.dialect.api == "responses" else client.chat.completions
        return client


def provider(model: str | None = None, **options: Any) -> OpenAIProvider:
    """What the name `"openai:MODEL"` makes."""
    return OpenAIProvider(model, **options)
