"""Uniform draws, shared by the queries of a batch."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from motherlode.trainer.negatives.sampler import Batch, Negatives, NegativeSampler, mask_positives


@final
class UniformSampler(NegativeSampler):
    """`num_candidates` uniform draws with replacement; repeated draws count once.

    The cost of a draw does not depend on the number of labels.
    """

    def __init__(self, num_candidates: int, num_labels: int) -> None:
        self.num_candidates = num_candidates
        self.num_labels = num_labels

    @override
    def sample(
        self, batch: Batch, queries_BD: Tensor, labels_LD: Tensor, generator: torch.Generator
    ) -> Negatives:
        if self.num_candidates >= self.num_labels:
            labels_N = torch.arange(self.num_labels)
        else:
            draws = torch.randint(self.num_labels, (self.num_candidates,), generator=generator)
            labels_N = torch.unique(draws)
        log_q = -math.log(self.num_labels)
        return Negatives(
            labels_N,
            mask_positives(batch, labels_N),
            log_q_BK=torch.full((1, len(labels_N)), log_q),
            log_q_P=torch.full((len(batch.positives_P),), log_q),
        )
