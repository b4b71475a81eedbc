"""The app as a whole: health, metrics, pages, media, OpenAPI, mounting, starting and stopping."""

from __future__ import annotations

import asyncio
import json
import posixpath
import re
import signal
from pathlib import Path

import httpx2
import pytest
import websockets
from starlette.applications import Starlette
from starlette.routing import Mount

from roomkit.core.memory import MemoryStore
from roomkit.errors import ConfigError, StoreLocked
from roomkit.kit import RoomKit
from roomkit.models.delivery import DeliveryPolicy
from roomkit.net.room_client import RoomClient
from roomkit.ports.store import StoreHealth
from roomkit.runtime import Scope
from roomkit.servers.asgi import create_app
from roomkit.servers.rest import ENDPOINTS
from roomkit.servers.run import server
from roomkit.testing import FakeChannel
from roomkit.testing.asgi import StreamingASGITransport
from roomkit.testing.sockets import AsgiSocket
from tests.servers.house import SECRET, MemoryBlobs, house

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 50


# -- health and numbers -----------------------------------------------------------------------------------------------


async def test_readiness_tells_the_truth() -> None:
    class Sick(MemoryStore):
        sick = False

        def health(self) -> StoreHealth:
            return StoreHealth(writable=False, reason="disk full") if self.sick else super().health()

    store = Sick()
    async with house(RoomKit(store)) as h:
        assert (await h.http.get("/readyz")).json() == {"ready": True, "reason": ""}
        store.sick = True
        ready = await h.http.get("/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "disk full")
        assert (await h.http.get("/healthz")).status_code == 200
        store.sick = False
        assert (await h.http.get("/readyz")).status_code == 200


async def test_metrics_are_for_those_who_may_and_are_well_formed() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        assert (await h.http.get("/metrics")).status_code == 401
        supervisor = {"authorization": f"Bearer {h.token('supervisor')}"}
        assert (await h.http.get("/metrics", headers=supervisor)).status_code == 403
        async with h.joined("r1"):
            text = (await h.http.get("/metrics", headers={"authorization": f"Bearer {h.token('admin')}"})).text
        assert "roomkit_sockets 1\n" in text
        assert re.search(r"^roomkit_rooms_created_total 1$", text, re.MULTILINE)
        assert "roomkit_store_writable 1\n" in text
        for line in text.splitlines():
            assert re.fullmatch(r"# (HELP|TYPE) \w+ .*|\w+(\{.*\})? [-+.\w]+", line), line
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(names) == len(set(names))
    async with house(open_metrics=True) as h:
        assert (await h.http.get("/metrics")).status_code == 200


# -- pages ------------------------------------------------------------------------------------------------------------


async def test_the_pages_are_served_under_a_strict_policy(tmp_path: Path) -> None:
    for name in ("chat/index.html", "supervisor/index.html", "shared/a.js", "shared/secret.py", "shared/notes.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path.parent / "outside.html").write_text("outside")
    async with house(pages_root=tmp_path) as h:
        for url, text in (
            ("/", "chat/index.html"),
            ("/supervisor", "supervisor/index.html"),
            ("/pages/shared/a.js", "shared/a.js"),
        ):
            page = await h.http.get(url)
            assert (page.status_code, page.text) == (200, text)
            policy = page.headers["content-security-policy"]
            assert policy.startswith("default-src 'self';")
            assert "unsafe" not in policy
            assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["content-type"].startswith("text/javascript")
        again = await h.http.get("/pages/shared/a.js", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        for bad in (
            "shared/secret.py",
            "shared/notes.md",
            "../outside.html",
            "%2e%2e/outside.html",
            "shared/../../outside.html",
            "x",
        ):
            assert (await h.http.get(f"/pages/{bad}")).status_code == 404, bad
    async with house(pages=False) as h:
        assert (await h.http.get("/")).status_code == 404


async def test_a_page_names_its_scripts_at_once_by_addresses_that_are_kept_for_good() -> None:
    async with house() as h:
        for url, first in (("/", "chat/main.js"), ("/supervisor", "supervisor/main.js")):
            page = await h.http.get(url)
            assert page.headers["cache-control"] == "no-cache"
            named = re.findall(r'(?:href|src)="(pages/[^"]+)"', page.text)
            version = named[0].split("/")[1]
            assert version.startswith("~")
            names = {name.removeprefix(f"pages/{version}/") for name in named}
            # Those of the second and third step too, which a browser would learn of one way there and back later each.
            assert {first, "shared/lib.js", "vendor/preact.js", "vendor/signals-core.js"} <= names
            for name in named:
                found = await h.http.get(f"/{name}")
                assert found.status_code == 200, name
                assert "immutable" in found.headers["cache-control"]
                for wanted in re.findall(r'from "(\.[^"]+)"', found.text) if name.endswith(".js") else ():
                    full = posixpath.normpath(posixpath.join(posixpath.dirname(name), wanted))
                    assert full in named, f"{name} asks for {wanted}"


async def test_a_page_of_another_version_finds_its_files_but_not_for_good() -> None:
    async with house() as h:
        plain = await h.http.get("/pages/shared/lib.js")
        other = await h.http.get("/pages/~0123456789ab/shared/lib.js")
        assert (plain.status_code, other.text) == (200, plain.text)
        assert {plain.headers["cache-control"], other.headers["cache-control"]} == {"no-cache"}


@pytest.mark.parametrize(
    "accepted, packed", [("gzip, br", True), ("gzip;q=0.5", True), ("gzip;q=0", False), ("", False)]
)
async def test_a_script_is_packed_for_those_who_can_unpack_it(accepted: str, packed: bool) -> None:
    async with house() as h:
        asked = {"accept-encoding": accepted}
        answer = await h.http.get("/pages/shared/lib.js", headers=asked)
        assert ("content-encoding" in answer.headers) is packed
        assert answer.headers["vary"] == "accept-encoding"
        assert "export const html" in answer.text
        again = await h.http.get("/pages/shared/lib.js", headers={**asked, "if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


# -- media ------------------------------------------------------------------------------------------------------------


async def test_files_go_up_and_come_down_by_links_that_expire() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.kit.create_room("r2")
        guest = {"authorization": f"Bearer {h.token('guest', 'r1')}", "content-type": "image/png"}
        up = await h.http.post("/api/rooms/r1/media?filename=cat%20\u00e9.png", content=PNG, headers=guest)
        assert up.status_code == 201
        stored = up.json()
        assert (stored["mime_type"], stored["size_bytes"], stored["filename"]) == (
            "image/png",
            len(PNG),
            "cat \u00e9.png",
        )
        content = {"type": "media", "url": stored["url"], "mime_type": "image/png"}
        assert (
            await h.http.post(
                "/api/rooms/r1/messages", json={"content": content}, headers={"authorization": guest["authorization"]}
            )
        ).status_code == 201
        link = (await h.http.get(f"/api/rooms/r1/media/{stored['url'][5:]}", headers=guest)).json()["href"]
        down = await h.http.get(link)
        assert (down.status_code, down.content) == (200, PNG)
        assert down.headers["content-type"] == "image/png"
        assert "sandbox" in down.headers["content-security-policy"]
        for bad in (
            link[:-1],
            link.replace("e=", "e=1"),
            link.replace("blob0", "blob1"),
            link.split("?")[0],
            link.replace("t=default", "t=acme"),
        ):
            assert (await h.http.get(bad)).status_code == 403, bad
        await asyncio.sleep(601)
        assert (await h.http.get(link)).status_code == 403
        other = {"authorization": f"Bearer {h.token('guest', 'r2')}"}
        assert (await h.http.get("/api/rooms/r1/media/blob0", headers=other)).status_code == 403
        assert (await h.http.get("/api/rooms/r2/media/blob0", headers=other)).status_code == 404


async def test_files_that_are_not_taken() -> None:
    async with house(media_bytes=100) as h:
        await h.kit.create_room("r1")
        headers = {"authorization": f"Bearer {h.token('guest', 'r1')}"}
        for kind in ("text/html", "image/svg+xml", "application/x-msdownload", ""):
            refused = await h.http.post("/api/rooms/r1/media", content=PNG, headers={**headers, "content-type": kind})
            assert refused.status_code == 415, kind

        async def endless():
            while True:
                yield b"x" * 64

        big = await h.http.post(
            "/api/rooms/r1/media", content=b"x" * 101, headers={**headers, "content-type": "image/png"}
        )
        assert (big.status_code, big.json()["error"]["code"]) == (413, "too_large")
        lies = await h.http.post(
            "/api/rooms/r1/media",
            content=b"x" * 500,
            headers={**headers, "content-type": "image/png", "content-length": "5"},
        )
        assert lies.status_code == 413


# -- the description --------------------------------------------------------------------------------------------------


async def test_openapi_describes_every_route_and_refers_to_what_exists() -> None:
    async with house(public_url="https://chat.example/x/") as h:
        described = (await h.http.get("/api/openapi.json")).json()
        operations = {(method, path) for path, found in described["paths"].items() for method in found}
        assert operations == {(row.method.lower(), "/api" + row.path.replace(":path", "")) for row in ENDPOINTS}
        assert described["servers"] == [{"url": "https://chat.example/x"}]
        schemas = described["components"]["schemas"]
        references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
        assert references <= set(schemas)
        ids = [operation["operationId"] for found in described["paths"].values() for operation in found.values()]
        assert len(ids) == len(set(ids))
        assert all(operation["summary"] for found in described["paths"].values() for operation in found.values())


def test_the_reference_page_lists_every_route() -> None:
    page = (ROOT / "docs/reference/rest.md").read_text(encoding="utf-8")
    for row in ENDPOINTS:
        last = re.sub(r"\{(\w+)(:path)?\}", r"{\1}", row.path).replace("{letter}", "{id}").split("/")[-1]
        names = {"{person}": "{id}", "{draft}": "{id}", "{approval}": "{id}", "{token}": "{token_id}"}
        assert names.get(last, last) in page, row.path


# -- life -------------------------------------------------------------------------------------------------------------


async def test_mounted_without_lifespan_it_starts_on_the_first_request_under_its_prefix() -> None:
    kit = RoomKit(token_secrets=[SECRET], blobs=MemoryBlobs())
    starts = []
    real = kit.start

    async def counted():
        starts.append(1)
        await asyncio.sleep(0.1)
        return await real()

    kit.start = counted  # type: ignore[method-assign]
    app = create_app(kit)
    host = Starlette(routes=[Mount("/chat", app)])
    async with httpx2.AsyncClient(transport=StreamingASGITransport(host), base_url="http://testserver") as http:
        first = await asyncio.gather(*(http.get("/chat/readyz") for _ in range(3)))
        assert [answer.json()["ready"] for answer in first] == [True] * 3
        assert starts == [1]
        await kit.create_room("r1")
        headers = {"authorization": f"Bearer {kit.tokens.mint('guest', 'r1')}", "content-type": "image/png"}
        assert (await http.get("/chat/api/me", headers=headers)).json()["socket"] == "/chat/socket"
        stored = (await http.post("/chat/api/rooms/r1/media", content=PNG, headers=headers)).json()
        assert stored["href"].startswith("/chat/media/")
        assert (await http.get(stored["href"])).content == PNG
        async with AsgiSocket(host, "/chat/socket") as socket:
            await socket.say("auth", token=kit.tokens.mint("guest", "r1"), v=1)
            await socket.get("welcome")
    await app.aclose()
    await kit.aclose()


async def test_a_kit_that_cannot_start_is_503_and_tried_again() -> None:
    class Locked(MemoryStore):
        locked = True

        async def open(self):
            if self.locked:
                raise StoreLocked("process 7 has it")
            return await super().open()

    store = Locked()
    app = create_app(RoomKit(store))
    async with httpx2.AsyncClient(transport=StreamingASGITransport(app), base_url="http://testserver") as http:
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/api/rooms")).json()["error"]["code"] == "unavailable"
        store.locked = False
        assert (await http.get("/readyz")).status_code == 200
    await app.aclose()
    await app.door.kit.aclose()


async def test_lifespan_starts_and_stops_what_it_started() -> None:
    kit = RoomKit()
    app = create_app(kit)
    async with app.router.lifespan_context(app):
        assert kit.engine.started
    assert not kit.engine.started
    async with RoomKit() as own:
        app = create_app(own)
        async with app.router.lifespan_context(app):
            pass
        assert own.engine.started


async def test_pages_elsewhere_may_call_the_api_only_when_listed() -> None:
    async with house(allowed_origins=("https://shop.example",)) as h:
        asked = {
            "origin": "https://shop.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        }
        allowed = await h.http.request("OPTIONS", "/api/rooms/r1/messages", headers=asked)
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        refused = await h.http.request(
            "OPTIONS", "/api/rooms/r1/messages", headers={**asked, "origin": "https://evil.example"}
        )
        assert "access-control-allow-origin" not in refused.headers


def test_a_public_url_must_be_one() -> None:
    with pytest.raises(ConfigError):
        create_app(RoomKit(), public_url="chat.example")


# -- a real server ----------------------------------------------------------------------------------------------------


@pytest.mark.real_time
async def test_a_real_server_serves_a_real_client_and_drains_on_sigterm(monkeypatch) -> None:
    # uvicorn gives the signal on to whoever had it before, which here is the whole test run.
    monkeypatch.setattr(signal, "raise_signal", lambda _: None)
    kit = RoomKit(token_secrets=[SECRET])

    @kit.on_message
    async def reply(ctx, message):
        return f"You said: {message.text}"

    app = create_app(kit)
    running = server(app, port=0)
    outside = Scope("test")
    serving = outside.spawn(running.serve(), name="uvicorn")
    while not running.started:
        await asyncio.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    await kit.create_room("r1")
    frames = []
    token = kit.tokens.mint("guest", "r1", id="ada")
    async with RoomClient(f"ws://127.0.0.1:{port}/socket", "r1", token) as client:
        ack = await client.send("hello")
        async for frame in client:
            frames.append(frame)
            if frame.type in ("event", "stream_end") and "You said" in str(frame.event):
                break
        assert ack.index < client.position
        assert frames[0].type == "welcome"
        running.handle_exit(signal.SIGTERM, None)
        while client.live:
            await asyncio.sleep(0.01)
    await asyncio.wait_for(asyncio.shield(serving), 10)
    await kit.aclose()


@pytest.mark.real_time
async def test_a_client_that_closes_in_the_same_moment_does_not_keep_the_server_from_its_end(monkeypatch) -> None:
    monkeypatch.setattr(signal, "raise_signal", lambda _: None)
    kit = RoomKit(token_secrets=[SECRET])
    running = server(create_app(kit), port=0)
    outside = Scope("test")
    serving = outside.spawn(running.serve(), name="uvicorn", awaited=True)
    while not running.started:
        await asyncio.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    async with websockets.connect(f"ws://127.0.0.1:{port}/socket"):
        (connection,) = running.server_state.connections
        connection.conn.state = websockets.State.CLOSING  # The client's goodbye is here, ours has not been sent.
        running.force_exit = True  # No drain, which would close it before.
        await running.shutdown()
        assert connection.transport.is_closing()
    running.force_exit = False
    running.handle_exit(signal.SIGTERM, None)
    await asyncio.wait_for(serving, 10)
    await kit.aclose()


async def test_guests_write_through_the_channel_that_the_host_names() -> None:
    async with house(web_channel="lobby") as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as guest:
            await guest.say("send", client_id="c1", text="hello")
            await guest.get("ack")
        (said,) = [event for event in await h.kit.events("r1") if event.text == "hello"]
        assert said.source.channel_id == "lobby"


async def test_a_drain_of_the_app_takes_as_long_as_it_is_told() -> None:
    for limit, done in ((2.0, False), (9.0, True)):
        slow = FakeChannel(policy=DeliveryPolicy(idempotent=True, timeout_s=60))
        slow.hang()
        async with house(drain_s=limit) as h:
            h.kit.register_channel(slow)
            await h.kit.create_room("r1", channels=["sms"])
            await h.kit.send("r1", "hello")
            asyncio.get_running_loop().call_later(5, slow.resume)
            assert await h.app.drain() is done
