"""Fixtures that more than one folder of tests needs. Async tests run in virtual time: see roomkit.testing."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Generator
from itertools import count

import pytest
from hypothesis import settings

# How long a generated case takes says nothing: a busy machine is no fault.
settings.register_profile("roomkit", deadline=None)
settings.load_profile("roomkit")

# Named here as well as by the entry point, so that tests run from a checkout which is not installed.
pytest_plugins = ["roomkit.testing.pytest_plugin"]


def pytest_collection_finish() -> None:
    _settle()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    yield
    if nextitem is None or nextitem.path != item.path:
        _settle()


_files = count(1)


def _settle() -> None:
    """What thousands of tests leave behind mostly lives until the end: the collector need not go through it each time,
    which takes a second on a slow machine, and then a loop seems blocked. Now and then, between two files, it does."""
    if next(_files) % 16 == 0:
        gc.unfreeze()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser for page tests; without one they are skipped, except in CI, where that is a failure."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    reason = "chromium is not installed (apt-get install chromium)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
