from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from motherlode.trainer.evaluation import Evaluator, PropensityConfig, evaluate
from motherlode.trainer.hits import inverse_propensities
from tests.support.rankings import rows_of, top_of

FREQUENCIES = np.array([0, 1, 3, 5, 6, 20, 100, 101])


def evaluated(rankings, true, *, lacking=None, frequencies=FREQUENCIES, num_train=500, **kw):
    num_true = np.array([len(row) for row in true]) + np.array(lacking or [0] * len(true))
    return evaluate(top_of(rankings), rows_of(true), num_true, frequencies, num_train, **kw)


def test_a_perfect_ranking_has_one_hundred_per_cent_everywhere() -> None:
    figures = evaluated([[0], [7]], [[0], [7]], ks=(1,)).figures
    assert figures == pytest.approx(dict.fromkeys(figures, 100.0))
    assert sorted(figures) == ["P@1", "PSP@1", "PSnDCG@1", "R@1", "nDCG@1"]


def test_figures_of_one_small_ranking_are_those_worked_out_by_hand() -> None:
    figures = evaluated([[4, 2, 6], [1]], [[2, 6, 7], [0]], ks=(1, 3)).figures
    ndcg = (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2)
    assert figures["P@1"] == 0
    assert figures["P@3"] == pytest.approx(100 * (2 / 3) / 2)
    assert figures["R@3"] == pytest.approx(100 * (2 / 3) / 2)
    assert figures["nDCG@3"] == pytest.approx(100 * ndcg / 2)
    weights = inverse_propensities(FREQUENCIES, 500, 0.55, 1.5)
    best = weights[[2, 6, 7]].sum() + weights[0]
    assert figures["PSP@3"] == pytest.approx(100 * weights[[2, 6]].sum() / best)


def test_fewer_hits_than_k_count_as_misses() -> None:
    figures = evaluated([[3]], [[3, 4]], ks=(5,)).figures
    assert figures["P@5"] == pytest.approx(20)
    assert figures["R@5"] == pytest.approx(50)


def test_a_query_without_hits_counts_as_wrong() -> None:
    assert evaluated([[3], []], [[3], [4]], ks=(1,)).figures["P@1"] == pytest.approx(50)


def test_a_query_without_true_labels_counts_as_zero_and_is_reported() -> None:
    evaluation = evaluated([[3], [4]], [[3], []], ks=(1,))
    assert evaluation.figures["R@1"] == pytest.approx(50)
    assert evaluation.figures["PSP@1"] == pytest.approx(100)
    assert (evaluation.num_queries, evaluation.num_unlabelled) == (2, 1)


def test_true_labels_that_the_table_lacks_lower_recall_but_not_precision() -> None:
    figures = evaluated([[3]], [[3]], lacking=[3], ks=(1,)).figures
    assert figures["P@1"] == pytest.approx(100)
    assert figures["R@1"] == pytest.approx(25)
    assert figures["PSP@1"] < 100


def test_leaving_labels_without_training_query_out_of_the_table_changes_nothing() -> None:
    frequencies = np.array([4, 9, 0, 0])
    with_them = evaluated([[1, 0], [0]], [[1, 2, 3], [3]], frequencies=frequencies)
    without = evaluated([[1, 0], [0]], [[1], []], lacking=[2, 1], frequencies=frequencies[:2])
    assert without.figures == pytest.approx(with_them.figures)
    assert without.buckets[0].num_pairs == with_them.buckets[0].num_pairs == 3
    assert without.buckets[0].num_labels == 0


def test_the_order_of_the_positives_does_not_matter() -> None:
    one = evaluated([[2, 5, 6]], [[2, 6, 5]])
    other = evaluated([[2, 5, 6]], [[6, 5, 2]])
    assert one == other


def test_labels_fall_into_the_bucket_of_their_training_frequency() -> None:
    buckets = evaluated([[0]], [[0]]).buckets
    assert [(b.first, b.last) for b in buckets] == [
        (0, 0),
        (1, 1),
        (2, 5),
        (6, 20),
        (21, 100),
        (101, None),
    ]
    assert [b.num_labels for b in buckets] == [1, 1, 2, 2, 1, 1]


