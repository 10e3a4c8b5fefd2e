from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from motherlode.core.errors import BundleError
from motherlode.core.golden import Golden
from motherlode.core.queries import (
    DenseQueries,
    EmbeddingQueries,
    Queries,
    SparseQueries,
    TextQueries,
)
from motherlode.core.topk import TopK

EMBEDDINGS = np.array([[1, 0, 0], [0, 0.5, -2]], np.float32)
QUERIES: dict[str, Queries] = {
    "text": TextQueries(["Paris", ""]),
    "sparse": SparseQueries(
        np.array([0, 2, 2]), np.array([1, 4]), np.array([0.5, 1.5], np.float32), 9
    ),
    "features": DenseQueries(np.arange(8, dtype=np.float32).reshape(2, 4)),
    "embeddings": EmbeddingQueries(EMBEDDINGS),
}


def make_top(labels: list[int], scores: list[float], counts: list[int]) -> TopK:
    return TopK(np.array(labels, np.int64), np.array(scores, np.float32), np.array(counts))


def make_golden(kind: str = "text") -> Golden:
    return Golden(QUERIES[kind], EMBEDDINGS, make_top([7, 3, 5, 9], [4, 3, 1, 5], [3, 1]), 3)


@pytest.mark.parametrize("kind", list(QUERIES))
def test_golden_queries_of_every_kind_survive_the_file(tmp_path: Path, kind: str) -> None:
    golden = make_golden(kind)
    golden.save(tmp_path / "golden.arrow")
    loaded = Golden.load(tmp_path / "golden.arrow")
    assert type(loaded.queries) is type(golden.queries)
    for name in golden.queries.__slots__:
        expected, actual = getattr(golden.queries, name), getattr(loaded.queries, name)
        np.testing.assert_array_equal(actual, expected)
        assert getattr(actual, "dtype", None) == getattr(expected, "dtype", None)
    np.testing.assert_array_equal(loaded.embeddings_BD, EMBEDDINGS)
    assert loaded.hit_difference(golden.top) is None
    assert loaded.k == 3


def test_loaded_arrays_can_be_written_to_as_torch_wants_them(tmp_path: Path) -> None:
    make_golden("sparse").save(tmp_path / "golden.arrow")
    queries = Golden.load(tmp_path / "golden.arrow").queries
    assert isinstance(queries, SparseQueries)
    assert queries.indices.flags.writeable
    assert queries.values.flags.writeable


def test_queries_without_a_single_hit_survive_the_file(tmp_path: Path) -> None:
    Golden(QUERIES["text"], EMBEDDINGS, make_top([], [], [0, 0]), 3).save(tmp_path / "g.arrow")
    assert Golden.load(tmp_path / "g.arrow").top.counts.tolist() == [0, 0]


@pytest.mark.parametrize("num_queries", [0, 33])
def test_too_few_or_too_many_queries_are_refused(num_queries: int) -> None:
    queries = TextQueries(["x"] * num_queries)
    top = make_top([], [], [0] * num_queries)
    with pytest.raises(ValueError, match="expected 1 to 32 queries"):
        Golden(queries, np.zeros((num_queries, 2), np.float32), top, 1)


def test_a_file_of_something_else_is_refused_by_path(tmp_path: Path) -> None:
    path = tmp_path / "golden.arrow"
    path.write_bytes(b"nothing golden")
    with pytest.raises(BundleError, match=r"golden\.arrow: not a file of golden queries"):
        Golden.load(path)


def rewrite(path: Path, **changes: Any) -> None:
    """Replaces metadata or columns of a file of golden queries."""
    with pa.OSFile(str(path), "rb") as source:
        table = pa.ipc.open_file(source).read_all()
    metadata = dict(table.schema.metadata)
    for name, value in changes.items():
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, [value])
        else:
            metadata[name.encode()] = value
    metadata = {name: value for name, value in metadata.items() if value is not None}
    table = table.replace_schema_metadata(metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"queries": "images"}, "unknown kind of query 'images'"),
        ({"k": None}, "'k'"),
        ({"k": None, "queries": None, "num_features": None}, "not a file of golden queries"),
        ({"scores": pa.array([[1], [2]], pa.large_list(pa.float64()))}, "column scores: expected"),
        ({"embedding": pa.array([[1], []], pa.large_list(pa.float32()))}, "not a file of golden"),
    ],
)
def test_a_file_with_something_amiss_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "golden.arrow"
    make_golden().save(path)
    rewrite(path, **changes)
    with pytest.raises(BundleError, match=reason):
        Golden.load(path)


