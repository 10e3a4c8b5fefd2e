"""What every label index promises, run for every family, on even and on uneven lengths."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motherlode.core.errors import InvalidQueryError
from motherlode.core.index import (
    HnswConfig,
    IndexConfig,
    LabelFilter,
    load_index,
    set_index_threads,
)
from motherlode.core.queries import FloatArray
from tests.support.embeddings import best_by_sorting, clustered
from tests.support.label_indexes import (
    CASES,
    CONFIGS,
    NUM_LABELS,
    NUM_QUERIES,
    WIDTH,
    Case,
    make_case,
    name_of,
    rows_of,
)
from tests.support.learned_index import build_any_index as build_index


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    assert isinstance(request.param, Case)
    return request.param


@pytest.fixture(params=CONFIGS, ids=name_of)
def config(request: pytest.FixtureRequest) -> IndexConfig:
    config: IndexConfig = request.param
    return config


def test_scores_are_inner_products_and_the_best_come_first(case):
    top = case.index.search(case.queries_BD, 7)
    assert top.counts.tolist() == [7] * NUM_QUERIES
    assert (top.labels.dtype, top.scores.dtype, top.counts.dtype) == (
        np.int64,
        np.float32,
        np.int64,
    )
    for i, query_D in enumerate(case.queries_BD.astype(np.float64)):
        labels, scores = top.row(i)
        assert len(set(labels.tolist())) == 7
        assert (np.diff(scores) <= 0).all()
        np.testing.assert_allclose(scores, case.labels_LD[labels] @ query_D, rtol=1e-5, atol=1e-6)


def test_most_of_the_best_labels_are_found(case):
    top = case.index.search(case.queries_BD, 10)
    best, _ = best_by_sorting(case.queries_BD, case.labels_LD, 10)
    found = np.mean([np.isin(best[i], top.row(i)[0]).mean() for i in range(NUM_QUERIES)])
    assert found == 1 if case.index.kind == "exact" else found > 0.5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("k", [1, 10, 40])
def test_an_answer_does_not_depend_on_batch_mates_or_threads(case, k, threads):
    set_index_threads(1)
    alone = [rows_of(case.index.search(query_D[None], k))[0] for query_D in case.queries_BD]
    set_index_threads(threads)
    order = np.random.default_rng(0).permutation(NUM_QUERIES)
    for size in (2, 7, 64):
        for start in range(0, NUM_QUERIES, size):
            mates = order[start : start + size]
            together = rows_of(case.index.search(case.queries_BD[mates], k))
            assert together == [alone[i] for i in mates]


@pytest.mark.parametrize("k", [NUM_LABELS, NUM_LABELS + 1, 10**9])
def test_asking_for_all_labels_or_more_gives_each_once_in_exact_order(case, k):
    top = case.index.search(case.queries_BD[:5], k)
    best, scores = best_by_sorting(case.queries_BD[:5], case.labels_LD, NUM_LABELS)
    assert top.labels.reshape(5, -1).tolist() == best.tolist()
    assert top.scores.tobytes() == scores.tobytes()


def test_one_hit_less_than_all_labels_is_all_but_one(case):
    top = case.index.search(case.queries_BD[:3], NUM_LABELS - 1)
    best, _ = best_by_sorting(case.queries_BD[:3], case.labels_LD, NUM_LABELS - 1)
    assert top.labels.reshape(3, -1).tolist() == best.tolist()


def test_no_queries_have_no_answers(case):
    top = case.index.search(np.empty((0, WIDTH), np.float32), 3)
    assert (len(top), len(top.labels), len(top.scores)) == (0, 0, 0)


def test_a_query_of_zeros_gets_the_first_labels(case):
    queries_BD = case.queries_BD[:4].copy()
    queries_BD[[0, 2]] = 0
    top = case.index.search(queries_BD, 5)
    assert top.row(0)[0].tolist() == top.row(2)[0].tolist() == [0, 1, 2, 3, 4]
    assert top.row(0)[1].tolist() == [0] * 5
    denied = LabelFilter(np.array([1, 3, 700]), "deny")
    assert case.index.search(queries_BD, 3, filter=denied).row(2)[0].tolist() == [0, 2, 4]


def test_ties_stand_in_order_of_label(config):
    labels_LD, queries_BD = clustered(60, 8)
    repeated_LD = np.concatenate([labels_LD[::-1], labels_LD, labels_LD[::-1]] * 5)
    index = build_index(config, repeated_LD, seed=0)
    top = index.search(queries_BD[:10], 33)
    for i in range(10):
        labels, scores = top.row(i)
        order = np.lexsort((labels, -scores))
        assert order.tolist() == list(range(33))


@pytest.mark.parametrize("mode", ["allow", "deny"])
@pytest.mark.parametrize("num_rows", [0, 1, 3, 50, 450, 850, NUM_LABELS])
def test_only_allowed_labels_are_found_and_as_many_as_there_are(case, num_rows, mode):
    generator = np.random.default_rng(num_rows)
    rows = np.sort(generator.choice(NUM_LABELS, num_rows, replace=False))
    label_filter = LabelFilter(rows, mode)
    allowed = label_filter.allowed_rows(NUM_LABELS)
    for queries_BD in (case.queries_BD[:1], case.queries_BD):
        top = case.index.search(queries_BD, 6, filter=label_filter)
        assert top.counts.tolist() == [min(6, len(allowed))] * len(queries_BD)
        assert np.isin(top.labels, allowed).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_best_of_few_allowed_labels_are_found_exactly(data):
    case = CASES[data.draw(st.sampled_from(sorted(CASES)))]
    rows = data.draw(st.sets(st.integers(0, NUM_LABELS - 1), min_size=1, max_size=60))
    k, num_queries = data.draw(st.integers(1, 70)), data.draw(st.sampled_from([1, 2, 3, 9]))
    allowed = np.array(sorted(rows))
    queries_BD = case.queries_BD[:num_queries]
    top = case.index.search(queries_BD, k, filter=LabelFilter(allowed, "allow"))
    best, scores = best_by_sorting(queries_BD, case.labels_LD, k, allowed)
    assert top.labels.tolist() == best.ravel().tolist()
    assert top.scores.tobytes() == scores.tobytes()


def exhaustive(config: IndexConfig) -> IndexConfig:
    """The family with settings that leave nothing out."""
    if isinstance(config, HnswConfig):
        return config.model_copy(update={"ef_search": NUM_LABELS})
    most = {"nprobe": 25, "refine": NUM_LABELS, "beam": 25, "shortlist": NUM_LABELS}
    fields = type(config).model_fields
    return config.model_copy(update={name: most[name] for name in most if name in fields})


EXHAUSTIVE = {
    f"{name_of(config)}-{spread}": make_case(exhaustive(config), spread)
    for config in CONFIGS
    for spread in (0.0, 0.6)
}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_denied_label_is_found_and_with_nothing_left_out_the_best_allowed_are(data):
    name = data.draw(st.sampled_from(sorted(EXHAUSTIVE)))
    share, seed = data.draw(st.floats(0, 1)), data.draw(st.integers(0, 99))
    k, num_queries = data.draw(st.integers(1, 40)), data.draw(st.sampled_from([1, 3, 9]))
    rows = np.flatnonzero(np.random.default_rng(seed).random(NUM_LABELS) < share)
    label_filter = LabelFilter(rows, data.draw(st.sampled_from(["allow", "deny"])))
    allowed = label_filter.allowed_rows(NUM_LABELS)
    case = EXHAUSTIVE[name]
    queries_BD = case.queries_BD[:num_queries]
    top = case.index.search(queries_BD, k, filter=label_filter)
    best, scores = best_by_sorting(queries_BD, case.labels_LD, k, allowed)
    assert top.labels.tolist() == best.ravel().tolist()
    assert top.scores.tobytes() == scores.tobytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_denied_label_is_found_whatever_the_settings(data):
    case = CASES[data.draw(st.sampled_from(sorted(CASES)))]
    share, seed = data.draw(st.floats(0, 1)), data.draw(st.integers(0, 99))
    rows = np.flatnonzero(np.random.default_rng(seed).random(NUM_LABELS) < share)
    label_filter = LabelFilter(rows, data.draw(st.sampled_from(["allow", "deny"])))
    allowed = label_filter.allowed_rows(NUM_LABELS)
    k = data.draw(st.integers(1, 40))
    top = case.index.search(case.queries_BD[:9], k, filter=label_filter)
    assert top.counts.tolist() == [min(k, len(allowed))] * 9
    assert np.isin(top.labels, allowed).all()
    assert all(len(set(top.row(i)[0].tolist())) == top.counts[i] for i in range(9))


def test_a_filter_far_from_the_query_still_gives_the_best_allowed_labels(case):
    # The allowed labels are the worst: a walk towards the query moves away from them.
    worst, _ = best_by_sorting(-case.queries_BD[:1], case.labels_LD, 90)
    allowed = np.sort(worst[0])
    top = case.index.search(case.queries_BD[:1], 5, filter=LabelFilter(allowed, "allow"))
    best, _ = best_by_sorting(case.queries_BD[:1], case.labels_LD, 5, allowed)
    assert top.labels.tolist() == best[0].tolist()


def test_a_filter_does_not_tie_an_answer_to_its_batch(case):
    label_filter = LabelFilter(np.arange(0, NUM_LABELS, 9), "deny")
    together = rows_of(case.index.search(case.queries_BD, 4, filter=label_filter))
    for i, query_D in enumerate(case.queries_BD):
        assert rows_of(case.index.search(query_D[None], 4, filter=label_filter)) == [together[i]]


def with_value(value: float) -> FloatArray:
    queries_BD = np.ones((3, WIDTH), np.float32)
    queries_BD[1, 5] = value
    return queries_BD


@pytest.mark.parametrize(
    ("queries_BD", "k", "rows", "field"),
    [
        (np.ones((3, WIDTH - 1), np.float32), 2, [0], "queries.embeddings.shape"),
        (np.ones((3, WIDTH + 1), np.float32), 2, [0], "queries.embeddings.shape"),
        (np.ones((0, WIDTH + 1), np.float32), 2, [0], "queries.embeddings.shape"),
        (np.ones(WIDTH, np.float32), 2, [0], "queries.embeddings.shape"),
        (np.ones((3, WIDTH)), 2, [0], "queries.embeddings.dtype"),
        (np.ones((3, WIDTH), np.int64), 2, [0], "queries.embeddings.dtype"),
        (with_value(np.nan), 2, [0], "queries.embeddings[1, 5]"),
        (with_value(np.inf), 2, [0], "queries.embeddings[1, 5]"),
        (with_value(-np.inf), 2, [0], "queries.embeddings[1, 5]"),
        (with_value(3e38), 2, [0], "queries.embeddings[1, 5]"),
        (np.ones((3, WIDTH), np.float32), 0, [0], "k"),
        (np.ones((3, WIDTH), np.float32), -1, [0], "k"),
        (np.ones((3, WIDTH), np.float32), 2, [0, NUM_LABELS], "filter.rows"),
    ],
)
def test_a_bad_query_is_refused_with_the_field_at_fault(case, queries_BD, k, rows, field):
    with pytest.raises(InvalidQueryError) as caught:
        case.index.search(queries_BD, k, filter=LabelFilter(np.array(rows), "deny"))
    assert caught.value.field == field


def test_queries_may_have_any_memory_layout(case):
    expected = rows_of(case.index.search(case.queries_BD, 5))
    wide = np.zeros((NUM_QUERIES, 2 * WIDTH), np.float32)
    wide[:, ::2] = case.queries_BD
    assert rows_of(case.index.search(wide[:, ::2], 5)) == expected
    assert rows_of(case.index.search(np.asfortranarray(case.queries_BD), 5)) == expected


@pytest.mark.parametrize("scale", [2.0**-70, 2.0**-10, 2.0**40])
def test_the_length_of_a_query_scales_its_scores_and_changes_no_order(case, scale):
    expected = case.index.search(case.queries_BD[:9], 5)
    scaled = case.index.search(case.queries_BD[:9] * np.float32(scale), 5)
    assert scaled.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(scaled.scores, expected.scores * scale, rtol=1e-6)


def test_searches_may_run_in_several_threads(case):
    expected = rows_of(case.index.search(case.queries_BD, 8))

    def search(start: int) -> list[tuple[list[int], bytes]]:
        return rows_of(case.index.search(case.queries_BD[start : start + 16], 8))

    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            parts = pool.map(search, range(0, NUM_QUERIES, 16))
            assert [row for part in parts for row in part] == expected


@pytest.mark.parametrize("num_labels", [1, 2, 5])
def test_a_handful_of_labels_is_enough(config, num_labels):
    labels_LD, queries_BD = clustered(num_labels, 4)
    top = build_index(config, labels_LD, seed=0).search(queries_BD[:3], 3)
    best, _ = best_by_sorting(queries_BD[:3], labels_LD, 3)
    assert top.labels.tolist() == best.ravel().tolist()


@pytest.mark.parametrize("width", [1, 7, 17, 33])
def test_labels_may_have_any_width(config, width, tmp_path):
    labels_LD, queries_BD = clustered(400, width, spread=0.5)
    index = build_index(config, labels_LD, seed=0)
    index.save(tmp_path / "index.faiss")
    loaded = load_index(config, tmp_path / "index.faiss", labels_LD, mmap=True)
    top = loaded.search(queries_BD[:5], 6)
    assert rows_of(top) == rows_of(index.search(queries_BD[:5], 6))
    best, _ = best_by_sorting(queries_BD[:5], labels_LD, 6)
    assert np.mean([np.isin(best[i], top.row(i)[0]).mean() for i in range(5)]) > 0.4


def test_labels_of_length_zero_are_labels_too(config):
    labels_LD, queries_BD = clustered(300, 8)
    labels_LD[::3] = 0
    top = build_index(config, labels_LD, seed=0).search(-np.abs(queries_BD[:20]), 300)
    assert top.counts.tolist() == [300] * 20
    nothing_LD = np.zeros((300, 8), np.float32)
    nothing = build_index(config, nothing_LD, seed=0).search(queries_BD[:20], 4)
    assert nothing.scores.tolist() == [0] * 80
    assert (np.diff(nothing.labels.reshape(20, -1)) > 0).all()


@pytest.mark.parametrize(
    "labels_LD",
    [
        np.empty((0, 4), np.float32),
        np.empty((4, 0), np.float32),
        np.ones((4, 4)),
        np.ones(4, np.float32),
        np.array([[0, np.nan], [1, 1]], np.float32),
        np.array([[0, np.inf], [1, 1]], np.float32),
    ],
    ids=["no labels", "no width", "float64", "one axis", "nan", "inf"],
)
def test_label_embeddings_that_cannot_be_searched_are_refused(config, labels_LD):
    with pytest.raises(ValueError, match="label embeddings: expected"):
        build_index(config, labels_LD, seed=0)
