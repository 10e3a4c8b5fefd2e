"""Labels with embeddings from their texts: in the model, in a run, in what is published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from motherlode.core.bundle import Bundle, read_bundle, write_bundle
from motherlode.core.encoders import BagEncoderConfig, new_encoder
from motherlode.core.errors import BundleError, ConfigError
from motherlode.core.features import TextFeaturesConfig, TextFeaturizer
from motherlode.core.manifest import (
    ENCODER_FILE,
    LABEL_ENCODER_FILE,
    TRAINING_STATE_FILE,
    read_manifest,
)
from motherlode.core.queries import TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.trainer.config import TrainConfig, check_config
from motherlode.trainer.label_addition import add_labels
from motherlode.trainer.preparation import prepare
from tests.support.bundles import tiny_draft
from tests.support.planted import small_config
from tests.support.training import KilledError, KillingDisplay, run

NUM_SEEN, NUM_UNSEEN = 30, 10
KINDS = [("text", "shared"), ("text", "own"), ("sum", "shared"), ("sum", "own")]


def write_named(folder: Path, *, first_label: int = 0, first_seen: int = 0) -> Path:
    """Labels called `name7 kind1`; queries name one of the first 30. The others have no query.

    The name of each label without a query stands in its own text alone. Labels before `first_seen`
    have no query either.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = range(first_label, first_label + NUM_SEEN + NUM_UNSEEN)
    seen, unseen = labels[:NUM_SEEN], labels[NUM_SEEN:]

    def lines(numbers: list[int]) -> str:
        records = [
            {
                "text": f"name{n} kind{n % 3} filler{rng.integers(20)} filler{rng.integers(20)}",
                "labels": [str(n)],
            }
            for n in numbers
        ]
        return "\n".join(map(json.dumps, records))

    train = [int(n) for n in rng.choice(seen, 300) if n >= first_seen]
    (folder / "train.jsonl").write_text(lines(train), encoding="utf8")
    (folder / "test.jsonl").write_text(lines([*seen, *unseen]), encoding="utf8")
    table = [json.dumps({"id": str(n), "text": f"name{n} kind{n % 3}"}) for n in labels]
    (folder / "labels.jsonl").write_text("\n".join(table), encoding="utf8")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_named(tmp_path_factory.mktemp("named"))


def config_of(embedding: str, text_encoder: str = "shared", **sections: object) -> TrainConfig:
    labels = {"embedding": embedding, "text_encoder": text_encoder}
    features = {"kind": "text", "min_count": 2}
    return small_config(labels=labels, features=features, **sections)  # type: ignore[arg-type]


def bundle_of(repository: Path, version: int = 1) -> Bundle:
    return read_bundle(Repository(repository).path_of("planted", version))


@pytest.mark.parametrize(("embedding", "text_encoder"), KINDS)
def test_labels_without_a_query_are_found_by_their_texts_after_training(
    data: Path, tmp_path: Path, embedding: str, text_encoder: str
) -> None:
    figures = run(data, tmp_path, config_of(embedding, text_encoder)).figures
    assert figures["P@1"] == 100.0


def test_free_labels_without_a_query_are_not_found(data: Path, tmp_path: Path) -> None:
    """The data of the tests beside this one do need the texts."""
    assert run(data, tmp_path, config_of("free")).figures["P@1"] <= 80.0


@pytest.mark.parametrize(("embedding", "text_encoder"), KINDS)
def test_the_same_seed_gives_the_same_bundle_and_so_does_a_resumed_run(
    data: Path, tmp_path: Path, embedding: str, text_encoder: str
) -> None:
    loop = {"checkpoint_every_s": 1e-9, "epochs": 2, "feature_dropout": 0.1}
    encoder = {"head": {"hidden": 16}}
    config = config_of(embedding, text_encoder, loop=loop, encoder=encoder)
    whole = run(data, tmp_path / "whole", config)
    assert run(data, tmp_path / "again", config).digest == whole.digest
    with pytest.raises(KilledError):
        run(data, tmp_path / "killed", config, KillingDisplay(11))
    assert run(data, tmp_path / "killed", config, resume=True).digest == whole.digest


def test_mined_negatives_are_near_to_texts_too(data: Path, tmp_path: Path) -> None:
    negatives = {"kind": "nearest", "num_candidates": 16, "keep": 8, "refresh_steps": 6}
    small = config_of("sum", "own").model_dump()
    outcome = run(data, tmp_path, check_config({**small, "negatives": negatives}))
    assert outcome.figures["P@1"] == 100.0


def test_in_a_sum_free_rows_move_for_labels_with_a_query_alone(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, config_of("sum"))
    state = bundle_of(tmp_path).training_state()
    has_query_L = np.arange(NUM_SEEN + NUM_UNSEEN) < NUM_SEEN
    assert (state["labels"] > 0).tolist() == has_query_L.tolist()
    assert (state["labels.lengths"] > 0).tolist() == has_query_L.tolist()