def test_a_query_without_hits_stays_without() -> None:
    golden = Golden(TextQueries(["x", "y"]), EMBEDDINGS, make_top([4], [3], [0, 1]), 3)
    assert golden.hit_difference(golden.top) is None


def test_the_same_embeddings_and_hits_do_not_differ() -> None:
    golden = make_golden()
    assert golden.embedding_difference(EMBEDDINGS + np.float32(5e-5)) is None
    near = TopK(golden.top.labels, golden.top.scores * np.float32(1 + 5e-5), golden.top.counts)
    assert golden.hit_difference(near) is None


def test_another_embedding_is_named_by_its_query() -> None:
    changed = EMBEDDINGS.copy()
    changed[1, 2] += 3e-4
    assert "query 1 is off by up to 0.0003" in str(make_golden().embedding_difference(changed))


def test_an_embedding_that_is_not_a_number_differs() -> None:
    assert make_golden().embedding_difference(np.full_like(EMBEDDINGS, np.nan)) is not None


def test_embeddings_of_another_width_differ() -> None:
    assert "(2, 4)" in str(make_golden().embedding_difference(np.zeros((2, 4), np.float32)))


@pytest.mark.parametrize(
    ("labels", "scores", "counts", "reason"),
    [
        ([7, 3, 5], [4, 3, 1], [3, 0], r"\[3, 0\] hits"),
        ([7, 3, 5, 9], [4, 3.001, 1, 5], [3, 1], r"query 0: score 1 is 3.001, expected 3"),
        ([7, 3, 5, 9], [4, float("nan"), 1, 5], [3, 1], "score 1 is nan"),
        ([3, 7, 5, 9], [4, 3, 1, 5], [3, 1], "label 3 has the score of another label"),
        ([8, 3, 5, 9], [4, 3, 1, 5], [3, 1], "label 7 is missing"),
    ],
)
def test_other_hits_differ(
    labels: list[int], scores: list[float], counts: list[int], reason: str
) -> None:
    difference = make_golden().hit_difference(make_top(labels, scores, counts))
    assert difference is not None
    assert re.search(reason, difference)


def test_labels_whose_scores_tie_may_change_places() -> None:
    golden = Golden(TextQueries(["x"]), EMBEDDINGS[:1], make_top([4, 2, 1], [3, 3, 1], [3]), 3)
    assert golden.hit_difference(make_top([2, 4, 1], [3, 3, 1], [3])) is None


def test_a_label_that_ties_with_the_last_may_be_pushed_out() -> None:
    golden = make_golden()
    assert golden.hit_difference(make_top([7, 3, 6, 1], [4, 3, 1, 5], [3, 1])) is None


@pytest.mark.parametrize(
    ("labels", "scores", "difference"),
    [
        ([7, 3, 5, 9], [4, 3, 1, 5], None),
        # A better label came, and pushed out the last one.
        ([8, 7, 3, 9], [5, 4, 3, 5], None),
        # Label 3 is missing: one of four hits.
        ([7, 5, 6, 9], [4, 1, 0.5, 5], None),
        ([7, 5, 6, 2], [4, 1, 0.5, 1], "2 of 4 hits are missing, and 25% may be"),
        ([7, 3, 5, 9], [4, 3.5, 1, 5], "query 0: label 3 has the score of another label"),
    ],
)
def test_another_index_may_miss_some_hits_and_no_score_may_change(
    labels: list[int], scores: list[float], difference: str | None
) -> None:
    new = make_top(labels, scores, [3, 1])
    assert make_golden().hit_difference(new, may_miss=0.25) == difference


def test_another_index_may_not_give_fewer_hits() -> None:
    new = make_top([7, 3, 9], [4, 3, 5], [2, 1])
    assert "expected [3, 1]" in str(make_golden().hit_difference(new, may_miss=0.5))
