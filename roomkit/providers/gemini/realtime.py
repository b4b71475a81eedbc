"""Google's Gemini Live API as a `RealtimeVoiceProvider`: the developer API, and Vertex AI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from roomkit.errors import ConfigError
from roomkit.models.ai import ToolSpec
from roomkit.models.realtime import RealtimeConfig
from roomkit.net.redial import Wire, dial
from roomkit.ports.realtime import RealtimeTraits
from roomkit.protocols.gemini_live import INPUT_RATE, OUTPUT_RATE, GeminiLiveCodec, WireTools
from roomkit.providers.live_model import ModelConnection
from roomkit.providers.sdk import read_key
from roomkit.providers.wire import WireNames, clean_schema

NAME = "gemini"
Connect = Callable[[str, Mapping[str, str]], Awaitable[Wire]]
_PATHS = {
    "developer": "/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent",
    "vertex": "/ws/google.cloud.aiplatform.{version}.LlmBidiService/BidiGenerateContent",
}


@dataclass(frozen=True, slots=True)
class GeminiLiveOptions:
    """`profile` says how the endpoint is asked: "developer" with an API key, or "vertex" with an OAuth token as
    `api_key`, a `base_url` of the location, and a model name that begins with "projects/". `session_limit_s` replaces
    connections before the vendor says that it goes away; None waits for its word."""

    profile: Literal["developer", "vertex"] = "developer"
    version: str = "v1beta"
    session_limit_s: float | None = None


class GeminiLive:
    """The key is GEMINI_API_KEY unless given; a foreign `base_url` never gets it. Raises `ConfigError` without one."""

    name = NAME

    def __init__(
        self,
        model: str = "gemini-live-2.5-flash-preview",
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        options: GeminiLiveOptions | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.model = model
        self.options = options or GeminiLiveOptions()
        if self.options.profile == "vertex" and base_url is None:
            raise ConfigError(
                'GeminiLive with profile "vertex" needs base_url="wss://LOCATION-aiplatform.googleapis.com"'
            )
        self._key = read_key("GeminiLive", api_key, "GEMINI_API_KEY" if base_url is None else None)
        address = (base_url or "wss://generativelanguage.googleapis.com").rstrip("/")
        self._url = address.replace("http", "ws", 1) if address.startswith("http") else address
        self._connect: Connect = connect or _dial
        self.traits = RealtimeTraits(
            input_rates=(INPUT_RATE,),
            output_rates=(OUTPUT_RATE,),
            marks_speech=False,
            resumes=True,
            session_limit_s=self.options.session_limit_s,
        )

    async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> ModelConnection:
        codec = GeminiLiveCodec(config, model=self.model, tools=_tools, resume=resume)
        path = _PATHS[self.options.profile].format(version=self.options.version)
        wire = await self._connect(f"{self._url}{path}", self._headers())
        connection = ModelConnection(self.name, wire, codec)
        await connection.open()
        return connection

    def _headers(self) -> dict[str, str]:
        key = self._key or ""
        return {"Authorization": f"Bearer {key}"} if self.options.profile == "vertex" else {"x-goog-api-key": key}

    async def aclose(self) -> None:
        """Sessions belong to their calls; nothing is held besides."""


def _tools(specs: Sequence[ToolSpec]) -> WireTools:
    names = WireNames(spec.name for spec in specs)
    listed = [
        {
            "name": names.wire(spec.name),
            "description": spec.description,
            "parametersJsonSchema": clean_schema(spec.parameters),
        }
        for spec in specs
    ]
    return WireTools(listed, names.ours, names.wire)


async def _dial(url: str, headers: Mapping[str, str]) -> Wire:
    return await dial(NAME, url, headers)


def provider(model: str | None = None, **options: object) -> GeminiLive:
    """What the names `"gemini"` and `"gemini:MODEL"` make."""
    return GeminiLive(model or "gemini-live-2.5-flash-preview", **options)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
