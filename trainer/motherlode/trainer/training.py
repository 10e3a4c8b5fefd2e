"""A whole run: data in, a published version out."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import final

from motherlode.core.bundle import Bundle, read_bundle
from motherlode.core.index import LabelIndex, build_index
from motherlode.core.queries import FloatArray
from motherlode.core.query_path import QueryPath
from motherlode.core.rankers import TreeCorrection
from motherlode.core.repository import Repository
from motherlode.trainer.checkpoint import CheckpointFolder, Progress, claim
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.distributed import Group
from motherlode.trainer.learned_index.building import train_learned_index
from motherlode.trainer.learned_index.config import check_learned_index
from motherlode.trainer.loop import TrainingLoop, Validation
from motherlode.trainer.model import Model, new_model
from motherlode.trainer.preparation import TrainingData, prepare
from motherlode.trainer.progress import RunDisplay
from motherlode.trainer.publishing import TrainedModel, make_draft
from motherlode.trainer.ranker import SparseRankerConfig
from motherlode.trainer.sparse_ranker import fit_sparse_linear
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
        train_s: Seconds of the training: the loop with its validations, the index, the ranker.
        total_s: Seconds of the whole run.
    """

    model: str
    version: int
    digest: str
    figures: dict[str, float]
    num_examples: int
    train_s: float
    total_s: float


def train_and_publish(
    request: TrainingRequest, display: RunDisplay, group: Group | None = None
) -> TrainingOutcome:
    """Train a model and publish it as the next version.

    With a group this is for its process of rank 0; the others run `train_beside`.

    Whatever can be known to be wrong before the training is found before it.

    Raises:
        DataError: If a data file is wrong.
        ConfigError: If the model's name is none, or the configuration does not fit the data or the
            parent.
        NotFoundError: If there is no version to start from.
        BundleError: If the bundle cannot be read or written.
        MotherlodeError: If another run trains this model in this repository, or the training
            diverges.
    """
    repository = Repository(request.repository)
    repository.check_publish(request.model, keep=request.keep)
    with claim(_checkpoint_folder(request)):
        return _train_and_publish(request, repository, display, group or Group())


def train_beside(request: TrainingRequest, display: RunDisplay, group: Group) -> None:
    """Train along with the process of rank 0, which publishes what all of them learn.

    Raises:
        MotherlodeError: As `train_and_publish`.
    """
    parent = _parent(request, Repository(request.repository))
    data = prepare(request.config, request.data)
    checkpoints = _checkpoints(request, parent, data)
    loop = _loop(request, parent, data, checkpoints, display, group)[1]
    _resume(request, checkpoints, loop, group)
    loop.run()


def _loop(
    request: TrainingRequest,
    parent: Bundle | None,
    data: TrainingData,
    checkpoints: CheckpointFolder,
    display: RunDisplay,
    group: Group,
) -> tuple[Model, TrainingLoop]:
    model = _model(request.config, parent, data)
    loop = TrainingLoop(
        request.config,
        model,
        data.learned_from,
        Validation(data.featurizer, data.held_out),
        checkpoints=checkpoints,
        display=display,
        lr_factor=request.config.warm_start.lr_factor if parent else 1.0,
        group=group,
    )
    return model, loop


def _train_and_publish(
    request: TrainingRequest, repository: Repository, display: RunDisplay, group: Group
) -> TrainingOutcome:
    started = time.monotonic()
    parent = _parent(request, repository)
    data = prepare(request.config, request.data)
    config = request.config
    check_learned_index(config.index, config.learned_index, len(data.whole.labels))
    checkpoints = _checkpoints(request, parent, data)
    model, loop = _loop(request, parent, data, checkpoints, display, group)
    _resume(request, checkpoints, loop, group)
    trained_from = time.monotonic()
    progress = loop.run()
    trained = _trained(request, parent, data, model, progress, loop.correction)
    train_s = time.monotonic() - trained_from
    draft = make_draft(trained, request.data.name)
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


def _resume(
    request: TrainingRequest, checkpoints: CheckpointFolder, loop: TrainingLoop, group: Group
) -> None:
    folder, is_there = _checkpoint_folder(request), checkpoints.exists
    if group.agree(request.resume and is_there):
        loop.resume()
        # Nobody goes on, and in the end removes the checkpoint, before all have read it.
        group.agree(True)
    elif group.rank:
        return
    elif request.resume:
        logger.warning("%s holds no checkpoint: the run starts at its beginning", folder)
    elif is_there:
        logger.warning(
            "%s holds the checkpoint of a run that was cut off, which --resume would go on with; "
            "this run starts anew and overwrites it",
            folder,
        )


def _trained(
    request: TrainingRequest,
    parent: Bundle | None,
    data: TrainingData,
    model: Model,
    progress: Progress,
    correction: TreeCorrection | None,
) -> TrainedModel:
    held_out = data.held_out if len(data.held_out) else None
    path, labels_LD = _path(request.config, data, model, correction)
    return TrainedModel(
        name=request.model,
        config=request.config,
        model=model,
        path=path,
        labels_LD=labels_LD,
        train=data.whole,
        held_out=data.held_out,
        test=held_out if data.test is None else data.test,
        tested_on="held-out training queries" if data.test is None else "test queries",
        progress=progress,
        parents={"warm_start": parent.manifest.digest} if parent else {},
    )


def _path(
    config: TrainConfig, data: TrainingData, model: Model, correction: TreeCorrection | None
) -> tuple[QueryPath, FloatArray]:
    """The way from a query to hits, with what is built and fitted after the training.

    Returns:
        The path, and float32 [L, D], the label embeddings that its index is over.
    """
    if config.index.kind == "learned":
        # It may move the model, so that nothing else may be taken from that before.
        index: LabelIndex = train_learned_index(config, model, data.learned_from)
        labels_LD = model.label_embeddings()
    else:
        labels_LD = model.label_embeddings()
        index = build_index(config.index, labels_LD, seed=config.seed)
    path = QueryPath(data.featurizer, model.frozen_encoder(), index, correction)
    if isinstance(config.ranker, SparseRankerConfig):
        ranker = fit_sparse_linear(config.ranker, path, data, seed=config.seed)
        path = replace(path, ranker=ranker)
    return path, labels_LD


def _parent(request: TrainingRequest, repository: Repository) -> Bundle | None:
    if request.warm_start is None:
        return None
    version = repository.resolve(request.model, request.warm_start)
    return read_bundle(repository.path_of(request.model, version))


def _model(config: TrainConfig, parent: Bundle | None, data: TrainingData) -> Model:
    learned_from, labels = data.learned_from, data.whole.labels
    features, positives = learned_from.features, learned_from.positives
    label_features = data.label_features
    if parent is None:
        return new_model(config, features, positives, len(labels), label_features=label_features)
    return warm_model(
        config,
        parent,
        data.featurizer,
        features,
        positives,
        labels,
        label_features=label_features,
    )


def _checkpoints(
    request: TrainingRequest, parent: Bundle | None, data: TrainingData
) -> CheckpointFolder:
    parent_digest = parent.manifest.digest if parent else ""
    run = f"{request.config.digest()} {data.whole.digest} {parent_digest}"
    return CheckpointFolder(_checkpoint_folder(request), sha256(run.encode()).hexdigest())


def _checkpoint_folder(request: TrainingRequest) -> Path:
    return request.repository / f".training-{request.model}"
