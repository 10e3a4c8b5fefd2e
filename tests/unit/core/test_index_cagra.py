"""What is asked of CAGRA, and what is done with its answers: FAISS's part is made up here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss as library
import numpy as np
import pytest

from motherlode.core.bundle import Bundle, read_bundle
from motherlode.core.errors import BundleError, UnsupportedError
from motherlode.core.index import HnswConfig, LabelFilter, LabelIndex, build_index, cagra, gpu
from motherlode.core.index.devices import Device
from motherlode.core.index.graph_form import GraphForm, candidates_kept
from motherlode.core.index.placement import Policy, Sizes
from motherlode.core.placing import place_bundle
from motherlode.core.queries import FloatArray, IntArray
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from tests.support.bundles import publish_tiny
from tests.support.embeddings import clustered

NUM_LABELS, WIDTH = 2600, 22
CONFIG = HnswConfig(num_neighbors=8, ef_construction=40, ef_search=40)


class Graph:
    """An exact search in the place of a CAGRA graph: keeps what it was told and asked."""

    def __init__(self, resources: Any, width: int, metric: int, config: Any) -> None:
        assert resources.temp_bytes > 0
        assert metric == library.METRIC_INNER_PRODUCT
        assert config.use_cuvs
        self.width, self.config = width, config
        self.asked: list[tuple[int, int, int]] = []
        self.spoil = lambda rows_BC: rows_BC

    def train(self, labels_LD: FloatArray) -> None:
        """As FAISS has it: builds the graph and keeps the vectors."""
        assert labels_LD.dtype == np.float32
        assert labels_LD.shape[1] == self.width
        self.labels_LD = labels_LD

    def search(self, queries_BD: FloatArray, k: int, *, params: Any) -> tuple[FloatArray, IntArray]:
        """As FAISS has it; cuVS refuses a k above `itopk_size`."""
        assert k <= params.itopk_size
        self.asked.append((len(queries_BD), k, params.itopk_size))
        scores_BL = queries_BD @ self.labels_LD.T
        rows_BK = np.argsort(-scores_BL, axis=1)[:, :k]
        return np.take_along_axis(scores_BL, rows_BK, axis=1), self.spoil(rows_BK)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graphs built on the one made-up GPU."""
    built: list[Graph] = []

    def new_graph(*arguments: Any) -> Graph:
        built.append(Graph(*arguments))
        return built[-1]

    class Resources:
        temp_bytes = 0

        def setTempMemory(self, size_bytes: int) -> None:
            self.temp_bytes = size_bytes

    fake = SimpleNamespace(
        StandardGpuResources=Resources,
        get_num_gpus=lambda: 1,
        METRIC_INNER_PRODUCT=library.METRIC_INNER_PRODUCT,
        GpuIndexCagraConfig=SimpleNamespace,
        GpuIndexCagra=new_graph,
        SearchParametersCagra=SimpleNamespace,
    )
    monkeypatch.setattr(gpu, "faiss", fake)
    monkeypatch.setattr(cagra, "faiss", fake)
    return built


def graph_of(config: HnswConfig = CONFIG, **shape: float) -> tuple[LabelIndex, FloatArray]:
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH, **shape)  # type: ignore[arg-type]
    return build_index(config, labels_LD, seed=0), queries_BD


def rows_of(top: TopK) -> list[tuple[list[int], bytes]]:
    return [(top.row(i)[0].tolist(), top.row(i)[1].tobytes()) for i in range(len(top))]


def exact_rows(index: LabelIndex, queries_BD: FloatArray, k: int) -> list[tuple[list[int], bytes]]:
    labels_LD = index.labels.labels_LD
    return rows_of(build_index(gpu.ExactConfig(), labels_LD, seed=0).search(queries_BD, k))


