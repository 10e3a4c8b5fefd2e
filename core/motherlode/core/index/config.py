"""Settings of the index families, as they stand in a training config and in a manifest."""

from __future__ import annotations

from typing import Annotated, Literal, Self, final

from pydantic import BaseModel, ConfigDict, Field, model_validator


@final
class ExactConfig(BaseModel):
    """Looks at every label: always right, and the cost grows with the labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["exact"] = "exact"


@final
class IvfFlatConfig(BaseModel):
    """Groups the labels into lists and looks into the lists nearest to the query.

    Attributes:
        nlist: Lists; None takes about four times the square root of the number of labels. There
            are never more lists than labels.
        nprobe: Lists looked into for each query; more is slower and finds more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ivf_flat"] = "ivf_flat"
    nlist: int | None = Field(default=None, ge=1)
    nprobe: int = Field(default=16, ge=1)


@final
class HnswConfig(BaseModel):
    """Walks a graph of neighbouring labels towards the query.

    Attributes:
        num_neighbors: Edges of a label on the upper levels, and half of those on the lowest.
        ef_construction: Candidates kept while the graph is built.
        ef_search: Candidates kept while it is walked; more is slower and finds more. A query for
            more hits than this keeps as many candidates as it needs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["hnsw"] = "hnsw"
    num_neighbors: int = Field(default=32, ge=2, le=512)
    ef_construction: int = Field(default=80, ge=1)
    ef_search: int = Field(default=64, ge=1)


@final
class LearnedConfig(BaseModel):
    """Looks into clusters that were learned from queries; training makes it, nothing else does.

    Attributes:
        num_clusters: C; None takes a power of two near L / 64, at least `beam` where there are as
            many labels. At most the number of labels.
        labels_per_cluster: kappa, most labels of a cluster; None takes four times L / C.
        beam: Clusters looked into for each query; more is slower and finds more.
        shortlist: Labels with the best paths that are scored; a query for more hits takes more.
        alpha: What the softmax over clusters is multiplied with before it is cut off at 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["learned"] = "learned"
    num_clusters: int | None = Field(default=None, ge=1)
    labels_per_cluster: int | None = Field(default=None, ge=1)
    beam: int = Field(default=16, ge=1)
    shortlist: int = Field(default=500, ge=1)
    alpha: float = Field(default=10.0, ge=1, le=1e6, allow_inf_nan=False)

    @model_validator(mode="after")
    def _beam_finds_as_many_clusters(self) -> Self:
        if self.num_clusters is not None and self.beam > self.num_clusters:
            raise ValueError(f"beam ({self.beam}) must be <= num_clusters ({self.num_clusters})")
        return self


IndexConfig = Annotated[
    ExactConfig | IvfFlatConfig | HnswConfig | LearnedConfig, Field(discriminator="kind")
]
