"""Losses that tell positives from draws whose probability is known.

Both take the mean over a query's draws: one negative for each positive, with less variance.
Draws that are positives of the query are masked, where the theory would let them be.

Shapes: B queries in a batch, P positives of all its queries together, K negatives a query.
"""

from __future__ import annotations

from typing import ClassVar, Literal, final

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from motherlode.trainer.losses.loss import Loss, Scores, masked_mean


class NoiseContrastiveConfig(BaseModel):
    """Noise-contrastive estimation: scores become those of a softmax over all labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["noise_contrastive"] = "noise_contrastive"


@final
class NoiseContrastiveLoss(Loss):
    """-log sigmoid(s_p - log q_p) - mean_n log sigmoid(log q_n - s_n).

    Gutmann and Hyvärinen, AISTATS 2010, with one draw a positive.
    """

    needs_log_q: ClassVar[bool] = True

    @override
    def per_positive(self, scores: Scores) -> Tensor:
        log_q_P, log_q_BK = scores.log_q()
        negative_B = masked_mean(F.softplus(scores.negatives_BK - log_q_BK), scores.mask_BK)
        positive_P = F.softplus(log_q_P - scores.positives_P)
        return positive_P + negative_B.index_select(0, scores.rows_P)


class RegularizedNegativeSamplingConfig(BaseModel):
    """Negative sampling of the adversarial softmax approximation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["regularized_negative_sampling"] = "regularized_negative_sampling"
    regularization: float = Field(
        default=1e-3, ge=0, allow_inf_nan=False, description="lambda, on (score + log_q)^2"
    )


@final
class RegularizedNegativeSamplingLoss(Loss):
    """r(s_p, q_p) + mean_n r'(s_n, q_n), of both kinds of draws (Bamler and Mandt, eq. (6)).

    r(s, q) = -log sigmoid(s) + lambda (s + log q)^2 for positives, and r'(s, q) =
    -log sigmoid(-s) + lambda (s + log q)^2 for negatives (ICLR 2020). Without lambda the best
    score of a label is log p(y | x) - log q_y (eq. 5): s + log q ranks labels, not s alone.
    """

    needs_log_q: ClassVar[bool] = True

    def __init__(self, regularization: float) -> None:
        self._regularization = regularization

    @override
    def per_positive(self, scores: Scores) -> Tensor:
        log_q_P, log_q_BK = scores.log_q()
        losses_BK = self._judge(-scores.negatives_BK, scores.negatives_BK + log_q_BK)
        negative_B = masked_mean(losses_BK, scores.mask_BK)
        positive_P = self._judge(scores.positives_P, scores.positives_P + log_q_P)
        return positive_P + negative_B.index_select(0, scores.rows_P)

    def _judge(self, margins: Tensor, unbiased: Tensor) -> Tensor:
        return F.softplus(-margins) + self._regularization * unbiased.square()
