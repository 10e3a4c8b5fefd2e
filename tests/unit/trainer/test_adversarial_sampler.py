"""What the sampler promises beside the contract of all samplers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import DenseQueries
from motherlode.core.rankers import Whitening
from motherlode.trainer.negatives import Batch, Negatives
from motherlode.trainer.negatives.adversarial import AdversarialSampler
from tests.support.embeddings import TableLabels
from tests.support.label_trees import chi_square_over_bound, enumerated, random_tree

NUM_LABELS = 50
TREE = random_tree(NUM_LABELS)
WHITENING = Whitening(
    np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), np.ones(3, np.float32)
)
POSITIVES = [[3, 7], [0, 49], [], list(range(30))]
BATCH = Batch(
    DenseQueries(np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)),
    torch.tensor([label for labels in POSITIVES for label in labels]),
    torch.tensor([row for row, labels in enumerate(POSITIVES) for _ in labels]),
)


def drawn(num_draws: int, seed: int = 0) -> Negatives:
    sampler = AdversarialSampler(WHITENING, TREE, num_draws, NUM_LABELS)
    generator = torch.Generator().manual_seed(seed)
    return sampler.sample(
        BATCH, torch.zeros(4, 2), TableLabels(torch.zeros(NUM_LABELS, 2)), generator
    )


def labels_of(negatives: Negatives) -> torch.Tensor:
    assert negatives.places_BK is not None
    return negatives.labels_N[negatives.places_BK]


def expected_BL() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    projected_BK = WHITENING.transform(BATCH.features)
    return np.stack([enumerated(TREE, query_K) for query_K in projected_BK])


@pytest.mark.parametrize("num_draws", [1, 20, 400])
def test_shapes_and_order(num_draws: int) -> None:
    negatives = drawn(num_draws)
    assert labels_of(negatives).shape == negatives.mask_BK.shape == (4, num_draws)
    labels = negatives.labels_N.tolist()
    assert labels == sorted(set(labels))
    assert sorted(set(labels_of(negatives).flatten().tolist())) == labels
    assert 0 <= labels[0] <= labels[-1] < NUM_LABELS
    assert negatives.keep is None


def test_positives_are_masked_and_nothing_else() -> None:
    negatives = drawn(400)
    labels_BK = labels_of(negatives)
    masked = 0
    for row, positives in enumerate(POSITIVES):
        is_positive_K = torch.isin(labels_BK[row], torch.tensor(positives, dtype=torch.int64))
        assert negatives.mask_BK[row].equal(~is_positive_K)
        masked += int(is_positive_K.sum())
    assert masked > 0


def test_log_q_is_that_of_the_tree_for_negatives_and_positives() -> None:
    negatives = drawn(30)
    log_q_BL = np.log(expected_BL())
    assert negatives.log_q_BK is not None
    assert negatives.log_q_P is not None
    assert negatives.log_q_BK.dtype == negatives.log_q_P.dtype == torch.float32
    expected_BK = np.take_along_axis(log_q_BL, labels_of(negatives).numpy(), axis=1)
    np.testing.assert_allclose(negatives.log_q_BK, expected_BK, rtol=1e-4, atol=1e-5)
    expected_P = log_q_BL[BATCH.rows_P, BATCH.positives_P]
    np.testing.assert_allclose(negatives.log_q_P, expected_P, rtol=1e-4, atol=1e-5)


def test_each_query_draws_from_its_own_distribution() -> None:
    num_draws = 20_000
    labels_BK = labels_of(drawn(num_draws)).numpy()
    for row, probabilities_L in enumerate(expected_BL()):
        counts_L = np.bincount(labels_BK[row], minlength=NUM_LABELS)
        assert chi_square_over_bound(counts_L, probabilities_L) < 1


def test_the_same_generator_state_gives_the_same_draw_and_another_another() -> None:
    first, again, other = (labels_of(drawn(40, seed)) for seed in (5, 5, 6))
    assert first.equal(again)
    assert not first.equal(other)


def test_a_batch_with_more_positives_than_draws_keeps_what_is_no_positive() -> None:
    negatives = drawn(1)
    assert negatives.mask_BK.shape == (4, 1)
    for row, positives in enumerate(POSITIVES):
        is_kept = bool(negatives.mask_BK[row, 0])
        assert is_kept == (int(labels_of(negatives)[row, 0]) not in positives)


def test_what_does_not_fit_is_refused_when_the_sampler_is_built() -> None:
    with pytest.raises(InvalidInputError, match=r"label_tree.num_labels: expected 51.*got 50"):
        AdversarialSampler(WHITENING, TREE, 5, NUM_LABELS + 1)
    with pytest.raises(InvalidInputError, match="num_draws: expected at least 1, got 0"):
        AdversarialSampler(WHITENING, TREE, 0, NUM_LABELS)
    with pytest.raises(InvalidInputError, match=r"label_tree.num_components: expected 3"):
        AdversarialSampler(WHITENING, random_tree(NUM_LABELS, 2), 5, NUM_LABELS)


def test_a_positive_that_the_tree_does_not_know_is_refused() -> None:
    batch = Batch(BATCH.features, torch.tensor([NUM_LABELS]), torch.tensor([0]))
    sampler = AdversarialSampler(WHITENING, TREE, 5, NUM_LABELS)
    with pytest.raises(InvalidInputError, match=r"labels\[0\]: expected 0 to 49"):
        sampler.sample(batch, torch.zeros(4, 2), TableLabels(torch.zeros(50, 2)), torch.Generator())