@pytest.mark.parametrize("spread", [0.0, 0.6])
@pytest.mark.parametrize("codes", ["flat", "sq8"])
def test_hits_are_those_of_the_inner_product_with_its_bits(graphs, spread, codes):
    index, queries_BD = graph_of(CONFIG.model_copy(update={"codes": codes}), spread=spread)
    moved = gpu.to_gpu(index)
    found = rows_of(moved.search(queries_BD * np.float32(300), 5))
    assert found == exact_rows(index, queries_BD * np.float32(300), 5)
    assert graphs[0].asked == [(len(queries_BD), 13, 64)]


def test_the_graph_has_the_edges_of_the_lowest_level_and_labels_less_their_mean(graphs):
    index, _ = graph_of(HnswConfig(num_neighbors=17, ef_search=64), spread=0.6, shared=2.0)
    moved = gpu.to_gpu(index)
    config = graphs[0].config
    assert (config.device, config.graph_degree, config.intermediate_graph_degree) == (0, 64, 128)
    lengths_L = np.linalg.norm(graphs[0].labels_LD, axis=1)
    assert lengths_L.max() == pytest.approx(1)
    np.testing.assert_allclose(graphs[0].labels_LD.mean(axis=0), 0, atol=1e-6)
    # Rows of 22 values take the place of 24.
    assert moved.gpu_bytes == NUM_LABELS * 4 * (24 + 64)


@pytest.mark.parametrize(
    ("k", "ef_search", "candidates", "kept"),
    [(5, 40, 13, 64), (100, 40, 120, 128), (5, 100, 13, 128), (903, 40, 1023, 1024)],
)
def test_as_many_candidates_are_kept_as_ef_search_or_k_want(graphs, k, ef_search, candidates, kept):
    index, queries_BD = graph_of(CONFIG.model_copy(update={"ef_search": ef_search}))
    found = gpu.to_gpu(index).search(queries_BD[:3], k)
    assert rows_of(found) == exact_rows(index, queries_BD[:3], k)
    assert graphs[0].asked == [(3, candidates, kept)]


def test_filters_and_more_candidates_than_cuvs_keeps_take_the_cpu(graphs):
    index, queries_BD = graph_of()
    moved = gpu.to_gpu(index)
    denied = LabelFilter(np.arange(0, NUM_LABELS, 7), "deny")
    expected = index.search(queries_BD, 5, filter=denied)
    assert rows_of(moved.search(queries_BD, 5, filter=denied)) == rows_of(expected)
    wide = moved.search(queries_BD[:3], 904)
    assert rows_of(wide) == rows_of(index.search(queries_BD[:3], 904))
    much = moved.configured(CONFIG.model_copy(update={"ef_search": 1025}))
    much.search(queries_BD[:3], 5)
    assert graphs[0].asked == []


def test_labels_that_come_twice_count_once_and_missing_ones_not_at_all(graphs):
    index, queries_BD = graph_of()
    moved = gpu.to_gpu(index)

    def spoil(rows_BC: IntArray) -> IntArray:
        rows_BC[:, 5:9] = rows_BC[:, 1:2]
        rows_BC[:, 9:] = -1
        return rows_BC

    graphs[0].spoil = spoil
    assert rows_of(moved.search(queries_BD, 5)) == exact_rows(index, queries_BD, 5)


def test_queries_with_too_few_candidates_are_scanned(graphs):
    index, queries_BD = graph_of()
    moved = gpu.to_gpu(index)
    graphs[0].spoil = lambda rows_BC: np.where(np.arange(rows_BC.shape[1]) < 4, rows_BC, -1)
    assert rows_of(moved.search(queries_BD, 5)) == exact_rows(index, queries_BD, 5)


@pytest.mark.usefixtures("graphs")
def test_a_query_of_zeros_has_the_first_labels():
    index, queries_BD = graph_of()
    assert gpu.to_gpu(index).search(0 * queries_BD[:2], 3).labels.tolist() == [0, 1, 2] * 2


@pytest.mark.parametrize("change", [{"ef_search": 1025}, {"num_neighbors": 82}])
def test_graphs_that_cagra_does_not_take_are_refused(graphs, change):
    index, _ = graph_of(CONFIG.model_copy(update=change))
    with pytest.raises(UnsupportedError, match="stays on the CPU"):
        gpu.to_gpu(index)
    assert graphs == []


