"""An encoder of dense features: one linear projection, then the head.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

from typing import ClassVar, Literal, final

from torch import Tensor
from typing_extensions import override

from motherlode.core.encoders.encoder import EncoderConfig, QueryEncoder
from motherlode.core.encoders.head import Head, apply_in_blocks, as_tensor
from motherlode.core.queries import DenseQueries, Features, FloatArray


class DenseEncoderConfig(EncoderConfig):
    """Configuration of a dense encoder."""

    kind: Literal["dense"] = "dense"


@final
class DenseEncoder(QueryEncoder):
    """head(features @ table).

    Args:
        config: Width and head.
        table_FD: float32 [F, D], one row a feature; used as it is, not copied.
        head: What follows the projection.
    """

    kind: ClassVar[str] = "dense"

    def __init__(self, config: DenseEncoderConfig, table_FD: Tensor, head: Head) -> None:
        self.config = config
        self.table_FD = table_FD
        self.head = head

    @override
    def project(self, features: Features, table_FD: Tensor) -> Tensor:
        assert isinstance(features, DenseQueries)
        return as_tensor(features.features_BF).to(table_FD.device) @ table_FD

    @override
    def encode(self, features: Features) -> FloatArray:
        assert isinstance(features, DenseQueries)
        return self.head.embed(apply_in_blocks(self._project_block, features.features_BF))

    def _project_block(self, rows_BF: Tensor) -> Tensor:
        return rows_BF @ self.table_FD
