"""What every negative sampler promises.

Shapes: B queries in a batch, P positives of all its queries together, N distinct negatives, K
negatives of a query, L labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from motherlode.core.queries import Features


@final
@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Queries of one step with their positives.

    Attributes:
        features: The B queries.
        positives_P: int64 [P], labels; those of query 0 first.
        rows_P: int64 [P], which query each positive belongs to, ascending.
    """

    features: Features
    positives_P: Tensor
    rows_P: Tensor


@final
@dataclass(frozen=True, slots=True, eq=False)
class Negatives:
    """Negatives of a batch: the same for all its queries, or each query's own.

    Attributes:
        labels_N: int64 [N], distinct labels, ascending.
        mask_BK: bool [B, K]; False where the label is a positive of the query. K is N where the
            queries share all labels.
        places_BK: int64 [B, K], where each query's own negatives stand in labels_N; None where
            every query has all of them.
        log_q_BK: float32 [B, K] or [1, K], log of the probability that one draw for the query is
            the label; None where what is kept is no draw from the proposal.
        log_q_P: float32 [P], likewise for the positives of the batch.
        keep: How many of the highest-scoring ones each query keeps, or None for all. Scores are
            computed once, with gradients, so the choice is made where they are: `keep_hardest`.
    """

    labels_N: Tensor
    mask_BK: Tensor
    places_BK: Tensor | None = None
    log_q_BK: Tensor | None = None
    log_q_P: Tensor | None = None
    keep: int | None = None


class NegativeSampler(ABC):
    """Proposes negatives; a loss judges them.

    Attributes:
        gives_log_q: Whether its negatives come with their probabilities.
    """

    gives_log_q: ClassVar[bool] = True

    @abstractmethod
    def sample(
        self, batch: Batch, queries_BD: Tensor, labels_LD: Tensor, generator: torch.Generator
    ) -> Negatives:
        """Negatives for a batch; known positives are masked.

        Args:
            batch: The queries and their positives.
            queries_BD: float32 [B, D], their embeddings.
            labels_LD: float32 [L, D], the label table.
            generator: The only source of randomness.
        """


def mask_positives(batch: Batch, labels_N: Tensor) -> Tensor:
    """False where a label is a positive of the query: bool [B, N].

    Args:
        batch: The queries and their positives.
        labels_N: int64 [N], distinct and ascending.
    """
    mask_BN = torch.ones(len(batch.features), len(labels_N), dtype=torch.bool)
    places_P = torch.searchsorted(labels_N, batch.positives_P).clamp_max(len(labels_N) - 1)
    hits_P = labels_N[places_P] == batch.positives_P
    mask_BN[batch.rows_P[hits_P], places_P[hits_P]] = False
    return mask_BN
