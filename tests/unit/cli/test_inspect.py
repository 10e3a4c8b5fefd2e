from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from motherlode.cli.inspect import inspect
from motherlode.core.errors import BundleError, ConfigError, NotFoundError
from motherlode.core.index.devices import Device
from motherlode.core.repository import Repository
from tests.support.bundles import publish_tiny, tiny_draft


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Versions 1 to 3 of `tiny`; 1 is `stable`, and 3 is of a newer format."""
    for seed in range(3):
        publish_tiny(tmp_path, seed=seed, num_labels=5)
    opened = Repository(tmp_path)
    opened.set_alias("tiny", "stable", 1)
    (opened.path_of("tiny", 3) / "manifest.json").write_text('{"format_version": 99}')
    return tmp_path


def test_the_listing_names_models_versions_and_aliases(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect(repository=repository)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        *("model", "version", "aliases", "created", "labels", "width", "index", "size", "digest")
    ]
    assert "format version 99" in lines[1]
    assert lines[2].split()[:2] == ["tiny", "2"]
    assert lines[3].split()[:3] == ["tiny", "1", "stable"]


def test_the_listing_as_json_is_one_document(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect(repository=repository, json=True)
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["name"], model["aliases"]) == ("tiny", {"stable": 1})
    assert [version["version"] for version in model["versions"]] == [1, 2, 3]
    assert model["versions"][0]["num_labels"] == 5
    assert "format version 99" in model["versions"][2]["error"]


def test_an_empty_repository_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(repository=tmp_path)
    assert capsys.readouterr().out == f"{tmp_path} holds no model\n"


def test_a_version_is_shown_for_people(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect(repository=repository, model="tiny@stable")
    shown = capsys.readouterr().out
    manifest = Repository(repository).manifest("tiny", 1)
    for text in (
        "tiny@1",
        "stable",
        manifest.digest,
        "cosine of query and label (inner_product)",
        "R@10 1.0000",
        "head.normalize=True",
        "100.00",
        "encoder.safetensors",
        manifest.files["encoder.safetensors"].sha256[:12],
        "queries yes, labels yes",
    ):
        assert text in shown


def test_a_ranker_is_shown_as_the_last_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_tiny(tmp_path, num_labels=5, ranker_kind="tree_correction")
    inspect(repository=tmp_path, model="tiny")
    shown = capsys.readouterr().out
    assert "xi + log p_n(y|x) (ranked anew)" in shown
    [line] = [line for line in shown.splitlines() if line.startswith("ranker ")]
    assert "tree_correction" in line
    assert line.endswith("shortlist=20, scale=20.0")
    assert "ranker/label_tree.safetensors" in shown


def test_a_version_as_json_is_its_manifest(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect(repository=repository, model="tiny@2", json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["version"], document["aliases"]) == ("tiny", 2, [])
    assert document["digest"] == Repository(repository).manifest("tiny", 2).digest
    assert document["stages"][-1]["score_meaning"] == "cosine of query and label"


def test_a_version_without_evaluation_is_shown_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Repository(tmp_path).publish("bare", replace(tiny_draft(num_labels=5), evaluation={}))
    inspect(repository=tmp_path, model="bare")
    assert "evaluation  " not in capsys.readouterr().out


def test_what_cannot_be_shown_is_an_error(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="format version 99"):
        inspect(repository=repository, model="tiny")
    with pytest.raises(NotFoundError, match="no model 'huge'; there is tiny"):
        inspect(repository=repository, model="huge")
    with pytest.raises(ConfigError, match="model: expected MODEL, MODEL@VERSION"):
        inspect(repository=repository, model="tiny@")
    with pytest.raises(NotFoundError, match="no repository"):
        inspect(repository=tmp_path / "missing")


def test_nothing_heavy_is_imported_to_look_into_a_repository() -> None:
    code = "import sys, motherlode.cli.inspect; print({'torch', 'faiss'} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000_000, "2.0 GB"), (3e15, "3000.0 TB")],
)
def test_sizes_are_shown_in_decimal_units(size_bytes: int, text: str) -> None:
    from motherlode.cli.inspect import _readable_size

    assert _readable_size(size_bytes) == text


def test_a_model_that_cannot_be_read_whole_is_a_row_and_hides_no_other(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_tiny(repository, "other", num_labels=5)
    (repository / "other/aliases.json").write_text("[" * 100_000)
    inspect(repository=repository)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("other")
    assert "aliases.json: cannot be read" in lines[1]
    assert lines[2].split()[:2] == ["other", "1"]
    assert [line.split()[0] for line in lines[3:]] == ["tiny"] * 3
    inspect(repository=repository, json=True)
    other, tiny = json.loads(capsys.readouterr().out)["models"]
    assert "aliases.json: cannot be read" in other["error"]
    assert "error" not in tiny


def test_a_model_folder_that_cannot_be_read_is_a_row(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_access(_: Repository, model: str) -> list[int]:
        raise BundleError(Path(model), "cannot be read: Permission denied")

    monkeypatch.setattr(Repository, "versions", no_access)
    inspect(repository=repository)
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("tiny")
    assert line.endswith("cannot be read: Permission denied")


def test_the_placement_is_shown_with_its_reasons(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = Device(name="cpu", description="4 cores", free_bytes=2**30)
    monkeypatch.setattr("motherlode.cli.placement.detect_devices", lambda: (cpu,))
    inspect(repository=repository, model="tiny@1", placement=True)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["cpu", "1,024", "4", "cores"]
    assert lines[4][:3] == ["index", "cpu", "float32"]
    assert lines[4][-4:] == ["there", "is", "no", "GPU"]
    assert lines[-1][:2] == ["all", "cpu"]


def test_the_placement_as_json_is_one_document(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = (
        Device(name="cpu", description="4 cores", free_bytes=2**10),
        Device(name="gpu:0", description="a GPU", free_bytes=2**34),
    )
    monkeypatch.setattr("motherlode.cli.placement.detect_devices", lambda: devices)
    inspect(repository=repository, model="tiny@1", placement=True, json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["version"]) == ("tiny", 1)
    assert [device["name"] for device in document["devices"]] == ["cpu", "gpu:0"]
    assert [p["devices"] for p in document["placements"]] == [["gpu:0"], ["cpu"], ["cpu"]]
    assert [r["place"] for r in document["routes"]] == ["gpu", "cpu", "cpu"]
    assert document["problems"][0].startswith("needs 0 MiB of RAM")


def test_a_placement_is_that_of_a_model(repository: Path) -> None:
    with pytest.raises(ConfigError, match="model: expected a model to place"):
        inspect(repository=repository, placement=True)
