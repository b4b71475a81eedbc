"""The fault proxy does what it says, to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from roomkit.testing.faultproxy import Fault, FaultProxy

pytestmark = pytest.mark.real_time


@asynccontextmanager
async def parrot(fault: Any = None) -> AsyncIterator[tuple[FaultProxy, bytearray]]:
    """A server behind a proxy that says everything again."""
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                heard.extend(data)
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with FaultProxy(server.sockets[0].getsockname()[1]) as proxy:
        proxy.fault = fault
        yield proxy, heard
    server.close()
    await server.wait_closed()


async def ask(port: int, text: bytes, *, within: float = 5.0) -> tuple[bytes, bool]:
    """What comes back, and whether the connection ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = bytearray()
    try:
        async with asyncio.timeout(within):
            writer.write(text)
            while len(got) < len(text):
                if not (data := await reader.read(1000)):
                    return bytes(got), True
                got.extend(data)
    except ConnectionError:
        return bytes(got), True
    except TimeoutError:
        pass
    finally:
        writer.transport.abort()
    return bytes(got), False


async def test_without_a_fault_everything_passes() -> None:
    async with parrot() as (proxy, heard):
        assert await ask(proxy.port, b"x" * 5000) == (b"x" * 5000, False)
        assert proxy.passed == {"to_server": 5000, "to_client": 5000}
        assert (proxy.connections, proxy.broken, len(heard)) == (1, 0, 5000)


@pytest.mark.parametrize("at", [0, 1, 7, 10])
async def test_a_connection_is_cut_at_the_byte(at: int) -> None:
    async with parrot(Fault(cut_at=at)) as (proxy, heard):
        assert await ask(proxy.port, b"0123456789") == (b"0123456789"[:at], at < 10)
        assert bytes(heard) == b"0123456789"
        proxy.fault = Fault("to_server", cut_at=at)
        heard.clear()
        await ask(proxy.port, b"0123456789")
        assert bytes(heard) == b"0123456789"[:at]
        assert proxy.broken == 2


async def test_a_half_open_connection_says_nothing_and_does_not_end() -> None:
    async with parrot(Fault(silent_at=4)) as (proxy, heard):
        assert await ask(proxy.port, b"0123456789", within=0.3) == (b"0123", False)
        assert bytes(heard) == b"0123456789"
        proxy.fault = None
        assert await ask(proxy.port, b"01") == (b"01", False)


async def test_open_connections_break_or_fall_silent_on_demand() -> None:
    async with parrot() as (proxy, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"a")
        assert await reader.read(1) == b"a"
        proxy.silence()
        writer.write(b"b")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        proxy.cut()
        [end] = await asyncio.gather(reader.read(1), return_exceptions=True)
        assert end == b"" or isinstance(end, ConnectionError)
        writer.close()


async def test_bytes_may_drip_and_be_late() -> None:
    loop = asyncio.get_running_loop()
    async with parrot(lambda number: Fault(drip=(2, 0.02)) if number == 0 else Fault(delay_s=0.1)) as (proxy, _):
        for _ in range(2):
            began = loop.time()
            assert await ask(proxy.port, b"0123456789") == (b"0123456789", False)
            assert loop.time() - began >= 0.07


async def test_nobody_comes_in_while_it_refuses() -> None:
    async with parrot() as (proxy, heard):
        proxy.accepting = False
        assert await ask(proxy.port, b"x") == (b"", True)
        assert not heard
        proxy.accepting = True
        assert await ask(proxy.port, b"x") == (b"x", False)


async def test_a_dead_target_is_a_broken_connection() -> None:
    async with parrot() as (proxy, _):
        pass
    async with FaultProxy(proxy.port) as empty:
        assert await ask(empty.port, b"x") == (b"", True)
