"""What every Featurizer promises."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.errors import InvalidQueryError
from motherlode.core.features import (
    DenseFeaturesConfig,
    DenseFeaturizer,
    Featurizer,
    SparseFeaturesConfig,
    SparseFeaturizer,
    TextFeaturesConfig,
    TextFeaturizer,
    load_featurizer,
)
from motherlode.core.queries import (
    DenseQueries,
    EmbeddingQueries,
    Features,
    Queries,
    SparseQueries,
    TextQueries,
)

NUM_QUERIES = 60


@dataclass(frozen=True)
class Case:
    featurizer: Featurizer
    queries: Queries


def _texts() -> Queries:
    generator = np.random.default_rng(3)
    letters = np.array(list("abcdeé東京 "))
    texts = ["".join(generator.choice(letters, n)) for n in generator.integers(0, 40, NUM_QUERIES)]
    return TextQueries(texts)


def _text_case(**settings: object) -> Case:
    config = TextFeaturesConfig.model_validate({"min_count": 1, **settings})
    queries = _texts()
    assert isinstance(queries, TextQueries)
    return Case(TextFeaturizer.fit(queries.texts[::2], config), queries)


def _sparse_case(*, normalize: bool) -> Case:
    generator = np.random.default_rng(4)
    counts = generator.integers(0, 9, NUM_QUERIES)
    indptr = np.concatenate(([0], counts.cumsum()))
    indices = [np.sort(generator.permutation(20)[:n]) for n in counts]
    values = generator.normal(size=indptr[-1]).astype(np.float32)
    featurizer = SparseFeaturizer(SparseFeaturesConfig(normalize=normalize), num_features=20)
    return Case(featurizer, SparseQueries(indptr, np.concatenate(indices), values, 20))


def _dense_case() -> Case:
    features_BF = np.random.default_rng(5).normal(size=(NUM_QUERIES, 7)).astype(np.float32)
    return Case(DenseFeaturizer(DenseFeaturesConfig(), num_features=7), DenseQueries(features_BF))


CASES: dict[str, Callable[[], Case]] = {
    "words": lambda: _text_case(words=(1, 2)),
    "characters": lambda: _text_case(words=None, characters=(2, 4)),
    "words-and-characters": lambda: _text_case(words=(1, 1), characters=(1, 3)),
    "sparse": lambda: _sparse_case(normalize=True),
    "sparse-as-is": lambda: _sparse_case(normalize=False),
    "dense": _dense_case,
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def _bits(features: Features) -> list[bytes]:
    """What each query's features are, to the bit."""
    if isinstance(features, DenseQueries):
        return [row.tobytes() for row in features.features_BF]
    rows = [features.rows(i, i + 1) for i in range(len(features))]
    return [row.indices.tobytes() + row.values.tobytes() for row in rows]


def test_a_query_has_the_same_bits_alone_and_in_any_batch(case: Case) -> None:
    whole = _bits(case.featurizer.transform(case.queries))

    for size in (1, 7, NUM_QUERIES - 1):
        starts = range(0, NUM_QUERIES, size)
        parts = [case.queries.rows(i, min(i + size, NUM_QUERIES)) for i in starts]
        assert [b for part in parts for b in _bits(case.featurizer.transform(part))] == whole


def test_features_have_the_promised_types_widths_and_order(case: Case) -> None:
    features = case.featurizer.transform(case.queries)

    assert len(features) == NUM_QUERIES
    if isinstance(features, DenseQueries):
        assert features.features_BF.dtype == np.float32
        assert features.features_BF.shape[1] == case.featurizer.num_features
        return
    assert features.num_features == case.featurizer.num_features
    assert (features.indptr.dtype, features.indices.dtype) == (np.int64, np.int64)
    assert features.values.dtype == np.float32
    assert features.indptr[0] == 0
    assert features.indptr[-1] == len(features.indices) == len(features.values)
    for i in range(NUM_QUERIES):
        indices = features.rows(i, i + 1).indices
        assert (np.diff(indices) > 0).all()
        assert ((indices >= 0) & (indices < features.num_features)).all()


def test_an_empty_batch_has_no_features(case: Case) -> None:
    assert len(case.featurizer.transform(case.queries.rows(0, 0))) == 0


def test_ready_embeddings_are_refused(case: Case) -> None:
    with pytest.raises(InvalidQueryError, match=r"queries: expected .*, got 'EmbeddingQueries'"):
        case.featurizer.transform(EmbeddingQueries(np.zeros((1, 2), np.float32)))


def test_a_saved_featurizer_comes_back_the_same(case: Case, tmp_path: Path) -> None:
    case.featurizer.save(tmp_path / "features")

    loaded = load_featurizer(tmp_path / "features")

    assert type(loaded) is type(case.featurizer)
    assert loaded.kind == case.featurizer.kind
    assert loaded.config == case.featurizer.config
    assert loaded.num_features == case.featurizer.num_features
    assert _bits(loaded.transform(case.queries)) == _bits(case.featurizer.transform(case.queries))


def test_saving_twice_writes_the_same_bytes(case: Case, tmp_path: Path) -> None:
    case.featurizer.save(tmp_path / "one")
    load_featurizer(tmp_path / "one").save(tmp_path / "two")

    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_several_threads_get_the_answer_of_one(case: Case) -> None:
    expected = _bits(case.featurizer.transform(case.queries))

    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda _: _bits(case.featurizer.transform(case.queries)), range(16))

    assert all(answer == expected for answer in answers)
