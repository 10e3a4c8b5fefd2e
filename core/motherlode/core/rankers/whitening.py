"""Features projected on their principal components, each at unit variance.

Shapes: B queries, F features, K components.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix
from torch import Tensor

from motherlode.core.encoders.head import apply_in_blocks, as_tensor
from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import DenseQueries, Features, FloatArray


@final
class Whitening:
    """x -> x @ table - offset, where the offset is the projected mean of the training features.

    May be used by several threads at once.

    Args:
        table_FK: float32 [F, K], principal directions over the standard deviations along them.
        offset_K: float32 [K].

    Raises:
        InvalidInputError: If the arrays do not fit together or are not finite.
    """

    def __init__(self, table_FK: FloatArray, offset_K: FloatArray) -> None:
        _check_arrays(table_FK, offset_K)
        self.table_FK = table_FK
        self.offset_K = offset_K
        self._table = as_tensor(table_FK)

    @property
    def num_features(self) -> int:
        """F."""
        return len(self.table_FK)

    @property
    def num_components(self) -> int:
        """K."""
        return len(self.offset_K)

    @property
    def nbytes(self) -> int:
        """Memory of its arrays, in bytes."""
        return self.table_FK.nbytes + self.offset_K.nbytes

    def transform(self, features: Features) -> FloatArray:
        """Projected queries: float32 [B, K]; a row has the same bits alone and in any batch.

        Raises:
            InvalidInputError: If the number of features is not F.
        """
        _check_width(features, self.num_features)
        if isinstance(features, DenseQueries):
            projected_BK = apply_in_blocks(self._project_block, features.features_BF)
        else:
            parts = (features.values, features.indices, features.indptr)
            # SciPy adds up a row's features one after the other, whatever the other rows are.
            matrix = csr_matrix(parts, shape=(len(features), self.num_features))
            projected_BK = np.asarray(matrix @ self.table_FK, np.float32)
        return projected_BK - self.offset_K

    def save(self, path: Path) -> None:
        """Writes the arrays as a safetensors file.

        Raises:
            OSError: If the file cannot be written.
        """
        table_FK = np.ascontiguousarray(self.table_FK)
        save_file({"table": table_FK, "offset": np.ascontiguousarray(self.offset_K)}, path)

    @classmethod
    def load(cls, path: Path) -> Whitening:
        """What `save` wrote.

        Raises:
            BundleError: If the file cannot be read or holds something else.
        """
        try:
            arrays = load_file(path)
            return cls(arrays["table"], arrays["offset"])
        except (OSError, KeyError, SafetensorError, InvalidInputError) as error:
            raise BundleError(path, f"not a whitening: {error}") from error

    def _project_block(self, rows_BF: Tensor) -> Tensor:
        return rows_BF @ self._table


def _check_width(features: Features, num_features: int) -> None:
    if isinstance(features, DenseQueries):
        width = int(features.features_BF.shape[1])
    else:
        width = features.num_features
    if width != num_features:
        raise InvalidInputError("features", expected=f"{num_features} features", actual=width)


def _check_arrays(table_FK: FloatArray, offset_K: FloatArray) -> None:
    if table_FK.dtype != np.float32 or table_FK.ndim != 2 or 0 in table_FK.shape:
        actual = f"{table_FK.dtype} {list(table_FK.shape)}"
        expected = "float32 [features, components]"
        raise InvalidInputError("whitening.table", expected=expected, actual=actual)
    if offset_K.dtype != np.float32 or offset_K.shape != table_FK.shape[1:]:
        actual = f"{offset_K.dtype} {list(offset_K.shape)}"
        expected = f"float32 [{table_FK.shape[1]}]"
        raise InvalidInputError("whitening.offset", expected=expected, actual=actual)
    for name, array in (("table", table_FK), ("offset", offset_K)):
        if not np.isfinite(array).all():
            raise InvalidInputError(f"whitening.{name}", expected="finite numbers", actual=array)
