"""The fit of what a ranker joins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from motherlode.core.queries import FloatArray
from motherlode.trainer import joining
from motherlode.trainer.joining import Join, fit_join

NUM_TERMS, NUM_INPUTS = 3, 2


def scores_of(join: Join, terms: Any, inputs: Any) -> Any:
    return np.array(join.weights) @ terms + join.hidden.scores(inputs)


def random_hits(seed: int, num_queries: int = 300) -> tuple[FloatArray, FloatArray, Any]:
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 9, num_queries)
    terms, inputs = (
        rng.standard_normal((size, counts.sum())).astype(np.float32)
        for size in (NUM_TERMS, NUM_INPUTS)
    )
    return terms, inputs, counts


def share_won(scores: Any, is_true: Any, counts: Any) -> float:
    """Of all pairs of a true and a wrong hit of one query, those where the true one is above."""
    pairs = won = 0
    for s, t in zip(*(np.split(x, np.cumsum(counts)[:-1]) for x in (scores, is_true)), strict=True):
        pairs += t.sum() * (~t).sum()
        won += (s[t][:, None] > s[~t]).sum()
    return float(won / pairs)


def test_the_term_that_says_what_is_true_gets_the_weight() -> None:
    terms, inputs, counts = random_hits(0)
    noise = np.random.default_rng(9).standard_normal(counts.sum())
    join = fit_join(terms, inputs, terms[1] + 0.3 * noise > 0.8, counts, seed=0)
    assert join is not None
    assert join.weights[1] > 5 * max(abs(join.weights[0]), abs(join.weights[2]))


def test_hidden_units_learn_what_no_sum_of_terms_can_say() -> None:
    """True is what two inputs agree on; measured on hits that the fit has not seen."""
    terms, inputs, counts = random_hits(1, 1000)
    join = fit_join(terms, inputs, inputs[0] * inputs[1] > 0.5, counts, seed=0)
    assert join is not None
    terms, inputs, counts = random_hits(2)
    is_true = inputs[0] * inputs[1] > 0.5
    assert share_won(scores_of(join, terms, inputs), is_true, counts) > 0.9
    assert share_won(np.array(join.weights) @ terms, is_true, counts) < 0.6


def test_the_loss_is_that_of_its_definition() -> None:
    counts = np.array([4, 3, 5, 2])
    rng = np.random.default_rng(1)
    is_true = np.array([1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0], np.bool_)
    scores = rng.standard_normal(14).astype(np.float32)
    losses, start = [], 0
    for count in counts[:3]:
        s, t = scores[start : start + count], is_true[start : start + count]
        start += count
        wrong = np.log(np.exp(s[~t]).sum())
        losses.append(np.mean([np.log1p(np.exp(wrong - positive)) for positive in s[t]]))
    is_hit = np.arange(5) < counts[:3, None]
    placed = np.zeros((3, 5), np.float32)
    placed[is_hit] = scores[:12]
    is_true_BC = np.zeros((3, 5), np.bool_)
    is_true_BC[is_hit] = is_true[:12]
    truth = joining._Truth(*map(torch.from_numpy, (is_true_BC, is_hit & ~is_true_BC)))
    loss = joining._loss(torch.from_numpy(placed), truth)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)


def test_what_is_the_same_for_all_hits_gets_no_weight() -> None:
    """Else it would count where it is not the same."""
    terms, inputs, counts = random_hits(3)
    terms[0], inputs[0] = 0.1, 7.3
    join = fit_join(terms, inputs, terms[1] > 0.5, counts, seed=0)
    assert join is not None
    assert join.weights[0] == 0
    assert all(weights[0] == 0 for weights in join.hidden.inner)


def test_where_all_inputs_are_moved_nothing_changes() -> None:
    terms, inputs, counts = random_hits(4)
    is_true = terms[1] + inputs[0] > 0.8
    first = fit_join(terms, inputs, is_true, counts, seed=0)
    moved = fit_join(4 * terms + 5, 2 * inputs - 3, is_true, counts, seed=0)
    assert first is not None
    assert moved is not None
    expected = scores_of(first, terms, inputs)
    actual = scores_of(moved, 4 * terms, 2 * inputs - 3)
    np.testing.assert_allclose(actual, expected, atol=0.05)


def test_the_same_seed_gives_the_same_join() -> None:
    terms, inputs, counts = random_hits(5)
    joins = [fit_join(terms, inputs, terms[1] > 0.5, counts, seed=seed) for seed in (1, 1, 2)]
    assert joins[0] == joins[1] != joins[2]


@pytest.mark.parametrize(
    ("is_true", "counts"), [([], []), ([], [0, 0]), ([True, True], [2]), ([False, False], [1, 1])]
)
def test_where_nothing_is_to_be_told_apart_there_is_no_join(
    is_true: list[bool], counts: list[int]
) -> None:
    terms, inputs = (np.ones((size, len(is_true)), np.float32) for size in (NUM_TERMS, NUM_INPUTS))
    truth = np.array(is_true, np.bool_), np.array(counts, np.int64)
    assert fit_join(terms, inputs, *truth, seed=0) is None
