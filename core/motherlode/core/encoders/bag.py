"""An encoder of sparse features: a weighted sum of feature embeddings, then the head.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from motherlode.core.encoders.encoder import EncoderConfig, QueryEncoder
from motherlode.core.encoders.head import Head, apply_in_blocks, as_tensor
from motherlode.core.queries import Features, FloatArray, SparseQueries


class BagEncoderConfig(EncoderConfig):
    """Configuration of a bag encoder."""

    kind: Literal["bag"] = "bag"


@final
class BagEncoder(QueryEncoder):
    """head(sum over features f of value_f * table[f]).

    Args:
        config: Width and head.
        table_FD: float32 [F, D], one row a feature; used as it is, not copied.
        head: What follows the sum.
    """

    kind: ClassVar[str] = "bag"

    def __init__(self, config: BagEncoderConfig, table_FD: Tensor, head: Head) -> None:
        self.config = config
        self.table_FD = table_FD
        self.head = head

    @override
    def project(self, features: Features, table_FD: Tensor) -> Tensor:
        assert isinstance(features, SparseQueries)
        if len(features.indices) == 0:
            return table_FD.new_zeros(len(features), self.width)
        return F.embedding_bag(
            as_tensor(features.indices),
            table_FD,
            as_tensor(features.indptr),
            mode="sum",
            per_sample_weights=as_tensor(features.values),
            include_last_offset=True,
        )

    @override
    @torch.inference_mode()
    def encode(self, features: Features) -> FloatArray:
        embeddings: FloatArray = apply_in_blocks(
            self.head, self.project(features, self.table_FD)
        ).numpy()
        return embeddings
