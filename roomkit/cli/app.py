"""The commands and their options. What a command does stands in the module of its name, imported when it runs."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="roomkit",
    help="Rooms you can talk in: people, AI agents and channels around one durable log.",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# What typer raises for wrong options and names; itself it only exports the subclasses.
_WrongUse: type[Exception] = typer.BadParameter.__bases__[0]

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; without it the first free one from 8000 on.")]
PublicUrl = Annotated[
    str | None,
    typer.Option(help="Where the world reaches this server, e.g. https://chat.example.com; signatures count."),
]
StorePlace = Annotated[
    str | None,
    typer.Option("--store", help="SQLite file or URL; without it ROOMKIT_STORE, else roomkit-demo.db if it is here."),
]
Tenant = Annotated[str, typer.Option(help="Whose rooms they are.")]
RoomName = Annotated[str, typer.Argument(help="The room's id, or its external id.")]
Target = Annotated[str, typer.Argument(help="Your program: app.py, app:kit or package.module:kit.")]


class Brain(StrEnum):
    AUTO = "auto"
    OFFLINE = "offline"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


def run(arguments: list[str]) -> int:
    """Runs one command; returns its exit code. Wrong use is one line, not a page."""
    if not arguments:
        arguments = ["--help"]
    try:
        code: object = app(arguments, prog_name="roomkit", standalone_mode=False)
    except _WrongUse as error:
        context = getattr(error, "ctx", None)
        command = getattr(context, "command_path", "roomkit")
        told = str(getattr(error, "format_message", error.__str__)()).strip().rstrip(".").replace("\n", " ")
        told = told.replace("Value error, ", "")
        print(f"roomkit: {told}; see {command} --help", file=sys.stderr)
        return 2
    except typer.Abort:
        return 130
    return code if isinstance(code, int) else 0


def _show_version(wanted: bool) -> None:
    if wanted:
        from roomkit.cli.environment import version

        typer.echo(f"roomkit {version()}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Rooms you can talk in: people, AI agents and channels around one durable log."""


@app.command()
def demo(
    host: Host = "127.0.0.1",
    port: Port = None,
    db: Annotated[Path, typer.Option(help="SQLite file that keeps the rooms.")] = Path("roomkit-demo.db"),
    brain: Annotated[
        Brain, typer.Option(help="Who answers; auto is the vendor whose key is in the environment, else offline.")
    ] = Brain.AUTO,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the chat in a browser.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON instead, for programs.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Try everything without a person, a kill -9 included, and give a verdict.")
    ] = False,
) -> int:
    """Start a server with both pages, and a brain that needs no key."""
    from roomkit.cli import demo as command

    if check:
        from roomkit.cli.check import check_demo

        return check_demo()
    return command.run_demo(command.DemoOptions(host, port, db, brain.value, open_browser, json))


@app.command()
def dev(
    target: Target,
    host: Host = "127.0.0.1",
    port: Port = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start again whenever a Python file changes.")] = False,
    pages: Annotated[bool, typer.Option("--pages/--no-pages", help="Serve the web pages as well.")] = True,
) -> int:
    """Talk to your program in the terminal and on a web page."""
    from roomkit.cli import dev as command

    options = command.DevOptions(target, host, port, pages)
    return command.reload(options) if reload else command.run_dev(options)


@app.command(name="run")
def run_command(
    target: Target,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(help="Processes; one, see --node-url for several.")] = 1,
    public_url: PublicUrl = None,
    node_url: Annotated[
        str | None,
        typer.Option(
            help="Where other processes on the same PostgreSQL reach this one (auto: host and port); makes it one of "
            "several. Also ROOMKIT_NODE_URL."
        ),
    ] = None,
) -> int:
    """Serve your program in production. SIGTERM drains, a second one ends at once."""
    from roomkit.cli.run import RunOptions, run_server

    return run_server(RunOptions(target, host, port, workers, public_url, node_url))


@app.command()
def migrate(
    url: Annotated[str, typer.Argument(help="The store, e.g. postgresql://user@host/database.")],
) -> int:
    """Bring a store's tables to this version. Do so before processes of it are started."""
    from roomkit.cli.migrate import migrate_store

    return migrate_store(url)


@app.command()
def doctor(
    target: Annotated[
        str | None, typer.Argument(help="Your program, e.g. app:kit; without it only the machine.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port that the server will use.")] = 8000,
    public_url: PublicUrl = None,
) -> int:
    """Look for what is missing or wrong. Extras, keys, ports, webhook URLs, clock, store."""
    from roomkit.cli.doctor import examine

    return examine(target, port=port, public_url=public_url)


@app.command()
def send(
    channel: Annotated[str, typer.Option(help="Channel id, as in /webhooks/ID.")],
    text: Annotated[str, typer.Option(help="What is said.")],
    sender: Annotated[str, typer.Option("--from", help="Who says it, e.g. +447700900001.")],
    to: Annotated[str | None, typer.Option(help="The number or address that was written to.")] = None,
    url: Annotated[str, typer.Option(help="The server, prefix included.")] = "http://127.0.0.1:8000",
    public_url: PublicUrl = None,
    provider: Annotated[str, typer.Option(help="Whose webhook it is: twilio, telnyx, sinch, http, ...")] = "twilio",
    message_id: Annotated[str | None, typer.Option("--id", help="The vendor's id, to send the same one again.")] = None,
    db: Annotated[Path | None, typer.Option(help="Sign for the demo that uses this file.")] = None,
) -> int:
    """Send a message as a vendor would. It is a webhook, signed with your own keys."""
    from roomkit.cli.send import SendOptions, send_message

    return send_message(SendOptions(channel, text, sender, to, url, public_url, provider, message_id, db))


