"""Counters, gauges, histograms, and what Prometheus reads of them."""

from __future__ import annotations

import pytest

from roomkit.errors import UsageError
from roomkit.runtime.metrics import MAX_SERIES, Metrics


def test_the_text_format() -> None:
    metrics = Metrics()
    metrics.counter("events_total", "Events.", ["kind"]).labels('a"b\\\n').inc(2)
    metrics.gauge("depth", "Depth.").labels().set(1.5)
    times = metrics.histogram("seconds", "Time.", buckets=(0.1, 1)).labels()
    for value in (0.05, 0.1, 0.5, 7):
        times.observe(value)
    assert metrics.render() == (
        "# HELP events_total Events.\n# TYPE events_total counter\n"
        'events_total{kind="a\\"b\\\\\\n"} 2\n'
        "# HELP depth Depth.\n# TYPE depth gauge\ndepth 1.5\n"
        "# HELP seconds Time.\n# TYPE seconds histogram\n"
        'seconds_bucket{le="0.1"} 2\nseconds_bucket{le="1"} 3\nseconds_bucket{le="+Inf"} 4\n'
        "seconds_sum 7.65\nseconds_count 4\n"
    )


def test_gauges_go_both_ways_or_are_read_when_asked() -> None:
    metrics = Metrics()
    gauge = metrics.gauge("g", "G.").labels()
    gauge.inc(3)
    gauge.dec()
    assert metrics.value("g") == 2
    fill = [1]
    gauge.follow(lambda: len(fill))
    fill.append(2)
    fill.append(3)
    assert metrics.value("g") == 3


def test_a_name_is_one_metric_and_labels_are_bounded() -> None:
    metrics = Metrics()
    assert metrics.counter("c", "C.", ["x"]) is metrics.counter("c", "C.", ["x"])
    for number in range(MAX_SERIES + 10):
        metrics.counter("c", "C.", ["x"]).labels(str(number)).inc()
    assert metrics.value("c", "other") == 10
    assert metrics.value("c", "nowhere") == 0
    assert metrics.value("nothing") == 0


def test_wrong_names_and_labels_are_refused() -> None:
    metrics = Metrics()
    with pytest.raises(UsageError):
        metrics.counter("Bad name", "")
    with pytest.raises(UsageError):
        metrics.gauge("g", "", ["a b"])
    with pytest.raises(UsageError):
        metrics.counter("c", "", ["a"]).labels()


def test_an_empty_registry_says_nothing() -> None:
    metrics = Metrics()
    metrics.counter("c", "never used")
    assert metrics.render() == ""
    times = metrics.histogram("h", "H.").labels()
    times.observe(1)
    assert metrics.value("h") == 1
