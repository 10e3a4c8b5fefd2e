"""Sparse linear classifiers in compressed rows, mapped from a file.

Shapes: F features, L labels, W weights in all, C labels of one query.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from motherlode.core.array_file import map_arrays
from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import FloatArray, IntArray


@final
class SparseWeights:
    """One row of weights for each label; the last of a row is its bias, as if of a feature F.

    Args:
        indptr: int64 [L + 1], offsets of the rows, none of which is empty.
        indices: int32 [W], features, ascending within a row; the last of each row is F.
        values: float32 [W], finite.
        num_features: F.

    Raises:
        InvalidInputError: If the arrays are no such rows.
    """

    def __init__(
        self,
        indptr: IntArray,
        indices: NDArray[np.int32],
        values: FloatArray,
        num_features: int,
    ) -> None:
        self.indptr = indptr
        self.indices = indices
        self.values = values
        self.num_features = num_features
        self._check()

    @property
    def num_labels(self) -> int:
        """L."""
        return len(self.indptr) - 1

    @property
    def nbytes(self) -> int:
        """Memory of its arrays, in bytes; mapped, it is taken only where rows are used."""
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes

    def margins(self, query_F: FloatArray, labels_C: IntArray) -> FloatArray:
        """float32 [C]: the inner product of one query with the weights of each label.

        Args:
            query_F: float32 [F + 1], the query with 1 at its end.
            labels_C: int64 [C], rows.
        """
        starts_C = self.indptr.take(labels_C)
        lengths_C = self.indptr.take(labels_C + 1) - starts_C
        ends_C = np.cumsum(lengths_C)
        firsts_C = ends_C - lengths_C
        places = np.repeat(starts_C - firsts_C, lengths_C)
        places += np.arange(len(places))
        products = query_F.take(self.indices.take(places))
        products *= self.values.take(places)
        margins_C: FloatArray = np.add.reduceat(products, firsts_C)
        return margins_C

    def save(self, path: Path, frequencies_L: IntArray) -> None:
        """Writes the arrays, with the labels' frequencies, as a safetensors file.

        Raises:
            OSError: If the file cannot be written.
        """
        arrays = {
            "indptr": self.indptr,
            "indices": self.indices,
            "values": self.values,
            "frequencies": frequencies_L,
        }
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)

    @classmethod
    def load(cls, path: Path, num_features: int) -> tuple[SparseWeights, IntArray]:
        """What `save` wrote, mapped: the weights, and int64 [L] frequencies.

        Raises:
            BundleError: If the file cannot be read or holds no such rows.
        """
        arrays = map_arrays(path)
        try:
            parts = arrays["indptr"], arrays["indices"], arrays["values"]
            weights = cls(*parts, num_features)
            frequencies_L = arrays["frequencies"]
        except (KeyError, InvalidInputError) as error:
            raise BundleError(path, f"no sparse linear classifiers: {error}") from error
        if frequencies_L.dtype != np.int64 or frequencies_L.shape != (weights.num_labels,):
            raise BundleError(path, f"frequencies: expected int64 [{weights.num_labels}]")
        return weights, frequencies_L

    def _check(self) -> None:
        for name, array, dtype in (
            ("indptr", self.indptr, np.int64),
            ("indices", self.indices, np.int32),
            ("values", self.values, np.float32),
        ):
            if array.ndim != 1 or array.dtype != dtype:
                expected = f"a row of {np.dtype(dtype).name}"
                raise InvalidInputError(name, expected=expected, actual=f"{array.dtype}")
        if not (len(self.indptr) > 1 and self.indptr[0] == 0 and np.diff(self.indptr).min() > 0):
            expected = "offsets from 0 of one or more rows, none empty"
            raise InvalidInputError("indptr", expected=expected, actual="others")
        num_weights = int(self.indptr[-1])
        if not len(self.indices) == len(self.values) == num_weights:
            actual = f"{len(self.indices)} indices and {len(self.values)} values"
            raise InvalidInputError("indices", expected=f"{num_weights} of both", actual=actual)
        in_range = self.indices.min() >= 0 and self.indices.max() == self.num_features
        if not in_range or (self.indices[self.indptr[1:] - 1] != self.num_features).any():
            expected = f"0 to {self.num_features}, which ends each row"
            raise InvalidInputError("indices", expected=expected, actual="others")
