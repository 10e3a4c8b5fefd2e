"""Which index settings are worth a try, as a table.

A setting that matters at search time alone (`nprobe`, `ef_search`) is swept over one built index,
so there are few builds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from pydantic import TypeAdapter

from motherlode.core.errors import ConfigError
from motherlode.core.index.config import IndexConfig

_CONFIG: TypeAdapter[IndexConfig] = TypeAdapter(IndexConfig)


@final
@dataclass(frozen=True, slots=True)
class Sweep:
    """What is tried of one family.

    Attributes:
        family: Its name in tables and for `--families`.
        builds: Configurations to build, as in a training config.
        setting: The key that matters at search time alone, or None.
        values: Of that key, from fast to thorough.
        is_at_least_hits: Whether a search takes the hits it is asked for where the value is less.
        variants: Other settings that matter at search time alone; with each the values are tried on
            the same build.
    """

    family: str
    builds: tuple[Mapping[str, Any], ...]
    setting: str | None = None
    values: tuple[int, ...] = ()
    is_at_least_hits: bool = False
    variants: tuple[Mapping[str, Any], ...] = ({},)

    def configs(self, build: Mapping[str, Any], num_hits: int) -> list[IndexConfig]:
        """The configurations that share one build, from fast to thorough.

        Args:
            build: One of `builds`.
            num_hits: Hits that searches ask for: of settings that come to the same, one is tried.
        """
        if self.setting is None:
            return [_CONFIG.validate_python(dict(build))]
        least = num_hits if self.is_at_least_hits else 0
        # Of the values up to the hits wanted, the last stands for all.
        first = max(0, bisect_right(self.values, least) - 1)
        return [
            _CONFIG.validate_python({**build, self.setting: value}) for value in self.values[first:]
        ]


# A new family takes one entry. Exact search comes first: it is the measure of the others.
GRID: tuple[Sweep, ...] = (
    Sweep("exact", ({"kind": "exact"},)),
    Sweep(
        "ivf_flat", ({"kind": "ivf_flat"},), "nprobe", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    ),
    Sweep(
        "hnsw",
        ({"kind": "hnsw", "num_neighbors": 16}, {"kind": "hnsw", "num_neighbors": 32}),
        "ef_search",
        (16, 32, 64, 128, 256, 512, 1024),
        is_at_least_hits=True,
    ),
    Sweep("scan_sq8", ({"kind": "scan", "codes": "sq8"},)),
    Sweep("scan_pq", ({"kind": "scan", "codes": "pq_fast_scan"},), "refine", (4, 8, 16, 32, 64)),
    Sweep("scan_rabitq", ({"kind": "scan", "codes": "rabitq"},), "refine", (8, 16, 32, 64, 128)),
    *(
        Sweep(
            f"ivf_{name}",
            ({"kind": "ivf", "codes": codes},),
            "nprobe",
            (4, 8, 16, 32, 64, 128, 256, 512, 1024),
            variants=({"refine": refines[0]}, {"refine": refines[1]}),
        )
        for name, codes, refines in (
            ("sq8", "sq8", (1, 2)),
            ("pq", "pq_fast_scan", (8, 32)),
            ("rabitq", "rabitq", (16, 64)),
        )
    ),
)


def sweeps_of(families: Sequence[str] | None) -> tuple[Sweep, ...]:
    """The part of the grid with these families; None takes all.

    Raises:
        ConfigError: If there is none of that name.
    """
    known = [sweep.family for sweep in GRID]
    for family in families or ():
        if family not in known:
            raise ConfigError("families", expected=f"of {', '.join(known)}", actual=family)
    return tuple(sweep for sweep in GRID if not families or sweep.family in families)
