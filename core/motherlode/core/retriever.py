"""From queries to hits: the only query path, offline and online.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

from typing import Literal, final

from motherlode.core.bundle import Bundle, read_bundle
from motherlode.core.errors import BundleError, InvalidQueryError
from motherlode.core.index import LabelFilter
from motherlode.core.index.placement import Policy
from motherlode.core.manifest import ENCODER_FILE, GOLDEN_FILE, INDEX_FILE, RANKER_FOLDER
from motherlode.core.placing import place_bundle
from motherlode.core.queries import (
    FloatArray,
    IntArray,
    Queries,
)
from motherlode.core.query_checks import check_queries
from motherlode.core.query_path import QueryPath, StageTimes
from motherlode.core.query_rows import StillWanted
from motherlode.core.repository import Repository
from motherlode.core.topk import TopK

_QUERY_KINDS = {
    "text": ("text", "sparse", "embeddings"),
    "sparse": ("sparse", "embeddings"),
    "dense": ("features", "embeddings"),
}


@final
class Retriever:
    """One version of a model, ready for queries; may be used by several threads at once.

    Attributes:
        model: Name of the model.
        version: Number of the version.
        digest: Digest of the bundle; the same digest gives the same answers.
        bundle: The parts that it is made of.
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
        self.bundle = bundle

    @classmethod
    def load(
        cls,
        repository: Repository,
        model: str,
        version: int | str | None = None,
        *,
        verify: bool = True,
        gpu: Literal["auto", "never", "require"] = "auto",
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
        still_wanted: StillWanted | None = None,
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
            still_wanted: Asked once, right before the search; queries that nobody waits for any
                more have no hits.
        """
        return self.path.top_k(queries, k, filter=filter, times=times, still_wanted=still_wanted)

    def bytes_per_query(self, k: int) -> int:
        """Memory that one query of a batch takes while k labels are found: an estimate from above.

        It is for cutting batches to size; what does not grow with the batch is not counted.
        """
        return self.path.bytes_per_query(k)

    def encode(self, queries: Queries) -> FloatArray:
        """Embeddings of the queries: float32 [B, D]."""
        return self.path.encode(queries)

    def check_golden(self) -> None:
        """Asks the golden queries again.

        Raises:
            BundleError: If an embedding, a score or a label is not what it was when published.
        """
        golden = self.bundle.golden
        difference = golden.embedding_difference(self.encode(golden.queries))
        if difference is not None:
            reason = f"does not give the embeddings in {GOLDEN_FILE}: {difference}"
            raise BundleError(self.bundle.path / ENCODER_FILE, reason)
        difference = golden.hit_difference(
            self.top_k(golden.queries, golden.k), may_miss=self.bundle.index.may_miss
        )
        if difference is not None:
            reason = f"does not give the hits in {GOLDEN_FILE}: {difference}"
            # A label tree of other data is as likely as an index of other labels.
            part = INDEX_FILE if self.path.ranker is None else RANKER_FOLDER
            raise BundleError(self.bundle.path / part, reason)

    def _check_rows(self, rows: IntArray) -> None:
        if len(rows) and (rows[0] < 0 or rows[-1] >= len(self.labels)):
            expected = f"labels from 0 to {len(self.labels) - 1}"
            raise InvalidQueryError("filter", expected=expected, actual=[rows[0], rows[-1]])
