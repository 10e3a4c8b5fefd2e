from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from motherlode.core.bundle import BundleDraft, read_bundle, write_bundle
from motherlode.core.errors import BundleError, UnsupportedFormatError
from motherlode.core.index import ExactConfig, build_index
from motherlode.core.labels import LabelTable
from motherlode.core.manifest import Stage
from motherlode.core.queries import TextQueries
from motherlode.core.query_path import QueryPath
from motherlode.core.retriever import Retriever
from tests.support.bundles import forge_manifest, tiny_draft

DECIDING_FILES = [
    "encoder.safetensors",
    "features/config.json",
    "features/vocabulary.arrow",
    "golden.arrow",
    "index/index.faiss",
    "label_embeddings.safetensors",
    "labels.arrow",
]


@pytest.fixture
def draft() -> BundleDraft:
    return tiny_draft()


@pytest.fixture
def folder(tmp_path: Path, draft: BundleDraft) -> Path:
    write_bundle(draft, tmp_path / "bundle")
    return tmp_path / "bundle"


def check(folder: Path) -> None:
    """All that loading from a repository checks."""
    Retriever(read_bundle(folder), model="tiny", version=1).check_golden()


@pytest.mark.parametrize("index_kind", ["exact", "scan", "ivf_flat", "ivf", "hnsw"])
def test_a_bundle_reads_back_what_was_written(tmp_path: Path, index_kind: str) -> None:
    draft = tiny_draft(index_kind=index_kind)
    manifest = write_bundle(draft, tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.manifest == manifest
    assert list(bundle.labels.keys) == list(draft.labels.keys)
    np.testing.assert_array_equal(bundle.labels_LD, draft.labels_LD)
    np.testing.assert_array_equal(bundle.encoder.table_FD.numpy(), draft.encoder.table_FD.numpy())
    assert bundle.index.config == draft.index.config
    check(tmp_path / "bundle")


def test_the_manifest_says_what_is_in_the_bundle(folder: Path, draft: BundleDraft) -> None:
    manifest = read_bundle(folder).manifest
    assert manifest.dimensions.num_labels == 50
    assert manifest.dimensions.width == 16
    assert manifest.dimensions.num_features == draft.featurizer.num_features
    assert manifest.normalization.queries == manifest.normalization.labels == "unit"
    assert [stage.name for stage in manifest.stages] == ["features", "encoder", "index"]
    assert manifest.score_meaning == "cosine of query and label"
    assert manifest.index.recall == {"R@10": 1.0}
    assert manifest.memory.ram_bytes > draft.labels_LD.nbytes
    assert manifest.evaluation == draft.evaluation
    assert set(DECIDING_FILES) < set(manifest.files)
    assert "manifest.json" not in manifest.files
    assert json.loads((folder / "evaluation.json").read_text()) == draft.evaluation


def test_embeddings_of_any_length_are_said_not_to_have_unit_length(tmp_path: Path) -> None:
    draft = tiny_draft()
    long_LD = draft.labels_LD * np.float32(2)
    index = build_index(ExactConfig(), long_LD, seed=0)
    golden = QueryPath(draft.featurizer, draft.encoder, index).take_golden(
        TextQueries(["topic1"]), 3
    )
    changed = replace(draft, labels_LD=long_LD, index=index, golden=golden)
    assert write_bundle(changed, tmp_path / "bundle").normalization.labels == "none"


def test_the_same_draft_gives_the_same_digest_and_another_seed_another(tmp_path: Path) -> None:
    digests = [
        write_bundle(tiny_draft(seed), tmp_path / str(i)).digest for i, seed in enumerate([0, 0, 1])
    ]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_whoever_may_read_one_file_may_read_all(folder: Path) -> None:
    modes = {path.stat().st_mode for path in folder.rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_a_report_is_optional_and_does_not_change_the_digest(
    tmp_path: Path, draft: BundleDraft, folder: Path
) -> None:
    manifest = write_bundle(replace(draft, report_html=None), tmp_path / "bare")
    assert "report.html" not in manifest.files
    assert manifest.digest == read_bundle(folder).manifest.digest


def test_training_state_comes_back_and_does_not_change_the_digest(
    tmp_path: Path, draft: BundleDraft, folder: Path
) -> None:
    state = {"adagrad": np.arange(5, dtype=np.float32)}
    write_bundle(replace(draft, training_state=state), tmp_path / "trained")
    bundle = read_bundle(tmp_path / "trained")
    np.testing.assert_array_equal(bundle.training_state()["adagrad"], state["adagrad"])
    assert read_bundle(folder).training_state() == {}
    assert read_bundle(folder).manifest.digest == bundle.manifest.digest


def test_broken_training_state_is_named(tmp_path: Path, draft: BundleDraft) -> None:
    folder = tmp_path / "trained"
    write_bundle(replace(draft, training_state={"a": np.ones(1, np.float32)}), folder)
    (folder / "training_state.safetensors").write_bytes(b"garbage")
    forge_manifest(folder)
    with pytest.raises(BundleError, match=r"training_state\.safetensors: cannot be read"):
        read_bundle(folder).training_state()


def test_the_sample_of_queries_comes_back(tmp_path: Path, draft: BundleDraft) -> None:
    sample_BD = draft.golden.embeddings_BD
    write_bundle(replace(draft, query_sample_BD=sample_BD), tmp_path / "sampled")
    np.testing.assert_array_equal(read_bundle(tmp_path / "sampled").query_sample(), sample_BD)


def test_a_sample_of_another_width_is_named(tmp_path: Path, draft: BundleDraft) -> None:
    write_bundle(replace(draft, query_sample_BD=np.ones((3, 2), np.float32)), tmp_path / "sampled")
    with pytest.raises(BundleError, match=r"query_sample\.safetensors: width is 2, expected 16"):
        read_bundle(tmp_path / "sampled").query_sample()


def test_label_embeddings_are_mapped_and_cannot_be_written_to(folder: Path) -> None:
    labels_LD = read_bundle(folder).labels_LD
    assert not labels_LD.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        labels_LD[0, 0] = 1.0


def test_label_embeddings_are_a_safetensors_file(folder: Path, draft: BundleDraft) -> None:
    tensors = load_file(folder / "label_embeddings.safetensors")
    np.testing.assert_array_equal(tensors["label_embeddings"], draft.labels_LD)


@pytest.mark.parametrize("name", DECIDING_FILES)
def test_a_flipped_bit_in_any_file_is_refused_by_name(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: SHA-256 is .* the file changed"):
        read_bundle(folder)


@pytest.mark.parametrize("name", DECIDING_FILES)
def test_a_half_copied_file_is_refused_by_name_without_hashing(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=rf"{name}: \d+ bytes, expected {len(content)}"):
        read_bundle(folder, verify=False)


@pytest.mark.parametrize("name", DECIDING_FILES)
def test_garbage_is_refused_by_name_even_if_its_digest_is_right(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x07garbage\x00\xff" * 20)
    forge_manifest(folder)
    with pytest.raises(BundleError, match=name.split("/", maxsplit=1)[0]):
        read_bundle(folder)


@pytest.mark.parametrize("name", DECIDING_FILES)
def test_a_missing_file_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: cannot be read"):
        read_bundle(folder)


def test_a_manifest_that_leaves_out_a_needed_file_is_refused(folder: Path) -> None:
    (folder / "golden.arrow").unlink()
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    del document["files"]["golden.arrow"]
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"golden\.arrow is not listed"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        ([], "there is no stage encoder"),
        ([("encoder", {"kind": "bag", "width": 16})], "there is no stage index"),
        (
            [("encoder", {"kind": "bag", "width": 16}), ("index", {"kind": "psychic"})],
            r"stages\.index\.config: .*psychic",
        ),
    ],
)
def test_a_manifest_without_the_needed_stages_is_refused(
    folder: Path, stages: list[tuple[str, dict[str, object]]], reason: str
) -> None:
    manifest = read_bundle(folder).manifest
    changed = [Stage(name=name, kind="x", config=config) for name, config in stages]
    manifest.model_copy(update={"stages": tuple(changed)}).save(folder)
    forge_manifest(folder)
    with pytest.raises(BundleError, match=rf"manifest\.json: {reason}|stages: {reason}"):
        read_bundle(folder)


def test_a_newer_format_is_refused_before_anything_else(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({"format_version": 99}))
    with pytest.raises(UnsupportedFormatError, match="format version 99"):
        read_bundle(folder)


def swap(folder: Path, other: BundleDraft, name: str) -> None:
    elsewhere = folder.with_name("other")
    write_bundle(other, elsewhere)
    shutil.copyfile(elsewhere / name, folder / name)


@pytest.mark.parametrize("index_kind", ["exact", "scan", "ivf_flat", "ivf", "hnsw"])
def test_an_index_of_another_bundle_is_refused_even_with_a_manifest_to_match(
    tmp_path: Path, index_kind: str
) -> None:
    folder = tmp_path / "bundle"
    write_bundle(tiny_draft(0, index_kind=index_kind), folder)
    swap(folder, tiny_draft(1, index_kind=index_kind), "index/index.faiss")
    with pytest.raises(BundleError, match=r"index/index\.faiss: (SHA-256|\d+ bytes)"):
        read_bundle(folder)
    forge_manifest(folder)
    with pytest.raises(BundleError, match=r"index/index\.faiss: .*other label embeddings"):
        read_bundle(folder)


def test_another_encoder_with_a_manifest_to_match_is_refused_by_the_golden_queries(
    folder: Path,
) -> None:
    swap(folder, tiny_draft(1), "encoder.safetensors")
    forge_manifest(folder)
    with pytest.raises(BundleError, match=r"encoder\.safetensors: does not give the embeddings"):
        check(folder)


def test_labels_in_another_order_are_refused_by_the_golden_queries(
    folder: Path, draft: BundleDraft
) -> None:
    """The index is made again for them, so that nothing but the answers is wrong."""
    turned_LD = np.roll(draft.labels_LD, 1, axis=0)
    elsewhere = folder.with_name("other")
    index = build_index(ExactConfig(), turned_LD, seed=0)
    write_bundle(replace(draft, labels_LD=turned_LD, index=index), elsewhere)
    for name in ("label_embeddings.safetensors", "index/index.faiss"):
        shutil.copyfile(elsewhere / name, folder / name)
    forge_manifest(folder)
    with pytest.raises(BundleError, match=r"index\.faiss: does not give the hits"):
        check(folder)


@pytest.mark.parametrize(
    ("other", "name", "reason"),
    [
        (tiny_draft(num_labels=49), "index/index.faiss", "49"),
        (tiny_draft(width=8), "index/index.faiss", "8"),
        (tiny_draft(width=8), "encoder.safetensors", "8"),
        (tiny_draft(num_labels=49), "encoder.safetensors", "expected"),
        (tiny_draft(num_labels=49), "labels.arrow", "number of labels is 49, expected 50"),
        (tiny_draft(width=8), "label_embeddings.safetensors", r"shape is \(50, 8\), expected"),
        (tiny_draft(width=8), "golden.arrow", "embedding width is 8, expected 16"),
        (tiny_draft(num_labels=49), "features/vocabulary.arrow", "expected 53 features, got 52"),
    ],
)
def test_a_part_of_another_size_is_refused_with_its_file(
    folder: Path, other: BundleDraft, name: str, reason: str
) -> None:
    swap(folder, other, name)
    forge_manifest(folder)
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    assert re.search(reason, caught.value.reason)
    assert caught.value.path.relative_to(folder).parts[0] == Path(name).parts[0]


def test_parts_that_do_not_fit_together_are_not_written(tmp_path: Path, draft: BundleDraft) -> None:
    labels = LabelTable(["only one"], None, np.array([1]))
    with pytest.raises(BundleError, match=r"labels\.arrow: number of labels is 1, expected 50"):
        write_bundle(replace(draft, labels=labels), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_label_embedding_that_is_not_a_number_is_not_written(
    tmp_path: Path, draft: BundleDraft
) -> None:
    labels_LD = draft.labels_LD.copy()
    labels_LD[3, 4] = np.nan
    with pytest.raises(BundleError, match="not finite"):
        write_bundle(replace(draft, labels_LD=labels_LD), tmp_path / "bundle")


def test_a_bundle_is_not_written_over_another(folder: Path, draft: BundleDraft) -> None:
    with pytest.raises(BundleError, match="not empty"):
        write_bundle(draft, folder)
