from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from motherlode.core.errors import BundleError, UnsupportedFormatError
from motherlode.core.manifest import (
    Dimensions,
    FileEntry,
    IndexInfo,
    Manifest,
    Memory,
    Normalization,
    Stage,
    bundle_digest,
    check_files,
    read_manifest,
)

STAGES = (
    Stage(name="encoder", kind="bag", config={"width": 4}),
    Stage(name="index", kind="exact", config={}, score_meaning="inner product"),
)


def make_manifest(folder: Path, **changes: Any) -> Manifest:
    folder.mkdir(exist_ok=True)
    (folder / "labels.arrow").write_bytes(b"labels")
    (folder / "report.html").write_bytes(b"report")
    files = {name: FileEntry.of(folder / name) for name in ("labels.arrow", "report.html")}
    values: dict[str, Any] = {
        "created_at": datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        "written_by": "motherlode 0.1.0",
        "digest": bundle_digest(files, STAGES),
        "dimensions": Dimensions(num_features=3, width=4, num_labels=5),
        "normalization": Normalization(queries="unit", labels="none"),
        "stages": STAGES,
        "index": IndexInfo(
            kind="exact", factory="Flat", faiss_version="1", parameters={}, recall={"R@10": 1.0}
        ),
        "memory": Memory(ram_bytes=1, gpu_bytes=2),
        "evaluation": {"P@1": 50.0},
        "parents": {},
        "config": {"seed": 1},
        "config_digest": "c",
        "data_digest": "d",
        "files": files,
    }
    return Manifest(**(values | changes))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_manifest_reads_back_equal(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    manifest.save(tmp_path)
    assert read_manifest(tmp_path) == manifest


def test_a_folder_without_manifest_holds_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: no such file"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '"x"', "{}", '{"format_version": "1"}', "\xff", "[" * 100_000],
    ids=range(8),
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_newer_format_is_named_even_where_its_fields_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format_version": 99, "novelty": true}')
    with pytest.raises(UnsupportedFormatError, match=r"format version 99; .* up to 5"):
        read_manifest(tmp_path)


def test_a_wrong_value_is_named_with_its_path(tmp_path: Path) -> None:
    make_manifest(tmp_path).save(tmp_path)
    edit(tmp_path, dimensions={"num_features": 3, "width": 0, "num_labels": 5})
    with pytest.raises(
        BundleError, match=r"dimensions\.width: .*greater than or equal to 1.*got 0"
    ):
        read_manifest(tmp_path)


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    make_manifest(tmp_path).save(tmp_path)
    edit(tmp_path, novelty=1)
    with pytest.raises(BundleError, match="novelty"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../b", "a//b", ".hidden", "", "a\\b"])
def test_a_file_path_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    make_manifest(tmp_path).save(tmp_path)
    edit(tmp_path, files={name: {"size_bytes": 1, "sha256": "0" * 64}})
    with pytest.raises(BundleError, match="files"):
        read_manifest(tmp_path)


def test_the_score_meaning_is_that_of_the_last_stage_with_one(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    assert manifest.score_meaning == "inner product"
    assert manifest.stage("encoder").kind == "bag"
    with pytest.raises(KeyError):
        manifest.stage("ranker")
    assert not manifest.has_ranker
    ranker = Stage(name="ranker", kind="tree_correction", config={}, score_meaning="log p")
    ranked = make_manifest(tmp_path, stages=(*STAGES, ranker))
    assert ranked.score_meaning == "log p"
    assert ranked.has_ranker


def test_a_report_has_no_part_in_the_digest(tmp_path: Path) -> None:
    files = make_manifest(tmp_path).files
    other = files | {"report.html": FileEntry(size_bytes=1, sha256="0" * 64)}
    assert bundle_digest(other, STAGES) == bundle_digest(files, STAGES)


def test_a_deciding_file_or_a_stage_changes_the_digest(tmp_path: Path) -> None:
    files = make_manifest(tmp_path).files
    other = files | {"labels.arrow": FileEntry(size_bytes=1, sha256="0" * 64)}
    digests = {
        bundle_digest(files, STAGES),
        bundle_digest(other, STAGES),
        bundle_digest(files, STAGES[:1]),
    }
    assert len(digests) == 3


def test_whole_files_pass_the_check_and_hidden_ones_are_ignored(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    (tmp_path / ".nfs0001").touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").touch()
    check_files(tmp_path, manifest, verify=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    (tmp_path / "labels.arrow").unlink()
    with pytest.raises(BundleError, match=r"labels\.arrow: cannot be read: No such file"):
        check_files(tmp_path, manifest, verify=True)


def test_a_shorter_file_is_found_without_hashing(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    (tmp_path / "labels.arrow").write_bytes(b"label")
    with pytest.raises(BundleError, match=r"labels\.arrow: 5 bytes, expected 6"):
        check_files(tmp_path, manifest, verify=False)


def test_a_changed_byte_is_found_by_hashing_alone(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    (tmp_path / "labels.arrow").write_bytes(b"lapels")
    check_files(tmp_path, manifest, verify=False)
    with pytest.raises(BundleError, match=r"labels\.arrow: SHA-256 is .* the file changed"):
        check_files(tmp_path, manifest, verify=True)


def test_a_file_beside_the_manifest_is_refused(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "vocabulary.arrow").touch()
    with pytest.raises(BundleError, match=r"features/vocabulary\.arrow: not in manifest\.json"):
        check_files(tmp_path, manifest, verify=True)


def test_a_digest_that_is_not_that_of_the_files_is_refused(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, digest="0" * 64)
    with pytest.raises(BundleError, match=r"manifest\.json: digest is not that"):
        check_files(tmp_path, manifest, verify=False)
