from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from motherlode.core.bundle import Bundle, read_bundle, write_bundle
from motherlode.core.encoders import BagEncoder, BagEncoderConfig, DenseEncoderConfig, new_encoder
from motherlode.core.errors import BundleError, InvalidQueryError
from motherlode.core.features import (
    DenseFeaturesConfig,
    DenseFeaturizer,
    SparseFeaturesConfig,
    SparseFeaturizer,
)
from motherlode.core.index import LabelFilter
from motherlode.core.queries import (
    DenseQueries,
    EmbeddingQueries,
    Queries,
    SparseQueries,
    TextQueries,
)
from motherlode.core.query_path import StageTimes
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from tests.support.bundles import publish_tiny, tiny_draft

INDEX_KINDS = ["exact", "ivf_flat", "hnsw"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    for kind in INDEX_KINDS:
        write_bundle(tiny_draft(index_kind=kind), folder / kind)
    return {kind: read_bundle(folder / kind) for kind in INDEX_KINDS}


@pytest.fixture
def bundle(bundles: dict[str, Bundle]) -> Bundle:
    return bundles["exact"]


@pytest.fixture
def retriever(bundle: Bundle) -> Retriever:
    return Retriever(bundle, model="tiny", version=1)


@pytest.fixture(params=INDEX_KINDS)
def any_retriever(bundles: dict[str, Bundle], request: pytest.FixtureRequest) -> Retriever:
    return Retriever(bundles[request.param], model="tiny", version=1)


def assert_same_bits(actual: TopK, expected: TopK) -> None:
    np.testing.assert_array_equal(actual.counts, expected.counts)
    np.testing.assert_array_equal(actual.labels, expected.labels)
    np.testing.assert_array_equal(actual.scores, expected.scores)


def test_the_planted_label_comes_first(any_retriever: Retriever) -> None:
    top = any_retriever.top_k(TextQueries(["topic7 filler", "more topic31"]), 3)
    assert [top.row(0)[0][0], top.row(1)[0][0]] == [7, 31]
    assert top.counts.tolist() == [3, 3]
    assert top.scores[0] == pytest.approx(1.0, rel=1e-6)
    assert any_retriever.labels.texts_of(top.labels[:1]) == ["topic7"]


def test_texts_sparse_features_and_embeddings_get_the_same_hits(
    bundle: Bundle, any_retriever: Retriever
) -> None:
    texts = TextQueries(["topic7 filler", "topic1 topic2", "more topic31"])
    features = bundle.featurizer.transform(texts)
    assert isinstance(features, SparseQueries)
    expected = any_retriever.top_k(texts, 5)
    assert_same_bits(any_retriever.top_k(features, 5), expected)
    embeddings_BD = any_retriever.encode(texts)
    assert embeddings_BD.dtype == np.float32
    assert any_retriever.encode(EmbeddingQueries(embeddings_BD)) is embeddings_BD
    assert_same_bits(any_retriever.top_k(EmbeddingQueries(embeddings_BD), 5), expected)


def test_the_exact_form_scans_the_same_embeddings(any_retriever: Retriever) -> None:
    queries = TextQueries(["topic7 topic9", "topic3 topic4 filler"])
    only = LabelFilter(np.arange(0, 50, 2), "allow")
    embeddings_BD = any_retriever.encode(queries)
    labels_LD = any_retriever.path.index.labels.labels_LD
    scores_BL = embeddings_BD @ labels_LD.T
    scores_BL[:, 1::2] = -np.inf
    exact = any_retriever.path.exact()
    assert exact.index.labels.labels_LD is labels_LD
    top = exact.top_k(queries, 5, filter=only)
    assert top.labels.reshape(2, 5).tolist() == np.argsort(-scores_BL)[:, :5].tolist()


def test_an_answer_does_not_depend_on_batch_mates(any_retriever: Retriever) -> None:
    texts = [f"topic{i} topic{(i * 7) % 50} other" for i in range(37)]
    together = any_retriever.top_k(TextQueries(texts), 4)
    for i, text in enumerate(texts):
        assert_same_bits(any_retriever.top_k(TextQueries([text]), 4), together.rows(i, i + 1))


def test_a_query_without_known_feature_has_no_hits_and_harms_nobody(
    any_retriever: Retriever,
) -> None:
    mixed = any_retriever.top_k(TextQueries(["", "topic7", "unheard-of", "topic8", "?!"]), 3)
    assert mixed.counts.tolist() == [0, 3, 0, 3, 0]
    known = any_retriever.top_k(TextQueries(["topic7", "topic8"]), 3)
    np.testing.assert_array_equal(mixed.labels, known.labels)
    np.testing.assert_array_equal(mixed.scores, known.scores)


def test_a_batch_of_unknown_queries_has_no_hits(any_retriever: Retriever) -> None:
    top = any_retriever.top_k(TextQueries(["", "unheard"]), 3)
    assert top.counts.tolist() == [0, 0]
    assert len(top.labels) == len(top.scores) == 0


@pytest.mark.parametrize(
    "queries", [TextQueries([]), EmbeddingQueries(np.empty((0, 16), np.float32))]
)
def test_an_empty_batch_gets_an_empty_answer(any_retriever: Retriever, queries: Queries) -> None:
    assert len(any_retriever.top_k(queries, 3)) == 0


def test_more_hits_than_labels_gives_all_labels_in_order(any_retriever: Retriever) -> None:
    labels, scores = any_retriever.top_k(TextQueries(["topic7"]), 1000).row(0)
    assert sorted(labels.tolist()) == list(range(50))
    assert (np.diff(scores) <= 0).all()


def test_a_filter_allows_or_denies(any_retriever: Retriever) -> None:
    queries = TextQueries(["topic7", "topic8"])
    denied = any_retriever.top_k(queries, 2, filter=LabelFilter(np.array([7]), "deny"))
    assert 7 not in denied.labels
    assert denied.row(1)[0][0] == 8
    allowed = any_retriever.top_k(queries, 5, filter=LabelFilter(np.array([3, 7]), "allow"))
    assert allowed.counts.tolist() == [2, 2]
    assert allowed.row(0)[0].tolist() == [7, 3]


def test_stage_times_add_up_over_calls(retriever: Retriever) -> None:
    times = StageTimes()
    retriever.top_k(TextQueries(["topic7"]), 2, times=times)
    first = replace(times)
    retriever.top_k(TextQueries(["topic7", ""]), 2, times=times)
    assert times.features_s > first.features_s > 0
    assert times.encode_s > first.encode_s > 0
    assert times.search_s > first.search_s > 0
    assert times.rank_s == 0


def test_embeddings_cost_no_time_in_features_or_encoder(retriever: Retriever) -> None:
    times = StageTimes()
    retriever.top_k(EmbeddingQueries(np.ones((1, 16), np.float32)), 2, times=times)
    assert times.features_s == times.encode_s == 0
    assert times.search_s > 0


def test_a_retriever_says_what_it_is(bundle: Bundle, retriever: Retriever) -> None:
    assert (retriever.model, retriever.version) == ("tiny", 1)
    assert retriever.digest == bundle.manifest.digest
    assert retriever.query_kinds == ("text", "sparse", "embeddings")
    assert retriever.num_features == bundle.featurizer.num_features
    assert retriever.width == 16


def test_a_version_loads_by_number_alias_or_none(tmp_path: Path) -> None:
    for seed in range(2):
        publish_tiny(tmp_path, seed=seed)
    repository = Repository(tmp_path)
    repository.set_alias("tiny", "stable", 1)
    assert Retriever.load(repository, "tiny").version == 2
    assert Retriever.load(repository, "tiny", "stable").version == 1
    assert Retriever.load(repository, "tiny", 1).digest != Retriever.load(repository, "tiny").digest


def test_loading_hashes_unless_told_not_to(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    repository = Repository(tmp_path)
    report = repository.path_of("tiny", 1) / "report.html"
    report.write_text(report.read_text().replace("tiny", "TINY"))
    with pytest.raises(BundleError, match=r"report\.html: SHA-256"):
        Retriever.load(repository, "tiny")
    assert Retriever.load(repository, "tiny", verify=False).version == 1


def test_other_weights_fail_the_golden_queries(bundle: Bundle) -> None:
    table_FD = bundle.encoder.table_FD.clone()
    table_FD[:, 0] += 1e-2
    encoder = BagEncoder(BagEncoderConfig(width=16), table_FD, bundle.encoder.head)
    changed = Retriever(replace(bundle, encoder=encoder), model="tiny", version=1)
    with pytest.raises(BundleError, match=r"encoder\.safetensors: does not give the embeddings"):
        changed.check_golden()


def test_another_index_fails_the_golden_queries(bundle: Bundle) -> None:
    changed = Retriever(replace(bundle, index=tiny_draft(1).index), model="tiny", version=1)
    with pytest.raises(BundleError, match=r"index\.faiss: does not give the hits"):
        changed.check_golden()


def sparse(**changes: Any) -> SparseQueries:
    arrays: dict[str, Any] = {
        "indptr": np.array([0, 2, 2, 3]),
        "indices": np.array([1, 4, 0]),
        "values": np.ones(3, np.float32),
        "num_features": 53,
    }
    return SparseQueries(**(arrays | changes))


def embeddings(shape: tuple[int, ...] = (2, 16), *, dtype: type = np.float32) -> EmbeddingQueries:
    return EmbeddingQueries(np.ones(shape, dtype))


def with_nan() -> EmbeddingQueries:
    queries = embeddings()
    queries.embeddings_BD[1, 3] = np.nan
    return queries


@pytest.mark.parametrize(
    "queries",
    [
        TextQueries(["topic1", ""]),
        TextQueries(["x" * 1_000_000]),
        sparse(),
        sparse(indptr=np.array([0, 0, 3, 3]), indices=np.array([0, 1, 52])),
        SparseQueries(np.zeros(3, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), 53),
        embeddings(),
    ],
)
def test_good_queries_pass(retriever: Retriever, queries: Queries) -> None:
    retriever.validate(queries, 50)


BAD_QUERIES: list[tuple[Queries, str]] = [
    (DenseQueries(np.ones((1, 53), np.float32)), "queries: expected one of text, sparse, embed"),
    (TextQueries([]), "queries: expected at least 1 query, got 0"),
    (TextQueries(["a", 7]), r"queries.text.texts\[1\]: expected a text, got 'int'"),  # type: ignore[list-item]
    (embeddings((2, 15)), r"queries.embeddings.shape: expected \[queries, 16\], got \[2, 15\]"),
    (embeddings((16,)), r"queries.embeddings.shape: expected \[queries, 16\], got \[16\]"),
    (embeddings((0, 16)), "queries: expected at least 1 query"),
    (embeddings(dtype=np.float64), "queries.embeddings.dtype: expected float32, got float64"),
    (with_nan(), r"queries.embeddings\[1, 3\]: expected a finite number, got nan"),
    (sparse(num_features=52), "queries.sparse.num_features: expected 53, got 52"),
    (sparse(indptr=np.array([])), "queries.sparse.indptr.dtype: expected int64"),
    (sparse(indptr=np.array([], np.int64)), "queries.sparse.indptr: expected 0 first"),
    (sparse(indptr=np.array([1, 3])), "queries.sparse.indptr: expected 0 first, got 1"),
    (sparse(indptr=np.array([0, 2, 1, 3])), r"queries.sparse.indptr\[2\]: expected at least 2"),
    (sparse(indptr=np.array([0, 2, 4])), "queries.sparse.indptr: expected 3 last"),
    (sparse(indices=np.array([1, 53, 0])), r"sparse.indices\[1\]: expected 0 to 52, got 53"),
    (sparse(indices=np.array([-1, 4, 0])), r"sparse.indices\[0\]: expected 0 to 52, got -1"),
    (sparse(indices=np.array([4, 1, 0])), r"sparse.indices\[1\]: expected more than 4, ascending"),
    (sparse(indices=np.array([4, 4, 0])), r"sparse.indices\[1\]: expected more than 4, ascending"),
    (sparse(indices=np.array([1, 4, 0], np.int32)), "sparse.indices.dtype: expected int64"),
    (sparse(indices=np.ones((3, 1), np.int64)), "sparse.indices.shape: expected one axis"),
    (sparse(values=np.ones(2, np.float32)), r"sparse.values.shape: expected \[3\], got \[2\]"),
    (sparse(values=np.ones(3)), "sparse.values.dtype: expected float32"),
    (sparse(values=np.array([1, np.inf, 1], np.float32)), r"sparse.values\[1\]: .*finite.*inf"),
]


@pytest.mark.parametrize(("queries", "message"), BAD_QUERIES)
def test_bad_queries_are_refused_with_the_field(
    retriever: Retriever, queries: Queries, message: str
) -> None:
    with pytest.raises(InvalidQueryError, match=message):
        retriever.validate(queries, 1)


@pytest.mark.parametrize("k", [0, -1, 51])
def test_a_wrong_k_is_refused(retriever: Retriever, k: int) -> None:
    with pytest.raises(InvalidQueryError, match=f"k: expected 1 to 50, got {k}"):
        retriever.validate(TextQueries(["topic1"]), k)


def test_a_filter_of_unknown_rows_is_refused(retriever: Retriever) -> None:
    queries = TextQueries(["topic1"])
    retriever.validate(queries, 1, LabelFilter(np.array([0, 49]), "allow"))
    with pytest.raises(InvalidQueryError, match="filter: expected labels from 0 to 49"):
        retriever.validate(queries, 1, LabelFilter(np.array([0, 50]), "allow"))


def test_a_sparse_model_takes_sparse_features_and_embeddings(bundle: Bundle) -> None:
    featurizer = SparseFeaturizer(SparseFeaturesConfig(), bundle.encoder.num_features)
    retriever = Retriever(replace(bundle, featurizer=featurizer), model="tiny", version=1)
    assert retriever.query_kinds == ("sparse", "embeddings")
    retriever.validate(sparse(), 3)
    assert retriever.top_k(sparse(), 3).counts.tolist() == [3, 0, 3]
    with pytest.raises(InvalidQueryError, match="queries: expected one of sparse, embeddings"):
        retriever.validate(TextQueries(["topic1"]), 3)


@pytest.fixture
def dense_retriever(bundle: Bundle) -> Retriever:
    table_FD = torch.eye(6, 16)
    config = DenseEncoderConfig(width=16)
    encoder = new_encoder(config, table_FD, torch.Generator().manual_seed(0))
    featurizer = DenseFeaturizer(DenseFeaturesConfig(), 6)
    changed = replace(bundle, featurizer=featurizer, encoder=encoder)
    return Retriever(changed, model="tiny", version=1)


def test_a_dense_model_takes_dense_features_and_embeddings(dense_retriever: Retriever) -> None:
    assert dense_retriever.query_kinds == ("features", "embeddings")
    queries = DenseQueries(np.eye(3, 6, dtype=np.float32))
    dense_retriever.validate(queries, 3)
    assert dense_retriever.top_k(queries, 3).counts.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: np.ones((1, 7), np.float32), r"queries.features.shape: expected \[queries, 6\]"),
        (lambda: np.ones((1, 6), np.float16), "queries.features.dtype: expected float32"),
        (lambda: np.full((1, 6), -np.inf, np.float32), r"queries.features\[0, 0\].*finite"),
    ],
)
def test_bad_dense_features_are_refused_with_the_field(
    dense_retriever: Retriever, make: Callable[[], Any], message: str
) -> None:
    with pytest.raises(InvalidQueryError, match=message):
        dense_retriever.validate(DenseQueries(make()), 1)


@pytest.mark.parametrize("normalize", [True, False])
def test_features_whose_embedding_overflows_are_refused_by_their_own_name(
    tmp_path: Path, normalize: bool
) -> None:
    write_bundle(tiny_draft(normalize=normalize), tmp_path / "bundle")
    retriever = Retriever(read_bundle(tmp_path / "bundle"), model="tiny", version=1)
    values, indptr = np.full(2, 3e38, np.float32), np.array([0, 2])
    queries = SparseQueries(indptr, np.array([3, 4]), values, retriever.num_features)
    retriever.validate(queries, 3)
    with pytest.raises(InvalidQueryError, match="values small enough for scores") as caught:
        retriever.top_k(queries, 3)
    assert caught.value.field == "queries.sparse.values"


def test_dense_features_whose_embedding_overflows_are_refused_by_their_own_name(
    dense_retriever: Retriever,
) -> None:
    queries = DenseQueries(np.full((1, dense_retriever.num_features), 3e38, np.float32))
    with pytest.raises(InvalidQueryError) as caught:
        dense_retriever.top_k(queries, 3)
    assert caught.value.field == "queries.features"
