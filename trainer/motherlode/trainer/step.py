"""One step: encode, propose negatives, score, judge, move the touched rows.

Shapes: B queries in a batch, P positives, N negatives, M distinct labels touched, D width.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from motherlode.core.queries import DenseQueries, Features, FloatArray, IntArray, SparseQueries
from motherlode.trainer.config import TrainConfig
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
from motherlode.trainer.regularizers import Regularizer, one_positive_each


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
    ) -> None:
        self._model = model
        self._config = config
        self._num_steps = num_steps
        self._regularizer = regularizer
        self._lr_factor = lr_factor
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
        generator = torch.Generator().manual_seed(((self._config.seed << 32) + step) % 2**63)
        features, feature_rows_N = touched(batch.features)
        if self._config.loop.feature_dropout:
            features = drop_features(features, self._config.loop.feature_dropout, generator)
        feature_table = model.features.gather(feature_rows_N)
        projected_BD = model.encoder.project(features, feature_table)
        queries_BD = model.encoder.head(model.encoder.head.drop(projected_BD, generator))
        self._sampler.refresh(step, model)
        negatives = self._sampler.sample(batch, queries_BD.detach(), model, generator)
        # The negatives first, then the positives that are not among them.
        label_rows_M, places_P = join_rows(negatives.labels_N, batch.positives_P)
        labels = model.gather_labels(label_rows_M, (feature_rows_N, feature_table))
        labels_MD = labels.embeddings_MD
        loss = self._judge(batch, places_P, queries_BD, labels_MD, negatives)
        if self._regularizer is not None:
            chosen = one_positive_each(batch, generator)
            loss = loss + self._regularizer(
                labels_MD.index_select(0, places_P[chosen]), batch.positives_P[chosen]
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self._move(step, (feature_rows_N, feature_table), labels)
        return loss.item()

    def _judge(
        self,
        batch: Batch,
        places_P: Tensor,
        queries_BD: Tensor,
        labels_MD: Tensor,
        negatives: Negatives,
    ) -> Tensor:
        scaled_BD = queries_BD * self._config.labels.scale
        positives_PD = labels_MD.index_select(0, places_P)
        positives_P = (scaled_BD.index_select(0, batch.rows_P) * positives_PD).sum(dim=1)
        # The negatives stand first, so that they need no gather and no scatter of gradients.
        scores_BK = score(scaled_BD, labels_MD[: len(negatives.labels_N)], negatives.places_BK)
        mask_BK = negatives.mask_BK
        if negatives.keep is not None:
            scores_BK, mask_BK = keep_hardest(scores_BK, mask_BK, negatives.keep)
        return self._loss(
            Scores(
                positives_P,
                batch.rows_P,
                scores_BK,
                mask_BK,
                negatives.log_q_P,
                negatives.log_q_BK,
            )
        )

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


def most_negatives(config: AnyNegativesConfig, num_labels: int) -> int:
    """The most negatives, masked ones included, that a loss sees for a query."""
    drawn = num_labels if isinstance(config, InBatchConfig) else config.num_candidates
    return min(config.num_kept or drawn, num_labels)


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


def score(queries_BD: Tensor, labels_ND: Tensor, places_BK: Tensor | None) -> Tensor:
    """Inner products of each query with its negatives: float32 [B, K].

    Args:
        queries_BD: float32 [B, D].
        labels_ND: float32 [N, D].
        places_BK: int64 [B, K], the rows of each query's negatives, or [1, K], those of all; None
            for all N.
    """
    if places_BK is None:
        return queries_BD @ labels_ND.T
    if len(places_BK) == 1:
        return (queries_BD @ labels_ND.T).index_select(1, places_BK[0])
    # The gradient of an embedding is added up in half the time that an index_select takes.
    negatives_BKD = F.embedding(places_BK, labels_ND)
    return torch.bmm(negatives_BKD, queries_BD[:, :, None]).squeeze(2)


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
