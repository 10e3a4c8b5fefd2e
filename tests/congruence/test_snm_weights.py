"""What Stochastic Negative Mining keeps, against the closed forms of its weights by rank.

Of M negatives, B are drawn and the k hardest kept; theta_i is the expected number of times that the
i-th hardest negative is among them (Reddi et al., AISTATS 2019).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from motherlode.core.queries import DenseQueries
from motherlode.trainer.negatives import (
    Batch,
    FrequencyConfig,
    FrequencySampler,
    NegativeSampler,
    SnmSampler,
    UniformConfig,
    UniformSampler,
    keep_hardest,
)

NUM_LABELS, NUM_DRAWS = 30, 8
NUM_QUERIES = 20_000


def without_replacement(keep: int) -> list[float]:
    sets = math.comb(NUM_LABELS, NUM_DRAWS)
    return [
        sum(math.comb(i - 1, j) * math.comb(NUM_LABELS - i, NUM_DRAWS - 1 - j) for j in range(keep))
        / sets
        for i in range(1, NUM_LABELS + 1)
    ]


def with_replacement(keep: int) -> list[float]:
    def at_least(t: int, p: float) -> float:
        """That a binomial of the draws is t or more."""
        return sum(
            math.comb(NUM_DRAWS, n) * p**n * (1 - p) ** (NUM_DRAWS - n)
            for n in range(t, NUM_DRAWS + 1)
        )

    return [
        sum(at_least(t, i / NUM_LABELS) - at_least(t, (i - 1) / NUM_LABELS) for t in _ranks(keep))
        for i in range(1, NUM_LABELS + 1)
    ]


def _ranks(keep: int) -> range:
    return range(1, keep + 1)


def simulated(proposal: NegativeSampler, keep: int) -> torch.Tensor:
    """Times a query that each label is kept, where label 0 scores highest and so on."""
    features = DenseQueries(np.zeros((NUM_QUERIES, 1), np.float32))
    # The one label that is a positive is beyond those that can be drawn, so nothing is masked.
    rows = torch.arange(NUM_QUERIES)
    batch = Batch(features, torch.full_like(rows, NUM_LABELS), rows)
    nothing = torch.zeros(NUM_QUERIES, 1)
    negatives = SnmSampler(proposal, keep).sample(
        batch, nothing, nothing, torch.Generator().manual_seed(keep)
    )
    assert negatives.keep == keep
    scores_BK, mask_BK = keep_hardest(-negatives.labels_BK.float(), negatives.mask_BK, keep)
    assert mask_BK.all()
    return torch.bincount(-scores_BK.long().flatten(), minlength=NUM_LABELS) / NUM_QUERIES


def assert_close(simulation: torch.Tensor, theta: list[float]) -> None:
    """Within five standard deviations, which are at most sqrt(k theta_i / queries)."""
    bound = 5 * (NUM_DRAWS * torch.tensor(theta) / NUM_QUERIES).sqrt() + 1e-6
    assert ((simulation - torch.tensor(theta)).abs() <= bound).all()


@pytest.mark.parametrize("keep", [1, 3, 7])
def test_uniform_draws_keep_by_the_weights_without_replacement(keep: int) -> None:
    config = UniformConfig(num_candidates=NUM_DRAWS, keep=keep, shared=False)
    assert_close(simulated(UniformSampler(config, NUM_LABELS), keep), without_replacement(keep))


@pytest.mark.parametrize("keep", [1, 3, 7])
def test_flat_frequency_draws_keep_by_the_weights_with_replacement(keep: int) -> None:
    config = FrequencyConfig(num_candidates=NUM_DRAWS, keep=keep, shared=False, alpha=0.0)
    # The positive beyond the labels that are drawn needs a place in the table of log_q.
    counts = np.append(np.ones(NUM_LABELS, np.int64), 0)
    config = config.model_copy(update={"smoothing": 0.0})
    assert_close(simulated(FrequencySampler(config, counts), keep), with_replacement(keep))
