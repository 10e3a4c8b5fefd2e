"""How much of a label's text a query has.

Shapes: L labels, T features of all label texts, B queries, N hits in all, Q features of one query.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.compressed_rows import check_compressed_rows, entries_of
from motherlode.core.queries import FloatArray, IntArray, SparseQueries
from motherlode.core.topk import TopK


@final
class LabelTexts:
    """The features of each label's text, without their weights.

    Args:
        offsets_L: int64 [L + 1], ascending; the features of label i are those from offsets_L[i] to
            offsets_L[i + 1].
        features_T: int32 [T], distinct within a label.
        num_features: F.

    Raises:
        InvalidInputError: If the arrays are of other types or sizes; names the one at fault.
    """

    def __init__(
        self, offsets_L: IntArray, features_T: NDArray[np.int32], num_features: int
    ) -> None:
        self.offsets_L = offsets_L
        self.features_T = features_T
        self.num_features = num_features
        check_compressed_rows(
            ("text_offsets", offsets_L), ("text_features", features_T), num_features
        )

    @classmethod
    def of(cls, texts: SparseQueries) -> Self:
        """Those of L featurised texts."""
        return cls(texts.indptr, texts.indices.astype(np.int32), texts.num_features)

    @classmethod
    def none(cls, num_labels: int, num_features: int) -> Self:
        """Those of labels without texts."""
        return cls(np.zeros(num_labels + 1, np.int64), np.empty(0, np.int32), num_features)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], num_features: int) -> Self:
        """Those of what `arrays` gave.

        Raises:
            KeyError: If one is missing.
            InvalidInputError: As the class.
        """
        return cls(arrays["text_offsets"], arrays["text_features"], num_features)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All, by name."""
        return {"text_offsets": self.offsets_L, "text_features": self.features_T}

    @property
    def num_labels(self) -> int:
        """L."""
        return len(self.offsets_L) - 1

    @property
    def nbytes(self) -> int:
        """Memory of its arrays, in bytes."""
        return self.offsets_L.nbytes + self.features_T.nbytes

    def shares(self, shortlist: TopK, queries: SparseQueries) -> FloatArray:
        """float32 [N]: the share of the features of each hit's text that its query has.

        It is 0 where the text has none.
        """
        offsets_N, entries = entries_of(self.offsets_L, shortlist.labels)
        features = self.features_T.take(entries)
        # How many of all up to each place their queries have, with a 0 before the first.
        found = np.zeros(len(features) + 1, np.int64)
        of_query = offsets_N.take(shortlist.offsets).tolist()
        is_there_F = np.zeros(self.num_features, np.bool_)
        for i in range(len(shortlist)):
            indices_Q = queries.indices[queries.indptr[i] : queries.indptr[i + 1]]
            is_there_F[indices_Q] = True
            hits = slice(of_query[i], of_query[i + 1])
            found[1:][hits] = is_there_F.take(features[hits])
            is_there_F[indices_Q] = False
        np.cumsum(found, out=found)
        counts_N = np.diff(found.take(offsets_N))
        shares_N: FloatArray = (counts_N / np.maximum(np.diff(offsets_N), 1)).astype(np.float32)
        return shares_N

    def with_texts(self, texts: SparseQueries) -> LabelTexts:
        """The same with more labels, of these featurised texts."""
        offsets_L = np.concatenate([self.offsets_L, self.offsets_L[-1] + texts.indptr[1:]])
        features_T = np.concatenate([self.features_T, texts.indices.astype(np.int32)])
        return LabelTexts(offsets_L, features_T, self.num_features)
