"""The pictures of the documentation: `python -m tests.e2e.showcase` writes docs/img/*.png from the real pages.

With DB PORT PREFIX it is the server behind them: a few rooms in which something has happened.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from roomkit import AIChannel, BeforeCommit, Block, InboundMessage, RoomKit, WebSocketChannel
from roomkit.ai.tools import Toolbox, tool
from roomkit.channels import SMSChannel
from roomkit.models.ai import AIRequest
from roomkit.models.room import Role
from roomkit.testing.ai import Item, ScriptedAI, call
from roomkit.testing.messages import FakeMessages
from tests.e2e.app import serve
from tests.e2e.driver import QUIET, ROOT, Pages, Server

OUT = ROOT / "docs" / "img"
ORDER = (
    "I found it: order **1042** is on its way.\n\n- Keyboard, quiet (1)\n- Expected on **Tuesday, 24 November**\n\n"
    "Shall I ask the carrier to leave it with a neighbour if you are out?"
)
STORY = {
    "1042": ("Let me look. ", call("order_lookup", order="1042")),
    "neighbour": ("I have asked the carrier to use a neighbour. I am sorry for the wait.",),
    "50%": ("You can have 50% off everything, right now!",),
    "refund": (call("refund_order", order="1042", amount=12.9),),
    "size": ("The medium fits most people between 1.70 and 1.80 m. Would you like to see the table?",),
    "warranty": (
        "Yes: two years, and for keyboards three. ",
        "Keep the receipt, or let me find your order by its number. ",
        "If something breaks, we send a replacement first, so that you are never without one.",
    ),
}


@tool
def order_lookup(order: str) -> dict[str, object]:
    """Looks an order up."""
    items = [{"sku": "KB-88", "name": "Keyboard, quiet", "qty": 1}]
    return {"order": order, "status": "in transit", "eta": "2026-11-24", "items": items}


@tool(needs_approval=True)
def refund_order(order: str, amount: float) -> str:
    """Pays money back."""
    return f"refunded {amount:.2f} for {order}"


def tell(request: AIRequest) -> list[Item]:
    if request.messages[-1].role == "tool":
        return re.findall(r"\S+\s*", ORDER)
    text = next((message.text for message in reversed(request.messages) if message.role == "user"), "")
    items = next((answer for word, answer in STORY.items() if word in text), ("Yes, gladly.",))
    return [part for item in items for part in (re.findall(r"\S+\s*", item) if isinstance(item, str) else [item])]


async def told(kit: RoomKit, room: str, name: str, text: str, channel: str = "web") -> None:
    message = InboundMessage.text(
        channel, name, text, participant_id=name.lower(), sender_name=name, metadata={"sender_name": name}
    )
    result = await kit.process_inbound(message, room_id=room)
    await result.settled()


async def furnish(kit: RoomKit) -> None:
    kit.register_channel(WebSocketChannel("web"))
    kit.register_channel(SMSChannel("sms", provider=FakeMessages("carrier"), from_number="+15550100"))
    brain = ScriptedAI(tell, delay=0.12, repeat=True)
    kit.register_channel(AIChannel("assistant", brain, tool_handler=Toolbox([order_lookup, refund_order])))

    @kit.before(BeforeCommit, name="discount_guard")
    async def discounts(moment: BeforeCommit) -> Block | None:
        return Block("more than 15% needs a person") if "50% off" in moment.value.text else None


async def enact(kit: RoomKit) -> None:
    """What happened before anybody looked."""
    people = {
        "mira": "Mira Chen",
        "tom": "Tom Baker",
        "lena": "Lena Fischer",
        "jonas": "Jonas Weber",
        "ada": "Ada Lovelace",
    }
    for room, name in people.items():
        await kit.create_room(room, channels=["web", "assistant"])
        await kit.add_member(room, room, display_name=name, role=Role.OWNER)
    await told(kit, "tom", "Tom", "That solved it, thanks a lot!")
    await kit.close_room("tom", by="sam")
    await told(kit, "lena", "Lena", "Which size should I take?")
    asked = InboundMessage.text("web", "lena", "It does not fit: a refund, please", participant_id="lena")
    await kit.process_inbound(asked, room_id="lena")  # and the AI waits for a yes
    await told(kit, "mira", "Mira", "Is there a warranty?")
    await kit.take_over("mira", "rita")
    await told(kit, "jonas", "Jonas", "I want my money back.")
    await kit.request_human("jonas", "Wants a refund above the limit", by="assistant")
    await kit.attach_channel("ada", "sms", metadata={"phone_number": "+4915123456789"}, participant_id="phone")
    await told(kit, "ada", "Ada", "Hi! My parcel for order 1042 has not arrived yet 😕")
    await told(kit, "ada", "Ada", "yes please, a neighbour is fine")
    await kit.note("ada", "Customer since 2019, two late deliveries this year. Be generous.", "rita")
    await told(kit, "ada", "Ada", "can I have 50%?")
    await kit.whisper("ada", "Offer 10%, and apologise for the delay.", to="assistant", by="rita")
    await kit.draft("ada", "Dear Ada, as a thank-you for your patience we take 10% off your order.", by="rita")


async def main(database: str, port: int, prefix: str) -> None:
    kit = RoomKit(f"sqlite:///{database}", token_secrets=("only for pictures",))
    await furnish(kit)
    async with kit:
        await enact(kit)
        await serve(kit, port, prefix, guests=("ada", "mira"))


def pictures(chromium: str) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=[*QUIET])
        for scheme, suffix in (("light", ""), ("dark", "-dark")):
            with tempfile.TemporaryDirectory() as folder:
                server = Server(Path(folder), app="tests.e2e.showcase").start()
                pages = Pages(browser, color_scheme=scheme, locale="en-GB")
                try:
                    picture(server, pages, suffix)
                finally:
                    pages.close()
                    server.stop()
        browser.close()


def picture(server: Server, pages: Pages, suffix: str) -> None:
    desk = pages.open(server, "supervisor?ada", "sam", width=1440, height=900)
    pages.open(server, "supervisor?ada", "rita")
    phone = pages.open(server, "", "ada", width=390, height=780)
    chat = pages.open(server, "", "ada", width=860, height=820)
    expect(desk.locator(".looking")).to_contain_text("Rita too")
    chat.get_by_role("textbox").fill("and is there a warranty?")
    chat.keyboard.press("Enter")
    expect(chat.locator("[aria-busy]")).to_contain_text("years", timeout=15_000)
    for page, name in ((desk, "supervisor"), (chat, "chat"), (phone, "chat-phone")):
        page.screenshot(path=str(OUT / f"{name}{suffix}.png"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
    else:
        pictures(shutil.which("chromium") or "/usr/bin/chromium")
