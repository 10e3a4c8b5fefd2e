"""What every loss promises, run for every loss."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from motherlode.core.errors import InvalidInputError
from motherlode.trainer.losses import (
    AllWeightsConfig,
    AnyLossConfig,
    BinaryCrossEntropyConfig,
    CosineContrastiveConfig,
    DecoupledSoftmaxConfig,
    ExplicitWeightsConfig,
    Loss,
    NoiseContrastiveConfig,
    OneVsEachConfig,
    PairwiseOwlConfig,
    PointwiseOwlConfig,
    RegularizedNegativeSamplingConfig,
    Scores,
    SnmWeightsConfig,
    SoftmaxConfig,
    TopKWeightsConfig,
    new_loss,
)

MARGINS = ("hinge", "squared_hinge", "logistic")
WEIGHTS = (
    AllWeightsConfig(),
    TopKWeightsConfig(k=2),
    ExplicitWeightsConfig(values=(0.5, 0.5, 0.25)),
    SnmWeightsConfig(num_draws=3, keep=2),
)
CONFIGS = [
    *(PairwiseOwlConfig(margin=margin, weights=w) for margin in MARGINS for w in WEIGHTS),
    *(PointwiseOwlConfig(margin=margin, weights=w) for margin in MARGINS for w in WEIGHTS),
    *(CosineContrastiveConfig(weights=w) for w in WEIGHTS),
    DecoupledSoftmaxConfig(),
    SoftmaxConfig(),
    BinaryCrossEntropyConfig(),
    OneVsEachConfig(),
    NoiseContrastiveConfig(),
    RegularizedNegativeSamplingConfig(regularization=0.1),
]
NUM_NEGATIVES = 5


def name_of(config: AnyLossConfig) -> str:
    owl = getattr(config, "margin", ""), getattr(getattr(config, "weights", None), "kind", "")
    return "-".join([config.kind, *filter(None, owl)])


def loss_of(config: AnyLossConfig, num_negatives: int = NUM_NEGATIVES) -> Loss:
    return new_loss(config, num_labels=num_negatives, num_negatives=num_negatives)


@pytest.fixture(params=CONFIGS, ids=name_of)
def config(request: pytest.FixtureRequest) -> AnyLossConfig:
    chosen: AnyLossConfig = request.param
    return chosen


@pytest.fixture
def loss(config: AnyLossConfig) -> Loss:
    return loss_of(config)


def judge(
    loss: Loss, positives_P: Tensor, rows_P: Tensor, negatives_BK: Tensor, mask_BK: Tensor
) -> Tensor:
    """The loss, with a probability of its own for each column of negatives."""
    log_q_P = torch.full_like(positives_P, 0.3).log().detach()
    log_q_BK = torch.arange(1.0, negatives_BK.shape[1] + 1)[None].mul(0.05).log()
    return loss(Scores(positives_P, rows_P, negatives_BK, mask_BK, log_q_P, log_q_BK))


def scores(*, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three queries with 2, 1 and 1 positives and five negatives, one of them masked."""
    generator = torch.Generator().manual_seed(seed)
    positives_P = torch.randn(4, generator=generator, dtype=torch.float64)
    negatives_BK = torch.randn(3, NUM_NEGATIVES, generator=generator, dtype=torch.float64)
    mask_BK = torch.ones(3, NUM_NEGATIVES, dtype=torch.bool)
    mask_BK[1, 2] = False
    return positives_P, torch.tensor([0, 0, 1, 2]), negatives_BK, mask_BK


def test_every_kind_of_loss_is_under_contract() -> None:
    assert {type(config) for config in CONFIGS} == set(get_args(AnyLossConfig))


def test_gradients_match_finite_differences(loss: Loss) -> None:
    positives_P, rows_P, negatives_BK, mask_BK = scores()
    positives_P.requires_grad_()
    negatives_BK.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, n: judge(loss, p, rows_P, n, mask_BK), (positives_P, negatives_BK)
    )


def test_masked_negatives_change_nothing_and_get_no_gradient(loss: Loss) -> None:
    positives_P, rows_P, negatives_BK, mask_BK = scores()
    negatives_BK.requires_grad_()
    value = judge(loss, positives_P, rows_P, negatives_BK, mask_BK)
    value.backward()
    assert negatives_BK.grad is not None
    assert negatives_BK.grad[1, 2] == 0.0
    other = negatives_BK.detach().clone()
    other[1, 2] = 1e6
    assert judge(loss, positives_P, rows_P, other, mask_BK) == value


def all_but(kind: type) -> list[AnyLossConfig]:
    return [config for config in CONFIGS if not isinstance(config, kind)]


# Its regularization keeps scores near -log_q.
@pytest.mark.parametrize("config", all_but(RegularizedNegativeSamplingConfig), ids=name_of)
def test_a_perfect_ranking_costs_almost_nothing(config: AnyLossConfig, loss: Loss) -> None:
    size = 1.0 if isinstance(config, CosineContrastiveConfig) else 1e9
    # One positive each: in the softmax over all labels a query's positives compete.
    mask_BK = torch.ones(3, NUM_NEGATIVES, dtype=torch.bool)
    positives_P, negatives_BK = torch.full((3,), size), torch.full((3, NUM_NEGATIVES), -size)
    value = judge(loss, positives_P, torch.arange(3), negatives_BK, mask_BK)
    assert value.item() == pytest.approx(0.0, abs=1e-6)


