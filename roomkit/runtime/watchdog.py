"""Notices a blocked event loop and says who blocks it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from roomkit.errors import UsageError

_log = logging.getLogger("roomkit.runtime")


@dataclass(frozen=True, slots=True)
class Stall:
    """The loop has not turned for `seconds`; `stack` is what its thread was doing then, innermost call last."""

    seconds: float
    stack: str


class StallWatchdog:
    """A daemon thread asks the loop for a sign of life and reports, once per stall, a loop that gives none.

    `threshold_s` (default 1.0) is the real time without a turn that counts as a stall. `report` is called on the
    watchdog's thread; by default the stall is logged as a warning. On a loop with virtual time it stays idle.
    """

    def __init__(self, threshold_s: float = 1.0, *, report: Callable[[Stall], object] | None = None) -> None:
        if threshold_s <= 0:
            raise UsageError(f"a stall threshold must be positive, not {threshold_s}")
        self.threshold_s = threshold_s
        self._report = report or _warn
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watches the running loop from now on. Starting again changes nothing."""
        loop = asyncio.get_running_loop()
        if self._thread is not None or getattr(loop, "virtual_time", False):
            return
        self._thread = threading.Thread(
            target=self._watch, args=(loop, threading.get_ident()), name="roomkit-watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends watching; returns when the thread has ended. Safe to call twice, and without `start`."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self, loop: asyncio.AbstractEventLoop, ident: int) -> None:
        beat = threading.Event()
        while not self._stop.is_set():
            beat.clear()
            asked = time.monotonic()
            try:
                loop.call_soon_threadsafe(beat.set)
            except RuntimeError:  # The loop has been closed: nothing is left to watch.
                return
            if not self._answered(beat, self.threshold_s):
                if self._stop.is_set() or not loop.is_running():
                    return
                frame = sys._current_frames().get(ident)  # pyright: ignore[reportPrivateUsage]
                stack = "".join(traceback.format_stack(frame)) if frame is not None else "(the thread has ended)"
                self._report(Stall(time.monotonic() - asked, stack))
                while not self._answered(beat, self.threshold_s) and not self._stop.is_set():
                    pass
            self._stop.wait(self.threshold_s / 2)

    def _answered(self, beat: threading.Event, seconds: float) -> bool:
        """Waits for the beat in short steps, so that `stop` never waits long."""
        deadline = time.monotonic() + seconds
        while not beat.wait(min(0.05, max(0.0, deadline - time.monotonic()))):
            if self._stop.is_set() or time.monotonic() >= deadline:
                return beat.is_set()
        return True


def _warn(stall: Stall) -> None:
    _log.warning("the event loop has been blocked for %.1f s; it is here:\n%s", stall.seconds, stall.stack)
