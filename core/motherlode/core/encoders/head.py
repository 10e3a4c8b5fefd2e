"""What every encoder ends with: an optional residual network, then optional l2 normalisation.

Shapes: B queries, D embedding width, H hidden units.
"""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

# Matrix products over another number of rows may add in another order. Inference therefore runs
# blocks of one fixed shape, so that an embedding has the same bits alone and in any batch.
BLOCK_ROWS = 16


class HeadConfig(BaseModel):
    """The part after the projection of the features."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: int = Field(
        default=0, ge=0, description="units of the residual network; 0 leaves it out"
    )
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="on the projected features")
    normalize: bool = Field(default=True, description="unit l2 norm, so that scores are cosines")


@final
class Head(nn.Module):
    """x -> normalise(x + W2 gelu(W1 x + b1) + b2)."""

    def __init__(self, width: int, config: HeadConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(width, config.hidden) if config.hidden else None
        self.out = nn.Linear(config.hidden, width) if config.hidden else None
        if self.hidden is not None and self.out is not None:
            bound = math.sqrt(1.0 / width)
            nn.init.uniform_(self.hidden.weight, -bound, bound, generator=generator)
            nn.init.zeros_(self.hidden.bias)
            # A residual branch that starts at zero leaves the start of training to the tables.
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    @override
    def forward(self, projected_BD: Tensor) -> Tensor:
        embeddings_BD = projected_BD
        if self.hidden is not None and self.out is not None:
            embeddings_BD = embeddings_BD + self.out(F.gelu(self.hidden(embeddings_BD)))
        return F.normalize(embeddings_BD, dim=1) if self.config.normalize else embeddings_BD

    def drop(self, projected_BD: Tensor, generator: torch.Generator) -> Tensor:
        """Inverted dropout with the run's own generator: float32 [B, D]."""
        if not self.config.dropout:
            return projected_BD
        keep = 1.0 - self.config.dropout
        mask_BD = torch.empty_like(projected_BD).bernoulli_(keep, generator=generator)
        return projected_BD * mask_BD.div_(keep)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """The array as a tensor, without a copy where that is possible.

    PyTorch warns about arrays that cannot be written to, such as mapped ones; those are copied.
    """
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def apply_in_blocks(function: nn.Module, rows_BX: Tensor) -> Tensor:
    """function(rows) computed in blocks of BLOCK_ROWS rows, the last one padded with zeros."""
    num_rows = len(rows_BX)
    padding = -num_rows % BLOCK_ROWS
    padded = F.pad(rows_BX, (0, 0, 0, padding)) if padding else rows_BX
    blocks = [function(block) for block in torch.split(padded, BLOCK_ROWS)]
    return torch.cat(blocks)[:num_rows] if len(blocks) != 1 else blocks[0][:num_rows]
