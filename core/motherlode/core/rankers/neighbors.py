"""The labels of the training queries that are most like a query.

What several of a query's neighbours have is likely its own too, whatever a linear classifier of it
says (the nearest-neighbour rule of Cover and Hart, 1967, beside a model, as kNN-LM has it:
Khandelwal et al., ICLR 2020). Only labels that are hits of the index anyway are judged by it.

Shapes: B queries, D embedding width, T training queries, P their positives in all, K neighbours of
a query, C hits of one query, N hits in all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import save_file

from motherlode.core.array_file import map_arrays
from motherlode.core.compressed_rows import check_compressed_rows, entries_of
from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.index import HnswConfig, LabelIndex, build_index, load_index
from motherlode.core.queries import FloatArray, IntArray
from motherlode.core.topk import TopK

NEIGHBORS_FILE = "neighbors.safetensors"
NEIGHBORS_INDEX_FILE = "neighbors.faiss"
# Each squares a neighbour's nearness: so it counts by the eighth power of its cosine.
_SQUARINGS = 3
# More take memory in every search, and say no more.
MOST_NEIGHBORS = 1000
_ROUNDING = 1e-3


@final
class NeighborsConfig(BaseModel):
    """How neighbours are found.

    Attributes:
        count: K, or all training queries if they are fewer.
        index: What finds them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(ge=1, le=MOST_NEIGHBORS)
    index: HnswConfig = HnswConfig(num_neighbors=16)


