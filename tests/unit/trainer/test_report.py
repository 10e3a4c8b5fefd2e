from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from motherlode.core.labels import LabelTable
from motherlode.trainer.charts import (
    HeldOutPoint,
    LossPoint,
    held_out_chart,
    loss_chart,
    precision_chart,
    recall_chart,
)
from motherlode.trainer.evaluation import evaluate
from motherlode.trainer.examples import Example, Examples, Hit, pick_examples
from motherlode.trainer.report import ReportContent, render_report
from tests.support.rankings import rows_of, top_of

FREQUENCIES = np.array([1, 3, 30, 300])
EVALUATION = evaluate(
    top_of([[0, 1], [2, 3]]), rows_of([[0], [3]]), np.array([1, 2]), FREQUENCIES, 334
)
MARSEILLE = Example(
    query="Марсель",
    true_labels=("Marseille, 93, FR",),
    num_true=1,
    hits=(Hit("Marseille, 93, FR", 12.4834, True), Hit("Marcala, 13, HN", 8.5, False)),
    num_hits=100,
    best_rank=1,
)
VOID_TAGS = {"meta", "link", "br", "path", "use", "rect"}


def content(**changes: object) -> ReportContent:
    whole = ReportContent(
        model="places",
        dataset="geonames",
        evaluation=EVALUATION,
        examples=Examples(right=(MARSEILLE,), wrong=()),
        facts={"Labels": 34006, "Parameters": 85_505_536},
        index={"Kind": "hnsw"},
        index_recall={"R@10": 0.9984},
        digests={"Data": "41aa" * 16},
        config={"epochs": 2, "features": {"words": None, "characters": {"shortest": 2}}},
        created_at="2025-11-22",
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


LOSSES = [LossPoint(i * 1000, 5.0 / i) for i in range(1, 30)]
HELD_OUT = [HeldOutPoint(1000, 30.0, 50.0), HeldOutPoint(29_000, 57.8, 83.3)]


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(content(losses=LOSSES, held_out=HELD_OUT))


class Tags(HTMLParser):
    """Collects elements and refuses those that are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def text_of(page: str) -> str:
    body = page[page.index("<body>") :]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_the_page_names_model_and_data_set_and_shows_the_headline_figures(page: str) -> None:
    text = text_of(page)
    assert "places Trained on geonames , 2025-11-22." in text
    assert f"{EVALUATION.figures['P@1']:.1f} %" in text
    assert f"{EVALUATION.figures['R@100']:.2f}" in text
    assert "on 2 test queries" in text


def test_the_page_shows_facts_index_recall_digests_and_configuration(page: str) -> None:
    text = text_of(page)
    assert "Labels 34,006" in text
    assert "R@10 against exact search 99.84 %" in text
    assert "41aa" * 16 in text
    assert "epochs 2" in text
    assert "features words null characters.shortest 2" in text


def test_every_element_of_the_page_is_closed(page: str) -> None:
    assert Tags(page).open == []


def test_equal_content_gives_the_same_page_byte_for_byte(page: str) -> None:
    assert render_report(content(losses=LOSSES, held_out=HELD_OUT)) == page


def test_the_page_asks_for_nothing_from_anywhere(page: str) -> None:
    elements = Tags(page).seen
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint(tag for tag, _ in elements)
    targets = [attrs[name] for _, attrs in elements for name in ("src", "href") if name in attrs]
    assert targets
    assert all(target is not None and target.startswith("#") for target in targets)
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page


def test_ids_are_distinct_and_every_reference_has_its_target(page: str) -> None:
    ids = [attrs["id"] for _, attrs in Tags(page).seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', page)) <= set(ids)


@pytest.mark.parametrize("field", ["model", "dataset", "evaluated_on", "created_at"])
def test_markup_in_a_name_is_shown_and_not_obeyed(field: str) -> None:
    page = render_report(content(**{field: '<script>alert("1")</script>'}))
    assert "<script" not in page
    assert '<script>alert("1")</script>' in text_of(page.replace("<title>", ""))


def test_markup_in_queries_labels_and_values_is_shown_and_not_obeyed() -> None:
    nasty = "</bdi><script>x</script>'\"&"
    example = replace(
        MARSEILLE, query=nasty, true_labels=(nasty,), hits=(Hit(nasty, 1.0, False),), best_rank=None
    )
    page = render_report(
        content(
            examples=Examples(right=(), wrong=(example,)),
            facts={nasty: nasty},
            index={nasty: nasty},
            index_recall={nasty: 1.0},
            digests={nasty: nasty},
            config={nasty: {nasty: nasty}},
        )
    )
    assert "<script" not in page
    assert Tags(page).open == []
    assert text_of(page).count(nasty) >= 10


def test_text_that_utf_8_cannot_hold_does_not_stop_the_report() -> None:
    example = replace(MARSEILLE, query="a\ud800b\x00c\x1b")
    page = render_report(content(examples=Examples(right=(example,), wrong=())))
    assert "a?b\ufffdc\ufffd" in page.encode().decode()


def test_dollar_signs_in_text_are_shown() -> None:
    assert "$model ${x} $" in text_of(render_report(content(model="$model ${x} $")))


def test_other_scripts_stay_text_in_their_own_direction() -> None:
    example = replace(MARSEILLE, query="القاهرة", true_labels=("東京", "Αθήνα"), num_true=4)
    page = render_report(content(examples=Examples(right=(example,), wrong=())))
    assert "<bdi>القاهرة</bdi>" in page
    assert "東京 · Αθήνα · 2 more" in text_of(page)


def test_hits_are_marked_in_words_too(page: str) -> None:
    text = text_of(page)
    assert "1 Marseille, 93, FR ✓ true 12.483" in text
    assert "2 Marcala, 13, HN 8.500" in text


def test_a_true_label_past_the_shown_hits_is_told_by_its_place() -> None:
    later = replace(MARSEILLE, hits=MARSEILLE.hits[1:], best_rank=17)
    never = replace(MARSEILLE, hits=MARSEILLE.hits[1:], best_rank=None)
    text = text_of(render_report(content(examples=Examples(right=(), wrong=(later, never)))))
    assert "First true label at place 17." in text
    assert "No true label among 100 hits." in text


def test_true_labels_that_the_table_lacks_are_told() -> None:
    lacking = replace(MARSEILLE, true_labels=(), num_true=2)
    text = text_of(render_report(content(examples=Examples(right=(), wrong=(lacking,)))))
    assert "True: 2 that the label table lacks" in text


def test_a_run_without_curves_or_examples_says_so() -> None:
    empty = content(examples=Examples(right=(), wrong=()))
    text = text_of(render_report(empty))
    assert "No learning curve was recorded." in text
    assert text.count("There is none.") == 2


def test_figures_at_other_depths_only_are_shown() -> None:
    evaluation = evaluate(top_of([[0]]), rows_of([[0]]), np.array([1]), FREQUENCIES, 334, ks=(2,))
    assert "k = 2" in text_of(render_report(content(evaluation=evaluation)))


def test_queries_without_true_labels_are_told() -> None:
    evaluation = evaluate(top_of([[0], []]), rows_of([[0], []]), np.array([1, 0]), FREQUENCIES, 334)
    assert "1 of them have no true label and count as 0." in text_of(
        render_report(content(evaluation=evaluation))
    )


def test_charts_speak_for_those_who_cannot_see_them(page: str) -> None:
    labels = [attrs.get("aria-label") for tag, attrs in Tags(page).seen if tag == "svg"]
    assert len(labels) == 4
    assert labels[0] == "Line: training loss 5 at the start, 0.172 after 29,000 examples."
    assert "R@10 83.3 % after 29,000 examples" in str(labels[1])
    assert "1: 100.0, 2–5: none" in str(labels[2])


def test_charts_keep_text_as_text_and_take_their_colours_from_the_page() -> None:
    for svg in (
        loss_chart([LossPoint(1, 2.0)]),
        held_out_chart([HeldOutPoint(1, 0.0, 0.0)]),
        recall_chart(EVALUATION.buckets),
        precision_chart(EVALUATION.buckets),
    ):
        assert "training " in svg
        assert "var(--muted)" in svg
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert "<style" not in svg


def test_losses_that_are_not_finite_are_left_out() -> None:
    points = [LossPoint(1, float("nan")), LossPoint(2, 3.0), LossPoint(3, float("inf"))]
    assert "loss 3 at the start, 3 after 2 examples" in loss_chart(points)
    with pytest.raises(ValueError, match="one finite point"):
        loss_chart(points[:1])


def test_a_run_that_lost_all_its_losses_still_has_a_report() -> None:
    text = text_of(render_report(content(losses=[LossPoint(1, float("nan"))])))
    assert "No learning curve was recorded." in text


def test_a_long_loss_curve_does_not_make_a_long_page() -> None:
    long = loss_chart([LossPoint(i, 1.0 / i) for i in range(1, 20_000)])
    assert len(long) < 40_000


LABELS = LabelTable(["a", "b", "c", "d"], ["A", "B", "C", "D"], FREQUENCIES)


def picked(rankings, scores, true, *, lacking=None, labels=LABELS, **kw) -> Examples:
    num_true = np.array([len(row) for row in true]) + np.array(lacking or [0] * len(true))
    texts = [f"query {i}" for i in range(len(true))]
    return pick_examples(texts, top_of(rankings, scores), rows_of(true), num_true, labels, **kw)


def test_right_and_wrong_examples_come_most_confident_first() -> None:
    examples = picked(
        [[0], [1], [2], [3]], [[1.0], [2.0], [3.0], [4.0]], [[0], [0], [2], [0]], count=12
    )
    assert [example.query for example in examples.right] == ["query 2", "query 0"]
    assert [example.query for example in examples.wrong] == ["query 3", "query 1"]


def test_confidence_is_the_score_of_the_first_hit_however_many_hits_there_are() -> None:
    rankings, scores = [[0, 1, 2], [1, 0], [2]], [[1.0, 0.9, 0.8], [3.0, 0.1], [2.0]]
    examples = picked(rankings, scores, [[3], [3], [3]], count=2)
    assert [example.query for example in examples.wrong] == ["query 1", "query 2"]


def test_an_example_tells_its_labels_hits_and_first_true_place() -> None:
    (example,) = picked([[3, 1, 0]], [[3.0, 2.0, 1.0]], [[0, 1]], lacking=[1]).wrong
    assert example.true_labels == ("A", "B")
    assert example.num_true == 3
    assert example.hits == (Hit("D", 3.0, False), Hit("B", 2.0, True), Hit("A", 1.0, True))
    assert (example.num_hits, example.best_rank) == (3, 2)


def test_a_query_whose_true_labels_never_come_up_has_no_place() -> None:
    (example,) = picked([[3]], [[1.0]], [[0]]).wrong
    assert example.best_rank is None


def test_queries_without_hits_or_true_labels_are_no_examples() -> None:
    assert picked([[], [1]], [[], [1.0]], [[0], []]) == Examples(right=(), wrong=())
    assert picked([], [], []) == Examples(right=(), wrong=())


def test_one_label_comes_first_in_one_example_of_a_kind_only() -> None:
    rankings, scores = [[0, 1], [0, 3], [1]], [[3.0, 0.0], [2.0, 0.0], [1.0]]
    examples = picked(rankings, scores, [[2], [2], [2]])
    assert [example.query for example in examples.wrong] == ["query 0", "query 2"]


def test_equally_confident_queries_come_in_their_order() -> None:
    examples = picked([[2], [1], [0]], [[1.0], [1.0], [1.0]], [[3], [3], [3]], count=2)
    assert [example.query for example in examples.wrong] == ["query 0", "query 1"]


def test_right_examples_are_spread_over_the_most_confident_quarter() -> None:
    num_queries = 800
    rows = [[i] for i in range(num_queries)]
    keys = [str(i) for i in range(num_queries)]
    labels = LabelTable(keys, None, np.ones(num_queries, np.int64))
    scores = [[float(num_queries - i)] for i in range(num_queries)]
    examples = picked(rows, scores, rows, labels=labels, count=10)
    assert [example.query for example in examples.right] == [f"query {20 * i}" for i in range(10)]
    assert examples.right[1].true_labels == ("20",)


def test_more_queries_than_one_chunk_are_looked_at() -> None:
    num_queries = 2100
    rankings = [[0]] * (num_queries - 1) + [[1]]
    scores = [[1.0]] * (num_queries - 1) + [[2.0]]
    examples = picked(rankings, scores, [[0]] * (num_queries - 1) + [[2]])
    assert [example.query for example in examples.wrong] == ["query 2099"]
    assert [example.query for example in examples.right] == ["query 0"]


def test_long_queries_are_cut_and_white_space_is_folded() -> None:
    texts = ["word \n" * 500]
    examples = pick_examples(texts, top_of([[0]], [[1.0]]), rows_of([[0]]), np.array([1]), LABELS)
    assert examples.right[0].query.startswith("word word")
    assert examples.right[0].query.endswith("…")
    assert len(examples.right[0].query) <= 280
