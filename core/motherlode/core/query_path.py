"""The stages of a query in their order: features, encoder, index, ranker.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import final

import numpy as np

from motherlode.core.encoders import QueryEncoder
from motherlode.core.errors import InvalidQueryError
from motherlode.core.features import Featurizer
from motherlode.core.golden import Golden
from motherlode.core.index import ExactIndex, LabelFilter, LabelIndex
from motherlode.core.queries import (
    ArrayQueries,
    EmbeddingQueries,
    Features,
    FloatArray,
    Queries,
)
from motherlode.core.query_checks import features_too_large, kind_of
from motherlode.core.query_rows import (
    StillWanted,
    among,
    drop_empty_rows,
    no_hits,
    rows_of,
    spread,
)
from motherlode.core.rankers import Ranker
from motherlode.core.topk import TopK

# Of a candidate while a batch is searched: row and score where they are found, where they are
# scored again, and where they are put in order.
_CANDIDATE_BYTES = 64


@final
@dataclass(slots=True)
class StageTimes:
    """Seconds spent in each stage; `top_k` adds to them."""

    features_s: float = 0.0
    encode_s: float = 0.0
    search_s: float = 0.0
    rank_s: float = 0.0

    def add(self, others: StageTimes) -> None:
        """Adds those of another batch."""
        self.features_s += others.features_s
        self.encode_s += others.encode_s
        self.search_s += others.search_s
        self.rank_s += others.rank_s


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
        return self._encode(drop_empty_rows(self.featurizer.transform(queries))[0])

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
        still_wanted: StillWanted | None = None,
    ) -> TopK:
        """See `Retriever.top_k`.

        Raises:
            InvalidQueryError: For embeddings where there is a ranker; else as `LabelIndex.search`.
        """
        times = StageTimes() if times is None else times
        self.check_can_rank(queries)
        if isinstance(queries, EmbeddingQueries):
            embeddings_BD = queries.embeddings_BD
            return self._find_wanted(queries, embeddings_BD, k, filter, times, still_wanted)
        started = perf_counter()
        features = self.featurizer.transform(queries)
        features, known_B = drop_empty_rows(features)
        times.features_s += perf_counter() - started
        if known_B is None:
            return self._find(features, k, filter, times, still_wanted)
        if not len(features):
            return no_hits(len(known_B))
        among_known = None if still_wanted is None else among(known_B, still_wanted)
        return spread(self._find(features, k, filter, times, among_known), known_B)

    def bytes_per_query(self, k: int) -> int:
        """See `Retriever.bytes_per_query`."""
        return _CANDIDATE_BYTES * self.index.num_candidates(self.num_hits(k))

    def exact(self) -> QueryPath:
        """The same stages over the same arrays, with an index that misses no label."""
        return replace(self, index=ExactIndex.beside(self.index))

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
        self,
        features: Features,
        k: int,
        wanted: LabelFilter | None,
        times: StageTimes,
        still_wanted: StillWanted | None,
    ) -> TopK:
        started = perf_counter()
        embeddings_BD = self._encode(features)
        times.encode_s += perf_counter() - started
        return self._find_wanted(features, embeddings_BD, k, wanted, times, still_wanted)

    def _find_wanted(
        self,
        queries: ArrayQueries,
        embeddings_BD: FloatArray,
        k: int,
        wanted: LabelFilter | None,
        times: StageTimes,
        still_wanted: StillWanted | None,
    ) -> TopK:
        kept_B = None if still_wanted is None else still_wanted()
        if kept_B is None:
            return self._search_and_rank(queries, embeddings_BD, k, wanted, times)
        if not kept_B.any():
            return no_hits(len(kept_B))
        kept = rows_of(queries, kept_B)
        return spread(self._search_and_rank(kept, embeddings_BD[kept_B], k, wanted, times), kept_B)

    def _search_and_rank(
        self,
        queries: ArrayQueries,
        embeddings_BD: FloatArray,
        k: int,
        wanted: LabelFilter | None,
        times: StageTimes,
    ) -> TopK:
        try:
            top = self._search(embeddings_BD, self.num_hits(k), wanted, times)
        except InvalidQueryError as error:
            if isinstance(queries, EmbeddingQueries):
                raise
            raise _as_of_features(error, queries) from error
        if self.ranker is None or isinstance(queries, EmbeddingQueries):
            return top
        started = perf_counter()
        ranked = self.ranker.rank(top, queries, embeddings_BD, k)
        times.rank_s += perf_counter() - started
        return ranked

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


def _as_of_features(error: InvalidQueryError, features: Features) -> InvalidQueryError:
    """What an index says of embeddings, said of the features that they were made of."""
    if not error.field.startswith("queries.embeddings"):
        return error
    return features_too_large(features)