@final
class Neighbors:
    """Training queries, found by their embeddings, with the labels of each.

    Args:
        config: Of the search.
        index: Over the embeddings of the training queries, each of length 1 or 0.
        offsets_T: int64 [T + 1], ascending; the labels of training query i are those from
            offsets_T[i] to offsets_T[i + 1].
        labels_P: int32 [P], distinct within a training query.
        num_labels: L.

    Raises:
        InvalidInputError: If the arrays are of other types or sizes; names the one at fault.
    """

    def __init__(
        self,
        config: NeighborsConfig,
        index: LabelIndex,
        offsets_T: IntArray,
        labels_P: NDArray[np.int32],
        num_labels: int,
    ) -> None:
        check_compressed_rows(("offsets", offsets_T), ("labels", labels_P), num_labels)
        if index.labels.norm > 1 + _ROUNDING:
            expected = "rows of length 1 or 0"
            raise InvalidInputError("embeddings", expected=expected, actual=index.labels.norm)
        if len(offsets_T) - 1 != index.num_labels:
            expected = f"{index.num_labels}, one of each embedding"
            raise InvalidInputError("offsets", expected=expected, actual=len(offsets_T) - 1)
        self.config = config
        self.num_labels = num_labels
        self._index = index
        self._offsets_T = offsets_T
        self._labels_P = labels_P

    @classmethod
    def build(
        cls,
        config: NeighborsConfig,
        embeddings_TD: FloatArray,
        offsets_T: IntArray,
        labels_P: IntArray,
        num_labels: int,
        *,
        seed: int,
    ) -> Neighbors:
        """Those of some training queries.

        Args:
            config: Of the search.
            embeddings_TD: float32 [T, D], of any lengths.
            offsets_T: As of the class.
            labels_P: int64 [P], likewise.
            num_labels: L.
            seed: Of the index.
        """
        lengths_T = np.linalg.norm(embeddings_TD, axis=1)
        units_TD = embeddings_TD / np.where(lengths_T > 0, lengths_T, 1)[:, None]
        index = build_index(config.index, units_TD.astype(np.float32), seed=seed)
        return cls(config, index, offsets_T, labels_P.astype(np.int32), num_labels)

    @property
    def width(self) -> int:
        """D."""
        return int(self._index.width)

    @property
    def nbytes(self) -> int:
        """Memory in bytes; of the mapped arrays it is taken only where they are used."""
        embeddings_TD = self._index.labels.labels_LD
        of_labels = self._offsets_T.nbytes + self._labels_P.nbytes
        return self._index.predicted_bytes + embeddings_TD.nbytes + of_labels

    def shares(self, shortlist: TopK, embeddings_BD: FloatArray) -> FloatArray:
        """float32 [N]: how much the neighbours with the label count, as a share of all neighbours.

        A neighbour counts by the eighth power of its cosine with the query, and not at all where
        that is negative. The bits of a share depend on the query and its label alone.

        Args:
            shortlist: Hits.
            embeddings_BD: float32 [B, D], those of their queries.
        """
        found = self._index.search(embeddings_BD, self.config.count)
        weights_BK = _weights(found.scores.reshape(len(found), -1))
        rows_BK, offsets = found.labels.reshape(weights_BK.shape), shortlist.offsets.tolist()
        shares_N = np.empty(len(shortlist.labels), np.float32)
        # Where a label stands among the hits of a query, from 1 on; 0 for all that are none.
        places_L = np.zeros(self.num_labels, np.int64)
        for i in range(len(shortlist)):
            labels_C = shortlist.labels[offsets[i] : offsets[i + 1]]
            places_L[labels_C] = np.arange(1, len(labels_C) + 1)
            places, weights = self._votes(rows_BK[i], weights_BK[i], places_L)
            counts = np.bincount(places, weights, minlength=len(labels_C) + 1)
            shares_N[offsets[i] : offsets[i + 1]] = counts[1:]
            places_L[labels_C] = 0
        return shares_N

    def _votes(
        self, rows_K: IntArray, weights_K: NDArray[np.float64], places_L: IntArray
    ) -> tuple[IntArray, NDArray[np.float64]]:
        """The place of each label of each neighbour, and what that neighbour counts."""
        offsets_K, entries = entries_of(self._offsets_T, rows_K)
        weights = np.repeat(weights_K, np.diff(offsets_K))
        return places_L.take(self._labels_P.take(entries)), weights

    def with_labels(self, num_more: int) -> Neighbors:
        """The same with so many more labels, which no training query has."""
        num_labels = self.num_labels + num_more
        return Neighbors(self.config, self._index, self._offsets_T, self._labels_P, num_labels)

    def save(self, folder: Path) -> None:
        """Writes its two files into an existing folder.

        Raises:
            OSError: If a file cannot be written.
            RuntimeError: Likewise, as FAISS has it.
        """
        arrays: dict[str, NDArray[Any]] = {
            "embeddings": self._index.labels.labels_LD,
            "offsets": np.ascontiguousarray(self._offsets_T),
            "labels": self._labels_P,
        }
        save_file(arrays, folder / NEIGHBORS_FILE)
        self._index.save(folder / NEIGHBORS_INDEX_FILE)

    @classmethod
    def load(cls, config: NeighborsConfig, folder: Path, num_labels: int) -> Neighbors:
        """What `save` wrote, mapped.

        Raises:
            BundleError: If a file is missing, damaged, or does not fit the others.
        """
        path = folder / NEIGHBORS_FILE
        arrays = map_arrays(path)
        try:
            embeddings_TD, offsets, labels = (
                arrays[n] for n in ("embeddings", "offsets", "labels")
            )
            index = load_index(
                config.index, folder / NEIGHBORS_INDEX_FILE, embeddings_TD, mmap=True
            )
            return cls(config, index, offsets, labels, num_labels)
        except (KeyError, InvalidInputError) as error:
            raise BundleError(path, f"no training queries with labels: {error}") from error


def _weights(scores_BK: FloatArray) -> NDArray[np.float64]:
    """float64 [B, K]: what each neighbour counts, in all 1; 0 if none is on the query's side.

    Relative to the nearest, so that the length of the query's embedding does not matter.
    """
    weights_BK = np.maximum(scores_BK, 0).astype(np.float64)
    nearest_B1 = weights_BK.max(axis=1, keepdims=True)
    weights_BK /= np.where(nearest_B1 > 0, nearest_B1, 1)
    for _ in range(_SQUARINGS):
        weights_BK *= weights_BK
    total_B1 = weights_BK.sum(axis=1, keepdims=True)
    weights_BK /= np.where(total_B1 > 0, total_B1, 1)
    return weights_BK
