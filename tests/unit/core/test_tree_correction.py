from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import DenseQueries
from motherlode.core.rankers import LabelTree, TreeCorrection, TreeCorrectionConfig, Whitening
from motherlode.core.topk import TopK
from tests.support.label_trees import random_tree

RNG = np.random.default_rng(0)
TREE = random_tree(20)
WHITENING = Whitening(RNG.standard_normal((6, 3)).astype(np.float32), np.zeros(3, np.float32))
CORRECTION = TreeCorrection(TreeCorrectionConfig(scale=20.0), WHITENING, TREE)
QUERIES = DenseQueries(RNG.standard_normal((4, 6)).astype(np.float32))
# They have no part in it.
EMBEDDINGS = np.zeros((4, 2), np.float32)


def shortlist() -> TopK:
    counts = np.array([5, 0, 20, 1])
    labels = [np.sort(RNG.permutation(20)[:count]) for count in counts]
    scores = [np.sort(RNG.random(count))[::-1] for count in counts]
    return TopK(np.concatenate(labels), np.concatenate(scores).astype(np.float32), counts)


def test_a_corrected_score_is_scale_times_score_plus_log_prob_best_first() -> None:
    top = shortlist()
    ranked = CORRECTION.rank(top, QUERIES, EMBEDDINGS, 20)
    assert ranked.counts.tolist() == [5, 0, 20, 1]
    projected_BK = WHITENING.transform(QUERIES)
    for row in range(4):
        labels, scores = top.row(row)
        log_probs = TREE.log_prob(projected_BK, np.full(len(labels), row), labels)
        expected = sorted(
            (-(20.0 * score + log_prob), label)
            for label, score, log_prob in zip(
                labels.tolist(), scores.tolist(), log_probs.tolist(), strict=True
            )
        )
        assert ranked.row(row)[0].tolist() == [label for _, label in expected]
        assert (-ranked.row(row)[1]).tolist() == pytest.approx([score for score, _ in expected])


def test_the_best_k_are_kept_where_there_are_so_many() -> None:
    top = shortlist()
    whole, cut = (
        CORRECTION.rank(top, QUERIES, EMBEDDINGS, 20),
        CORRECTION.rank(top, QUERIES, EMBEDDINGS, 3),
    )
    assert cut.counts.tolist() == [3, 0, 3, 1]
    for row in range(4):
        np.testing.assert_array_equal(cut.row(row)[0], whole.row(row)[0][:3])


def test_the_answer_of_a_query_does_not_depend_on_its_batch_mates() -> None:
    top = shortlist()
    together = CORRECTION.rank(top, QUERIES, EMBEDDINGS, 10)
    for row in range(4):
        alone = CORRECTION.rank(
            top.rows(row, row + 1), QUERIES.rows(row, row + 1), EMBEDDINGS[row : row + 1], 10
        )
        np.testing.assert_array_equal(alone.labels, together.row(row)[0])
        np.testing.assert_array_equal(alone.scores, together.row(row)[1])


def test_labels_that_tie_stand_in_order() -> None:
    # Without weights and biases all four labels are equally likely.
    tree = LabelTree(np.zeros((3, 3), "f4"), np.zeros(3, "f4"), np.array([3, 1, 0, 2]))
    correction = TreeCorrection(TreeCorrectionConfig(), WHITENING, tree)
    top = TopK(np.array([3, 1, 0, 2]), np.full(4, 0.5, np.float32), np.array([4]))
    assert correction.rank(top, QUERIES.rows(0, 1), EMBEDDINGS[0:1], 4).labels.tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_no_hits_stay_no_hits() -> None:
    nothing = TopK(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(4, np.int64))
    assert CORRECTION.rank(nothing, QUERIES, EMBEDDINGS, 5).counts.tolist() == [0, 0, 0, 0]


def test_a_hit_that_the_tree_does_not_know_is_refused() -> None:
    top = TopK(np.array([20]), np.ones(1, np.float32), np.array([1]))
    with pytest.raises(InvalidInputError, match=r"labels\[0\]: expected 0 to 19"):
        CORRECTION.rank(top, QUERIES.rows(0, 1), EMBEDDINGS[0:1], 1)


def test_queries_of_other_answers_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="features: expected 4 queries"):
        CORRECTION.rank(shortlist(), QUERIES.rows(0, 3), EMBEDDINGS[0:3], 1)


@pytest.mark.parametrize(("k", "expected"), [(1, 8), (8, 8), (9, 9), (20, 20), (30, 20)])
def test_the_index_is_asked_for_the_shortlist_or_more_but_not_for_more_than_there_is(
    k: int, expected: int
) -> None:
    correction = TreeCorrection(TreeCorrectionConfig(shortlist=8), WHITENING, TREE)
    assert correction.shortlist_for(k) == expected
    assert CORRECTION.shortlist_for(k) == 20


def test_a_tree_over_another_projection_is_refused() -> None:
    tree = random_tree(20, num_components=4)
    with pytest.raises(InvalidInputError, match=r"label_tree.num_components: expected 3.*got 4"):
        TreeCorrection(TreeCorrectionConfig(), WHITENING, tree)


def test_a_saved_correction_gives_the_same_bits(tmp_path: Path) -> None:
    CORRECTION.save(tmp_path)
    loaded = TreeCorrection.load(tmp_path)
    assert loaded.config == CORRECTION.config
    top = shortlist()
    expected, actual = (c.rank(top, QUERIES, EMBEDDINGS, 9) for c in (CORRECTION, loaded))
    np.testing.assert_array_equal(actual.labels, expected.labels)
    np.testing.assert_array_equal(actual.scores, expected.scores)


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("num_features", "whitening.safetensors"),
        ("num_components", "whitening.safetensors"),
        ("num_labels", "label_tree.safetensors"),
        ("unknown", "config.json"),
    ],
)
def test_files_that_do_not_fit_together_are_refused_by_name(
    tmp_path: Path, key: str, file: str
) -> None:
    CORRECTION.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: 7}))
    with pytest.raises(BundleError, match=file):
        TreeCorrection.load(tmp_path)


def test_a_missing_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"config\.json: cannot be read"):
        TreeCorrection.load(tmp_path)
