"""An encoder of sparse features: a weighted sum of feature embeddings, then the head.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal, final

import numpy as np
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from motherlode.core.encoders.encoder import EncoderConfig, QueryEncoder
from motherlode.core.encoders.head import Head, as_tensor
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
        # The same memory; to ask PyTorch for it takes longer than to encode a short query.
        self._rows_FD: FloatArray = table_FD.numpy()

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
    def encode(self, features: Features) -> FloatArray:
        assert isinstance(features, SparseQueries)
        projected_BD = np.empty((len(features), self.width), np.float32)
        for row, (start, stop) in enumerate(pairwise(features.indptr.tolist())):
            # Added up one feature after the other, so that the bits do not depend on the batch.
            terms_ND = self._rows_FD.take(features.indices[start:stop], axis=0)
            terms_ND *= features.values[start:stop, None]
            terms_ND.sum(axis=0, out=projected_BD[row])
        return self.head.embed(projected_BD)
