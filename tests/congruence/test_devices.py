"""What a GPU computes, against the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from motherlode.core.index import (
    ExactConfig,
    HnswConfig,
    LabelFilter,
    build_index,
    measure_recall,
)
from motherlode.core.index.gpu import can_go_to_gpu, to_gpu
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from tests.support.bundles import publish_tiny
from tests.support.embeddings import best_by_sorting, clustered
from tests.support.gpus import needs_cuvs, needs_faiss_gpu, needs_torch_gpu
from tests.support.label_indexes import CASES, NUM_LABELS, Case, rows_of
from tests.support.planted import small_config, write_planted
from tests.support.steps import SETTINGS, run_steps, tensors
from tests.support.training import run

# A graph on a GPU is another graph, and finds other labels.
MOVABLE = {
    name: case
    for name, case in CASES.items()
    if can_go_to_gpu(case.index) and case.index.kind != "hnsw"
}


@pytest.fixture(params=MOVABLE.values(), ids=MOVABLE.keys())
def case(request: pytest.FixtureRequest) -> Case:
    assert isinstance(request.param, Case)
    return request.param


@needs_torch_gpu
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_gpu_learns_what_the_cpu_learns(settings: dict[str, object]) -> None:
    on_cpu, losses = run_steps(settings)
    on_gpu, their_losses = run_steps(settings, device=torch.device("cuda"))
    np.testing.assert_allclose(their_losses, losses, rtol=1e-4, atol=1e-6)
    for table, expected in zip(tensors(on_gpu), tensors(on_cpu), strict=True):
        torch.testing.assert_close(table, expected, rtol=1e-3, atol=1e-5)


@needs_torch_gpu
def test_a_run_on_a_gpu_can_be_resumed_and_publishes_a_model_that_finds_its_labels(
    tmp_path: Path,
) -> None:
    data = write_planted(tmp_path / "data")
    config = small_config(loop={"device": "cuda"}, encoder={"head": {"hidden": 8}})
    outcome = run(data, tmp_path / "models", config)
    assert outcome.figures["P@1"] > 95


@needs_faiss_gpu
@pytest.mark.parametrize("k", [1, 10, 40])
def test_an_index_on_a_gpu_finds_what_the_cpu_finds(case: Case, k: int) -> None:
    moved = to_gpu(case.index)
    expected, found = case.index.search(case.queries_BD, k), moved.search(case.queries_BD, k)
    same = [
        len(np.intersect1d(expected.row(i)[0], found.row(i)[0]))
        for i in range(len(case.queries_BD))
    ]
    assert np.mean(same) >= (k if case.index.kind == "exact" else 0.98 * k)
    if case.index.kind == "exact":
        assert rows_of(found) == rows_of(expected)


@needs_faiss_gpu
@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("k", [1, 10, 500, 890])
def test_an_exact_index_on_a_gpu_is_exact(fp16: bool, k: int) -> None:
    case = CASES["exact-uneven"]
    moved = to_gpu(case.index, fp16=fp16)
    assert rows_of(moved.search(case.queries_BD, k)) == rows_of(
        case.index.search(case.queries_BD, k)
    )


@needs_faiss_gpu
def test_an_exact_index_in_parts_is_exact() -> None:
    """Twice the same GPU: what is tested is that the parts are put together right."""
    case = CASES["exact-even"]
    moved = to_gpu(case.index, [0, 0])
    assert rows_of(moved.search(case.queries_BD, 9)) == rows_of(
        case.index.search(case.queries_BD, 9)
    )


@needs_faiss_gpu
def test_no_filtered_label_is_returned_and_the_best_allowed_ones_are(case: Case) -> None:
    denied = np.arange(0, NUM_LABELS, 3)
    top = to_gpu(case.index).search(case.queries_BD, 7, filter=LabelFilter(denied, "deny"))
    assert not np.isin(top.labels, denied).any()
    if case.index.kind == "exact":
        allowed = np.setdiff1d(np.arange(NUM_LABELS), denied)
        best, _ = best_by_sorting(case.queries_BD, case.labels_LD[allowed], 7)
        assert top.labels.reshape(-1, 7).tolist() == allowed[best].tolist()


@needs_faiss_gpu
@pytest.mark.parametrize("size", [1, 7])
def test_an_exact_answer_does_not_depend_on_batch_mates_on_a_gpu(size: int) -> None:
    case = CASES["exact-uneven"]
    moved = to_gpu(case.index)
    together = rows_of(moved.search(case.queries_BD, 10))
    parts = [
        row
        for start in range(0, len(case.queries_BD), size)
        for row in rows_of(moved.search(case.queries_BD[start : start + size], 10))
    ]
    assert parts == together


@needs_cuvs
@pytest.mark.parametrize("spread", [0.0, 0.6])
@pytest.mark.parametrize("k", [1, 10, 300])
def test_a_graph_on_a_gpu_finds_nearly_all_with_scores_of_the_same_bits(
    spread: float, k: int
) -> None:
    labels_LD, queries_BD = clustered(20_000, 32, spread=spread)
    moved = to_gpu(build_index(HnswConfig(), labels_LD, seed=0))
    assert measure_recall(moved, labels_LD, queries_BD, k) >= 0.9
    expected = build_index(ExactConfig(), labels_LD, seed=0).search(queries_BD, k)
    found = moved.search(queries_BD, k)
    for i in range(len(queries_BD)):
        (labels, scores), (new_labels, new_scores) = expected.row(i), found.row(i)
        _, old, new = np.intersect1d(labels, new_labels, return_indices=True)
        assert len(np.unique(new_labels)) == k
        assert scores[old].tobytes() == new_scores[new].tobytes()


@needs_cuvs
def test_a_graph_on_a_gpu_keeps_filters() -> None:
    labels_LD, queries_BD = clustered(20_000, 32)
    denied = np.arange(0, 20_000, 3)
    moved = to_gpu(build_index(HnswConfig(), labels_LD, seed=0))
    top = moved.search(queries_BD, 7, filter=LabelFilter(denied, "deny"))
    assert not np.isin(top.labels, denied).any()


@needs_faiss_gpu
def test_a_retriever_on_a_gpu_answers_as_on_the_cpu(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    on_cpu = Retriever.load(Repository(tmp_path), "tiny", gpu="never")
    on_gpu = Retriever.load(Repository(tmp_path), "tiny", gpu="require")
    assert on_gpu.path.index.gpu_bytes > 0 == on_cpu.path.index.gpu_bytes
    on_gpu.check_golden()
