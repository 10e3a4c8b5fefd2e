"""The training loop: steps, validations, checkpoints, early stop."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import final

import torch

from motherlode.core.errors import MotherlodeError
from motherlode.core.features import Featurizer
from motherlode.core.index import ExactConfig, build_index
from motherlode.core.queries import Features
from motherlode.core.query_path import QueryPath
from motherlode.core.rankers import Ranker
from motherlode.trainer.batches import BatchSource
from motherlode.trainer.checkpoint import CheckpointFolder, Point, Progress
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import Dataset, PositiveRows
from motherlode.trainer.device import CPU, searched_on, training_device
from motherlode.trainer.distributed import Group
from motherlode.trainer.evaluation import evaluate
from motherlode.trainer.label_tree import new_proposal
from motherlode.trainer.model import Model
from motherlode.trainer.progress import RunDisplay
from motherlode.trainer.ranker import new_correction
from motherlode.trainer.regularizers import new_regularizer
from motherlode.trainer.step import Step, new_sampler

VALIDATION_FIGURES = ("P@1", "R@10")
# Beyond it the length of an embedding leaves the range of float32.
_LARGEST_WEIGHT = 1e15

logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True, eq=False)
class LabelledFeatures:
    """Featurised queries with their labels.

    Attributes:
        features: B queries.
        positives: Their labels.
    """

    features: Features
    positives: PositiveRows


@final
@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Queries kept from the training, and how they become features.

    Attributes:
        featurizer: Fitted on the training queries.
        held_out: May be empty.
    """

    featurizer: Featurizer
    held_out: Dataset

    def figures(self, model: Model, ranker: Ranker | None = None) -> dict[str, float]:
        """Quality of a model by exact search, ranked anew if so; per cent, empty for no queries."""
        held_out = self.held_out
        if len(held_out) == 0:
            return {}
        labels_LD = model.label_embeddings()
        index = searched_on(model.device, build_index(ExactConfig(), labels_LD, seed=0))
        path = QueryPath(self.featurizer, model.frozen_encoder(), index, ranker)
        result = evaluate(
            path.top_k(held_out.queries, min(10, len(labels_LD))),
            held_out.positives,
            held_out.num_true,
            held_out.labels.frequencies,
            num_train=1,
            ks=(1, 10),
        )
        return {name: result.figures[name] for name in VALIDATION_FIGURES}


