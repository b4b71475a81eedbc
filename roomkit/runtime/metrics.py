"""Counters, gauges and histograms, in memory, rendered as Prometheus text (D43), all on the loop thread."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from roomkit.errors import UsageError

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Default buckets of a histogram, in seconds."""
MAX_SERIES = 1_000
"""Label sets kept per metric; whatever comes after counts under the label value "other"."""

_NAME = re.compile(r"[a-z_][a-z0-9_]*\Z")
M = TypeVar("M", bound="Counter | Gauge | Histogram")


class Counter:
    """Only goes up."""

    kind = "counter"
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, by: float = 1.0) -> None:
        self.value += by

    def samples(self) -> Iterator[tuple[str, str, float]]:
        yield "", "", self.value


class Gauge:
    """Goes up and down, or is read when it is asked for (`follow`)."""

    kind = "gauge"
    __slots__ = ("_read", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._read: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        self.value = value

    def inc(self, by: float = 1.0) -> None:
        self.value += by

    def dec(self, by: float = 1.0) -> None:
        self.value -= by

    def follow(self, read: Callable[[], float]) -> None:
        """From now on the value is whatever `read()` says."""
        self._read = read

    def samples(self) -> Iterator[tuple[str, str, float]]:
        yield "", "", self.value if self._read is None else self._read()


class Histogram:
    """How often a value fell into which bucket."""

    kind = "histogram"
    __slots__ = ("_bounds", "_counts", "count", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.count += 1
        self.sum += value

    def samples(self) -> Iterator[tuple[str, str, float]]:
        running = 0
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            running += count
            yield "_bucket", f'le="{_number(bound)}"', running
        yield "_sum", "", self.sum
        yield "_count", "", self.count


class Family(Generic[M]):
    """One metric with its label sets: `family.labels("sms").inc()`. Keep the result where the path is hot."""

    __slots__ = ("_make", "_series", "help", "labels_of", "name")

    def __init__(self, name: str, help: str, labels: Sequence[str], make: Callable[[], M]) -> None:
        self.name, self.help, self.labels_of = name, help, tuple(labels)
        self._make = make
        self._series: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        series = self._series.get(values)
        if series is not None:
            return series
        if len(values) != len(self.labels_of):
            raise UsageError(f"metric {self.name} has the labels {self.labels_of}, not {len(values)} values")
        if len(self._series) >= MAX_SERIES:
            values = ("other",) * len(values)
        return self._series.setdefault(values, self._make())

    def render(self) -> Iterator[str]:
        if not self._series:
            return
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {next(iter(self._series.values())).kind}"
        for values, series in self._series.items():
            own = [f'{label}="{_escape(value)}"' for label, value in zip(self.labels_of, values, strict=True)]
            for suffix, extra, value in series.samples():
                inner = ",".join([*own, extra] if extra else own)
                yield (
                    f"{self.name}{suffix}{{{inner}}} {_number(value)}"
                    if inner
                    else f"{self.name}{suffix} {_number(value)}"
                )


class Metrics:
    """A registry. Asking twice for a name gives the same metric."""

    def __init__(self) -> None:
        self._families: dict[str, Family[Counter] | Family[Gauge] | Family[Histogram]] = {}

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Family[Counter]:
        return self._family(name, help, labels, Counter)  # pyright: ignore[reportReturnType]

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Family[Gauge]:
        return self._family(name, help, labels, Gauge)  # pyright: ignore[reportReturnType]

    def histogram(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = SECONDS,
    ) -> Family[Histogram]:
        return self._family(name, help, labels, lambda: Histogram(buckets))  # pyright: ignore[reportReturnType]

    def render(self) -> str:
        """The Prometheus text format, version 0.0.4."""
        lines = [line for family in self._families.values() for line in family.render()]
        return "\n".join(lines) + "\n" if lines else ""

    def names(self) -> list[str]:
        return list(self._families)

    def value(self, name: str, *labels: str) -> float:
        """The present value of a counter or gauge (of a histogram: its count); 0 when there is none."""
        family = self._families.get(name)
        series = None if family is None else family._series.get(labels)  # pyright: ignore[reportPrivateUsage]
        if series is None:
            return 0.0
        return float(series.count) if isinstance(series, Histogram) else next(iter(series.samples()))[2]

    def _family(
        self,
        name: str,
        help: str,
        labels: Sequence[str],
        make: Callable[[], Counter | Gauge | Histogram],
    ) -> Family[Counter] | Family[Gauge] | Family[Histogram]:
        family = self._families.get(name)
        if family is not None:
            return family
        if not _NAME.match(name) or not all(_NAME.match(label) for label in labels):
            raise UsageError(f'"{name}" {tuple(labels)}: names of metrics and labels are lower_case words')
        family = Family(name, help, labels, make)
        self._families[name] = family  # pyright: ignore[reportArgumentType]
        return family  # pyright: ignore[reportReturnType]


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