@pytest.mark.parametrize(("embedding", "text_encoder"), KINDS)
def test_a_label_added_later_is_as_one_that_had_no_query(
    data: Path, tmp_path: Path, embedding: str, text_encoder: str
) -> None:
    run(data, tmp_path, config_of(embedding, text_encoder))
    before = bundle_of(tmp_path)
    new = tmp_path / "new.jsonl"
    twins = [{"id": f"twin{n}", "text": f"name{n} kind{n % 3}"} for n in range(30, 40)]
    new.write_text("\n".join(map(json.dumps, twins)), encoding="utf8")
    assert add_labels(Repository(tmp_path), "planted", None, new) == (2, 10)

    after = bundle_of(tmp_path, 2)
    np.testing.assert_allclose(after.labels_LD[40:], after.labels_LD[30:40], atol=1e-6)
    for file in (ENCODER_FILE, LABEL_ENCODER_FILE):
        assert after.manifest.files.get(file) == before.manifest.files.get(file)
    assert (LABEL_ENCODER_FILE in after.manifest.files) == (text_encoder == "own")
    retriever = Retriever.load(Repository(tmp_path), "planted")
    top = retriever.top_k(TextQueries(["name33 kind0 filler1"]), 2)
    assert set(retriever.labels.keys_of(top.labels)) == {"33", "twin33"}


def test_labels_added_to_a_model_without_normalisation_are_as_long_as_their_texts_say(
    data: Path, tmp_path: Path
) -> None:
    config = small_config(
        features={"min_count": 2},
        labels={"embedding": "text", "normalize": False, "scale": 1.0},
        encoder={"head": {"normalize": False}},
    )
    run(data, tmp_path, config)
    new = tmp_path / "new.jsonl"
    new.write_text('{"id": "twin", "text": "name7 kind1"}', encoding="utf8")
    add_labels(Repository(tmp_path), "planted", None, new)
    labels_LD = bundle_of(tmp_path, 2).labels_LD
    np.testing.assert_allclose(labels_LD[40], labels_LD[7], rtol=1e-5, atol=1e-6)
    lengths_L = np.linalg.norm(labels_LD, axis=1)
    assert lengths_L.std() > 0.01


@pytest.mark.parametrize(("embedding", "text_encoder"), KINDS)
def test_a_warm_start_that_does_not_move_gives_the_parents_embeddings(
    data: Path, tmp_path: Path, embedding: str, text_encoder: str
) -> None:
    """Nothing is lost on the way into a bundle and out again, even of labels without queries now.

    Their words are features still, as they stand in the texts of labels.
    """
    config = config_of(embedding, text_encoder)
    run(data, tmp_path / "repository", config)
    fewer = write_named(tmp_path / "fewer", first_seen=10)
    still = {"features_lr": 1e-30, "labels_lr": 1e-30}
    config = config_of(embedding, text_encoder, optimizer=still, loop={"epochs": 0.1})
    run(data, tmp_path / "repository", config, warm_start="1")
    run(fewer, tmp_path / "repository", config, warm_start="2")
    first, second, third = (bundle_of(tmp_path / "repository", v) for v in (1, 2, 3))
    np.testing.assert_allclose(second.labels_LD, first.labels_LD, atol=1e-5)
    if embedding == "sum":
        lengths = third.training_state()["labels.lengths"]
        assert (lengths > 0).tolist() == (first.training_state()["labels.lengths"] > 0).tolist()
    # The weights of features in a text are others, as fewer texts are counted.
    cosines_L = (third.labels_LD * first.labels_LD).sum(axis=1)
    assert cosines_L.min() > 0.98


@pytest.mark.parametrize(("embedding", "text_encoder"), KINDS)
def test_a_warm_start_with_other_labels_finds_old_and_new_ones(
    data: Path, tmp_path: Path, embedding: str, text_encoder: str
) -> None:
    config = config_of(embedding, text_encoder)
    run(data, tmp_path / "repository", config)
    # Labels 0 to 14 are gone; 30 to 39 have queries now; 40 to 54 are new.
    new = write_named(tmp_path / "new", first_label=15)
    config = config_of(embedding, text_encoder, loop={"epochs": 2})
    outcome = run(new, tmp_path / "repository", config, warm_start="1")
    assert outcome.figures["P@1"] >= 95.0


def test_a_warm_start_of_a_sum_without_training_state_is_refused(
    data: Path, tmp_path: Path
) -> None:
    config = config_of("sum", loop={"epochs": 0.1})
    run(data, tmp_path, config)
    folder = bundle_of(tmp_path).path
    manifest = read_manifest(folder)
    files = {name: f for name, f in manifest.files.items() if name != TRAINING_STATE_FILE}
    manifest.model_copy(update={"files": files}).save(folder)
    (folder / TRAINING_STATE_FILE).unlink()
    with pytest.raises(BundleError, match=rf"{TRAINING_STATE_FILE}: not there"):
        run(data, tmp_path, config, warm_start="1")


