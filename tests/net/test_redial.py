"""What every vendor's conversation rests on: nothing lost and nothing doubled, whatever the network does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.errors import ConfigError, ProviderError, Unavailable
from roomkit.net.redial import Backlog, Data, Dialler, DialOptions, Wire, dial
from roomkit.net.room_client import Disconnected
from roomkit.runtime import Scope


class Echo:
    """A vendor in memory that repeats what it hears in capitals, and breaks when it is told to."""

    def __init__(self, *breaks: int) -> None:
        self.breaks = list(breaks)
        self.dialled = 0
        self.heard: list[list[str]] = []
        self.aborted = self.closed = 0

    async def connect(self) -> Wire:
        self.dialled += 1
        self.heard.append([])
        return _EchoWire(self, self.breaks.pop(0) if self.breaks else -1)


class _EchoWire:
    def __init__(self, vendor: Echo, left: int) -> None:
        self._vendor = vendor
        self._left = left
        self._dropped = False
        self._answers: asyncio.Queue[str | None] = asyncio.Queue()

    async def send(self, data: Data) -> None:
        await asyncio.sleep(0.001)
        if self._left == 0:
            self._answers.put_nowait(None)
            raise Disconnected
        self._left -= 1
        self._vendor.heard[-1].append(str(data))
        self._answers.put_nowait(str(data).upper())

    async def recv(self) -> Data:
        answer = await self._answers.get()
        if answer is None or self._dropped:
            raise Disconnected
        await asyncio.sleep(0.002)
        return answer

    async def close(self) -> None:
        self._vendor.closed += 1

    def abort(self) -> None:
        self._vendor.aborted += 1
        self._dropped = True
        self._answers.put_nowait(None)


class Words:
    """Says words one by one; an answer confirms the oldest."""

    provider = "echo"

    def __init__(self, fatal: str = "") -> None:
        self.waiting_words: list[str] = []
        self.sent = 0
        self.over = False
        self.fatal = fatal
        self.nudges = 0

    def connected(self) -> None:
        self.sent = 0

    def add(self, piece: str) -> None:
        self.waiting_words.append(piece)

    def end(self) -> None:
        self.over = True

    @property
    def full(self) -> bool:
        return len(self.waiting_words) - self.sent > 3

    def data_to_send(self) -> list[Data]:
        fresh = self.waiting_words[self.sent :]
        self.sent = len(self.waiting_words)
        return list(fresh)

    def receive(self, data: Data) -> list[str]:
        if data == self.fatal:
            raise ProviderError("echo", "never again")
        if data == "PING":
            return []
        self.waiting_words.pop(0)
        self.sent -= 1
        return [str(data)]

    def quiet(self) -> list[Data]:
        self.nudges += 1
        return ["ping"]

    @property
    def waiting(self) -> bool:
        return bool(self.waiting_words)

    @property
    def done(self) -> bool:
        return self.over and not self.waiting_words

    def closed(self, end: Disconnected) -> ProviderError:
        return Unavailable("echo", "cut")


async def say(words: list[str], pause_s: float = 0.01) -> AsyncIterator[str]:
    for word in words:
        await asyncio.sleep(pause_s)
        yield word


async def converse(vendor: Echo, words: list[str], dialogue: Words | None = None, **options: object) -> list[str]:
    async with Scope("hangups") as hangups:
        dialler: Dialler[str, str] = Dialler(vendor.connect, DialOptions(**options))  # type: ignore[arg-type]
        heard = [one async for one in dialler.converse(dialogue or Words(), say(words), hangups)]
        await hangups.drain(1)
        return heard


@given(st.lists(st.integers(0, 6), max_size=3), st.integers(0, 12))
async def test_nothing_is_lost_or_told_twice_wherever_it_breaks(breaks: list[int], count: int) -> None:
    words = [f"w{at}" for at in range(count)]
    vendor = Echo(*breaks)
    # A last word keeps the conversation from ending before a pending break.
    assert await converse(vendor, [*words, "end"]) == [word.upper() for word in [*words, "end"]]
    assert vendor.closed + vendor.aborted == vendor.dialled
    assert vendor.closed == 1


async def test_it_gives_up_after_a_few_attempts_without_a_word_and_after_many_in_all() -> None:
    vendor = Echo(*[0] * 9)
    with pytest.raises(Unavailable):
        await converse(vendor, ["a"])
    assert vendor.dialled == 4
    vendor = Echo(*[1] * 50)
    with pytest.raises(Unavailable):
        await converse(vendor, [str(at) for at in range(50)], most=5)
    assert vendor.dialled == 6


async def test_an_error_for_good_is_told_at_once() -> None:
    vendor = Echo()
    with pytest.raises(ProviderError, match="never again"):
        await converse(vendor, ["a", "b"], Words(fatal="B"))
    assert vendor.dialled == 1
    assert vendor.aborted == 1


async def test_a_quiet_line_is_kept_alive() -> None:
    vendor, dialogue = Echo(), Words()
    async with Scope("hangups") as hangups:
        dialler: Dialler[str, str] = Dialler(vendor.connect, DialOptions(keepalive_s=1))
        heard = [one async for one in dialler.converse(dialogue, say(["a", "b"], 10), hangups)]
    assert heard == ["A", "B"]
    assert 16 <= dialogue.nudges <= 20


async def test_a_slow_reader_is_not_taken_for_a_dead_vendor() -> None:
    vendor = Echo()
    async with Scope("hangups") as hangups:
        dialler: Dialler[str, str] = Dialler(vendor.connect, DialOptions(answer_s=1))
        heard: list[str] = []
        async for one in dialler.converse(Words(), say(["a", "b", "c"]), hangups):
            await asyncio.sleep(30)
            heard.append(one)
    assert heard == ["A", "B", "C"]
    assert vendor.dialled == 1


async def test_a_connection_that_does_not_come_is_not_waited_for() -> None:
    async def never() -> Wire:
        await asyncio.sleep(3600)
        raise AssertionError

    async with Scope("hangups") as hangups:
        dialler: Dialler[str, str] = Dialler(never, DialOptions(connect_s=2))
        with pytest.raises(ProviderError, match="no connection in time"):
            await anext(dialler.converse(Words(), say(["a"]), hangups))
    assert asyncio.get_running_loop().time() < 12


@pytest.mark.real_time
async def test_a_wrong_address() -> None:
    with pytest.raises(ConfigError, match="base_url"):
        await dial("echo", "http//nonsense", {})
    with pytest.raises(Unavailable):
        await dial("echo", "ws://127.0.0.1:9", {})


@given(
    st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.integers(1, 30), st.just("rewind"), st.just("confirm")))
)
def test_a_backlog_gives_each_byte_in_order_and_keeps_no_more_than_its_limit(steps: list[object]) -> None:
    whole, backlog = b"", Backlog(64)
    for step in steps:
        if isinstance(step, bytes):
            whole += step
            backlog.add(step)
        elif isinstance(step, int):
            before = backlog.sent
            assert backlog.take(step) == whole[before : before + step]
        elif step == "rewind":
            backlog.rewind()
        else:
            backlog.confirm((backlog.start + backlog.sent) // 2)
        assert backlog.start <= backlog.sent <= backlog.end == len(whole)
        assert backlog.end - backlog.start <= 64 or backlog.sent == backlog.start
        assert backlog.forgotten <= backlog.start
