"""Another index for a published model, chosen by what it reaches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.bundle import read_bundle
from motherlode.core.errors import ConfigError, DataError, NotFoundError
from motherlode.core.index import tuning as tuning_module
from motherlode.core.index.grid import GRID
from motherlode.core.manifest import INDEX_FILE, QUERY_SAMPLE_FILE
from motherlode.core.queries import TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.trainer.index_tuning import TuningOutcome, TuningRequest, tune_index
from motherlode.trainer.label_addition import add_labels
from tests.support.bundles import SHORTLIST, publish_tiny, tiny_draft
from tests.support.embeddings import unit

NUM_LABELS = 300


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_module, "_TIMING_S", 1e-3)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Version 1 of `tiny`, with an HNSW index and no sample of queries."""
    publish_tiny(tmp_path / "repository", index_kind="hnsw", num_labels=NUM_LABELS)
    return tmp_path / "repository"


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    """The same with a sample."""
    draft = tiny_draft(num_labels=NUM_LABELS)
    sample_BD = unit(np.random.default_rng(0).standard_normal((120, draft.dimensions.width)))
    Repository(tmp_path / "sampled").publish("tiny", replace(draft, query_sample_BD=sample_BD))
    return tmp_path / "sampled"


def queries_file(folder: Path, num_queries: int = 150) -> Path:
    """Queries without labels, each for two topics."""
    path = folder / "queries.jsonl"
    texts = [f"topic{i % NUM_LABELS} topic{7 * i % NUM_LABELS} filler" for i in range(num_queries)]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return path


def tune(repository: Path, *targets: str, **changes: object) -> TuningOutcome:
    request = TuningRequest(
        repository=repository, model="tiny", version=None, targets=targets or ("recall@10>=0.9",)
    )
    return tune_index(replace(request, **changes))  # type: ignore[arg-type]


def test_a_new_version_has_the_chosen_index_and_all_else_of_the_old_one(
    tmp_path: Path, repository: Path
) -> None:
    outcome = tune(
        repository, "recall@10>=0.9", families=("ivf_flat",), queries=queries_file(tmp_path)
    )
    assert (outcome.parent, outcome.version) == (1, 2)
    assert outcome.chosen is not None
    opened = Repository(repository)
    old, new = opened.manifest("tiny", 1), opened.manifest("tiny", 2)
    assert new.index.kind == "ivf_flat"
    assert new.index.parameters == outcome.chosen.config.model_dump(mode="json")
    assert new.index.recall == {"R@10": outcome.chosen.recalls[10]}
    assert new.parents == {"index_tuned_from": old.digest}
    same = old.files.keys() - {INDEX_FILE, "golden.arrow", "evaluation.json", "report.html"}
    assert {name: new.files[name] for name in same} == {name: old.files[name] for name in same}


def test_the_new_version_loads_and_gives_its_own_golden_answers(
    tmp_path: Path, repository: Path
) -> None:
    tune(repository, families=("ivf_flat",), queries=queries_file(tmp_path))
    retriever = Retriever.load(Repository(repository), "tiny")
    assert retriever.version == 2
    top = retriever.top_k(TextQueries(["topic4 filler"]), 1)
    assert retriever.labels.keys_of(top.labels) == ["label4"]


def test_the_measured_recall_is_that_of_the_published_index(
    tmp_path: Path, repository: Path
) -> None:
    file = queries_file(tmp_path)
    outcome = tune(repository, "recall@5>=0.8", "p99<=10s", families=("ivf_flat",), queries=file)
    assert outcome.chosen is not None
    exact = publish_exact(repository)
    tuned = Retriever.load(Repository(repository), "tiny", 2)
    texts = [json.loads(line)["text"] for line in file.read_text("utf-8").splitlines()]
    best = exact.top_k(TextQueries(texts), 5).scores.reshape(-1, 5)
    found = tuned.top_k(TextQueries(texts), 10).scores.reshape(-1, 10)[:, :5]
    assert outcome.chosen.recalls[5] == pytest.approx((found >= best[:, -1:]).mean())
    assert tuned.manifest.index.recall.keys() == {"R@5", "R@10"}


def publish_exact(repository: Path) -> Retriever:
    publish_tiny(repository, "exact", num_labels=NUM_LABELS)
    return Retriever.load(Repository(repository), "exact")