def test_what_is_new_in_a_warm_start_has_rows_that_nothing_in_the_parent_had(
    data: Path, tmp_path: Path
) -> None:
    """The same seed would draw for `name45` what it drew for `name30` in the parent."""
    still = {"features_lr": 1e-30, "labels_lr": 1e-30}
    config = config_of("text", optimizer=still, loop={"epochs": 0.1})
    run(data, tmp_path / "repository", config)
    new = write_named(tmp_path / "new", first_label=15)
    run(new, tmp_path / "repository", config, warm_start="1")
    rows_FD = bundle_of(tmp_path / "repository", 2).encoder.table_FD
    cosines_FF = torch.nn.functional.normalize(rows_FD) @ torch.nn.functional.normalize(rows_FD).T
    assert cosines_FF.fill_diagonal_(0.0).max() < 0.9


@pytest.mark.parametrize(
    ("parent", "child", "field"),
    [
        (("free", "shared"), ("sum", "shared"), "embedding"),
        (("sum", "shared"), ("text", "shared"), "embedding"),
        (("text", "shared"), ("free", "shared"), "embedding"),
        (("text", "shared"), ("text", "own"), "text_encoder"),
    ],
)
def test_a_warm_start_from_labels_of_another_kind_is_refused(
    data: Path, tmp_path: Path, parent: tuple[str, str], child: tuple[str, str], field: str
) -> None:
    once = {"epochs": 0.1}
    run(data, tmp_path, config_of(*parent, loop=once))
    with pytest.raises(ConfigError, match=rf"labels\.{field}: expected '.*', as in"):
        run(data, tmp_path, config_of(*child, loop=once), warm_start="1")


def test_labels_without_texts_are_refused_before_the_training(tmp_path: Path) -> None:
    data = write_named(tmp_path / "data")
    (data / "labels.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"labels\.embedding: expected 'free' for labels without"):
        run(data, tmp_path / "repository", config_of("text"))


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_features_that_texts_do_not_have_are_refused(kind: str) -> None:
    encoder = {"kind": "dense" if kind == "dense" else "bag"}
    with pytest.raises(ConfigError, match=rf"labels\.embedding: expected 'free' for {kind} feat"):
        check_config(
            {"features": {"kind": kind}, "encoder": encoder, "labels": {"embedding": "sum"}}
        )


def test_an_unknown_kind_of_embedding_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"labels\.embedding"):
        check_config({"labels": {"embedding": "texts"}})


def test_a_label_whose_text_says_nothing_is_warned_of_and_harms_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_named(tmp_path / "data")
    table = (folder / "labels.jsonl").read_text("utf8").replace("name31 kind1", "- -")
    (folder / "labels.jsonl").write_text(table, encoding="utf8")
    config = config_of("sum", encoder={"head": {"hidden": 8}})
    assert run(folder, tmp_path / "repository", config).figures["P@1"] == pytest.approx(97.5)
    assert "label texts without any feature: 1" in caplog.text
    assert not bundle_of(tmp_path / "repository").labels_LD[31].any()


def test_words_of_labels_are_features_however_rare_and_those_of_queries_are_not() -> None:
    config = TextFeaturesConfig(min_count=2)
    texts, label_texts = ["red apple", "red once", "green pear"], ["green widget", "red gadget"]
    featurizer = TextFeaturizer.fit(texts, config, label_texts)
    assert list(featurizer.vocabulary) == ["red", "green", "gadget", "widget"]
    counts = np.array([3, 2, 1, 1])
    np.testing.assert_allclose(featurizer.idf, np.log(6 / (1 + counts)) + 1, rtol=1e-6)


def test_no_label_texts_change_nothing_about_the_features(data: Path) -> None:
    free = prepare(config_of("free"), data)
    assert free.label_features is None
    assert isinstance(free.featurizer, TextFeaturizer)
    assert "name33" not in list(free.featurizer.vocabulary)
    text = prepare(config_of("text"), data)
    assert isinstance(text.featurizer, TextFeaturizer)
    assert "name33" in list(text.featurizer.vocabulary)


def test_a_label_encoder_of_another_width_is_not_published(tmp_path: Path) -> None:
    draft = tiny_draft()
    table_FD = torch.zeros(draft.encoder.num_features, 8)
    encoder = new_encoder(BagEncoderConfig(width=8), table_FD, torch.Generator())
    with pytest.raises(BundleError, match=rf"{LABEL_ENCODER_FILE}: table is"):
        write_bundle(replace(draft, label_encoder=encoder), tmp_path / "bundle")
