"""Sparse linear classifiers of labels, mapped from a file.

Weights stand feature by feature and not label by label: a frequent label has a weight for almost
every feature, a query has few. So the weights of a query's features are looked up, and the cost of
a query does not depend on how many weights its hits have.

Shapes: F features, L labels, W weights in all, Q features of one query, C labels of one query.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from motherlode.core.array_file import check_row, map_arrays
from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import FloatArray, IntArray
from motherlode.core.rankers.frequent_features import FrequentFeatures

# Memory of one look-up stays some megabytes, however long the query and the shortlist.
_BLOCK_FEATURES = 64
_BLOCK_LABELS = 1 << 13
_BLOCK_WEIGHTS = 1 << 20


@final
class SparseWeights:
    """A weight for some pairs of a feature and a label, 0 for all others, and a bias of each label.

    Args:
        keys_W: int64 [W], feature * L + label of each weight, ascending.
        values_W: float32 [W].
        biases_L: float32 [L].
        num_features: F.

    Raises:
        InvalidInputError: If the arrays are of other types or sizes; names the one at fault.
    """

    def __init__(
        self, keys_W: IntArray, values_W: FloatArray, biases_L: FloatArray, num_features: int
    ) -> None:
        self.keys_W = keys_W
        self.values_W = values_W
        self.biases_L = biases_L
        self.num_features = num_features
        self._check()

    @property
    def num_labels(self) -> int:
        """L."""
        return len(self.biases_L)

    @cached_property
    def _frequent(self) -> FrequentFeatures:
        # Made by the first query, and not before what is read from a file has been checked.
        return FrequentFeatures(self.keys_W, self.num_features, self.num_labels)

    @property
    def nbytes(self) -> int:
        """Memory in bytes; of the mapped arrays it is taken only where features are used."""
        arrays = self.keys_W, self.values_W, self.biases_L
        return sum(array.nbytes for array in arrays) + self._frequent.nbytes

    def margins(self, indices_Q: IntArray, values_Q: FloatArray, labels_C: IntArray) -> FloatArray:
        """float32 [C]: bias and inner product with the weights of each label, of one query.

        The bits of a margin depend on the query and its label alone.

        Args:
            indices_Q: int64 [Q], the query's features, ascending.
            values_Q: float32 [Q], their values.
            labels_C: int64 [C], rows.
        """
        margins_C: FloatArray = self.biases_L.take(labels_C)
        # What is looked up in order is found faster.
        order_C = np.argsort(labels_C)
        for i in range(0, len(labels_C), _BLOCK_LABELS):
            chosen = order_C[i : i + _BLOCK_LABELS]
            # Where a block of features begins decides bits, so it hangs on nothing else.
            for j in range(0, len(indices_Q), _BLOCK_FEATURES):
                block = slice(j, j + _BLOCK_FEATURES)
                weights_QC = self._look_up(indices_Q[block], labels_C[chosen])
                weights_QC *= values_Q[block, None]
                # Row by row: a sum of a single column would be made pairwise, and round otherwise.
                margins_C[chosen] += np.add.accumulate(weights_QC, axis=0)[-1]
        return margins_C

    def _look_up(self, indices_Q: IntArray, labels_C: IntArray) -> FloatArray:
        """float32 [Q, C]: the weight of each pair."""
        weights_QC = np.zeros((len(indices_Q), len(labels_C)), np.float32)
        if len(self.keys_W) > 0:
            is_frequent_Q = self._frequent.are_frequent(indices_Q)
            for chosen_Q, places in (
                (is_frequent_Q, self._frequent.places),
                (~is_frequent_Q, self._search),
            ):
                places_RC, has_weight_RC = places(indices_Q[chosen_Q], labels_C)
                weights_QC[chosen_Q] = self.values_W.take(places_RC) * has_weight_RC
        return weights_QC

    def _search(
        self, indices_R: IntArray, labels_C: IntArray
    ) -> tuple[IntArray, NDArray[np.bool_]]:
        """As `FrequentFeatures.places`, by binary search."""
        wanted_RC = indices_R[:, None] * self.num_labels + labels_C
        places_RC = self.keys_W.searchsorted(wanted_RC.ravel()).reshape(wanted_RC.shape)
        np.minimum(places_RC, len(self.keys_W) - 1, out=places_RC)
        return places_RC, self.keys_W.take(places_RC) == wanted_RC

    def with_labels(self, num_more: int) -> SparseWeights:
        """The same with so many more labels, which have neither weights nor bias."""
        features_W, labels_W = np.divmod(self.keys_W, self.num_labels)
        biases_L = np.concatenate([self.biases_L, np.zeros(num_more, np.float32)])
        keys_W = features_W * len(biases_L) + labels_W
        return SparseWeights(keys_W, self.values_W, biases_L, self.num_features)

    def save(self, path: Path, beside: Mapping[str, NDArray[Any]]) -> None:
        """Writes the arrays, and others beside them, as a safetensors file.

        Raises:
            OSError: If the file cannot be written.
        """
        own = {"keys": self.keys_W, "values": self.values_W, "biases": self.biases_L}
        arrays = {name: np.ascontiguousarray(array) for name, array in {**own, **beside}.items()}
        save_file(arrays, path)

    @classmethod
    def load(cls, path: Path, num_features: int) -> tuple[SparseWeights, dict[str, NDArray[Any]]]:
        """What `save` wrote, mapped: the weights, and all arrays of the file.

        Raises:
            BundleError: If the file cannot be read or holds no such arrays.
        """
        arrays = map_arrays(path)
        try:
            weights = cls(arrays["keys"], arrays["values"], arrays["biases"], num_features)
        except (KeyError, InvalidInputError) as error:
            raise BundleError(path, f"no sparse linear classifiers: {error}") from error
        _check_content(path, weights)
        return weights, arrays

    def _check(self) -> None:
        check_row("keys", self.keys_W, np.int64)
        check_row("values", self.values_W, np.float32)
        check_row("biases", self.biases_L, np.float32)
        if len(self.keys_W) != len(self.values_W):
            expected = f"{len(self.keys_W)}, one of each key"
            raise InvalidInputError("values", expected=expected, actual=len(self.values_W))
        num_pairs = self.num_features * self.num_labels
        if len(self.keys_W) and not 0 <= self.keys_W[0] <= self.keys_W[-1] < num_pairs:
            expected = f"0 to {num_pairs - 1}, ascending"
            raise InvalidInputError("keys", expected=expected, actual=self.keys_W[[0, -1]].tolist())


def _check_content(path: Path, weights: SparseWeights) -> None:
    """Refuses what cannot be looked up, or would make scores that are no numbers."""
    if not np.isfinite(weights.biases_L).all():
        raise BundleError(path, "biases: one is not finite")
    for start in range(0, len(weights.keys_W), _BLOCK_WEIGHTS):
        # One more, so that the last of a block is compared with the first of the next.
        keys_W = weights.keys_W[start : start + _BLOCK_WEIGHTS + 1]
        if (keys_W[1:] <= keys_W[:-1]).any():
            raise BundleError(path, "keys: expected them to ascend")
        if not np.isfinite(weights.values_W[start : start + _BLOCK_WEIGHTS]).all():
            raise BundleError(path, "values: one is not finite")
