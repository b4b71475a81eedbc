"""`roomkit demo --check`: the demo played by programs over real sockets, a kill -9 included, and judged by the file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import roomkit
from roomkit.cli.console import clean, paint, say
from roomkit.cli.demo import Invitation
from roomkit.cli.environment import SECRET, need, need_server
from roomkit.cli.serving import run_async
from roomkit.cli.witness import (
    Stored,
    Witness,
    guest_may_see,
    history_of,
    read_room,
    said_by_ai,
    text_of,
    violations_of,
)
from roomkit.errors import RoomKitError
from roomkit.net.room_client import ClientOptions, RoomClient
from roomkit.runtime import SystemClock, bounded, monotonic

START_S = 15.0
STOP_S = 15.0
FIRST_S = 3.0
CLOSED_S = 2.0
"""How long after the restarted server serves an interrupted reply may stay open, at most."""
NOTE = "Ada is a regular customer; wish her a good trip"
HINT = "Mention that the shop is open until eight"


def check_demo() -> int:
    """Plays and judges; 0 when every claim held, else 1."""
    need_server("roomkit demo --check")
    need("roomkit demo --check", "http", "httpx2")
    return run_async(_check())


async def _check() -> int:
    with tempfile.TemporaryDirectory(prefix="roomkit-check-") as folder:
        play = Play(Path(folder))
        began = monotonic()
        try:
            await play.run()
        except (TimeoutError, RoomKitError, OSError, KeyError, ValueError) as error:
            play.claim(False, f"the play came to its end ({type(error).__name__}: {error})")
        finally:
            await play.server.end()
        play.judge()
        return play.verdict(monotonic() - began)


def patience() -> float:
    """How much longer than on an idle machine things may take: the share of a processor that is left for us."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Server:
    """The demo in a process of its own, on one port and one file for all its lives."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "rooms.db"
        self._folder = folder
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> Invitation:
        package = str(Path(roomkit.__file__).parents[1])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "NO_COLOR": "1"}
        environment.pop(SECRET, None)
        options = ["--json", "--no-open", "--brain", "offline", "--db", str(self.db), "--port", str(self._port)]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "roomkit", "demo", *options),
            cwd=self._folder,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = await bounded(self._process.stdout.readline(), START_S, f"the server did not start in {START_S:g} s")
        if not line:
            raise OSError(f"the server ended at once, with code {await self._process.wait()}")
        invitation = Invitation(**json.loads(line))
        self._port = int(invitation.url.rpartition(":")[2])
        return invitation

    async def kill(self) -> None:
        """kill -9: it gets to do nothing any more."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await bounded(self._process.wait(), STOP_S, f"the server did not stop in {STOP_S:g} s")

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.kill()


