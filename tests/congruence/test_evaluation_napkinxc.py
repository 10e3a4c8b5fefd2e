"""Our figures against those of napkinXC, over random rankings and hand-picked edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motherlode.trainer.evaluation import DEFAULT_KS, PropensityConfig, evaluate
from tests.support.rankings import rows_of, top_of

napkinxc = pytest.importorskip("napkinxc.metrics", reason="napkinxc has no wheel for this Python")

DEEPEST = max(DEFAULT_KS)


def ours(
    rankings: list[list[int]], true: list[list[int]], train: list[list[int]], num_labels: int, **kw
) -> dict[str, float]:
    """Figures where labels from num_labels up stand for true labels that the table lacks."""
    frequencies = np.bincount(rows_of(train).indices, minlength=num_labels)[:num_labels]
    known = [[i for i in row if i < num_labels] for row in true]
    num_true = np.array([len(row) for row in true])
    return evaluate(
        top_of(rankings), rows_of(known), num_true, frequencies, len(train), **kw
    ).figures


def theirs(
    rankings: list[list[int]],
    true: list[list[int]],
    train: list[list[int]],
    num_labels: int,
    *,
    a: float = 0.55,
    b: float = 1.5,
) -> dict[str, float]:
    """The same from napkinXC; labels that the table lacks are labels without training query."""
    table = np.zeros((len(train), num_labels))
    for row, labels in zip(table, train, strict=True):
        row[labels] = 1
    weights = napkinxc.Jain_et_al_inverse_propensity(table, A=a, B=b)
    values = {
        "P": napkinxc.precision_at_k(true, rankings, k=DEEPEST),
        "nDCG": napkinxc.ndcg_at_k(true, rankings, k=DEEPEST),
        "PSP": napkinxc.psprecision_at_k(true, rankings, weights, k=DEEPEST),
        "PSnDCG": napkinxc.psndcg_at_k(true, rankings, weights, k=DEEPEST),
        "R": napkinxc.recall_at_k(true, rankings, k=DEEPEST),
    }
    return {f"{name}@{k}": 100 * values[name][k - 1] for name in values for k in DEFAULT_KS}


def random_case(seed: int, num_labels: int, num_unknown: int, num_queries: int):
    """Rankings of 0 to 100 hits, half of them holding some of the 0 to 8 true labels."""
    rng = np.random.default_rng(seed)
    in_all = num_labels + num_unknown
    true, rankings = [], []
    for _ in range(num_queries):
        labels = rng.choice(in_all, rng.integers(0, min(9, in_all + 1)), replace=False)
        ranking = rng.permutation(num_labels)[: rng.integers(0, 101)]
        if rng.random() < 0.5:
            found = labels[labels < num_labels][:2]
            ranking = np.concatenate([found, ranking[~np.isin(ranking, found)]])
        true.append(labels.tolist())
        rankings.append(ranking[:100].tolist())
    true[0] = [0]  # propensity scored figures are undefined there without any true label
    train = [
        np.unique((num_labels * rng.random(4) ** 3).astype(int)).tolist()
        for _ in range(int(rng.integers(3, 60)))
    ]
    return rankings, true, train


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_labels=st.integers(1, 300),
    num_unknown=st.integers(0, 20),
    num_queries=st.integers(1, 30),
)
def test_every_figure_of_a_random_ranking_is_napkinxcs(
    seed: int, num_labels: int, num_unknown: int, num_queries: int
) -> None:
    rankings, true, train = random_case(seed, num_labels, num_unknown, num_queries)
    actual = ours(rankings, true, train, num_labels)
    expected = theirs(rankings, true, train, num_labels + num_unknown)
    assert actual == pytest.approx(expected, abs=1e-6, rel=0)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.4), (0.6, 2.6), (1.0, 10.0)])
def test_other_propensity_constants_give_napkinxcs_figures(a: float, b: float) -> None:
    rankings, true, train = random_case(7, 120, 5, 40)
    actual = ours(rankings, true, train, 120, propensity=PropensityConfig(a=a, b=b))
    assert actual == pytest.approx(theirs(rankings, true, train, 125, a=a, b=b), abs=1e-6, rel=0)
    assert actual["PSP@5"] != pytest.approx(ours(rankings, true, train, 120)["PSP@5"], abs=1e-3)


def test_more_queries_than_one_chunk_give_napkinxcs_figures() -> None:
    rankings, true, train = random_case(11, 50, 3, 2500)
    expected = theirs(rankings, true, train, 53)
    assert ours(rankings, true, train, 50) == pytest.approx(expected, abs=1e-6, rel=0)


def test_without_any_true_label_ours_are_zero_where_napkinxcs_are_undefined() -> None:
    actual = ours([[0, 1]], [[]], [[0], [1], [0]], 2)
    assert set(actual.values()) == {0.0}
    with np.errstate(invalid="ignore"):
        assert np.isnan(theirs([[0, 1]], [[]], [[0], [1], [0]], 2)["PSP@1"])
