"""What every negative sampler promises, run for every sampler."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from motherlode.core.queries import DenseQueries
from motherlode.trainer.negatives import Batch, NegativeSampler, SnmSampler, UniformSampler

NUM_LABELS = 200
SAMPLERS: dict[str, Callable[[int], NegativeSampler]] = {
    "uniform": lambda draws: UniformSampler(draws, NUM_LABELS),
    "snm": lambda draws: SnmSampler(UniformSampler(draws, NUM_LABELS), keep=5),
}


@pytest.fixture(params=SAMPLERS)
def new_sampler(request: pytest.FixtureRequest) -> Callable[[int], NegativeSampler]:
    return SAMPLERS[request.param]


def batch_of(positives: list[list[int]]) -> Batch:
    rows = [row for row, labels in enumerate(positives) for _ in labels]
    labels = [label for labels in positives for label in labels]
    features = DenseQueries(np.zeros((len(positives), 4), np.float32))
    return Batch(features, torch.tensor(labels), torch.tensor(rows))


BATCH = batch_of([[3, 7], [0, 199], [100], list(range(50))])
QUERIES_BD = torch.zeros(4, 4)
LABELS_LD = torch.zeros(NUM_LABELS, 4)


@pytest.mark.parametrize("draws", [1, 40, 500])
def test_no_positive_is_ever_an_unmasked_negative(
    new_sampler: Callable[[int], NegativeSampler], draws: int
) -> None:
    sampler = new_sampler(draws)
    for seed in range(30):
        negatives = sampler.sample(
            BATCH, QUERIES_BD, LABELS_LD, torch.Generator().manual_seed(seed)
        )
        for row in range(4):
            positives = set(BATCH.positives_P[BATCH.rows_P == row].tolist())
            kept = set(negatives.labels_N[negatives.mask_BK[row]].tolist())
            assert not kept & positives
            # Nothing else is masked.
            assert kept == set(negatives.labels_N.tolist()) - positives


def test_labels_are_distinct_ascending_and_in_range(
    new_sampler: Callable[[int], NegativeSampler],
) -> None:
    negatives = new_sampler(300).sample(
        BATCH, QUERIES_BD, LABELS_LD, torch.Generator().manual_seed(0)
    )
    labels = negatives.labels_N.tolist()
    assert labels == sorted(set(labels))
    assert labels[0] >= 0
    assert labels[-1] < NUM_LABELS


def test_the_same_generator_state_gives_the_same_draw(
    new_sampler: Callable[[int], NegativeSampler],
) -> None:
    draws = [
        new_sampler(40).sample(BATCH, QUERIES_BD, LABELS_LD, torch.Generator().manual_seed(5))
        for _ in range(2)
    ]
    assert draws[0].labels_N.equal(draws[1].labels_N)
    assert draws[0].mask_BK.equal(draws[1].mask_BK)


def test_frequencies_follow_the_proposal(new_sampler: Callable[[int], NegativeSampler]) -> None:
    generator = torch.Generator().manual_seed(1)
    sampler = new_sampler(1)
    num_draws = 20_000
    counts = torch.zeros(NUM_LABELS)
    for _ in range(num_draws):
        counts[sampler.sample(BATCH, QUERIES_BD, LABELS_LD, generator).labels_N] += 1
    expected = num_draws / NUM_LABELS
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    # The 99.99 % point of chi-square with 199 degrees of freedom, by Wilson and Hilferty.
    freedom = NUM_LABELS - 1
    bound = freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi_square < bound


def test_log_q_is_that_of_the_uniform_proposal() -> None:
    negatives = UniformSampler(40, NUM_LABELS).sample(
        BATCH, QUERIES_BD, LABELS_LD, torch.Generator().manual_seed(0)
    )
    assert negatives.log_q_BK is not None
    assert negatives.log_q_BK[0].exp().tolist() == pytest.approx(
        [1 / NUM_LABELS] * len(negatives.labels_N)
    )


def test_what_is_mined_has_no_log_q() -> None:
    negatives = SAMPLERS["snm"](40).sample(
        BATCH, QUERIES_BD, LABELS_LD, torch.Generator().manual_seed(0)
    )
    assert negatives.log_q_BK is None
    assert negatives.keep == 5
