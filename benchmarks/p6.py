"""P6: a tool loop of 50 rounds; every call and result stored."""

from __future__ import annotations

from benchmarks.measure import Cost, Meter, Report, cpu_figure
from benchmarks.rooms import Numbered, Source, kit_with
from roomkit import AIChannel, EventType
from roomkit.testing.ai import ScriptedAI, call

TITLE = "a tool loop of 50 rounds, every call and result stored"
ROUNDS = 50


async def lookup(name: str, arguments: dict[str, object]) -> str:
    return f"{name} {arguments['number']}: on its way"


async def run(meter: Meter) -> Report:
    numbered, replies = Numbered(), 0
    provider = ScriptedAI()
    brain = AIChannel("ai", provider, tool_handler=lookup)
    brain.configure(tools=[_spec()])
    kit = kit_with(Source(), brain)

    async with kit:

        async def work(_: Cost) -> int:
            nonlocal replies
            for message in numbered.many(meter.size(2, 1)):
                replies += 1
                room_id = f"r{replies}"
                await kit.create_room(room_id, channels=["in", "ai"])
                for number in range(ROUNDS):
                    provider.add([call("lookup", f"c{replies}-{number}", number=number)])
                provider.add("It is on its way.")
                result = await kit.process_inbound(message, room_id=room_id)
                await result.settled()
            return meter.size(2, 1) * ROUNDS

        cost = await meter.cost(work, 25)
        events = await kit.events(f"r{replies}", limit=1_000, raw=True)
        kinds = [event.type for event in events]
        assert kinds.count(EventType.TOOL_CALL_START) == ROUNDS, "every call is stored"
        assert kinds.count(EventType.TOOL_CALL_END) == ROUNDS, "every result is stored"
    return Report([cpu_figure("per round", cost, 120.0)])


def _spec() -> object:
    from roomkit.models.ai import ToolSpec

    schema = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
    return ToolSpec(name="lookup", description="Looks an order up.", parameters=schema)
