from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as ReferenceHistogram
from prometheus_client.exposition import generate_latest

from motherlode.server.histogram import Histogram

BOUNDS = (0.001, 0.5, 1.0, 5.0)
VALUES = (0.0, 0.001, 0.0011, 0.5, 0.7, 1.0, 4.9, 5.0, 5.1, 1e9)


def exported(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


def test_it_exports_what_the_library_would_export() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("x_seconds", "Time.", ("a", "b"), bounds=BOUNDS, registry=ours)
    reference = ReferenceHistogram(
        "x_seconds", "Time.", ("a", "b"), buckets=BOUNDS, registry=theirs
    )
    for value in VALUES:
        mine.labels("1", "2").observe(value)
        reference.labels("1", "2").observe(value)
    assert exported(ours) == exported(theirs)


def test_removed_series_are_exported_no_more() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("x", "Time.", ("a", "b"), bounds=BOUNDS, registry=registry)
    for values in (("1", "x"), ("1", "y"), ("2", "x")):
        histogram.labels(*values).observe(1.0)
    histogram.remove_by_labels({"a": "1"})
    assert registry.get_sample_value("x_count", {"a": "1", "b": "x"}) is None
    assert registry.get_sample_value("x_count", {"a": "2", "b": "x"}) == 1


def test_a_wrong_number_of_label_values_is_refused() -> None:
    histogram = Histogram("x", "Time.", ("a",), bounds=BOUNDS, registry=CollectorRegistry())
    with pytest.raises(ValueError, match="expected values of"):
        histogram.labels("1", "2")
