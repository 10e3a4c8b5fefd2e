"""What a sparse linear ranker computes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import DenseQueries, SparseQueries, concatenate
from motherlode.core.rankers import (
    JOINED,
    HiddenUnits,
    SparseLinear,
    SparseLinearConfig,
    SparseWeights,
    sparse_weights,
)
from motherlode.core.rankers.ranker import CONFIG_FILE
from motherlode.core.rankers.sparse_linear import WEIGHTS_FILE
from motherlode.core.topk import TopK
from tests.support.rankers import (
    JOIN,
    WIDTH,
    dense_weights,
    random_neighbors,
    random_ranker,
    random_sparse,
    random_weights,
)

NUM_FEATURES, NUM_LABELS = 12, 30
WEIGHTS = random_weights(NUM_FEATURES, NUM_LABELS)
FREQUENCIES = np.arange(NUM_LABELS)
NOT_USED = np.zeros((5, 1), np.float32)
RANKER = SparseLinear(SparseLinearConfig(join=JOIN), WEIGHTS, FREQUENCIES)


def dense_queries(queries: SparseQueries) -> Any:
    """float64 [B, F]."""
    dense_BF = np.zeros((len(queries), queries.num_features))
    rows = np.repeat(np.arange(len(queries)), np.diff(queries.indptr))
    dense_BF[rows, queries.indices] = queries.values
    return dense_BF


def expected_margins(queries: SparseQueries) -> Any:
    """float64 [B, L]."""
    return dense_queries(queries) @ dense_weights(WEIGHTS).T + WEIGHTS.biases_L


def everything(num_queries: int) -> TopK:
    """All labels as the shortlist of each query."""
    labels = np.tile(np.arange(NUM_LABELS), num_queries)
    scores = np.random.default_rng(0).random(len(labels)).astype(np.float32)
    return TopK(labels, scores, np.full(num_queries, NUM_LABELS))


def test_margins_are_those_of_a_dense_product() -> None:
    queries = random_sparse(40, NUM_FEATURES)
    margins = RANKER.margins(everything(40), queries).reshape(40, NUM_LABELS)
    np.testing.assert_allclose(margins, expected_margins(queries), atol=1e-6)


def test_long_queries_and_shortlists_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of features may round in another way, blocks of labels may not."""
    queries, top = random_sparse(40, NUM_FEATURES), everything(40)
    whole = RANKER.margins(top, queries)
    monkeypatch.setattr(sparse_weights, "_BLOCK_LABELS", 7)
    np.testing.assert_array_equal(RANKER.margins(top, queries), whole)
    monkeypatch.setattr(sparse_weights, "_BLOCK_FEATURES", 2)
    np.testing.assert_allclose(RANKER.margins(top, queries), whole, atol=1e-6)


def test_a_query_without_features_has_the_biases_as_margins() -> None:
    nothing = SparseQueries(np.zeros(2, np.int64), np.zeros(0, np.int64), np.zeros(0, "f4"), 12)
    margins = RANKER.margins(everything(1), nothing)
    np.testing.assert_array_equal(margins, WEIGHTS.biases_L)


def test_classifiers_without_any_weight_have_the_biases_as_margins() -> None:
    weights = SparseWeights(np.zeros(0, np.int64), np.zeros(0, "f4"), WEIGHTS.biases_L, 12)
    margins = weights.margins(np.array([3]), np.ones(1, np.float32), np.array([5, 2]))
    np.testing.assert_array_equal(margins, WEIGHTS.biases_L[[5, 2]])


def test_the_bits_of_a_margin_do_not_depend_on_the_other_labels() -> None:
    rng, queries = np.random.default_rng(0), random_sparse(20, NUM_FEATURES)
    queries = concatenate([queries, random_sparse(20, NUM_FEATURES, seed=9)])
    assert isinstance(queries, SparseQueries)
    # Nine features and more: numpy adds up a single column of so many pairwise.
    whole = SparseQueries(
        np.array([0, NUM_FEATURES]), np.arange(NUM_FEATURES), rng.random(NUM_FEATURES, "f4"), 12
    )
    queries = concatenate([queries, whole])
    assert isinstance(queries, SparseQueries)
    for i in range(len(queries)):
        one = queries.rows(i, i + 1)
        whole = WEIGHTS.margins(one.indices, one.values, np.arange(NUM_LABELS))
        for size in (1, 2, 7, 29, 30):
            some = rng.permutation(NUM_LABELS)[:size]
            margins = WEIGHTS.margins(one.indices, one.values, some)
            np.testing.assert_array_equal(margins, whole[some])


