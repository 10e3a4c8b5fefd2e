"""Writes the bundle that every later Motherlode must be able to read.

Run it once for each new format version, and never again for an old one:

    python tests/golden/make_bundle.py tests/golden/bundles/version-2
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from motherlode.core.bundle import write_bundle
from tests.support.bundles import tiny_draft


def make_bundle(folder: Path) -> None:
    """Writes a bundle of 12 labels with an HNSW index, the index with the most structure."""
    draft = tiny_draft(seed=1, num_labels=12, index_kind="hnsw")
    write_bundle(replace(draft, parents={"warm_start": "tiny@1"}), folder)


if __name__ == "__main__":
    make_bundle(Path(sys.argv[1]))
