"""The bundle: all that is needed to answer queries, in one folder that never changes.

manifest.json                     written last; sizes and digests of the other files
features/  encoder.safetensors    from a query to its embedding
labels.arrow                      keys, texts and frequencies of the labels
label_embeddings.safetensors      float32 [L, D]
label_encoder.safetensors         optional: embeds the texts of new labels where the encoder of
                                  queries does not; serving never reads it
index/index.faiss                 finds labels by embedding
ranker/                           optional: ranks the hits of the index anew
golden.arrow                      queries with the answers they must get
query_sample.safetensors          optional: embeddings of queries that the model did not learn from,
                                  to measure an index with; serving never reads it
training_state.safetensors        optional: where a warm start goes on; serving never reads it
evaluation.json  report.html      measured quality, for people

A bundle holds arrays and JSON only; nothing in it is ever run or unpickled. A file that the
manifest does not name is refused, since a part may read whatever lies in its folder; hidden files,
which file systems and desktops leave behind, are read by no part and ignored.

Shapes: L labels, D embedding width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from motherlode.core.array_file import map_matrix, write_matrix
from motherlode.core.draft import BundleDraft
from motherlode.core.encoders import QueryEncoder, load_encoder
from motherlode.core.errors import BundleError
from motherlode.core.features import Featurizer, load_featurizer
from motherlode.core.golden import Golden
from motherlode.core.index import IndexConfig, LabelIndex, load_index
from motherlode.core.labels import LabelTable
from motherlode.core.manifest import (
    EMBEDDINGS_FILE,
    ENCODER_FILE,
    EVALUATION_FILE,
    FEATURES_FOLDER,
    GOLDEN_FILE,
    INDEX_FILE,
    LABEL_ENCODER_FILE,
    LABELS_FILE,
    MANIFEST_FILE,
    QUERY_SAMPLE_FILE,
    RANKER_FOLDER,
    REPORT_FILE,
    TRAINING_STATE_FILE,
    Dimensions,
    FileEntry,
    Manifest,
    Stage,
    check_files,
    list_files,
    lowest_format_version,
    read_manifest,
)
from motherlode.core.queries import EmbeddingQueries, FloatArray
from motherlode.core.rankers import RANKERS, Ranker, load_ranker
from motherlode.core.staging import sync_tree

__all__ = ["Bundle", "BundleDraft", "read_bundle", "write_bundle"]

_MATRIX_NAME = "label_embeddings"
_SAMPLE_NAME = "query_embeddings"
_INDEX_CONFIG: TypeAdapter[IndexConfig] = TypeAdapter(IndexConfig)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """A bundle read from its folder; `labels_LD` is float32 [L, D], read-only and mapped."""

    path: Path
    manifest: Manifest
    featurizer: Featurizer
    encoder: QueryEncoder
    labels: LabelTable
    labels_LD: FloatArray
    index: LabelIndex
    golden: Golden
    ranker: Ranker | None = None

    def label_encoder(self) -> QueryEncoder:
        """From the features of a label's text to an embedding: an own encoder, else the queries'.

        Raises:
            BundleError: If the file cannot be read or its shapes do not fit.
        """
        if LABEL_ENCODER_FILE not in self.manifest.files:
            return self.encoder
        config = self.encoder.config.without_network().model_dump()
        return load_encoder(self.path / LABEL_ENCODER_FILE, config, self.encoder.num_features)

    def query_sample(self) -> FloatArray | None:
        """float32 [B, D], mapped: queries to measure an index with; None where there are none.

        Raises:
            BundleError: If the file cannot be read or is of another width.
        """
        if QUERY_SAMPLE_FILE not in self.manifest.files:
            return None
        path, width = self.path / QUERY_SAMPLE_FILE, self.manifest.dimensions.width
        sample_BD = map_matrix(path, _SAMPLE_NAME)
        if sample_BD.shape[1] != width:
            raise BundleError(path, f"width is {sample_BD.shape[1]}, expected {width}")
        return sample_BD

    def training_state(self) -> dict[str, FloatArray]:
        """Arrays that a warm start takes over, by name; empty where the bundle has none.

        Raises:
            BundleError: If the file cannot be read.
        """
        path = self.path / TRAINING_STATE_FILE
        if TRAINING_STATE_FILE not in self.manifest.files:
            return {}
        try:
            return dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise BundleError(path, f"cannot be read: {error}") from error


def write_bundle(draft: BundleDraft, folder: Path) -> Manifest:
    """Writes a draft into an empty folder, brings it to the disk and gives its manifest.

    Raises:
        BundleError: If the folder is not empty, the parts do not fit together, or a file cannot be
            written; what was written until then remains.
    """
    _check_parts(folder, draft.dimensions, draft)
    if not np.isfinite(draft.labels_LD).all():
        raise BundleError(folder / EMBEDDINGS_FILE, "a label embedding is not finite")
    _check_label_encoder(folder, draft)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BundleError(folder, "the folder for a new bundle is not empty")
        (folder / FEATURES_FOLDER).mkdir()
        (folder / INDEX_FILE).parent.mkdir()
        if draft.ranker is not None:
            (folder / RANKER_FOLDER).mkdir()
    _write_parts(draft, folder)
    with _writing(folder):
        # Safetensors makes files that their owner alone may read; who serves may be someone else.
        mode = (folder / EVALUATION_FILE).stat().st_mode
        for name in list_files(folder):
            (folder / name).chmod(mode)
        files = {name: FileEntry.of(folder / name) for name in sorted(list_files(folder))}
    manifest = draft.describe(files)
    with _writing(folder / MANIFEST_FILE):
        manifest.save(folder)
    with _writing(folder):
        sync_tree(folder)
    return manifest


def read_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """The bundle in a folder.

    Args:
        folder: Where `write_bundle` wrote it.
        verify: Whether to hash every file. Sizes, names and dimensions are checked in any case.
            The golden answers are checked by `Retriever.load`.

    Raises:
        UnsupportedFormatError: If a newer Motherlode wrote it.
        BundleError: If anything is missing, changed or does not fit; names the file and the reason.
    """
    manifest = read_manifest(folder)
    for name in (ENCODER_FILE, LABELS_FILE, EMBEDDINGS_FILE, INDEX_FILE, GOLDEN_FILE):
        if name not in manifest.files:
            raise BundleError(folder / MANIFEST_FILE, f"files: {name} is not listed")
    check_files(folder, manifest, verify=verify)
    dimensions = manifest.dimensions
    labels_LD = map_matrix(folder / EMBEDDINGS_FILE, _MATRIX_NAME)
    _check_shape(folder, dimensions, labels_LD)
    encoder_config = _stage(folder, manifest, "encoder").config
    bundle = Bundle(
        path=folder,
        manifest=manifest,
        featurizer=load_featurizer(folder / FEATURES_FOLDER),
        encoder=load_encoder(folder / ENCODER_FILE, encoder_config, dimensions.num_features),
        labels=LabelTable.load(folder / LABELS_FILE),
        labels_LD=labels_LD,
        index=_load_index(folder, manifest, labels_LD),
        golden=Golden.load(folder / GOLDEN_FILE),
        ranker=_load_ranker(folder, manifest),
    )
    _check_parts(folder, dimensions, bundle)
    return bundle


def _write_parts(draft: BundleDraft, folder: Path) -> None:
    evaluation = json.dumps(draft.evaluation, indent=2, ensure_ascii=False, allow_nan=False)
    writers: dict[str, Callable[[Path], object]] = {
        FEATURES_FOLDER: draft.featurizer.save,
        ENCODER_FILE: draft.encoder.save,
        LABELS_FILE: draft.labels.save,
        EMBEDDINGS_FILE: lambda path: write_matrix(path, _MATRIX_NAME, draft.labels_LD),
        INDEX_FILE: draft.index.save,
        GOLDEN_FILE: draft.golden.save,
        EVALUATION_FILE: lambda path: path.write_text(evaluation + "\n", encoding="utf-8"),
    }
    if (report := draft.report_html) is not None:
        writers[REPORT_FILE] = lambda path: path.write_text(report, encoding="utf-8")
    if draft.ranker is not None:
        writers[RANKER_FOLDER] = draft.ranker.save
    if draft.label_encoder is not None:
        writers[LABEL_ENCODER_FILE] = draft.label_encoder.save
    if (sample_BD := draft.query_sample_BD) is not None:
        writers[QUERY_SAMPLE_FILE] = lambda path: write_matrix(path, _SAMPLE_NAME, sample_BD)
    if draft.training_state:
        writers[TRAINING_STATE_FILE] = lambda path: save_file(draft.training_state, path)
    for name, write in writers.items():
        with _writing(folder / name):
            write(folder / name)


def _check_parts(folder: Path, sizes: Dimensions, parts: BundleDraft | Bundle) -> None:
    """Refuses parts that do not fit together."""
    _check_shape(folder, sizes, parts.labels_LD)
    checks: list[tuple[str, str, object, object]] = [
        (FEATURES_FOLDER, "number of features", sizes.num_features, parts.featurizer.num_features),
        (ENCODER_FILE, "number of features", sizes.num_features, parts.encoder.num_features),
        (ENCODER_FILE, "width", sizes.width, parts.encoder.width),
        (LABELS_FILE, "number of labels", sizes.num_labels, len(parts.labels)),
        (INDEX_FILE, "width", sizes.width, parts.index.width),
        (INDEX_FILE, "number of labels", sizes.num_labels, parts.index.num_labels),
        (GOLDEN_FILE, "embedding width", sizes.width, parts.golden.embeddings_BD.shape[1]),
    ]
    if (ranker := parts.ranker) is not None:
        asked = "embeddings" if isinstance(parts.golden.queries, EmbeddingQueries) else "features"
        checks += [
            (RANKER_FOLDER, "number of features", sizes.num_features, ranker.num_features),
            (RANKER_FOLDER, "number of labels", sizes.num_labels, ranker.num_labels),
            (RANKER_FOLDER, "width", sizes.width, ranker.width or sizes.width),
            (GOLDEN_FILE, "what the ranker gets of the queries", "features", asked),
        ]
    for file, what, expected, actual in checks:
        if expected != actual:
            raise BundleError(folder / file, f"{what} is {actual}, expected {expected}")


def _check_label_encoder(folder: Path, draft: BundleDraft) -> None:
    if (encoder := draft.label_encoder) is None:
        return
    expected = tuple(draft.encoder.table_FD.shape)
    if tuple(encoder.table_FD.shape) != expected:
        reason = f"table is {tuple(encoder.table_FD.shape)}, expected {expected}"
        raise BundleError(folder / LABEL_ENCODER_FILE, reason)


def _check_shape(folder: Path, sizes: Dimensions, labels_LD: FloatArray) -> None:
    expected = (sizes.num_labels, sizes.width)
    if labels_LD.shape != expected:
        raise BundleError(
            folder / EMBEDDINGS_FILE, f"shape is {labels_LD.shape}, expected {expected}"
        )


def _load_index(folder: Path, manifest: Manifest, labels_LD: FloatArray) -> LabelIndex:
    stage = _stage(folder, manifest, "index")
    try:
        config = _INDEX_CONFIG.validate_python(stage.config)
    except ValidationError as error:
        reason = f"stages.index.config: {error.errors()[0]['msg']}"
        raise BundleError(folder / MANIFEST_FILE, reason) from error
    return load_index(config, folder / INDEX_FILE, labels_LD, mmap=True)


def _load_ranker(folder: Path, manifest: Manifest) -> Ranker | None:
    """The ranker that manifest and files agree on, or None if neither has one."""
    has_files = any(name.startswith(f"{RANKER_FOLDER}/") for name in manifest.files)
    if not manifest.has_ranker:
        if has_files:
            raise BundleError(folder / RANKER_FOLDER, "the manifest has no stage ranker")
        return None
    _check_ranker_stage(folder / MANIFEST_FILE, manifest, has_files=has_files)
    stage = manifest.stage("ranker")
    ranker = load_ranker(stage.kind, folder / RANKER_FOLDER)
    expected, actual = stage.config, ranker.config.model_dump(mode="json")
    if expected != actual:
        reason = f"configuration is {actual}, expected {expected}, as in {MANIFEST_FILE}"
        raise BundleError(folder / RANKER_FOLDER, reason)
    return ranker


def _check_ranker_stage(path: Path, manifest: Manifest, *, has_files: bool) -> None:
    kind, version = manifest.stage("ranker").kind, manifest.format_version
    if kind not in RANKERS:
        expected = ", ".join(sorted(RANKERS))
        raise BundleError(path, f"stages.ranker.kind: expected one of {expected}, got {kind}")
    if version < (lowest := lowest_format_version(manifest.stages)):
        reason = f"format_version: expected {lowest} with a stage ranker, got {version}"
        raise BundleError(path, reason)
    if not has_files:
        raise BundleError(path, f"files: there is a stage ranker and no file in {RANKER_FOLDER}/")


def _stage(folder: Path, manifest: Manifest, name: str) -> Stage:
    try:
        return manifest.stage(name)
    except KeyError:
        raise BundleError(folder / MANIFEST_FILE, f"stages: there is no stage {name}") from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    # FAISS reports failed writes as RuntimeError.
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise BundleError(path, f"cannot be written: {error}") from error
