"""The fit of what a ranker joins."""

from __future__ import annotations

import numpy as np
import pytest

from motherlode.trainer.joining import fit_join


def test_the_input_that_says_what_is_true_gets_the_weight() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(2, 9, 200)
    inputs = rng.standard_normal((3, counts.sum())).astype(np.float32)
    is_true = inputs[1] + 0.3 * rng.standard_normal(counts.sum()) > 0.8
    join = fit_join(inputs, is_true, counts)
    assert join is not None
    assert join[1] > 10 * max(abs(join[0]), abs(join[2]))


def test_it_is_the_least_of_its_loss() -> None:
    """Any step away from it in a coordinate is worse, by the definition written out."""
    rng = np.random.default_rng(1)
    counts = np.array([4, 3, 5, 2])
    inputs = rng.standard_normal((2, 14)).astype(np.float32)
    is_true = np.array([1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0], np.bool_)

    def loss(join: np.ndarray) -> float:
        scores = (join * inputs.T.astype(np.float64)).sum(axis=1)
        losses, start = [], 0
        for count in counts:
            s, t = scores[start : start + count], is_true[start : start + count]
            start += count
            if t.any() and not t.all():
                wrong = np.log(np.exp(s[~t]).sum())
                losses.append(np.mean([np.log1p(np.exp(wrong - positive)) for positive in s[t]]))
        spread = inputs.std(axis=1, dtype=np.float64)
        return float(np.mean(losses) + 1e-3 * ((join * spread) ** 2).sum())

    join = fit_join(inputs, is_true, counts)
    assert join is not None
    for step in (1e-2, -1e-2):
        for axis in np.eye(2):
            assert loss(join + step * axis) > loss(join)


def test_what_is_the_same_for_all_hits_of_a_query_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    counts = np.full(50, 6)
    inputs = rng.standard_normal((2, 300)).astype(np.float32)
    is_true = rng.random(300) < 0.3
    shifted = inputs + np.float32(5.0)
    first, second = (fit_join(x, is_true, counts) for x in (inputs, shifted))
    assert first is not None
    assert second == pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize(
    ("is_true", "counts"), [([], []), ([], [0, 0]), ([True, True], [2]), ([False, False], [1, 1])]
)
def test_where_nothing_is_to_be_told_apart_there_is_no_join(
    is_true: list[bool], counts: list[int]
) -> None:
    inputs = np.ones((2, len(is_true)), np.float32)
    assert fit_join(inputs, np.array(is_true, np.bool_), np.array(counts, np.int64)) is None
