from __future__ import annotations

import pytest
import torch

from motherlode.core.errors import ConfigError, InvalidInputError
from motherlode.trainer.losses import (
    AllWeightsConfig,
    ExplicitWeightsConfig,
    RankWeights,
    SnmWeightsConfig,
    TopKWeightsConfig,
    new_rank_weights,
)

NEGATIVES_BK = torch.tensor([[1.0, 9.0, 5.0, 7.0], [4.0, 3.0, 2.0, 1.0]])
MASK_BK = torch.tensor([[True, False, True, True], [True, True, True, True]])


def weights_of(
    config: AllWeightsConfig | TopKWeightsConfig | ExplicitWeightsConfig | SnmWeightsConfig,
) -> RankWeights:
    return new_rank_weights(config, num_labels=4, num_negatives=4)


def weighted(weights: RankWeights) -> list[float]:
    return weights.total(*weights.rank(NEGATIVES_BK, MASK_BK)).tolist()


def test_ranks_run_from_the_highest_unmasked_score_down() -> None:
    ranked_BR, mask_BR = weights_of(ExplicitWeightsConfig(values=(1.0,) * 4)).rank(
        NEGATIVES_BK, MASK_BK
    )
    assert ranked_BR.tolist() == [[7.0, 5.0, 1.0, 9.0], [4.0, 3.0, 2.0, 1.0]]
    assert mask_BR.tolist() == [[True, True, True, False], [True] * 4]


def test_gradients_reach_each_score_by_the_weight_of_its_rank() -> None:
    weights = weights_of(ExplicitWeightsConfig(values=(3.0, 2.0, 0.5)))
    negatives_BK = NEGATIVES_BK.clone().requires_grad_()
    weights.total(*weights.rank(negatives_BK, MASK_BK)).sum().backward()
    assert negatives_BK.grad is not None
    assert negatives_BK.grad.tolist() == [[0.5, 0.0, 2.0, 3.0], [3.0, 2.0, 0.5, 0.0]]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AllWeightsConfig(), [13 / 3, 10 / 4]),
        (TopKWeightsConfig(k=2), [12 / 2, 7 / 2]),
        (TopKWeightsConfig(k=4), [13 / 3, 10 / 4]),
        (ExplicitWeightsConfig(values=(2.0, 1.0)), [19.0, 11.0]),
        # Ranks that a query has not weigh nothing, and the others no more for it.
        (ExplicitWeightsConfig(values=(1.0, 1.0, 1.0, 1.0)), [13.0, 10.0]),
        # Two of four labels, the harder one kept: 1/2, 1/3, 1/6, 0.
        (
            SnmWeightsConfig(num_draws=2, keep=1),
            [7 / 2 + 5 / 3 + 1 / 6, 4 / 2 + 3 / 3 + 2 / 6],
        ),
        # All four drawn and the two hardest kept: their mean.
        (SnmWeightsConfig(num_draws=4, keep=2), [12 / 2, 7 / 2]),
    ],
)
def test_totals_are_those_computed_by_hand(config: AllWeightsConfig, expected: list[float]) -> None:
    assert weighted(weights_of(config)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (TopKWeightsConfig(k=5), "loss.weights.k"),
        (ExplicitWeightsConfig(values=(1.0,) * 5), "loss.weights.values"),
        (SnmWeightsConfig(num_draws=5, keep=2), "loss.weights.num_draws"),
    ],
)
def test_weights_for_more_than_there_is_are_refused(config: TopKWeightsConfig, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        weights_of(config)
    assert caught.value.field == field


def test_weights_of_mining_are_refused_where_a_query_does_not_have_all_labels() -> None:
    config = SnmWeightsConfig(num_draws=2, keep=1)
    with pytest.raises(ConfigError, match="all 9 labels"):
        new_rank_weights(config, num_labels=9, num_negatives=4)
    weights = new_rank_weights(config, num_labels=9, num_negatives=9)
    with pytest.raises(InvalidInputError, match="all 9 labels"):
        weights.rank(NEGATIVES_BK, MASK_BK)
