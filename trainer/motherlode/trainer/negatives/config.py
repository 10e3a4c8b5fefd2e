"""What the configurations of several samplers share, and that of the label tree."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from motherlode.core.errors import ConfigError


class LabelTreeConfig(BaseModel):
    """How p_n(y|x) is fitted, see `fit_label_tree`; the defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_components: int = Field(default=16, ge=1, le=256, description="k, whitened components")
    # Outside of these bounds the nodes' equations have no solution that float64 can hold.
    regularization: float = Field(default=0.1, ge=1e-9, le=1e9, description="lambda_n of eq. (8)")
    max_rounds: int = Field(default=50, ge=1, description="splits tried at a node")


class CandidatesConfig(BaseModel):
    """Candidates of which each query keeps the hardest.

    Attributes:
        num_candidates: Candidates of a query.
        keep: The highest-scoring ones that each query keeps; None or num_candidates keeps all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_candidates: int = Field(ge=1)
    keep: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _keep_is_among_candidates(self) -> Self:
        if self.keep is not None and self.keep > self.num_candidates:
            expected = f"at most num_candidates ({self.num_candidates})"
            raise ConfigError("negatives.keep", expected=expected, actual=self.keep)
        return self

    @property
    def num_kept(self) -> int | None:
        """How many of the hardest a query keeps; None for all."""
        return None if self.keep == self.num_candidates else self.keep

    @property
    def gives_log_q(self) -> bool:
        """Whether the negatives come with their probabilities: only if all draws are kept."""
        return self.num_kept is None


class DrawsConfig(CandidatesConfig):
    """Draws from one proposal.

    Attributes:
        shared: Whether the queries of a batch have the same draws, or each its own.
    """

    num_candidates: int = Field(default=2048, ge=1, le=1 << 24)
    keep: int = Field(default=64, ge=1)
    shared: bool = True
