from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

CASES = """
import asyncio, threading, time
import pytest
from hypothesis import given, settings, strategies as st
from roomkit.runtime import Scope, SystemClock
from roomkit.testing import VirtualLoop

KEPT = []

async def fail():
    raise ValueError("broken")

async def test_passes_in_virtual_time(clock, virtual_loop, tmp_path):
    before = clock.now()
    await asyncio.sleep(3600)
    assert (clock.now() - before).total_seconds() == 3600
    assert asyncio.get_running_loop() is virtual_loop

@pytest.mark.parametrize("value", [1, 2])
@pytest.mark.seed(7)
async def test_passes_with_a_seed(value):
    assert asyncio.get_running_loop().seed == 7

class TestIn:
    async def test_passes_in_a_class(self, clock):
        await asyncio.sleep(1)

@pytest.mark.real_time
async def test_passes_in_real_time(clock):
    assert isinstance(clock, SystemClock)
    assert not isinstance(asyncio.get_running_loop(), VirtualLoop)

LOOPS = set()
@settings(max_examples=5)
@given(number=st.integers(0, 99))
async def test_passes_under_hypothesis(number):
    await asyncio.sleep(number)
    assert asyncio.get_running_loop().time() == number

@settings(max_examples=5)
@given(number=st.integers(0, 99))
async def test_fails_under_hypothesis(number):
    await asyncio.sleep(1)
    assert number > 1000

async def test_passes_although_a_task_is_just_ending():
    scope = Scope("s")
    scope.spawn(asyncio.sleep(60), name="ending")
    scope.cancel()

async def test_fails_by_itself():
    Scope("s").spawn(fail(), name="bad")
    await asyncio.sleep(1)
    assert False

async def test_fails_by_a_task_of_a_scope():
    Scope("s").spawn(fail(), name="bad")
    await asyncio.sleep(1)

async def test_fails_by_a_task_nobody_looks_at():
    KEPT.append(asyncio.get_running_loop().create_task(fail(), name="unseen"))
    await asyncio.sleep(1)

async def test_fails_by_a_callback():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(1)

async def test_fails_by_a_task_left_running():
    KEPT.append(Scope("s").spawn(asyncio.sleep(60), name="left"))

async def test_fails_by_blocking():
    time.sleep(2.1)

@pytest.mark.may_block
async def test_passes_blocking():
    time.sleep(2.1)

@pytest.mark.real_time
async def test_fails_by_blocking_in_real_time():
    time.sleep(3.5)
    await asyncio.sleep(0)

async def test_fails_by_deadlock():
    await asyncio.Event().wait()

@pytest.mark.time_limit(0.2)
async def test_fails_by_an_endless_loop():
    while True:
        await asyncio.sleep(1)

@pytest.mark.time_limit(0.2)
@pytest.mark.may_block
async def test_fails_by_a_callback_without_end():
    while True:
        pass

@pytest.mark.time_limit(0.2)
@pytest.mark.real_time
async def test_fails_by_real_waiting():
    await asyncio.sleep(60)

@pytest.mark.time_limit(0.2)
def test_fails_by_sync_waiting():
    threading.Event().wait(60)

@pytest.mark.real_time
async def test_errors_with_both(virtual_loop):
    pass
"""


@pytest.fixture(autouse=True)
def from_the_checkout(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))


def test_what_passes_and_what_fails_and_why(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CASES)
    pytester.makeini("[pytest]\naddopts = --strict-markers\n")
    result = pytester.runpytest_subprocess("-p", "roomkit.testing.pytest_plugin", "-p", "no:cacheprovider", "-rA")
    outcomes: dict[str, set[str]] = {}
    for line in result.outlines:
        if line.startswith(("PASSED ", "FAILED ", "ERROR ")):
            word, name = line.split()[:2]
            outcomes.setdefault(word, set()).add(name.rpartition("::")[2].partition("[")[0])
    expected = {"ERROR": "_errors_", "FAILED": "_fails_", "PASSED": "_passes_"}
    assert {name for word, names in outcomes.items() for name in names if expected[word] not in name} == set()
    assert {word: len(names) for word, names in outcomes.items()} == {"ERROR": 1, "FAILED": 13, "PASSED": 7}
    result.stdout.fnmatch_lines_random(
        [
            "*besides, while the test ran:",
            '*task "bad" of scope "s" failed:',
            '*nobody observed how task "unseen" failed:',
            "*ZeroDivisionError*",
            '*task "left" was left running, at *close what started it',
            "*blocked the loop for * s",
            "*time.sleep(3.5)",
            "*every task waits, and nothing is left that could wake one",
            "*more than 0.2 s of real time",
            "*running test_fails_by_real_waiting took more than * of real time",
            "*virtual_loop does not exist in a test marked real_time*",
        ]
    )


def test_other_plug_ins_keep_their_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.anyio\nasync def test_theirs():\n    raise SystemExit(3)\n")
    result = pytester.runpytest_inprocess("-p", "roomkit.testing.pytest_plugin", "-p", "no:anyio", "-W", "ignore")
    result.stdout.fnmatch_lines(["*async def functions are not natively supported*"])


def test_the_ini_option_sets_a_limit_for_synchronous_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import threading\ndef test_waits():\n    threading.Event().wait(60)\n")
    pytester.makeini("[pytest]\nroomkit_time_limit = 0.2\n")
    result = pytester.runpytest_subprocess("-p", "roomkit.testing.pytest_plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
