"""Queries that come as sparse features."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from motherlode.core.features.featurizer import Featurizer, check_width, write_config, wrong_kind
from motherlode.core.queries import FloatArray, IntArray, Queries, SparseQueries


@final
class SparseFeaturesConfig(BaseModel):
    """Settings of ready sparse features.

    Attributes:
        normalize: Scale each query to length 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sparse"] = "sparse"
    normalize: bool = True


@final
class SparseFeaturizer(Featurizer):
    """Sparse features as they come, or scaled to length 1 each; a row of zeros stays."""

    kind: ClassVar[str] = "sparse"

    def __init__(self, config: SparseFeaturesConfig, num_features: int) -> None:
        self._config = config
        self._num_features = num_features

    @property
    @override
    def num_features(self) -> int:
        return self._num_features

    @property
    @override
    def config(self) -> SparseFeaturesConfig:
        return self._config

    @override
    def transform(self, queries: Queries) -> SparseQueries:
        if not isinstance(queries, SparseQueries):
            raise wrong_kind(queries, expected="sparse features")
        check_width(
            "queries.num_features", expected=self._num_features, actual=queries.num_features
        )
        if not self._config.normalize:
            return queries
        rows = np.repeat(np.arange(len(queries)), np.diff(queries.indptr))
        values = scale_rows(rows, queries.values, len(queries))
        return SparseQueries(queries.indptr, queries.indices, values, queries.num_features)

    @override
    def save(self, folder: Path) -> None:
        write_config(folder, self)


# Squares of float32 values are normal float64 values, so that only a row of zeros is shorter.
_TINY = np.finfo(np.float64).tiny


def scale_rows(rows: IntArray, values: FloatArray, num_rows: int) -> FloatArray:
    """float32 [nnz]: values over the length of their row; rows of zeros stay.

    Args:
        rows: int64 [nnz], ascending, the row of each value.
        values: float32 [nnz].
        num_rows: B.
    """
    squares = np.square(values, dtype=np.float64)
    # bincount adds one value after the other, so a row's sum does not depend on its place.
    lengths_B = np.maximum(np.sqrt(np.bincount(rows, squares, num_rows)), _TINY)
    return (values / lengths_B[rows]).astype(np.float32)
