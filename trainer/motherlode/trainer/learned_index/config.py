"""Settings of the stages that train a learned index, and the sizes that follow from the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from pydantic import BaseModel, ConfigDict, Field

from motherlode.core.errors import ConfigError
from motherlode.core.index import IndexConfig, LearnedConfig

_LABELS_PER_CLUSTER = 64
# kappa and beta, in labels of a balanced cluster.
_MOST_LABELS, _SHARE = 4, 2


@final
class LearnedIndexConfig(BaseModel):
    """How a learned index is trained, after the model; its size and search are `index`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stage1_epochs: float = Field(default=1, gt=0, le=1e6, description="over balanced clusters")
    stage2_epochs: float = Field(default=3, ge=0, le=1e6, description="0 leaves stage 2 out")
    batch_size: int = Field(default=512, ge=1)
    shortlist: int = Field(
        default=200, ge=1, le=100_000, description="labels that the loss sees for a query"
    )
    beta: float | None = Field(
        default=None, gt=0, le=1e9, description="factor on an edge's share; none is 2 L / C"
    )
    search_weight: float = Field(
        default=1.0, ge=0, le=1e6, description="lambda, of the term that finds positives"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of embeddings at the clusters")
    clusters_lr: float = Field(default=0.1, gt=0, description="learning rate of clusters")
    edges_lr: float = Field(default=0.3, gt=0, description="learning rate of edges")
    train_encoder: bool = Field(default=False, description="whether the encoder moves along")
    train_labels: bool = Field(default=False, description="whether label embeddings do")
    lr_factor: float = Field(default=0.1, gt=0, description="on optimizer.*, for those")


@final
@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a learned index over some labels is.

    Attributes:
        num_clusters: C.
        labels_per_cluster: kappa.
        beta: Of eq. (5).
    """

    num_clusters: int
    labels_per_cluster: int
    beta: float

    def resolved(self, config: LearnedConfig) -> LearnedConfig:
        """The configuration with nothing left open."""
        sizes = {
            "num_clusters": self.num_clusters,
            "labels_per_cluster": self.labels_per_cluster,
            "beam": min(config.beam, self.num_clusters),
        }
        return config.model_copy(update=sizes)


def index_sizes(index: LearnedConfig, training: LearnedIndexConfig, num_labels: int) -> Sizes:
    """The sizes of an index over L labels.

    Raises:
        ConfigError: If there are more clusters than labels, or no room for all labels in the
            clusters.
    """
    num_clusters = index.num_clusters or _default_clusters(index.beam, num_labels)
    if num_clusters > num_labels:
        expected = f"at most {num_labels}, the number of labels"
        raise ConfigError("index.num_clusters", expected=expected, actual=num_clusters)
    balanced = math.ceil(num_labels / num_clusters)
    kappa = index.labels_per_cluster or min(_MOST_LABELS * balanced, num_labels)
    if kappa < balanced:
        expected = f"at least {balanced}, labels over clusters"
        raise ConfigError("index.labels_per_cluster", expected=expected, actual=kappa)
    beta = training.beta or _SHARE * num_labels / num_clusters
    return Sizes(num_clusters, kappa, beta)


def check_learned_index(index: IndexConfig, training: LearnedIndexConfig, num_labels: int) -> None:
    """Refuses sizes that do not fit the labels; other families fit all.

    Raises:
        ConfigError: As `index_sizes`.
    """
    if isinstance(index, LearnedConfig):
        index_sizes(index, training, num_labels)


def check_moving_parts(training: LearnedIndexConfig, embedding: str) -> None:
    """Refuses to move one of two parts that are made of the same rows.

    Args:
        training: Of the stages.
        embedding: `labels.embedding`.

    Raises:
        ConfigError: If so.
    """
    if embedding != "free" and training.train_labels != training.train_encoder:
        expected = f"that of learned_index.train_encoder where labels.embedding is {embedding!r}"
        raise ConfigError(
            "learned_index.train_labels", expected=expected, actual=training.train_labels
        )


def _default_clusters(beam: int, num_labels: int) -> int:
    nearest: int = 1 << round(math.log2(max(1, num_labels / _LABELS_PER_CLUSTER)))
    return min(max(nearest, beam), num_labels)
