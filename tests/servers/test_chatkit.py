"""ChatKit's door, seen from its client: every event is read with the package's own types."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from chatkit.store import NotFoundError

from roomkit import AIChannel, RoomKit
from roomkit.models.content import ReactionContent, text_of
from roomkit.models.event import EventType
from roomkit.servers.chatkit import ChatKitOptions, RoomChatKitServer
from roomkit.testing import ScriptedAI
from roomkit.testing.ai import call
from tests.servers.pages import EVENTS, brain, served, user


async def test_a_new_thread_is_a_room_and_its_answer_streams() -> None:
    async with served(brain(["Hello ", "Ann"])) as (kit, _, page):
        events = await page().say("hi")
        kinds = [event.type for event in events]
        assert kinds[:4] == ["thread.created", "thread.item.done", "stream_options", "thread.item.added"]
        assert kinds[-1] == "thread.item.done"
        thread = events[0].thread.id
        deltas = [e.update.delta for e in events if e.type == "thread.item.updated" and hasattr(e.update, "delta")]
        assert "".join(deltas) == "Hello Ann" == events[-1].item.content[0].text
        assert events[3].item.id == events[-1].item.id
        log = [e for e in await kit.events(thread) if e.type is EventType.MESSAGE]
        assert [text_of(e.content) for e in log] == ["hi", "Hello Ann"]
        assert [e.id for e in log][1] == events[-1].item.id
        items = await page().items(thread)
        assert [(i["type"], i["content"][0]["text"]) for i in items] == [
            ("user_message", "hi"),
            ("assistant_message", "Hello Ann"),
        ]
        assert items[0]["id"] == events[1].item.id
        found = await page().ask("threads.get_by_id", thread_id=thread)
        assert found["id"] == thread
        assert found["metadata"] == {}


async def test_nobody_sees_the_threads_of_others() -> None:
    async with served(brain("Hello")) as (_, _, page):
        thread = (await page().say("hi"))[0].thread.id
        eve = page("eve")
        assert (await eve.ask("threads.list"))["data"] == []
        assert await eve.items(thread) == []
        for kind in ("threads.get_by_id", "threads.delete"):
            await eve.ask(kind, 404, thread_id=thread)
        await eve.ask("threads.update", 404, thread_id=thread, title="mine")
        said = {"content": [{"type": "input_text", "text": "x"}], "attachments": [], "inference_options": {}}
        await eve.ask("threads.add_user_message", 404, thread_id=thread, input=said)
        assert (await page(None).client.post("/", json={"type": "threads.list", "params": {}})).status_code == 401
        assert len(await page().items(thread)) == 2


async def test_no_door_leads_into_rooms_that_are_no_threads_of_ones_own() -> None:
    async with served(brain("Hello", "Again")) as (kit, _, page):
        thread = (await page().say("hi"))[0].thread.id
        await kit.create_room("private", channels=[])
        for room in ("private", thread, "nope"):
            eve = page("eve").client
            assert (await eve.get("/changes", params={"thread_id": room})).status_code == 404
            await page("eve").ask("items.feedback", 404, thread_id=room, item_ids=["x"], kind="positive")
        assert [p.id for p in await kit.participants("private")] == []
        assert "eve" not in [p.id for p in await kit.participants(thread)]
        foreign = await page("ann@acme").client.post("/", json={"type": "threads.list", "params": {}})
        assert foreign.status_code == 403
        evil = {"origin": "https://evil.example"}
        refused = await page().client.post("/", json={"type": "threads.list", "params": {}}, headers=evil)
        assert refused.status_code == 403
        await kit.remove_member(thread, "ann", ban=True)
        await page().ask("threads.get_by_id", 404, thread_id=thread)


async def test_a_retry_takes_nothing_away_that_the_house_has_said() -> None:
    async with served(brain("First", "Second")) as (kit, _, page):
        events = await page().say("tell me")
        thread, asked = events[0].thread.id, events[1].item.id
        await kit.send(thread, "Sam's promise", by="sam")
        await page().stream("threads.retry_after_item", thread_id=thread, item_id=asked)
        promises = [e for e in await kit.events(thread) if text_of(e.content) == "Sam's promise"]
        assert len(promises) == 1, "it stands in the room"
        assert "Sam's promise" not in str(await page().items(thread)), "and is left out of the thread"


async def test_what_is_no_request_is_refused() -> None:
    async with served() as (_, _, page):
        for body in (b"", b"[]", b"{", b'{"type": "threads.fly", "params": {}}', b'{"type": "threads.create"}'):
            response = await page().client.post("/", content=body)
            assert response.status_code == 400, body
        assert (await page().client.post("/", content=b"x" * 1_100_000)).status_code == 413
        said = {"content": [{"type": "input_text", "text": "x" * 900_000}], "attachments": [], "inference_options": {}}
        await page().ask("threads.create", 413, input=said)
        await page().ask("input.transcribe", 501, audio_base64="AA==", mime_type="audio/wav")
        await page().ask("threads.get_by_id", 404, thread_id="thr_none")
        await page().ask("threads.get_by_id", 404, thread_id="../~\n")


async def test_pages_of_threads_and_items() -> None:
    async with served(brain(*["ok"] * 5)) as (_, _, page):
        threads = [(await page().say(f"thread {n}"))[0].thread.id for n in range(3)]
        first = await page().ask("threads.list", limit=2, order="desc")
        assert [one["id"] for one in first["data"]] == threads[:0:-1]
        assert first["has_more"]
        rest = await page().ask("threads.list", limit=2, order="desc", after=first["after"])
        assert [one["id"] for one in rest["data"]] == threads[:1]
        assert not rest["has_more"]
        await page().ask("threads.update", thread_id=threads[0], title="The first")
        assert (await page().ask("threads.get_by_id", thread_id=threads[0]))["title"] == "The first"
        await page().ask("threads.delete", thread_id=threads[0])
        await page().ask("threads.get_by_id", 404, thread_id=threads[0])
        assert len((await page().ask("threads.list"))["data"]) == 2


async def test_messages_of_other_channels_appear_on_reload() -> None:
    async with served(brain("Hello")) as (kit, _, page):
        thread = (await page().say("hi"))[0].thread.id
        await kit.take_over(thread, "sam")
        await kit.send(thread, "Sam here", by="sam")
        await kit.note(thread, "a secret", "sam")
        said = [(i["type"], i["content"][0]["text"]) for i in await page().items(thread)]
        assert said[-1] == ("assistant_message", "Sam here")
        assert "a secret" not in str(said)


async def test_a_person_who_has_the_floor_answers_in_the_stream() -> None:
    async with served(brain("Hello")) as (kit, _, page):
        thread = (await page().say("hi"))[0].thread.id
        await kit.take_over(thread, "sam")
        asking = asyncio.create_task(page().say("Is that a person?", thread))
        while "Is that a person?" not in [text_of(e.content) for e in await kit.events(thread)]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        await kit.send(thread, "It is.", by="sam")
        events = await asking
        assert any(event.type == "progress_update" for event in events)
        assert events[-1].item.content[0].text == "It is."
        assert (await page().say("Thanks", thread))[-1].type == "progress_update", "and a page does not wait for ever"


async def test_agents_are_chosen_by_the_model_option_and_do_not_answer_each_other() -> None:
    brains = (brain("I am one", "One again"), brain("I am two", "never", channel_id="two"))
    async with served(*brains) as (kit, _, page):
        thread = (await page().say("hi"))[0].thread.id
        await kit.attach_channel(thread, "two")
        for model, answer in (("two", "I am two"), ("assistant", "One again")):
            events = await page().say("and you?", thread, model=model)
            assert [e.item.content[0].text for e in events if e.type == "thread.item.done"][1:] == [answer]
        assert len([e for e in await kit.events(thread) if e.type is EventType.MESSAGE]) == 6


async def test_an_answer_is_made_anew() -> None:
    async with served(brain("First try", "Second try")) as (kit, _, page):
        events = await page().say("tell me")
        thread, asked = events[0].thread.id, events[1].item.id
        again = await page().stream("threads.retry_after_item", thread_id=thread, item_id=asked)
        assert again[-1].item.content[0].text == "Second try"
        items = await page().items(thread)
        assert [i["content"][0]["text"] for i in items] == ["tell me", "Second try"]
        assert items[0]["id"] == asked
        deleted = [e for e in await kit.events(thread) if e.metadata.get("deleted")]
        assert len(deleted) == 2, "the log keeps that there was another answer"


async def test_a_tool_of_the_page_waits_for_it() -> None:
    model = ScriptedAI()
    model.add(["Let me see. ", call("where", "c1", precise=True)])
    model.add("You are in Graz.")
    assistant = AIChannel("assistant", model)
    async with served(assistant) as (kit, server, page):

        @server.client_tool
        async def where(precise: bool) -> str:
            """Tells where the user is."""
            raise AssertionError("the page runs it")

        assistant.configure(tools=[where])
        events = await page().say("Where am I?")
        thread, asked = events[0].thread.id, events[-1].item
        assert (asked.type, asked.status, asked.name, asked.arguments) == (
            "client_tool_call",
            "pending",
            "where",
            {"precise": True},
        )
        rest = await page().stream("threads.add_client_tool_output", thread_id=thread, result={"city": "Graz"})
        assert "You are in Graz." in rest[-1].item.content[0].text
        results = [e.content for e in await kit.events(thread) if e.type is EventType.TOOL_CALL_END]
        assert "Graz" in str(results[0])
        items = await page().items(thread)
        assert [i["type"] for i in items].count("client_tool_call") == 1
        assert next(i for i in items if i["type"] == "client_tool_call")["status"] == "completed"


async def test_a_page_that_never_answers_a_tool_holds_nothing_up() -> None:
    model = ScriptedAI()
    model.add([call("where", "c1")])
    model.add("I could not find out.")
    assistant = AIChannel("assistant", model)
    async with served(assistant, options=ChatKitOptions(tool_s=5)) as (kit, server, page):

        @server.client_tool
        async def where() -> str:
            """Tells where the user is."""
            return ""

        assistant.configure(tools=[where])
        thread = (await page().say("Where am I?"))[0].thread.id
        await asyncio.sleep(10)
        assert text_of((await kit.events(thread))[-1].content) == "I could not find out."
        assert not server._paused, "nothing is kept for it"


async def test_who_leaves_stops_the_reply() -> None:
    started = asyncio.Event()

    async def slow() -> str:
        """Takes its time."""
        started.set()
        await asyncio.sleep(3_600)
        return "late"

    async with served(brain(["Well, ", call("slow", "c1")], "never", tools=[slow])) as (kit, server, _):
        said = {"content": [{"type": "input_text", "text": "hi"}], "attachments": [], "inference_options": {}}
        request = json.dumps({"type": "threads.create", "params": {"input": said}})

        async def read() -> None:
            result = await server.process(request, user())
            async for _ in result:  # type: ignore[union-attr]
                pass

        reading = asyncio.create_task(read())
        await started.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.sleep(1)
        (room,) = await kit.list_rooms()
        log = await kit.events(room.id)
        (reply,) = [e for e in log if e.source.channel_id == "assistant" and e.type is EventType.MESSAGE]
        assert reply.metadata["end_reason"] == "cancelled"
        items = await server.rooms.items(room.id, user())
        assert [i.type for i in items][-1] in ("sdk_hidden_context", "assistant_message")
        assert any(i.type == "sdk_hidden_context" for i in items)


async def test_an_empty_first_message_is_greeted() -> None:
    async with served(brain("never"), options=ChatKitOptions(greeting="How can I help?")) as (_, _, page):
        events = await page().say("")
        assert events[-1].item.content[0].text == "How can I help?"
        assert [i["type"] for i in await page().items(events[0].thread.id)][-1] == "assistant_message"


async def test_a_provider_that_fails_is_told_in_the_stream_and_the_next_message_works() -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("secret-key-123")

    model = ScriptedAI()
    model.add(broken, ["Well, ", RuntimeError("secret-key-456")], "Back again")
    async with served(AIChannel("assistant", model)) as (kit, _, page):
        events = await page().say("hi")
        thread = events[0].thread.id
        cut = await page().say("and now?", thread)
        assert cut[-2].item.content[0].text == "Well, "
        for told in (events, cut):
            assert (told[-1].type, told[-1].allow_retry) == ("error", True)
            assert "try again" in told[-1].message
            assert "secret-key" not in str(told)
        assert (await page().say("again", thread))[-1].item.content[0].text == "Back again"
        await kit.mute(thread, "assistant")
        assert (await page().say("anybody?", thread))[-1].type == "stream_options", "nobody owes an answer"


async def test_feedback_is_a_reaction_and_hidden_context_is_hidden() -> None:
    async with served(brain("Hello")) as (kit, server, page):
        events = await page().say("hi")
        thread, item = events[0].thread.id, events[-1].item.id
        await page().ask("items.feedback", thread_id=thread, item_ids=[item], kind="positive")
        (reaction,) = [e.content for e in await kit.events(thread) if isinstance(e.content, ReactionContent)]
        assert (reaction.target_event_id, reaction.emoji) == (item, "👍")
        from chatkit.types import HiddenContextItem

        now = kit.now()
        hidden = HiddenContextItem(id="h1", thread_id=thread, created_at=now, content="the user is rich")
        await server.rooms.add_thread_item(thread, hidden, user())
        assert "rich" not in str(await page().items(thread))
        assert (await server.rooms.load_item(thread, "h1", user())).content == "the user is rich"
        assert "rich" not in str(await kit.events(thread, viewer=_guest()))


def _guest() -> Any:
    from roomkit.core.streams import Viewer

    return Viewer(channel_id="chatkit", person="ann")


async def test_widgets_stand_in_the_thread_and_their_actions_reach_the_host() -> None:
    from chatkit.types import ThreadItemDoneEvent
    from chatkit.widgets import Card, Text

    async def acted(thread: Any, action: Any, widget: Any, context: Any) -> AsyncIterator[Any]:
        shown = await made[0].show(thread.id, Card(children=[Text(value=f"{context.id} chose {action.payload['n']}")]))
        yield ThreadItemDoneEvent(item=shown)

    made: list[RoomChatKitServer] = []
    async with served(brain("Hello"), options=ChatKitOptions(on_action=acted)) as (_, server, page):
        made.append(server)
        thread = (await page().say("hi"))[0].thread.id
        item = await server.show(thread, Card(children=[Text(value="Choose")]), copy_text="Choose")
        found = (await page().items(thread))[-1]
        assert (found["type"], found["id"], found["copy_text"]) == ("widget", item.id, "Choose")
        action = {"type": "choose", "payload": {"n": 3}}
        events = await page().stream("threads.custom_action", thread_id=thread, item_id=item.id, action=action)
        assert "ann chose 3" in str(events[-1].item)
        assert [i["type"] for i in await page().items(thread)].count("widget") == 2


async def test_the_store_survives_a_restart(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/rooms.db"
    async with RoomKit(url) as kit:
        kit.register_channel(brain("Hello"), default=True)
        server = RoomChatKitServer(kit)
        said = {"content": [{"type": "input_text", "text": "hi"}], "attachments": [], "inference_options": {}}
        result = await server.process(json.dumps({"type": "threads.create", "params": {"input": said}}), user())
        events = [EVENTS.validate_json(line[6:].strip()) async for line in result]  # type: ignore[union-attr]
    async with RoomKit(url) as kit:
        kit.register_channel(brain("never"), default=True)
        store = RoomChatKitServer(kit).rooms
        (thread,) = (await store.load_threads(10, None, "asc", user())).data
        assert thread.id == events[0].thread.id
        items = (await store.load_thread_items(thread.id, None, 10, "asc", user())).data
        assert [i.id for i in items] == [events[1].item.id, events[-1].item.id]
        with pytest.raises(NotFoundError):
            await store.load_thread(thread.id, user("eve"))
