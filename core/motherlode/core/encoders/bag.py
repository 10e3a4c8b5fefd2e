"""An encoder of sparse features: a weighted sum of feature embeddings, then the head.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
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
        projected_BD: Tensor = _WeightedSums.apply(table_FD, features)  # type: ignore[no-untyped-call]
        return projected_BD

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


class _WeightedSums(Function):
    """What `project` gives. The gradient of the table is the same product, by columns.

    That adds each row up in one go, in the order of the queries: what PyTorch does for the
    gradient of an embedding bag takes ten times as long. There are no second derivatives.
    """

    @staticmethod
    @override
    def forward(ctx: Any, table_FD: Tensor, features: SparseQueries) -> Tensor:
        ctx.features = features
        ctx.num_features = len(table_FD)
        return _sums(table_FD, features.indptr, features.indices, features.values)

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, gradients_BD: Tensor) -> tuple[Tensor, None]:
        features = ctx.features
        by_row = csr_array(
            (features.values, features.indices, features.indptr),
            shape=(len(features), ctx.num_features),
        )
        by_column = by_row.tocsc()
        return _sums(gradients_BD, by_column.indptr, by_column.indices, by_column.data), None


def _sums(
    table_RD: Tensor, indptr: NDArray[Any], indices: NDArray[Any], values: FloatArray
) -> Tensor:
    return F.embedding_bag(
        as_tensor(indices).to(table_RD.device),
        table_RD,
        as_tensor(indptr).to(table_RD.device),
        mode="sum",
        per_sample_weights=as_tensor(values).to(table_RD.device),
        include_last_offset=True,
    )
