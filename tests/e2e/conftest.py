"""Real pages in Chromium, against real servers; the pages may neither complain nor ask anybody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from tests.e2e.cast import ROOMS
from tests.e2e.driver import QUIET, QUIETER, Pages, Server

ROOMS_KEY = pytest.StashKey[Iterator[str]]()


def pytest_configure(config: pytest.Config) -> None:
    expect.set_options(timeout=15_000)  # milliseconds; two cores may have other tests to run
    config.addinivalue_line("markers", "browser: needs Debian's Chromium")


# Not longer than the module: while the driver runs, this thread has a running loop, and async tests elsewhere could not
# start theirs.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium: str) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=chromium, args=[*QUIET, *QUIETER])
    yield browser
    browser.close()


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    """Fails the test when a page complained, broke its policy or asked another host."""
    pages = Pages(browser)
    yield pages
    pages.close()
    assert not pages.complaints, "\n".join(pages.complaints)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that leave it running; each has its own room of it."""
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers of this test alone, to be killed."""
    made: list[Server] = []

    def make(prefix: str = "/") -> Server:
        made.append(Server(tmp_path, prefix))
        return made[-1].start()

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room of its own for each test, and the id of the guest in it."""
    taken = request.session.stash.setdefault(ROOMS_KEY, iter(ROOMS))
    return next(taken)