@app.command()
def token(
    target: Target,
    role: Annotated[str, typer.Option(help="guest, agent, supervisor or admin.")] = "supervisor",
    room: Annotated[str | None, typer.Option(help="The room of a guest.")] = None,
    who: Annotated[str | None, typer.Option("--id", help="Whose token it is; random without.")] = None,
    name: Annotated[str | None, typer.Option(help="The name that others see.")] = None,
    tenant: Annotated[str, typer.Option(help="Whose rooms they are.")] = "default",
    ttl: Annotated[float, typer.Option(help="Seconds that it is good for.")] = 3600.0,
) -> int:
    """Make a token for the pages, the API or /metrics. Your program's own secrets sign it."""
    from roomkit.cli.token import TokenOptions, make_token

    return make_token(TokenOptions(target, role, room, who, name, tenant, ttl))


@app.command()
def rooms(
    store: StorePlace = None,
    tenant: Tenant = "default",
    limit: Annotated[int, typer.Option(help="At most so many, latest activity first.", min=1)] = 50,
    json: Annotated[bool, typer.Option("--json", help="One room of JSON a line.")] = False,
) -> int:
    """List the rooms of a store; also while a server has it open."""
    from roomkit.cli.rooms import list_rooms

    return list_rooms(store, tenant, limit, json)


@app.command()
def replay(
    room: RoomName,
    store: StorePlace = None,
    to: Annotated[int | None, typer.Option(help="The last index to show.", min=0)] = None,
    tenant: Tenant = "default",
    raw: Annotated[bool, typer.Option("--raw", help="As it was written, without edits and deletions applied.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One event of JSON a line.")] = False,
) -> int:
    """Print a room from its log; also while a server has it open."""
    from roomkit.cli.replay import ReplayOptions, replay_room

    return replay_room(ReplayOptions(room, store, to, tenant, raw, json))


@app.command()
def export(
    room: RoomName,
    store: StorePlace = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write; without it standard output.")
    ] = None,
    tenant: Tenant = "default",
    media: Annotated[bool, typer.Option("--media/--no-media", help="With the files that were sent.")] = True,
) -> int:
    """Write a room as lines of JSON; also while a server has it open."""
    from roomkit.cli.transfer import export_to

    return export_to(room, store, out, tenant, media)


@app.command(name="import")
def import_command(
    file: Annotated[Path, typer.Argument(help="What `roomkit export` wrote; - is standard input.")],
    store: StorePlace = None,
    room: Annotated[str | None, typer.Option(help="Another id than its own.")] = None,
    tenant: Tenant = "default",
) -> int:
    """Make a room of an export. Nothing is sent."""
    from roomkit.cli.transfer import import_from

    return import_from(file, store, room, tenant)


@app.command()
def erase(
    who: Annotated[str, typer.Argument(help="A participant id, an identity id or an address.")],
    store: StorePlace = None,
    tenant: Tenant = "default",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Erase a person from every room. It cannot be undone; where a server runs, POST /api/erasures."""
    from roomkit.cli.erase import erase_somebody

    def sure(rooms: int) -> None:
        if not yes:
            where = f"{rooms} rooms" if rooms != 1 else "1 room"
            typer.confirm(f'Erase {who} from {where} of tenant "{tenant}"? It cannot be undone', abort=True, err=True)

    return erase_somebody(who, store, tenant, sure)


@app.command()
def consent(
    who: Annotated[
        str | None, typer.Argument(help="An identity id or an address; everybody's lines without it.")
    ] = None,
    store: StorePlace = None,
    tenant: Tenant = "default",
    json: Annotated[bool, typer.Option("--json", help="One line of JSON each.")] = False,
) -> int:
    """Tell who stopped or allowed what, when, and how. It is the ledger of a store."""
    from roomkit.cli.consent import show_ledger

    return show_ledger(who, store, tenant, json)


@app.command(name="audit")
def audit_command(
    room: RoomName,
    store: StorePlace = None,
    tenant: Tenant = "default",
    anchor: Annotated[
        str | None, typer.Option(help="A head that you wrote down: the log must still contain it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The report as one line of JSON.")] = False,
) -> int:
    """Check a log against its audit chain. Names the first event that was altered or deleted."""
    from roomkit.cli.audit import audit

    return audit(room, store, tenant, anchor, json)


@app.command(name="call")
def call_command(
    file: Annotated[Path, typer.Argument(help="What the caller says: a 16-bit PCM WAV file.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write both sides, caller left and room right.")
    ] = None,
    target: Annotated[str | None, typer.Option("--app", help="Your program, e.g. app:kit; else the demo.")] = None,
    stt: Annotated[str, typer.Option(help="The recogniser, e.g. deepgram:nova-3.")] = "sphinx",
    tts: Annotated[str, typer.Option(help="The voice, e.g. elevenlabs.")] = "espeak",
    language: Annotated[str, typer.Option(help="What is spoken, e.g. en or de-AT.")] = "en",
    json: Annotated[bool, typer.Option("--json", help="One line of JSON for each thing that happens.")] = False,
) -> int:
    """Run a recorded caller through a room. Prints the time line and the transcript."""
    from roomkit.cli.call import CallCommand, call_room

    return call_room(CallCommand(file, out, target, stt, tts, language, json))
