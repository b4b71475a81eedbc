"""Attachments of ChatKit's threads, by both strategies of the component, and who may not have them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from chatkit.types import Attachment
from pydantic import TypeAdapter

from roomkit import RoomKit, WebSocketChannel
from roomkit.models.content import CompositeContent, MediaContent, text_of
from roomkit.models.event import EventType, RoomEvent
from roomkit.ports.blob import BlobInfo
from roomkit.providers.files import FileBlobStore
from roomkit.testing import VirtualClock
from tests.servers.pages import Page, brain, served

pytestmark = pytest.mark.may_block  # the package makes its models on first use
ATTACHMENT: TypeAdapter[Any] = TypeAdapter(Attachment)
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100


def form(data: bytes, name: str = "cat.png", kind: str = "image/png", field: str = "file") -> dict[str, Any]:
    return {"files": {field: (name, data, kind)}}


def path(url: Any) -> str:
    return str(url).removeprefix("http://rooms.example")


async def create(page: Page, name: str = "cat.png", kind: str = "image/png", size: int = len(PNG)) -> Any:
    made = ATTACHMENT.validate_python(await page.ask("attachments.create", name=name, mime_type=kind, size=size))
    assert made.upload_descriptor.method == "POST"
    return made


async def uploaded(page: Page, **more: Any) -> Any:
    """Both phases."""
    made = await create(page, **more)
    answer = await page.client.post(path(made.upload_descriptor.url), **form(PNG))
    assert answer.status_code == 200, answer.text
    done = ATTACHMENT.validate_json(answer.content)
    assert done.upload_descriptor is None
    return done


async def media(kit: RoomKit, room: str) -> list[MediaContent]:
    log = [e for e in await kit.events(room) if e.type is EventType.MESSAGE]
    parts = [part for e in log if isinstance(e.content, CompositeContent) for part in e.content.parts]
    return [part for part in parts if isinstance(part, MediaContent)]


def kept(kit: RoomKit) -> list[Any]:
    """What is on the disk."""
    return [one for one in kit.blobs._root.rglob("*") if one.is_file()]  # type: ignore[attr-defined]


async def test_a_file_in_two_phases_goes_into_the_room_and_other_channels_see_it() -> None:
    async with served(brain("Nice cat", "And again")) as (kit, _, page):
        heard: list[RoomEvent] = []

        async def take(_: str, event: RoomEvent) -> None:
            heard.append(event)

        web = WebSocketChannel("web")
        kit.register_channel(web)
        ann = page()
        thread = (await ann.say("hi"))[0].thread.id
        await kit.attach_channel(thread, "web")
        web.register_connection("w1", take, room_id=thread)
        sent = await uploaded(ann)
        events = await ann.say("Look", thread, (sent.id,))
        (item,) = [e.item for e in events if e.type == "thread.item.done" and e.item.type == "user_message"]
        assert [(a.id, a.name, a.mime_type) for a in item.attachments] == [(sent.id, "cat.png", "image/png")]
        (file,) = await media(kit, thread)
        assert (file.filename, file.mime_type) == ("cat.png", "image/png")
        info = await kit.blobs.info("default", file.url.removeprefix("blob:"))
        assert info is not None
        assert info.room_id == thread, "a file of this room, for whoever is in it"
        assert len(kept(kit)) == 2, "and the one copy of it, with its card"
        async with asyncio.timeout(10):
            while not any("Look" in text_of(event.content) for event in heard):
                await asyncio.sleep(0.01)
        (seen,) = [event for event in heard if "Look" in text_of(event.content)]
        assert file in seen.content.parts  # type: ignore[union-attr]
        (shown,) = [i["attachments"][0] for i in await ann.items(thread) if i.get("attachments")]
        preview = await ann.client.get(path(shown["preview_url"]), headers={"x-user": ""})
        assert (preview.status_code, preview.content) == (200, PNG)
        assert preview.headers["x-content-type-options"] == "nosniff"


async def test_a_file_sent_at_once_to_the_upload_url() -> None:
    async with served(brain("Thanks")) as (kit, _, page):
        answer = await page().client.post("/files", **form(b"%PDF-1.7 report", "report.pdf", "application/pdf"))
        assert answer.status_code == 200
        sent = ATTACHMENT.validate_json(answer.content)
        assert (sent.type, sent.name) == ("file", "report.pdf")
        thread = (await page().say("Read this", None, (sent.id,)))[0].thread.id
        (file,) = await media(kit, thread)
        data = b"".join([part async for part in kit.blobs.read("default", file.url.removeprefix("blob:"))])
        assert data == b"%PDF-1.7 report"


async def test_nobody_has_the_files_of_others() -> None:
    async with served(brain("Nice", "What?")) as (kit, _, page):
        ann, eve = page(), page("eve")
        sent = await uploaded(ann)
        said = {"content": [], "attachments": [sent.id], "inference_options": {}}
        await eve.ask("threads.create", 404, input=said)
        await eve.ask("attachments.delete", 404, attachment_id=sent.id)
        assert (await page(None).client.post("/files", **form(PNG))).status_code == 401
        assert (await page("ann@acme").client.post("/files", **form(PNG))).status_code == 403
        evil = {"origin": "https://evil.example"}
        assert (await ann.client.post("/files", headers=evil, **form(PNG))).status_code == 403
        link = path(sent.preview_url)
        for forged in (
            link.split("?")[0],
            link[:-2] + "xx",
            link.replace(sent.id, "atc_other"),
            link.replace("e=", "e=9"),
        ):
            assert (await eve.client.get(forged)).status_code == 403, forged
        thread = (await ann.say("Look", None, (sent.id,)))[0].thread.id
        assert (await ann.client.get(link)).status_code == 200
        await kit.remove_member(thread, "ann", ban=True)
        assert (await ann.client.get(link)).status_code == 404, "not any more"


async def test_links_end() -> None:
    async with served(brain("Nice"), kit=RoomKit(clock=VirtualClock()), media_link_s=60) as (_, _, page):
        ann = page()
        made, sent = await create(ann), await uploaded(ann)
        await asyncio.sleep(61)
        assert (await ann.client.get(path(sent.preview_url))).status_code == 403
        assert (await ann.client.post(path(made.upload_descriptor.url), **form(PNG))).status_code == 403
        thread = (await ann.say("Look", None, (sent.id,)))[0].thread.id
        (shown,) = [i["attachments"][0] for i in await ann.items(thread) if i.get("attachments")]
        assert (await ann.client.get(path(shown["preview_url"]))).status_code == 200, "a thread has them anew"


async def test_types_sizes_and_forms_are_checked_with_a_clear_word() -> None:
    async with served(media_bytes=1_000) as (kit, _, page):
        ann = page()
        refused = await ann.ask("attachments.create", 415, name="x", mime_type="text/html", size=10)
        assert "text/html" in refused["error"]["message"]
        refused = await ann.ask("attachments.create", 413, name="x", mime_type="image/png", size=1_001)
        assert "1000 bytes" in refused["error"]["message"]
        await ann.ask("attachments.create", 400, name="x", mime_type="image/png", size=0)
        made = await create(ann, size=200)

        async def put(data: bytes, **more: Any) -> int:
            return (await ann.client.post(path(made.upload_descriptor.url), **form(data, **more))).status_code

        assert await put(PNG + b"\0" * 100) == 413, "more than was said"
        assert await put(b"<html>") == 400, "not what was said"
        assert await put(PNG, field="other") == 400
        assert (await ann.client.post(path(made.upload_descriptor.url), content=PNG)).status_code == 415
        half = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + PNG
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = await ann.client.post(path(made.upload_descriptor.url), content=half, headers=headers)
        assert answer.status_code == 400, "the form ends in the middle"
        assert await put(PNG) == 200, "none of it has spoilt anything"
        assert await put(PNG) == 409
        assert (await ann.client.post("/files", **form(b"x", "a.exe", "application/x-msdownload"))).status_code == 415
        assert (await ann.client.post("/files", **form(PNG + b"\0" * 1_000))).status_code == 413
        assert (await ann.client.post("/files", **form(b"<svg>"))).status_code == 400
        assert len(kept(kit)) == 2, "one file and its card, no more"


async def test_what_is_not_here_cannot_be_sent() -> None:
    async with served(brain("Nice", "What?")) as (kit, _, page):
        ann = page()
        said = {"content": [], "attachments": [(await create(ann)).id], "inference_options": {}}
        refused = await ann.ask("threads.create", 409, input=said)
        assert "not been uploaded" in refused["error"]["message"]
        await ann.ask("threads.create", 400, input={**said, "attachments": ["a"] * 21})
        sent = await uploaded(ann)
        await ann.say("Look", None, (sent.id,))
        await ann.ask("threads.create", 409, input={**said, "attachments": [sent.id]})
        assert len(await kit.list_rooms()) == 1, "none of these made a thread"


async def test_files_that_nobody_sends_are_few_and_go_after_a_day() -> None:
    clock = VirtualClock()
    async with served(brain("Nice"), kit=RoomKit(clock=clock), requests_per_s=1_000) as (kit, _, page):
        ann = page()
        sent = await uploaded(ann)
        await ann.say("Look", None, (sent.id,))
        for _ in range(60):
            assert (await ann.client.post("/files", **form(b"<svg>"))).status_code == 400
        waiting = [await uploaded(ann) for _ in range(50)]
        refused = await ann.ask("attachments.create", 409, name="x.png", mime_type="image/png", size=9)
        assert "wait to be sent" in refused["error"]["message"]
        assert (await ann.client.post("/files", **form(PNG))).status_code == 409
        await uploaded(page("bob"))
        await ann.ask("attachments.delete", attachment_id=waiting[0].id)
        await uploaded(ann)
        assert len(kept(kit)) == 2 * 52
        await asyncio.sleep(86_401)
        await create(page("bob"))
        assert len(kept(kit)) == 2, "what was sent stays"
        said = {"content": [], "attachments": [waiting[1].id], "inference_options": {}}
        await ann.ask("threads.create", 404, input=said)


async def test_whoever_is_erased_takes_their_files_along() -> None:
    async with served(brain("Nice")) as (kit, _, page):
        ann, bob = page(), page("bob")
        sent, unsent, other = await uploaded(ann), await uploaded(ann), await uploaded(bob)
        await ann.say("Look", None, (sent.id,))
        await kit.erase_person("ann")
        assert {(await ann.client.get(path(one.preview_url))).status_code for one in (sent, unsent)} == {404}
        assert (await bob.client.get(path(other.preview_url))).status_code == 200


async def test_a_deleted_file_is_gone() -> None:
    async with served(brain("Nice")) as (kit, _, page):
        ann = page()
        sent = await uploaded(ann)
        await ann.ask("attachments.delete", attachment_id=sent.id)
        assert (await ann.client.get(path(sent.preview_url))).status_code == 404
        assert not kept(kit)
        await ann.ask("attachments.delete", 404, attachment_id=sent.id)


class Gated(FileBlobStore):
    """Files that are on the disk, of which is not told before the gate opens."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = asyncio.Event()
        self.waiting = 0

    async def put(self, *args: Any, **more: Any) -> BlobInfo:
        info = await super().put(*args, **more)
        self.waiting += 1
        await self.gate.wait()
        return info


