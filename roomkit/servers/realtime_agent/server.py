"""The server of the realtime agents: `POST /start_agent`, `POST /stop_agent`, one supervised process per channel."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from roomkit.runtime import Scope, bounded

log = logging.getLogger(__name__)
START_S = 20.0
"""How long a process may take until it has joined its channel."""
STOP_S = 5.0
"""How long a process that is asked to stop may take; then it is killed."""
MOST_BODY = 65_536
MODULE = "roomkit.servers.realtime_agent"


class StartAgentRequestBody(BaseModel):
    channel_name: str = Field(..., description="The name of the channel", pattern=r"^[\w.-]{1,64}$")
    uid: int = Field(..., description="The UID of the agent in the channel", ge=0, le=4_294_967_295)
    language: str = Field(
        "en", description="The language of the agent", pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}$"
    )


class StopAgentRequestBody(BaseModel):
    channel_name: str = Field(..., description="The name of the channel")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """`arguments` go to every agent's command line (`--provider`, `--transport` ...). With `token` each request must
    carry it as `Authorization: Bearer`. `most` agents run at once. Times in seconds."""

    arguments: Sequence[str] = ()
    token: str | None = field(default_factory=lambda: os.environ.get("REALTIME_AGENT_TOKEN"), repr=False)
    most: int = 100
    start_s: float = START_S
    stop_s: float = STOP_S


@dataclass(eq=False, slots=True)
class _Agent:
    channel_name: str
    process: Process
    join: dict[str, Any] = field(default_factory=lambda: {})
    stopping: bool = False


class AgentServer:
    """The processes of one server. `started` and `ended` hear of channels, for a host that wants to know."""

    def __init__(self, options: ServerOptions | None = None) -> None:
        self.options = options or ServerOptions()
        self.active_processes: dict[str, _Agent] = {}
        self.ended: Callable[[str, int], None] = lambda _channel, _code: None
        self._starting: dict[str, Process | None] = {}
        self._over = False
        self._scope = Scope("realtime agents")

    # -- HTTP -------------------------------------------------------------------------------------------

    async def start_agent(self, request: Request) -> JSONResponse:
        """Starts an agent, answers when it has joined its channel. `join` in the answer tells users of this machine's
        own transports where to come to."""
        body = await self._body(request, StartAgentRequestBody)
        if isinstance(body, JSONResponse):
            return body
        name = body.channel_name
        if name in self.active_processes or name in self._starting:
            return _error(f"Agent already running for channel: {name}", 400)
        if self._over:
            return _error("The server ends", 503)
        if len(self.active_processes) + len(self._starting) >= self.options.most:
            return _error("Too many agents are running", 503)
        self._starting[name] = None
        try:
            agent = await self._start(body)
        except Exception as error:  # noqa: BLE001 - the answer says so, whatever kept the process from starting
            log.warning("the agent of channel %s did not start: %s", name, error)
            return _error(f"Failed to start agent: {error}", 500)
        finally:
            del self._starting[name]
        return JSONResponse({"status": "Agent started!", **({"join": agent.join} if agent.join else {})})

    async def stop_agent(self, request: Request) -> JSONResponse:
        body = await self._body(request, StopAgentRequestBody)
        if isinstance(body, JSONResponse):
            return body
        agent = self.active_processes.get(body.channel_name)
        starting = self._starting.get(body.channel_name)
        if agent is not None:
            await self._stop(agent)
        elif starting is not None:  # whoever starts it is told that it has ended
            await self._end(starting)
        else:
            return _error("No active agent found for the provided channel_name", 404)
        return JSONResponse({"status": "Agent process terminated", "channel_name": body.channel_name})

    async def _body(self, request: Request, kind: type[Any]) -> Any:
        token = self.options.token
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            return _error("not allowed", 401)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # Any page that somebody looks at may post a text to this machine, but JSON only where we let it.
            details = "the content type is not application/json"
            return JSONResponse({"error": "Invalid request data", "details": details}, 400)
        raw = bytearray()
        try:
            async for piece in request.stream():
                raw += piece
                if len(raw) > MOST_BODY:
                    raise ValueError("too long")
            return kind.model_validate(json.loads(raw))
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            return JSONResponse({"error": "Invalid request data", "details": details}, 400)
        except (ValueError, RecursionError):
            return JSONResponse({"error": "Invalid request data", "details": "the body is no JSON"}, 400)

    # -- processes --------------------------------------------------------------------------------------

    async def _start(self, body: StartAgentRequestBody) -> _Agent:
        # One argument each: a name that begins with a dash is a name all the same.
        command = ["-m", MODULE, "agent", f"--channel_name={body.channel_name}", f"--uid={body.uid}"]
        command += [f"--language={body.language}", *self.options.arguments]
        token = secrets.token_urlsafe(24)
        environment = {**os.environ, "RTC_TOKEN": token, "REALTIME_AGENT_READY": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=PIPE, stdout=PIPE, env=environment
        )  # the agent ends when its input does: it does not outlive a server that is killed
        self._starting[body.channel_name] = process
        agent = _Agent(body.channel_name, process)
        try:
            if self._over:
                raise RuntimeError("the server ends")
            ready = await bounded(self._ready(process), self.options.start_s, "joining the channel")
        except BaseException:
            await self._end(process)
            raise
        agent.join = {**ready, "token": token} if ready else {}
        self.active_processes[body.channel_name] = agent
        self._scope.spawn(self._monitor(agent), name=f"agent of {body.channel_name}")
        return agent

    async def _ready(self, process: Process) -> dict[str, Any]:
        """The process's word that it has joined: the first line of its output."""
        assert process.stdout is not None, "its output is a pipe"
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with code {await process.wait()}")
        return dict(json.loads(line)["join"])

    async def _monitor(self, agent: _Agent) -> None:
        """Until the process has ended, by itself or not; then it is off the list."""
        process = agent.process
        assert process.stdout is not None, "its output is a pipe"
        while await process.stdout.read(65_536):
            pass  # a full pipe would hold the agent up
        code = await process.wait()
        if self.active_processes.get(agent.channel_name) is agent:
            del self.active_processes[agent.channel_name]
        log.info(
            "the agent of channel %s has ended with code %d; %d run",
            agent.channel_name,
            code,
            len(self.active_processes),
        )
        self.ended(agent.channel_name, code)

    async def _stop(self, agent: _Agent) -> None:
        await self._end(agent.process)
        if self.active_processes.get(agent.channel_name) is agent:
            del self.active_processes[agent.channel_name]

    async def _end(self, process: Process) -> None:
        """Gracefully first."""
        for ask, seconds in ((process.terminate, self.options.stop_s), (process.kill, None)):
            if process.returncode is not None:
                return
            try:
                ask()
                await bounded(process.wait(), seconds, "the end of an agent")
            except ProcessLookupError:
                return
            except TimeoutError:
                log.warning("an agent does not stop when asked: it is killed")

    async def shutdown(self) -> None:
        """Ends every agent, also one that is just starting. Idempotent; none starts any more."""
        self._over = True
        agents = tuple(self.active_processes.values())
        starting = [process for process in self._starting.values() if process is not None]
        if agents or starting:
            async with Scope("stop agents") as scope:
                for agent in agents:
                    scope.spawn(self._stop(agent), name=f"stop {agent.channel_name}")
                for process in starting:
                    scope.spawn(self._end(process), name="stop an agent that starts")
                await scope.drain(self.options.stop_s * 2)
        await self._scope.drain(1.0)
        await self._scope.aclose()


def init_app(options: ServerOptions | None = None) -> Starlette:
    """The ASGI app; its lifespan ends what it has started. `app.state.agents` is the `AgentServer`."""
    agents = AgentServer(options)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await agents.shutdown()

    app = Starlette(
        routes=[
            Route("/start_agent", agents.start_agent, methods=["POST"]),
            Route("/stop_agent", agents.stop_agent, methods=["POST"]),
        ],
        lifespan=lifespan,
    )
    app.state.agents = agents
    return app


def _error(text: str, status: int) -> JSONResponse:
    return JSONResponse({"error": text}, status)
