"""Training with adversarial negatives, and what is published of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.bundle import Bundle, read_bundle
from motherlode.core.errors import ConfigError, InvalidInputError
from motherlode.core.queries import TextQueries
from motherlode.core.query_path import QueryPath
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.trainer.answers import answers
from motherlode.trainer.config import TrainConfig, check_config
from motherlode.trainer.label_addition import add_labels
from motherlode.trainer.label_tree import new_proposal
from motherlode.trainer.loop import Validation
from motherlode.trainer.negatives import AdversarialSampler, SnmSampler
from motherlode.trainer.preparation import prepare
from motherlode.trainer.step import new_sampler
from tests.support.planted import SMALL_RUN, write_planted
from tests.support.training import KilledError, KillingDisplay, run

NUM_LABELS = 40
RANKED = {"kind": "tree_correction", "shortlist": 15}
EQUATION_6 = {"kind": "regularized_negative_sampling"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted"), num_labels=NUM_LABELS)


def small(**sections: object) -> TrainConfig:
    """A small run with adversarial negatives; a section here takes the place of the usual one."""
    negatives = {"kind": "adversarial", "num_candidates": 16, "tree": {"num_components": 16}}
    return check_config({**SMALL_RUN, "negatives": negatives, "loss": EQUATION_6, **sections})


def published(folder: Path, version: int = 1) -> Bundle:
    return read_bundle(Repository(folder).path_of("planted", version))


@pytest.fixture(scope="module")
def repository(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a ranker, as version 1."""
    folder = tmp_path_factory.mktemp("ranked")
    assert run(data, folder, small(ranker=RANKED)).figures["P@1"] == 100.0
    return folder


LOSSES = [
    "regularized_negative_sampling",
    "noise_contrastive",
    "softmax",
    "decoupled_softmax",
    "binary_cross_entropy",
    "one_vs_each",
    "pairwise_owl",
    "pointwise_owl",
]


@pytest.mark.parametrize("loss", LOSSES)
def test_planted_labels_are_learned_with_every_loss(data: Path, tmp_path: Path, loss: str) -> None:
    outcome = run(data, tmp_path, small(loss={"kind": loss}))
    assert outcome.figures["P@1"] == 100.0
    assert published(tmp_path).ranker is None


def test_stochastic_negative_mining_goes_over_adversarial_draws(data: Path, tmp_path: Path) -> None:
    negatives = {"kind": "adversarial", "num_candidates": 16, "keep": 4}
    config = small(negatives=negatives, loss={"kind": "pairwise_owl"})
    assert run(data, tmp_path, config).figures["P@1"] == 100.0


def test_the_published_tree_is_the_one_fitted_to_what_the_run_learned_from(
    data: Path, repository: Path
) -> None:
    config = small(ranker=RANKED)
    learned_from = prepare(config, data).learned_from
    again = new_proposal(
        config.negatives, learned_from.features, learned_from.positives, NUM_LABELS, seed=0
    )
    ranker = published(repository).ranker
    assert again is not None
    assert ranker is not None
    assert ranker.num_labels == NUM_LABELS
    np.testing.assert_array_equal(ranker.tree.weights_VK, again.tree.weights_VK)
    np.testing.assert_array_equal(ranker.tree.labels_E, again.tree.labels_E)
    np.testing.assert_array_equal(ranker.whitening.table_FK, again.whitening.table_FK)


def test_the_published_ranker_has_the_scale_and_the_shortlist_of_the_run(
    data: Path, tmp_path: Path
) -> None:
    run(data, tmp_path, small(ranker=RANKED, labels={"scale": 7.5}, loop={"epochs": 1}))
    manifest = published(tmp_path).manifest
    assert manifest.stage("ranker").config == {
        "kind": "tree_correction",
        "scale": 7.5,
        "shortlist": 15,
    }
    assert "log p_n(y|x)" in manifest.score_meaning
    assert manifest.config["negatives"]["tree"]["num_components"] == 16


def test_a_loaded_model_ranks_by_xi_plus_log_p_n(repository: Path) -> None:
    retriever = Retriever.load(Repository(repository), "planted")
    bundle = published(repository)
    assert bundle.ranker is not None
    queries = TextQueries(["word3 filler1", "word7 word9", "nothing known", "filler2"])
    features = bundle.featurizer.transform(queries)
    scores_BL = bundle.encoder.encode(features) @ bundle.labels_LD.T
    projected_BK = bundle.ranker.whitening.transform(features)
    top = retriever.top_k(queries, 5)
    assert top.counts.tolist() == [5, 5, 0, 5]
    for row in (0, 1, 3):
        shortlist = np.argsort(-scores_BL[row], kind="stable")[:15]
        log_probs = bundle.ranker.tree.log_prob(projected_BK, np.full(15, row), shortlist)
        corrected = 20.0 * scores_BL[row, shortlist] + log_probs
        order = np.argsort(-corrected, kind="stable")[:5]
        labels, scores = top.row(row)
        assert labels.tolist() == shortlist[order].tolist()
        np.testing.assert_allclose(scores, corrected[order], rtol=1e-4, atol=1e-4)


