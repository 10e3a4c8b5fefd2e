from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motherlode.core.bundle import read_bundle
from motherlode.core.errors import ConfigError, InvalidInputError, MotherlodeError
from motherlode.core.queries import TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.trainer.checkpoint import CheckpointFolder
from motherlode.trainer.config import TrainConfig, check_config
from tests.support.planted import small_config, write_planted
from tests.support.training import KilledError, KillingDisplay, run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted"))


LOSSES = [
    {"kind": "decoupled_softmax"},
    {"kind": "pairwise_owl", "margin": "hinge"},
    {"kind": "pairwise_owl", "margin": "squared_hinge"},
    {"kind": "pairwise_owl", "margin": "logistic"},
    {"kind": "pointwise_owl", "margin": "logistic"},
    {"kind": "binary_cross_entropy"},
    {"kind": "one_vs_each"},
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: "-".join(loss.values()))
def test_planted_labels_are_learned_with_every_loss(
    data: Path, tmp_path: Path, loss: dict[str, object]
) -> None:
    outcome = run(data, tmp_path, small_config(loss=loss))
    assert outcome.figures["P@1"] == 100.0
    assert outcome.figures["R@10"] == 100.0


SAMPLERS: list[dict[str, object]] = [
    {"num_candidates": 16, "keep": 4, "shared": False},
    {"kind": "frequency", "num_candidates": 64, "keep": 64},
    {"kind": "in_batch"},
    {"kind": "nearest", "num_candidates": 16, "keep": 8, "refresh_steps": 6},
    {"kind": "adversarial", "num_candidates": 16},
]


@pytest.mark.parametrize("negatives", SAMPLERS, ids=lambda keys: keys.get("kind", "uniform"))
def test_planted_labels_are_learned_with_every_sampler(
    data: Path, tmp_path: Path, negatives: dict[str, object]
) -> None:
    assert run(data, tmp_path, with_negatives(negatives)).figures["P@1"] == 100.0


def with_negatives(negatives: dict[str, object], **loop: object) -> TrainConfig:
    """A small run with these negatives and no others."""
    small = small_config(loop=loop).model_dump()
    return check_config({**small, "negatives": negatives})


SNM_WEIGHTS = {"kind": "snm", "num_draws": 20, "keep": 4}
OVER_ALL_LABELS: dict[str, dict[str, dict[str, object]]] = {
    "softmax": {"loss": {"kind": "softmax"}},
    "noise_contrastive": {"loss": {"kind": "noise_contrastive"}},
    "regularized": {"loss": {"kind": "regularized_negative_sampling"}},
    "cosine_contrastive": {"loss": {"kind": "cosine_contrastive"}, "labels": {"scale": 1}},
    "pairwise_snm": {"loss": {"kind": "pairwise_owl", "weights": SNM_WEIGHTS}},
    "pointwise_snm": {"loss": {"kind": "pointwise_owl", "weights": SNM_WEIGHTS}},
}


@pytest.mark.parametrize("settings", OVER_ALL_LABELS.values(), ids=OVER_ALL_LABELS)
def test_planted_labels_are_learned_with_every_loss_over_all_labels(
    data: Path, tmp_path: Path, settings: dict[str, dict[str, object]]
) -> None:
    outcome = run(data, tmp_path, small_config(negatives={"keep": 64}, **settings))
    assert outcome.figures["P@1"] == 100.0
    assert outcome.figures["R@10"] == 100.0


def test_a_residual_network_and_every_dropout_can_be_trained(data: Path, tmp_path: Path) -> None:
    config = small_config(
        encoder={"head": {"hidden": 64, "dropout": 0.1}}, loop={"feature_dropout": 0.1}
    )
    assert run(data, tmp_path, config).figures["P@1"] == 100.0


def test_unnormalised_embeddings_can_be_trained(data: Path, tmp_path: Path) -> None:
    config = small_config(
        encoder={"head": {"normalize": False}}, labels={"normalize": False, "scale": 1.0}
    )
    assert run(data, tmp_path, config).figures["P@1"] == 100.0


