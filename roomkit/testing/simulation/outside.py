"""What stands around the rooms: vendors that answer ambiguously, a scripted model, and its tools."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roomkit.ai.tools import ToolContext, tool
from roomkit.errors import ProviderError, ProviderTimeout, ToolFailed
from roomkit.models.ai import (
    AIEvent,
    AIProfile,
    AIRequest,
    Finished,
    TextChunk,
    ToolCallChunk,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding, ChannelCapabilities
from roomkit.ports.channel import Channel, RoomContext
from roomkit.ports.store import RecordQuery
from roomkit.testing.simulation.process import Process, alive
from roomkit.testing.simulation.rights import NOTE

if TYPE_CHECKING:
    from roomkit.testing.simulation.world import World

WORD = re.compile(r"<[a-z0-9.]+>")
"""Every message carries a word of its own, so that it can be recognised wherever it turns up."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A vendor took a message. `told`: its yes got back to the process. `stale`: it came from a process that another
    one had taken over from; no fence reaches so far. `life`: from its start, or its last take-over, to its end."""

    at: float
    process: int
    tenant: str
    room: str
    index: int
    event_id: str
    text: str
    told: bool
    stale: bool
    life: str


class Vendor:
    """The far side of one outbox channel, for all processes. `mood` is how often things go wrong."""

    def __init__(self, world: World, name: str, policy: DeliveryPolicy, dice: random.Random) -> None:
        self.world = world
        self.name = name
        self.policy = policy
        self.dice = dice
        self.mood = dice.choice((0.0, 0.1, 0.3))
        self.receipts: list[Receipt] = []
        self._ids: dict[tuple[str, str, int], str] = {}

    async def take(self, process: Process, event: RoomEvent) -> DeliveryResult:
        dice, calm = self.dice, self.world.calm
        await asyncio.sleep(0.0 if calm else dice.choice((0.0, 0.0, 0.01, 0.2)))
        await process.thawed()
        alive()
        fate = "ok" if calm or dice.random() >= self.mood else dice.choice(_FATES)
        if fate == "unreachable":
            raise ProviderTimeout(self.name, "no answer", ambiguous=True)
        if fate == "busy":
            raise ProviderError(self.name, "busy", retryable=True, retry_after=dice.choice((None, 0.5)))
        if fate == "refused":
            return DeliveryResult(success=False, error="refused", code="refused")
        told = fate in ("ok", "slow")
        key = (event.tenant, event.room_id, event.index)
        now = self.world.loop.time()
        self.receipts.append(
            Receipt(
                now,
                process.number,
                *key,
                event.id,
                event.text,
                told,
                process.lost(event.tenant, event.room_id),
                process.life,
            )
        )
        self.world.trace(
            self.name, f"takes {event.tenant}/{event.room_id}[{event.index}] from p{process.number} {fate}"
        )
        if fate == "hangs":
            await asyncio.sleep(self.policy.timeout_s + 1)
        if fate == "slow":
            await asyncio.sleep(dice.choice((0.1, 1.0)))
        if fate == "answer lost":
            raise ProviderTimeout(self.name, "no answer", ambiguous=True)
        alive()
        # A repeated key is the same message to a vendor that knows keys, and one more to any other.
        fresh = f"{self.name}-{len(self.receipts)}"
        sent = self._ids.setdefault(key, fresh) if self.policy.idempotent else fresh
        return DeliveryResult(success=True, provider_message_id=sent)


_FATES = ("unreachable", "answer lost", "answer lost", "hangs", "busy", "busy", "refused", "slow", "slow")


class SimChannel(Channel):
    """An outbox channel to a simulated vendor."""

    def __init__(self, vendor: Vendor) -> None:
        super().__init__(vendor.name, "sms", capabilities=_CAPABILITIES)
        self.delivery_policy = vendor.policy
        self._vendor = vendor

    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        return await self._vendor.take(alive(), event)


_CAPABILITIES = ChannelCapabilities(edit=True, delete=True, reactions=True, shows_sender=True)


class Model:
    """An `AIProvider` whose answers the dice decide. It notes which words each request showed it."""

    name = "model"
    profile = AIProfile(structured_streaming=True)

    def __init__(self, world: World, dice: random.Random) -> None:
        self._world = world
        self._dice = dice
        self._more = random.Random(f"{world.seed} and once more")
        self._repeated: set[str] = set()
        self._tools = dice.choice((0.0, 0.4, 0.8))
        self._broken = dice.choice((0.0, 0.0, 0.1))
        self._pace = dice.choice((0.0, 0.05, 0.3, 0.5))
        self.asked: dict[str, list[float]] = {}
        """Word -> when it was in the first prompt of a turn; -1: in a later one."""
        self.overheard: list[float] = []
        """When it was shown what colleagues note for each other."""

    async def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
        alive()
        dice, now = self._dice, self._world.loop.time()
        last = request.messages[-1]
        first = last.role == "user"  # Later rounds of a turn go on from what its first one was shown.
        for message in request.messages:
            if NOTE in message.text:
                self.overheard.append(now)
            for word in WORD.findall(message.text):
                self.asked.setdefault(word, []).append(now if first else -1.0)
        await self._think()
        if not self._world.calm and dice.random() < self._broken:
            raise ProviderError(self.name, "overloaded", retryable=True)
        result = last.parts[-1]
        wanted = self._again(request, result) if isinstance(result, ToolResultPart) else self._wanted(request)
        if wanted is not None and any(spec.name == wanted for spec in request.tools):
            if dice.random() < 0.5:
                yield TextChunk("One moment. ")
            word = _last_word(request)
            self._world.trace("model", f"calls {wanted} for {word}")
            yield ToolCallChunk(ToolCallPart(call_id="", name=wanted, arguments={"order": word}))
            yield Finished("tool_calls", _USAGE)
            return
        for part in range(dice.choice((1, 2, 4, 10))):
            yield TextChunk(f"re{part} " if part else f"re{part} {_last_word(request).strip('<>')} ")
            await self._think()
        yield Finished("stop", _USAGE)

    def _wanted(self, request: AIRequest) -> str | None:
        if "approved wipe" in request.messages[-1].text:
            return "wipe"
        if ASKING in self._world.features and self._more.random() < 0.5:
            return "wipe"
        return self._dice.choice(("charge", "charge", "lookup", "wipe")) if self._dice.random() < self._tools else None

    def _again(self, request: AIRequest, result: ToolResultPart) -> str | None:
        """What was allowed it may want once more, and has to ask for once more."""
        word = _last_word(request)
        if result.output != WIPED or word in self._repeated:
            return None
        self._repeated.add(word)
        return "wipe" if self._more.random() < 0.5 else None

    async def _think(self) -> None:
        if self._pace and not self._world.calm:
            await asyncio.sleep(self._dice.choice((0.0, self._pace)))
        alive()

    async def aclose(self) -> None:
        pass


ASKING = "asking"
"""The feature that the model asks often, and somebody is there when it does."""
WIPED = "wipe is done"
_USAGE = Usage(input_tokens=10, output_tokens=5)


def _last_word(request: AIRequest) -> str:
    for message in reversed(request.messages):
        words = WORD.findall(message.text) if message.role == "user" else []
        if words:
            return words[-1]
    return "<none>"


@dataclass(frozen=True, slots=True)
class Run:
    """A tool ran. `noted`: its intent was on the disk before."""

    at: float
    process: int
    name: str
    key: str
    order: str
    tenant: str
    room: str
    noted: bool


async def _run(name: str, order: str, context: ToolContext) -> str:
    process = alive()
    world = process.world
    prefix = f"{context.room_id}\n{context.turn_id}\n{context.call_id}"
    rows = world.disk.read(RecordQuery("journal", context.tenant, key=prefix))
    noted = bool(rows) and rows[0].value["status"] in ("pending", "cancelled")  # cut in this very moment
    key = context.idempotency_key
    world.runs.append(Run(world.loop.time(), process.number, name, key, order, context.tenant, context.room_id, noted))
    world.trace("tools", f"p{process.number} runs {name} for {order} under {key}")
    await asyncio.sleep(world.tool_dice.choice((0.0, 0.01, 0.4)))
    alive()
    if not world.calm and world.tool_dice.random() < 0.1:
        raise ToolFailed("it did not work")
    return f"{name} is done"


@tool(description="Charges an order.")
async def charge(order: str, context: ToolContext) -> str:
    return await _run("charge", order, context)


@tool(description="Looks an order up.", idempotent=True)
async def lookup(order: str, context: ToolContext) -> str:
    return await _run("lookup", order, context)


@tool(description="Wipes an order.", needs_approval=True)
async def wipe(order: str, context: ToolContext) -> str:
    return await _run("wipe", order, context)


TOOLS = (charge, lookup, wipe)
