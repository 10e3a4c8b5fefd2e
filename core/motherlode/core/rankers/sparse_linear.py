"""The stage that ranks a shortlist by sparse linear classifiers, one of each label.

ELIAS++ (Gupta et al., NeurIPS 2022, section 3.5 and eq. (17)) ranks a shortlist by the words of the
query, which single words decide better than an embedding does, and joins that with the score of
the index. Here the join is a small network of a few inputs, and fitted such that each true label of
a query is ranked against the query's other hits. The labels of the training queries nearest to the
query may be one of the inputs.

Shapes: B queries, F features, L labels, W weights in all, N hits in all, C hits of one query, J
terms of the join, I inputs of its hidden units.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from typing_extensions import override

from motherlode.core.array_file import check_row
from motherlode.core.documents import read_document
from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import Features, FloatArray, IntArray, SparseQueries
from motherlode.core.rankers.hidden_units import HiddenUnits
from motherlode.core.rankers.label_texts import LabelTexts
from motherlode.core.rankers.neighbors import Neighbors, NeighborsConfig
from motherlode.core.rankers.ranker import CONFIG_FILE, Ranker, ShortlistConfig
from motherlode.core.rankers.sparse_weights import SparseWeights
from motherlode.core.topk import TopK

WEIGHTS_FILE = "weights.safetensors"
JOINED = ("s", "m", "softplus(-2 m)", "f", "s m", "s f", "m f")
INPUTS = ("s", "m", "f", "t")
INPUTS_WITH_NEIGHBORS = (*INPUTS, "n")


@final
class SparseLinearConfig(ShortlistConfig):
    """Configuration of the classifiers' stage.

    In what is joined, s is the score of the index, m the margin of the classifier, f log(1 +
    training queries of the label), t the share of the features of the label's text that the query
    has, 0 where texts have no part in the model, n the share of the query's neighbours that have
    the label.
    """

    kind: Literal["sparse_linear"] = "sparse_linear"
    join: tuple[FiniteFloat, ...] = Field(
        min_length=len(JOINED),
        max_length=len(JOINED),
        description="weights of s, m, softplus(-2 m), f, s m, s f, m f",
    )
    hidden: HiddenUnits | None = Field(
        default=None,
        description="what is added to their sum, of s, m, f, t and, with neighbours, n",
        # So that a reader of format version 3 takes a sum without them.
        exclude_if=lambda hidden: hidden is None,
    )
    neighbors: NeighborsConfig | None = Field(
        default=None,
        description="training queries that a query is compared with",
        # Likewise for format version 4.
        exclude_if=lambda neighbors: neighbors is None,
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Those of the hidden units."""
        return INPUTS if self.neighbors is None else INPUTS_WITH_NEIGHBORS

    @model_validator(mode="after")
    def _takes_the_inputs(self) -> Self:
        if self.hidden is not None and self.hidden.num_inputs != len(self.inputs):
            expected = f"{len(self.inputs)} weights of each unit"
            raise ValueError(f"hidden.inner: expected {expected}, got {self.hidden.num_inputs}")
        return self


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    num_features: int = Field(ge=1)
    num_labels: int = Field(ge=1)
    config: SparseLinearConfig


