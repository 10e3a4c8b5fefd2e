"""What every ranker promises, run for every ranker."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.errors import BundleError, InvalidInputError, InvalidQueryError
from motherlode.core.queries import SparseQueries
from motherlode.core.rankers import RANKERS, Ranker, load_ranker
from motherlode.core.topk import TopK
from tests.support.rankers import RANKER_KINDS, WIDTH, random_ranker, random_sparse

NUM_FEATURES, NUM_LABELS = 12, 30
COUNTS = [3, 5, 0, 30, 1, 17]
QUERIES = random_sparse(len(COUNTS), NUM_FEATURES)
EMBEDDINGS = np.random.default_rng(4).standard_normal((len(COUNTS), WIDTH)).astype(np.float32)


@pytest.fixture(params=RANKER_KINDS)
def ranker(request: pytest.FixtureRequest) -> Ranker:
    return random_ranker(request.param, NUM_FEATURES, NUM_LABELS, shortlist=8)


def shortlist() -> TopK:
    generator = np.random.default_rng(2)
    labels = [generator.permutation(NUM_LABELS)[:count] for count in COUNTS]
    scores = [np.sort(generator.random(count))[::-1] for count in COUNTS]
    return TopK(np.concatenate(labels), np.concatenate(scores).astype(np.float32), np.array(COUNTS))


def test_all_kinds_are_run_here() -> None:
    assert set(RANKER_KINDS) == set(RANKERS)


def test_hits_are_those_of_the_shortlist_best_first_and_finite(ranker: Ranker) -> None:
    ranked = ranker.rank(shortlist(), QUERIES, EMBEDDINGS, NUM_LABELS)
    assert ranked.counts.tolist() == COUNTS
    assert ranked.scores.dtype == np.float32
    for row in range(len(COUNTS)):
        labels, scores = ranked.row(row)
        assert sorted(labels) == sorted(shortlist().row(row)[0])
        assert np.isfinite(scores).all()
        assert (np.diff(scores) <= 0).all()


def test_it_changes_the_order(ranker: Ranker) -> None:
    ranked = ranker.rank(shortlist(), QUERIES, EMBEDDINGS, NUM_LABELS)
    assert ranked.labels.tolist() != shortlist().labels.tolist()


def test_fewer_hits_are_the_first_of_more(ranker: Ranker) -> None:
    whole, cut = (ranker.rank(shortlist(), QUERIES, EMBEDDINGS, k) for k in (NUM_LABELS, 4))
    assert cut.counts.tolist() == [min(count, 4) for count in COUNTS]
    for row in range(len(COUNTS)):
        np.testing.assert_array_equal(cut.row(row)[0], whole.row(row)[0][:4])


def test_the_order_of_the_shortlist_does_not_matter(ranker: Ranker) -> None:
    top = shortlist()
    offsets = top.offsets
    reverse = np.concatenate(
        [np.arange(offsets[i], offsets[i + 1])[::-1] for i in range(len(COUNTS))]
    )
    other = TopK(top.labels[reverse], top.scores[reverse], top.counts)
    expected, actual = (ranker.rank(t, QUERIES, EMBEDDINGS, 9) for t in (top, other))
    np.testing.assert_array_equal(actual.labels, expected.labels)
    np.testing.assert_array_equal(actual.scores, expected.scores)


def test_the_answer_of_a_query_does_not_depend_on_its_batch_mates(ranker: Ranker) -> None:
    top = shortlist()
    together = ranker.rank(top, QUERIES, EMBEDDINGS, 10)
    for row in range(len(COUNTS)):
        alone = ranker.rank(
            top.rows(row, row + 1), QUERIES.rows(row, row + 1), EMBEDDINGS[row : row + 1], 10
        )
        np.testing.assert_array_equal(alone.labels, together.row(row)[0])
        np.testing.assert_array_equal(alone.scores, together.row(row)[1])


def test_threads_get_the_same_answers(ranker: Ranker) -> None:
    expected = ranker.rank(shortlist(), QUERIES, EMBEDDINGS, 10).scores.tobytes()
    with ThreadPoolExecutor(4) as pool:
        tops = pool.map(lambda _: ranker.rank(shortlist(), QUERIES, EMBEDDINGS, 10), range(40))
        assert {top.scores.tobytes() for top in tops} == {expected}


def test_no_hits_stay_no_hits(ranker: Ranker) -> None:
    nothing = np.zeros(len(COUNTS), np.int64)
    top = TopK(np.zeros(0, np.int64), np.zeros(0, np.float32), nothing)
    assert ranker.rank(top, QUERIES, EMBEDDINGS, 5).counts.tolist() == nothing.tolist()
    none = TopK(top.labels, top.scores, nothing[:0])
    assert len(ranker.rank(none, QUERIES.rows(0, 0), EMBEDDINGS[0:0], 5)) == 0


@pytest.mark.parametrize("label", [NUM_LABELS, -1])
def test_a_hit_that_it_does_not_know_is_refused(ranker: Ranker, label: int) -> None:
    top = TopK(np.array([2, label]), np.ones(2, np.float32), np.array([2]))
    with pytest.raises(
        InvalidInputError, match=r"labels\[1\]: expected 0 to 29.*got " + str(label)
    ):
        ranker.rank(top, QUERIES.rows(0, 1), EMBEDDINGS[0:1], 1)


def test_queries_of_other_answers_are_refused(ranker: Ranker) -> None:
    with pytest.raises(InvalidInputError, match=r"features: expected 6 queries.*got 2"):
        ranker.rank(shortlist(), QUERIES.rows(0, 2), EMBEDDINGS[0:2], 1)


def test_features_of_another_width_are_refused(ranker: Ranker) -> None:
    with pytest.raises(InvalidInputError, match="12"):
        ranker.rank(shortlist(), random_sparse(len(COUNTS), 9), EMBEDDINGS, 1)


def test_a_query_so_large_that_scores_overflow_is_refused_and_harms_no_later_one(
    ranker: Ranker,
) -> None:
    expected = ranker.rank(shortlist(), QUERIES, EMBEDDINGS, 5)
    values = np.full(len(QUERIES.values), 3e38, np.float32)
    huge = SparseQueries(QUERIES.indptr, QUERIES.indices, values, NUM_FEATURES)
    with pytest.raises(InvalidQueryError, match="queries"):
        ranker.rank(shortlist(), huge, EMBEDDINGS, 5)
    again = ranker.rank(shortlist(), QUERIES, EMBEDDINGS, 5)
    np.testing.assert_array_equal(again.scores, expected.scores)


@pytest.mark.parametrize(("k", "expected"), [(1, 8), (8, 8), (9, 9), (30, 30), (40, 30)])
def test_the_index_is_asked_for_the_shortlist_or_more_but_not_for_more_than_there_is(
    ranker: Ranker, k: int, expected: int
) -> None:
    assert ranker.shortlist_for(k) == expected


def test_it_says_what_it_is(ranker: Ranker) -> None:
    assert (ranker.num_features, ranker.num_labels) == (NUM_FEATURES, NUM_LABELS)
    assert ranker.config.model_dump()["kind"] == ranker.kind
    assert ranker.score_meaning
    assert ranker.predicted_bytes > 4 * NUM_LABELS


def test_a_saved_one_gives_the_same_bits(ranker: Ranker, tmp_path: Path) -> None:
    ranker.save(tmp_path)
    loaded = load_ranker(ranker.kind, tmp_path)
    assert loaded.config == ranker.config
    expected, actual = (r.rank(shortlist(), QUERIES, EMBEDDINGS, 9) for r in (ranker, loaded))
    np.testing.assert_array_equal(actual.labels, expected.labels)
    np.testing.assert_array_equal(actual.scores, expected.scores)


def test_a_missing_cut_or_changed_file_is_refused_by_name(ranker: Ranker, tmp_path: Path) -> None:
    ranker.save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], b"", content[:3]):
            path.write_bytes(damaged)
            with pytest.raises(BundleError, match=path.name.replace(".", r"\.")):
                load_ranker(ranker.kind, tmp_path)
        path.unlink()
        with pytest.raises(BundleError, match=path.name.replace(".", r"\.")):
            load_ranker(ranker.kind, tmp_path)
        path.write_bytes(content)
    document = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(document | {"num_labels": 31}))
    with pytest.raises(BundleError, match="30 labels, expected 31"):
        load_ranker(ranker.kind, tmp_path)
