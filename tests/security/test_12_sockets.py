"""Line 12: the room socket. Who you are comes before anything is read or sent; pages of strangers stay out; a session
ends with its token; frames and commands have limits; a crowd that never finishes its handshake holds nobody up; and a
place to resume from is good in its own room, for its own person, in its own log."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from roomkit import RoomKit
from roomkit.errors import AccessDenied
from roomkit.models.access import Principal, PrincipalRole
from roomkit.net.room_client import Disconnected
from roomkit.protocols.room_socket import Limits
from roomkit.protocols.room_socket.messages import CLIENT_TYPES
from roomkit.runtime import Scope, bounded, monotonic
from roomkit.servers.access import LEAST, Action
from roomkit.servers.asgi import create_app
from roomkit.servers.rest import ENDPOINTS
from roomkit.servers.run import server
from roomkit.testing.sockets import AsgiSocket
from tests.security.adapters import WEBHOOKS
from tests.servers.house import House, house

FRAMES: dict[str, dict[str, Any]] = {
    "auth": {"token": "x", "v": 1},
    "join": {"room_id": "r"},
    "leave": {},
    "send": {"client_id": "1", "text": "hello"},
    "typing": {"on": True},
    "presence": {"state": "here"},
    "read": {"index": 0},
    "history": {"limit": 5},
    "watch": {"on": True},
    "ping": {"t": 1},
}
"""One of every frame that a client can say."""


def test_every_frame_and_action_is_known_here() -> None:
    assert FRAMES.keys() == CLIENT_TYPES.keys(), "a new frame needs a line in FRAMES"
    assert set(Action) == set(LEAST), "an action in no table is allowed to nobody; say who may"


# -- authentication first ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in FRAMES if kind != "auth"])
async def test_nothing_is_done_before_authentication(kind: str) -> None:
    async with house() as h:
        await h.kit.create_room("r", channels=["web"])
        before = await h.kit.events("r", limit=1000, raw=True)
        async with h.socket() as ws:
            await ws.say(kind, **FRAMES[kind])
            assert await ws.closed() == 4400
            assert ws.seen == []
        assert await h.kit.events("r", limit=1000, raw=True) == before


@pytest.mark.parametrize("frame", ["", "{}", "[]", "null", "x" * 100_000, '{"type":"auth"}', "{" * 5000, '{"type":1}'])
async def test_nonsense_before_authentication_ends_it(frame: str) -> None:
    async with house() as h, h.socket() as ws:
        await ws.send(frame)
        assert await ws.closed() in (4400, 4401)
        assert ws.seen == []


async def test_every_route_asks_who_it_is() -> None:
    """By enumeration: a new route that answers strangers fails here."""
    async with house() as h:
        await h.kit.create_room("r", channels=["web"])
        for row in ENDPOINTS:
            path = "/api" + row.path.replace("{room}", "r").replace("{", "").replace("}", "").replace(":path", "")
            for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "Basic eDp4"}, {"cookie": "token=x"}):
                answer = await h.http.request(row.method, path, json={}, headers=headers)
                assert answer.status_code in (401, 429), f"{row.method} {path}: {answer.status_code}"
        for path in ("/metrics",):
            assert (await h.http.get(path)).status_code == 401
        tokens = (
            await h.http.get(f"/api/rooms/r?token={h.token('admin')}&access_token={h.token('admin')}")
        ).status_code
        assert tokens in (401, 429), "a token in a URL is no token"


async def test_a_role_reaches_what_its_row_says_and_no_more() -> None:
    """Every route, every role: refused exactly where the table says so."""
    async with house(requests_per_s=10_000) as h:
        await h.kit.create_room("r", channels=["web"])
        roles = list(PrincipalRole)
        for row in ENDPOINTS:
            path = "/api" + row.path.replace("{room}", "r").replace("{", "").replace("}", "").replace(":path", "")
            for rank, role in enumerate(roles):
                if rank >= roles.index(LEAST[row.action]):
                    continue
                token = h.token(role.value, "r" if role is PrincipalRole.GUEST else None, id=f"{role.value}-1")
                headers = {"authorization": f"Bearer {token}"}
                answer = await h.http.request(row.method, path, json={}, headers=headers)
                assert answer.status_code == 403, f"{role.value} {row.method} {path}: {answer.status_code}"


# -- origins ----------------------------------------------------------------------------------------------------------

STRANGERS = (
    *(
        "https://evil.example",
        "http://rooms.example",
        "https://rooms.example.evil.example",
        "https://rooms.example:8443",
    ),
    *("https://evil.example#rooms.example", "https://xrooms.example", "https://rooms.example@evil.example", "null", ""),
    *(
        "file://",
        "https://",
        "rooms.example",
        "HTTPS://ROOMS.EXAMPLE.",
        "https://rooms.example/",
        "chrome-extension://x",
    ),
)


@pytest.mark.parametrize("origin", STRANGERS)
async def test_a_strangers_page_gets_no_socket(origin: str) -> None:
    async with house(public_url="https://rooms.example", allowed_origins=("https://shop.example",)) as h:
        for host in ("rooms.example", "evil.example"):
            with pytest.raises(Disconnected) as refused:
                await h.socket(headers=[("origin", origin), ("host", host)]).open()
            assert refused.value.code == 4403
        for good in ("https://rooms.example", "https://shop.example"):
            async with h.socket(headers=[("origin", good)]) as ws:
                assert ws.accepted


# -- the end of a session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["expires", "revoked", "banned", "closed by the host"])
async def test_a_session_ends_within_five_seconds_of_its_right(ends: str) -> None:
    async with house() as h:
        await h.kit.create_room("r", channels=["web"])
        minted = h.kit.tokens.issue("guest", "r", 60 if ends == "expires" else 3600, id="gus")
        async with h.socket() as ws:
            await ws.say("auth", token=minted.token, v=1)
            await ws.say("join", room_id="r")
            await ws.get("snapshot")
            await ws.say("send", client_id="1", text="I am here")
            await ws.get("ack")
            began = monotonic()
            match ends:
                case "expires":
                    began += 60
                    for _ in range(5):
                        await asyncio.sleep(12 if _ < 4 else 11)
                        await ws.say("ping", t=1)
                case "revoked":
                    h.kit.tokens.revoke(minted.token_id)
                case "banned":
                    await h.kit.remove_member("r", "gus", ban=True)
                case _:
                    h.app.door.lobby.cut_all(4401, "bye")
            assert await ws.closed() in (4401, 4403)
            assert monotonic() - began <= 5


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [70_000, 1_000_000])
async def test_a_frame_has_a_size(size: int) -> None:
    async with house(limits=Limits(frame_bytes=65_536)) as h:
        await h.kit.create_room("r", channels=["web"])
        async with h.joined("r") as ws:
            await ws.say("send", client_id="1", text="é" * (size // 2))
            assert (await ws.get())["type"] in ("error", "nack")
        assert [e for e in await h.kit.events("r") if e.type == "message"] == []
    config = server(create_app(RoomKit(), limits=Limits(frame_bytes=1000))).config
    assert config.ws_max_size == 2000, "uvicorn cuts before we would have to hold it"
    assert config.ws_per_message_deflate is False, "a compressed frame could unpack to anything"


@pytest.mark.parametrize("kind", FRAMES)
async def test_every_command_has_a_budget(kind: str) -> None:
    async with house(limits=Limits(frames_per_s=5, frames_burst=10, violations=20)) as h:
        await h.kit.create_room("r", channels=["web"])
        token = h.token("guest", "r")
        async with h.joined("r") as ws:
            frame = {**FRAMES[kind], **({"token": token} if kind == "auth" else {})}
            try:
                for n in range(200):
                    await ws.say(kind, **({**frame, "client_id": f"c{n}"} if kind == "send" else frame))
            except Disconnected:
                pass
            assert await ws.closed() in (4429, 4403)
        assert len(await h.kit.events("r", limit=1000, raw=True)) < 60


async def test_a_principal_has_so_many_sockets_and_no_more() -> None:
    async with house(max_connections_per_principal=3) as h:
        await h.kit.create_room("r", channels=["web"])
        async with h.joined("r"), h.joined("r"), h.joined("r"), h.socket() as ws:
            await ws.say("auth", token=h.token("guest", "r"), v=1)
            assert await ws.closed() == 1013


# -- failed log-ins ---------------------------------------------------------------------------------------------------


def calling(h: House, address: str) -> AsgiSocket:
    ws = h.socket()
    ws.asgi_scope["client"] = (address, 1)
    return ws


async def fail(h: House, address: str, token: str = "rk1.no.no.no") -> int:
    async with calling(h, address) as ws:
        await ws.say("auth", token=token, v=1)
        return await ws.closed()


async def test_who_fails_too_often_is_not_heard_any_more() -> None:
    async with house(failed_logins_per_s=0.1) as h:
        await h.kit.create_room("r", channels=["web"])
        assert [await fail(h, "198.51.100.7") for _ in range(5)] == [4401, 4401, 4401, 4429, 4429]
        assert await fail(h, "198.51.100.8") == 4401, "another address is not punished for it"
        async with calling(h, "198.51.100.7") as ws:
            await ws.say("auth", token=h.token("guest", "r"), v=1)
            assert (await ws.get())["type"] == "welcome", "nor is who has a good token, behind the same door"
        await asyncio.sleep(11)
        assert await fail(h, "198.51.100.7") == 4401


async def test_a_whole_ipv6_network_is_one_caller() -> None:
    async with house(failed_logins_per_s=0.1) as h:
        codes = [await fail(h, f"2001:db8:1:2::{n:x}") for n in range(1, 6)]
        assert codes == [4401, 4401, 4401, 4429, 4429]
        assert await fail(h, "2001:db8:1:3::1") == 4401


async def test_the_hosts_own_log_in_is_not_asked_while_somebody_guesses() -> None:
    asked: list[str] = []

    def authenticate(connection: Any) -> Principal | None:
        asked.append(connection.headers.get("authorization", ""))
        if asked[-1] == "Bearer right":
            return Principal(id="ann", role=PrincipalRole.AGENT)
        raise AccessDenied("wrong password")

    async with house(authenticate=authenticate, failed_logins_per_s=0.1) as h:
        for n in range(100):
            answer = await h.http.get("/api/me", headers={"authorization": f"Bearer guess{n}"})
            assert answer.status_code == (401 if n < 3 else 429)
        assert len(asked) == 3
        assert answer.headers["retry-after"]
        await asyncio.sleep(60)
        assert (await h.http.get("/api/me", headers={"authorization": "Bearer right"})).status_code == 200


async def test_a_million_addresses_take_no_more_memory_than_ten_thousand() -> None:
    async with house() as h:
        for n in range(12_000):
            h.app.door._failures.try_acquire(f"address {n}")
        assert len(h.app.door._failures) <= 10_000


# -- resuming ---------------------------------------------------------------------------------------------------------


async def test_a_place_to_resume_from_is_bound_to_room_person_and_log() -> None:
    """It carries no right by itself: it only says where one was, and all else is asked anew."""
    async with house() as h:
        for room in ("r", "other"):
            await h.kit.create_room(room, channels=["web"])
        await h.kit.send("r", "for everybody")
        secret = await h.kit.note("r", "between colleagues", "sam")
        async with h.joined("r", id="gus") as ws:
            await ws.say("send", client_id="1", text="mine")
            snapshot = ws.seen[-1] if ws.seen else {}
            epoch = next(frame["epoch"] for frame in [*ws.seen, snapshot] if "epoch" in frame)
        resume = {"epoch": epoch, "index": 0}
        async with h.socket() as ws:  # another person, another room
            await ws.say("auth", token=h.token("guest", "other", id="eve"), v=1)
            await ws.say("join", room_id="r", resume=resume)
            assert (await ws.get("error"))["code"] == "not_allowed"
            await ws.say("join", room_id="other", resume=resume)
            frame = await ws.get()
            assert "for everybody" not in json.dumps(frame)
        async with h.socket() as ws:  # the same room, as somebody else: what a guest may see and no more
            await ws.say("auth", token=h.token("guest", "r", id="eve"), v=1)
            await ws.say("join", room_id="r", resume=resume)
            told = json.dumps(await ws.get("resumed"))
            assert secret.id not in told
            assert "between colleagues" not in told
        for forged in (
            {"epoch": "another log", "index": 0},
            {"epoch": epoch, "index": 10**6},
            {"epoch": "", "index": 0},
        ):
            async with h.socket() as ws:
                await ws.say("auth", token=h.token("guest", "r", id="gus"), v=1)
                await ws.say("join", room_id="r", resume=forged)
                assert (await ws.get("resync_required"))["room_id"] == "r"


# -- a crowd at the door: real sockets --------------------------------------------------------------------------------


NO_LOGIN = (4401).to_bytes(2, "big")


async def ended(one: socket.socket) -> bool:
    """Whether the server hung up, or said good-bye to a socket; for the answer to that uvicorn waits ten seconds."""
    try:
        while said := await asyncio.get_running_loop().sock_recv(one, 65536):
            if NO_LOGIN in said:
                break
    except ConnectionError:
        pass
    return True


@contextmanager
def lines(*addresses: tuple[str, int], count: int) -> Iterator[list[socket.socket]]:
    open_ones = [socket.create_connection(addresses[0]) for _ in range(count)]
    for one in open_ones:
        one.setblocking(False)
    try:
        yield open_ones
    finally:
        for one in open_ones:
            one.close()


HALF = {
    "says nothing": b"",
    "half a head": b"GET /socket HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n",
    "half a body": b"POST /webhooks/hook HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc",
    "half a second request": b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /heal",
    "no frame after the handshake": (
        b"GET /socket HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
}


@pytest.mark.real_time
@pytest.mark.may_block
async def test_a_handshake_that_is_never_finished_ends_and_others_are_served_meanwhile() -> None:
    kit = WEBHOOKS["HTTPWebhooks"].kit()
    app = create_app(kit, request_s=0.5, auth_timeout_s=0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    running = server(app, ws="websockets-sansio")
    scope = Scope("slow clients")
    async with kit:
        task = scope.spawn(running._serve([listener]), name="uvicorn")
        while not running.started:
            await asyncio.sleep(0.01)
        address = listener.getsockname()
        with lines(address, count=10 * len(HALF)) as crowd:
            loop = asyncio.get_running_loop()
            for n, one in enumerate(crowd):
                await loop.sock_sendall(one, list(HALF.values())[n % len(HALF)])
            reader, writer = await asyncio.open_connection(*address[:2])
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert b"200 OK" in await reader.read()
            writer.close()
            for n, one in enumerate(crowd):
                name = list(HALF)[n % len(HALF)]
                assert await bounded(ended(one), 10, f'the end of a client that sends "{name}"')
        running.should_exit = True
        await task
    await scope.aclose()
    await app.aclose()