def test_a_score_is_the_weighted_sum_of_what_is_joined() -> None:
    queries = random_sparse(5, NUM_FEATURES)
    top = everything(5)
    m = expected_margins(queries).ravel()
    s, f = top.scores.astype(np.float64), np.log1p(np.tile(FREQUENCIES, 5))
    terms = [s, m, np.log1p(np.exp(-2 * m)), f, s * m, s * f, m * f]
    assert len(terms) == len(JOINED)
    expected = sum(weight * term for weight, term in zip(JOIN, terms, strict=True))
    check_scores(RANKER.rank(top, queries, NOT_USED[:5], NUM_LABELS), expected)
    ranker = random_ranker("sparse_linear", NUM_FEATURES, NUM_LABELS)
    assert isinstance(ranker, SparseLinear)
    assert ranker.config.join == RANKER.config.join
    f = np.log1p(ranker.frequencies_L[top.labels])
    terms = [s, m, np.log1p(np.exp(-2 * m)), f, s * m, s * f, m * f]
    expected = sum(weight * term for weight, term in zip(JOIN, terms, strict=True))
    t = ranker.texts.shares(top, queries)
    embeddings = np.random.default_rng(1).standard_normal((5, WIDTH)).astype(np.float32)
    assert ranker.neighbors is not None
    n = ranker.neighbors.shares(top, embeddings)
    assert set(t) > {0, 1}
    assert len(set(n)) > 10
    hidden = ranker.config.hidden
    assert hidden is not None
    units = np.array(hidden.inner) @ [s, m, f, t, n] + np.array(hidden.biases)[:, None]
    expected += np.array(hidden.outer) @ (units / (1 + abs(units)))
    check_scores(ranker.rank(top, queries, embeddings, NUM_LABELS), expected)


def check_scores(ranked: TopK, expected: Any) -> None:
    """Of all labels, query by query."""
    for row in range(len(ranked)):
        labels, scores = ranked.row(row)
        np.testing.assert_allclose(
            scores, expected.reshape(len(ranked), -1)[row, labels], rtol=1e-5, atol=1e-6
        )


def test_dense_features_are_refused() -> None:
    queries = DenseQueries(np.ones((1, NUM_FEATURES), np.float32))
    with pytest.raises(InvalidInputError, match="features: expected 12 sparse features"):
        RANKER.rank(everything(1), queries, NOT_USED[:1], 1)


def test_frequencies_of_other_labels_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"frequencies: expected 30, .*, got 29"):
        SparseLinear(RANKER.config, WEIGHTS, FREQUENCIES[:-1])


@pytest.mark.parametrize("join", [JOIN[:-1], (*JOIN, 1.0), (float("nan"), *JOIN[1:])])
def test_a_join_of_other_terms_is_refused(join: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="join"):
        SparseLinearConfig(join=join)


def test_hidden_units_of_other_inputs_are_refused() -> None:
    hidden = HiddenUnits(inner=((1.0,) * 5,), biases=(0.0,), outer=(1.0,))
    with pytest.raises(ValidationError, match="inner: expected 4 weights of each unit, got 5"):
        SparseLinearConfig(join=JOIN, hidden=hidden)


def test_neighbours_are_those_of_the_configuration_and_of_as_many_labels() -> None:
    neighbors = random_neighbors(NUM_LABELS, WIDTH)
    config = RANKER.config.model_copy(update={"neighbors": neighbors.config})
    for wrong in (None, random_neighbors(NUM_LABELS, WIDTH).with_labels(1)):
        with pytest.raises(InvalidInputError, match="neighbors: expected"):
            SparseLinear(config, WEIGHTS, FREQUENCIES, None, wrong)
    with pytest.raises(InvalidInputError, match="neighbors: expected None"):
        SparseLinear(RANKER.config, WEIGHTS, FREQUENCIES, None, neighbors)
    ranker = SparseLinear(config, WEIGHTS, FREQUENCIES, None, neighbors)
    assert ranker.with_config(RANKER.config).neighbors is None


