"""The stage after the index: what a configuration says of it, and its making."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from motherlode.core.errors import ConfigError
from motherlode.core.rankers import TreeCorrection, TreeCorrectionConfig
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


AnyRankerConfig = NoRankerConfig | TreeRankerConfig

RankerConfig = Annotated[AnyRankerConfig, Field(discriminator="kind")]


def check_ranker(config: AnyRankerConfig, *, negatives: str, loss: str) -> None:
    """Refuses a ranker that has no label tree, or corrects what needs no correction.

    Args:
        config: Of the ranker.
        negatives: Their kind.
        loss: Its kind.

    Raises:
        ConfigError: If so.
    """
    if isinstance(config, NoRankerConfig):
        return
    if negatives != "adversarial":
        expected = f"'none' for negatives.kind {negatives!r}: 'adversarial' alone has a label tree"
        raise ConfigError("ranker.kind", expected=expected, actual=config.kind)
    if loss in _LOSSES_WITH_CORRECTION:
        expected = f"'none' for loss.kind {loss!r}, which corrects scores in training"
        raise ConfigError("ranker.kind", expected=expected, actual=config.kind)


def new_ranker(
    config: AnyRankerConfig, proposal: Proposal | None, scale: float
) -> TreeCorrection | None:
    """The ranker that a configuration names, or None.

    Args:
        config: Of the ranker.
        proposal: What negatives are drawn from; there where a ranker is named.
        scale: xi over the score of a label.
    """
    if isinstance(config, NoRankerConfig):
        return None
    assert proposal is not None, "the configuration was checked: negatives.kind is adversarial"
    correction = TreeCorrectionConfig(scale=scale, shortlist=config.shortlist)
    return TreeCorrection(correction, *proposal)