def test_a_wrong_ranking_costs_more_than_a_right_one(loss: Loss) -> None:
    _, rows_P, _, mask_BK = scores()
    high, low = torch.ones(4), torch.full((3, NUM_NEGATIVES), -1.0)
    right = judge(loss, high, rows_P, low, mask_BK)
    assert judge(loss, -high, rows_P, -low, mask_BK) > right + 0.1


@pytest.mark.parametrize("size", [1e9, -1e9])
def test_huge_scores_stay_finite_with_finite_gradients(loss: Loss, size: float) -> None:
    _, rows_P, _, mask_BK = scores()
    positives_P = torch.full((4,), -size, requires_grad=True)
    negatives_BK = torch.full((3, NUM_NEGATIVES), size, requires_grad=True)
    value = judge(loss, positives_P, rows_P, negatives_BK, mask_BK)
    value.backward()
    assert torch.isfinite(value)
    for leaf in (positives_P, negatives_BK):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_a_query_without_negatives_has_a_finite_loss_and_gradient(loss: Loss) -> None:
    positives_P, rows_P, negatives_BK, mask_BK = scores()
    mask_BK[0] = False
    positives_P.requires_grad_()
    negatives_BK.requires_grad_()
    value = judge(loss, positives_P, rows_P, negatives_BK, mask_BK)
    value.backward()
    assert torch.isfinite(value)
    assert positives_P.grad is not None
    assert negatives_BK.grad is not None
    assert torch.isfinite(positives_P.grad).all()
    assert (negatives_BK.grad[0] == 0.0).all()
    assert torch.isfinite(negatives_BK.grad).all()


def test_a_query_without_positives_counts_as_zero(loss: Loss) -> None:
    positives_P, rows_P, negatives_BK, mask_BK = scores()
    three = judge(loss, positives_P, rows_P, negatives_BK, mask_BK)
    more_BK = torch.cat([negatives_BK, torch.randn(1, NUM_NEGATIVES, dtype=torch.float64)])
    more_BK.requires_grad_()
    more_mask_BK = torch.cat([mask_BK, torch.ones(1, NUM_NEGATIVES, dtype=torch.bool)])
    four = judge(loss, positives_P, rows_P, more_BK, more_mask_BK)
    four.backward()
    assert four.item() == pytest.approx(three.item() * 3 / 4)
    assert more_BK.grad is not None
    assert (more_BK.grad[3] == 0.0).all()


def test_no_positives_at_all_is_zero(loss: Loss) -> None:
    _, _, negatives_BK, mask_BK = scores()
    none = torch.empty(0, dtype=torch.float64)
    assert judge(loss, none, torch.empty(0, dtype=torch.int64), negatives_BK, mask_BK) == 0.0


def test_the_loss_of_a_batch_is_the_mean_of_its_queries_losses(loss: Loss) -> None:
    positives_P, rows_P, negatives_BK, mask_BK = scores()
    alone = [
        judge(
            loss,
            positives_P[rows_P == row],
            torch.zeros(int((rows_P == row).sum()), dtype=torch.int64),
            negatives_BK[row : row + 1],
            mask_BK[row : row + 1],
        ).item()
        for row in range(3)
    ]
    together = judge(loss, positives_P, rows_P, negatives_BK, mask_BK)
    assert together.item() == pytest.approx(sum(alone) / 3)


# In the softmax over all labels a query's positives compete.
@pytest.mark.parametrize("config", all_but(SoftmaxConfig), ids=name_of)
def test_each_query_counts_alike_however_many_positives_it_has(
    config: AnyLossConfig,  # noqa: ARG001  # chooses the loss
    loss: Loss,
) -> None:
    negatives_BK = torch.zeros(2, NUM_NEGATIVES)
    mask_BK = torch.ones(2, NUM_NEGATIVES, dtype=torch.bool)
    one = judge(loss, torch.zeros(2), torch.tensor([0, 1]), negatives_BK, mask_BK)
    more = judge(loss, torch.zeros(4), torch.tensor([0, 0, 0, 1]), negatives_BK, mask_BK)
    assert more.item() == pytest.approx(one.item())


def test_the_order_of_negatives_changes_nothing(loss: Loss) -> None:
    positives_P, rows_P, negatives_BK, mask_BK = scores()
    log_q_P = torch.full((4,), -1.0)
    log_q_BK = torch.full((1, NUM_NEGATIVES), -1.0)
    there = loss(Scores(positives_P, rows_P, negatives_BK, mask_BK, log_q_P, log_q_BK))
    back = loss(
        Scores(positives_P, rows_P, negatives_BK.flip(1), mask_BK.flip(1), log_q_P, log_q_BK)
    )
    assert back.item() == pytest.approx(there.item())


