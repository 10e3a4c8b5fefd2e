"""The kinds of ranker that a bundle may hold."""

from __future__ import annotations

from pathlib import Path

from motherlode.core.rankers.correction import TreeCorrection
from motherlode.core.rankers.ranker import Ranker
from motherlode.core.rankers.sparse_linear import SparseLinear

RANKERS: dict[str, type[Ranker]] = {kind.kind: kind for kind in (TreeCorrection, SparseLinear)}


def load_ranker(kind: str, folder: Path) -> Ranker:
    """The ranker in a folder.

    Args:
        kind: One of `RANKERS`.
        folder: Where `Ranker.save` wrote it.

    Raises:
        BundleError: If a file is missing, damaged, or does not fit the others.
    """
    return RANKERS[kind].load(folder)
