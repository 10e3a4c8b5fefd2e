"""What is known of a bundle before it is loaded, what may be done with it, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, final

from motherlode.core.errors import ConfigError
from motherlode.core.index.config import IvfConfig, candidates_for
from motherlode.core.index.devices import Device
from motherlode.core.index.graph_form import GraphForm
from motherlode.core.manifest import EMBEDDINGS_FILE, ENCODER_FILE, IndexInfo, Manifest

# Buffer that FAISS gets on each GPU; left alone it takes up to 1.5 GiB.
TEMP_BYTES = 256 * 2**20


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a plan must know of a bundle.

    Attributes:
        index_kind: Family of the index; where it holds codes, with their name, as in `ivf:pq`.
        has_even_labels: Whether all label embeddings have length 1.
        nprobe: Lists looked into; None where the family has none.
        refine: Candidates for each hit wanted.
        shortlist: Hits that a ranker asks the index for at least; 0 without one.
        encoder_bytes: Of the encoder.
        labels_bytes: Of the label embeddings in float32.
        index_bytes: Of the index's own structure beside them.
        ram_bytes: Of all that is loaded into RAM if nothing is on a GPU.
        graph: What a graph would be on a GPU; None for other families.
    """

    index_kind: str
    has_even_labels: bool
    nprobe: int | None
    refine: int
    shortlist: int
    encoder_bytes: int
    labels_bytes: int
    index_bytes: int
    ram_bytes: int
    graph: GraphForm | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Sizes:
        """Those that a manifest tells."""
        files, memory, index = manifest.files, manifest.memory, manifest.index
        codes = index.parameters.get("codes")
        encoder_bytes = files[ENCODER_FILE].size_bytes
        labels_bytes = files[EMBEDDINGS_FILE].size_bytes
        ranker: dict[str, Any] = manifest.stage("ranker").config if manifest.has_ranker else {}
        return cls(
            index_kind=f"{index.kind}:{codes}" if codes else index.kind,
            has_even_labels=manifest.normalization.labels == "unit",
            nprobe=index.parameters.get("nprobe"),
            refine=_refine(index),
            shortlist=int(ranker.get("shortlist", 0)),
            encoder_bytes=encoder_bytes,
            labels_bytes=labels_bytes,
            index_bytes=max(0, memory.gpu_bytes - encoder_bytes - labels_bytes),
            ram_bytes=memory.ram_bytes,
            graph=_graph_form(manifest) if index.kind == "hnsw" else None,
        )

    def gpu_index_bytes(self, *, is_fp16: bool) -> int:
        """Of the index on a GPU.

        An exact one holds the embeddings, a graph has another form, others hold what they always
        do.
        """
        if self.graph is not None:
            return self.graph.size_bytes
        held = self.labels_bytes if self.index_kind == "exact" else self.index_bytes
        return held // 2 if is_fp16 else held


def _graph_form(manifest: Manifest) -> GraphForm:
    parameters, sizes = manifest.index.parameters, manifest.dimensions
    return GraphForm.of(
        int(parameters["num_neighbors"]),
        int(parameters["ef_search"]),
        num_labels=sizes.num_labels,
        width=sizes.width,
    )


def _refine(index: IndexInfo) -> int:
    """Of the families with a GPU form, lists of codes alone have it."""
    if index.kind != "ivf":
        return 1
    return candidates_for(IvfConfig.model_validate(index.parameters), 1)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a plan may do.

    Attributes:
        gpu: `auto` takes a GPU where it serves, `never` none, `require` fails without.
        may_fp16: Whether vectors on a GPU may be 16 bits each where 32 do not fit. They only
            propose: the shortlist is scored again in float32.
        may_shard: Whether an exact index too large for one GPU may be spread over several.
        headroom: Share of the free memory that stays free.
        faiss_temp_bytes: Buffer that FAISS takes on each GPU, for each loaded version.
        copies: Versions in memory at once: 2 while a new one takes over from the old.
    """

    gpu: Literal["auto", "never", "require"] = "auto"
    may_fp16: bool = True
    may_shard: bool = True
    headroom: float = 0.1
    faiss_temp_bytes: int = TEMP_BYTES
    copies: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.headroom < 1:
            expected = "a share from 0 to below 1"
            raise ConfigError("placement.headroom", expected=expected, actual=self.headroom)
        if self.copies < 1:
            raise ConfigError("placement.copies", expected="1 or more", actual=self.copies)

    def usable(self, device: Device) -> int:
        """Bytes of a device that a plan may use."""
        return int(device.free_bytes * (1 - self.headroom))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One part of a bundle and its place.

    Attributes:
        part: `index`, `encoder` or `everything`: what stays in RAM in any case.
        devices: Names such as `cpu` and `gpu:0`; several hold a part of the index each.
        dtype: Of the vectors there.
        size_bytes: Predicted, on all devices together, for one version.
        reason: Why there.
    """

    part: str
    devices: tuple[str, ...]
    dtype: Literal["float32", "float16"]
    size_bytes: int
    reason: str

    @property
    def gpu_numbers(self) -> tuple[int, ...]:
        """Numbers of the GPUs among the devices."""
        return tuple(int(name[4:]) for name in self.devices if name.startswith("gpu:"))

    @property
    def is_on_gpu(self) -> bool:
        """Whether any part of it is on a GPU."""
        return bool(self.gpu_numbers)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What a kind of query will use.

    Attributes:
        queries: Which ones.
        place: `cpu` or `gpu`.
        reason: Why.
    """

    queries: str
    place: Literal["cpu", "gpu"]
    reason: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where everything goes.

    Attributes:
        placements: One for each part.
        routes: One for each kind of query.
        problems: What stands against loading it, in words; empty if nothing does.
    """

    placements: tuple[Placement, ...]
    routes: tuple[Route, ...]
    problems: tuple[str, ...] = field(default=())

    def placement(self, part: str) -> Placement:
        """That of a part.

        Raises:
            KeyError: If there is none.
        """
        for placement in self.placements:
            if placement.part == part:
                return placement
        raise KeyError(part)
