"""The labels that an index finds nearest to each query, mixed with uniform draws.

Shapes: B queries in a batch, K candidates of a query, M mined, H taken of them, L labels, D width.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self, final

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from motherlode.core.index import IndexConfig, IvfFlatConfig, LabelIndex, build_index
from motherlode.trainer.negatives.config import CandidatesConfig
from motherlode.trainer.negatives.draws import draw_distinct
from motherlode.trainer.negatives.sampler import Batch, HasLabels, Negatives, NegativeSampler


@final
class NearestConfig(CandidatesConfig):
    """Each query's nearest labels by a periodically rebuilt index.

    Attributes:
        uniform_share: Part of the candidates that is drawn uniformly from all labels.
        num_mined: Nearest labels of a query out of which the other candidates are drawn.
        refresh_steps: Steps after which the index is built anew.
        index: Family and settings of the index.
    """

    kind: Literal["nearest"] = "nearest"
    num_candidates: int = Field(default=128, ge=1, le=1 << 16)
    uniform_share: float = Field(default=0.5, ge=0, lt=1)
    num_mined: int = Field(default=128, ge=1)
    refresh_steps: int = Field(default=500, ge=1)
    index: IndexConfig = IvfFlatConfig()

    @model_validator(mode="after")
    def _there_are_enough_of_each(self) -> Self:
        if self.num_hard == 0:
            raise ValueError(
                f"uniform_share must leave at least 1 of num_candidates ({self.num_candidates})"
            )
        if self.num_mined < self.num_hard:
            raise ValueError(
                f"num_mined must be >= the candidates that are not uniform ({self.num_hard})"
            )
        return self

    @model_validator(mode="after")
    def _the_index_can_be_built_anew(self) -> Self:
        if self.index.kind == "learned":
            raise ValueError("index.kind must be one that label embeddings alone make")
        return self

    @property
    def num_uniform(self) -> int:
        """Candidates drawn uniformly."""
        return round(self.uniform_share * self.num_candidates)

    @property
    def num_hard(self) -> int:
        """H, candidates out of the nearest."""
        return self.num_candidates - self.num_uniform

    @property
    @override
    def gives_log_q(self) -> bool:
        """What an index finds is no draw with a known probability."""
        return False


@final
class NearestSampler(NegativeSampler):
    """Each query's own candidates: H of its `num_mined` nearest labels, the rest uniform.

    The index holds the label table as it was at the last refresh and so is asked with the
    embeddings of now for labels of then (Xiong et al., ANCE, ICLR 2021). A refresh computes all
    label embeddings, O(L D), and builds the index; the steps between search it.

    The table of then is part of what decides the next draws. It is not saved: refreshes come at
    multiples of `refresh_steps`, and a run goes on only from there.

    A query of zeros, one without features, is as near to every label: it gets those with the lowest
    rows, and no label row moves because of it. A label that was both mined and drawn counts once.

    Args:
        config: How many and how often.
        seed: Of the index.
    """

    gives_log_q: ClassVar[bool] = False

    def __init__(self, config: NearestConfig, *, seed: int) -> None:
        self.config = config
        self._seed = seed
        self._index: LabelIndex | None = None

    @override
    def refresh(self, step: int, labels: HasLabels) -> None:
        if self._index is None or self.resumes_at(step):
            labels_LD = labels.label_embeddings()
            self._index = build_index(self.config.index, labels_LD, seed=self._seed)

    @override
    def resumes_at(self, step: int) -> bool:
        return step % self.config.refresh_steps == 0

    @override
    def sample(
        self, batch: Batch, queries_BD: Tensor, labels: HasLabels, generator: torch.Generator
    ) -> Negatives:
        hard_BH = self._draw_nearest(queries_BD, generator)
        num_queries, num_uniform = len(queries_BD), self.config.num_uniform
        uniform = draw_distinct(num_queries, num_uniform, labels.num_labels, generator)
        labels_BK = torch.cat([hard_BH, uniform], dim=1).sort(dim=1).values
        negatives = Negatives.of(batch, labels_BK)
        negatives.mask_BK[:, 1:] &= labels_BK[:, 1:] != labels_BK[:, :-1]
        return negatives

    def _draw_nearest(self, queries_BD: Tensor, generator: torch.Generator) -> Tensor:
        """int64 [B, H]: H of the M nearest labels of each query; all if there are fewer."""
        assert self._index is not None, "refresh comes before sample"
        num_queries = len(queries_BD)
        hits = self._index.search(queries_BD.cpu().numpy(), self.config.num_mined)
        nearest_BM = torch.from_numpy(hits.labels).view(num_queries, -1)
        places_BH = draw_distinct(num_queries, self.config.num_hard, nearest_BM.shape[1], generator)
        return nearest_BM.gather(1, places_BH)
