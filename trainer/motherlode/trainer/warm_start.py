"""Start from a published bundle, also where labels or features came or went.

Shapes: F features, L labels, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from motherlode.core.bundle import Bundle
from motherlode.core.errors import BundleError, ConfigError
from motherlode.core.features import Featurizer, TextFeaturizer, map_vocabulary
from motherlode.core.labels import LabelTable
from motherlode.core.manifest import TRAINING_STATE_FILE
from motherlode.core.queries import Features, FloatArray, IntArray, SparseQueries, TextQueries
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.label_text import has_own_text_encoder
from motherlode.trainer.model import Model, new_model, start_at_centroids
from motherlode.trainer.optim import RowTable


def warm_model(
    config: TrainConfig,
    parent: Bundle,
    featurizer: Featurizer,
    features: Features,
    positives: PositiveRows,
    labels: LabelTable,
    *,
    label_features: SparseQueries | None = None,
) -> Model:
    """A model that knows what the parent knew of the features and labels that both have.

    Features that are new start at random, as in a fresh run; labels that are new at the mean of
    their queries' embeddings. The optimiser's state is taken over, so that rows which the parent
    learned well do not jump at their first step.

    A label embedding that is the sum of a free row and a text part is published as their sum; the
    free row is what is left of it without the text part, by the parent's texts and encoder.

    Raises:
        ConfigError: If the parent's encoder has another kind, width or head, or its labels have
            embeddings of another kind.
        BundleError: If the parent has no training state where that is needed.
    """
    _check(config, parent)
    fresh = new_model(
        _with_other_draws(config, parent),
        features,
        positives,
        len(labels),
        label_features=label_features,
    )
    feature_rows = torch.from_numpy(_parent_features(parent.featurizer, featurizer))
    label_rows = torch.from_numpy(_parent_labels(parent.labels, labels))
    state = parent.training_state()
    _take_over(fresh.features, feature_rows, parent.encoder.table_FD, state.get("features"))
    fresh.encoder.head.load_state_dict(parent.encoder.head.state_dict())
    if has_own_text_encoder(config):
        assert fresh.text is not None
        table_FD, accumulators = parent.label_encoder().table_FD, state.get("label_features")
        _take_over(fresh.text.table, feature_rows, table_FD, accumulators)
    if fresh.labels is not None:
        parent_LD, has_row = _free_rows(config, parent, state)
        label_rows[~has_row[label_rows]] = -1
        _take_over(fresh.labels, label_rows, parent_LD, state.get("labels"))
    start_at_centroids(fresh, features, positives, label_rows < 0)
    return fresh


def _with_other_draws(config: TrainConfig, parent: Bundle) -> TrainConfig:
    """The same with a seed that only this run and this parent have.

    With the seed of the parent, a new feature would start with the row that some other feature of
    the parent started with, and the two would match.
    """
    seed = (config.seed + int(parent.manifest.digest[:12], 16)) % 2**63
    return config.model_copy(update={"seed": seed})


def _free_rows(
    config: TrainConfig, parent: Bundle, state: Mapping[str, FloatArray]
) -> tuple[Tensor, Tensor]:
    """The parent's free label rows, and which labels have one: float32 [L, D], bool [L]."""
    parent_LD = torch.from_numpy(np.array(parent.labels_LD))
    if config.labels.embedding == "free":
        return parent_LD, torch.ones(len(parent_LD), dtype=torch.bool)
    if "labels.lengths" not in state:
        reason = "not there, and the free rows of labels cannot be told from their texts without it"
        raise BundleError(parent.path / TRAINING_STATE_FILE, reason)
    lengths_L = torch.from_numpy(state["labels.lengths"])
    parent_LD.mul_(lengths_L[:, None]).sub_(torch.from_numpy(_text_part(parent)))
    return parent_LD, lengths_L > 0


def _text_part(parent: Bundle) -> FloatArray:
    """What the parent's labels got from their texts: float32 [L, D]."""
    assert parent.labels.texts is not None
    features = parent.featurizer.transform(TextQueries(parent.labels.texts))
    assert isinstance(features, SparseQueries)
    has_features_L1 = (np.diff(features.indptr) > 0)[:, None]
    part_LD: FloatArray = parent.label_encoder().encode(features) * has_features_L1
    return part_LD


def _check(config: TrainConfig, parent: Bundle) -> None:
    wanted, found = config.encoder, parent.encoder.config
    for field in ("kind", "width", "head.hidden", "head.normalize"):
        expected, actual = _value(found, field), _value(wanted, field)
        if expected != actual:
            raise ConfigError(
                f"encoder.{field}", expected=f"{expected!r}, as in {parent.path}", actual=actual
            )
    labels = parent.manifest.config.get("labels", {})
    embedding = labels.get("embedding", "free")
    _check_labels("embedding", config.labels.embedding, embedding, parent)
    if embedding != "free":
        _check_labels("text_encoder", config.labels.text_encoder, labels["text_encoder"], parent)


def _check_labels(key: str, wanted: str, found: str, parent: Bundle) -> None:
    if wanted != found:
        expected = f"{found!r}, as in {parent.path}"
        raise ConfigError(f"labels.{key}", expected=expected, actual=wanted)


def _value(config: object, path: str) -> object:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _parent_features(parent: Featurizer, featurizer: Featurizer) -> IntArray:
    """Row of each feature in the parent, -1 where it is new: int64 [F]."""
    if isinstance(parent, TextFeaturizer) and isinstance(featurizer, TextFeaturizer):
        return map_vocabulary(parent, featurizer)
    if parent.kind != featurizer.kind:
        raise ConfigError("features.kind", expected=f"{parent.kind!r}", actual=featurizer.kind)
    rows = np.arange(featurizer.num_features, dtype=np.int64)
    rows[parent.num_features :] = -1
    return rows


def _parent_labels(parent: LabelTable, labels: LabelTable) -> IntArray:
    """Row of each label in the parent, -1 where it is new: int64 [L]."""
    rows = {key: row for row, key in enumerate(parent.keys)}
    return np.fromiter((rows.get(key, -1) for key in labels.keys), np.int64, len(labels))


def _take_over(fresh: RowTable, rows: Tensor, parent_RD: Tensor, accumulators: object) -> None:
    """Set the rows that the parent has too, with their accumulators."""
    known = rows >= 0
    if known.any():
        fresh.weights_RD[known] = parent_RD[rows[known]]
        # Training lengthens rows; short new ones would be drowned by those that are known.
        lengths_R = torch.linalg.vector_norm(fresh.weights_RD, dim=1)
        factors_R = lengths_R[known].mean() / lengths_R.clamp_min(1e-12)
        fresh.weights_RD[~known] *= factors_R[~known, None]
    if isinstance(accumulators, np.ndarray):
        fresh.accumulators_R[known] = torch.from_numpy(np.array(accumulators))[rows[known]]
