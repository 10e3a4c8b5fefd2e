"""What every encoder ends with: an optional residual network, then optional l2 normalisation.

Shapes: B queries, D embedding width, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from motherlode.core.queries import FloatArray

# Matrix products over another number of rows may add in another order. Inference therefore runs
# blocks of one fixed shape, so that an embedding has the same bits alone and in any batch.
BLOCK_ROWS = 16
_LEAST_NORM = np.float32(1e-12)  # as torch.nn.functional.normalize has it


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
        embeddings_BD = self.mix(projected_BD)
        return F.normalize(embeddings_BD, dim=1) if self.config.normalize else embeddings_BD

    def mix(self, projected_BD: Tensor) -> Tensor:
        """What is there before the normalisation: float32 [B, D]."""
        if self.hidden is None or self.out is None:
            return projected_BD
        mixed_BD: Tensor = projected_BD + self.out(F.gelu(self.hidden(projected_BD)))
        return mixed_BD

    def embed(self, projected_BD: FloatArray) -> FloatArray:
        """What `forward` gives, for inference: a row has the same bits alone and in any batch.

        A row whose length is beyond float32 has no direction: it becomes NaN, which no index takes.
        """
        if self.hidden is not None:
            projected_BD = apply_in_blocks(self.mix, projected_BD)
        if not self.config.normalize:
            return projected_BD
        # By NumPy, whose way to the sum is shorter: for one query that is most of the time.
        norms_B = np.sqrt(np.vecdot(projected_BD, projected_BD))
        norms_B[np.isinf(norms_B)] = np.nan
        embeddings_BD: FloatArray = projected_BD / np.maximum(norms_B, _LEAST_NORM)[:, None]
        return embeddings_BD

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


@torch.inference_mode()
def apply_in_blocks(function: Callable[[Tensor], Tensor], rows_BX: FloatArray) -> FloatArray:
    """function(rows) computed in blocks of BLOCK_ROWS rows, the last one padded with zeros."""
    num_rows = len(rows_BX)
    padded = F.pad(as_tensor(rows_BX), (0, 0, 0, -num_rows % BLOCK_ROWS))
    blocks = [function(block) for block in torch.split(padded, BLOCK_ROWS)]
    results: FloatArray = torch.cat(blocks)[:num_rows].numpy()
    return results
