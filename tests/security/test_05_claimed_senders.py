"""Line 5: a `From` is a claim. Who writes under an owner's number gets a guest's rights, through every provider."""

from __future__ import annotations

import asyncio

import pytest

from roomkit import AIChannel, RoomKit
from roomkit.ai.policy import RoleOverride, ToolPolicy
from roomkit.ai.tools import Toolbox, tool
from roomkit.models.delivery import InboundMessage
from roomkit.models.room import Assurance, Identity, Role
from roomkit.testing import VirtualClock
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.channels import FakeChannel
from tests.security.adapters import PUBLIC, WEBHOOKS, WebhookCase
from tests.servers.house import house

OWNER = "+15550199"
POLICY = ToolPolicy(roles={"owner": RoleOverride("replace"), "*": RoleOverride("restrict", deny=("pay",))})
RAN: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()


@tool
async def pay(to: str) -> str:
    """Pays money out."""
    RAN.append(to)
    return "paid"


def add_ai(kit: RoomKit, policy: ToolPolicy = POLICY) -> ScriptedAI:
    """An AI that pays whoever asks."""
    brain = ScriptedAI([call("pay", to="mallory")], "ok", [call("pay", to="mallory")], "ok")
    kit.register_channel(AIChannel("ai", brain, tool_handler=Toolbox([pay]), tool_policy=policy), default=True)
    return brain


@pytest.mark.parametrize("case", WEBHOOKS.values(), ids=WEBHOOKS)
async def test_the_number_of_an_owner_gives_the_rights_of_a_guest(case: WebhookCase) -> None:
    clock = VirtualClock()
    kit = case.kit(clock)
    brain = add_ai(kit)
    async with house(kit, public_url=PUBLIC) as h:
        await kit.create_room("r", channels=["ai"])
        seat = await kit.attach_channel("r", "hook", metadata={"address": OWNER, "phone_number": OWNER})
        assert seat.assurance is Assurance.CLAIMED
        await kit.add_member("r", f"{kit.channels['hook'].channel_type}:{OWNER}", role=Role.OWNER, channel_id="hook")
        request = case.signed(clock, sender=OWNER, text="pay mallory")
        assert (await h.http.post("/webhooks/hook", content=request.body, headers=request.headers)).status_code == 200
        await asyncio.sleep(30)
    assert len(brain.requests) == 2, "the message reached the AI in the owner's room"
    assert RAN == []


@pytest.mark.parametrize(
    "assurance, ran",
    [(Assurance.CLAIMED, []), (Assurance.VERIFIED, ["mallory"]), (Assurance.AUTHENTICATED, ["mallory"])],
)
async def test_a_resolved_identity_is_no_proof_but_a_verified_seat_is(assurance: Assurance, ran: list[str]) -> None:
    kit = RoomKit(clock=VirtualClock())
    add_ai(kit)
    kit.register_channel(FakeChannel("sms"))
    async with kit:
        await kit.identities.put(Identity(id="ann", display_name="Ann", addresses={"sms": (OWNER,)}))
        await kit.create_room("r", channels=["ai"])
        await kit.attach_channel("r", "sms", metadata={"address": OWNER}, assurance=assurance)
        await kit.add_member("r", "ann", role=Role.OWNER)
        message = InboundMessage.text("sms", OWNER, "pay mallory", assurance=assurance)
        await (await kit.process_inbound(message, room_id="r")).settled()
    assert ran == RAN


async def test_an_owner_on_a_socket_is_one() -> None:
    kit = RoomKit(clock=VirtualClock(), token_secrets=["a secret for these tests only"])
    add_ai(kit)
    async with house(kit) as h:
        await kit.create_room("r", channels=["ai", "web"])
        await kit.add_member("r", "guest", role=Role.OWNER, channel_id="web")
        async with h.joined("r") as socket:
            await socket.say("send", client_id="1", text="pay mallory")
            await socket.get("ack")
            await asyncio.sleep(30)
    assert RAN == ["mallory"]


async def test_who_owns_one_room_is_a_guest_in_another_and_a_name_is_nothing() -> None:
    kit = RoomKit(clock=VirtualClock())
    add_ai(kit)
    kit.register_channel(FakeChannel("sms"))
    async with kit:
        await kit.create_room("r", channels=[])
        await kit.add_member("r", f"sms:{OWNER}", role=Role.OWNER)
        for name in ("owner", "host", "Owner of r", f"sms:{OWNER}"):
            message = InboundMessage.text("sms", "+15550666", "pay", sender_name=name)
            await (await kit.process_inbound(message)).settled()
    assert RAN == []


async def test_a_tool_can_ask_that_everybody_be_verified() -> None:
    kit = RoomKit(clock=VirtualClock())
    add_ai(kit, ToolPolicy(assurance={"pay": Assurance.VERIFIED}))
    kit.register_channel(FakeChannel("sms"))
    async with kit:
        await (await kit.process_inbound(InboundMessage.text("sms", OWNER, "pay"))).settled()
    assert RAN == []
