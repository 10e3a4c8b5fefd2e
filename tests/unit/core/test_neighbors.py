"""What the labels of a query's neighbours say of its hits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.index import HnswConfig, build_index
from motherlode.core.queries import FloatArray
from motherlode.core.rankers import Neighbors, NeighborsConfig
from motherlode.core.rankers.neighbors import NEIGHBORS_FILE
from motherlode.core.topk import TopK
from tests.support.rankers import WIDTH

NUM_LABELS, NUM_TRAINED, COUNT = 30, 50, 7
RNG = np.random.default_rng(0)
TRAINED_TD = (3 * RNG.standard_normal((NUM_TRAINED, WIDTH))).astype(np.float32)
# The first has no label, and no direction either.
TRAINED_TD[0] = 0
ROWS = [RNG.choice(NUM_LABELS, i % 6, replace=False) for i in range(NUM_TRAINED)]
OFFSETS = np.cumsum([0, *map(len, ROWS)])
# Ascending to who subtracts and lets the differences overflow.
WRAPPING = np.full_like(OFFSETS, OFFSETS[-1])
WRAPPING[:4] = 0, 2**62, -(2**63), -(2**62)
NEIGHBORS = Neighbors.build(
    NeighborsConfig(count=COUNT), TRAINED_TD, OFFSETS, np.concatenate(ROWS), NUM_LABELS, seed=0
)
QUERIES_BD = RNG.standard_normal((4, WIDTH)).astype(np.float32)
COUNTS = [3, 0, 30, 1]


def some_hits(counts: list[int] = COUNTS) -> TopK:
    rng = np.random.default_rng(3)
    labels = np.concatenate([rng.permutation(NUM_LABELS)[:count] for count in counts])
    return TopK(labels, np.zeros(len(labels), np.float32), np.array(counts))


def expected_shares(query_D: FloatArray, count: int = COUNT) -> Any:
    """float64 [L], from the definition."""
    lengths = np.linalg.norm(TRAINED_TD, axis=1)
    cosines = TRAINED_TD @ query_D / np.maximum(lengths, 1e-9) / np.linalg.norm(query_D)
    votes_L, total = np.zeros(NUM_LABELS), 0.0
    for row in np.argsort(-cosines)[:count]:
        weight = max(cosines[row], 0) ** 8
        total += weight
        votes_L[ROWS[row]] += weight
    return votes_L / total


def test_a_share_is_what_neighbours_with_the_label_count_of_all() -> None:
    top = some_hits()
    shares = NEIGHBORS.shares(top, QUERIES_BD)
    rows = np.repeat(np.arange(len(COUNTS)), COUNTS)
    expected = [
        expected_shares(QUERIES_BD[i])[label] for i, label in zip(rows, top.labels, strict=True)
    ]
    assert shares.dtype == np.float32
    assert len(set(shares.tolist())) > 10
    np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_more_neighbours_than_there_are_training_queries_are_all_of_them() -> None:
    config = NeighborsConfig(count=1000)
    neighbors = Neighbors.build(
        config, TRAINED_TD, OFFSETS, np.concatenate(ROWS), NUM_LABELS, seed=0
    )
    shares = neighbors.shares(some_hits([30]), QUERIES_BD[:1])
    expected = expected_shares(QUERIES_BD[0], NUM_TRAINED)[some_hits([30]).labels]
    np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_the_length_of_a_query_does_not_matter() -> None:
    expected = NEIGHBORS.shares(some_hits(), QUERIES_BD)
    for factor in (1e-10, 1e10):
        shares = NEIGHBORS.shares(some_hits(), np.float32(factor) * QUERIES_BD)
        np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_a_query_without_a_direction_has_no_neighbours() -> None:
    shares = NEIGHBORS.shares(some_hits([30]), np.zeros((1, WIDTH), np.float32))
    assert not shares.any()


def test_the_bits_of_a_share_depend_on_the_query_and_its_label_alone() -> None:
    whole = TopK(np.tile(np.arange(NUM_LABELS), 4), np.zeros(120, "f4"), np.full(4, NUM_LABELS))
    expected_BL = NEIGHBORS.shares(whole, QUERIES_BD).reshape(4, NUM_LABELS)
    assert expected_BL.any(axis=1).all()
    for i in range(4):
        for label in range(NUM_LABELS):
            one = TopK(np.array([label]), np.zeros(1, np.float32), np.array([1]))
            share = NEIGHBORS.shares(one, QUERIES_BD[i : i + 1])
            assert share.tolist() == [expected_BL[i, label]]


def test_new_labels_have_no_share() -> None:
    more = NEIGHBORS.with_labels(5)
    labels = np.arange(NUM_LABELS + 5)
    top = TopK(labels, np.zeros(len(labels), np.float32), np.array([len(labels)]))
    shares = more.shares(top, QUERIES_BD[:1])
    assert not shares[NUM_LABELS:].any()
    np.testing.assert_allclose(shares[:NUM_LABELS], expected_shares(QUERIES_BD[0]), atol=1e-6)


def test_it_counts_embeddings_and_labels_as_memory() -> None:
    assert NEIGHBORS.nbytes > TRAINED_TD.nbytes + 8 * (NUM_TRAINED + 1) + 4 * OFFSETS[-1]


def test_embeddings_that_are_longer_than_1_are_refused() -> None:
    index = build_index(HnswConfig(), TRAINED_TD, seed=0)
    labels = np.concatenate(ROWS).astype(np.int32)
    with pytest.raises(InvalidInputError, match="embeddings: expected rows of length 1 or 0"):
        Neighbors(NEIGHBORS.config, index, OFFSETS, labels, NUM_LABELS)


@pytest.mark.parametrize("count", [0, 1001])
def test_too_few_or_many_neighbours_are_refused(count: int) -> None:
    with pytest.raises(ValidationError, match="count"):
        NeighborsConfig(count=count)


def test_rows_that_are_not_as_many_as_embeddings_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"offsets: expected 50, .*got 49"):
        Neighbors.build(
            NEIGHBORS.config, TRAINED_TD, OFFSETS[:-1], np.concatenate(ROWS[:-1]), 30, seed=0
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "'labels'"),
        ({"embeddings": TRAINED_TD[:, :3]}, "width is 6, expected 3"),
        ({"embeddings": TRAINED_TD[0]}, r"expected float32 \[labels, width\]"),
        ({"labels": np.full(OFFSETS[-1], 30, np.int32)}, "labels: expected 0 to 29"),
        ({"labels": np.full(OFFSETS[-1], 1.0, np.float32)}, "labels: expected a row of int32"),
        ({"offsets": OFFSETS[::-1].copy()}, "offsets: expected 0 to .*, ascending"),
        ({"embeddings": 2 * TRAINED_TD}, "other label embeddings"),
        ({"offsets": WRAPPING}, "offsets: expected 0 to .*, ascending"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    NEIGHBORS.save(tmp_path)
    labels = np.concatenate(ROWS).astype(np.int32)
    lengths = np.maximum(np.linalg.norm(TRAINED_TD, axis=1), 1e-9)[:, None]
    arrays = {"embeddings": TRAINED_TD / lengths, "offsets": OFFSETS, "labels": labels, **change}
    kept = {name: array for name, array in arrays.items() if array is not None}
    save_file(
        {name: np.ascontiguousarray(array) for name, array in kept.items()},
        tmp_path / NEIGHBORS_FILE,
    )
    with pytest.raises(BundleError, match=message):
        Neighbors.load(NEIGHBORS.config, tmp_path, NUM_LABELS)
