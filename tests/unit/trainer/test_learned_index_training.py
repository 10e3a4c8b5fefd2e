"""A run with `index.kind = "learned"`: what it publishes, and that all ways to it answer alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.bundle import read_bundle
from motherlode.core.errors import ConfigError
from motherlode.core.index import LearnedIndex
from motherlode.core.queries import TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.trainer.config import TrainConfig, check_config
from motherlode.trainer.data import load_dataset
from motherlode.trainer.label_addition import add_labels
from motherlode.trainer.publishing import answers, evaluate_path
from tests.support.planted import small_config, write_planted
from tests.support.training import run

LEARNED: dict[str, object] = {"kind": "learned", "num_clusters": 8, "beam": 2, "shortlist": 12}
STAGES: dict[str, object] = {"stage1_epochs": 2, "stage2_epochs": 2, "batch_size": 64}


def learned_config(**stages: object) -> TrainConfig:
    return small_config(
        index=LEARNED, learned_index=STAGES | stages, loop={"epochs": 4, "patience": None}
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, float]]:
    data = write_planted(tmp_path_factory.mktemp("learned") / "data")
    repository = data.parent / "repository"
    outcome = run(data, repository, learned_config())
    return data, repository, outcome.figures


def folder_of(repository: Path, version: int = 1) -> Path:
    return repository / "planted" / f"{version:06}"


def test_a_published_learned_index_finds_the_planted_labels(published) -> None:
    _, repository, figures = published
    retriever = Retriever.load(Repository(repository), "planted")
    top = retriever.top_k(TextQueries(["word7 filler3", "word21"]), 1)
    assert [retriever.labels.keys_of(top.row(i)[0]) for i in range(2)] == [["7"], ["21"]]
    assert figures["P@1"] > 90


def test_online_offline_and_training_time_evaluation_are_the_same(published) -> None:
    data, repository, figures = published
    retriever = Retriever.load(Repository(repository), "planted")
    labels = retriever.labels
    whole = load_dataset(data, "train")
    test = load_dataset(data, "test", labels=whole.labels)
    together = answers(retriever, test.queries, 40)
    again = evaluate_path(
        together, test, labels.frequencies, len(whole), learned_config().propensity
    )
    assert again.figures == figures
    for i in range(len(test)):
        alone = retriever.top_k(test.queries.rows(i, i + 1), 40)
        assert alone.labels.tolist() == together.row(i)[0].tolist()
        assert alone.scores.tobytes() == together.row(i)[1].tobytes()


@pytest.mark.parametrize("num_labels", [1, 3])
def test_a_beam_wider_than_the_clusters_takes_all(tmp_path: Path, num_labels: int) -> None:
    data = write_planted(tmp_path / "data", num_labels=40, num_queries=400)
    lines = (data / "train.jsonl").read_text("utf8").splitlines()
    kept = [{**json.loads(line), "labels": [str(i % num_labels)]} for i, line in enumerate(lines)]
    (data / "train.jsonl").write_text("\n".join(map(json.dumps, kept)), "utf8")
    labels = [json.dumps({"id": str(i), "text": f"Label {i}"}) for i in range(num_labels)]
    (data / "labels.jsonl").write_text("\n".join(labels), "utf8")
    config = small_config(index={"kind": "learned"}, loop={"epochs": 1})
    run(data, tmp_path / "repository", config)
    parameters = read_bundle(folder_of(tmp_path / "repository")).manifest.index.parameters
    assert parameters["beam"] == parameters["num_clusters"] == num_labels


def test_the_manifest_says_what_sizes_the_index_has(published) -> None:
    bundle = read_bundle(folder_of(published[1]))
    assert bundle.manifest.index.kind == "learned"
    assert bundle.manifest.index.parameters["labels_per_cluster"] == 20
    assert isinstance(bundle.index, LearnedIndex)
    # Every label can be found, and most are in several clusters.
    labels = bundle.index.graph.edges.labels
    assert len(np.unique(labels)) == 40 < len(labels) <= 8 * 20


@pytest.mark.parametrize("moves", [False, True])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, moves: bool) -> None:
    data = write_planted(tmp_path / "data", num_queries=120)
    config = learned_config(train_encoder=moves, train_labels=moves)
    digests = [run(data, tmp_path / name, config).digest for name in ("a", "b")]
    assert digests[0] == digests[1]


def test_embeddings_stay_as_they_are_unless_they_are_to_move(tmp_path: Path) -> None:
    data = write_planted(tmp_path / "data", num_queries=120)
    exact = small_config(loop={"epochs": 2})
    frozen, moving = (
        small_config(
            index=LEARNED,
            loop={"epochs": 2},
            learned_index={"train_encoder": moves, "train_labels": moves},
        )
        for moves in (False, True)
    )
    bundles = []
    for name, config in (("exact", exact), ("frozen", frozen), ("moving", moving)):
        run(data, tmp_path / name, config)
        bundles.append(read_bundle(folder_of(tmp_path / name)))
    assert (bundles[0].labels_LD == bundles[1].labels_LD).all()
    assert (bundles[0].labels_LD != bundles[2].labels_LD).any()
    assert not bundles[0].encoder.table_FD.equal(bundles[2].encoder.table_FD)  # type: ignore[attr-defined]


def test_dense_queries_and_labels_without_a_query_are_clustered_too(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((30, 6))
    (tmp_path / "data").mkdir()
    with (tmp_path / "data/train.jsonl").open("w", encoding="utf8") as file:
        for row in range(200):
            label = row % 25
            features = (centres[label] + 0.1 * generator.standard_normal(6)).tolist()
            file.write(json.dumps({"features": features, "labels": [str(label)]}) + "\n")
    with (tmp_path / "data/labels.jsonl").open("w", encoding="utf8") as file:
        file.writelines(json.dumps({"id": str(label)}) + "\n" for label in range(30))
    config = check_config(
        {
            "features": {"kind": "dense"},
            "encoder": {"width": 8},
            "index": LEARNED,
            "learned_index": STAGES,
            "negatives": {"num_candidates": 16, "keep": 8},
            "loop": {"epochs": 3, "batch_size": 32},
        }
    )
    outcome = run(tmp_path / "data", tmp_path / "repository", config)
    index = read_bundle(folder_of(tmp_path / "repository", outcome.version)).index
    assert isinstance(index, LearnedIndex)
    assert len(np.unique(index.graph.edges.labels)) == 30


def test_stage_2_can_be_left_out(tmp_path: Path) -> None:
    data = write_planted(tmp_path / "data", num_queries=120)
    run(data, tmp_path / "repository", learned_config(stage2_epochs=0))
    index = read_bundle(folder_of(tmp_path / "repository")).index
    assert isinstance(index, LearnedIndex)
    assert np.diff(index.graph.edges.indptr).tolist() == [5] * 8
    assert (index.graph.edges.weights == 1).all()


def test_labels_added_later_are_found_at_once(published, tmp_path: Path) -> None:
    data, _, _ = published
    run(data, tmp_path / "repository", learned_config())
    added = tmp_path / "added.jsonl"
    added.write_text(json.dumps({"id": "new", "text": "word3 word4"}) + "\n")
    version, count = add_labels(Repository(tmp_path / "repository"), "planted", None, added)
    assert (version, count) == (2, 1)
    retriever = Retriever.load(Repository(tmp_path / "repository"), "planted")
    top = retriever.top_k(TextQueries(["word3 word4"]), 1)
    assert retriever.labels.keys_of(top.labels) == ["new"]


def test_an_index_too_large_for_the_labels_is_refused_before_the_training(tmp_path: Path) -> None:
    data = write_planted(tmp_path / "data")
    config = small_config(index=LEARNED | {"num_clusters": 41})
    with pytest.raises(ConfigError, match=r"index\.num_clusters: expected at most 40"):
        run(data, tmp_path / "repository", config)


def test_negatives_are_not_mined_with_a_learned_index() -> None:
    with pytest.raises(ConfigError, match="label embeddings alone"):
        small_config(negatives={"kind": "nearest", "keep": None, "index": {"kind": "learned"}})