@pytest.mark.parametrize("hidden", [0, 16])
def test_the_same_seed_gives_the_same_bundle_and_another_seed_another(
    data: Path, tmp_path: Path, hidden: int
) -> None:
    def digest(folder: str, seed: int) -> str:
        config = small_config(encoder={"head": {"hidden": hidden}}).model_copy(
            update={"seed": seed}
        )
        return run(data, tmp_path / folder, config).digest

    assert digest("a", 0) == digest("b", 0)
    assert digest("c", 1) != digest("a2", 0)


@pytest.mark.parametrize("hidden", [0, 16])
@pytest.mark.parametrize("patience", [None, 5])
def test_a_killed_run_that_is_resumed_gives_the_same_bundle_as_one_never_killed(
    data: Path, tmp_path: Path, hidden: int, patience: int | None
) -> None:
    config = small_config(
        encoder={"head": {"hidden": hidden}},
        loop={"checkpoint_every_s": 1e-9, "patience": patience, "feature_dropout": 0.1},
    )
    whole = run(data, tmp_path / "whole", config)
    with pytest.raises(KilledError):
        run(data, tmp_path / "killed", config, KillingDisplay(29))
    assert not Repository(tmp_path / "killed").models()
    resumed = run(data, tmp_path / "killed", config, resume=True)
    assert resumed.digest == whole.digest
    assert not list((tmp_path / "killed").glob(".training*"))


@pytest.mark.parametrize("negatives", SAMPLERS, ids=lambda keys: keys.get("kind", "uniform"))
@pytest.mark.parametrize("killed_after", [29, 31])
def test_a_killed_run_resumes_the_same_with_every_sampler(
    data: Path, tmp_path: Path, negatives: dict[str, object], killed_after: int
) -> None:
    config = with_negatives(negatives, checkpoint_every_s=1e-9)
    whole = run(data, tmp_path / "whole", config)
    with pytest.raises(KilledError):
        run(data, tmp_path / "killed", config, KillingDisplay(killed_after))
    assert run(data, tmp_path / "killed", config, resume=True).digest == whole.digest


def test_checkpoints_of_a_run_with_an_index_stand_where_it_is_built(
    data: Path, tmp_path: Path
) -> None:
    """A display that dies sees the step of the last checkpoint when it starts again."""
    negatives = {"kind": "nearest", "num_candidates": 16, "refresh_steps": 6}
    config = with_negatives(negatives, checkpoint_every_s=1e-9)
    with pytest.raises(KilledError):
        run(data, tmp_path, config, KillingDisplay(29))
    display = KillingDisplay(1)
    with pytest.raises(KilledError):
        run(data, tmp_path, config, display, resume=True)
    assert display.started_at == 24


def test_the_checkpoint_of_another_run_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(data, tmp_path, small_config(loop={"checkpoint_every_s": 1e-9}), KillingDisplay(5))
    other = small_config(loop={"checkpoint_every_s": 1e-9, "epochs": 3})
    with pytest.raises(InvalidInputError, match="without --resume"):
        run(data, tmp_path, other, resume=True)


