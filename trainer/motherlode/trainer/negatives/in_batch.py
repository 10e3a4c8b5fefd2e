"""The positives of the other queries of the batch.

Shapes: P positives of a batch, L labels.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from typing_extensions import override

from motherlode.core.queries import IntArray
from motherlode.trainer.negatives.sampler import Batch, HasLabels, Negatives, NegativeSampler


@final
class InBatchConfig(BaseModel):
    """The positives of the other queries of the batch.

    Attributes:
        keep: The highest-scoring ones that each query keeps; None keeps all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["in_batch"] = "in_batch"
    keep: int | None = Field(default=None, ge=1)

    @property
    def num_kept(self) -> int | None:
        """How many of the hardest a query keeps; None for all."""
        return self.keep

    @property
    def gives_log_q(self) -> bool:
        """Whether the negatives come with their probabilities: only if all are kept."""
        return self.keep is None


@final
class InBatchSampler(NegativeSampler):
    """All positives of the batch, but for each query its own.

    No label row is touched that is not touched anyway. A label that is a positive of several
    queries counts as often. Queries are drawn uniformly, so a label comes in proportion to its
    training pairs: `log_q` is the log of its share of all pairs of a query and a positive (Yi et
    al., "Sampling-bias-corrected neural modeling", RecSys 2019). Labels without any training input
    are never negatives. Where all queries have the same positives, none has a negative.

    Args:
        counts_L: int64 [L], training inputs of each label.
    """

    def __init__(self, counts_L: IntArray) -> None:
        counts = torch.from_numpy(counts_L).double()
        self._log_q_L = (counts / counts.sum().clamp_min(1.0)).log().float()

    @override
    def sample(
        self, batch: Batch, queries_BD: Tensor, labels: HasLabels, generator: torch.Generator
    ) -> Negatives:
        return Negatives.of(batch, batch.positives_P[None]).with_log_q(batch, self._log_q_L)
