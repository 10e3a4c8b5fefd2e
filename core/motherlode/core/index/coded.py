"""The index families that hold a short code of each label, and compare exactly with the best few.

A code gives a score that is only nearly right, so several candidates are proposed for each hit
wanted: `refine` of the config says how many.

Shapes: B queries, L labels in all, A labels allowed, D embedding width, W width of vectors.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from motherlode.core.errors import BundleError
from motherlode.core.index import codes, faiss
from motherlode.core.index.config import IvfConfig, IvfFlatConfig, ScanConfig, candidates_for
from motherlode.core.index.facts import expect, expect_form
from motherlode.core.index.filter import mask_of, num_probes
from motherlode.core.index.index import MARGIN, LabelEmbeddings, LabelIndex, Shortlist
from motherlode.core.index.vectors import (
    as_long_as_labels,
    widened,
    with_even_lengths,
)
from motherlode.core.queries import FloatArray, IntArray

# Share of the labels of which the exact scores cost about as much as all codes.
_FEW_ALLOWED = 1 / 8
# Labels that a filter keeps out, of which so many more candidates are cheaper than an exact scan.
_FEW_DENIED = 1000


@final
class ScanIndex(LabelIndex):
    """Compares each query with the codes of all labels."""

    kind: ClassVar[str] = "scan"
    config: ScanConfig

    @classmethod
    def build(cls, config: ScanConfig, labels: LabelEmbeddings, *, seed: int) -> ScanIndex:
        """See `build_index`."""
        width = codes.padded_width(labels.width)
        index = codes.new_codes(config, width)
        return cls(config, codes.fill(index, widened(labels.labels_LD, width), seed=seed), labels)

    @classmethod
    def load(
        cls, config: ScanConfig, path: Path, labels: LabelEmbeddings, *, mmap: bool
    ) -> ScanIndex:
        """See `load_index`."""
        index = faiss.read(path, mmap=mmap)
        width = codes.padded_width(labels.width)
        expect(path, index, family="Codes", width=width, num_vectors=labels.num_labels)
        expect_form(path, index, codes.new_codes(config, width))
        return cls(config, codes.made_ready(index), labels)

    @override
    def _propose(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        num_allowed = self.num_labels if allowed is None else len(allowed)
        wanted = max(count + MARGIN, candidates_for(self.config, count))
        num_denied = self.num_labels - num_allowed
        if 2 * wanted >= num_allowed or self._should_gather(num_denied):
            return self._scan(queries_BD, count, allowed)
        vectors = as_long_as_labels(queries_BD, self._norm, self._index.d)
        mask_L = mask_of(allowed, self.num_labels)
        if self._can_filter or mask_L is None:
            return Shortlist(codes.search_codes(self._index, vectors, wanted, mask_L))
        # At most all denied labels stand among so many: the best allowed ones do, too.
        rows_BC = codes.search_codes(self._index, vectors, wanted + num_denied, None)
        return Shortlist(np.where(mask_L[rows_BC], rows_BC, -1))

    def _should_gather(self, num_denied: int) -> bool:
        """Whether a filter leaves so few labels, or is such, that they are compared exactly."""
        if num_denied > _FEW_DENIED and not self._can_filter:
            return True
        return bool(num_denied > (1 - _FEW_ALLOWED) * self.num_labels)

    @property
    def _can_filter(self) -> bool:
        return codes.can_filter(self._index)


@final
class IvfIndex(LabelIndex):
    """Groups labels by k-means, and compares a query with the codes of the nearest groups.

    Labels are grouped as `IvfFlatIndex` does it. Codes are compared by inner product even where
    groups are found by distance: the distance to a code would add the error of the code's length.
    """

    kind: ClassVar[str] = "ivf"
    config: IvfConfig

    @classmethod
    def build(cls, config: IvfConfig, labels: LabelEmbeddings, *, seed: int) -> IvfIndex:
        """See `build_index`."""
        vectors, spherical = with_even_lengths(labels)
        width = codes.padded_width(vectors.shape[1])
        nlist = num_lists(config, labels.num_labels)
        index = codes.new_coded_lists(config, width, nlist, spherical=spherical)
        return cls(config, codes.fill(index, widened(vectors, width), seed=seed), labels)

    @classmethod
    def load(
        cls, config: IvfConfig, path: Path, labels: LabelEmbeddings, *, mmap: bool
    ) -> IvfIndex:
        """See `load_index`."""
        index = faiss.read(path, mmap=mmap)
        spherical = faiss.is_spherical(index)
        width = codes.padded_width(labels.width if spherical else labels.width + 1)
        expect(path, index, family="IVF", width=width, num_vectors=labels.num_labels)
        nlist = num_lists(config, labels.num_labels)
        model = codes.new_coded_lists(config, width, nlist, spherical=spherical)
        expect_form(path, index, model)
        if not faiss.has_centroids(index):
            raise BundleError(path, f"centroids are not {nlist} of width {width}")
        if not np.array_equal(np.sort(faiss.rows_in_lists(index)), np.arange(labels.num_labels)):
            raise BundleError(path, "the lists do not hold each label once")
        return cls(config, codes.made_ready(index), labels)

    @override
    def _propose(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        num_allowed = self.num_labels if allowed is None else len(allowed)
        nprobe = num_probes(self.config.nprobe, self.num_labels, num_allowed)
        wanted = max(count + MARGIN, candidates_for(self.config, count))
        if nprobe >= self._index.nlist or 2 * wanted >= num_allowed:
            return self._scan(queries_BD, count, allowed)
        mask_L = mask_of(allowed, self.num_labels)
        vectors = as_long_as_labels(queries_BD, self._norm, self._index.d)
        return Shortlist(faiss.search_lists(self._index, vectors, wanted, nprobe, mask_L))


def num_lists(config: IvfConfig | IvfFlatConfig, num_labels: int) -> int:
    """Lists for so many labels."""
    return min(config.nlist or math.ceil(4 * math.sqrt(num_labels)), num_labels)
