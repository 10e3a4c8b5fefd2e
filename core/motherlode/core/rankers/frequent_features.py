"""Where the weights of features stand that very many labels have: bitmaps that can be counted.

A bitmap says which labels have a weight; how many have one before a label is how far its weight
stands from the feature's first (Jacobson, "Space-efficient Static Trees and Graphs", FOCS 1989).
So a weight is found in a few steps, where a binary search takes twenty.

Shapes: F features, L labels, W weights in all, S features with a bitmap, V words of a bitmap, R
features that are asked for, C labels.
"""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.queries import IntArray

_BITS = 64
_HIGHEST_BIT = np.uint64(1 << (_BITS - 1))
# Bitmaps of rarer features would take more than the keys that they save searching.
_LABELS_A_WEIGHT = 128


@final
class FrequentFeatures:
    """Bitmaps of the features that have a weight of at least one label in 128.

    Args:
        keys_W: int64 [W], feature * L + label of each weight, ascending.
        num_features: F.
        num_labels: L.
    """

    def __init__(self, keys_W: IntArray, num_features: int, num_labels: int) -> None:
        self._starts_F = keys_W.searchsorted(np.arange(num_features + 1) * num_labels)
        weights_F = np.diff(self._starts_F)
        features_S = np.flatnonzero(weights_F * _LABELS_A_WEIGHT >= num_labels)
        self._slots_F = np.full(num_features, -1)
        self._slots_F[features_S] = np.arange(len(features_S))
        self._num_words = -(-num_labels // _BITS)
        self._words_SV = np.zeros((len(features_S), self._num_words), np.uint64)
        for words_V, feature in zip(self._words_SV, features_S, strict=True):
            keys = keys_W[self._starts_F[feature] : self._starts_F[feature + 1]]
            words_V[:] = _bitmap(keys - feature * num_labels, self._num_words)
        counts_SV = np.bitwise_count(self._words_SV)
        self._before_SV = np.cumsum(counts_SV, axis=1, dtype=np.int32) - counts_SV

    @property
    def nbytes(self) -> int:
        """Memory of all, in bytes."""
        return sum(
            array.nbytes
            for array in (self._starts_F, self._slots_F, self._words_SV, self._before_SV)
        )

    def are_frequent(self, features_R: IntArray) -> NDArray[np.bool_]:
        """Which of the features have a bitmap: bool [R]."""
        return self._slots_F.take(features_R) >= 0

    def places(
        self, features_R: IntArray, labels_C: IntArray
    ) -> tuple[IntArray, NDArray[np.bool_]]:
        """Where the weight of each pair stands, and whether there is one.

        Args:
            features_R: int64 [R], each with a bitmap.
            labels_C: int64 [C].

        Returns:
            int64 [R, C] in 0 to W - 1; bool [R, C].
        """
        first_R1 = self._slots_F.take(features_R)[:, None] * self._num_words
        at_RC = first_R1 + labels_C // _BITS
        # The label's own bit becomes the highest; those of later labels are shifted out.
        words_RC = self._words_SV.take(at_RC) << (~labels_C % _BITS).astype(np.uint64)
        places_RC = self._starts_F.take(features_R)[:, None] + self._before_SV.take(at_RC)
        places_RC += np.bitwise_count(words_RC)
        return np.maximum(places_RC - 1, 0), words_RC >= _HIGHEST_BIT


def _bitmap(labels: IntArray, num_words: int) -> NDArray[np.uint64]:
    """uint64 [num_words]: label i as bit i % 64 of word i // 64."""
    bits = np.zeros(num_words * _BITS, np.bool_)
    bits[labels] = True
    return np.packbits(bits, bitorder="little").view("<u8")
