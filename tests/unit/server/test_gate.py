from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from motherlode.core import errors
from motherlode.core.bundle import read_bundle
from motherlode.core.errors import GateError
from motherlode.core.query_path import QueryPath
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.server.admission import AdmissionError
from motherlode.server.failure import reason_of
from motherlode.server.gate import Figure, GateLimits, check_gate, warm_up
from tests.support.bundles import forge_manifest, publish_tiny


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.UnsupportedFormatError(Path("m"), "newer"), "unsupported_format"),
        (errors.BundleError(Path("m"), "torn"), "bundle"),
        (errors.GateError("other hits"), "gate"),
        (AdmissionError("too large"), "no_room"),
        (errors.UnavailableError("calls go on"), "busy"),
        (MemoryError(), "out_of_memory"),
        (OSError(5, "input/output error"), "io"),
        (errors.UnsupportedError("no"), "refused"),
        (ZeroDivisionError(), "internal"),
    ],
)
def test_each_failure_has_one_word(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def retriever_of(repository: Path, version: int = 1) -> Retriever:
    bundle = read_bundle(Repository(repository).path_of("tiny", version))
    return Retriever(bundle, model="tiny", version=version)


class SlowPath:
    """Counts the batches of a retriever by their sizes, and lets a made-up clock run meanwhile."""

    def __init__(self, retriever: Retriever, clock: list[float], seconds: float = 0.0) -> None:
        self.sizes: list[int] = []
        self.ranker = retriever.path.ranker
        self.encode = retriever.path.encode
        self._top_k = retriever.path.top_k
        self._clock = clock
        self._seconds = seconds
        vars(retriever)["path"] = self

    def top_k(self, queries: Any, *arguments: Any, **options: Any) -> Any:
        self.sizes.append(len(queries))
        self._clock[0] += self._seconds
        return self._top_k(queries, *arguments, **options)


def test_a_version_is_warmed_up_at_all_batch_sizes(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    retriever = retriever_of(tmp_path)
    path = SlowPath(retriever, [0.0])
    warm_up(retriever, 20)
    assert path.sizes[:5] == [1, 2, 4, 8, 16]


def test_a_warm_version_tells_how_long_a_single_query_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_tiny(tmp_path)
    retriever = retriever_of(tmp_path)
    clock = [0.0]
    monkeypatch.setattr("motherlode.server.gate.time.perf_counter", lambda: clock[0])
    path = SlowPath(retriever, clock, 0.25)
    assert warm_up(retriever, 20) == 0.25
    assert set(path.sizes[5:]) == {1}


def test_other_golden_answers_are_refused(tmp_path: Path) -> None:
    for seed in (0, 1):
        publish_tiny(tmp_path, seed=seed)
    first, second = (Repository(tmp_path).path_of("tiny", version) for version in (1, 2))
    shutil.copy(first / "golden.arrow", second)
    forge_manifest(second)
    with pytest.raises(GateError, match=r"golden\.arrow"):
        check_gate(retriever_of(tmp_path, 2), None, GateLimits(), max_batch=8)


@pytest.mark.parametrize("index_kind", ["exact", "hnsw"])
def test_recall_is_measured_where_an_index_can_miss(tmp_path: Path, index_kind: str) -> None:
    publish_tiny(tmp_path, index_kind=index_kind)
    figures = check_gate(retriever_of(tmp_path), None, GateLimits(), max_batch=8)
    measured = {figure.name: (figure.value, figure.bound) for figure in figures}
    assert measured.pop("golden queries") == (8, 8)
    assert measured == ({} if index_kind == "exact" else {"recall@10": (1.0, 0.98)})


def test_less_recall_than_the_manifest_promises_is_refused(tmp_path: Path) -> None:
    publish_tiny(tmp_path, index_kind="ivf_flat")
    bundle = read_bundle(Repository(tmp_path).path_of("tiny", 1))
    # One list of four is looked into: what lies in the others is missed.
    narrow = bundle.index.configured(bundle.index.config.model_copy(update={"nprobe": 1}))
    golden = QueryPath(bundle.featurizer, bundle.encoder, narrow).take_golden(
        bundle.golden.queries, bundle.golden.k
    )
    blind = Retriever(replace(bundle, index=narrow, golden=golden), model="tiny", version=1)
    with pytest.raises(GateError, match=r"recall@10 is 0\.\d+, expected at least 0\.9"):
        check_gate(blind, None, GateLimits(recall_tolerance=0.1), max_batch=1)


@pytest.mark.parametrize(
    ("seconds", "factor", "is_refused"),
    [
        (0.029, 3.0, False),
        (0.031, 3.0, True),
        (0.031, 0.0, False),
    ],
)
def test_a_version_much_slower_than_the_serving_one_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    factor: float,
    is_refused: bool,
) -> None:
    publish_tiny(tmp_path)
    new, old = retriever_of(tmp_path), retriever_of(tmp_path)
    clock = [0.0]
    monkeypatch.setattr("motherlode.server.gate.time.thread_time", lambda: clock[0])
    SlowPath(new, clock, seconds)
    SlowPath(old, clock, 0.01)
    limits = GateLimits(latency_factor=factor)
    if is_refused:
        with pytest.raises(
            GateError, match=r"p50_s of 1 queries is 0\.031, expected at most 0\.03"
        ):
            check_gate(new, old, limits, max_batch=8)
    else:
        figures = check_gate(new, old, limits, max_batch=8)
        assert len(figures) == (3 if factor else 1)


def test_what_is_too_fast_to_tell_is_fast_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_tiny(tmp_path)
    new, old = retriever_of(tmp_path), retriever_of(tmp_path)
    clock = [0.0]
    monkeypatch.setattr("motherlode.server.gate.time.thread_time", lambda: clock[0])
    SlowPath(new, clock, 0.0019)
    check_gate(new, old, GateLimits(), max_batch=64)


def test_a_figure_says_its_bound() -> None:
    least = Figure("recall@10", 0.5, 0.75, is_least=True)
    most = Figure("p50_s of 8 queries", 0.5, 0.75, is_least=False)
    assert (least.is_met, most.is_met) == (False, True)
    assert str(least) == "recall@10 is 0.5, expected at least 0.75"
    assert str(most) == "p50_s of 8 queries is 0.5, expected at most 0.75"