def test_without_cuvs_and_in_parts_it_is_refused(graphs, monkeypatch):
    index, _ = graph_of()
    with pytest.raises(UnsupportedError, match="cannot be spread over several GPUs"):
        gpu.to_gpu(index, [0, 0])
    monkeypatch.delattr(gpu.faiss, "GpuIndexCagra")
    assert not gpu.can_go_to_gpu(index)
    assert graphs == []


@pytest.mark.parametrize(
    ("num_neighbors", "degree"), [(2, 32), (16, 32), (17, 64), (32, 64), (64, 128), (512, 128)]
)
def test_edges_are_a_multiple_of_32_up_to_128(num_neighbors, degree):
    form = GraphForm.of(num_neighbors, 64, num_labels=10**6, width=128)
    assert form == GraphForm(degree=degree, size_bytes=10**6 * 4 * (128 + degree))


def test_candidates_kept_are_a_multiple_of_32():
    assert [candidates_kept(10, wanted) for wanted in (1, 32, 33, 1024)] == [32, 32, 64, 1024]


CUVS = Device(name="gpu:0", description="a GPU", free_bytes=2**40, has_cuvs=True)
CPU = Device(name="cpu", description="a CPU", free_bytes=2**40)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """One whose few labels count as many."""
    take = GraphForm.of

    def willing(num_neighbors: int, ef_search: int, *, num_labels: int, width: int) -> GraphForm:
        form = take(num_neighbors, ef_search, num_labels=num_labels, width=width)
        return GraphForm(degree=form.degree, size_bytes=form.size_bytes)

    monkeypatch.setattr(GraphForm, "of", willing)
    version = publish_tiny(tmp_path, index_kind="hnsw")
    return read_bundle(Repository(tmp_path).path_of("tiny", version))


def test_a_bundle_with_a_graph_goes_to_a_gpu_with_cuvs(bundle, graphs):
    placed, placement = place_bundle(bundle, Policy(), [CPU, CUVS])
    assert (placement.devices, len(graphs)) == (("gpu:0",), 1)
    assert placed.index.gpu_bytes == placement.size_bytes
    assert placement.size_bytes == Sizes.of(bundle.manifest).graph.size_bytes  # type: ignore[union-attr]
    Retriever(placed, model="tiny", version=1).check_golden()


@pytest.mark.usefixtures("graphs")
def test_a_graph_that_finds_too_little_stays_on_the_cpu_unless_it_must(bundle, monkeypatch):
    def wrong(_: Graph, queries_BD: FloatArray, k: int, **_more: Any) -> tuple[None, IntArray]:
        return None, np.tile(np.arange(k), (len(queries_BD), 1))

    monkeypatch.setattr(Graph, "search", wrong)
    placed, placement = place_bundle(bundle, Policy(), [CPU, CUVS])
    assert placed is bundle
    assert "hits are missing, and 10% may be" in placement.reason
    moved, _ = place_bundle(bundle, Policy(gpu="require"), [CPU, CUVS])
    with pytest.raises(BundleError, match="hits are missing"):
        Retriever(moved, model="tiny", version=1).check_golden()


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("method", ["train", "search"])
def test_a_graph_that_cannot_be_built_or_searched_stays_on_the_cpu(bundle, monkeypatch, method):
    def fail(*_: Any, **_more: Any) -> None:
        raise RuntimeError("too many invalid neighbours")

    monkeypatch.setattr(Graph, method, fail)
    placed, placement = place_bundle(bundle, Policy(), [CPU, CUVS])
    assert (placed, placement.devices) == (bundle, ("cpu",))
    assert "cannot search it on the GPU: too many invalid neighbours" in placement.reason
    with pytest.raises(RuntimeError, match="invalid neighbours"):
        place_bundle(bundle, Policy(gpu="require"), [CPU, CUVS])
