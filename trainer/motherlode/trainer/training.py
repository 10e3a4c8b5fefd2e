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
from motherlode.trainer.checkpoint import CheckpointFolder, Progress
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import Dataset, has_file, load_dataset, split_held_out
from motherlode.trainer.loop import LabelledFeatures, TrainingLoop, Validation
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
    data = _prepare(request)
    model = _model(request.config, parent, data)
    checkpoints = _checkpoints(request, parent, data)
    loop = TrainingLoop(
        request.config,
        model,
        data.learned_from,
        Validation(data.featurizer, data.held_out),
        checkpoints=checkpoints,
        display=display,
        lr_factor=request.config.warm_start.lr_factor if parent else 1.0,
    )
    if request.resume and checkpoints.exists:
        loop.resume()
    trained_from = time.monotonic()
    progress = loop.run()
    train_s = time.monotonic() - trained_from
    draft = make_draft(_trained(request, parent, data, model, progress), request.data.name)
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


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """Training data in the forms that a run needs; `learned_from` is without `held_out`."""

    whole: Dataset
    held_out: Dataset
    featurizer: Featurizer
    learned_from: LabelledFeatures


def _prepare(request: TrainingRequest) -> _Data:
    whole = load_dataset(request.data, "train")
    _check_kind(request.config, whole.queries)
    train, held_out = _split(whole, request.config)
    sizes = f"{len(train):,} training queries, {len(held_out):,} held out"
    logger.info("%s: %s, %s labels", request.data.name, sizes, f"{len(whole.labels):,}")
    featurizer = new_featurizer(request.config, train.queries)
    learned_from = LabelledFeatures(featurizer.transform(train.queries), train.positives)
    return _Data(whole, held_out, featurizer, learned_from)


def _trained(
    request: TrainingRequest,
    parent: Bundle | None,
    data: _Data,
    model: Model,
    progress: Progress,
) -> TrainedModel:
    test = load_test(request.data, data.whole)
    held_out = data.held_out if len(data.held_out) else None
    return TrainedModel(
        name=request.model,
        config=request.config,
        model=model,
        featurizer=data.featurizer,
        train=data.whole,
        test=held_out if test is None else test,
        tested_on="held-out training queries" if test is None else "test queries",
        progress=progress,
        parents={"warm_start": parent.manifest.digest} if parent else {},
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


def _model(config: TrainConfig, parent: Bundle | None, data: _Data) -> Model:
    learned_from, labels = data.learned_from, data.whole.labels
    if parent is None:
        return new_model(config, learned_from.features, learned_from.positives, len(labels))
    return warm_model(
        config, parent, data.featurizer, learned_from.features, learned_from.positives, labels
    )


def _checkpoints(request: TrainingRequest, parent: Bundle | None, data: _Data) -> CheckpointFolder:
    parent_digest = parent.manifest.digest if parent else ""
    run = f"{request.config.digest()} {data.whole.digest} {parent_digest}"
    folder = request.repository / f".training-{request.model}"
    return CheckpointFolder(folder, sha256(run.encode()).hexdigest())
