"""What every negative sampler promises, run for every sampler, shared and for each query."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from motherlode.core.index import ExactConfig
from motherlode.core.queries import DenseQueries, IntArray
from motherlode.core.rankers import Whitening
from motherlode.trainer.negatives import (
    AdversarialSampler,
    Batch,
    FrequencyConfig,
    FrequencySampler,
    InBatchSampler,
    NearestConfig,
    NearestSampler,
    Negatives,
    NegativeSampler,
    SnmSampler,
    UniformConfig,
    UniformSampler,
)
from tests.support.embeddings import TableLabels
from tests.support.label_trees import enumerated, random_tree

NUM_LABELS = 200
WIDTH = 4


def frequencies(num_labels: int) -> IntArray:
    """Training inputs of each label; a tenth of the labels have none."""
    return np.arange(num_labels) % 10


# The sampler for a number of draws and of labels.
NewSampler = Callable[[int, int], NegativeSampler]


def uniform(draws: int, num_labels: int, *, shared: bool = True) -> NegativeSampler:
    return UniformSampler(
        UniformConfig(num_candidates=draws, keep=draws, shared=shared), num_labels
    )


def frequency(
    draws: int, num_labels: int, *, shared: bool = True, **options: Any
) -> NegativeSampler:
    config = FrequencyConfig(num_candidates=draws, keep=draws, shared=shared, **options)
    return FrequencySampler(config, frequencies(num_labels))


def in_batch(_: int, num_labels: int) -> NegativeSampler:
    return InBatchSampler(frequencies(num_labels))


def nearest(draws: int, _: int, **options: Any) -> NegativeSampler:
    config = NearestConfig(num_candidates=draws, num_mined=draws, index=ExactConfig(), **options)
    return NearestSampler(config, seed=0)


def whitening() -> Whitening:
    """Sends the features of a query, which are zeros here, to one place."""
    return Whitening(np.ones((WIDTH, 3), np.float32), np.float32([0.5, -1.0, 0.2]))


def adversarial(draws: int, num_labels: int) -> NegativeSampler:
    return AdversarialSampler(whitening(), random_tree(num_labels), draws, num_labels)


SAMPLERS: dict[str, NewSampler] = {
    "uniform": uniform,
    "uniform-own": lambda draws, n: uniform(draws, n, shared=False),
    "frequency": frequency,
    "frequency-own": lambda draws, n: frequency(draws, n, shared=False),
    "frequency-seen": lambda draws, n: frequency(draws, n, alpha=1.0, smoothing=0.0),
    "in_batch": in_batch,
    "nearest": nearest,
    "nearest-alone": lambda draws, n: nearest(draws, n, uniform_share=0.0),
    "snm-uniform": lambda draws, n: SnmSampler(uniform(draws, n), keep=5),
    "snm-frequency-own": lambda draws, n: SnmSampler(frequency(draws, n, shared=False), keep=5),
    "snm-in_batch": lambda draws, n: SnmSampler(in_batch(draws, n), keep=5),
    "snm-nearest": lambda draws, n: SnmSampler(nearest(draws, n), keep=5),
    "adversarial": adversarial,
    "snm-adversarial": lambda draws, n: SnmSampler(adversarial(draws, n), keep=5),
}


@pytest.fixture(params=SAMPLERS)
def new_sampler(request: pytest.FixtureRequest) -> NewSampler:
    return SAMPLERS[request.param]


def batch_of(positives: list[list[int]]) -> Batch:
    rows = [row for row, labels in enumerate(positives) for _ in labels]
    labels = [label for labels in positives for label in labels]
    features = DenseQueries(np.zeros((len(positives), WIDTH), np.float32))
    return Batch(features, torch.tensor(labels), torch.tensor(rows))


def draw(
    sampler: NegativeSampler, batch: Batch, seed: int = 0, num_labels: int = NUM_LABELS
) -> Negatives:
    """One draw as a step makes it, for queries and labels at random places; the first is zero."""
    generator = torch.Generator().manual_seed(99)
    queries_BD = torch.randn(len(batch.features), WIDTH, generator=generator)
    queries_BD[0] = 0.0
    labels = TableLabels(torch.randn(num_labels, WIDTH, generator=generator))
    sampler.refresh(0, labels)
    return sampler.sample(batch, queries_BD, labels, torch.Generator().manual_seed(seed))


# The last query has more positives than some samplers have draws; some labels are of two queries.
BATCH = batch_of([[3, 7], [1, 199], [101], [label for label in range(50) if label % 10]])


@pytest.mark.parametrize("draws", [1, 40, 150, 500])
@pytest.mark.parametrize("batch", [BATCH, batch_of([[3, 7, 7]])], ids=["several", "single"])
def test_the_positives_of_a_query_are_masked_and_nothing_else(
    new_sampler: NewSampler, draws: int, batch: Batch
) -> None:
    sampler = new_sampler(draws, NUM_LABELS)
    for seed in range(10):
        negatives = draw(sampler, batch, seed)
        labels_BK = negatives.labels_BK.expand(negatives.mask_BK.shape)
        for row, mask_K in enumerate(negatives.mask_BK):
            positives = set(batch.positives_P[batch.rows_P == row].tolist())
            assert set(labels_BK[row, mask_K].tolist()) == set(labels_BK[row].tolist()) - positives


@pytest.mark.parametrize("draws", [1, 40, 500])
def test_labels_are_distinct_ascending_in_range_and_all_used(
    new_sampler: NewSampler, draws: int
) -> None:
    negatives = draw(new_sampler(draws, NUM_LABELS), BATCH)
    labels = negatives.labels_N.tolist()
    assert labels == sorted(set(labels))
    assert labels[0] >= 0
    assert labels[-1] < NUM_LABELS
    assert set(negatives.labels_BK.flatten().tolist()) == set(labels)
    assert negatives.mask_BK.shape == (4, negatives.labels_BK.shape[1])


def test_the_same_generator_state_gives_the_same_draw(new_sampler: NewSampler) -> None:
    first, again = (draw(new_sampler(40, NUM_LABELS), BATCH, seed=5) for _ in range(2))
    assert first.labels_N.equal(again.labels_N)
    assert first.mask_BK.equal(again.mask_BK)
    assert first.labels_BK.equal(again.labels_BK)


def test_log_q_comes_as_promised_finite_and_in_the_shape_of_the_negatives(
    new_sampler: NewSampler,
) -> None:
    sampler = new_sampler(40, NUM_LABELS)
    negatives = draw(sampler, BATCH)
    if not sampler.gives_log_q:
        assert negatives.log_q_BK is None
        assert negatives.log_q_P is None
        return
    assert negatives.log_q_BK is not None
    assert negatives.log_q_P is not None
    num_queries, num_negatives = negatives.mask_BK.shape
    assert negatives.log_q_BK.shape in {(1, num_negatives), (num_queries, num_negatives)}
    assert negatives.log_q_P.shape == BATCH.positives_P.shape
    assert negatives.log_q_BK.isfinite().all()
    assert negatives.log_q_P.isfinite().all()


class LargestOutput(TorchDispatchMode):
    """Remembers how many elements the largest result of any operation had."""

    numel = 0

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outcome = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(outcome) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return outcome


def test_a_draw_makes_no_array_as_large_as_the_number_of_labels(new_sampler: NewSampler) -> None:
    num_labels = 20_000
    sampler = new_sampler(40, num_labels)
    labels_LD = torch.randn(num_labels, WIDTH, generator=torch.Generator().manual_seed(0))
    labels = TableLabels(labels_LD)
    sampler.refresh(0, labels)
    generator = torch.Generator().manual_seed(0)
    with LargestOutput() as largest:
        sampler.sample(BATCH, labels_LD[:4], labels, generator)
    assert 0 < largest.numel < 1000


# What single draws should be, by the definition of each proposal.
@dataclass(frozen=True)
class Proposal:
    new_sampler: NewSampler
    weights: list[float]


PROPOSALS = {
    "uniform": Proposal(uniform, [1.0] * 20),
    "uniform-own": Proposal(SAMPLERS["uniform-own"], [1.0] * 20),
    "frequency": Proposal(frequency, [(i % 10 + 1) ** 0.75 for i in range(20)]),
    "frequency-own": Proposal(SAMPLERS["frequency-own"], [(i % 10 + 1) ** 0.75 for i in range(20)]),
    "frequency-seen": Proposal(SAMPLERS["frequency-seen"], [float(i % 10) for i in range(20)]),
    "frequency-flat": Proposal(lambda draws, n: frequency(draws, n, alpha=0.0), [1.0] * 20),
    "frequency-flat-seen": Proposal(
        lambda draws, n: frequency(draws, n, alpha=0.0, smoothing=0.0),
        [float(i % 10 > 0) for i in range(20)],
    ),
    "adversarial": Proposal(
        adversarial, enumerated(random_tree(20), -whitening().offset_K).tolist()
    ),
}


@pytest.fixture(params=PROPOSALS)
def proposal(request: pytest.FixtureRequest) -> Proposal:
    return PROPOSALS[request.param]


def assert_counts_follow(counts: torch.Tensor, weights: list[float]) -> None:
    """Pearson's chi-square stays below its 99.99 % point, by Wilson and Hilferty."""
    expected = torch.tensor(weights, dtype=torch.float64)
    expected *= counts.sum() / expected.sum()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_square = ((counts - expected).square() / expected)[possible].sum().item()
    freedom = int(possible.sum()) - 1
    assert chi_square < freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3


