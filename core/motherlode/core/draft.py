"""What is to become a bundle, and how its manifest describes it.

Shapes: L labels, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal, final

import numpy as np

from motherlode.core.encoders import QueryEncoder
from motherlode.core.features import Featurizer
from motherlode.core.golden import Golden
from motherlode.core.index import LabelIndex
from motherlode.core.labels import LabelTable
from motherlode.core.manifest import (
    ENCODER_FILE,
    LABELS_FILE,
    Dimensions,
    FileEntry,
    IndexInfo,
    Manifest,
    Memory,
    Normalization,
    Stage,
    bundle_digest,
    lowest_format_version,
)
from motherlode.core.queries import FloatArray
from motherlode.core.rankers import Ranker

# Measured on CPython 3.11 with 300,000 n-grams: the text, and where the text is found again.
_BYTES_PER_TEXT_FEATURE = 200


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class BundleDraft:
    """What is to become a bundle.

    Attributes:
        featurizer: Features of a query.
        encoder: Embedding of a query's features.
        labels: L labels.
        labels_LD: float32 [L, D], row i the embedding of label i.
        index: Built over `labels_LD`.
        golden: Queries with their answers, taken from these very parts.
        evaluation: Measured quality, as JSON values.
        report_html: A page for people, or None.
        index_recall: Share of the exact hits that the index finds, such as {"R@10": 0.99}.
        score_meaning: What a score is, in a few words.
        config: The whole configuration of the training run.
        config_digest: Digest of it.
        data_digest: Digest of the training data.
        parents: Bundles that it was made from: what each gave -> its name or digest.
        training_state: Arrays that a warm start takes over, by name; may be empty.
        ranker: Ranks the hits of the index anew, or None.
        label_encoder: Embedding of a label text's features, where it is not that of a query.
        query_sample_BD: float32 [B, D], embeddings of queries to measure an index with, or None.
    """

    featurizer: Featurizer
    encoder: QueryEncoder
    labels: LabelTable
    labels_LD: FloatArray
    index: LabelIndex
    golden: Golden
    evaluation: dict[str, Any]
    report_html: str | None
    index_recall: dict[str, float]
    score_meaning: str
    config: dict[str, Any]
    config_digest: str
    data_digest: str
    parents: dict[str, str]
    training_state: dict[str, FloatArray] = field(default_factory=dict)
    ranker: Ranker | None = None
    label_encoder: QueryEncoder | None = None
    query_sample_BD: FloatArray | None = None

    @property
    def dimensions(self) -> Dimensions:
        """The sizes that its parts should agree on."""
        num_labels, width = self.labels_LD.shape
        return Dimensions(
            num_features=self.encoder.num_features, width=width, num_labels=num_labels
        )

    def describe(self, files: dict[str, FileEntry]) -> Manifest:
        """The manifest of a bundle with these files, written from this draft."""
        stages = _stages(self)
        return Manifest(
            format_version=lowest_format_version(stages),
            created_at=datetime.now(UTC).replace(microsecond=0),
            written_by=f"motherlode {version('motherlode')}",
            digest=bundle_digest(files, stages),
            dimensions=self.dimensions,
            normalization=Normalization(
                queries=_length_of(self.golden.embeddings_BD), labels=_length_of(self.labels_LD)
            ),
            stages=stages,
            index=_index_info(self),
            memory=_memory(self, files),
            evaluation=self.evaluation,
            parents=self.parents,
            config=self.config,
            config_digest=self.config_digest,
            data_digest=self.data_digest,
            files=files,
        )


def _stages(draft: BundleDraft) -> tuple[Stage, ...]:
    def stage(
        name: str,
        part: Featurizer | QueryEncoder | LabelIndex | Ranker,
        meaning: str | None,
    ) -> Stage:
        config = part.config.model_dump(mode="json")
        return Stage(name=name, kind=part.kind, config=config, score_meaning=meaning)

    stages = (
        stage("features", draft.featurizer, None),
        stage("encoder", draft.encoder, None),
        stage("index", draft.index, draft.score_meaning),
    )
    if draft.ranker is None:
        return stages
    return (*stages, stage("ranker", draft.ranker, draft.ranker.score_meaning))


def _index_info(draft: BundleDraft) -> IndexInfo:
    index = draft.index
    return IndexInfo(
        kind=index.kind,
        factory=index.factory,
        faiss_version=index.faiss_version,
        parameters=index.config.model_dump(mode="json"),
        recall=draft.index_recall,
    )


def _memory(draft: BundleDraft, files: dict[str, FileEntry]) -> Memory:
    weights = files[ENCODER_FILE].size_bytes + draft.index.predicted_bytes
    per_feature = _BYTES_PER_TEXT_FEATURE if draft.featurizer.kind == "text" else 0
    tables = files[LABELS_FILE].size_bytes + per_feature * draft.featurizer.num_features
    # A ranker stays in RAM, wherever encoder and index are.
    ranker = 0 if draft.ranker is None else draft.ranker.predicted_bytes
    ram_bytes = weights + tables + draft.labels_LD.nbytes + ranker
    return Memory(ram_bytes=ram_bytes, gpu_bytes=weights + draft.labels_LD.nbytes)


def _length_of(matrix: FloatArray) -> Literal["unit", "none"]:
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    return "unit" if np.abs(lengths - 1.0).max() < 1e-3 else "none"
