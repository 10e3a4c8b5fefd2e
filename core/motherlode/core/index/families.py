"""The index families, and how one is built, read and measured.

Shapes: B queries, L labels in all, A labels allowed, D embedding width.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from motherlode.core.errors import BundleError, ConfigError
from motherlode.core.index import codes, faiss
from motherlode.core.index.coded import IvfIndex, ScanIndex, num_lists
from motherlode.core.index.config import (
    ExactConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    IvfFlatConfig,
    LearnedConfig,
    ScanConfig,
)
from motherlode.core.index.facts import expect, expect_form, facts_of, storage_of
from motherlode.core.index.filter import mask_of, num_probes
from motherlode.core.index.index import MARGIN, LabelEmbeddings, LabelIndex, Shortlist
from motherlode.core.index.learned import LearnedIndex
from motherlode.core.index.seal import check_seal
from motherlode.core.index.vectors import (
    as_long_as_labels,
    centred,
    widened,
    with_even_lengths,
)
from motherlode.core.queries import FloatArray, IntArray

_CODE_NAMES = {"flat": "Flat", "sq8": "SQ8", "fp16": "SQfp16"}


@final
class ExactIndex(LabelIndex):
    """Compares each query with every label, by matrix products over the label embeddings."""

    kind: ClassVar[str] = "exact"
    config: ExactConfig

    @classmethod
    def build(cls, config: ExactConfig, labels: LabelEmbeddings) -> ExactIndex:
        """See `build_index`."""
        return cls(config, faiss.new_flat(labels.width), labels)

    @classmethod
    def load(
        cls, config: ExactConfig, path: Path, labels: LabelEmbeddings, *, mmap: bool
    ) -> ExactIndex:
        """See `load_index`."""
        index = faiss.read(path, mmap=mmap)
        expect(path, index, family="Flat", width=labels.width, num_vectors=0)
        return cls(config, index, labels)

    @classmethod
    def beside(cls, index: LabelIndex) -> ExactIndex:
        """Over the very embeddings of another index, which it shares."""
        return cls.build(ExactConfig(), index.labels)

    @override
    def _propose(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        return self._scan(queries_BD, count, allowed)


@final
class HnswIndex(LabelIndex):
    """Walks a graph in which every label knows labels near it.

    The graph is that of the inner product itself. Adding a dimension to make distance order as the
    inner product does was measured, and finds far fewer labels once lengths differ. What helps is
    to subtract the mean label before the graph is built: that changes every score of a query by the
    same amount, hence no order, and the edges are no longer spent on a direction all labels share.
    """

    kind: ClassVar[str] = "hnsw"
    config: HnswConfig

    @classmethod
    def build(cls, config: HnswConfig, labels: LabelEmbeddings, *, seed: int) -> HnswIndex:
        """See `build_index`."""
        centred_LD = centred(labels.labels_LD)
        if config.codes != "flat":
            vectors_LW = widened(centred_LD, codes.padded_width(labels.width))
            return cls(config, codes.new_coded_graph(config, vectors_LW, seed=seed), labels)
        graph = faiss.new_graph(centred_LD, config.num_neighbors, config.ef_construction, seed=seed)
        storage = faiss.attach_labels(graph, labels.labels_LD)
        return cls(config, graph, labels, keep_alive=storage)

    @classmethod
    def load(
        cls, config: HnswConfig, path: Path, labels: LabelEmbeddings, *, mmap: bool
    ) -> HnswIndex:
        """See `load_index`."""
        graph = faiss.read(path, mmap=mmap)
        has_codes = config.codes != "flat"
        width = codes.padded_width(labels.width) if has_codes else labels.width
        facts = expect(path, graph, family="HNSW", width=width, num_vectors=labels.num_labels)
        structure = f"HNSW{config.num_neighbors},{_CODE_NAMES[config.codes]}"
        if facts.structure != structure or faiss.num_nodes(graph) != facts.num_vectors:
            raise BundleError(path, f"holds {facts.structure}, expected {structure}")
        if has_codes:
            model = codes.empty_coded_graph(config, width)
            expect_form(path, storage_of(graph), storage_of(model))
            return cls(config, graph, labels)
        storage = faiss.attach_labels(graph, labels.labels_LD)
        return cls(config, graph, labels, keep_alive=storage)

    @override
    def _propose(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        num_allowed = self.num_labels if allowed is None else len(allowed)
        wanted = min(count + MARGIN, num_allowed)
        # To keep as many allowed candidates as without a filter, the walk keeps more of all.
        ef = math.ceil(max(self.config.ef_search, wanted) * self.num_labels / num_allowed)
        # The walk compares the query with about so many labels, in random places of the memory.
        if ef * self.config.num_neighbors >= num_allowed:
            return self._scan(queries_BD, count, allowed)
        mask_L = mask_of(allowed, self.num_labels)
        vectors = widened(queries_BD, self._index.d)
        return Shortlist(faiss.search_graph(self._index, vectors, wanted, ef, mask_L))


@final
class IvfFlatIndex(LabelIndex):
    """Groups labels by k-means and compares a query with the labels of the nearest groups.

    Labels of about the same length are grouped by direction. Otherwise they get one more dimension
    that makes all lengths equal: there, the nearest have the highest inner products.
    """

    kind: ClassVar[str] = "ivf_flat"
    config: IvfFlatConfig

    @classmethod
    def build(cls, config: IvfFlatConfig, labels: LabelEmbeddings, *, seed: int) -> IvfFlatIndex:
        """See `build_index`."""
        vectors, spherical = with_even_lengths(labels)
        nlist = num_lists(config, labels.num_labels)
        return cls(config, faiss.new_lists(vectors, nlist, spherical=spherical, seed=seed), labels)

    @classmethod
    def load(
        cls, config: IvfFlatConfig, path: Path, labels: LabelEmbeddings, *, mmap: bool
    ) -> IvfFlatIndex:
        """See `load_index`."""
        lists = faiss.read(path, mmap=mmap)
        width = labels.width if facts_of(lists).is_similarity else labels.width + 1
        facts = expect(path, lists, family="IVF", width=width, num_vectors=labels.num_labels)
        if not facts.structure.endswith(",Flat"):
            raise BundleError(path, f"holds {facts.structure}, expected IVF{lists.nlist},Flat")
        if not np.array_equal(np.sort(faiss.rows_in_lists(lists)), np.arange(labels.num_labels)):
            raise BundleError(path, "the lists do not hold each label once")
        return cls(config, lists, labels)

    @override
    def _propose(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        num_allowed = self.num_labels if allowed is None else len(allowed)
        nprobe = num_probes(self.config.nprobe, self.num_labels, num_allowed)
        if nprobe >= self._index.nlist:
            return self._scan(queries_BD, count, allowed)
        wanted = min(count + MARGIN, num_allowed)
        mask_L = mask_of(allowed, self.num_labels)
        vectors = queries_BD
        if self._index.d != self.width:
            vectors = as_long_as_labels(queries_BD, self._norm, self._index.d)
        return Shortlist(faiss.search_lists(self._index, vectors, wanted, nprobe, mask_L))


def build_index(config: IndexConfig, labels_LD: FloatArray, *, seed: int) -> LabelIndex:
    """An index over label embeddings; the same for the same arguments, bit by bit.

    Args:
        config: Family and settings.
        labels_LD: float32 [L, D], finite; L and D at least 1. The index keeps this array, so it
            must not change any more.
        seed: Of k-means or of the levels of a graph.

    Raises:
        ValueError: If labels_LD is not as above.
        ConfigError: If the family takes more than label embeddings: a learned index comes from
            training, see `LearnedIndex.build`.
    """
    labels = LabelEmbeddings.checked(labels_LD)
    faiss.apply_index_threads()
    match config:
        case ExactConfig():
            return ExactIndex.build(config, labels)
        case ScanConfig():
            return ScanIndex.build(config, labels, seed=seed)
        case IvfFlatConfig():
            return IvfFlatIndex.build(config, labels, seed=seed)
        case IvfConfig():
            return IvfIndex.build(config, labels, seed=seed)
        case HnswConfig():
            return HnswIndex.build(config, labels, seed=seed)
        case LearnedConfig():
            expected = "a kind that label embeddings alone make; training makes a learned index"
            raise ConfigError("index.kind", expected=expected, actual=config.kind)


def load_index(config: IndexConfig, path: Path, labels_LD: FloatArray, *, mmap: bool) -> LabelIndex:
    """An index as `LabelIndex.save` wrote it.

    Args:
        config: As it was built.
        path: The file.
        labels_LD: float32 [L, D], as it was built over; a memmap stays one.
        mmap: Leave large arrays in the file, to be read when needed and shared between processes.
            The file must then never change.

    Raises:
        BundleError: If the file is missing or damaged, is of another family, width or number of
            labels, or was built over other label embeddings.
    """
    try:
        labels = LabelEmbeddings.checked(labels_LD)
    except ValueError as error:
        raise BundleError(path, str(error)) from error
    check_seal(path, labels.labels_LD)
    match config:
        case ExactConfig():
            return ExactIndex.load(config, path, labels, mmap=mmap)
        case ScanConfig():
            return ScanIndex.load(config, path, labels, mmap=mmap)
        case IvfFlatConfig():
            return IvfFlatIndex.load(config, path, labels, mmap=mmap)
        case IvfConfig():
            return IvfIndex.load(config, path, labels, mmap=mmap)
        case HnswConfig():
            return HnswIndex.load(config, path, labels, mmap=mmap)
        case LearnedConfig():
            return LearnedIndex.load(config, path, labels, mmap=mmap)


def measure_recall(
    index: LabelIndex, labels_LD: FloatArray, queries_BD: FloatArray, k: int
) -> float:
    """Share, 0 to 1, of the k best labels that an index finds; labels of equal score are as good.

    Args:
        index: Over labels_LD.
        labels_LD: float32 [L, D].
        queries_BD: float32 [B, D]; B at least 1.
        k: Hits asked for.
    """
    exact = build_index(ExactConfig(), labels_LD, seed=0)
    best_BK = exact.search(queries_BD, k).scores.reshape(len(queries_BD), -1)
    found_BK = index.search(queries_BD, k).scores.reshape(best_BK.shape)
    return float(shares_found(found_BK, best_BK).mean())


def shares_found(found_BK: FloatArray, best_BK: FloatArray) -> NDArray[np.float64]:
    """float64 [B]: share, 0 to 1, of the K best labels of each query that an index finds.

    Args:
        found_BK: float32 [B, K], scores of its hits.
        best_BK: float32 [B, K], scores of the best labels, best first.
    """
    shares_B: NDArray[np.float64] = (found_BK >= best_BK[:, -1:]).mean(axis=1)
    return shares_B
