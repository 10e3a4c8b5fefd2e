"""Uniform draws.

Shapes: B queries in a batch, K draws, L labels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from motherlode.trainer.negatives.config import DrawsConfig
from motherlode.trainer.negatives.draws import draw_distinct
from motherlode.trainer.negatives.sampler import Batch, HasLabels, Negatives, NegativeSampler


@final
class UniformConfig(DrawsConfig):
    """Every label is as likely as any other."""

    kind: Literal["uniform"] = "uniform"


@final
class UniformSampler(NegativeSampler):
    """`num_candidates` distinct labels, uniform without replacement; all if there are fewer.

    Without replacement is what the closed form of the weights of Stochastic Negative Mining takes
    (Reddi et al., AISTATS 2019), and no score is computed twice. Draws with replacement are those
    of `FrequencySampler` with alpha 0. The cost of a draw does not depend on the number of labels.

    `log_q` is -log L: each draw, alone, is uniform. A label is among the K draws with probability
    exactly K / L, so that K exp(log_q) is also the expected number of times that it is drawn.

    Args:
        config: How many, and for whom.
        num_labels: L.
    """

    def __init__(self, config: UniformConfig, num_labels: int) -> None:
        self.config = config
        self.num_labels = num_labels

    @override
    def sample(
        self, batch: Batch, queries_BD: Tensor, labels: HasLabels, generator: torch.Generator
    ) -> Negatives:
        num_rows = 1 if self.config.shared else len(batch.features)
        labels_BK = draw_distinct(num_rows, self.config.num_candidates, self.num_labels, generator)
        log_q = -math.log(self.num_labels)
        return replace(
            Negatives.of(batch, labels_BK),
            log_q_BK=torch.full((1, labels_BK.shape[1]), log_q),
            log_q_P=torch.full((len(batch.positives_P),), log_q),
        )
