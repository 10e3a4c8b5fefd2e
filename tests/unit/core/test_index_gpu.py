from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss as library
import numpy as np
import pytest

from motherlode.core.bundle import Bundle, read_bundle
from motherlode.core.errors import BundleError, ConfigError, UnsupportedError
from motherlode.core.index import (
    ExactConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    IvfFlatConfig,
    LabelFilter,
    ScanConfig,
    build_index,
    gpu,
)
from motherlode.core.index.devices import Device
from motherlode.core.index.placement import Policy
from motherlode.core.placing import place_bundle
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from tests.support.bundles import publish_tiny
from tests.support.embeddings import clustered

NUM_LABELS, WIDTH = 900, 24
MOVABLE: list[IndexConfig] = [
    ExactConfig(),
    IvfFlatConfig(nlist=25, nprobe=5),
    IvfConfig(nlist=25, nprobe=5, codes="sq8"),
    IvfConfig(nlist=25, nprobe=5, codes="fp16"),
    IvfConfig(nlist=25, nprobe=5, codes="pq"),
]


class Clone:
    """An index of the CPU in the place of one on a GPU: ignores filters, counts queries."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self.num_queries = 0

    def search(self, queries_BD: Any, k: int, *, params: Any = None) -> Any:
        """As FAISS has it."""
        self.num_queries += len(queries_BD)
        return self.index.search(queries_BD, k, params=params)


@pytest.fixture
def clones(monkeypatch: pytest.MonkeyPatch) -> list[Clone]:
    """What was moved to the one made-up GPU."""
    moved: list[Clone] = []

    def index_cpu_to_gpu(_: object, device: int, index: Any, options: Any) -> Clone:
        assert device == 0
        assert not options.use_cuvs
        if options.useFloat16 and isinstance(index, library.IndexFlat):
            whole = library.IndexScalarQuantizer(
                index.d, library.ScalarQuantizer.QT_fp16, library.METRIC_INNER_PRODUCT
            )
            whole.add(index.reconstruct_n(0, index.ntotal))
            index = whole
        moved.append(Clone(index))
        return moved[-1]

    def index_cpu_to_gpus(_: object, index: Any, options: Any, devices: list[int]) -> Clone:
        assert options.shard
        assert not options.use_cuvs
        assert devices == [0, 0]
        moved.append(Clone(index))
        return moved[-1]

    fake = SimpleNamespace(
        StandardGpuResources=lambda: SimpleNamespace(setTempMemory=lambda _: None),
        GpuClonerOptions=lambda: SimpleNamespace(useFloat16=False, use_cuvs=True),
        get_num_gpus=lambda: 1,
        index_cpu_to_gpu=index_cpu_to_gpu,
        GpuMultipleClonerOptions=lambda: SimpleNamespace(
            useFloat16=False, shard=False, use_cuvs=True
        ),
        index_cpu_to_gpu_multiple_py=index_cpu_to_gpus,
        IndexFlatIP=library.IndexFlatIP,
        SearchParametersIVF=library.SearchParametersIVF,
    )
    monkeypatch.setattr(gpu, "faiss", fake)
    return moved


def hits(top: TopK) -> list[list[int]]:
    return [top.row(i)[0].tolist() for i in range(len(top))]


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("config", MOVABLE, ids=lambda config: f"{config.kind}")
def test_an_index_on_a_gpu_answers_as_on_the_cpu(clones, config, fp16):
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH)
    index = build_index(config, labels_LD, seed=0)
    moved = gpu.to_gpu(index, fp16=fp16)
    expected, found = index.search(queries_BD, 5), moved.search(queries_BD, 5)
    assert hits(found) == hits(expected)
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert clones[0].num_queries == len(queries_BD)


@pytest.mark.usefixtures("clones")
@pytest.mark.parametrize("scale", [2.0**-70, 1.0, 2.0**40])
def test_exact_answers_stay_exact_in_half_precision_where_labels_lie_close(scale):
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH, noise=0.001, spread=1e-4)
    index = build_index(ExactConfig(), labels_LD, seed=0)
    queries_BD *= np.float32(scale)
    expected = index.search(queries_BD, 5)
    assert hits(gpu.to_gpu(index, fp16=True).search(queries_BD, 5)) == hits(expected)


@pytest.mark.parametrize("config", MOVABLE, ids=lambda config: f"{config.kind}")
def test_filters_and_very_many_hits_take_the_cpu(clones, config):
    labels_LD, queries_BD = clustered(2400, WIDTH)
    index = build_index(config, labels_LD, seed=0)
    moved = gpu.to_gpu(index)
    denied = LabelFilter(np.arange(0, 2400, 7), "deny")
    expected = index.search(queries_BD[:9], 5, filter=denied)
    assert hits(moved.search(queries_BD[:9], 5, filter=denied)) == hits(expected)
    assert hits(moved.search(queries_BD[:3], 2100)) == hits(index.search(queries_BD[:3], 2100))
    assert clones[0].num_queries == 0


@pytest.mark.parametrize(
    "config",
    [
        HnswConfig(),
        HnswConfig(codes="sq8"),
        ScanConfig(),
        ScanConfig(codes="rabitq"),
        IvfConfig(codes="pq_fast_scan"),
        IvfConfig(codes="rabitq"),
    ],
    ids=lambda config: f"{config.kind} {config.codes}",
)
def test_families_without_a_gpu_form_are_refused(clones, config):
    labels_LD, _ = clustered(300, 8)
    with pytest.raises(UnsupportedError, match="stays on the CPU"):
        gpu.to_gpu(build_index(config, labels_LD, seed=0))
    assert clones == []


@pytest.mark.usefixtures("clones")
def test_codes_of_labels_of_uneven_lengths_are_refused():
    labels_LD, _ = clustered(300, 8, spread=0.6)
    with pytest.raises(UnsupportedError, match="stays on the CPU"):
        gpu.to_gpu(build_index(IvfConfig(), labels_LD, seed=0))


@pytest.mark.usefixtures("clones")
@pytest.mark.parametrize("device", [-1, 1])
def test_a_gpu_that_is_not_there_is_refused(device):
    labels_LD, _ = clustered(30, 8)
    with pytest.raises(UnsupportedError, match=f"no GPU {device}: this FAISS sees 1"):
        gpu.to_gpu(build_index(ExactConfig(), labels_LD, seed=0), [device])


def test_an_exact_index_can_be_spread_over_gpus_and_no_other(clones):
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH)
    index = build_index(ExactConfig(), labels_LD, seed=0)
    found = gpu.to_gpu(index, [0, 0]).search(queries_BD, 5)
    assert hits(found) == hits(index.search(queries_BD, 5))
    assert clones[0].num_queries == len(queries_BD)
    lists = build_index(IvfFlatConfig(nlist=25), labels_LD, seed=0)
    with pytest.raises(UnsupportedError, match="cannot be spread over several GPUs"):
        gpu.to_gpu(lists, [0, 0])


@pytest.mark.usefixtures("clones")
@pytest.mark.parametrize(("fp16", "bytes_each"), [(False, 4), (True, 2)])
def test_it_says_what_it_holds(fp16, bytes_each):
    labels_LD, _ = clustered(NUM_LABELS, WIDTH)
    index = build_index(ExactConfig(), labels_LD, seed=0)
    assert index.gpu_bytes == 0
    assert gpu.to_gpu(index).is_exact
    assert gpu.to_gpu(index, fp16=fp16).gpu_bytes == bytes_each * NUM_LABELS * WIDTH


def test_threads_take_turns_on_a_gpu(clones, monkeypatch):
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH)
    moved = gpu.to_gpu(build_index(ExactConfig(), labels_LD, seed=0))
    under_way = threading.Semaphore(1)
    search = clones[0].search

    def alone(*args, **kwargs):
        assert under_way.acquire(blocking=False), "two threads at once"
        try:
            return search(*args, **kwargs)
        finally:
            under_way.release()

    monkeypatch.setattr(clones[0], "search", alone)
    with ThreadPoolExecutor(4) as threads:
        tops = list(threads.map(lambda _: moved.search(queries_BD, 5), range(20)))
    assert len({top.scores.tobytes() for top in tops}) == 1


GPU = Device(name="gpu:0", description="a GPU", free_bytes=2**40)
CPU = Device(name="cpu", description="a CPU", free_bytes=2**40)


def bundle_with(tmp_path: Path, kind: str) -> Bundle:
    version = publish_tiny(tmp_path, index_kind=kind)
    return read_bundle(Repository(tmp_path).path_of("tiny", version))


@pytest.mark.parametrize("kind", ["exact", "ivf_flat"])
def test_a_bundle_goes_where_the_plan_says(tmp_path, clones, kind):
    bundle = bundle_with(tmp_path, kind)
    placed, placement = place_bundle(bundle, Policy(), [CPU, GPU])
    assert (placement.devices, len(clones)) == (("gpu:0",), 1)
    assert placed.index.gpu_bytes > 0
    assert placed.encoder is bundle.encoder


@pytest.mark.parametrize(
    ("kind", "policy", "devices"),
    [
        ("exact", Policy(gpu="never"), [CPU, GPU]),
        ("exact", Policy(), [CPU]),
        ("hnsw", Policy(), [CPU, GPU]),
    ],
)
def test_a_bundle_that_does_not_go_to_a_gpu_stays_as_it_is(tmp_path, clones, kind, policy, devices):
    bundle = bundle_with(tmp_path, kind)
    placed, placement = place_bundle(bundle, policy, devices)
    assert placed is bundle
    assert placement.devices == ("cpu",)
    assert clones == []


@pytest.mark.usefixtures("clones")
def test_an_index_whose_answers_change_on_a_gpu_stays_on_the_cpu_unless_it_must(
    tmp_path, monkeypatch
):
    def wrong(_: Clone, queries_BD: Any, k: int, **_parameters: Any) -> Any:
        shape = len(queries_BD), k
        return np.zeros(shape, np.float32), np.tile(np.arange(k), (len(queries_BD), 1))

    monkeypatch.setattr(Clone, "search", wrong)
    bundle = bundle_with(tmp_path, "ivf_flat")
    placed, placement = place_bundle(bundle, Policy(), [CPU, GPU])
    assert placed is bundle
    assert "does not give the golden hits" in placement.reason
    moved, _ = place_bundle(bundle, Policy(gpu="require"), [CPU, GPU])
    with pytest.raises(BundleError, match="does not give the hits"):
        Retriever(moved, model="tiny", version=1).check_golden()


def test_a_bundle_that_must_go_to_a_gpu_and_cannot_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="FAISS has no GPU form of hnsw"):
        place_bundle(bundle_with(tmp_path, "hnsw"), Policy(gpu="require"), [CPU, GPU])
