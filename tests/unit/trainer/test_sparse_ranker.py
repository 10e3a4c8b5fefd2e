"""Training with a sparse linear ranker, from a configuration to a published bundle."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motherlode.core.bundle import Bundle, read_bundle
from motherlode.core.errors import ConfigError
from motherlode.core.queries import SparseQueries, TextQueries
from motherlode.core.rankers import INPUTS, SparseLinear
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from motherlode.trainer import sparse_ranker
from motherlode.trainer.config import TrainConfig, check_config
from motherlode.trainer.data import load_dataset
from motherlode.trainer.progress import new_display
from motherlode.trainer.training import TrainingOutcome, TrainingRequest, train_and_publish
from tests.support.planted import small_config, write_planted

RANKER: dict[str, Any] = {"kind": "sparse_linear", "shortlist": 15, "negatives": 5}


def run(data: Path, repository: Path, config: TrainConfig) -> TrainingOutcome:
    request = TrainingRequest(config=config, data=data, repository=repository, model="planted")
    return train_and_publish(request, new_display())


def published(repository: Path) -> Bundle:
    return read_bundle(Repository(repository).path_of("planted", 1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("data"))


# In so few dimensions labels get into each other's way; single words tell them apart.
NARROW = {"kind": "bag", "width": 3}
NOT_USED = np.zeros((1, 3), np.float32)
CONFIG = small_config(ranker=RANKER, encoder=NARROW, loop={"held_out": 40})


@pytest.fixture(scope="module")
def repository(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository")
    run(data, path, CONFIG)
    return path


def test_the_ranker_finds_what_the_embeddings_alone_do_not(
    data: Path, repository: Path, tmp_path: Path
) -> None:
    plain = small_config(encoder=NARROW, loop={"held_out": 40})
    without = run(data, tmp_path, plain).figures
    figures = published(repository).manifest.evaluation["figures"]
    assert figures["P@1"] > without["P@1"] + 10


def test_the_published_ranker_is_a_stage_of_the_manifest(repository: Path) -> None:
    bundle = published(repository)
    assert isinstance(bundle.ranker, SparseLinear)
    stage = bundle.manifest.stage("ranker")
    assert (stage.kind, stage.config["shortlist"]) == ("sparse_linear", 15)
    assert stage.config["join"] == list(bundle.ranker.config.join)
    assert bundle.manifest.format_version == 4
    assert bundle.ranker.frequencies_L.sum() > 300


def test_a_loaded_model_answers_as_the_stages_one_by_one(repository: Path) -> None:
    retriever, bundle = Retriever.load(Repository(repository), "planted"), published(repository)
    queries = TextQueries(["word3 filler1", "word7 word9", "nothing known"])
    top = retriever.top_k(queries, 3)
    assert top.counts.tolist() == [3, 3, 0]
    assert isinstance(bundle.ranker, SparseLinear)
    known = bundle.featurizer.transform(queries.rows(0, 2))
    embeddings = bundle.encoder.encode(known)
    shortlist = bundle.index.search(embeddings, 15)
    ranked = bundle.ranker.rank(shortlist, known, embeddings, 3)
    np.testing.assert_array_equal(top.labels, ranked.labels)
    np.testing.assert_array_equal(top.scores, ranked.scores)


def test_where_texts_have_a_part_in_the_model_they_have_one_in_the_ranking(
    data: Path, repository: Path, tmp_path: Path
) -> None:
    labels = {"embedding": "sum"}
    config = small_config(ranker=RANKER, encoder=NARROW, loop={"held_out": 40}, labels=labels)
    run(data, tmp_path, config)
    bundle, without = published(tmp_path), published(repository)
    assert isinstance(bundle.ranker, SparseLinear)
    assert isinstance(without.ranker, SparseLinear)
    queries = bundle.featurizer.transform(TextQueries(["word3 label"]))
    texts = bundle.featurizer.transform(TextQueries(["Label 3", "Label 5"]))
    assert isinstance(texts, SparseQueries)
    assert np.diff(bundle.ranker.texts.offsets_L)[[3, 5]].tolist() == np.diff(texts.indptr).tolist()
    top = TopK(np.array([3, 5]), np.ones(2, np.float32), np.array([2]))
    t = INPUTS.index("t")
    assert bundle.ranker.inputs(top, queries, NOT_USED)[t].min() > 0
    plain = without.featurizer.transform(TextQueries(["word3 label"]))
    assert without.ranker.inputs(top, plain, NOT_USED)[t].max() == 0
    hidden = without.ranker.config.hidden
    assert hidden is not None
    assert all(weights[t] == 0 for weights in hidden.inner)


def test_neighbours_are_the_queries_that_were_learned_from(data: Path, tmp_path: Path) -> None:
    config = small_config(ranker={**RANKER, "neighbors": 9}, encoder=NARROW, loop={"held_out": 40})
    run(data, tmp_path, config)
    bundle, whole = published(tmp_path), load_dataset(data, "train")
    assert bundle.manifest.format_version == 5
    assert isinstance(bundle.ranker, SparseLinear)
    neighbors, positives = bundle.ranker.neighbors, whole.positives
    assert neighbors is not None
    assert neighbors.config.count == 9
    top = TopK(positives.indices, np.zeros(len(positives.indices), "f4"), np.diff(positives.indptr))
    shares = neighbors.shares(
        top, bundle.encoder.encode(bundle.featurizer.transform(whole.queries))
    )
    # A query that was learned from is its own neighbour.
    assert (shares > 1 / 9 - 1e-6).sum() >= len(shares) - 40


def test_a_join_is_fitted_to_some_queries_where_very_many_are_held_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    whole = sparse_ranker.fit_join

    def fit(*args: Any, seed: int) -> Any:
        asked.append(len(args[-1]))
        return whole(*args, seed=seed)

    monkeypatch.setattr(sparse_ranker, "_MOST_HITS", 10 * RANKER["shortlist"])
    monkeypatch.setattr(sparse_ranker, "fit_join", fit)
    for fewest in (5, 15):
        monkeypatch.setattr(sparse_ranker, "_FEWEST_QUERIES", fewest)
        run(data, tmp_path, CONFIG)
    assert asked == [10, 15]


def test_the_same_configuration_gives_the_same_bundle(
    data: Path, repository: Path, tmp_path: Path
) -> None:
    again = run(data, tmp_path, CONFIG)
    assert again.digest == published(repository).manifest.digest


def test_held_out_queries_that_say_nothing_leave_the_order_of_the_index(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A shortlist of one hit has nothing to tell apart."""
    config = small_config(ranker={**RANKER, "shortlist": 1}, loop={"epochs": 0.5})
    with caplog.at_level(logging.WARNING):
        run(data, tmp_path, config)
    ranker = published(tmp_path).ranker
    assert isinstance(ranker, SparseLinear)
    assert ranker.config.join == (1.0, *[0.0] * 6)
    assert "no held-out query has both" in caplog.text


def test_dense_features_are_refused_before_the_training() -> None:
    with pytest.raises(ConfigError, match=r"ranker\.kind: expected 'none' for dense features"):
        check_config({"features": {"kind": "dense"}, "ranker": RANKER})


def test_no_held_out_queries_are_refused_before_the_training() -> None:
    with pytest.raises(ConfigError, match=r"loop\.held_out: expected 1 or more for ranker\.kind"):
        check_config({"loop": {"held_out": 0}, "ranker": RANKER})


def test_a_setting_of_another_ranker_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ranker\.scale"):
        check_config({"ranker": {**RANKER, "scale": 2.0}})
