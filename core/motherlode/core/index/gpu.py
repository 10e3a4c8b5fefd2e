"""Indexes that propose candidates on a GPU.

What a GPU proposes is compared exactly on the CPU, as what a CPU proposes, so scores are the same
bits. Of approximate indexes, which lists a GPU looks into may depend on the batch where two lists
are a rounding apart.

Shapes: B queries, L labels in all, C candidates, D embedding width.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from motherlode.core.errors import UnsupportedError
from motherlode.core.index.cagra import CagraIndex, graph_form_of
from motherlode.core.index.coded import IvfIndex
from motherlode.core.index.config import ExactConfig, IvfConfig, IvfFlatConfig, candidates_for
from motherlode.core.index.faiss import faiss, is_spherical
from motherlode.core.index.families import ExactIndex, HnswIndex, IvfFlatIndex
from motherlode.core.index.index import MARGIN, LabelEmbeddings, LabelIndex, Shortlist
from motherlode.core.index.placement import TEMP_BYTES
from motherlode.core.index.planner import GPU_LIMIT
from motherlode.core.index.rescoring import disagreement
from motherlode.core.index.vectors import as_long_as_labels
from motherlode.core.queries import FloatArray, IntArray

_IVF_CODES = frozenset({"sq8", "fp16", "pq"})
_HALF_ROUNDOFF = 2.0**-11
_LARGEST_HALF = 60_000.0
_SMALLEST_HALF = 2.0**-24


def can_go_to_gpu(index: LabelIndex) -> bool:
    """Whether FAISS has a GPU form of an index: exact, IVF-Flat, IVF with `sq8`, `fp16` or `pq`.

    A FAISS with cuVS has one of graphs, unless the labels are few; see `GraphForm`. The codes of
    `pq_fast_scan` and `rabitq` stay on the CPU. So do codes of labels whose lengths differ, since
    a GPU finds lists and compares codes by one metric alone.
    """
    if isinstance(index, HnswIndex):
        return hasattr(faiss, "GpuIndexCagra") and graph_form_of(index).refusal is None
    if isinstance(index, IvfIndex):
        return index.config.codes in _IVF_CODES and is_spherical(index._index)
    return isinstance(index, ExactIndex | IvfFlatIndex)


def to_gpu(
    index: LabelIndex,
    devices: Sequence[int] = (0,),
    *,
    fp16: bool = False,
    temp_bytes: int = TEMP_BYTES,
) -> GpuIndex | CagraIndex:
    """An index that keeps the contract of `LabelIndex` and proposes on a GPU, or on several.

    Filters, more candidates or lists than a GPU takes, and embeddings whose values fp16 does not
    hold go the way of `index`, on the CPU. Threads that search at once take turns on the GPU.

    Args:
        index: Kept, not changed.
        devices: Numbers of the GPUs; each of several holds a part of an exact index.
        fp16: Hold label embeddings in half precision, in half the memory. Exact answers stay so,
            but a query whose hits lie too close together is scanned on the CPU. A graph's never
            are.
        temp_bytes: Buffer that FAISS takes on each GPU.

    Raises:
        UnsupportedError: If this index has no GPU form, or not in parts; if there is no such GPU.
    """
    if not can_go_to_gpu(index):
        raise UnsupportedError(f"{index.factory} has no GPU form and stays on the CPU")
    if len(devices) > 1 and not isinstance(index, ExactIndex):
        raise UnsupportedError(f"{index.factory} cannot be spread over several GPUs")
    known = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    for device in devices:
        if not 0 <= device < known:
            raise UnsupportedError(f"no GPU {device}: this FAISS sees {known}")
    if isinstance(index, HnswIndex):
        return CagraIndex(index, devices[0], _new_resources(temp_bytes))
    return GpuIndex(index, devices, fp16=fp16, temp_bytes=temp_bytes)


@final
class GpuIndex(LabelIndex):
    """Proposes on a GPU what an index of the CPU would propose there."""

    kind: ClassVar[str] = "gpu"

    def __init__(
        self, index: LabelIndex, devices: Sequence[int], *, fp16: bool, temp_bytes: int
    ) -> None:
        """See `to_gpu`."""
        super().__init__(index.config, index._index, LabelEmbeddings(index._labels_LD, index._norm))
        self._on_cpu = index
        self._fp16 = fp16
        # A GPU's resources serve one thread at a time, and must live as long as the index.
        self._turn = threading.Lock()
        self._resources = [_new_resources(temp_bytes) for _ in devices]
        self._on_gpu = self._cloned(list(devices))

    def _cloned(self, devices: list[int]) -> Any:
        source = self._index
        if isinstance(self.config, ExactConfig):
            source = faiss.IndexFlatIP(self.width)
            source.add(self._labels_LD)
        if len(devices) == 1:
            options = faiss.GpuClonerOptions()
            options.useFloat16 = self._fp16
            options.use_cuvs = False  # its forms have other limits, and have not been tried
            return faiss.index_cpu_to_gpu(self._resources[0], devices[0], source, options)
        options = faiss.GpuMultipleClonerOptions()
        options.useFloat16, options.shard, options.use_cuvs = self._fp16, True, False
        return faiss.index_cpu_to_gpu_multiple_py(self._resources, source, options, devices)

    @property
    @override
    def gpu_bytes(self) -> int:
        if not isinstance(self.config, ExactConfig):
            return self._on_cpu.predicted_bytes
        return self._labels_LD.nbytes // (2 if self._fp16 else 1)

    @override
    def _propose(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        wanted = self._wanted(count)
        if allowed is not None or not self._takes(wanted):
            return self._on_cpu._propose(queries_BD, count, allowed)
        if isinstance(self.config, ExactConfig):
            return self._propose_exactly(queries_BD, wanted)
        vectors = queries_BD
        if isinstance(self.config, IvfConfig) or self._index.d != self.width:
            vectors = as_long_as_labels(queries_BD, self._norm, self._index.d)
        parameters = faiss.SearchParametersIVF(nprobe=self._nprobe)
        with self._turn:
            _, rows_BC = self._on_gpu.search(vectors, wanted, params=parameters)
        return Shortlist(rows_BC)

    @property
    def _nprobe(self) -> int:
        config = self.config
        nprobe = config.nprobe if isinstance(config, IvfConfig | IvfFlatConfig) else 1
        return min(nprobe, getattr(self._index, "nlist", 1))

    def _wanted(self, count: int) -> int:
        config = self.config
        if isinstance(config, IvfConfig):
            return max(count + MARGIN, candidates_for(config, count))
        return count + MARGIN + count // 8

    def _takes(self, wanted: int) -> bool:
        is_small = not self._fp16 or self._norm <= _LARGEST_HALF
        return (
            wanted <= min(GPU_LIMIT, self.num_labels - 1) and self._nprobe <= GPU_LIMIT and is_small
        )

    def _propose_exactly(self, queries_BD: FloatArray, wanted: int) -> Shortlist:
        # Queries of length 1 have a place in half precision; the order is that of the queries.
        vectors = as_long_as_labels(queries_BD, 1.0, self.width)
        with self._turn:
            scores_BC, rows_BC = self._on_gpu.search(vectors, wanted)
        limit_B = scores_BC[:, -1] + self._error_of(vectors)
        wide_BD = queries_BD.astype(np.float64)
        # One more part in a million: the lengths are rounded, too.
        lengths_B = np.sqrt(np.vecdot(wide_BD, wide_BD))
        limit_B = limit_B * lengths_B + 1e-6 * lengths_B * self._norm
        return Shortlist(rows_BC, limit_B + disagreement(queries_BD, self._norm))

    def _error_of(self, vectors_BD: FloatArray) -> NDArray[np.float64]:
        """float64 [B]: how far a score of the GPU can be from that of the same pair in float32."""
        error_B = disagreement(vectors_BD, self._norm)
        if self._fp16:
            # Both factors are rounded, and values too small for it become multiples of the least.
            rounding = 2.01 * _HALF_ROUNDOFF * 1.01 * self._norm
            tiny = _SMALLEST_HALF * self.width**0.5 * (1 + self._norm)
            error_B = error_B + rounding + tiny
        return error_B


def _new_resources(temp_bytes: int) -> Any:
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(temp_bytes)
    return resources
