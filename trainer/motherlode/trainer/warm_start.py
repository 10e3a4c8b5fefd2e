"""Start from a published bundle, also where labels or features came or went.

Shapes: F features, L labels, D embedding width.
"""

from __future__ import annotations

import numpy as np
import torch

from motherlode.core.bundle import Bundle
from motherlode.core.encoders import new_encoder
from motherlode.core.errors import ConfigError
from motherlode.core.features import Featurizer, TextFeaturizer, map_vocabulary
from motherlode.core.labels import LabelTable
from motherlode.core.queries import Features, IntArray
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.model import Model, new_model, start_at_centroids
from motherlode.trainer.optim import RowTable


def warm_model(
    config: TrainConfig,
    parent: Bundle,
    featurizer: Featurizer,
    features: Features,
    positives: PositiveRows,
    labels: LabelTable,
) -> Model:
    """A model that knows what the parent knew of the features and labels that both have.

    Features that are new start at random, as in a fresh run; labels that are new at the mean of
    their queries' embeddings. The optimiser's state is taken over, so that rows which the parent
    learned well do not jump at their first step.

    Raises:
        ConfigError: If the parent's encoder has another kind, width or head.
    """
    _check(config, parent)
    fresh = new_model(config, features, positives, len(labels))
    feature_rows = torch.from_numpy(_parent_features(parent.featurizer, featurizer))
    label_rows = torch.from_numpy(_parent_labels(parent.labels, labels))
    state = parent.training_state()
    features_table = _with_parent_rows(
        fresh.features, feature_rows, parent.encoder.table_FD, state.get("features")
    )
    parent_LD = torch.from_numpy(np.array(parent.labels_LD))
    labels_table = _with_parent_rows(fresh.labels, label_rows, parent_LD, state.get("labels"))
    encoder = new_encoder(config.encoder, features_table.weights_RD, torch.Generator())
    encoder.head.load_state_dict(parent.encoder.head.state_dict())
    model = Model(encoder, labels_table, features_table, normalize=config.labels.normalize)
    start_at_centroids(model, features, positives, label_rows < 0)
    return model


def _check(config: TrainConfig, parent: Bundle) -> None:
    wanted, found = config.encoder, parent.encoder.config
    for field in ("kind", "width", "head.hidden", "head.normalize"):
        expected, actual = _value(found, field), _value(wanted, field)
        if expected != actual:
            raise ConfigError(
                f"encoder.{field}", expected=f"{expected!r}, as in {parent.path}", actual=actual
            )


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


def _with_parent_rows(
    fresh: RowTable, rows: torch.Tensor, parent_RD: torch.Tensor, accumulators: object
) -> RowTable:
    known = rows >= 0
    if known.any():
        fresh.weights_RD[known] = parent_RD[rows[known]]
        # Training lengthens rows; short new ones would be drowned by those that are known.
        lengths_R = torch.linalg.vector_norm(fresh.weights_RD, dim=1)
        factors_R = lengths_R[known].mean() / lengths_R.clamp_min(1e-12)
        fresh.weights_RD[~known] *= factors_R[~known, None]
    if isinstance(accumulators, np.ndarray):
        fresh.accumulators_R[known] = torch.from_numpy(np.array(accumulators))[rows[known]]
    return fresh
