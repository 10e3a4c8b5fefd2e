"""A whole run: data in, a published version out."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import final

import numpy as np

from motherlode.core.bundle import Bundle, read_bundle
from motherlode.core.errors import ConfigError
from motherlode.core.features import (
    DenseFeaturesConfig,
    DenseFeaturizer,
    Featurizer,
    SparseFeaturesConfig,
    SparseFeaturizer,
    TextFeaturesConfig,
    TextFeaturizer,
)
from motherlode.core.queries import DenseQueries, Queries, SparseQueries, TextQueries
from motherlode.core.repository import Repository
from motherlode.trainer.checkpoint import CheckpointFolder
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import Dataset, has_file, load_dataset, split_held_out
from motherlode.trainer.loop import LabelledFeatures, TrainingLoop
from motherlode.trainer.model import Model, new_model
from motherlode.trainer.progress import RunDisplay
from motherlode.trainer.publishing import TrainedModel, make_draft
from motherlode.trainer.warm_start import warm_model

logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What to train and where to publish it.

    Attributes:
        config: Of the run.
        data: Folder with `train`, and optionally `test` and `labels`.
        repository: Where to publish.
        model: Name to publish under.
        warm_start: Version or alias of the same model to start from, or None.
        resume: Go on where a killed run of the same configuration and data stands.
        keep: Versions to keep, older ones are removed; None keeps all.
    """

    config: TrainConfig
    data: Path
    repository: Path
    model: str
    warm_start: str | None = None
    resume: bool = False
    keep: int | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutcome:
    """What a run gave.

    Attributes:
        model: Name it was published under.
        version: Its number.
        digest: Of the bundle.
        figures: Quality in per cent by name; empty where nothing was held out.
        num_examples: Training queries seen, repeats included.
        train_s: Seconds in the training loop, validations included.
        total_s: Seconds of the whole run.
    """

    model: str
    version: int
    digest: str
    figures: dict[str, float]
    num_examples: int
    train_s: float
    total_s: float


def train_and_publish(request: TrainingRequest, display: RunDisplay) -> TrainingOutcome:
    """Train a model and publish it as the next version.

    Raises:
        DataError: If a data file is wrong.
        ConfigError: If the configuration does not fit the data or the parent.
        NotFoundError: If there is no version to start from.
        BundleError: If the bundle cannot be read or written.
    """
    started = time.monotonic()
    repository = Repository(request.repository)
    parent = _parent(request, repository)
    dataset = load_dataset(request.data, "train")
    _check_kind(request.config, dataset.queries)
    train, held_out = _split(dataset, request.config)
    logger.info(
        "%s: %s training queries, %s held out, %s labels",
        request.data.name,
        f"{len(train):,}",
        f"{len(held_out):,}",
        f"{len(dataset.labels):,}",
    )
    featurizer = new_featurizer(request.config, train.queries)
    learned_from = _labelled(featurizer, train)
    model = _model(request.config, parent, featurizer, learned_from, dataset)
    loop, checkpoints = _loop(
        request, parent, model, learned_from, _labelled(featurizer, held_out), display, dataset
    )
    if request.resume and checkpoints.exists:
        loop.resume()
    trained_from = time.monotonic()
    progress = loop.run()
    train_s = time.monotonic() - trained_from
    test = load_test(request.data, dataset)
    trained = TrainedModel(
        config=request.config,
        model=model,
        featurizer=featurizer,
        train=dataset,
        test=test if test is not None else (held_out if len(held_out) else None),
        tested_on="test queries" if test is not None else "held-out training queries",
        progress=progress,
        parents={"warm_start": parent.manifest.digest} if parent else {},
    )
    draft = make_draft(trained, request.model, request.data.name)
    version = repository.publish(request.model, draft, keep=request.keep)
    checkpoints.remove()
    return TrainingOutcome(
        model=request.model,
        version=version,
        digest=repository.manifest(request.model, version).digest,
        figures=draft.evaluation.get("figures", {}),
        num_examples=progress.points[-1].examples,
        train_s=train_s,
        total_s=time.monotonic() - started,
    )


def load_test(data: Path, train: Dataset) -> Dataset | None:
    """The test part of a data set, if there is one."""
    if not has_file(data, "test"):
        return None
    num_features = train.queries.num_features if isinstance(train.queries, SparseQueries) else None
    return load_dataset(data, "test", labels=train.labels, num_features=num_features)


def new_featurizer(config: TrainConfig, queries: Queries) -> Featurizer:
    """The featurizer of a run, fitted on its training queries."""
    features = config.features
    if isinstance(features, TextFeaturesConfig):
        assert isinstance(queries, TextQueries)
        return TextFeaturizer.fit(queries.texts, features)
    if isinstance(features, SparseFeaturesConfig):
        assert isinstance(queries, SparseQueries)
        return SparseFeaturizer(features, queries.num_features)
    assert isinstance(features, DenseFeaturesConfig)
    assert isinstance(queries, DenseQueries)
    return DenseFeaturizer(features, queries.features_BF.shape[1])


def _parent(request: TrainingRequest, repository: Repository) -> Bundle | None:
    if request.warm_start is None:
        return None
    version = repository.resolve(request.model, request.warm_start)
    return read_bundle(repository.path_of(request.model, version))


def _check_kind(config: TrainConfig, queries: Queries) -> None:
    kinds = {TextQueries: "text", SparseQueries: "sparse", DenseQueries: "dense"}
    kind = kinds[type(queries)]
    if config.features.kind != kind:
        raise ConfigError(
            "features.kind", expected=f"{kind!r}, as the data is", actual=config.features.kind
        )


def _split(dataset: Dataset, config: TrainConfig) -> tuple[Dataset, Dataset]:
    count = min(config.loop.held_out, len(dataset) // 10)
    if count == 0:
        return dataset, dataset.rows(np.empty(0, np.int64))
    return split_held_out(dataset, count, np.random.default_rng(config.seed))


def _labelled(featurizer: Featurizer, dataset: Dataset) -> LabelledFeatures:
    features = featurizer.transform(dataset.queries)
    return LabelledFeatures(features, dataset.positives, dataset.num_true)


def _model(
    config: TrainConfig,
    parent: Bundle | None,
    featurizer: Featurizer,
    train: LabelledFeatures,
    dataset: Dataset,
) -> Model:
    if parent is None:
        return new_model(config, train.features, train.positives, len(dataset.labels))
    return warm_model(config, parent, featurizer, train.features, train.positives, dataset.labels)


def _loop(
    request: TrainingRequest,
    parent: Bundle | None,
    model: Model,
    train: LabelledFeatures,
    held_out: LabelledFeatures,
    display: RunDisplay,
    dataset: Dataset,
) -> tuple[TrainingLoop, CheckpointFolder]:
    parent_digest = parent.manifest.digest if parent else ""
    run = f"{request.config.digest()} {dataset.digest} {parent_digest}"
    checkpoints = CheckpointFolder(
        request.repository / f".training-{request.model}", sha256(run.encode()).hexdigest()
    )
    loop = TrainingLoop(
        request.config,
        model,
        train,
        held_out,
        checkpoints=checkpoints,
        display=display,
        lr_factor=request.config.warm_start.lr_factor if parent else 1.0,
    )
    return loop, checkpoints
