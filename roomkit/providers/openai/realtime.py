"""OpenAI's Realtime API as a `RealtimeVoiceProvider`; also Azure's, and whatever else speaks the same protocol."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from roomkit.errors import ConfigError
from roomkit.models.ai import ToolSpec
from roomkit.models.realtime import RealtimeConfig
from roomkit.net.redial import Wire, dial
from roomkit.ports.realtime import RealtimeTraits
from roomkit.protocols.openai_realtime import RATE, OpenAIRealtimeCodec, WireTools
from roomkit.providers.live_model import ModelConnection
from roomkit.providers.sdk import read_key
from roomkit.providers.wire import WireNames, clean_schema

NAME = "openai"
Connect = Callable[[str, Mapping[str, str]], Awaitable[Wire]]
_IN_BAND = frozenset({"system_prompt", "tools", "temperature", "language", "responds", "extra"})


@dataclass(frozen=True, slots=True)
class OpenAIRealtimeOptions:
    """`profile` says how the endpoint is asked: "openai", "azure" (`model` is the deployment, the key an `api-key`) or
    "compatible" (no key unless one is given). `transcription_model` writes down what the caller says; None: nobody
    does. `session_limit_s` is the vendor's limit for one session, in seconds. `temperature` of a channel has no place
    in this API and is left out."""

    profile: Literal["openai", "azure", "compatible"] = "openai"
    transcription_model: str | None = "gpt-4o-mini-transcribe"
    session_limit_s: float | None = 3_600.0


class OpenAIRealtime:
    """`base_url` is "wss://HOST/v1" (http and https are understood); a foreign one never gets OPENAI_API_KEY. For Azure
    it is "https://RESOURCE.openai.azure.com/openai/v1". Raises `ConfigError` without a key where one is needed."""

    name = NAME

    def __init__(
        self,
        model: str = "gpt-realtime",
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        options: OpenAIRealtimeOptions | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.model = model
        self.options = options or OpenAIRealtimeOptions()
        if self.options.profile != "openai" and base_url is None:
            raise ConfigError(f'OpenAIRealtime with profile "{self.options.profile}" needs base_url=')
        variable = "OPENAI_API_KEY" if self.options.profile == "openai" and base_url is None else None
        required = base_url is None or self.options.profile == "azure"
        self._key = read_key("OpenAIRealtime", api_key, variable, required=required)
        address = base_url or os.environ.get("OPENAI_BASE_URL") or "wss://api.openai.com/v1"
        self._url = address.rstrip("/").replace("http", "ws", 1) if address.startswith("http") else address.rstrip("/")
        self._connect: Connect = connect or _dial
        self.traits = RealtimeTraits(
            input_rates=(RATE,),
            output_rates=(RATE,),
            writes_down=self.options.transcription_model is not None,
            reconfigures=_IN_BAND,
            session_limit_s=self.options.session_limit_s,
        )

    async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> ModelConnection:
        codec = OpenAIRealtimeCodec(
            config, tools=_tools, transcription_model=self.options.transcription_model, vendor=self.name
        )
        wire = await self._connect(f"{self._url}/realtime?{urlencode({'model': self.model})}", self._headers())
        connection = ModelConnection(self.name, wire, codec)
        await connection.open()
        return connection

    def _headers(self) -> dict[str, str]:
        if self._key is None:
            return {}
        return {"api-key": self._key} if self.options.profile == "azure" else {"Authorization": f"Bearer {self._key}"}

    async def aclose(self) -> None:
        """Sessions belong to their calls; nothing is held besides."""


def _tools(specs: Sequence[ToolSpec]) -> WireTools:
    names = WireNames(spec.name for spec in specs)
    listed = [
        {
            "type": "function",
            "name": names.wire(spec.name),
            "description": spec.description,
            "parameters": clean_schema(spec.parameters),
        }
        for spec in specs
    ]
    return WireTools(listed, names.ours)


async def _dial(url: str, headers: Mapping[str, str]) -> Wire:
    return await dial(NAME, url, headers)


def provider(model: str | None = None, **options: object) -> OpenAIRealtime:
    """What the names `"openai"` and `"openai:MODEL"` make."""
    return OpenAIRealtime(model or "gpt-realtime", **options)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
