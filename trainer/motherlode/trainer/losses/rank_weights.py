"""theta: what each negative of a query counts, by the rank of its score (Reddi et al., 2019).

Shapes: B queries in a batch, K negatives a query, R ranks that have a weight, highest score first.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal, final

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from torch import Tensor

from motherlode.core.errors import ConfigError, InvalidInputError
from motherlode.trainer.losses.snm_weights import snm_weights
from motherlode.trainer.masks import lowest_where_masked


class AllWeightsConfig(BaseModel):
    """The mean over all negatives that a query has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["all"] = "all"


class TopKWeightsConfig(BaseModel):
    """The mean over the k hardest negatives of a query: average top-k."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["top_k"] = "top_k"
    k: int = Field(ge=1, description="hardest negatives that count")


class ExplicitWeightsConfig(BaseModel):
    """A weight for each rank, used as it is; negatives of later ranks weigh nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["explicit"] = "explicit"
    values: tuple[float, ...] = Field(description="weights, hardest negative first")

    @field_validator("values")
    @classmethod
    def _make_the_loss_convex(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or not values[0] > 0:
            raise ValueError("one weight or more, the first above 0")
        if not all(math.isfinite(value) and value >= 0 for value in values):
            raise ValueError("finite weights of at least 0")
        if any(later > earlier for earlier, later in pairwise(values)):
            raise ValueError("weights that never increase, hardest negative first")
        return values


class SnmWeightsConfig(BaseModel):
    """What SNM is in expectation, over all labels at once: for label sets small enough to score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["snm"] = "snm"
    num_draws: int = Field(ge=1, le=1_000_000, description="B, draws of the SNM that is meant")
    keep: int = Field(ge=1, description="k, hardest draws that it keeps")
    replacement: bool = Field(default=False, description="whether it may draw a label twice")

    @field_validator("keep")
    @classmethod
    def _is_among_draws(cls, keep: int, info: ValidationInfo) -> int:
        num_draws = info.data.get("num_draws", keep)
        if keep > num_draws:
            raise ValueError(f"at most num_draws ({num_draws})")
        return keep


AnyRankWeightsConfig = (
    AllWeightsConfig | TopKWeightsConfig | ExplicitWeightsConfig | SnmWeightsConfig
)

RankWeightsConfig = Annotated[AnyRankWeightsConfig, Field(discriminator="kind")]


@final
class RankWeights:
    """Weights of a query's negatives by rank.

    With theta the weighted sum sum_i theta_i g(s_[i]) over the ranks that a query has; without,
    the mean of g over its num_ranks hardest negatives, or as many as it has. It is convex in the
    scores if g is convex and non-decreasing, as theta never increases.

    Args:
        num_ranks: How many of the hardest negatives count; None for all of them.
        theta_R: float64 [R], non-increasing; None for the mean.
        num_labels: How many negatives, masked ones included, there must be; None for any number.
    """

    def __init__(
        self,
        num_ranks: int | None = None,
        theta_R: Tensor | None = None,
        *,
        num_labels: int | None = None,
    ) -> None:
        self._num_ranks = num_ranks
        self._theta_R = theta_R
        self._num_labels = num_labels

    def rank(self, negatives_BK: Tensor, mask_BK: Tensor) -> tuple[Tensor, Tensor]:
        """The negatives that count, highest score first, and their mask: both [B, R].

        The order itself is not differentiated, the scores are: that is a sub-gradient. Masked
        negatives come last. Where all count alike they stay in the order they have.

        Raises:
            InvalidInputError: If these must be all labels and are not.
        """
        num_negatives = negatives_BK.shape[1]
        if self._num_labels not in {None, num_negatives}:
            raise InvalidInputError(
                "negatives", expected=f"all {self._num_labels} labels", actual=num_negatives
            )
        if self._num_ranks is None:
            return negatives_BK, mask_BK
        eligible_BK = lowest_where_masked(negatives_BK, mask_BK)
        order_BR = torch.topk(eligible_BK, min(self._num_ranks, num_negatives), dim=1).indices
        return negatives_BK.gather(1, order_BR), mask_BK.gather(1, order_BR)

    def of(self, ranked_BR: Tensor, mask_BR: Tensor) -> Tensor:
        """What each negative counts, 0 where it is masked: float [B, R].

        Args:
            ranked_BR: float [B, R], what `rank` gives; only its type matters.
            mask_BR: bool [B, R], likewise.
        """
        if self._theta_R is None:
            counts_B1 = mask_BR.sum(dim=1, keepdim=True).clamp_min(1)
            return mask_BR.to(ranked_BR.dtype) / counts_B1
        return mask_BR * self._theta_R[: mask_BR.shape[1]].to(ranked_BR)

    def total(self, losses_BR: Tensor, mask_BR: Tensor) -> Tensor:
        """The weighted sum or mean of each query: float [B].

        Args:
            losses_BR: float [B, R], in the order of `rank`.
            mask_BR: bool [B, R].
        """
        totals_B: Tensor = torch.linalg.vecdot(losses_BR, self.of(losses_BR, mask_BR))
        return totals_B


def new_rank_weights(
    config: AnyRankWeightsConfig, *, num_labels: int, num_negatives: int
) -> RankWeights:
    """The weights that a configuration names.

    Those of SNM are divided by `keep`, as SNM's loss is the mean over what it keeps.

    Args:
        config: Of the weights.
        num_labels: L, labels in all.
        num_negatives: The most negatives, masked ones included, that a query ever has.

    Raises:
        ConfigError: If there are weights for more negatives than a query ever has, or those of SNM
            without all labels as negatives.
    """
    match config:
        case AllWeightsConfig():
            return RankWeights()
        case TopKWeightsConfig(k=k):
            _check_ranks("k", k, num_negatives)
            return RankWeights(k)
        case ExplicitWeightsConfig(values=values):
            _check_ranks("values", len(values), num_negatives)
            return RankWeights(len(values), torch.tensor(values, dtype=torch.float64))
        case SnmWeightsConfig():
            return _snm_rank_weights(config, num_labels, num_negatives)


def _check_ranks(key: str, num_ranks: int, num_negatives: int) -> None:
    if num_ranks > num_negatives:
        raise ConfigError(
            f"loss.weights.{key}",
            expected=f"no more ranks than a query has negatives ({num_negatives})",
            actual=num_ranks,
        )


def _snm_rank_weights(config: SnmWeightsConfig, num_labels: int, num_negatives: int) -> RankWeights:
    if num_negatives != num_labels:
        raise ConfigError(
            "loss.weights.kind",
            expected=f"all {num_labels} labels as negatives of each query for 'snm'",
            actual=f"{num_negatives} negatives",
        )
    try:
        theta_L = snm_weights(
            num_labels, config.num_draws, config.keep, replacement=config.replacement
        )
    except InvalidInputError as error:
        raise ConfigError(
            f"loss.weights.{error.field}", expected=error.expected, actual=error.actual
        ) from None
    return RankWeights(num_labels, torch.from_numpy(theta_L / config.keep), num_labels=num_labels)
