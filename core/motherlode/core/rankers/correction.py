"""The stage that ranks a shortlist by xi + log p_n(y|x).

A model trained against negatives from p_n learns xi = log p(y|x) - log p_n(y|x) up to a constant of
the query (Bamler and Mandt, ICLR 2020, eq. (5)), so that is what has to be added again.

Shapes: B queries, K components of a projected query, N hits in all.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from motherlode.core.documents import read_document
from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import Features, FloatArray
from motherlode.core.rankers.label_tree import LabelTree
from motherlode.core.rankers.ranker import CONFIG_FILE, Ranker, ShortlistConfig
from motherlode.core.rankers.whitening import Whitening
from motherlode.core.topk import TopK

TREE_FILE = "label_tree.safetensors"
WHITENING_FILE = "whitening.safetensors"


@final
class TreeCorrectionConfig(ShortlistConfig):
    """Configuration of the correction."""

    kind: Literal["tree_correction"] = "tree_correction"
    scale: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="xi over the score of the shortlist"
    )


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    num_features: int = Field(ge=1)
    num_components: int = Field(ge=1)
    num_labels: int = Field(ge=1)
    config: TreeCorrectionConfig


@final
class TreeCorrection(Ranker):
    """scale * score + log p_n(y|x) for each hit, ranked anew.

    Args:
        config: Of the stage.
        whitening: Projects the features of a query.
        tree: p_n.

    Raises:
        InvalidInputError: If the tree takes another number of components than the whitening gives.
    """

    kind: ClassVar[str] = "tree_correction"
    score_meaning: ClassVar[str] = "log p(y|x) up to a constant of the query: xi + log p_n(y|x)"

    def __init__(self, config: TreeCorrectionConfig, whitening: Whitening, tree: LabelTree) -> None:
        check_projection(whitening, tree)
        self._config = config
        self.whitening = whitening
        self.tree = tree

    @property
    @override
    def config(self) -> TreeCorrectionConfig:
        return self._config

    @property
    @override
    def num_features(self) -> int:
        return self.whitening.num_features

    @property
    @override
    def num_labels(self) -> int:
        return self.tree.num_labels

    @property
    @override
    def predicted_bytes(self) -> int:
        return self.whitening.nbytes + self.tree.nbytes

    @override
    def save(self, folder: Path) -> None:
        self.whitening.save(folder / WHITENING_FILE)
        self.tree.save(folder / TREE_FILE)
        document = _Document(
            num_features=self.whitening.num_features,
            num_components=self.whitening.num_components,
            num_labels=self.tree.num_labels,
            config=self.config,
        )
        (folder / CONFIG_FILE).write_text(document.model_dump_json(indent=2) + "\n", "utf-8")

    @classmethod
    @override
    def load(cls, folder: Path) -> TreeCorrection:
        document = read_document(_Document, folder / CONFIG_FILE)
        whitening = Whitening.load(folder / WHITENING_FILE)
        tree = LabelTree.load(folder / TREE_FILE)
        sizes = [
            (WHITENING_FILE, "features", document.num_features, whitening.num_features),
            (WHITENING_FILE, "components", document.num_components, whitening.num_components),
            (TREE_FILE, "components", document.num_components, tree.num_components),
            (TREE_FILE, "labels", document.num_labels, tree.num_labels),
        ]
        for file, what, expected, actual in sizes:
            if actual != expected:
                raise BundleError(folder / file, f"{actual} {what}, expected {expected}")
        return cls(document.config, whitening, tree)

    @override
    def _score(self, shortlist: TopK, features: Features, embeddings_BD: FloatArray) -> FloatArray:
        rows_N = np.repeat(np.arange(len(shortlist)), shortlist.counts)
        projected_BK = self.whitening.transform(features)
        log_probs_N = self.tree.log_prob(projected_BK, rows_N, shortlist.labels)
        xi_N = self.config.scale * shortlist.scores.astype(np.float64)
        return (xi_N + log_probs_N).astype(np.float32)


def check_projection(whitening: Whitening, tree: LabelTree) -> None:
    """Refuses a tree over another projection than the whitening gives.

    Raises:
        InvalidInputError: If so.
    """
    if whitening.num_components != tree.num_components:
        expected = f"{whitening.num_components}, what the whitening gives"
        raise InvalidInputError(
            "label_tree.num_components", expected=expected, actual=tree.num_components
        )
