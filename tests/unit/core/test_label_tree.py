from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.rankers import PADDING_BIAS, LabelTree
from tests.support.label_trees import chi_square_over_bound, enumerated, random_tree

SIZES = [1, 2, 3, 5, 8, 1000]


def queries(count: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    return 2 * np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


def all_pairs(num_queries: int, num_labels: int) -> tuple[Any, Any]:
    rows, labels = np.divmod(np.arange(num_queries * num_labels), num_labels)
    return rows, labels


@pytest.mark.parametrize("num_labels", SIZES)
def test_a_tree_has_the_smallest_depth_that_holds_its_labels(num_labels: int) -> None:
    tree = random_tree(num_labels)
    assert tree.num_labels == num_labels
    assert tree.depth == math.ceil(math.log2(num_labels))
    assert len(tree.labels_E) == 2**tree.depth
    assert len(tree.biases_V) == 2**tree.depth - 1


@pytest.mark.parametrize("num_labels", SIZES)
def test_the_probabilities_of_all_labels_sum_to_one_for_any_query(num_labels: int) -> None:
    tree = random_tree(num_labels)
    log_probs = tree.log_prob(queries(5), *all_pairs(5, num_labels))
    sums_B = np.exp(log_probs.astype(float)).reshape(5, num_labels).sum(axis=1)
    assert sums_B.tolist() == pytest.approx([1.0] * 5, rel=1e-5)


@pytest.mark.parametrize("num_labels", SIZES)
def test_log_prob_is_what_walking_the_tree_gives(num_labels: int) -> None:
    tree = random_tree(num_labels)
    asked_BK = queries(3)
    log_probs = tree.log_prob(asked_BK, *all_pairs(3, num_labels)).reshape(3, num_labels)
    for row in range(3):
        expected_L = np.log(enumerated(tree, asked_BK[row]))
        np.testing.assert_allclose(log_probs[row], expected_L, rtol=1e-4, atol=1e-5)


def test_the_log_probability_of_a_pair_by_hand() -> None:
    weights_VK = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], np.float32)
    biases_V = np.array([0.5, 0.0, -PADDING_BIAS], np.float32)
    tree = LabelTree(weights_VK, biases_V, np.array([2, 0, 1, -1]))
    asked_BK = np.array([[1.0, -1.0]], np.float32)
    log_probs = tree.log_prob(asked_BK, np.zeros(3, np.int64), np.array([0, 1, 2]))
    right = 1 / (1 + math.exp(-1.5))
    inner = 1 / (1 + math.exp(2.0))
    expected = [(1 - right) * inner, right, (1 - right) * (1 - inner)]
    assert np.exp(log_probs).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("num_labels", [2, 3, 13])
def test_samples_follow_the_tree(num_labels: int) -> None:
    tree = random_tree(num_labels)
    asked_BK = queries(2)
    num_draws = 20_000
    labels_BS, _ = tree.sample(asked_BK, num_draws, np.random.default_rng(7))
    for row in range(2):
        counts_L = np.bincount(labels_BS[row], minlength=num_labels)
        assert chi_square_over_bound(counts_L, enumerated(tree, asked_BK[row])) < 1


@pytest.mark.parametrize("num_labels", SIZES)
def test_samples_come_with_the_bits_of_log_prob_and_are_never_padding(num_labels: int) -> None:
    tree = random_tree(num_labels)
    labels_BS, log_probs_BS = tree.sample(queries(40), 50, np.random.default_rng(0))
    assert labels_BS.shape == log_probs_BS.shape == (40, 50)
    assert labels_BS.min() >= 0
    assert labels_BS.max() < num_labels
    rows = np.repeat(np.arange(40), 50)
    again = tree.log_prob(queries(40), rows, labels_BS.ravel())
    np.testing.assert_array_equal(log_probs_BS.ravel(), again)


