"""`roomkit demo`: a server with everything in it, that needs no key and forgets nothing."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from roomkit.cli.console import clean, coloured, paint, say
from roomkit.cli.environment import need, need_server, secret_of
from roomkit.cli.serving import Serving, listen, own_origins, run_async, url_of
from roomkit.errors import ConfigError
from roomkit.net.addresses import is_loopback
from roomkit.runtime import WorkerThread

if TYPE_CHECKING:
    from roomkit.channels.ai import AIChannel
    from roomkit.kit import RoomKit

TOKEN_S = 12 * 3600.0
VENDORS = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
PROMPT = "You are the assistant of a small shop. Be brief and friendly, and use your tools instead of guessing."
ROOM = "demo"
NUMBER = "+15550100"
ACCOUNT = "AC" + "0" * 32


@dataclass(frozen=True, slots=True)
class DemoOptions:
    host: str = "127.0.0.1"
    port: int | None = None
    db: Path = Path("roomkit-demo.db")
    brain: str = "auto"
    open_browser: bool = True
    json: bool = False


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a person or program needs to enter the demo."""

    url: str
    chat: str
    supervisor: str
    room: str
    guest_token: str
    supervisor_token: str
    brain: str
    db: str
    pid: int


def run_demo(options: DemoOptions) -> int:
    need_server("roomkit demo")
    if not is_loopback(options.host):
        raise ConfigError(
            f"the demo invites whoever has its links, so it stays on this machine and not on {options.host}; "
            "serve others with: roomkit run app:kit"
        )
    return run_async(_demo(options))


async def _demo(options: DemoOptions) -> int:
    brain = choose_brain(options.brain)
    kit = build_kit(options.db, brain)
    listener = listen(options.host, options.port)
    url = url_of(listener)
    app = kit.asgi(public_url=url, allowed_origins=own_origins(url))
    try:
        async with kit:
            return await Serving(app, listener).run(lambda: _welcome(kit, url, brain, options))
    finally:
        listener.close()


async def _welcome(kit: RoomKit, url: str, brain: str, options: DemoOptions) -> None:
    # The room of the last time, so that a restart goes on where it stopped; a new one once that is closed.
    open_rooms = [room for room in await kit.list_rooms(external_id=ROOM) if room.open]
    room = open_rooms[0] if open_rooms else await kit.create_room(external_id=ROOM, channels=["web", "assistant"])
    guest = kit.tokens.mint("guest", room.id, TOKEN_S, id="guest", display_name="Guest")
    boss = kit.tokens.mint("supervisor", None, TOKEN_S, id="supervisor", display_name="Supervisor")
    chat, desk = f"{url}/#token={guest}&room={room.id}", f"{url}/supervisor#token={boss}&room={room.id}"
    invitation = Invitation(url, chat, desk, room.id, guest, boss, brain, str(options.db), os.getpid())
    if options.json:
        say(json.dumps(asdict(invitation)))
        return
    _tell(invitation)
    if options.open_browser and coloured() and _has_screen():
        import webbrowser

        # Beside the loop: some browsers keep their caller waiting.
        WorkerThread("roomkit-browser").submit(webbrowser.open, chat)


def _has_screen() -> bool:
    return sys.platform != "linux" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _tell(invited: Invitation) -> None:
    send = f"{_command()} send --url {invited.url} --db {invited.db} --channel sms --from +15550123 --text Hi"
    say()
    say(paint("roomkit demo", "bold") + f"  {_told_brain(invited.brain)}; rooms are kept in {invited.db}")
    say()
    say(f"  web chat    {paint(invited.chat, 'cyan')}")
    say(f"  supervisor  {paint(invited.supervisor, 'cyan')}")
    say()
    for line in (
        'say "What time is it, and what is 12 * 7?", "Refund order 1042", "Tell me a story", "A human, please"',
        "speak: the microphone in the web chat is understood offline, so use short, clear sentences"
        if can_speak()
        else f"to speak with it: {_pip()} install '.[voice,sphinx]', and install espeak-ng",
        f"or send a text message:  {send}",
        "Ctrl-C stops; nothing is lost: start it again and go on",
    ):
        say(paint(f"  {line}", "dim"))
    say()


