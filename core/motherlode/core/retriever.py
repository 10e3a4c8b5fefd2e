"""From queries to hits: the only query path, offline and online.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.bundle import Bundle, read_bundle
from motherlode.core.encoders import QueryEncoder
from motherlode.core.errors import BundleError, InvalidQueryError
from motherlode.core.features import Featurizer
from motherlode.core.golden import Golden
from motherlode.core.index import LabelFilter, LabelIndex
from motherlode.core.index.placement import Policy
from motherlode.core.manifest import ENCODER_FILE, GOLDEN_FILE, INDEX_FILE, RANKER_FOLDER
from motherlode.core.placing import place_bundle
from motherlode.core.queries import (
    EmbeddingQueries,
    Features,
    FloatArray,
    IntArray,
    Queries,
    SparseQueries,
)
from motherlode.core.query_checks import check_queries, features_too_large, kind_of
from motherlode.core.rankers import Ranker
from motherlode.core.repository import Repository
from motherlode.core.topk import TopK

_QUERY_KINDS = {
    "text": ("text", "sparse", "embeddings"),
    "sparse": ("sparse", "embeddings"),
    "dense": ("features", "embeddings"),
}


@final
@dataclass(slots=True)
class StageTimes:
    """Seconds spent in each stage; `top_k` adds to them."""

    features_s: float = 0.0
    encode_s: float = 0.0
    search_s: float = 0.0
    rank_s: float = 0.0


@final
@dataclass(frozen=True, slots=True, eq=False)
class QueryPath:
    """The stages in their order: features, encoder, index, and a ranker where there is one.

    It is apart from `Retriever` so that training can evaluate, and take golden answers from, parts
    that are not published yet, in the very way in which they will be asked later.
    """

    featurizer: Featurizer
    encoder: QueryEncoder
    index: LabelIndex
    ranker: Ranker | None = None

    def encode(self, queries: Queries) -> FloatArray:
        """Embeddings of the queries: float32 [B, D]."""
        if isinstance(queries, EmbeddingQueries):
            return queries.embeddings_BD
        return self._encode(self.featurizer.transform(queries))

    def encode_known(self, queries: Queries) -> FloatArray:
        """Embeddings of the queries that have a known feature: float32 [at most B, D].

        Others have no hits, and never come to the index.
        """
        if isinstance(queries, EmbeddingQueries):
            return queries.embeddings_BD
        return self._encode(_drop_empty_rows(self.featurizer.transform(queries))[0])

    def num_hits(self, k: int) -> int:
        """Hits that the index is asked for, so that k can be given: more where a ranker follows."""
        return k if self.ranker is None or k < 1 else self.ranker.shortlist_for(k)

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        filter: LabelFilter | None = None,  # noqa: A002 - the name on the wire
        times: StageTimes | None = None,
    ) -> TopK:
        """See `Retriever.top_k`.

        Raises:
            InvalidQueryError: For embeddings where there is a ranker; else as `LabelIndex.search`.
        """
        times = StageTimes() if times is None else times
        self.check_can_rank(queries)
        if isinstance(queries, EmbeddingQueries):
            return self._search(queries.embeddings_BD, k, filter, times)
        started = perf_counter()
        features = self.featurizer.transform(queries)
        features, known_B = _drop_empty_rows(features)
        times.features_s += perf_counter() - started
        if known_B is None:
            return self._find(features, k, filter, times)
        if not len(features):
            return _no_hits(len(known_B))
        return _spread(self._find(features, k, filter, times), known_B)

    def check_can_rank(self, queries: Queries) -> None:
        """Refuses embeddings where a ranker needs the features that they were made of.

        Raises:
            InvalidQueryError: If so.
        """
        if self.ranker is not None and isinstance(queries, EmbeddingQueries):
            expected = f"the queries themselves, whose features the {self.ranker.kind} needs"
            raise InvalidQueryError("queries", expected=expected, actual=kind_of(queries))

    def take_golden(self, queries: Queries, k: int) -> Golden:
        """The queries with the answers that they get now.

        Raises:
            ValueError: If there are none, or more than a bundle keeps.
        """
        return Golden(queries, self.encode(queries), self.top_k(queries, k), k)

    def _find(
        self, features: Features, k: int, wanted: LabelFilter | None, times: StageTimes
    ) -> TopK:
        started = perf_counter()
        embeddings_BD = self._encode(features)
        times.encode_s += perf_counter() - started
        try:
            top = self._search(embeddings_BD, self.num_hits(k), wanted, times)
        except InvalidQueryError as error:
            raise _as_of_features(error, features) from error
        return top if self.ranker is None else self._rank(self.ranker, top, features, k, times)

    def _encode(self, features: Features) -> FloatArray:
        # What overflows is refused by the index, so that nobody needs a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            return self.encoder.encode(features)

    def _search(
        self, embeddings_BD: FloatArray, k: int, wanted: LabelFilter | None, times: StageTimes
    ) -> TopK:
        started = perf_counter()
        top = self.index.search(embeddings_BD, k, filter=wanted)
        times.search_s += perf_counter() - started
        return top

    def _rank(
        self, ranker: Ranker, top: TopK, features: Features, k: int, times: StageTimes
    ) -> TopK:
        started = perf_counter()
        ranked = ranker.rank(top, features, k)
        times.rank_s += perf_counter() - started
        return ranked


@final
class Retriever:
    """One version of a model, ready for queries; may be used by several threads at once.

    Attributes:
        model: Name of the model.
        version: Number of the version.
        digest: Digest of the bundle; the same digest gives the same answers.
        manifest: Manifest of the bundle.
        labels: What the rows of a TopK stand for.
        query_kinds: Kinds of query it takes, of `text`, `sparse`, `features` and `embeddings`. With
            a ranker no embeddings: it ranks by the features.
        num_features: F.
        width: D.
    """

    def __init__(self, bundle: Bundle, *, model: str, version: int) -> None:
        self.model = model
        self.version = version
        self.manifest = bundle.manifest
        self.digest = bundle.manifest.digest
        self.labels = bundle.labels
        kinds = _QUERY_KINDS[bundle.featurizer.kind]
        self.query_kinds = tuple(
            kind for kind in kinds if bundle.ranker is None or kind != "embeddings"
        )
        self.num_features = bundle.encoder.num_features
        self.width = bundle.encoder.width
        self.path = QueryPath(bundle.featurizer, bundle.encoder, bundle.index, bundle.ranker)
        self._bundle = bundle

    @classmethod
    def load(
        cls,
        repository: Repository,
        model: str,
        version: int | str | None = None,
        *,
        verify: bool = True,
        gpu: Literal["auto", "never", "require"] = "never",
    ) -> Retriever:
        """The retriever of a published version.

        Args:
            repository: Where it was published.
            model: Name of the model.
            version: Number, digits, alias, or None for the newest.
            verify: Whether to hash every file and to check the golden answers.
            gpu: Whether the index may, or must, go to a GPU; see `placing`.

        Raises:
            ConfigError: If a GPU is required and the index cannot be on one.
            NotFoundError: If there is no such model, version or alias.
            UnsupportedFormatError: If a newer Motherlode wrote it.
            BundleError: If anything is missing, changed or does not fit.
        """
        number = repository.resolve(model, version)
        bundle = read_bundle(repository.path_of(model, number), verify=verify)
        bundle, _ = place_bundle(bundle, Policy(gpu=gpu, copies=1))
        retriever = cls(bundle, model=model, version=number)
        if verify:
            retriever.check_golden()
        return retriever

    def validate(
        self,
        queries: Queries,
        k: int,
        filter: LabelFilter | None = None,  # noqa: A002 - the name on the wire
    ) -> None:
        """Refuses what `top_k` must not be called with.

        Raises:
            InvalidQueryError: For the first thing found wrong; names its path, such as
                `queries.embeddings.shape`.
        """
        self.path.check_can_rank(queries)
        check_queries(
            queries, kinds=self.query_kinds, num_features=self.num_features, width=self.width
        )
        if not 1 <= k <= len(self.labels):
            raise InvalidQueryError("k", expected=f"1 to {len(self.labels)}", actual=k)
        if filter is not None:
            self._check_rows(filter.rows)

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        filter: LabelFilter | None = None,  # noqa: A002 - the name on the wire
        times: StageTimes | None = None,
    ) -> TopK:
        """The best k labels of each query; its answer does not depend on the rest of the batch.

        A query without any known feature has no hits. Fewer than k hits are given where there are
        no more labels, or the filter or an approximate index lets no more through.

        A ranker ranks anew the k best of the index, or its shortlist if that is longer. So of
        two k up to the length of the shortlist, the hits for the smaller begin those for the other.

        Args:
            queries: A batch that `validate` accepts, or an empty one.
            k: Hits wanted, at least 1.
            filter: Labels to allow or to deny.
            times: Gets the seconds spent in each stage added.
        """
        return self.path.top_k(queries, k, filter=filter, times=times)

    def encode(self, queries: Queries) -> FloatArray:
        """Embeddings of the queries: float32 [B, D]."""
        return self.path.encode(queries)

    def check_golden(self) -> None:
        """Asks the golden queries again.

        Raises:
            BundleError: If an embedding, a score or a label is not what it was when published.
        """
        golden = self._bundle.golden
        difference = golden.embedding_difference(self.encode(golden.queries))
        if difference is not None:
            reason = f"does not give the embeddings in {GOLDEN_FILE}: {difference}"
            raise BundleError(self._bundle.path / ENCODER_FILE, reason)
        difference = golden.hit_difference(self.top_k(golden.queries, golden.k))
        if difference is not None:
            reason = f"does not give the hits in {GOLDEN_FILE}: {difference}"
            # A label tree of other data is as likely as an index of other labels.
            part = INDEX_FILE if self.path.ranker is None else RANKER_FOLDER
            raise BundleError(self._bundle.path / part, reason)

    def _check_rows(self, rows: IntArray) -> None:
        if len(rows) and (rows[0] < 0 or rows[-1] >= len(self.labels)):
            expected = f"labels from 0 to {len(self.labels) - 1}"
            raise InvalidQueryError("filter", expected=expected, actual=[rows[0], rows[-1]])


def _as_of_features(error: InvalidQueryError, features: Features) -> InvalidQueryError:
    """What an index says of embeddings, said of the features that they were made of."""
    if not error.field.startswith("queries.embeddings"):
        return error
    return features_too_large(features)


def _drop_empty_rows(features: Features) -> tuple[Features, NDArray[np.bool_] | None]:
    """The rows with a feature, and bool [B] which they are, or None if they all have one."""
    if not isinstance(features, SparseQueries):
        return features, None
    known_B = features.indptr[1:] > features.indptr[:-1]
    if known_B.all():
        return features, None
    # An empty row holds no part of the other arrays, so that they stay as they are.
    indptr = np.concatenate([features.indptr[:1], features.indptr[1:][known_B]])
    kept = SparseQueries(indptr, features.indices, features.values, features.num_features)
    return kept, known_B


def _spread(top: TopK, known_B: NDArray[np.bool_]) -> TopK:
    """Answers of the known rows as answers of all rows."""
    counts = np.zeros(len(known_B), np.int64)
    counts[known_B] = top.counts
    return TopK(top.labels, top.scores, counts)


def _no_hits(num_queries: int) -> TopK:
    return TopK(np.empty(0, np.int64), np.empty(0, np.float32), np.zeros(num_queries, np.int64))