def test_the_same_generator_state_gives_the_same_samples() -> None:
    tree = random_tree(100)
    draws = [tree.sample(queries(9), 4, np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(draws[0][0], draws[1][0])
    np.testing.assert_array_equal(draws[0][1], draws[1][1])


def test_a_pair_has_the_same_bits_alone_and_among_others() -> None:
    tree = random_tree(1000)
    asked_BK = queries(37)
    rows_P, labels_P = all_pairs(37, 1000)
    together = tree.log_prob(asked_BK, rows_P, labels_P).reshape(37, 1000)
    for row in range(0, 37, 6):
        for labels in (np.arange(1000), np.array([0]), np.array([999, 5, 17])):
            rows = np.zeros(len(labels), np.int64)
            alone = tree.log_prob(asked_BK[row : row + 1], rows, labels)
            np.testing.assert_array_equal(alone, together[row, labels])


def test_extreme_queries_have_finite_log_probabilities() -> None:
    tree = random_tree(13)
    far_BK = np.array([[1e9, -1e9, 1e9]], np.float32)
    log_probs = tree.log_prob(far_BK, *all_pairs(1, 13))
    assert np.isfinite(log_probs).all()
    assert np.exp(log_probs).sum() == pytest.approx(1.0)


def test_no_pairs_and_no_queries_give_nothing() -> None:
    tree = random_tree(5)
    nothing = np.zeros(0, np.int64)
    assert tree.log_prob(queries(2), nothing, nothing).shape == (0,)
    assert tree.sample(queries(0), 3, np.random.default_rng(0))[0].shape == (0, 3)


@pytest.mark.parametrize("label", [-1, 5, 8])
def test_a_label_that_the_tree_does_not_know_is_refused_by_name(label: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"labels\[1\]: expected 0 to 4.*got {label}"):
        random_tree(5).log_prob(queries(1), np.zeros(2, np.int64), np.array([0, label]))


def test_a_query_of_another_width_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"projected.shape: expected \[queries, 3\]"):
        random_tree(5).sample(np.zeros((2, 4), np.float32), 1, np.random.default_rng(0))


@pytest.mark.parametrize("num_labels", SIZES)
def test_a_saved_tree_loads_as_it_was(tmp_path: Path, num_labels: int) -> None:
    tree = random_tree(num_labels)
    tree.save(tmp_path / "tree.safetensors")
    loaded = LabelTree.load(tmp_path / "tree.safetensors")
    for name in ("weights_VK", "biases_V", "labels_E"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(tree, name))


CHANGES: dict[str, dict[str, Any]] = {
    "no biases": {"biases": None},
    "weights of another tree": {"weights": np.zeros((3, 3), np.float32)},
    "biases of another tree": {"biases": np.zeros(3, np.float32)},
    "float64 weights": {"weights": np.zeros((7, 3))},
    "a weight that is not finite": {"weights": np.full((7, 3), np.nan, np.float32)},
    "a label twice": {"labels": np.array([0, 1, 2, -1, 3, -1, 3, -1])},
    "a label too large": {"labels": np.array([0, 1, 2, -1, 3, -1, 9, -1])},
    "seven leaves": {"labels": np.array([0, 1, 2, -1, 3, -1, 4])},
    "too much padding": {"labels": np.array([0, 1, 2, -1, 3, -1, -1, -1])},
    "padding that can be drawn": {"biases": np.zeros(7, np.float32)},
    "padding that is always drawn": {"biases": np.full(7, PADDING_BIAS, np.float32)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_tree_is_refused_by_file(tmp_path: Path, change: str) -> None:
    path = tmp_path / "tree.safetensors"
    random_tree(5).save(path)
    arrays = load_file(path) | CHANGES[change]
    save_file({name: array for name, array in arrays.items() if array is not None}, path)
    with pytest.raises(BundleError, match=r"tree\.safetensors: not a label tree"):
        LabelTree.load(path)


def test_a_file_that_is_missing_or_no_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none"):
        LabelTree.load(tmp_path / "none")
    (tmp_path / "text").write_text("no tree")
    with pytest.raises(BundleError, match="text: not a label tree"):
        LabelTree.load(tmp_path / "text")
