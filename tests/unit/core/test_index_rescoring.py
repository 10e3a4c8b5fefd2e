from __future__ import annotations

import numpy as np
import pytest

from motherlode.core.index import rescoring
from motherlode.core.index.rescoring import (
    best_by_scan,
    best_of,
    disagreement,
    largest_norm,
    rescore,
)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("width", [1, 3, 16, 33, 256, 257])
@pytest.mark.parametrize("block_floats", [1, 100, 5000, 1 << 19])
def test_the_bits_of_a_score_depend_on_its_pair_alone(monkeypatch, width, block_floats):
    labels_LD, queries_BD = draw(50, width), draw(9, width, seed=1)
    rows_BC = np.random.default_rng(2).integers(50, size=(9, 13))
    monkeypatch.setattr(rescoring, "_BLOCK_FLOATS", block_floats)
    scores_BC = rescore(queries_BD, labels_LD, rows_BC)
    for i in range(9):
        for j in range(13):
            alone = np.vecdot(labels_LD[rows_BC[i, j]], queries_BD[i])
            assert scores_BC[i, j].tobytes() == alone.tobytes()


def test_scores_are_close_to_those_in_double_precision():
    labels_LD, queries_BD = draw(40, 64), draw(5, 64, seed=1)
    rows_BC = np.tile(np.arange(40), (5, 1))
    exact_BC = queries_BD.astype(np.float64) @ labels_LD.T.astype(np.float64)
    error_BC = np.abs(rescore(queries_BD, labels_LD, rows_BC) - exact_BC)
    assert (error_BC <= disagreement(queries_BD, largest_norm(labels_LD))[:, None] / 2).all()


def test_a_missing_candidate_scores_below_everything():
    scores_BC = rescore(draw(2, 4), draw(5, 4), np.array([[3, -1], [-1, -1]]))
    assert np.isneginf(scores_BC).tolist() == [[False, True], [True, True]]


def test_no_queries_have_no_scores():
    scores_BC = rescore(draw(0, 4), draw(5, 4), np.empty((0, 3), np.int64))
    assert scores_BC.shape == (0, 3)


def test_the_best_candidates_come_first_and_ties_by_row():
    rows_BC = np.array([[9, 2, 5, 7], [1, 8, 3, 0]])
    scores_BC = np.array([[1, 2, 2, 3], [4, 4, 4, -np.inf]], np.float32)
    rows_BK, scores_BK = best_of(rows_BC, scores_BC, 3)
    assert rows_BK.tolist() == [[7, 2, 5], [1, 3, 8]]
    assert scores_BK.tolist() == [[3, 2, 2], [4, 4, 4]]


def test_a_scan_gives_what_scoring_every_label_gives():
    labels_LD, query_D = draw(200, 8), draw(8, seed=1)
    scores_L = rescore(query_D[None], labels_LD, np.arange(200)[None])[0]
    order = np.argsort(-scores_L, kind="stable")
    for count in (1, 7, 199, 200):
        rows, scores = best_by_scan(query_D, labels_LD, None, count)
        assert rows.tolist() == order[:count].tolist()
        assert scores.tobytes() == scores_L[order[:count]].tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_largest_norm_shows_values_that_are_no_numbers(bad):
    labels_LD = draw(30_000, 32)
    expected = np.linalg.norm(labels_LD.astype(np.float64), axis=1).max()
    assert largest_norm(labels_LD) == pytest.approx(expected, rel=1e-5)
    labels_LD[20_000, 3] = bad
    assert not np.isfinite(largest_norm(labels_LD))


@pytest.mark.parametrize("value", [3e38, 1e-30, 1e-40, 0.0])
def test_the_largest_norm_is_right_where_squares_have_no_place_in_a_float32(value):
    labels_LD = np.full((2, 4), value, np.float32)
    assert largest_norm(labels_LD) == pytest.approx(2 * value, rel=1e-5, abs=0)
