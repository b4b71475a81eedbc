"""A Telegram bot by long polling: buttons, an edit and a reaction. The fake stands where Telegram's servers are."""

from __future__ import annotations

import asyncio

from roomkit import RoomKit
from roomkit.channels import TelegramChannel
from roomkit.models.content import Button, RichContent
from roomkit.providers.telegram.polling import TelegramPolling
from roomkit.providers.telegram.telegram import TelegramProvider
from roomkit.testing import run
from roomkit.testing.vendors.telegram import FakeTelegram


async def main() -> None:
    telegram = (
        FakeTelegram()
    )  # a real bot: TelegramChannel("telegram", provider="telegram"), its token in the environment
    provider = TelegramProvider(telegram.options(), transport=telegram.transport())
    kit = RoomKit()
    kit.register_channel(TelegramChannel("telegram", provider=provider))

    @kit.on_message
    async def answer(context, message):
        if message.text == "/start":
            choice = (Button(label="Red lamp", value="red"), Button(label="Blue lamp", value="blue"))
            return RichContent(text="**Which lamp?**", buttons=choice)
        return f"You said: {message.text}"

    async with kit:
        await kit.attach_source(TelegramPolling(kit.channels["telegram"]))
        said = telegram.message("/start")
        telegram.wait(telegram.update(message=said))
        await asyncio.sleep(5)
        ours = telegram.messages[0]
        print("the bot shows", ours.text, "and", ours.fields["reply_markup"]["inline_keyboard"])

        shown = {
            "message_id": ours.message_id,
            "chat": said["chat"],
            "date": 1,
            "reply_markup": ours.fields["reply_markup"],
        }
        tap = {"id": "1", "from": said["from"], "chat_instance": "1", "data": "red", "message": shown}
        telegram.wait(telegram.update(callback_query=tap))
        await asyncio.sleep(5)
        print("the tap says", telegram.messages[1].text)

        heart = {"type": "emoji", "emoji": "❤"}
        reaction = {"old_reaction": [], "new_reaction": [heart], "user": said["from"], "chat": said["chat"], "date": 2}
        telegram.wait(telegram.update(message_reaction={**reaction, "message_id": ours.message_id}))
        telegram.wait(telegram.update(edited_message={**said, "text": "/start please", "edit_date": 3}))
        await asyncio.sleep(5)
        (room,) = await kit.list_rooms()
        for event in await kit.events(room.id):
            if event.type == "message":
                print(f"{event.index:>3}  {event.text!r}", event.metadata.get("reactions", ""))


if __name__ == "__main__":
    run(main())