@final
class TrainingLoop:
    """Trains a model on examples, in place.

    What negatives are drawn from is fitted to the examples when the loop is built, once. That takes
    no checkpoint: a run that is resumed with as many threads fits the same bits again.

    Attributes:
        num_steps: Of the whole run.
        correction: Ranks the hits of an index over the model's labels anew, or None.

    Args:
        config: Of the run.
        model: Changed in place.
        train: What it learns from.
        validation: What it is measured on now and then.
        checkpoints: Where its state goes, or None to keep none.
        display: Shown how the run goes.
        lr_factor: On all learning rates.
        group: The processes that train the model together. All validate and decide alike; only
            that of rank 0 writes checkpoints, and only it is left at the best validation.

    Raises:
        ConfigError: If loss, sampler and data do not fit together.
    """

    def __init__(  # noqa: PLR0913 - what a run is made of
        self,
        config: TrainConfig,
        model: Model,
        train: LabelledFeatures,
        validation: Validation,
        *,
        checkpoints: CheckpointFolder | None,
        display: RunDisplay,
        lr_factor: float = 1.0,
        group: Group | None = None,
    ) -> None:
        self._config = config
        self._model = model
        self._validation = validation
        self._checkpoints = checkpoints
        group = group or Group()
        self._saves = checkpoints is not None and group.rank == 0
        self._display = display
        self._source = BatchSource(
            train.features, train.positives, config.loop.batch_size, config.seed
        )
        self.num_steps = max(1, round(config.loop.epochs * self._source.steps_per_epoch))
        device, num_labels = training_device(config.loop.device), model.num_labels
        proposal = new_proposal(
            config.negatives, train.features, train.positives, num_labels, seed=config.seed
        )
        self.correction = new_correction(config.ranker, proposal, config.labels.scale)
        sampler = new_sampler(config, train.positives.counts(num_labels), proposal)
        regularizer = new_regularizer(config.regularizer, train.positives, num_labels)
        # Before the optimiser is made, whose state stands beside the weights; after the proposal,
        # which is fitted on the CPU.
        model.to(device)
        self._step = Step(
            model,
            config,
            sampler,
            self.num_steps,
            regularizer=regularizer,
            lr_factor=lr_factor,
            group=group,
        )
        self._progress = Progress()
        evaluations = config.loop.evaluations
        self._validate_after = {
            round(self.num_steps * (i + 1) / evaluations) for i in range(evaluations)
        }

    def resume(self) -> None:
        """Go on where a checkpoint stands.

        Raises:
            InvalidInputError: If the checkpoint belongs to another run.
            MotherlodeError: If it cannot be read.
        """
        assert self._checkpoints is not None
        self._progress = self._checkpoints.restore("newest", self._model, self._step.head_optimizer)

    def run(self) -> Progress:
        """Train to the end, or until validations stop getting better; the model is on the CPU then.

        With `patience` the model is left at its best validation. The last state is kept as a
        checkpoint, so that what fails after the training does not cost the training.

        Raises:
            MotherlodeError: If the training diverges, or a checkpoint on the way cannot be written.
        """
        self._display.start(self._progress.step, self.num_steps)
        try:
            self._run()
        finally:
            self._display.stop()
        try:
            self._save("newest")
        except MotherlodeError as error:
            logger.warning("the trained model has no checkpoint: %s", error)
        is_best_before = self._progress.best < len(self._progress.points) - 1
        if self._config.loop.patience and is_best_before and self._saves:
            assert self._checkpoints is not None
            self._checkpoints.restore("best", self._model, self._step.head_optimizer)
        self._model.to(CPU)
        return self._progress

    def _run(self) -> None:
        progress = self._progress
        next_checkpoint_s = time.monotonic() + self._config.loop.checkpoint_every_s
        while progress.step < self.num_steps and not self._should_stop():
            batch = self._source.batch(progress.step)
            loss = self._step.run(progress.step, batch)
            progress.step += 1
            if not math.isfinite(loss):
                raise _diverged(f"the loss of step {progress.step} is {loss}")
            progress.loss_sum += loss
            progress.loss_count += 1
            self._display.step(loss, len(batch.features))
            if progress.step in self._validate_after:
                self._validate()
            # A checkpoint that is due waits for a step at which nothing but it decides the rest.
            if time.monotonic() >= next_checkpoint_s and self._step.resumes_at(progress.step):
                self._save("newest")
                next_checkpoint_s = time.monotonic() + self._config.loop.checkpoint_every_s

    def _should_stop(self) -> bool:
        patience = self._config.loop.patience
        return patience is not None and (
            len(self._progress.points) - 1 - self._progress.best >= patience
        )

    def _validate(self) -> None:
        self._check_weights()
        progress = self._progress
        epoch, place = divmod(progress.step, self._source.steps_per_epoch)
        examples = epoch * self._source.num_queries + place * self._config.loop.batch_size
        figures = self._validation.figures(self._model, self.correction)
        point = Point(examples, progress.loss_sum / progress.loss_count, figures)
        progress.points.append(point)
        progress.loss_sum, progress.loss_count = 0.0, 0
        self._display.point(point)
        best = progress.points[progress.best].figures
        if sum(figures.values()) > sum(best.values()) or len(progress.points) == 1:
            progress.best = len(progress.points) - 1
            if self._config.loop.patience:
                self._save("best")

    def _check_weights(self) -> None:
        model = self._model
        tables = [table.weights_RD for table in model.tables().values()]
        for weights in (*tables, *model.encoder.head.parameters()):
            least, most = torch.aminmax(weights.detach())
            # NaN is not at most anything.
            if not max(-least.item(), most.item()) <= _LARGEST_WEIGHT:
                raise _diverged(f"after step {self._progress.step} a weight is too large")

    def _save(self, name: str) -> None:
        if self._saves:
            assert self._checkpoints is not None
            self._checkpoints.save(name, self._model, self._step.head_optimizer, self._progress)


def _diverged(what: str) -> MotherlodeError:
    return MotherlodeError(
        f"the training diverged: {what}; lower the learning rates (optimizer.features_lr, "
        "labels_lr, head_lr), labels.scale or regularizer.weight"
    )
