"""What ChatKit's package asks of a store, asked of ours: its server changes what it loads, and relies on the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from chatkit.store import NotFoundError
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    ClientToolCallItem,
    FileAttachment,
    HiddenContextItem,
    ImageAttachment,
    InferenceOptions,
    LockedStatus,
    Thread,
    ThreadMetadata,
    UserMessageItem,
    UserMessageTextContent,
    WidgetItem,
)
from chatkit.widgets import Card, Text

from roomkit import RoomKit
from roomkit.servers.chatkit import RoomChatKitServer
from roomkit.servers.chatkit_store import RoomStore
from tests.servers.pages import user

pytestmark = pytest.mark.may_block  # the package makes its models on first use
ANN, EVE = user("ann"), user("eve")
NOW = datetime(2030, 1, 1, 12)  # noqa: DTZ001 - the package's own times have no zone


@asynccontextmanager
async def opened() -> AsyncIterator[RoomStore]:
    async with RoomKit() as kit:
        yield RoomChatKitServer(kit).rooms


def thread(name: str = "t", **more: Any) -> ThreadMetadata:
    return ThreadMetadata(id=name, created_at=NOW, **{"title": "A thread", "metadata": {"n": [1]}, **more})


def said(number: int, **more: Any) -> UserMessageItem:
    content = [UserMessageTextContent(text=str(number))]
    at = NOW + timedelta(seconds=number)
    options = InferenceOptions()
    return UserMessageItem(
        id=f"m{number}", thread_id="t", created_at=at, content=content, inference_options=options, **more
    )


def answered(name: str, *texts: str) -> AssistantMessageItem:
    content = [AssistantMessageContent(text=text) for text in texts]
    return AssistantMessageItem(id=name, thread_id="t", created_at=NOW, content=content)


async def filled(store: RoomStore) -> list[Any]:
    """A thread with one item of several kinds."""
    await store.save_thread(thread(), ANN)
    file = FileAttachment(id="f", name="a.txt", mime_type="text/plain", metadata={"source": "x"})
    widget = WidgetItem(id="w", thread_id="t", created_at=NOW, widget=Card(children=[Text(value="Hi")]))
    call = ClientToolCallItem(id="c", thread_id="t", created_at=NOW, call_id="x", name="where", arguments={"a": 1})
    hidden = HiddenContextItem(id="h", thread_id="t", created_at=NOW, content="the user is rich")
    items = [said(1, attachments=[file]), answered("a", "Hi there"), widget, call, hidden]
    for item in items:
        await store.add_thread_item("t", item, ANN)
    return items


async def test_a_thread_is_kept_and_changed() -> None:
    async with opened() as store:
        await store.save_thread(thread(title=None), ANN)
        assert (await store.load_thread("t", ANN)).title is None
        changed = Thread(**thread(status=LockedStatus(reason="later")).model_dump(), items={"data": []})
        await store.save_thread(changed, ANN)
        kept = await store.load_thread("t", ANN)
        assert (type(kept), kept.title, kept.metadata, kept.status) == (
            ThreadMetadata,
            "A thread",
            {"n": [1]},
            LockedStatus(reason="later"),
        )


async def test_items_of_every_kind_come_back_as_they_were() -> None:
    async with opened() as store:
        items = await filled(store)
        assert (await store.load_thread_items("t", None, 10, "asc", ANN)).data == items
        assert (await store.load_thread_items("t", None, 10, "desc", ANN)).data == items[::-1]
        for item in items:
            assert await store.load_item("t", item.id, ANN) == item
        with pytest.raises(NotFoundError):
            await store.load_item("t", "none", ANN)


async def test_items_of_a_fork_are_the_forks_and_others_keep_their_word() -> None:
    async with opened() as store:
        await filled(store)
        fork = await store.kit.fork("t", at=(await store.kit.get_room("t")).latest_index)
        items = (await store.load_thread_items(fork.id, None, 10, "asc", ANN)).data
        assert {item.thread_id for item in items} == {fork.id}
        elsewhere = answered("e", "Hi")
        elsewhere.thread_id = "somewhere"
        await store.add_thread_item("t", elsewhere, ANN)
        assert (await store.load_item("t", "e", ANN)).thread_id == "somewhere"


async def test_what_is_loaded_is_a_copy_and_saving_replaces_in_place() -> None:
    async with opened() as store:
        await filled(store)
        (await store.load_item("t", "a", ANN)).content.clear()  # type: ignore[union-attr]
        (await store.load_thread("t", ANN)).metadata["n"].append(2)
        changed = thread("u")
        await store.save_thread(changed, ANN)
        changed.metadata["n"].append(3)
        assert await store.load_item("t", "a", ANN) == answered("a", "Hi there")
        for name in ("t", "u"):
            assert (await store.load_thread(name, ANN)).metadata == {"n": [1]}
        await store.save_item("t", answered("a", "Better"), ANN)
        names = [item.id for item in (await store.load_thread_items("t", None, 10, "asc", ANN)).data]
        assert names == ["m1", "a", "w", "c", "h"]
        assert await store.load_item("t", "a", ANN) == answered("a", "Better")
        await store.delete_thread_item("t", "w", ANN)
        with pytest.raises(NotFoundError):
            await store.load_item("t", "w", ANN)


async def test_pages_go_on_after_the_last_row() -> None:
    async with opened() as store:
        for name in ("t", "u", "v"):
            await store.save_thread(thread(name), ANN)
        first = await store.load_threads(2, None, "asc", ANN)
        assert ([one.id for one in first.data], first.has_more, first.after) == (["t", "u"], True, "u")
        rest = await store.load_threads(2, "u", "asc", ANN)
        assert ([one.id for one in rest.data], rest.has_more, rest.after) == (["v"], False, None)
        for number in range(5):
            await store.add_thread_item("t", said(number), ANN)
        page = await store.load_thread_items("t", "m1", 3, "asc", ANN)
        assert ([one.id for one in page.data], page.has_more, page.after) == (["m2", "m3", "m4"], False, None)
        back = await store.load_thread_items("t", "m3", 2, "desc", ANN)
        assert ([one.id for one in back.data], back.has_more, back.after) == (["m2", "m1"], True, "m1")


async def test_attachments_are_their_owners() -> None:
    async with opened() as store:
        image = ImageAttachment(
            id="i", name="a.png", mime_type="image/png", preview_url="https://x/a.png", metadata={"n": 1}
        )
        await store.save_attachment(image, ANN)
        assert await store.load_attachment("i", ANN) == image
        with pytest.raises(NotFoundError):
            await store.load_attachment("i", EVE)
        await store.save_attachment(image.model_copy(update={"name": "mine"}), EVE)
        await store.delete_attachment("i", EVE)
        assert await store.load_attachment("i", ANN) == image
        await store.delete_attachment("i", ANN)
        with pytest.raises(NotFoundError):
            await store.load_attachment("i", ANN)


async def test_nobody_else_has_a_thread_or_its_items() -> None:
    async with opened() as store:
        await filled(store)
        assert (await store.load_threads(10, None, "asc", EVE)).data == []
        assert (await store.load_thread_items("t", None, 10, "asc", EVE)).data == []
        for refused in (
            store.load_thread("t", EVE),
            store.save_thread(thread(title="mine"), EVE),
            store.delete_thread("t", EVE),
            store.load_item("t", "a", EVE),
            store.save_item("t", answered("a", "forged"), EVE),
            store.add_thread_item("t", said(9), EVE),
            store.add_thread_item("t", answered("z", "forged"), EVE),
            store.delete_thread_item("t", "a", EVE),
        ):
            with pytest.raises(NotFoundError):
                await refused
        assert len((await store.load_thread_items("t", None, 10, "asc", ANN)).data) == 5


async def test_ids_begin_as_the_packages_do() -> None:
    async with opened() as store:
        assert store.generate_thread_id(ANN).startswith("thr_")
        kinds = {"message": "msg_", "tool_call": "tc_", "task": "tsk_", "workflow": "wf_", "attachment": "atc_"}
        kinds["sdk_hidden_context"] = "shcx_"
        for kind, start in kinds.items():
            made = {store.generate_item_id(kind, thread(), ANN) for _ in range(50)}
            assert len(made) == 50
            assert all(one.startswith(start) for one in made), kind
