"""The stage that ranks a shortlist by xi + log p_n(y|x).

A model trained against negatives from p_n learns xi = log p(y|x) - log p_n(y|x) up to a constant of
the query (Bamler and Mandt, ICLR 2020, eq. (5)), so that is what has to be added again.

Shapes: B queries, C hits of the longest shortlist, N hits in all.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from motherlode.core.documents import read_document
from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import Features, FloatArray
from motherlode.core.query_checks import features_too_large
from motherlode.core.rankers.label_tree import LabelTree
from motherlode.core.rankers.whitening import Whitening
from motherlode.core.topk import TopK, top_k_of_candidates

CONFIG_FILE = "config.json"
TREE_FILE = "label_tree.safetensors"
WHITENING_FILE = "whitening.safetensors"


class TreeCorrectionConfig(BaseModel):
    """Configuration of the correction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tree_correction"] = "tree_correction"
    scale: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="xi over the score of the shortlist"
    )
    shortlist: int = Field(default=100, ge=1, description="hits of the index to rank anew")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    num_features: int = Field(ge=1)
    num_components: int = Field(ge=1)
    num_labels: int = Field(ge=1)
    config: TreeCorrectionConfig


@final
class TreeCorrection:
    """scale * score + log p_n(y|x) for each hit, ranked anew. May be used by several threads.

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
        self.config = config
        self.whitening = whitening
        self.tree = tree

    @property
    def num_features(self) -> int:
        """F, of a query."""
        return self.whitening.num_features

    @property
    def num_labels(self) -> int:
        """L."""
        return self.tree.num_labels

    @property
    def predicted_bytes(self) -> int:
        """Memory that it takes, in bytes."""
        return self.whitening.nbytes + self.tree.nbytes

    def shortlist_for(self, k: int) -> int:
        """Hits of the index to ask for when k are wanted, at most the number of labels."""
        return min(max(k, self.config.shortlist), self.num_labels)

    def rank(self, shortlist: TopK, features: Features, k: int) -> TopK:
        """The best k hits of each query's shortlist; ties go to the smaller label.

        The answer of a query does not depend on its batch mates.

        Args:
            shortlist: Hits with the scores of the index.
            features: The B queries themselves.
            k: Hits to keep, at least 1.

        Raises:
            InvalidInputError: If a hit is no label of the tree, or the queries are not as many as
                the answers, or have other features.
            InvalidQueryError: If a feature is so large that a corrected score would overflow.
        """
        if len(shortlist) != len(features):
            expected = f"{len(shortlist)} queries, as many as the shortlist has"
            raise InvalidInputError("features", expected=expected, actual=len(features))
        scores_N = self._scores(shortlist, features)
        if len(scores_N) == 0:
            return shortlist
        columns_C = np.arange(shortlist.counts.max())
        valid_BC = columns_C < shortlist.counts[:, None]
        labels_BC = np.zeros(valid_BC.shape, np.int64)
        labels_BC[valid_BC] = shortlist.labels
        scores_BC = np.zeros(valid_BC.shape, np.float32)
        scores_BC[valid_BC] = scores_N
        return top_k_of_candidates(labels_BC, scores_BC, valid_BC, k)

    def save(self, folder: Path) -> None:
        """Writes three files into an existing folder.

        Raises:
            OSError: If a file cannot be written.
        """
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
    def load(cls, folder: Path) -> TreeCorrection:
        """What `save` wrote.

        Raises:
            BundleError: If a file is missing, damaged, or does not fit the others.
        """
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

    def _scores(self, shortlist: TopK, features: Features) -> FloatArray:
        """float32 [N]: the corrected scores, in the order of the hits."""
        rows_N = np.repeat(np.arange(len(shortlist)), shortlist.counts)
        # What overflows is refused below, so that nobody needs a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            projected_BK = self.whitening.transform(features)
            log_probs_N = self.tree.log_prob(projected_BK, rows_N, shortlist.labels)
            xi_N = self.config.scale * shortlist.scores.astype(np.float64)
            scores_N: FloatArray = (xi_N + log_probs_N).astype(np.float32)
        if not np.isfinite(scores_N).all():
            raise features_too_large(features)
        return scores_N


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