def test_the_loss_is_convex_in_the_scores(loss: Loss) -> None:
    for seed in range(20):
        p1, rows_P, n1, mask_BK = scores(seed=seed)
        p2, _, n2, _ = scores(seed=seed + 100)
        middle = judge(loss, (p1 + p2) / 2, rows_P, (n1 + n2) / 2, mask_BK)
        ends = (judge(loss, p1, rows_P, n1, mask_BK) + judge(loss, p2, rows_P, n2, mask_BK)) / 2
        assert middle <= ends + 1e-12


def test_a_loss_that_needs_probabilities_refuses_negatives_without_them(loss: Loss) -> None:
    if loss.needs_log_q:
        with pytest.raises(InvalidInputError, match="log_q"):
            loss(Scores(*scores()))
    else:
        assert torch.isfinite(loss(Scores(*scores())))


# One query, positive 2 drawn with probability 1/4; negatives 1 and 3, drawn with 1/2 and 1/8.
E = math.e
LOG = {z: math.log1p(E**-z) for z in (-3, -1, 1, 2)}  # phi(z) of the logistic margin
HAND_COMPUTED = [
    # Margins -1 and 1, that of the hardest negative first.
    (PairwiseOwlConfig(margin="hinge"), (2 + 0) / 2),
    (PairwiseOwlConfig(margin="squared_hinge"), (4 + 0) / 2),
    (PairwiseOwlConfig(margin="logistic"), (1.3132616875 + 0.3132616875) / 2),
    (PairwiseOwlConfig(margin="squared_hinge", weights=TopKWeightsConfig(k=1)), 4.0),
    (
        PairwiseOwlConfig(weights=ExplicitWeightsConfig(values=(3.0, 2.0))),
        3 * LOG[-1] + 2 * LOG[1],
    ),
    # One draw of two labels is each of them half the time, and then the hardest.
    (
        PairwiseOwlConfig(margin="hinge", weights=SnmWeightsConfig(num_draws=1, keep=1)),
        (2 + 0) / 2,
    ),
    # Two draws with replacement miss the hardest one time in four.
    (
        PairwiseOwlConfig(
            margin="hinge", weights=SnmWeightsConfig(num_draws=2, keep=1, replacement=True)
        ),
        0.75 * 2 + 0.25 * 0,
    ),
    # phi(2) and phi(-3), phi(-1).
    (PointwiseOwlConfig(margin="hinge"), 0 + (4 + 2) / 2),
    (PointwiseOwlConfig(margin="squared_hinge"), 0 + (16 + 4) / 2),
    (PointwiseOwlConfig(margin="logistic"), 0.1269280110 + (3.0485873516 + 1.3132616875) / 2),
    (PointwiseOwlConfig(margin="hinge", weights=TopKWeightsConfig(k=1)), 0 + 4),
    (
        PointwiseOwlConfig(margin="hinge", weights=ExplicitWeightsConfig(values=(1.0, 0.5))),
        0 + 4 + 0.5 * 2,
    ),
    # (1 - 2)^2; 1 - 0.5 = 0.5 below both negatives.
    (CosineContrastiveConfig(nu=0.5), 1 + (2.5**2 + 0.5**2) / 2),
    (
        CosineContrastiveConfig(nu=0.5, weights=ExplicitWeightsConfig(values=(1.0, 1.0))),
        1 + 2.5**2 + 0.5**2,
    ),
    # log(1 + e^(1-2) + e^(3-2)).
    (DecoupledSoftmaxConfig(), 1.4076059644),
    # Negatives stand for 1 / (2 * 1/2) = 1 and 1 / (2 * 1/8) = 4 labels.
    (SoftmaxConfig(), math.log((E**2 + E**1 + 4 * E**3) / E**2)),
    (BinaryCrossEntropyConfig(), LOG[2] + LOG[-1] + LOG[-3]),
    (OneVsEachConfig(), LOG[1] + LOG[-1]),
    # e^2 to 1/4, and e^1 to 1/2, e^3 to 1/8.
    (
        NoiseContrastiveConfig(),
        math.log1p(0.25 * E**-2) + (math.log1p(2 * E) + math.log1p(8 * E**3)) / 2,
    ),
    (
        RegularizedNegativeSamplingConfig(regularization=0.1),
        LOG[2]
        + 0.1 * (2 - math.log(4)) ** 2
        + (LOG[-1] + 0.1 * (1 - math.log(2)) ** 2 + LOG[-3] + 0.1 * (3 - math.log(8)) ** 2) / 2,
    ),
]


@pytest.mark.parametrize(("config", "expected"), HAND_COMPUTED)
def test_values_are_those_computed_by_hand(config: AnyLossConfig, expected: float) -> None:
    value = loss_of(config, num_negatives=2)(
        Scores(
            torch.tensor([2.0]),
            torch.tensor([0]),
            torch.tensor([[1.0, 3.0]]),
            torch.ones(1, 2, dtype=torch.bool),
            torch.tensor([1 / 4]).log(),
            torch.tensor([[1 / 2, 1 / 8]]).log(),
        )
    )
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_every_kind_of_loss_has_a_value_computed_by_hand() -> None:
    assert {type(config) for config, _ in HAND_COMPUTED} == set(get_args(AnyLossConfig))
