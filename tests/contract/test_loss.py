"""What every loss promises, run for every loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from motherlode.trainer.losses import (
    DecoupledSoftmaxConfig,
    Loss,
    PairwiseOwlConfig,
    PointwiseOwlConfig,
    Scores,
    new_loss,
)

MARGINS = ("hinge", "squared_hinge", "logistic")
CONFIGS = [
    *(PairwiseOwlConfig(margin=margin) for margin in MARGINS),
    *(PointwiseOwlConfig(margin=margin) for margin in MARGINS),
    DecoupledSoftmaxConfig(),
]


@pytest.fixture(params=CONFIGS, ids=lambda c: f"{c.kind}-{getattr(c, 'margin', '')}")
def loss(request: pytest.FixtureRequest) -> Loss:
    return new_loss(request.param)


def judge(loss: Loss, *scores: Tensor) -> Tensor:
    return loss(Scores(*scores))


def scores(*, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three queries with 2, 1 and 1 positives and five negatives, one of them masked."""
    generator = torch.Generator().manual_seed(seed)
    positives_P = torch.randn(4, generator=generator, dtype=torch.float64)
    negatives_BK = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    mask_BK = torch.ones(3, 5, dtype=torch.bool)
    mask_BK[1, 2] = False
    return positives_P, torch.tensor([0, 0, 1, 2]), negatives_BK, mask_BK


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


def test_a_perfect_ranking_costs_almost_nothing(loss: Loss) -> None:
    _, rows_P, _, mask_BK = scores()
    value = judge(loss, torch.full((4,), 1e9), rows_P, torch.full((3, 5), -1e9), mask_BK)
    assert value.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("size", [1e9, -1e9])
def test_huge_scores_stay_finite_with_finite_gradients(loss: Loss, size: float) -> None:
    _, rows_P, _, mask_BK = scores()
    positives_P = torch.full((4,), -size, requires_grad=True)
    negatives_BK = torch.full((3, 5), size, requires_grad=True)
    value = judge(loss, positives_P, rows_P, negatives_BK, mask_BK)
    value.backward()
    assert torch.isfinite(value)
    assert positives_P.grad is not None
    assert torch.isfinite(positives_P.grad).all()


def test_a_query_without_negatives_has_a_finite_loss(loss: Loss) -> None:
    positives_P, rows_P, negatives_BK, mask_BK = scores()
    mask_BK[0] = False
    positives_P.requires_grad_()
    value = judge(loss, positives_P, rows_P, negatives_BK, mask_BK)
    value.backward()
    assert torch.isfinite(value)


def test_a_query_without_positives_counts_as_zero(loss: Loss) -> None:
    positives_P, rows_P, negatives_BK, mask_BK = scores()
    three = judge(loss, positives_P, rows_P, negatives_BK, mask_BK)
    more_BK = torch.cat([negatives_BK, torch.randn(1, 5, dtype=torch.float64)])
    more_mask_BK = torch.cat([mask_BK, torch.ones(1, 5, dtype=torch.bool)])
    four = judge(loss, positives_P, rows_P, more_BK, more_mask_BK)
    assert four.item() == pytest.approx(three.item() * 3 / 4)


def test_no_positives_at_all_is_zero(loss: Loss) -> None:
    _, _, negatives_BK, mask_BK = scores()
    none = torch.empty(0, dtype=torch.float64)
    assert judge(loss, none, torch.empty(0, dtype=torch.int64), negatives_BK, mask_BK) == 0.0


def test_each_query_counts_alike_however_many_positives_it_has(loss: Loss) -> None:
    negatives_BK = torch.zeros(2, 3)
    mask_BK = torch.ones(2, 3, dtype=torch.bool)
    one = judge(loss, torch.zeros(2), torch.tensor([0, 1]), negatives_BK, mask_BK)
    more = judge(loss, torch.zeros(4), torch.tensor([0, 0, 0, 1]), negatives_BK, mask_BK)
    assert more.item() == pytest.approx(one.item())


def test_the_loss_is_convex_in_the_scores(loss: Loss) -> None:
    for seed in range(20):
        p1, rows_P, n1, mask_BK = scores(seed=seed)
        p2, _, n2, _ = scores(seed=seed + 100)
        middle = judge(loss, (p1 + p2) / 2, rows_P, (n1 + n2) / 2, mask_BK)
        ends = (judge(loss, p1, rows_P, n1, mask_BK) + judge(loss, p2, rows_P, n2, mask_BK)) / 2
        assert middle <= ends + 1e-12


LN2 = 0.6931471805599453
HAND_COMPUTED = [
    # One query, positive 2, negatives 1 and 3: margins 1 and -1.
    (PairwiseOwlConfig(margin="hinge"), (0 + 2) / 2),
    (PairwiseOwlConfig(margin="squared_hinge"), (0 + 4) / 2),
    (PairwiseOwlConfig(margin="logistic"), (0.3132616875 + 1.3132616875) / 2),
    # phi(2) + mean of phi(-1) and phi(-3).
    (PointwiseOwlConfig(margin="hinge"), 0 + (2 + 4) / 2),
    (PointwiseOwlConfig(margin="squared_hinge"), 0 + (4 + 16) / 2),
    (PointwiseOwlConfig(margin="logistic"), 0.1269280110 + (1.3132616875 + 3.0485873516) / 2),
    # log(1 + e^(1-2) + e^(3-2)).
    (DecoupledSoftmaxConfig(), 1.4076059644),
]


@pytest.mark.parametrize(("config", "expected"), HAND_COMPUTED)
def test_values_are_those_computed_by_hand(config: object, expected: float) -> None:
    value = judge(
        new_loss(config),  # type: ignore[arg-type]
        torch.tensor([2.0]),
        torch.tensor([0]),
        torch.tensor([[1.0, 3.0]]),
        torch.ones(1, 2, dtype=torch.bool),
    )
    assert value.item() == pytest.approx(expected, rel=1e-6)
