"""A version of a model that is made from a published one without training.

Shapes: L labels, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from motherlode.core.bundle import Bundle, BundleDraft
from motherlode.core.index import LabelIndex
from motherlode.core.labels import LabelTable
from motherlode.core.manifest import LABEL_ENCODER_FILE
from motherlode.core.queries import FloatArray
from motherlode.core.query_path import QueryPath
from motherlode.core.rankers import Ranker


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Revision:
    """What a new version has that its parent has not.

    Attributes:
        kind: What was done to the parent, as a key of the manifest's `parents`.
        labels: L labels.
        labels_LD: float32 [L, D], their embeddings.
        index: Over `labels_LD`.
        index_recall: Share of the exact hits that the index finds, such as {"R@10": 0.99}.
        ranker: Ranks the hits of the index anew, or None.
        training_state: As in a bundle.
        evaluation: Measured anew. What the parent's says need not hold any more.
        report_html: A page for people, or None.
    """

    kind: str
    labels: LabelTable
    labels_LD: FloatArray
    index: LabelIndex
    index_recall: dict[str, float]
    ranker: Ranker | None
    training_state: dict[str, FloatArray]
    evaluation: dict[str, Any] = field(default_factory=dict)
    report_html: str | None = None


def revise(parent: Bundle, revision: Revision) -> BundleDraft:
    """A draft with all else of the parent, and its golden queries with the answers they get now."""
    manifest, golden = parent.manifest, parent.golden
    path = QueryPath(parent.featurizer, parent.encoder, revision.index, revision.ranker)
    return BundleDraft(
        featurizer=parent.featurizer,
        encoder=parent.encoder,
        labels=revision.labels,
        labels_LD=revision.labels_LD,
        index=revision.index,
        golden=path.take_golden(golden.queries, golden.k),
        evaluation=revision.evaluation,
        report_html=revision.report_html,
        index_recall=revision.index_recall,
        score_meaning=manifest.stage("index").score_meaning or "",
        config=manifest.config,
        config_digest=manifest.config_digest,
        data_digest=manifest.data_digest,
        parents={revision.kind: manifest.digest},
        training_state=revision.training_state,
        ranker=revision.ranker,
        label_encoder=parent.label_encoder() if LABEL_ENCODER_FILE in manifest.files else None,
        query_sample_BD=parent.query_sample(),
    )


def seed_of(parent: Bundle) -> int:
    """The seed of the run that trained it."""
    return int(parent.manifest.config.get("seed", 0))