async def test_a_file_that_comes_twice_at_once_or_is_deleted_meanwhile_is_not_kept(tmp_path: Path) -> None:
    async with served(kit=RoomKit(blobs=(blobs := Gated(tmp_path)))) as (kit, _, page):
        ann = page()
        twice, gone = await create(ann), await create(ann)
        links = [path(made.upload_descriptor.url) for made in (twice, twice, gone)]
        sending = [asyncio.create_task(ann.client.post(link, **form(PNG))) for link in links]
        while blobs.waiting < 3:
            await asyncio.sleep(0.01)
        await ann.ask("attachments.delete", attachment_id=gone.id)
        blobs.gate.set()
        answers = [(await one).status_code for one in sending]
        assert (sorted(answers[:2]), answers[2]) == ([200, 409], 404)
        assert len(kept(kit)) == 2


async def test_files_of_others_in_the_room_are_links_that_work() -> None:
    async def picture() -> Any:
        yield PNG

    async with served(brain("Hello")) as (kit, _, page):
        ann = page()
        thread = (await ann.say("hi"))[0].thread.id
        info = await kit.blobs.put("default", picture(), mime_type="image/png", filename="a](b).png", room_id=thread)
        content = MediaContent(url=f"blob:{info.id}", mime_type="image/png", filename=info.filename)
        await kit.send(thread, content, by="sam", addressed_to=())
        said = (await ann.items(thread))[-1]["content"][0]["text"]
        assert said.startswith("[a  b .png](http://rooms.example/media/")
        answer = await ann.client.get(path(said[said.index("(") + 1 : -1]))
        assert (answer.status_code, answer.content) == (200, PNG)
