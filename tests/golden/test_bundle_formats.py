from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motherlode.core.bundle import read_bundle
from motherlode.core.manifest import FORMAT_VERSION
from motherlode.core.queries import TextQueries
from motherlode.core.retriever import Retriever

BUNDLES = Path(__file__).parent / "bundles"
# Of label 7 and label 3: a cosine, 20 times that with log p_n(y|x), or with a classifier's margin,
# or with hidden units as well, or with neighbours among their inputs.
FIRST_SCORES = {
    1: [1.0, 1.0],
    2: [17.00497, 17.416176],
    3: [19.83805, 19.938877],
    4: [19.437866, 19.518995],
    5: [19.51302, 19.744669],
}


OLDEST_KINDS = ["exact", "hnsw", "ivf_flat"]
ALL_KINDS = [*OLDEST_KINDS, "ivf", "learned", "scan"]
KINDS = {1: OLDEST_KINDS, 2: OLDEST_KINDS, 3: ALL_KINDS, 4: ALL_KINDS, 5: ALL_KINDS}


def test_there_are_bundles_of_every_format_version() -> None:
    assert list(KINDS) == list(range(1, FORMAT_VERSION + 1))
    found = {
        version: {p.name for p in (BUNDLES / f"version-{version}").iterdir()} for version in KINDS
    }
    assert found == {version: set(kinds) for version, kinds in KINDS.items()}


@pytest.mark.parametrize(
    ("version", "index_kind"),
    [(version, kind) for version, kinds in KINDS.items() for kind in kinds],
)
def test_a_bundle_of_every_format_version_loads_and_answers_for_ever(
    version: int, index_kind: str
) -> None:
    bundle = read_bundle(BUNDLES / f"version-{version}" / index_kind)
    retriever = Retriever(bundle, model="tiny", version=1)
    retriever.check_golden()
    top = retriever.top_k(TextQueries(["topic7 filler", "unheard-of", "topic3"]), 2)
    assert top.counts.tolist() == [2, 0, 2]
    assert retriever.labels.keys_of(top.labels[[0, 2]]) == ["label7", "label3"]
    np.testing.assert_allclose(top.scores[[0, 2]], FIRST_SCORES[version], rtol=1e-5)
    assert bundle.manifest.format_version == version
    assert bundle.manifest.index.kind == index_kind
    assert bundle.manifest.parents == {"warm_start": "tiny@1"}
