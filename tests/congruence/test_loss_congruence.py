"""Losses that are the same by two ways: mined and exact, sampled and full, special cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from motherlode.trainer.losses import (
    AnyLossConfig,
    BinaryCrossEntropyConfig,
    CosineContrastiveConfig,
    DecoupledSoftmaxConfig,
    ExplicitWeightsConfig,
    Loss,
    OneVsEachConfig,
    PairwiseOwlConfig,
    PointwiseOwlConfig,
    Scores,
    SnmWeightsConfig,
    SoftmaxConfig,
    TopKWeightsConfig,
    new_loss,
)
from motherlode.trainer.negatives import keep_hardest

NUM_LABELS, NUM_DRAWS, KEEP = 12, 7, 3
POSITIVES = (2, 9)
OWL_CONFIGS = [
    PairwiseOwlConfig(margin="hinge"),
    PairwiseOwlConfig(margin="logistic"),
    PointwiseOwlConfig(margin="squared_hinge"),
    PointwiseOwlConfig(margin="logistic"),
    CosineContrastiveConfig(nu=1.5),
]


def loss_of(config: AnyLossConfig, num_negatives: int = NUM_LABELS) -> Loss:
    return new_loss(config, num_labels=num_negatives, num_negatives=num_negatives)


def label_scores() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(NUM_LABELS, generator=generator, dtype=torch.float64) * 2 - 1


def judge(loss: Loss, scores_RL: Tensor, drawn_RB: Tensor, keep: int | None = None) -> Tensor:
    """The loss of R queries with the same two positives, over the labels that each one drew."""
    mask_RB = torch.isin(drawn_RB, torch.tensor(POSITIVES)).logical_not()
    negatives_RB = scores_RL.gather(1, drawn_RB)
    if keep is not None:
        negatives_RB, mask_RB = keep_hardest(negatives_RB, mask_RB, keep)
    rows_P = torch.arange(len(drawn_RB)).repeat_interleave(len(POSITIVES))
    positives_P = scores_RL[:, list(POSITIVES)].flatten()
    return loss(Scores(positives_P, rows_P, negatives_RB, mask_RB))


def draws(num_repeats: int, *, replacement: bool) -> Tensor:
    """Draws from all labels, positives among them: int64 [R, B]."""
    generator = torch.Generator().manual_seed(0)
    if replacement:
        return torch.randint(NUM_LABELS, (num_repeats, NUM_DRAWS), generator=generator)
    order_RL = torch.rand(num_repeats, NUM_LABELS, generator=generator).argsort(dim=1)
    return order_RL[:, :NUM_DRAWS]


# With replacement now and then fewer than three negatives are drawn, and the mean is over those.
@pytest.mark.parametrize(("replacement", "keep"), [(False, KEEP), (True, 1)])
@pytest.mark.parametrize("config", OWL_CONFIGS, ids=lambda c: c.kind)
def test_mining_has_the_gradient_of_the_exact_loss_on_average(
    config: PairwiseOwlConfig, replacement: bool, keep: int
) -> None:
    repeats = 60_000
    weights = SnmWeightsConfig(num_draws=NUM_DRAWS, keep=keep, replacement=replacement)
    scores_L = label_scores().requires_grad_()
    exact = judge(
        loss_of(config.model_copy(update={"weights": weights})),
        scores_L[None],
        torch.arange(NUM_LABELS)[None],
    )
    (expected_L,) = torch.autograd.grad(exact, scores_L)

    scores_RL = scores_L.detach().repeat(repeats, 1).requires_grad_()
    mined = judge(loss_of(config), scores_RL, draws(repeats, replacement=replacement), keep)
    (gradients_RL,) = torch.autograd.grad(mined * repeats, scores_RL)
    error_L = 5 * gradients_RL.std(dim=0) / repeats**0.5 + 1e-5
    # Five standard errors for each of 12 labels: a wrong alarm once in 100,000 seeds.
    assert ((gradients_RL.mean(dim=0) - expected_L).abs() < error_L).all()
    # The test is sharp: the flat weights of plain sampling are outside.
    flat = judge(loss_of(config), scores_L[None], torch.arange(NUM_LABELS)[None])
    (flat_L,) = torch.autograd.grad(flat, scores_L)
    assert ((gradients_RL.mean(dim=0) - flat_L).abs() > error_L).any()


@pytest.mark.parametrize("config", OWL_CONFIGS, ids=lambda c: c.kind)
def test_the_mean_over_the_hardest_kept_is_the_top_k_loss_over_all(
    config: PairwiseOwlConfig,
) -> None:
    scores_RL, all_RL = label_scores()[None], torch.arange(NUM_LABELS)[None]
    top_k = config.model_copy(update={"weights": TopKWeightsConfig(k=KEEP)})
    kept = judge(loss_of(config), scores_RL, all_RL, keep=KEEP)
    assert judge(loss_of(top_k), scores_RL, all_RL).item() == pytest.approx(kept.item())
    exact = config.model_copy(update={"weights": SnmWeightsConfig(num_draws=NUM_LABELS, keep=KEEP)})
    assert judge(loss_of(exact), scores_RL, all_RL).item() == pytest.approx(kept.item())


def test_the_softmax_over_all_labels_is_the_cross_entropy() -> None:
    scores_L = label_scores()
    is_negative_L = torch.ones(NUM_LABELS, dtype=torch.bool)
    is_negative_L[list(POSITIVES)] = False
    log_q = torch.full((1, NUM_LABELS), 1 / NUM_LABELS, dtype=torch.float64).log()
    value = loss_of(SoftmaxConfig())(
        Scores(
            scores_L[list(POSITIVES)],
            torch.zeros(2, dtype=torch.int64),
            scores_L[None],
            is_negative_L[None],
            log_q[0, :2],
            log_q,
        )
    )
    expected = F.cross_entropy(scores_L.repeat(2, 1), torch.tensor(POSITIVES))
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_sampled_softmax_tends_to_the_full_one_for_any_proposal() -> None:
    scores_L = label_scores()
    q_L = torch.softmax(torch.arange(NUM_LABELS, dtype=torch.float64) / 5, dim=0)
    generator = torch.Generator().manual_seed(1)
    drawn_K = torch.multinomial(q_L, 1_000_000, replacement=True, generator=generator)
    value = loss_of(SoftmaxConfig())(
        Scores(
            scores_L[[2]],
            torch.tensor([0]),
            scores_L[drawn_K][None],
            (drawn_K != 2)[None],
            q_L[[2]].log(),
            q_L[drawn_K].log()[None],
        )
    )
    expected = F.cross_entropy(scores_L[None], torch.tensor([2]))
    # Z is the mean of a million terms e^s / q: some 0.001 of spread over Z.
    assert value.item() == pytest.approx(expected.item(), abs=0.006)


def test_baselines_are_the_ordered_weighted_losses_with_all_weights_one() -> None:
    scores_RL, all_RL = label_scores()[None], torch.arange(NUM_LABELS)[None]
    ones = ExplicitWeightsConfig(values=(1.0,) * NUM_LABELS)
    pairs: list[tuple[AnyLossConfig, AnyLossConfig]] = [
        (OneVsEachConfig(), PairwiseOwlConfig(margin="logistic", weights=ones)),
        (BinaryCrossEntropyConfig(), PointwiseOwlConfig(margin="logistic", weights=ones)),
    ]
    for baseline, owl in pairs:
        there = judge(loss_of(baseline), scores_RL, all_RL)
        assert judge(loss_of(owl), scores_RL, all_RL).item() == pytest.approx(there.item())


def test_binary_cross_entropy_is_that_of_torch_for_a_single_positive() -> None:
    scores_L = label_scores()
    is_positive_L = torch.arange(NUM_LABELS) == 4
    value = loss_of(BinaryCrossEntropyConfig())(
        Scores(scores_L[[4]], torch.tensor([0]), scores_L[None], ~is_positive_L[None])
    )
    expected = F.binary_cross_entropy_with_logits(scores_L, is_positive_L.double(), reduction="sum")
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)


def test_one_vs_each_is_never_below_the_decoupled_softmax() -> None:
    for seed in range(20):
        scores_RL = torch.randn(1, NUM_LABELS, generator=torch.Generator().manual_seed(seed)) * 3
        all_RL = torch.arange(NUM_LABELS)[None]
        bound = judge(loss_of(OneVsEachConfig()), scores_RL, all_RL)
        assert bound >= judge(loss_of(DecoupledSoftmaxConfig()), scores_RL, all_RL)