def test_frequencies_follow_the_proposal(proposal: Proposal) -> None:
    # One draw for each query, so that draws are independent; shared ones come once a batch.
    sampler = proposal.new_sampler(1, 20)
    own = draw(sampler, batch_of([[0], [0]]), num_labels=20).places_BK is not None
    queries = 2000 if own else 1
    batch = batch_of([[0]] * queries)
    nothing, generator = torch.zeros(queries, WIDTH), torch.Generator().manual_seed(1)
    counts = torch.zeros(20, dtype=torch.float64)
    for _ in range(5 if own else 3000):
        negatives = sampler.sample(batch, nothing, TableLabels(nothing), generator)
        counts += torch.bincount(negatives.labels_BK.flatten(), minlength=20)
    assert counts.sum().item() in {3000, 10_000}
    assert_counts_follow(counts, proposal.weights)


def test_log_q_is_the_logarithm_of_the_proposal(proposal: Proposal) -> None:
    batch = batch_of([[1, 19], [5]])
    negatives = draw(proposal.new_sampler(60, 20), batch, num_labels=20)
    log_q_L = (torch.tensor(proposal.weights) / sum(proposal.weights)).log()
    assert negatives.log_q_BK is not None
    assert negatives.log_q_P is not None
    torch.testing.assert_close(
        negatives.log_q_BK.expand_as(negatives.mask_BK),
        log_q_L[negatives.labels_BK].expand_as(negatives.mask_BK),
    )
    torch.testing.assert_close(negatives.log_q_P, log_q_L[batch.positives_P])


def test_in_batch_negatives_come_by_their_share_of_training_pairs() -> None:
    # Six queries of one or two labels; a batch of each pair of them once.
    positives = [[0], [0, 1], [2], [0], [3, 1], [4]]
    counts_L = np.bincount(np.concatenate(positives), minlength=6)
    sampler = InBatchSampler(counts_L)
    seen, log_q = torch.zeros(6), {}
    nothing = torch.zeros(2, WIDTH)
    for first in range(6):
        for second in range(6):
            batch = batch_of([positives[first], positives[second]])
            negatives = sampler.sample(batch, nothing, TableLabels(nothing), torch.Generator())
            assert negatives.log_q_BK is not None
            labels = negatives.labels_BK[0].tolist()
            seen += torch.bincount(torch.tensor(labels), minlength=6)
            log_q |= dict(zip(labels, negatives.log_q_BK[0].tolist(), strict=True))
    # Enumerated in full, so the shares are equal, not alike. Label 5 has no training input.
    assert seen[5] == 0
    for label in range(5):
        assert math.exp(log_q[label]) == pytest.approx((seen[label] / seen.sum()).item())
