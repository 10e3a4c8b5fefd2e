"""Losses over the scores of positives and sampled negatives."""

from typing import Annotated

from pydantic import Field

from motherlode.trainer.losses.loss import Loss, Scores
from motherlode.trainer.losses.owl import (
    MarginName,
    PairwiseOwlConfig,
    PairwiseOwlLoss,
    PointwiseOwlConfig,
    PointwiseOwlLoss,
    margin_loss,
)
from motherlode.trainer.losses.softmax import DecoupledSoftmaxConfig, DecoupledSoftmaxLoss

__all__ = [
    "DecoupledSoftmaxConfig",
    "DecoupledSoftmaxLoss",
    "Loss",
    "LossConfig",
    "MarginName",
    "PairwiseOwlConfig",
    "PairwiseOwlLoss",
    "PointwiseOwlConfig",
    "PointwiseOwlLoss",
    "Scores",
    "margin_loss",
    "new_loss",
]

AnyLossConfig = PairwiseOwlConfig | PointwiseOwlConfig | DecoupledSoftmaxConfig

LossConfig = Annotated[AnyLossConfig, Field(discriminator="kind")]


def new_loss(config: AnyLossConfig) -> Loss:
    """The loss that a configuration names."""
    match config:
        case PairwiseOwlConfig():
            return PairwiseOwlLoss(config)
        case PointwiseOwlConfig():
            return PointwiseOwlLoss(config)
        case DecoupledSoftmaxConfig():
            return DecoupledSoftmaxLoss()