@dataclass(slots=True)
class Play:
    """Two guests and a supervisor in one room; `claims` is what was promised and whether it held."""

    folder: Path
    claims: list[tuple[bool, str]] = field(default_factory=list[tuple[bool, str]])
    witnesses: list[Witness] = field(default_factory=list[Witness])
    server: Server = field(init=False)
    room: str = ""
    interrupted: str = ""
    restarted: datetime | None = None
    serving: datetime | None = None
    stopped_with: int | None = None
    _api: Any = None

    def __post_init__(self) -> None:
        self.server = Server(self.folder)

    def claim(self, held: bool, what: str) -> None:
        self.claims.append((held, what))
        say(f"  {paint('ok', 'green') if held else paint('NO', 'red')}  {what}")

    async def run(self) -> None:
        from roomkit.net.client import ClientOptions as HttpOptions
        from roomkit.net.client import http_client

        say(paint("roomkit demo --check", "bold") + ": two guests, a supervisor, the offline brain, a real server")
        began = monotonic()
        invited = await self.server.start()
        self.room = invited.room
        async with AsyncExitStack() as stack:
            self._api = await stack.enter_async_context(
                http_client(
                    HttpOptions(read_s=10.0),
                    base_url=f"{invited.url}/api",
                    headers={"authorization": f"Bearer {invited.supervisor_token}"},
                )
            )
            ben_token = (await self._post("/tokens", role="guest", room_id=self.room, id="ben", display_name="Ben"))[
                "token"
            ]
            people = (("ada", invited.guest_token), ("ben", ben_token), ("boss", invited.supervisor_token))
            for name, token in people:
                url = invited.url.replace("http", "ws", 1) + "/socket"
                client = RoomClient(url, self.room, token, ClientOptions(tail=200, max_backoff_s=0.5))
                self.witnesses.append(await stack.enter_async_context(Witness(name, client, name == "boss")))
            await self._story(began)
            for one in self.witnesses:
                await one.until(lambda one=one: one.client.position >= self._last(), 5, "the end of the log")
            self.stopped_with = await self.server.stop()
            self.claim(self.stopped_with == 0, "SIGTERM: the server drained and ended with code 0")

    async def _story(self, began: float) -> None:
        await self._streaming(began)
        await self._tools()
        await self._approval_and_steering()
        await self._cancelling()
        await self._floor()
        await self._crash()

    # -- the scenes -----------------------------------------------------------------------------------------------

    async def _streaming(self, began: float) -> None:
        ada, ben, boss = self.witnesses
        asked = await ada.say("Hello!")
        reply = await ada.reply(asked["index"])
        first = min(one.first_at for one in ada.growing.values())
        took = first - began
        self.claim(took < FIRST_S * patience(), f"first words of a reply {took:.1f} s after the start of the process")
        for one in (ada, ben, boss):
            await one.reply(asked["index"])
            chunks = one.growing[reply["id"]].chunks
            self.claim(chunks > 5, f"{one.name} saw the reply stream in, in {chunks} pieces")

    async def _tools(self) -> None:
        ada, ben, boss = self.witnesses
        asked = await ben.say("What time is it, and what is 12 * 7?")
        reply = await ada.reply(asked["index"])
        calls = [
            e["content"].get("name") for e in boss.seen if e["type"] == "tool_call_end" and e["index"] > asked["index"]
        ]
        self.claim(
            "84" in text_of(reply) and {"clock", "calculator"} <= set(calls), "the brain ran two tools and used them"
        )
        hidden = not any(e["type"].startswith("tool_call") for e in ada.seen)
        self.claim(hidden, "tool calls are shown to the supervisor and hidden from guests")

    async def _approval_and_steering(self) -> None:
        ada, _, boss = self.witnesses
        asked = await ada.say("Please refund order 1042")
        await boss.until(
            lambda: any(e["type"] == "approval_requested" and e["index"] > asked["index"] for e in boss.seen),
            10,
            "a question for approval",
        )
        paid = any(e["type"] == "tool_call_end" and e["index"] > asked["index"] for e in boss.seen)
        (approval,) = (await self._get(f"/rooms/{self.room}/approvals"))["approvals"]
        await self._post(f"/rooms/{self.room}/steer", directive="inject", text=HINT)
        await self._post(f"/rooms/{self.room}/approvals/{approval['id']}", granted=True, reason="a known customer")
        reply = await ada.reply(asked["index"], containing="refunded")
        self.claim(not paid, "the refund waited for a person, and was made when the supervisor said yes")
        steered = "supervisor asked" in text_of(reply) and HINT not in text_of(reply)
        self.claim(steered, "the supervisor steered the running reply, in words that no guest was told")

    async def _cancelling(self) -> None:
        ada, ben, boss = self.witnesses
        story = await self._begin_story(ben, 6)
        await self._post(f"/rooms/{self.room}/steer", directive="cancel")
        ended = await boss.until(lambda: self._event(boss, story), 5, "the end of the cancelled reply")
        reason = ended["metadata"].get("end_reason")
        self.claim(reason == "cancelled", f"the supervisor cancelled a reply after {len(text_of(ended).split())} words")
        await ada.until(lambda: self._event(ada, story), 5, "the end of the cancelled reply")

    async def _floor(self) -> None:
        ada, ben, boss = self.witnesses
        story = await self._begin_story(ada, 6)
        await self._post(f"/rooms/{self.room}/floor/take")
        words = await boss.say("Sam from the shop here, I take over.")
        await ada.until(lambda: words["event_id"] in {e["id"] for e in ada.seen}, 5, "the supervisor's words")
        asked = await ada.say("When do you open tomorrow?")
        quiet = await boss.say("At nine o'clock.")
        await ben.until(lambda: quiet["event_id"] in {e["id"] for e in ben.seen}, 5, "the supervisor's answer")
        running = [
            one
            for one in boss.growing.values()
            if one.ended_at is None and one.chunks and one is not boss.growing.get(story)
        ]
        silent = not any(said_by_ai(e) and e["index"] > asked["index"] for e in boss.seen) and not running
        self.claim(silent, "while the supervisor held the floor the AI was silent")
        await self._post(f"/rooms/{self.room}/floor/release", note=NOTE)
        asked = await ada.say("Thanks!")
        reply = await ada.reply(asked["index"])
        noted = "given me a hint" in text_of(reply) and NOTE not in text_of(reply)
        self.claim(noted, "handed back, and the AI had read the supervisor's note and kept it to itself")

    async def _crash(self) -> None:
        ada, ben, boss = self.witnesses
        self.interrupted = await self._begin_story(ada, 25)
        before = ada.growing[self.interrupted].text
        await self.server.kill()
        say(f"  ..  kill -9 in mid-reply, after {len(before.split())} words")
        began = monotonic()
        self.restarted = SystemClock().now()
        waiting = ben.say("Are you still there? What is 6 * 7?")
        acked, _ = await asyncio.gather(waiting, self._restart())
        closed = await ada.until(lambda: self._event(ada, self.interrupted), 10, "the end of the interrupted reply")
        for one in self.witnesses:
            await one.until(lambda one=one: one.resumed, 10, "the resumed connection")
        self.claim(
            all(one.resumed for one in self.witnesses),
            f"started again on the same file after {monotonic() - began:.1f} s: every client came back and resumed",
        )
        kept = text_of(closed)
        self.claim(
            bool(kept) and (before.startswith(kept) or kept.startswith(before)),
            f"the interrupted reply was closed with the {len(kept.split())} words that were durable",
        )
        self.claim(not acked["duplicate"], "a message sent while the server was down was accepted once")
        reply = await ben.reply(acked["index"], containing="42")
        await boss.until(lambda: self._event(boss, reply["id"]), 5, "the last reply")

    async def _restart(self) -> None:
        await self.server.start()
        self.serving = SystemClock().now()

    async def _begin_story(self, who: Witness, chunks: int) -> str:
        """Asks for a story and returns its id once it is well under way."""
        known = set(who.growing)
        await who.say("Tell me a story")
        return await who.until(
            lambda: next((i for i, one in who.growing.items() if i not in known and one.chunks >= chunks), None),
            10,
            "a story",
        )

    # -- small things ---------------------------------------------------------------------------------------------

    @staticmethod
    def _event(who: Witness, event_id: str) -> dict[str, Any] | None:
        return next((e for e in who.seen if e["id"] == event_id), None)

    def _last(self) -> int:
        return max((event["index"] for one in self.witnesses for event in one.seen), default=-1)

    async def _get(self, path: str) -> dict[str, Any]:
        return _body(await self._api.get(path))

    async def _post(self, path: str, **fields: Any) -> dict[str, Any]:
        return _body(await self._api.post(path, json=fields))

    # -- the verdict ----------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Reads the file, the server being down, and compares it with what everybody saw."""
        if not self.room or not self.server.db.exists():
            return
        try:
            stored = read_room(self.server.db, self.room)
        except (ValueError, OSError) as error:
            self.claim(False, f"the file can be read ({error})")
            return
        self._transcript(stored)
        say(paint("what the file says", "bold"))
        self._judge_log(stored)
        self._judge_views(stored)

    def _judge_log(self, stored: Stored) -> None:
        events = stored.events
        whole = stored.integrity == "ok" and all(event["agrees"] for event in events)
        gapless = [event["index"] for event in events] == list(range(stored.next_index))
        self.claim(
            whole and gapless, f"the file is whole: {len(events)} events, indexes 0 to {len(events) - 1} without a gap"
        )
        mine = [event["metadata"].get("client_id") for event in events]
        acks = [ack for one in self.witnesses for ack in one.acks if "acked_at" in ack]
        once = all(mine.count(ack["client_id"]) == 1 for ack in acks)
        self.claim(once and bool(acks), f"each of the {len(acks)} acknowledged messages is there exactly once")
        closed = next((event for event in events if event["id"] == self.interrupted), None)
        if closed is not None and self.restarted is not None and self.serving is not None:
            at = datetime.fromisoformat(closed["created_at"])
            took = f"{(at - self.restarted).total_seconds():.1f} s after the new process was started"
            self.claim(
                (at - self.serving).total_seconds() < CLOSED_S * patience(), f"the interrupted reply was closed {took}"
            )
        self.claim(not stored.unsettled, "no turn, reply or delivery was left open")

    def _judge_views(self, stored: Stored) -> None:
        violations = violations_of(history_of(self.room, stored, self.witnesses))
        for violation in violations:
            say(f"      {violation}")
        what = "in order, once, nothing hidden, nothing missing"
        self.claim(not violations, f"what each client saw is exactly what is stored for it: {what}")
        texts = {event["id"]: text_of(event) for event in stored.events}
        for one in self.witnesses:
            wrong = [event["id"] for event in one.seen if texts.get(event["id"]) != text_of(event)]
            self.claim(not wrong and bool(one.seen), f"{one.name} saw {len(one.seen)} events, word for word as stored")

    def _transcript(self, stored: Stored) -> None:
        say()
        say(paint("transcript", "bold") + f" of room {self.room}, from the file")
        for event in stored.events:
            say(_line(event))
        say()

    def verdict(self, took: float) -> int:
        failed = sum(not held for held, _ in self.claims)
        good = not failed and self.stopped_with == 0
        say()
        told = f"all {len(self.claims)} claims held" if good else f"{failed} of {len(self.claims)} claims did not hold"
        say(paint("PASSED" if good else "FAILED", "green" if good else "red") + f": {told} ({took:.0f} s)")
        return 0 if good else 1


