"""Draws by how often a label stands in the training data.

Shapes: B queries in a batch, K draws, L labels.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from motherlode.core.errors import ConfigError
from motherlode.core.queries import IntArray
from motherlode.trainer.negatives.config import DrawsConfig
from motherlode.trainer.negatives.draws import AliasTable
from motherlode.trainer.negatives.sampler import Batch, HasLabels, Negatives, NegativeSampler


@final
class FrequencyConfig(DrawsConfig):
    """A label with n training inputs is drawn in proportion to (n + smoothing)^alpha.

    Attributes:
        alpha: 1 draws by frequency, 0 uniformly.
        smoothing: Inputs that every label is taken to have more than it has. With 0, a label
            without any training input is never drawn, whatever alpha.
    """

    kind: Literal["frequency"] = "frequency"
    alpha: float = Field(default=0.75, ge=0, le=10)
    # A label that is never a positive nor a negative stays where it started, which may be near to
    # any query. So it gets a chance to be pushed away unless the user wants otherwise.
    smoothing: float = Field(default=1.0, ge=0, allow_inf_nan=False)


@final
class FrequencySampler(NegativeSampler):
    """`num_candidates` independent draws, q(y) = (n_y + smoothing)^alpha / sum over all labels.

    Draws are with replacement, by the alias method: constant time each, and `log_q` is exact. A
    label that is drawn twice counts twice, so that a mean over the draws weighted by 1 / q is
    unbiased. The exponent 3/4 is that of Mikolov et al. (NeurIPS 2013).

    Args:
        config: How many, for whom, and the proposal.
        counts_L: int64 [L], training inputs of each label.

    Raises:
        ConfigError: If no label could be drawn.
    """

    def __init__(self, config: FrequencyConfig, counts_L: IntArray) -> None:
        self.config = config
        weights_L = proposal_weights(config, counts_L)
        self._table = AliasTable(weights_L)
        self._log_q_L = (weights_L / weights_L.sum()).log().float()

    @override
    def sample(
        self, batch: Batch, queries_BD: Tensor, labels: HasLabels, generator: torch.Generator
    ) -> Negatives:
        num_rows = 1 if self.config.shared else len(batch.features)
        labels_BK = self._table.draw(num_rows, self.config.num_candidates, generator)
        return Negatives.of(batch, labels_BK).with_log_q(batch, self._log_q_L)


def proposal_weights(config: FrequencyConfig, counts_L: IntArray) -> Tensor:
    """(n + smoothing)^alpha of each label, 0 where n + smoothing is 0: float64 [L].

    The largest is 1, so that no power is too large for a float64.

    Raises:
        ConfigError: If all are 0.
    """
    counts = torch.from_numpy(counts_L).double() + config.smoothing
    if not counts.any():
        raise ConfigError(
            "negatives.smoothing", expected="more than 0 if no label has inputs", actual=0.0
        )
    return (counts / counts.max()).pow(config.alpha).masked_fill_(counts == 0, 0.0)
