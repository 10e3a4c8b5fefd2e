from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from motherlode.core import errors
from motherlode.core.index.placement import Policy
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.server.gate import Loader, reason_of
from tests.support.bundles import publish_tiny


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.UnsupportedFormatError(Path("m"), "newer"), "unsupported_format"),
        (errors.BundleError(Path("m"), "torn"), "bundle"),
        (errors.GateError("other hits"), "gate"),
        (MemoryError(), "out_of_memory"),
        (OSError(5, "input/output error"), "io"),
        (errors.UnsupportedError("no"), "refused"),
        (ZeroDivisionError(), "internal"),
    ],
)
def test_each_failure_has_one_word(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_version_is_asked_at_all_batch_sizes_and_each_phase_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_tiny(tmp_path)
    sizes: list[int] = []
    top_k = Retriever.top_k

    def counted(self: Retriever, queries: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(queries))
        return top_k(self, queries, *arguments, **options)

    monkeypatch.setattr(Retriever, "top_k", counted)
    phases: dict[str, float] = {}
    loader = Loader(max_batch=20, observe=phases.__setitem__, policy=Policy())
    retriever = loader.load(Repository(tmp_path).path_of("tiny", 1), "tiny", 1)
    assert (retriever.model, retriever.version) == ("tiny", 1)
    # The last one is the gate's own.
    assert sizes[:-1] == [1, 2, 4, 8, 16]
    assert list(phases) == ["read", "warmup", "gate"]


def test_the_time_of_a_failed_phase_counts_too(tmp_path: Path) -> None:
    phases: dict[str, float] = {}
    with pytest.raises(errors.BundleError):
        Loader(max_batch=1, observe=phases.__setitem__, policy=Policy()).load(tmp_path, "tiny", 1)
    assert list(phases) == ["read"]
