"""Losses over the scores of positives and sampled negatives."""

from typing import Annotated

from pydantic import Field

from motherlode.trainer.losses.logistic import (
    BinaryCrossEntropyConfig,
    BinaryCrossEntropyLoss,
    OneVsEachConfig,
    OneVsEachLoss,
)
from motherlode.trainer.losses.loss import Loss, Scores
from motherlode.trainer.losses.margins import MarginName, margin_loss
from motherlode.trainer.losses.noise_contrastive import (
    NoiseContrastiveConfig,
    NoiseContrastiveLoss,
    RegularizedNegativeSamplingConfig,
    RegularizedNegativeSamplingLoss,
)
from motherlode.trainer.losses.owl import (
    CosineContrastiveConfig,
    CosineContrastiveLoss,
    PairwiseOwlConfig,
    PairwiseOwlLoss,
    PointwiseOwlConfig,
    PointwiseOwlLoss,
)
from motherlode.trainer.losses.rank_weights import (
    AllWeightsConfig,
    ExplicitWeightsConfig,
    RankWeights,
    RankWeightsConfig,
    SnmWeightsConfig,
    TopKWeightsConfig,
    new_rank_weights,
)
from motherlode.trainer.losses.snm_weights import snm_weights
from motherlode.trainer.losses.softmax import (
    DecoupledSoftmaxConfig,
    DecoupledSoftmaxLoss,
    SoftmaxConfig,
    SoftmaxLoss,
)

__all__ = [
    "AllWeightsConfig",
    "AnyLossConfig",
    "BinaryCrossEntropyConfig",
    "BinaryCrossEntropyLoss",
    "CosineContrastiveConfig",
    "CosineContrastiveLoss",
    "DecoupledSoftmaxConfig",
    "DecoupledSoftmaxLoss",
    "ExplicitWeightsConfig",
    "Loss",
    "LossConfig",
    "MarginName",
    "NoiseContrastiveConfig",
    "NoiseContrastiveLoss",
    "OneVsEachConfig",
    "OneVsEachLoss",
    "PairwiseOwlConfig",
    "PairwiseOwlLoss",
    "PointwiseOwlConfig",
    "PointwiseOwlLoss",
    "RankWeights",
    "RankWeightsConfig",
    "RegularizedNegativeSamplingConfig",
    "RegularizedNegativeSamplingLoss",
    "Scores",
    "SnmWeightsConfig",
    "SoftmaxConfig",
    "SoftmaxLoss",
    "TopKWeightsConfig",
    "margin_loss",
    "needs_log_q",
    "new_loss",
    "new_rank_weights",
    "snm_weights",
]

AnyOwlConfig = PairwiseOwlConfig | PointwiseOwlConfig | CosineContrastiveConfig

AnyLossConfig = (
    AnyOwlConfig
    | DecoupledSoftmaxConfig
    | SoftmaxConfig
    | BinaryCrossEntropyConfig
    | OneVsEachConfig
    | NoiseContrastiveConfig
    | RegularizedNegativeSamplingConfig
)

LossConfig = Annotated[AnyLossConfig, Field(discriminator="kind")]

_WITHOUT_SETTINGS: dict[str, type[Loss]] = {
    "decoupled_softmax": DecoupledSoftmaxLoss,
    "softmax": SoftmaxLoss,
    "binary_cross_entropy": BinaryCrossEntropyLoss,
    "one_vs_each": OneVsEachLoss,
    "noise_contrastive": NoiseContrastiveLoss,
}


_CLASSES: dict[str, type[Loss]] = {
    **_WITHOUT_SETTINGS,
    "regularized_negative_sampling": RegularizedNegativeSamplingLoss,
}


def needs_log_q(config: AnyLossConfig) -> bool:
    """Whether the loss judges only what a sampler drew with known probabilities."""
    return config.kind in _CLASSES and _CLASSES[config.kind].needs_log_q


def new_loss(config: AnyLossConfig, *, num_labels: int, num_negatives: int) -> Loss:
    """The loss that a configuration names.

    Args:
        config: Of the loss.
        num_labels: L, labels in all.
        num_negatives: The most negatives, masked ones included, that a query ever has.

    Raises:
        ConfigError: If the weights of an ordered weighted loss do not fit the negatives.
    """
    match config:
        case PairwiseOwlConfig() | PointwiseOwlConfig() | CosineContrastiveConfig():
            weights = new_rank_weights(
                config.weights, num_labels=num_labels, num_negatives=num_negatives
            )
            return _new_owl(config, weights)
        case RegularizedNegativeSamplingConfig(regularization=regularization):
            return RegularizedNegativeSamplingLoss(regularization)
        case _:
            return _WITHOUT_SETTINGS[config.kind]()


def _new_owl(config: AnyOwlConfig, weights: RankWeights) -> Loss:
    match config:
        case PairwiseOwlConfig(margin=margin):
            return PairwiseOwlLoss(margin, weights)
        case PointwiseOwlConfig(margin=margin):
            return PointwiseOwlLoss(margin, weights)
        case CosineContrastiveConfig(nu=nu):
            return CosineContrastiveLoss(nu, weights)