@final
class SparseLinear(Ranker):
    """The margin of each hit's classifier, joined with what else is known of the hit.

    Args:
        config: Of the stage.
        weights: Of the classifiers.
        frequencies_L: int64 [L], training queries of each label.
        texts: Of the labels; None where they have no part in the model.
        neighbors: As the configuration has them, or None as well.

    Raises:
        InvalidInputError: If there are not as many frequencies, texts or labels of neighbours as
            classifiers, or the configuration has other neighbours.
    """

    kind: ClassVar[str] = "sparse_linear"
    score_meaning: ClassVar[str] = (
        "log-odds of being true against the query's other hits, up to a constant of the query"
    )

    def __init__(
        self,
        config: SparseLinearConfig,
        weights: SparseWeights,
        frequencies_L: IntArray,
        texts: LabelTexts | None = None,
        neighbors: Neighbors | None = None,
    ) -> None:
        texts = texts or LabelTexts.none(weights.num_labels, weights.num_features)
        sizes = {"frequencies": len(frequencies_L), "texts": texts.num_labels}
        if neighbors is not None:
            sizes["neighbors"] = neighbors.num_labels
        for name, number in sizes.items():
            if number != weights.num_labels:
                expected = f"{weights.num_labels}, one of each label"
                raise InvalidInputError(name, expected=expected, actual=number)
        found = None if neighbors is None else neighbors.config
        if found != config.neighbors:
            raise InvalidInputError("neighbors", expected=str(config.neighbors), actual=found)
        self._config = config
        self.weights = weights
        self.frequencies_L = frequencies_L
        self.texts = texts
        self.neighbors = neighbors

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
    def width(self) -> int | None:
        return None if self.neighbors is None else self.neighbors.width

    @property
    @override
    def predicted_bytes(self) -> int:
        of_labels = self.weights.nbytes + self.frequencies_L.nbytes + self.texts.nbytes
        return of_labels + (0 if self.neighbors is None else self.neighbors.nbytes)

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

    def inputs(self, shortlist: TopK, features: Features, embeddings_BD: FloatArray) -> FloatArray:
        """What is known of each hit, one row for each of the configuration's `inputs`.

        Returns:
            float32 [I, N].

        Raises:
            InvalidInputError: As `margins`.
        """
        m = self.margins(shortlist, features)
        assert isinstance(features, SparseQueries), "the margins were made from them"
        f = np.log1p(self.frequencies_L[shortlist.labels]).astype(np.float32)
        rows = [shortlist.scores, m, f, self.texts.shares(shortlist, features)]
        if self.neighbors is not None:
            rows.append(self.neighbors.shares(shortlist, embeddings_BD))
        return np.stack(rows)

    def with_config(self, config: SparseLinearConfig) -> SparseLinear:
        """The same with another shortlist or join; without neighbours if it has none."""
        neighbors = None if config.neighbors is None else self.neighbors
        return SparseLinear(config, self.weights, self.frequencies_L, self.texts, neighbors)

    def with_labels(self, frequencies_N: IntArray, texts: SparseQueries) -> SparseLinear:
        """The same with N more labels, which have no classifier: their margin is 0.

        Args:
            frequencies_N: int64 [N], training queries of each new label.
            texts: Those of the new labels, featurised.
        """
        num_more = len(frequencies_N)
        return SparseLinear(
            self.config,
            self.weights.with_labels(num_more),
            np.concatenate([self.frequencies_L, frequencies_N]),
            self.texts.with_texts(texts),
            None if self.neighbors is None else self.neighbors.with_labels(num_more),
        )

    @override
    def _score(self, shortlist: TopK, features: Features, embeddings_BD: FloatArray) -> FloatArray:
        inputs_IN = self.inputs(shortlist, features, embeddings_BD)
        hidden = self.config.hidden
        scores_N = np.zeros(len(shortlist.labels)) if hidden is None else hidden.scores(inputs_IN)
        # Term by term, so that the bits of a score depend on its own inputs alone.
        for weight, term_N in zip(self.config.join, joined_terms(inputs_IN), strict=True):
            scores_N += weight * term_N
        return scores_N.astype(np.float32)

    @override
    def save(self, folder: Path) -> None:
        beside = {"frequencies": self.frequencies_L}
        if self.config.hidden is not None:
            beside |= self.texts.arrays()
        self.weights.save(folder / WEIGHTS_FILE, beside)
        if self.neighbors is not None:
            self.neighbors.save(folder)
        document = _Document(
            num_features=self.num_features, num_labels=self.num_labels, config=self.config
        )
        (folder / CONFIG_FILE).write_text(document.model_dump_json(indent=2) + "\n", "utf-8")

    @classmethod
    @override
    def load(cls, folder: Path) -> SparseLinear:
        document = read_document(_Document, folder / CONFIG_FILE)
        path, config = folder / WEIGHTS_FILE, document.config
        weights, arrays = SparseWeights.load(path, document.num_features)
        if weights.num_labels != document.num_labels:
            reason = f"{weights.num_labels} labels, expected {document.num_labels}"
            raise BundleError(path, reason)
        has_texts = config.hidden is not None
        try:
            texts = LabelTexts.of_arrays(arrays, document.num_features) if has_texts else None
            check_row("frequencies", arrays["frequencies"], np.int64)
            neighbors = _load_neighbors(config, folder, document.num_labels)
            ranker = cls(config, weights, arrays["frequencies"], texts, neighbors)
        except (KeyError, InvalidInputError) as error:
            raise BundleError(path, f"no sparse linear classifiers: {error}") from error
        if ranker.frequencies_L.min() < 0:
            raise BundleError(path, "frequencies: one is below 0")
        return ranker


def joined_terms(inputs_IN: FloatArray) -> FloatArray:
    """float32 [J, N]: one row for each of `JOINED`.

    Args:
        inputs_IN: float32 [I, N], what `SparseLinear.inputs` gives.
    """
    s, m, f = inputs_IN[:3]
    return np.stack([s, m, np.logaddexp(np.float32(0), -2 * m), f, s * m, s * f, m * f])


def _load_neighbors(config: SparseLinearConfig, folder: Path, num_labels: int) -> Neighbors | None:
    if config.neighbors is None:
        return None
    return Neighbors.load(config.neighbors, folder, num_labels)
