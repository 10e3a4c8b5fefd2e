"""The stage that ranks a shortlist by sparse linear classifiers, one of each label.

ELIAS++ (Gupta et al., NeurIPS 2022, section 3.5 and eq. (17)) ranks a shortlist by the words of the
query, which single words decide better than an embedding does, and joins that with the score of
the index. Here the join is linear in a few inputs, and fitted such that each true label of a query
is ranked against the query's other hits.

Shapes: B queries, F features, L labels, W weights in all, N hits in all, C hits of one query, J
inputs of the join.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from typing_extensions import override

from motherlode.core.documents import read_document
from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import Features, FloatArray, IntArray, SparseQueries
from motherlode.core.rankers.ranker import CONFIG_FILE, Ranker, ShortlistConfig
from motherlode.core.rankers.sparse_weights import SparseWeights
from motherlode.core.topk import TopK

WEIGHTS_FILE = "weights.safetensors"
JOINED = ("s", "m", "softplus(-2 m)", "f", "s m", "s f", "m f")


@final
class SparseLinearConfig(ShortlistConfig):
    """Configuration of the classifiers' stage."""

    kind: Literal["sparse_linear"] = "sparse_linear"
    join: tuple[FiniteFloat, ...] = Field(
        min_length=len(JOINED),
        max_length=len(JOINED),
        description="weights of s, m, softplus(-2 m), f, s m, s f, m f, where s is the score of "
        "the index, m the margin of the classifier, f log(1 + training queries of the label)",
    )


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    num_features: int = Field(ge=1)
    num_labels: int = Field(ge=1)
    config: SparseLinearConfig


@final
class SparseLinear(Ranker):
    """The margin of each hit's classifier, joined with its score and the label's frequency.

    Args:
        config: Of the stage.
        weights: Of the classifiers.
        frequencies_L: int64 [L], training queries of each label.

    Raises:
        InvalidInputError: If there are not as many frequencies as classifiers.
    """

    kind: ClassVar[str] = "sparse_linear"
    score_meaning: ClassVar[str] = (
        "log-odds of being true against the query's other hits, up to a constant of the query"
    )

    def __init__(
        self, config: SparseLinearConfig, weights: SparseWeights, frequencies_L: IntArray
    ) -> None:
        if len(frequencies_L) != weights.num_labels:
            expected = f"{weights.num_labels}, one of each label"
            raise InvalidInputError("frequencies", expected=expected, actual=len(frequencies_L))
        self._config = config
        self.weights = weights
        self.frequencies_L = frequencies_L

    @property
    @override
    def config(self) -> SparseLinearConfig:
        return self._config

    @property
    @override
    def num_features(self) -> int:
        return self.weights.num_features

    @property
    @override
    def num_labels(self) -> int:
        return self.weights.num_labels

    @property
    @override
    def predicted_bytes(self) -> int:
        return self.weights.nbytes + self.frequencies_L.nbytes

    def margins(self, shortlist: TopK, features: Features) -> FloatArray:
        """float32 [N]: the margin of each hit's classifier, in the order of the hits.

        Raises:
            InvalidInputError: For queries that are not sparse, or of another width.
        """
        if not isinstance(features, SparseQueries) or features.num_features != self.num_features:
            expected = f"{self.num_features} sparse features"
            raise InvalidInputError("features", expected=expected, actual=type(features).__name__)
        ends, offsets = features.indptr.tolist(), shortlist.offsets.tolist()
        margins_N = np.empty(len(shortlist.labels), np.float32)
        for i in range(len(shortlist)):
            entries = slice(ends[i], ends[i + 1])
            query = features.indices[entries], features.values[entries]
            hits = slice(offsets[i], offsets[i + 1])
            margins_N[hits] = self.weights.margins(*query, shortlist.labels[hits])
        return margins_N

    def inputs(self, shortlist: TopK, features: Features) -> FloatArray:
        """float32 [J, N]: what is joined, one row for each of `JOINED`.

        Raises:
            InvalidInputError: As `margins`.
        """
        s, m = shortlist.scores, self.margins(shortlist, features)
        f = np.log1p(self.frequencies_L[shortlist.labels]).astype(np.float32)
        return np.stack([s, m, np.logaddexp(np.float32(0), -2 * m), f, s * m, s * f, m * f])

    def with_labels(self, frequencies_N: IntArray) -> SparseLinear:
        """The same with N more labels, which have no classifier: their margin is 0.

        Args:
            frequencies_N: int64 [N], training queries of each new label.
        """
        frequencies_L = np.concatenate([self.frequencies_L, frequencies_N])
        weights = self.weights.with_labels(len(frequencies_N))
        return SparseLinear(self.config, weights, frequencies_L)

    @override
    def _score(self, shortlist: TopK, features: Features) -> FloatArray:
        inputs_JN = self.inputs(shortlist, features)
        # Term by term, so that the bits of a score depend on its own inputs alone.
        scores_N = np.zeros(inputs_JN.shape[1])
        for weight, input_N in zip(self.config.join, inputs_JN, strict=True):
            scores_N += weight * input_N
        return scores_N.astype(np.float32)

    @override
    def save(self, folder: Path) -> None:
        self.weights.save(folder / WEIGHTS_FILE, self.frequencies_L)
        document = _Document(
            num_features=self.num_features, num_labels=self.num_labels, config=self.config
        )
        (folder / CONFIG_FILE).write_text(document.model_dump_json(indent=2) + "\n", "utf-8")

    @classmethod
    @override
    def load(cls, folder: Path) -> SparseLinear:
        document = read_document(_Document, folder / CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        weights, frequencies_L = SparseWeights.load(path, document.num_features)
        if weights.num_labels != document.num_labels:
            reason = f"{weights.num_labels} labels, expected {document.num_labels}"
            raise BundleError(path, reason)
        return cls(document.config, weights, frequencies_L)