def test_a_join_without_hidden_units_is_saved_as_it_was_before_there_were_any(
    tmp_path: Path,
) -> None:
    """So that readers of bundles of format version 3 take it."""
    RANKER.save(tmp_path)
    document = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert set(document["config"]) == {"kind", "shortlist", "join"}
    arrays = SparseWeights.load(tmp_path / WEIGHTS_FILE, NUM_FEATURES)[1]
    assert set(arrays) == {"keys", "values", "biases", "frequencies"}


ARRAYS = {
    "keys_W": np.array([1, 4, 7]),
    "values_W": np.array([1, 2, 3], np.float32),
    "biases_L": np.array([1, 2], np.float32),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys_W": np.array([1, 4, 8])}, r"keys: expected 0 to 7, ascending, got \[1, 8\]"),
        ({"keys_W": np.array([-1, 4, 7])}, "keys: expected 0 to 7"),
        ({"keys_W": np.array([7, 4, 1])}, "keys: expected 0 to 7, ascending"),
        ({"keys_W": np.array([1, 4])}, "values: expected 2, one of each key, got 3"),
        ({"keys_W": np.array([1, 4, 7], np.int32)}, "keys: expected a row of int64"),
        ({"values_W": np.array([1, 2, 3.0])}, "values: expected a row of float32"),
        ({"biases_L": np.ones((2, 1), np.float32)}, "biases: expected a row of float32"),
    ],
)
def test_arrays_that_are_no_classifiers_are_refused(change: dict[str, Any], message: str) -> None:
    SparseWeights(**ARRAYS, num_features=4)
    with pytest.raises(InvalidInputError, match=message):
        SparseWeights(**(ARRAYS | change), num_features=4)


def test_loaded_weights_are_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    WEIGHTS.save(tmp_path / "w.safetensors", {"other": FREQUENCIES})
    loaded, arrays = SparseWeights.load(tmp_path / "w.safetensors", NUM_FEATURES)
    np.testing.assert_array_equal(arrays["other"], FREQUENCIES)
    for name in ("keys_W", "values_W", "biases_L"):
        array = getattr(loaded, name)
        np.testing.assert_array_equal(array, getattr(WEIGHTS, name))
        assert not array.flags.writeable
    with pytest.raises(BundleError, match=r"w\.safetensors: no sparse linear classifiers"):
        SparseWeights.load(tmp_path / "w.safetensors", NUM_FEATURES - 1)


@pytest.mark.parametrize("block", [1, 2, 1000])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys_W": np.array([1, 1, 7])}, "keys: expected them to ascend"),
        ({"keys_W": np.array([1, 6, 4])}, "keys: expected them to ascend"),
        ({"values_W": np.array([1, 2, np.inf], np.float32)}, "values: one is not finite"),
        ({"biases_L": np.array([np.nan, 2], np.float32)}, "biases: one is not finite"),
    ],
)
def test_a_file_that_could_not_be_looked_up_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    message: str,
    block: int,
) -> None:
    monkeypatch.setattr(sparse_weights, "_BLOCK_WEIGHTS", block)
    path = tmp_path / "w.safetensors"
    SparseWeights(**ARRAYS, num_features=4).save(path, {})
    SparseWeights.load(path, 4)
    SparseWeights(**(ARRAYS | change), num_features=4).save(path, {})
    with pytest.raises(BundleError, match=rf"w\.safetensors: {message}"):
        SparseWeights.load(path, 4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(NUM_LABELS) - 1, "frequencies: one is below 0"),
        (np.ones(NUM_LABELS, np.float32), "frequencies: expected a row of int64"),
        (np.ones((NUM_LABELS, 1), np.int64), "frequencies: expected a row of int64"),
        (np.ones(NUM_LABELS - 1, np.int64), "frequencies: expected 30, .*, got 29"),
    ],
)
def test_frequencies_that_are_none_are_refused(tmp_path: Path, array: Any, message: str) -> None:
    RANKER.save(tmp_path)
    RANKER.weights.save(tmp_path / WEIGHTS_FILE, {"frequencies": array})
    with pytest.raises(BundleError, match=rf"weights\.safetensors: .*{message}"):
        SparseLinear.load(tmp_path)
