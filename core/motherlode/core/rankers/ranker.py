"""What every ranker promises.

Shapes: B queries, D embedding width, C hits of the longest shortlist, N hits in all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import Features, FloatArray
from motherlode.core.query_checks import features_too_large
from motherlode.core.topk import TopK, top_k_of_candidates

CONFIG_FILE = "config.json"


class ShortlistConfig(BaseModel):
    """What the configurations of all rankers have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shortlist: int = Field(default=100, ge=1, description="hits of the index to rank anew")


class Ranker(ABC):
    """Gives the hits of an index other scores, and so another order.

    The answer of a query does not depend on its batch mates. May be used by several threads.
    """

    kind: ClassVar[str]
    score_meaning: ClassVar[str]

    @property
    @abstractmethod
    def config(self) -> ShortlistConfig:
        """All that is needed to build it again from its files; has `kind`."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """F, of a query."""

    @property
    @abstractmethod
    def num_labels(self) -> int:
        """L."""

    @property
    def width(self) -> int | None:
        """D, that embeddings of queries must have; None where they have no part in the ranking."""
        return None

    @property
    @abstractmethod
    def predicted_bytes(self) -> int:
        """Memory that it takes, in bytes."""

    @abstractmethod
    def _score(self, shortlist: TopK, features: Features, embeddings_BD: FloatArray) -> FloatArray:
        """float32 [N]: the new scores, in the order of the hits; may overflow, with no warning."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes its files into an existing folder.

        Raises:
            OSError: If a file cannot be written.
        """

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote.

        Raises:
            BundleError: If a file is missing, damaged, or does not fit the others.
        """

    @final
    def shortlist_for(self, k: int) -> int:
        """Hits of the index to ask for when k are wanted, at most the number of labels."""
        return min(max(k, self.config.shortlist), self.num_labels)

    @final
    def rank(self, shortlist: TopK, features: Features, embeddings_BD: FloatArray, k: int) -> TopK:
        """The best k hits of each query's shortlist; ties go to the smaller label.

        Args:
            shortlist: Hits with the scores of the index.
            features: The B queries themselves.
            embeddings_BD: float32 [B, D], what the index was searched with.
            k: Hits to keep, at least 1.

        Raises:
            InvalidInputError: If a hit is no label that the ranker knows, or the queries are not as
                many as the answers, or have other features.
            InvalidQueryError: If a feature is so large that a score would overflow.
        """
        self._check(shortlist, features, embeddings_BD)
        if len(shortlist.labels) == 0:
            return shortlist
        with np.errstate(over="ignore", invalid="ignore"):
            scores_N = self._score(shortlist, features, embeddings_BD)
        if not np.isfinite(scores_N).all():
            raise features_too_large(features)
        return _best(shortlist, scores_N, k)

    def _check(self, shortlist: TopK, features: Features, embeddings_BD: FloatArray) -> None:
        for name, queries in (("features", features), ("embeddings", embeddings_BD)):
            if len(shortlist) != len(queries):
                expected = f"{len(shortlist)} queries, as many as the shortlist has"
                raise InvalidInputError(name, expected=expected, actual=len(queries))
        labels_N = shortlist.labels
        if len(labels_N) and not 0 <= labels_N.min() <= labels_N.max() < self.num_labels:
            place = int(np.flatnonzero((labels_N < 0) | (labels_N >= self.num_labels))[0])
            expected = f"0 to {self.num_labels - 1}, the labels of the {self.kind}"
            raise InvalidInputError(f"labels[{place}]", expected=expected, actual=labels_N[place])


def _best(shortlist: TopK, scores_N: FloatArray, k: int) -> TopK:
    valid_BC = np.arange(shortlist.counts.max()) < shortlist.counts[:, None]
    labels_BC = np.zeros(valid_BC.shape, np.int64)
    labels_BC[valid_BC] = shortlist.labels
    scores_BC = np.zeros(valid_BC.shape, np.float32)
    scores_BC[valid_BC] = scores_N
    return top_k_of_candidates(labels_BC, scores_BC, valid_BC, k)