def test_a_broken_checkpoint_is_an_error_naming_the_file(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".training-planted"
    folder.mkdir()
    (folder / "newest.safetensors").write_bytes(b"broken")
    with pytest.raises(MotherlodeError, match=r"newest\.safetensors"):
        run(data, tmp_path, small_config(), resume=True)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    with pytest.raises(KilledError):
        run(data, tmp_path, small_config(loop={"checkpoint_every_s": 1e-9}), KillingDisplay(5))
    before = (tmp_path / ".training-planted/newest.safetensors").read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("motherlode.trainer.checkpoint.save_file", full_disk)
    with pytest.raises(MotherlodeError, match="No space left"):
        run(data, tmp_path, small_config(loop={"checkpoint_every_s": 1e-9}))
    assert (tmp_path / ".training-planted/newest.safetensors").read_bytes() == before


def test_a_run_stops_early_and_publishes_its_best_validation(data: Path, tmp_path: Path) -> None:
    config = small_config(loop={"epochs": 40, "evaluations": 40, "patience": 2})
    outcome = run(data, tmp_path, config)
    assert outcome.num_examples < 40 * 380
    assert outcome.figures["P@1"] == 100.0


def test_a_warm_start_keeps_what_was_known_and_learns_new_labels_and_features(
    tmp_path: Path,
) -> None:
    old = write_planted(tmp_path / "old", num_labels=40)
    first = run(old, tmp_path / "repository", small_config())
    # Labels 0 to 9 and their words are gone, 40 to 49 are new.
    new = write_planted(tmp_path / "new", num_labels=40, first_label=10)
    config = small_config(loop={"epochs": 1})
    warm = run(new, tmp_path / "repository", config, warm_start="1")
    assert warm.version == first.version + 1
    retriever = Retriever.load(Repository(tmp_path / "repository"), "planted", 2)
    assert retriever.manifest.parents == {"warm_start": first.digest}
    assert warm.figures["P@1"] >= 90.0
    top = retriever.top_k(TextQueries(["word45", "word12"]), 1)
    assert [retriever.labels.keys[row] for row in top.labels] == ["45", "12"]


def test_a_warm_start_with_another_width_is_refused(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, small_config())
    with pytest.raises(ConfigError, match=r"encoder\.width: expected 64"):
        run(data, tmp_path, small_config(encoder={"width": 16}), warm_start="1")


def test_a_data_set_of_another_kind_than_the_features_is_refused(
    data: Path, tmp_path: Path
) -> None:
    config = check_config({"features": {"kind": "sparse"}})
    with pytest.raises(ConfigError, match=r"features\.kind"):
        run(data, tmp_path, config)


def test_sparse_and_dense_data_train_as_well(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=200)
    sparse = tmp_path / "sparse"
    sparse.mkdir()
    lines = [f"{label} {label}:1.0 {10 + rng.integers(5)}:0.5" for label in labels]
    (sparse / "train.txt").write_text("200 15 10\n" + "\n".join(lines) + "\n", encoding="utf8")
    base = {"features": {"kind": "sparse"}, "encoder": {"kind": "bag", "width": 16}}
    loop = {"epochs": 4, "batch_size": 32, "held_out": 20}
    negatives = {"num_candidates": 10, "keep": 4}
    config = check_config({**base, "loop": loop, "negatives": negatives})
    assert run(sparse, tmp_path / "r1", config).figures["P@1"] == 100.0

    dense = tmp_path / "dense"
    dense.mkdir()
    with (dense / "train.jsonl").open("w", encoding="utf8") as file:
        for label in labels:
            features = (np.eye(10)[label] + 0.05 * rng.standard_normal(10)).tolist()
            file.write(f'{{"features": {features}, "labels": ["{label}"]}}\n')
    config = check_config(
        {
            "features": {"kind": "dense"},
            "encoder": {"kind": "dense", "width": 16},
            "loop": loop,
            "negatives": negatives,
        }
    )
    assert run(dense, tmp_path / "r2", config).figures["P@1"] == 100.0


def test_without_test_data_quality_is_measured_on_the_held_out_part(tmp_path: Path) -> None:
    data = write_planted(tmp_path / "data", with_test=False)
    run(data, tmp_path / "repository", small_config())
    bundle = read_bundle(Repository(tmp_path / "repository").path_of("planted", 1))
    assert bundle.manifest.evaluation["num_queries"] == 20
    assert "held-out training queries" in (bundle.path / "report.html").read_text("utf8")
    assert CheckpointFolder(tmp_path / "repository/.training-planted", "").exists is False


def test_nothing_held_out_and_no_test_data_publishes_without_an_evaluation(tmp_path: Path) -> None:
    data = write_planted(tmp_path / "data", with_test=False)
    outcome = run(data, tmp_path / "repository", small_config(loop={"held_out": 0}))
    assert outcome.figures == {}


@pytest.mark.parametrize(("held_out", "num_kept"), [(20, 20), (0, 50)])
def test_a_bundle_keeps_embeddings_of_queries_that_it_did_not_learn_from(
    tmp_path: Path, held_out: int, num_kept: int
) -> None:
    """Those held out of the training, or else the 50 of the test."""
    data = write_planted(tmp_path / "data")
    run(data, tmp_path / "repository", small_config(loop={"epochs": 1, "held_out": held_out}))
    bundle = read_bundle(Repository(tmp_path / "repository").path_of("planted", 1))
    sample_BD = bundle.query_sample()
    assert sample_BD is not None
    assert sample_BD.shape == (num_kept, 64)
    np.testing.assert_allclose(np.linalg.norm(sample_BD, axis=1), 1.0, rtol=1e-5)
    assert len(np.unique(sample_BD, axis=0)) > 10
