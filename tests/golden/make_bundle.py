"""Writes the bundles that every later Motherlode must be able to read, one for each index family.

Those of version 1 have no ranker, later ones have one: without it they would be of version 1 still.

Run it once for each new format version, and never again for an old one:

    PYTHONPATH=. python tests/golden/make_bundle.py tests/golden/bundles/version-2
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from motherlode.core.bundle import write_bundle
from tests.support.bundles import tiny_draft

INDEX_KINDS = ("exact", "hnsw", "ivf_flat", "ivf", "learned", "scan")


def make_bundles(folder: Path) -> None:
    """Writes a bundle of 12 labels for each index family, each with a parent."""
    for kind in INDEX_KINDS:
        draft = tiny_draft(seed=1, num_labels=12, index_kind=kind, ranker_kind="sparse_linear")
        write_bundle(replace(draft, parents={"warm_start": "tiny@1"}), folder / kind)


if __name__ == "__main__":
    make_bundles(Path(sys.argv[1]))
