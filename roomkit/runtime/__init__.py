"""Tasks, time, queues and threads: the only package that touches the event loop's own machinery."""

from roomkit.runtime.bounded import bounded
from roomkit.runtime.buffers import BlockingBuffer, BufferClosed, BufferStats, CoalescingBuffer, DropOldestBuffer
from roomkit.runtime.clock import Clock, SystemClock, idle, monotonic
from roomkit.runtime.crashpoint import CRASH_POINTS, crashpoint
from roomkit.runtime.generation import Generation
from roomkit.runtime.metrics import Counter, Gauge, Histogram, Metrics
from roomkit.runtime.scope import Scope, TaskFailure
from roomkit.runtime.threads import WorkerPool, WorkerThread, call_from_thread
from roomkit.runtime.wakeup import Wakeup
from roomkit.runtime.watchdog import Stall, StallWatchdog

__all__ = [
    "CRASH_POINTS",
    "BlockingBuffer",
    "BufferClosed",
    "BufferStats",
    "Clock",
    "CoalescingBuffer",
    "Counter",
    "DropOldestBuffer",
    "Gauge",
    "Generation",
    "Histogram",
    "Metrics",
    "Scope",
    "Stall",
    "StallWatchdog",
    "SystemClock",
    "TaskFailure",
    "Wakeup",
    "WorkerPool",
    "WorkerThread",
    "bounded",
    "call_from_thread",
    "crashpoint",
    "idle",
    "monotonic",
]
