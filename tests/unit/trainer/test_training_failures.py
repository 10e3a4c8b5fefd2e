"""What stops a run: found before it where that can be, and never at the cost of another run."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest
from typing_extensions import override

from motherlode.core.bundle import read_bundle
from motherlode.core.errors import (
    BundleError,
    ConfigError,
    DataError,
    InvalidInputError,
    MotherlodeError,
)
from motherlode.core.repository import Repository
from motherlode.trainer.checkpoint import claim
from motherlode.trainer.config import load_config
from motherlode.trainer.data import kind_of_data
from motherlode.trainer.progress import RunDisplay
from tests.support.planted import small_config, write_planted
from tests.support.training import KilledError, KillingDisplay, run

EVERY_STEP = {"checkpoint_every_s": 1e-9}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted"))


def write_lines(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf8")
    return folder


def never_starts() -> RunDisplay:
    """Fails a run that comes to its first step."""
    return KillingDisplay(1)


def test_a_second_run_of_a_model_in_a_repository_is_refused_at_once(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        run(data, tmp_path, small_config(loop=EVERY_STEP), KillingDisplay(5))
    folder = tmp_path / ".training-planted"
    before = (folder / "newest.safetensors").read_bytes()
    with claim(folder):
        for resume in (False, True):
            with pytest.raises(MotherlodeError, match="another training of this model"):
                run(data, tmp_path, small_config(), never_starts(), resume=resume)
    assert (folder / "newest.safetensors").read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_holds_its_folder_as_long_as_it_trains(
    data: Path, tmp_path: Path, resume: bool
) -> None:
    class TryingDisplay(KillingDisplay):
        @override
        def start(self, step: int, num_steps: int) -> None:
            file = os.open(tmp_path / ".training-planted", os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(file)

    config = small_config(loop=EVERY_STEP)
    with pytest.raises(KilledError):
        run(data, tmp_path, config, KillingDisplay(5))
    with pytest.raises(KilledError):
        run(data, tmp_path, config, TryingDisplay(2), resume=resume)


def test_a_claim_that_is_over_leaves_no_empty_folder(tmp_path: Path) -> None:
    with claim(tmp_path / "r/.training-m"):
        assert (tmp_path / "r/.training-m").is_dir()
    with claim(tmp_path / "r/.training-m"):
        pass
    assert not (tmp_path / "r/.training-m").exists()


@pytest.mark.parametrize("model", ["", "../x y", "../../../escaped"])
def test_a_name_that_cannot_be_a_models_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, model: str
) -> None:
    with pytest.raises(ConfigError, match="model: expected a letter or digit"):
        run(data, tmp_path / "a/b/c", small_config(), never_starts(), model=model)
    assert list(tmp_path.iterdir()) == []


def test_a_repository_that_is_a_file_is_refused_before_the_training(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot publish"):
        run(data, tmp_path / "file", small_config(), never_starts())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", r"test\.jsonl: records: expected at least one"),
        ('{"text": "word1"}', r"test\.jsonl:1: labels: expected a list of labels"),
        (
            '{"indices": [1], "values": [1.0], "labels": ["1"]}',
            r"test\.jsonl:1: queries: expected text, got sparse",
        ),
    ],
)
def test_a_wrong_test_file_is_refused_before_the_training(
    tmp_path: Path, line: str, message: str
) -> None:
    data = write_lines(write_planted(tmp_path / "data", with_test=False), "test.jsonl", line)
    with pytest.raises(DataError, match=message):
        run(data, tmp_path / "repository", small_config(), never_starts())


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("train.jsonl", ['{"text": "word1", "labels": []}'] * 4, "labels: expected a query with"),
        ("train.txt", ["1 0 0", " "], "labels: expected a query with a label"),
        ("train.txt", ["1 0 1", "0 "], "features: expected at least one, got none"),
    ],
    ids=range(3),
)
def test_data_that_nothing_can_be_learned_from_is_refused(
    tmp_path: Path, name: str, lines: list[str], message: str
) -> None:
    data = write_lines(tmp_path / "data", name, *lines)
    config = load_config("default", data_kind=kind_of_data(data))
    with pytest.raises(DataError, match=message):
        run(data, tmp_path / "repository", config, never_starts())


def test_features_too_large_to_train_on_are_refused_unless_they_are_normalised(
    tmp_path: Path,
) -> None:
    data = write_lines(tmp_path / "data", "train.txt", "20 3 1", *["0 1:3e38 2:3e38"] * 20)
    config = load_config("default", ["features.normalize=false"], data_kind="sparse")
    with pytest.raises(DataError, match=r"train\.txt: values of features: expected up to"):
        run(data, tmp_path / "repository", config, never_starts())
    with pytest.raises(KilledError):
        run(data, tmp_path, load_config("default", data_kind="sparse"), never_starts())


@pytest.mark.parametrize(
    ("record", "overrides", "sizes"),
    [
        ('{"indices": [2147483647], "values": [1.0], "labels": ["1"]}', [], "2,147,483,648 feat"),
        (
            '{"indices": [1], "values": [1.0], "labels": ["1"]}',
            ["encoder.head.hidden=1000000000000"],
            "1,000,000,000,000 hidden",
        ),
    ],
)
def test_a_model_larger_than_the_memory_is_refused_with_its_sizes(
    tmp_path: Path, record: str, overrides: list[str], sizes: str
) -> None:
    data = write_lines(tmp_path / "data", "train.jsonl", record, record)
    config = load_config("default", ["encoder.width=65536", *overrides], data_kind="sparse")
    with pytest.raises(InvalidInputError, match=f"size of the model: expected .* for .*{sizes}"):
        run(data, tmp_path / "repository", config, never_starts())


@pytest.mark.parametrize("held_out", [20, 0])
@pytest.mark.parametrize("key", ["features_lr", "labels_lr", "head_lr"])
def test_a_training_that_diverges_says_so_and_what_to_lower(
    data: Path, tmp_path: Path, key: str, held_out: int
) -> None:
    config = small_config(
        optimizer={key: 1e30}, encoder={"head": {"hidden": 4}}, loop={"held_out": held_out}
    )
    with pytest.raises(MotherlodeError, match=r"training diverged: .*optimizer\.features_lr"):
        run(data, tmp_path, config)
    assert Repository(tmp_path).models() == []


def test_what_fails_after_the_training_does_not_cost_the_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise BundleError(tmp_path, "cannot publish: No space left on device")

    config = small_config(loop={"epochs": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Repository, "publish", full_disk)
        with pytest.raises(BundleError, match="No space left"):
            run(data, tmp_path, config)
    # No step is left: a display that dies at the first one sees none.
    outcome = run(data, tmp_path, config, never_starts(), resume=True)
    assert outcome.digest == run(data, tmp_path / "whole", config).digest


def test_a_last_checkpoint_that_cannot_be_written_is_a_warning(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("motherlode.trainer.checkpoint.save_file", full_disk)
    assert run(data, tmp_path, small_config(loop={"epochs": 1})).version == 1
    assert "the trained model has no checkpoint" in caplog.text


def test_a_run_says_when_it_overwrites_a_checkpoint_or_finds_none(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(loop=EVERY_STEP)
    with pytest.raises(KilledError):
        run(data, tmp_path, config, KillingDisplay(3), resume=True)
    assert "holds no checkpoint: the run starts at its beginning" in caplog.text
    caplog.clear()
    with pytest.raises(KilledError):
        run(data, tmp_path, config, KillingDisplay(3), resume=True)
    assert caplog.text.count("WARNING") == 0
    with pytest.raises(KilledError):
        run(data, tmp_path, config, KillingDisplay(3))
    assert "which --resume would go on with" in caplog.text


def test_what_a_run_killed_while_saving_left_goes_with_the_next_run(
    data: Path, tmp_path: Path
) -> None:
    write_lines(tmp_path / ".training-planted", "newest.staging", "half a checkpoint")
    run(data, tmp_path, small_config(loop={"epochs": 1}))
    assert not (tmp_path / ".training-planted").exists()


def test_the_default_recipe_trains_every_kind_of_data_with_no_other_setting(
    tmp_path: Path,
) -> None:
    rows = [(i % 10, 10 + i % 3) for i in range(200)]
    text = [json.dumps({"text": f"w{a} w{b}", "labels": [str(a)]}) for a, b in rows]
    dense = [
        json.dumps({"features": [float(i == a) for i in range(10)], "labels": [str(a)]})
        for a, _ in rows
    ]
    sparse = ["200 15 10", *(f"{a} {a}:1 {b}:0.5" for a, b in rows)]
    write_lines(tmp_path / "text", "train.jsonl", *text)
    write_lines(tmp_path / "dense", "train.jsonl", *dense)
    write_lines(tmp_path / "sparse", "train.txt", *sparse)
    for kind in ("text", "dense", "sparse"):
        data = tmp_path / kind
        config = load_config("default", data_kind=kind_of_data(data))
        assert run(data, tmp_path / "repository", config).figures["P@1"] == 100.0
    bundle = read_bundle(Repository(tmp_path / "repository").path_of("planted", 3))
    assert bundle.manifest.config["features"] == {"kind": "sparse", "normalize": True}


def test_data_that_cannot_be_read_has_no_kind(tmp_path: Path) -> None:
    assert kind_of_data(tmp_path) is None
    assert kind_of_data(write_lines(tmp_path, "train.jsonl", "broken")) is None
