"""New labels for a published model, from their texts alone.

A free label embedding starts, in training, at the mean embedding of its queries. For a label that
no query is known of yet, its own text stands for them: the encoder gives its embedding, and the
label can be retrieved at once, without any training. Where label texts were part of the training,
their encoder gives it just as it did for labels without a training query. No encoder changes.

Shapes: L labels of the parent, N new ones, D embedding width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from motherlode.core.bundle import Bundle, BundleDraft, read_bundle
from motherlode.core.errors import ConfigError, InvalidInputError
from motherlode.core.index import (
    IndexConfig,
    LabelIndex,
    LearnedIndex,
    build_index,
    measure_recall,
)
from motherlode.core.labels import LabelTable
from motherlode.core.queries import FloatArray, SparseQueries, TextQueries
from motherlode.core.query_path import QueryPath
from motherlode.core.rankers import SparseLinear, TreeCorrection
from motherlode.core.records import read_label_table
from motherlode.core.repository import Repository
from motherlode.trainer.revision import Revision, revise, seed_of

_SHOWN = 3
_RECALL_K = 10


def add_labels(
    repository: Repository, model: str, version: int | str | None, file: Path
) -> tuple[int, int]:
    """Publishes a version with more labels, found by their texts.

    Scores of the labels that were there stay as they are. The new version has no evaluation and
    no report: what the old ones say need not hold among more labels.

    Args:
        repository: Where the model is, and where the new version goes.
        model: Name of the model.
        version: Number or alias of the version to add to, or None for the newest.
        file: Labels with `id` and `text`, in a format that training data may have.

    Returns:
        The number of the new version, and how many labels it has more.

    Raises:
        NotFoundError: If there is no such model or version.
        DataError: If the file is missing, empty or broken.
        ConfigError: If the model does not take texts, or has a label tree as its ranker, which
            knows no label but those that it was fitted to.
        InvalidInputError: If the file has no texts, a label is already there, or a text has no
            feature that the model knows.
        BundleError: If a bundle cannot be read or written.
    """
    parent = read_bundle(repository.path_of(model, repository.resolve(model, version)))
    added = read_label_table(file)
    _check(parent, added)
    draft = _draft(parent, added, _features(parent, added))
    return repository.publish(model, draft), len(added)


def _check(parent: Bundle, added: LabelTable) -> None:
    if isinstance(parent.ranker, TreeCorrection):
        expected = "one without a label tree, which learns of labels only by training again"
        raise ConfigError("model", expected=expected, actual=parent.ranker.kind)
    if parent.featurizer.kind != "text":
        raise ConfigError("model", expected="one that takes texts", actual=parent.featurizer.kind)
    if added.texts is None:
        raise InvalidInputError("text", expected="a text for each label", actual=None)
    known = set(parent.labels.keys)
    repeated = [key for key in added.keys if key in known]
    if repeated:
        raise InvalidInputError(
            "id", expected="labels that the model does not have", actual=_some(repeated)
        )


def _features(parent: Bundle, added: LabelTable) -> SparseQueries:
    """Those of the texts."""
    assert added.texts is not None
    features = parent.featurizer.transform(TextQueries(list(added.texts)))
    assert isinstance(features, SparseQueries)
    unknown = np.flatnonzero(np.diff(features.indptr) == 0)
    if len(unknown):
        raise InvalidInputError(
            "text",
            expected="a text with features that the model knows",
            actual=_some([f"label {key}" for key in added.keys_of(unknown)]),
        )
    return features


def _embeddings(parent: Bundle, features: SparseQueries) -> FloatArray:
    """float32 [N, D]: as long as the parent's labels of which there is only the text."""
    embeddings_ND = parent.label_encoder().encode(features)
    length = _length(parent)
    if length is None:
        return embeddings_ND
    rows_ND = embeddings_ND.astype(np.float64)
    norms_N = np.linalg.norm(rows_ND, axis=1)
    rows_ND *= length / np.maximum(norms_N, np.finfo(np.float64).tiny)[:, None]
    return rows_ND.astype(np.float32)


def _length(parent: Bundle) -> float | None:
    """Of all new labels; None where the encoder learned how long each has to be."""
    labels = parent.manifest.config.get("labels", {})
    if labels.get("embedding", "free") == "free":
        return float(np.linalg.norm(parent.labels_LD.astype(np.float64), axis=1).mean())
    return 1.0 if labels["normalize"] else None


def _draft(parent: Bundle, added: LabelTable, features: SparseQueries) -> BundleDraft:
    labels_LD = np.concatenate([parent.labels_LD, _embeddings(parent, features)])
    index = _index(parent.index, labels_LD, seed_of(parent))
    queries_BD = QueryPath(parent.featurizer, parent.encoder, index).encode(parent.golden.queries)
    k = min(_RECALL_K, len(labels_LD))
    return revise(
        parent,
        Revision(
            kind="labels_added_to",
            labels=_joined(parent.labels, added),
            labels_LD=labels_LD,
            index=index,
            index_recall={f"R@{k}": measure_recall(index, labels_LD, queries_BD, k)},
            ranker=_ranker(parent, added, features),
            training_state=_training_state(parent, len(added)),
        ),
    )


def _ranker(parent: Bundle, added: LabelTable, features: SparseQueries) -> SparseLinear | None:
    """The parent's, with the new labels ranked by their scores and texts alone."""
    if not isinstance(parent.ranker, SparseLinear):
        return None
    return parent.ranker.with_labels(np.asarray(added.frequencies, np.int64), features)


def _index(parent: LabelIndex, labels_LD: FloatArray, seed: int) -> LabelIndex:
    """Of the parent's kind; what was learned stays, for it cannot be made again without queries."""
    if isinstance(parent, LearnedIndex):
        return parent.with_labels(labels_LD)
    config: Any = TypeAdapter(IndexConfig).validate_python(parent.config.model_dump())
    return build_index(config, labels_LD, seed=seed)


def _joined(labels: LabelTable, added: LabelTable) -> LabelTable:
    """Both tables as one; labels that were known by key alone have that as their text."""
    assert added.texts is not None
    return LabelTable(
        [*labels.keys, *added.keys],
        [*labels.shown, *added.texts],
        np.concatenate([labels.frequencies, added.frequencies]),
    )


def _training_state(parent: Bundle, num_added: int) -> dict[str, FloatArray]:
    """The parent's, with rows for the new labels that have not moved yet."""
    state = {name: np.array(array) for name, array in parent.training_state().items()}
    for name in ("labels", "labels.lengths"):
        if name in state:
            state[name] = np.concatenate([state[name], np.zeros(num_added, np.float32)])
    return state


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    rest = len(names) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
