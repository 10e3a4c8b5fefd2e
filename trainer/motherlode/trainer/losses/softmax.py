"""Softmax losses.

Shapes: B queries in a batch, P positives of all its queries together, K negatives a query.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from motherlode.trainer.losses.loss import Loss, Scores


class DecoupledSoftmaxConfig(BaseModel):
    """Softmax of each positive against the negatives alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["decoupled_softmax"] = "decoupled_softmax"


@final
class DecoupledSoftmaxLoss(Loss):
    """-log(e^{s_p} / (e^{s_p} + sum_n e^{s_n})): other positives are left out of the sum.

    Gupta et al., "Dual-encoders for extreme multi-label classification", ICLR 2024.
    """

    @override
    def per_positive(self, scores: Scores) -> Tensor:
        mask_BK = scores.mask_BK
        lowest = torch.finfo(scores.negatives_BK.dtype).min
        partition_B = torch.logsumexp(scores.negatives_BK.masked_fill(~mask_BK, lowest), dim=1)
        # A query without any negative has nothing to be told apart from: its loss is zero.
        partition_B = partition_B.masked_fill(~mask_BK.any(dim=1), lowest)
        return F.softplus(partition_B.index_select(0, scores.rows_P) - scores.positives_P)
