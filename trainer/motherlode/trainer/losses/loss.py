"""What every loss promises.

A loss sees scores only; it knows nothing of embeddings or of how negatives were drawn, but for the
probabilities that a sampler hands it.

Shapes: B queries in a batch, P positives of all its queries together, K negatives a query.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from motherlode.core.errors import InvalidInputError


@final
@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a loss judges.

    Attributes:
        positives_P: float [P], scores of the positives; those of query 0 first.
        rows_P: int64 [P], which query each positive belongs to, ascending.
        negatives_BK: float [B, K], scores of the negatives.
        mask_BK: bool [B, K]; False entries take no part and get no gradient.
        log_q_P: float [P], how likely the sampler is to draw each positive for its query, as a
            logarithm; None if it does not say.
        log_q_BK: float [B, K] or [1, K], likewise for each negative.
    """

    positives_P: Tensor
    rows_P: Tensor
    negatives_BK: Tensor
    mask_BK: Tensor
    log_q_P: Tensor | None = None
    log_q_BK: Tensor | None = None

    def log_q(self) -> tuple[Tensor, Tensor]:
        """log_q_P and log_q_BK, of a sampler that gives them.

        Raises:
            InvalidInputError: If the sampler does not.
        """
        if self.log_q_P is None or self.log_q_BK is None:
            raise InvalidInputError(
                "negatives",
                expected="draws with known probabilities (log_q), which this loss needs",
                actual="negatives without them, such as those of SNM",
            )
        return self.log_q_P, self.log_q_BK


class Loss(ABC):
    """The loss of a batch: the mean over its queries of the mean over each query's positives.

    A query without positives counts as zero.

    Attributes:
        needs_log_q: Whether it can judge only what a sampler drew with known probabilities.
    """

    needs_log_q: ClassVar[bool] = False

    def __call__(self, scores: Scores) -> Tensor:
        """The loss of a batch, a scalar; see the class.

        Raises:
            InvalidInputError: If the loss needs log_q and there is none.
        """
        num_queries = len(scores.negatives_BK)
        counts_B = torch.bincount(scores.rows_P, minlength=num_queries)
        losses_P = self.per_positive(scores)
        return (losses_P / counts_B[scores.rows_P]).sum() / num_queries

    @abstractmethod
    def per_positive(self, scores: Scores) -> Tensor:
        """The loss of each positive: float [P]."""


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the last dimension of the entries where mask is True."""
    return values.masked_fill(~mask, 0.0).sum(dim=-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last dimension of the entries where mask is True; zero where there is none."""
    return masked_sum(values, mask) / mask.sum(dim=-1).clamp_min(1)
