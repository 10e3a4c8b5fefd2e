"""Settings of the index families, as they stand in a training config and in a manifest."""

from __future__ import annotations

from typing import Annotated, Literal, final

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

# Candidates for each hit wanted, at least: what the order by codes needs to lose little.
_REFINE = {"sq8": 1, "fp16": 1, "pq": 4, "pq_fast_scan": 8, "rabitq": 16}
_SUBVECTOR_WIDTH = {"pq": 4, "pq_fast_scan": 2}


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
        codes: What the walk compares the query with: `flat` for the embeddings themselves, which
            the index does not hold, or `sq8` or `fp16` for codes of 1 or 2 bytes a value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["hnsw"] = "hnsw"
    num_neighbors: int = Field(default=32, ge=2, le=512)
    ef_construction: int = Field(default=80, ge=1, le=10**6)
    ef_search: int = Field(default=64, ge=1)
    codes: Literal["flat", "sq8", "fp16"] = Field(
        default="flat",
        # So that a reader of format version 1 takes a graph without codes.
        exclude_if=lambda codes: codes == "flat",
    )


@final
class ScanConfig(BaseModel):
    """Compares the query with a short code of every label, and then exactly with the best.

    Attributes:
        codes: `sq8` and `fp16` take 1 and 2 bytes a value of an embedding; `pq_fast_scan` 4 bits a
            subvector; `rabitq` 1 bit a value and 8 bytes.
        refine: Candidates for each hit wanted, which are compared exactly: more is slower and finds
            more. None takes 1 for `sq8` and `fp16`, 8 for `pq_fast_scan` and 16 for `rabitq`.
        subvector_width: Values that share one code of `pq_fast_scan`; None takes 2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["scan"] = "scan"
    codes: Literal["sq8", "fp16", "pq_fast_scan", "rabitq"] = "sq8"
    refine: int | None = Field(default=None, ge=1, le=10_000)
    subvector_width: Literal[1, 2, 4, 8] | None = None

    @field_validator("subvector_width")
    @classmethod
    def _is_of_these_codes(cls, width: int | None, info: ValidationInfo) -> int | None:
        return _checked_subvector_width(width, info)


@final
class IvfConfig(BaseModel):
    """Groups the labels into lists, and holds a short code of each label in its list.

    Attributes:
        nlist: As of `IvfFlatConfig`.
        nprobe: As of `IvfFlatConfig`.
        codes: As of `ScanConfig`, and `pq`: 1 byte a subvector. All but `fp16` and `sq8` are codes
            of what a label differs in from the middle of its list.
        refine: As of `ScanConfig`; None takes 4 for `pq`.
        subvector_width: Values that share one code of `pq` or `pq_fast_scan`; None takes 4 and 2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ivf"] = "ivf"
    nlist: int | None = Field(default=None, ge=1)
    nprobe: int = Field(default=16, ge=1)
    codes: Literal["sq8", "fp16", "pq", "pq_fast_scan", "rabitq"] = "pq"
    refine: int | None = Field(default=None, ge=1, le=10_000)
    subvector_width: Literal[1, 2, 4, 8] | None = None

    @field_validator("subvector_width")
    @classmethod
    def _is_of_these_codes(cls, width: int | None, info: ValidationInfo) -> int | None:
        return _checked_subvector_width(width, info)


@final
class LearnedConfig(BaseModel):
    """Looks into clusters that were learned from queries; training makes it, nothing else does.

    Attributes:
        num_clusters: C; None takes a power of two near L / 64, at least `beam` where there are as
            many labels. At most the number of labels.
        labels_per_cluster: kappa, most labels of a cluster; None takes four times L / C.
        beam: Clusters looked into for each query, at most all; more is slower and finds more.
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


IndexConfig = Annotated[
    ExactConfig | ScanConfig | IvfFlatConfig | IvfConfig | HnswConfig | LearnedConfig,
    Field(discriminator="kind"),
]


def candidates_for(config: ScanConfig | IvfConfig, count: int) -> int:
    """Labels to compare exactly in a search for `count` hits."""
    return count * (config.refine or _REFINE[config.codes])


def most_candidates(config: IndexConfig, count: int) -> int:
    """Labels that a search for `count` hits may look at closely, but for a constant number."""
    scanned = count + count // 8
    match config:
        case ScanConfig() | IvfConfig():
            return max(scanned, candidates_for(config, count))
        case HnswConfig():
            return max(scanned, config.ef_search)
        case LearnedConfig():
            return max(scanned, config.shortlist)
    return scanned


def subvector_width_of(config: ScanConfig | IvfConfig) -> int:
    """Values of an embedding that share one code of product quantisation."""
    return config.subvector_width or _SUBVECTOR_WIDTH[config.codes]


def _checked_subvector_width(width: int | None, info: ValidationInfo) -> int | None:
    codes = info.data.get("codes")
    if width is not None and codes not in (None, *_SUBVECTOR_WIDTH):
        raise ValueError(f"only codes {', '.join(_SUBVECTOR_WIDTH)} have it, not {codes}")
    return width