def _command() -> str:
    """How this command is called where it was called: an environment that is not activated is not looked through."""
    return "roomkit" if shutil.which("roomkit") else os.path.relpath(sys.argv[0])


def _pip() -> str:
    return "pip" if shutil.which("roomkit") else f"{os.path.relpath(sys.executable)} -m pip"


def _told_brain(brain: str) -> str:
    return "a built-in offline brain answers (no language model)" if brain == "offline" else f"{brain} answers"


def choose_brain(wanted: str) -> str:
    """The name of the AI provider. Raises `ConfigError` for a vendor without its key or its extra."""
    if wanted == "auto":
        wanted = next((vendor for vendor, key in VENDORS.items() if os.environ.get(key)), "offline")
    elif wanted in VENDORS and not os.environ.get(VENDORS[wanted]):
        raise ConfigError(
            f"--brain {wanted} needs {VENDORS[wanted]} in the environment or in .env; or use --brain offline"
        )
    if wanted in VENDORS:
        need(f"--brain {wanted}", wanted, wanted)
    return wanted


def build_kit(db: Path, brain: str) -> RoomKit:
    """The demo's rooms: a web chat, an SMS number whose texts appear in the terminal, and an assistant."""
    from roomkit.channels.websocket import WebSocketChannel
    from roomkit.kit import RoomKit

    if not db.parent.is_dir():
        raise ConfigError(f'--db {db}: there is no directory "{db.parent}"; create it or choose another file')
    secret = secret_of(db)
    kit = RoomKit(f"sqlite:///{db}", token_secrets=(secret,))
    kit.register_channel(WebSocketChannel("web"))
    kit.register_channel(assistant(brain), default=True)
    kit.register_channel(_phone(secret))
    if can_speak():
        kit.register_channel(_voice())
    return kit


def can_speak() -> bool:
    """Whether the parts that hear and speak offline are there: [voice], [sphinx] and the program espeak-ng."""
    modules = ("numpy", "sentencex", "pocketsphinx")
    return all(find_spec(name) for name in modules) and which("espeak-ng") is not None


def _voice() -> Any:
    """What the microphone button of the web chat calls."""
    from roomkit.channels.providers import find_provider
    from roomkit.channels.voice import VoiceChannel, VoiceOptions
    from roomkit.voice.pipeline import AudioPipelineConfig

    return VoiceChannel(
        "voice",
        stt="sphinx",
        tts="espeak",
        backend=find_provider("webaudio", "audio"),
        pipeline=AudioPipelineConfig(),
        options=VoiceOptions(language="en", greeting="Hello. What can I do for you?"),
    )


def assistant(brain: str) -> AIChannel:
    from roomkit.ai.tools import tool
    from roomkit.channels.ai import AIChannel

    offline: Any = import_module("roomkit.providers.offline.tools")
    tools = [tool(**offline.MARKS[each.__name__])(each) for each in offline.TOOLS]
    model = os.environ.get("ROOMKIT_MODEL")
    name = f"{brain}:{model}" if model and brain in VENDORS else brain
    return AIChannel("assistant", name, system_prompt=PROMPT).configure(tools=tools, human_tool=True)


def _phone(secret: str) -> Any:
    """An SMS channel with a real provider whose vendor is this terminal."""
    import httpx2

    from roomkit.channels.messaging import SMSChannel

    def vendor(request: httpx2.Request) -> httpx2.Response:
        form = dict(httpx2.QueryParams(request.content.decode()))
        say(paint(f"  SMS to {clean(form.get('To', '?'))}: ", "yellow") + clean(form.get("Body", "")))
        return httpx2.Response(201, json={"sid": f"SM{secrets.token_hex(16)}", "status": "queued"})

    twilio: Any = import_module("roomkit.providers.twilio.sms")
    provider = twilio.TwilioSMSProvider(
        twilio.TwilioOptions(ACCOUNT, auth_token=phone_secret(secret), from_number=NUMBER),
        transport=httpx2.MockTransport(vendor),
    )
    return SMSChannel("sms", provider=provider, from_number=NUMBER)


def phone_secret(secret: str) -> str:
    """The pretended vendor's webhook key, made from the secret of the store file."""
    import hashlib

    return hashlib.sha256(f"roomkit demo sms\0{secret}".encode()).hexdigest()