def test_the_evaluation_says_what_was_measured_and_drops_figures_of_another_index(
    tmp_path: Path, repository: Path
) -> None:
    outcome = tune(repository, queries=queries_file(tmp_path))
    new = Repository(repository).manifest("tiny", 2)
    assert "figures" not in new.evaluation
    tuning = new.evaluation["tuning"]
    assert (tuning["targets"], tuning["num_queries"]) == (["recall@10>=0.9"], 150)
    assert len(tuning["settings"]) == len(outcome.settings)
    assert [row["is_chosen"] for row in tuning["settings"]].count(True) == 1


def test_the_sample_in_the_bundle_is_used_and_handed_on(sampled: Path, tmp_path: Path) -> None:
    assert tune(sampled).num_queries == 120
    opened = Repository(sampled)
    old, new = opened.manifest("tiny", 1), opened.manifest("tiny", 2)
    assert new.files[QUERY_SAMPLE_FILE] == old.files[QUERY_SAMPLE_FILE]
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "a", "text": "topic3"}', encoding="utf-8")
    add_labels(opened, "tiny", None, more)
    assert opened.manifest("tiny", 3).files[QUERY_SAMPLE_FILE] == old.files[QUERY_SAMPLE_FILE]
    assert tune(sampled).num_queries == 120


def test_the_same_tuning_gives_the_same_digest(sampled: Path) -> None:
    for _ in range(2):
        tune(sampled, version=1, families=("exact",))
    opened = Repository(sampled)
    assert opened.manifest("tiny", 2).digest == opened.manifest("tiny", 3).digest


def test_with_a_ranker_the_index_is_measured_at_the_length_of_its_shortlist(
    tmp_path: Path,
) -> None:
    publish_tiny(tmp_path / "ranked", num_labels=NUM_LABELS, ranker_kind="tree_correction")
    outcome = tune(tmp_path / "ranked", queries=queries_file(tmp_path))
    assert outcome.num_hits == SHORTLIST
    assert Repository(tmp_path / "ranked").manifest("tiny", 2).has_ranker


def test_memory_is_what_the_new_manifest_predicts(sampled: Path) -> None:
    outcome = tune(sampled)
    assert outcome.chosen is not None
    predicted = Repository(sampled).manifest("tiny", 2).memory.ram_bytes
    assert outcome.chosen.memory_bytes == predicted


def test_nothing_is_published_if_no_setting_meets_the_targets(sampled: Path) -> None:
    outcome = tune(sampled, "recall@10>=0.9", "memory<=1kB")
    assert (outcome.chosen, outcome.version) == (None, None)
    assert outcome.best in outcome.settings
    assert Repository(sampled).versions("tiny") == [1]


def test_nothing_is_published_if_it_shall_not_be(sampled: Path) -> None:
    outcome = tune(sampled, publish=False)
    assert outcome.chosen is not None
    assert outcome.version is None
    assert Repository(sampled).versions("tiny") == [1]


def test_the_front_is_part_of_what_was_measured(sampled: Path) -> None:
    outcome = tune(sampled)
    assert set(map(id, outcome.front)) <= set(map(id, outcome.settings))
    assert {m.family for m in outcome.settings} == {sweep.family for sweep in GRID}


def test_queries_that_the_model_knows_nothing_of_are_not_measured(
    tmp_path: Path, repository: Path
) -> None:
    file = queries_file(tmp_path)
    with file.open("a", encoding="utf-8") as lines:
        lines.write('\n{"text": "unheard-of"}')
    assert tune(repository, queries=file, families=("exact",)).num_queries == 150


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "queries: expected a file of at least 100 queries, since the bundle keeps too few, "),
        ({"families": ("exact", "faiss")}, "families: expected of exact, .* got 'faiss'"),
        ({"targets": ("recall@301>=0.9",)}, "target recall: k: expected 1 to 300"),
        ({"targets": ("p99<=1ms", "p99<=2ms")}, "target: expected p99 once"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_is_measured(
    repository: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(repository, **changes)


def test_too_few_queries_and_broken_ones_are_refused(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(ConfigError, match=r"queries: .*in queries\.jsonl, got 99"):
        tune(repository, queries=queries_file(tmp_path, 99))
    (tmp_path / "queries.jsonl").write_text('{"features": [1.0]}', encoding="utf-8")
    with pytest.raises(DataError, match=r"queries\.jsonl"):
        tune(repository, queries=tmp_path / "queries.jsonl")
    with pytest.raises(DataError, match=r"none\.jsonl"):
        tune(repository, queries=tmp_path / "none.jsonl")


def test_there_must_be_such_a_version(repository: Path) -> None:
    with pytest.raises(NotFoundError, match="no version"):
        tune(repository, version="7")


def test_a_bundle_without_a_sample_has_none(repository: Path) -> None:
    assert read_bundle(Repository(repository).path_of("tiny", 1)).query_sample() is None