def _line(event: dict[str, Any]) -> str:
    source = event["source"]
    who = event["metadata"].get("sender_name") or source.get("participant_id") or source["channel_id"]
    marks = [
        mark for mark in (event["metadata"].get("end_reason"), event.get("blocked_by")) if mark and mark != "completed"
    ]
    if not guest_may_see(event):
        marks.append("hidden from guests")
    text = " ".join(_words(event).split())
    text = text if len(text) <= 110 else f"{text[:80]} ... {text[-25:]}"
    kind = "" if event["type"] == "message" else f"({event['type']}) "
    suffix = paint(f"  [{', '.join(marks)}]", "dim") if marks else ""
    return f"  {event['index']:>3}  {clean(str(who)):<11} {kind}{clean(text)}{suffix}"


def _words(event: dict[str, Any]) -> str:
    content = event["content"]
    if content["type"] != "tool_call":
        return text_of(event) or str(content.get("code", ""))
    arguments = json.dumps(content.get("arguments", {}))
    return f"{content.get('name')} {arguments} {content.get('result') or ''}"


def _body(response: Any) -> dict[str, Any]:
    if response.is_success:
        return response.json() if response.content else {}
    raise OSError(
        f"{response.request.method} {response.request.url.path} answered {response.status_code}: {response.text[:200]}"
    )
