"""The stage after the index: what a configuration says of it, and its making."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from motherlode.core.errors import ConfigError
from motherlode.core.rankers import MOST_NEIGHBORS, TreeCorrection, TreeCorrectionConfig
from motherlode.trainer.classifiers import ClassifiersConfig
from motherlode.trainer.negatives import Proposal

# They take log_q into account such that the score itself becomes log p(y|x): added to it at
# prediction, log p_n(y|x) would count twice.
_LOSSES_WITH_CORRECTION = ("softmax", "noise_contrastive")


class NoRankerConfig(BaseModel):
    """Labels are ranked by the index alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none"] = "none"


class TreeRankerConfig(BaseModel):
    """The hits of the index are ranked by xi + log p_n(y|x) (Bamler and Mandt, eq. (5))."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tree_correction"] = "tree_correction"
    shortlist: int = Field(default=100, ge=1, description="hits of the index to rank anew")


class SparseRankerConfig(ClassifiersConfig):
    """The hits of the index are ranked by sparse linear classifiers (ELIAS++, section 3.5)."""

    kind: Literal["sparse_linear"] = "sparse_linear"
    shortlist: int = Field(default=100, ge=1, description="hits of the index to rank anew")
    neighbors: int = Field(
        default=0, ge=0, le=MOST_NEIGHBORS, description="training queries to compare with; 0: none"
    )


AnyRankerConfig = NoRankerConfig | TreeRankerConfig | SparseRankerConfig

RankerConfig = Annotated[AnyRankerConfig, Field(discriminator="kind")]


def check_ranker(
    config: AnyRankerConfig, *, features: str, negatives: str, loss: str, held_out: int
) -> None:
    """Refuses a ranker that lacks what it ranks by, or corrects what needs no correction.

    Args:
        config: Of the ranker.
        features: Their kind.
        negatives: Their kind.
        loss: Its kind.
        held_out: Training queries kept for validation.

    Raises:
        ConfigError: If so.
    """
    if isinstance(config, TreeRankerConfig):
        _check_tree(config, negatives, loss)
    elif isinstance(config, SparseRankerConfig):
        if features == "dense":
            expected = "'none' for dense features: 'sparse_linear' ranks by sparse ones"
            raise ConfigError("ranker.kind", expected=expected, actual=config.kind)
        if held_out == 0:
            expected = "1 or more for ranker.kind 'sparse_linear', which is fitted to them"
            raise ConfigError("loop.held_out", expected=expected, actual=held_out)


def _check_tree(config: TreeRankerConfig, negatives: str, loss: str) -> None:
    if negatives != "adversarial":
        expected = f"'none' for negatives.kind {negatives!r}: 'adversarial' alone has a label tree"
        raise ConfigError("ranker.kind", expected=expected, actual=config.kind)
    if loss in _LOSSES_WITH_CORRECTION:
        expected = f"'none' for loss.kind {loss!r}, which corrects scores in training"
        raise ConfigError("ranker.kind", expected=expected, actual=config.kind)


def new_correction(
    config: AnyRankerConfig, proposal: Proposal | None, scale: float
) -> TreeCorrection | None:
    """The correction that a configuration names, or None.

    Args:
        config: Of the ranker.
        proposal: What negatives are drawn from; there where the correction is named.
        scale: xi over the score of a label.
    """
    if not isinstance(config, TreeRankerConfig):
        return None
    assert proposal is not None, "the configuration was checked: negatives.kind is adversarial"
    correction = TreeCorrectionConfig(scale=scale, shortlist=config.shortlist)
    return TreeCorrection(correction, *proposal)