def test_the_evaluation_of_a_bundle_is_that_of_its_ranked_answers(
    data: Path, tmp_path: Path
) -> None:
    """One epoch leaves mistakes, so that figures with and without the correction differ."""
    config = small(ranker=RANKED, loop={"epochs": 0.1, "batch_size": 32, "held_out": 20})
    outcome = run(data, tmp_path, config)
    bundle = published(tmp_path)
    test = prepare(config, data).test
    assert test is not None
    ranked = QueryPath(bundle.featurizer, bundle.encoder, bundle.index, bundle.ranker)
    plain = QueryPath(bundle.featurizer, bundle.encoder, bundle.index)

    def precision(path: QueryPath) -> float:
        top = answers(path, test.queries, 1)
        positives = [
            set(test.positives.rows(np.array([row])).indices.tolist()) for row in range(len(test))
        ]
        found = [len(positives[row] & set(top.row(row)[0].tolist())) for row in range(len(test))]
        return 100.0 * float(np.mean(found))

    assert outcome.figures["P@1"] == pytest.approx(precision(ranked))
    assert precision(plain) != pytest.approx(precision(ranked))


def test_validations_are_made_with_the_ranker(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    figures = Validation.figures

    def watched(self: Validation, model: object, ranker: object = None) -> dict[str, float]:
        seen.append(ranker)
        return figures(self, model, ranker)  # type: ignore[arg-type]

    monkeypatch.setattr(Validation, "figures", watched)
    run(
        data, tmp_path, small(ranker=RANKED, loop={"epochs": 2, "batch_size": 32, "evaluations": 2})
    )
    assert len(seen) == 2
    assert all(ranker is not None for ranker in seen)


def test_the_same_seed_gives_the_same_bundle_and_a_ranker_another(
    data: Path, tmp_path: Path
) -> None:
    short = {"epochs": 1}
    digests = [
        run(data, tmp_path / str(i), small(loop=short, **sections)).digest
        for i, sections in enumerate([{"ranker": RANKED}, {"ranker": RANKED}, {}])
    ]
    assert digests[0] == digests[1] != digests[2]
    encoders = [published(tmp_path / str(i)).manifest.files["encoder.safetensors"] for i in (0, 2)]
    assert encoders[0] == encoders[1]


@pytest.mark.parametrize("killed_after", [2, 15])
def test_a_killed_run_that_is_resumed_fits_the_same_tree_again(
    data: Path, tmp_path: Path, killed_after: int
) -> None:
    loop = {**SMALL_RUN["loop"], "epochs": 2, "checkpoint_every_s": 1e-9}
    config = small(ranker=RANKED, loop=loop)
    whole = run(data, tmp_path / "whole", config)
    with pytest.raises(KilledError):
        run(data, tmp_path / "killed", config, KillingDisplay(killed_after))
    assert run(data, tmp_path / "killed", config, resume=True).digest == whole.digest


def test_the_fit_is_logged_with_its_seconds(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "motherlode.trainer.label_tree"):
        run(data, tmp_path, small(loop={"epochs": 1}))
    [message] = [r.message for r in caplog.records if r.name == "motherlode.trainer.label_tree"]
    assert message.startswith("fitted the label tree to 360 queries, 40 labels in ")
    assert message.endswith(" s")


def test_a_warm_start_fits_a_tree_to_the_labels_of_the_new_data(
    repository: Path, tmp_path: Path
) -> None:
    new = write_planted(tmp_path / "new", num_labels=50, first_label=10)
    warm = run(new, repository, small(ranker=RANKED), warm_start="1")
    ranker = published(repository, warm.version).ranker
    assert ranker is not None
    assert ranker.num_labels == 50
    assert warm.figures["P@1"] >= 75.0
    retriever = Retriever.load(Repository(repository), "planted", warm.version)
    top = retriever.top_k(TextQueries(["word55", "word12"]), 1)
    assert retriever.labels.keys_of(top.labels) == ["55", "12"]
    # And one that starts from it without a ranker has none.
    plain = run(new, repository, small(loop={"epochs": 1}), warm_start=str(warm.version))
    assert published(repository, plain.version).ranker is None


def test_labels_cannot_be_added_to_a_model_with_a_label_tree(
    repository: Path, tmp_path: Path
) -> None:
    file = tmp_path / "more.jsonl"
    file.write_text(json.dumps({"id": "new", "text": "word3 word4"}), encoding="utf-8")
    before = Repository(repository).versions("planted")
    with pytest.raises(ConfigError, match=r"model: expected one without a label tree, .*training"):
        add_labels(Repository(repository), "planted", 1, file)
    assert Repository(repository).versions("planted") == before


def test_the_sampler_is_over_the_proposal_and_keeps_what_the_configuration_says(
    data: Path,
) -> None:
    negatives = {"kind": "adversarial", "num_candidates": 16, "keep": 4}
    config = small(negatives=negatives, loss={"kind": "pairwise_owl"})
    counts_L, learned_from = np.ones(NUM_LABELS, np.int64), prepare(config, data).learned_from
    proposal = new_proposal(
        config.negatives, learned_from.features, learned_from.positives, NUM_LABELS, seed=0
    )
    sampler = new_sampler(config, counts_L, proposal)
    assert isinstance(sampler, SnmSampler)
    assert isinstance(sampler.proposal, AdversarialSampler)
    assert (sampler.keep, sampler.proposal.num_draws) == (4, 16)
    with pytest.raises(InvalidInputError, match=r"label_tree\.num_labels: expected 41.*got 40"):
        new_sampler(config, np.ones(NUM_LABELS + 1, np.int64), proposal)


def test_other_negatives_need_no_tree(data: Path) -> None:
    config = check_config(SMALL_RUN)
    learned_from = prepare(config, data).learned_from
    features, positives = learned_from.features, learned_from.positives
    assert new_proposal(config.negatives, features, positives, NUM_LABELS, seed=0) is None
