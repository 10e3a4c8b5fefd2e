"""One step: encode, propose negatives, score, judge, move the touched rows.

Shapes: B queries in a batch, P positives, N negatives, M distinct labels touched, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Tensor

from motherlode.core.queries import DenseQueries, Features, FloatArray, IntArray, SparseQueries
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.distributed import Group, Part
from motherlode.trainer.label_text import GatheredLabels
from motherlode.trainer.losses import Loss, Scores, new_loss
from motherlode.trainer.model import Model
from motherlode.trainer.negatives import (
    AdversarialConfig,
    AdversarialSampler,
    AnyNegativesConfig,
    Batch,
    FrequencyConfig,
    FrequencySampler,
    InBatchConfig,
    InBatchSampler,
    NearestConfig,
    NearestSampler,
    Negatives,
    NegativeSampler,
    Proposal,
    SnmSampler,
    UniformConfig,
    UniformSampler,
    keep_hardest,
)
from motherlode.trainer.optim import join_rows, learning_rate_factor
from motherlode.trainer.products import matmul_dtype, score
from motherlode.trainer.regularizers import Regularizer, one_positive_each
from motherlode.trainer.seeds import new_generator


@final
class Step:
    """Runs single steps on a model.

    Args:
        model: Changed in place.
        config: Of the whole run.
        sampler: Proposes negatives; see `new_sampler`.
        num_steps: Of the whole run, for the schedule.
        regularizer: Of the labels, or None.
        lr_factor: On all learning rates.
        group: The processes that train the model together, each with the same arguments.

    Attributes:
        lap: Called with the name of each part of a step when it is done, for those who time them:
            features, encode, draw, labels, score, top-k, loss, backward, exchange, update.

    Raises:
        ConfigError: If the weights of the loss do not fit the negatives.
    """

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        sampler: NegativeSampler,
        num_steps: int,
        *,
        regularizer: Regularizer | None = None,
        lr_factor: float = 1.0,
        group: Group | None = None,
    ) -> None:
        self._model = model
        self._config = config
        self._num_steps = num_steps
        self._regularizer = regularizer
        self._lr_factor = lr_factor
        self._group = group or Group()
        self._matmul = matmul_dtype(config.loop.matmul, model.device)
        self.lap: Callable[[str], None] = _no_lap
        num_labels = model.num_labels
        self._loss: Loss = new_loss(
            config.loss,
            num_labels=num_labels,
            num_negatives=most_negatives(config.negatives, num_labels),
        )
        self._sampler = sampler
        optimizer = config.optimizer
        parameters = list(model.encoder.head.parameters())
        self.head_optimizer = (
            torch.optim.AdamW(parameters, lr=optimizer.head_lr, weight_decay=optimizer.weight_decay)
            if parameters
            else None
        )

    def resumes_at(self, step: int) -> bool:
        """Whether a run that starts anew at this step goes on as one that came there."""
        return self._sampler.resumes_at(step)

    def run(self, step: int, batch: Batch) -> float:
        """The loss of the batch; the model has moved."""
        model = self._model
        # A generator of its own for each step, so that a resumed run draws the same.
        generator = new_generator(self._config.seed, step)
        part = self._group.part(batch)
        features, feature_rows_N = touched(batch.features)
        if self._config.loop.feature_dropout:
            features = drop_features(features, self._config.loop.feature_dropout, generator)
        feature_table = model.features.gather(feature_rows_N)
        self.lap("features")
        queries_BD = self._encode(features, feature_table, part, generator)
        self.lap("encode")
        negatives = self._draw(step, batch, self._group.whole(queries_BD, part), generator)
        # The negatives first, then the positives that are not among them.
        label_rows_M, places_P = join_rows(negatives.labels_N, batch.positives_P)
        self.lap("draw")
        labels = model.gather_labels(label_rows_M, (feature_rows_N, feature_table))
        labels_MD = labels.embeddings_MD
        self.lap("labels")
        loss = self._judge(
            part.of_batch(batch),
            places_P[part.positives].to(queries_BD.device),
            queries_BD,
            labels_MD,
            part.of_negatives(negatives).to(queries_BD.device),
        ) * (len(part) / part.num_queries)
        if self._regularizer is not None:
            chosen = one_positive_each(batch, generator)
            # Each process takes its share of what all of them know.
            loss = loss + self._regularizer(
                labels_MD.index_select(0, places_P[chosen].to(labels_MD.device)),
                batch.positives_P[chosen].to(labels_MD.device),
            ).div(self._group.size)
        loss.backward()  # type: ignore[no-untyped-call]
        self.lap("backward")
        leaves = (feature_table, *labels.leaves, *model.encoder.head.parameters())
        self._group.add_up_gradients(leaves)
        total = loss.detach()
        self._group.add_up(total)
        self.lap("exchange")
        self._move(step, (feature_rows_N, feature_table), labels)
        self.lap("update")
        return total.item()

    def _encode(
        self, features: Features, table_FD: Tensor, part: Part, generator: torch.Generator
    ) -> Tensor:
        """The embeddings of a part of the queries, whose dropout is drawn for all of them."""
        head = self._model.encoder.head
        rows = features.rows(part.queries.start, part.queries.stop)
        projected_BD = self._model.encoder.project(rows, table_FD)
        if head.config.dropout:
            ones_BD = torch.ones(part.num_queries, projected_BD.shape[1])
            factors_BD = head.drop(ones_BD, generator)[part.queries]
            projected_BD = projected_BD * factors_BD.to(projected_BD.device)
        queries_BD: Tensor = head(projected_BD)
        return queries_BD

    def _draw(
        self, step: int, batch: Batch, queries_BD: Tensor, generator: torch.Generator
    ) -> Negatives:
        self._sampler.refresh(step, self._model)
        return self._sampler.sample(batch, queries_BD, self._model, generator)

    def _judge(
        self,
        batch: Batch,
        places_P: Tensor,
        queries_BD: Tensor,
        labels_MD: Tensor,
        negatives: Negatives,
    ) -> Tensor:
        if len(queries_BD) == 0:
            return labels_MD.new_zeros((), requires_grad=True)
        scaled_BD, rows_P = queries_BD * self._config.labels.scale, batch.rows_P.to(places_P.device)
        positives_P, scores_BK = score(
            scaled_BD, labels_MD, negatives, places_P, rows_P, dtype=self._matmul
        )
        mask_BK = negatives.mask_BK
        self.lap("score")
        if negatives.keep is not None:
            scores_BK, mask_BK = keep_hardest(scores_BK, mask_BK, negatives.keep)
        self.lap("top-k")
        loss = self._loss(
            Scores(
                positives_P,
                rows_P,
                scores_BK,
                mask_BK,
                negatives.log_q_P,
                negatives.log_q_BK,
            )
        )
        self.lap("loss")
        return loss

    def _move(self, step: int, features: tuple[Tensor, Tensor], labels: GatheredLabels) -> None:
        optimizer = self._config.optimizer
        factor = self._lr_factor * learning_rate_factor(step, self._num_steps, optimizer.warmup)
        self._model.features.step(*features, optimizer.features_lr * factor)
        labels.step(optimizer.labels_lr * factor, optimizer.features_lr * factor)
        if self.head_optimizer is not None:
            for group in self.head_optimizer.param_groups:
                group["lr"] = optimizer.head_lr * factor
            self.head_optimizer.step()
            self.head_optimizer.zero_grad()


def _no_lap(_part: str) -> None:
    """What a step that nobody times does."""


def most_negatives(config: AnyNegativesConfig, num_labels: int) -> int:
    """The most negatives, masked ones included, that a loss sees for a query."""
    drawn = num_labels if isinstance(config, InBatchConfig) else config.num_candidates
    kept = config.num_kept or drawn
    # These kinds may draw a label again.
    return (
        kept if isinstance(config, FrequencyConfig | AdversarialConfig) else min(kept, num_labels)
    )


def new_sampler(
    config: TrainConfig, counts_L: IntArray, proposal: Proposal | None = None
) -> NegativeSampler:
    """The sampler that a configuration names.

    Args:
        config: Of the whole run.
        counts_L: int64 [L], training inputs of each label.
        proposal: What adversarial negatives are drawn from; None for all other kinds.

    Raises:
        ConfigError: If it cannot draw from these labels.
        InvalidInputError: If the label tree is over another number of labels.
    """
    keep = config.negatives.num_kept
    sampler = _new_sampler_of_all(config, counts_L, proposal)
    return sampler if keep is None else SnmSampler(sampler, keep)


def _new_sampler_of_all(
    config: TrainConfig, counts_L: IntArray, proposal: Proposal | None
) -> NegativeSampler:
    """The sampler whose draws are all kept."""
    match config.negatives:
        case UniformConfig() as uniform:
            return UniformSampler(uniform, len(counts_L))
        case FrequencyConfig() as frequency:
            return FrequencySampler(frequency, counts_L)
        case InBatchConfig():
            return InBatchSampler(counts_L)
        case NearestConfig() as nearest:
            return NearestSampler(nearest, seed=config.seed)
        case AdversarialConfig(num_candidates=num_draws):
            assert proposal is not None, "new_proposal comes first"
            return AdversarialSampler(*proposal, num_draws, len(counts_L))


def touched(features: Features) -> tuple[Features, Tensor]:
    """A batch over the feature rows it touches, and those rows, ascending: int64 [N]."""
    if isinstance(features, DenseQueries):
        return features, torch.arange(features.features_BF.shape[1])
    rows_N, places = np.unique(features.indices, return_inverse=True)
    local = SparseQueries(features.indptr, places, features.values, len(rows_N))
    return local, torch.from_numpy(rows_N)


def drop_features(features: Features, rate: float, generator: torch.Generator) -> Features:
    """Inverted dropout of single features of the queries (input dropout of GLaS)."""
    keep = 1.0 - rate
    values = torch.from_numpy(
        features.features_BF if isinstance(features, DenseQueries) else features.values
    )
    mask = torch.empty_like(values).bernoulli_(keep, generator=generator)
    kept: FloatArray = (values * mask.div_(keep)).numpy()
    if isinstance(features, DenseQueries):
        return DenseQueries(kept)
    return SparseQueries(features.indptr, features.indices, kept, features.num_features)