def test_precision_of_the_buckets_adds_up_to_the_whole() -> None:
    rng = np.random.default_rng(3)
    rankings = [rng.permutation(8)[:6].tolist() for _ in range(50)]
    true = [rng.permutation(8)[: rng.integers(0, 5)].tolist() for _ in range(50)]
    evaluation = evaluated(rankings, true)
    assert sum(b.precision for b in evaluation.buckets) == pytest.approx(evaluation.figures["P@5"])
    assert sum(b.num_pairs for b in evaluation.buckets) == sum(map(len, true))


def test_recall_of_a_bucket_counts_its_true_pairs_among_the_first_ten_hits() -> None:
    eleventh = [*range(10, 20), 3]
    buckets = evaluated(
        [[2, 3], eleventh], [[2, 3], [3]], frequencies=np.concatenate([FREQUENCIES, np.ones(12)])
    ).buckets
    assert buckets[2].recall == pytest.approx(200 / 3)
    assert (buckets[2].num_pairs, buckets[2].num_queries) == (3, 2)
    assert buckets[5].recall == 0


def test_buckets_do_not_depend_on_the_depths_asked_for() -> None:
    rankings, true = [[0, 1, 2, 3, 4, 5, 6, 7]], [[7, 3]]
    assert evaluated(rankings, true, ks=(1,)).buckets == evaluated(rankings, true).buckets


def test_batches_added_one_by_one_give_the_figures_of_all_at_once() -> None:
    rankings, true = [[0, 1], [5, 2], [], [7]], [[1], [2, 3], [4], []]
    evaluator = Evaluator(FREQUENCIES, 500)
    for ranking, labels in zip(rankings, true, strict=True):
        evaluator.add(top_of([ranking]), rows_of([labels]), np.array([len(labels)]))
    at_once = evaluated(rankings, true)
    assert evaluator.result().figures == pytest.approx(at_once.figures)
    assert evaluator.result().buckets == at_once.buckets


def test_rarer_labels_weigh_more() -> None:
    weights = inverse_propensities(np.array([0, 1, 10, 1000]), 10_000, 0.55, 1.5)
    assert np.all(np.diff(weights) < 0)
    assert np.all(weights > 1)


@pytest.mark.parametrize("num_train", [0, 1, 2])
def test_hardly_any_training_query_makes_all_labels_weigh_alike(num_train: int) -> None:
    assert inverse_propensities(np.array([0, 1, 2]), num_train, 0.55, 1.5).tolist() == [1, 1, 1]


def test_the_result_is_plain_json_and_names_its_constants() -> None:
    evaluation = evaluated([[0]], [[0]], propensity=PropensityConfig(a=0.6, b=2.6))
    read = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
    assert read["propensity"] == {"a": 0.6, "b": 2.6}
    assert read["figures"]["P@1"] == 100
    assert read["buckets"][5] == {
        "from": 101,
        "to": None,
        "num_labels": 1,
        "num_pairs": 0,
        "num_queries": 0,
        "R@10": 0.0,
        "P@5": 0.0,
    }


@pytest.mark.parametrize("values", [{"a": 0}, {"b": 0}, {"a": math.nan}, {"b": math.inf}, {"c": 1}])
def test_wrong_propensity_constants_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PropensityConfig(**values)


def test_an_evaluation_of_no_query_is_refused() -> None:
    with pytest.raises(ValueError, match="one query or more"):
        evaluated([], [])


@pytest.mark.parametrize("ks", [(), (0, 1)])
def test_depths_below_one_are_refused(ks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ks must be"):
        evaluated([[0]], [[0]], ks=ks)


def test_answers_to_another_number_of_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="of one length, got 1, 2 and 2"):
        evaluated([[0]], [[0], [1]])


def test_fewer_true_labels_than_positives_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be below"):
        evaluated([[0]], [[0, 1]], lacking=[-1])
