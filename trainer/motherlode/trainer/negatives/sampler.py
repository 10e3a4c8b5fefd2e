"""What every negative sampler promises.

Shapes: B queries in a batch, P positives of all its queries together, N distinct negatives, K
negatives of a query, L labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, final

import torch
from torch import Tensor

from motherlode.core.queries import Features, FloatArray

# A query and a label as one number: the query above these bits, the label below.
_LABEL_BITS = 40


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
        places_BK: int64 [B, K], where each query's negatives stand in labels_N; [1, K] where the
            queries share negatives of which some were drawn more than once; None where every
            query has each of labels_N once.
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

    @classmethod
    def of(cls, batch: Batch, labels_BK: Tensor) -> Negatives:
        """Negatives from labels as they were drawn, with the positives masked.

        Args:
            batch: The queries and their positives.
            labels_BK: int64 [B, K], each query's own, or [1, K], those of all; K at least 1. A
                label drawn twice counts twice.
        """
        labels_N, places_BK = torch.unique(labels_BK, return_inverse=True)
        if len(labels_BK) > 1:
            return cls(labels_N, mask_own_positives(batch, labels_BK), places_BK)
        mask_BN = mask_positives(batch, labels_N)
        if len(labels_N) == places_BK.shape[1]:
            return cls(labels_N, mask_BN)
        places_BK = places_BK.sort(dim=1).values
        return cls(labels_N, mask_BN.index_select(1, places_BK[0]), places_BK)

    def to(self, device: torch.device) -> Negatives:
        """The same, with all but `labels_N` on a device."""
        return replace(
            self,
            mask_BK=self.mask_BK.to(device),
            places_BK=_moved(self.places_BK, device),
            log_q_BK=_moved(self.log_q_BK, device),
            log_q_P=_moved(self.log_q_P, device),
        )

    @property
    def labels_BK(self) -> Tensor:
        """int64 [B, K], the negatives of each query, or [1, K] where all have the same."""
        return self.labels_N[None] if self.places_BK is None else self.labels_N[self.places_BK]

    def with_log_q(self, batch: Batch, log_q_L: Tensor) -> Negatives:
        """The same, drawn from a proposal that is the same for all queries.

        Args:
            batch: That of the negatives.
            log_q_L: float32 [L], log of the proposal's probability of each label.
        """
        log_q_BK, log_q_P = log_q_L[self.labels_BK], log_q_L[batch.positives_P]
        return replace(self, log_q_BK=log_q_BK, log_q_P=log_q_P)


def _moved(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


class HasLabels(Protocol):
    """Labels whose embeddings are computed when they are asked for."""

    @property
    def num_labels(self) -> int:
        """L."""

    def label_embeddings(self) -> FloatArray:
        """All label embeddings as they meet the queries now, an array of its own: float32 [L, D].

        Costs O(L D), too much for every step.
        """


class NegativeSampler(ABC):
    """Proposes negatives; a loss judges them.

    A sampler may hold what it learned from the label table at some step. A run then goes on from a
    checkpoint as if it had never stopped only where the sampler would learn it anew: `resumes_at`.

    Attributes:
        gives_log_q: Whether its negatives come with their probabilities.
    """

    gives_log_q: ClassVar[bool] = True

    @abstractmethod
    def sample(
        self, batch: Batch, queries_BD: Tensor, labels: HasLabels, generator: torch.Generator
    ) -> Negatives:
        """Negatives for a batch; known positives are masked.

        Args:
            batch: The queries and their positives.
            queries_BD: float32 [B, D], their embeddings; may be on a GPU, and nothing else is.
            labels: The labels as they are now.
            generator: The only source of randomness.
        """

    def refresh(self, step: int, labels: HasLabels) -> None:  # noqa: B027 - most have no state
        """Called before each step's `sample`; most samplers have nothing to do.

        Args:
            step: From 0.
            labels: The labels at the start of the step.
        """

    def resumes_at(self, step: int) -> bool:  # noqa: ARG002 - most have no state
        """Whether a new sampler that starts at this step draws what this one would draw."""
        return True


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


def mask_own_positives(batch: Batch, labels_BK: Tensor) -> Tensor:
    """False where a query's own label is a positive of it: bool [B, K].

    Where queries have labels of their own, a table of all queries by all of labels_N would be up to
    B times as large as what is drawn.

    Args:
        batch: The queries and their positives.
        labels_BK: int64 [B, K], each query's own, in any order.
    """
    rows_B1 = torch.arange(len(labels_BK))[:, None]
    keys_BK = (rows_B1 << _LABEL_BITS) | labels_BK
    positives_P = (batch.rows_P << _LABEL_BITS) | batch.positives_P
    # The -1 stands before every key, so that there is always one to compare with.
    known = torch.cat([torch.tensor([-1]), positives_P]).sort().values
    places_BK = torch.searchsorted(known, keys_BK, right=True).sub_(1)
    return known[places_BK] != keys_BK
