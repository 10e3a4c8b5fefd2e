"""The report of a tuned index and its chart."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from motherlode.core.index import ExactConfig, HnswConfig
from motherlode.core.index.targets import parse_targets
from motherlode.core.index.tuning import Measured
from motherlode.trainer.front_chart import FrontPoint, front_chart
from motherlode.trainer.tuning_report import TuningContent, render_tuning_report, settings_of

EXACT = Measured(
    family="exact",
    config=ExactConfig(),
    recalls={10: 1.0},
    recall_errors={10: 0.0},
    p50_s=0.00971,
    p99_s=0.018,
    queries_per_s=1224.0,
    memory_bytes=385 * 2**20,
    build_s=0.0,
)
HNSW = replace(
    EXACT,
    family="hnsw",
    config=HnswConfig(ef_search=128),
    recalls={10: 0.9931},
    recall_errors={10: 0.0009},
    p50_s=0.000396,
    memory_bytes=389 * 2**20,
)
CONTENT = TuningContent(
    model="pl<a>ces",
    parent=3,
    targets=parse_targets(["recall@10>=0.99", "p99<=2ms"], num_labels=100),
    num_queries=998,
    num_hits=10,
    num_threads=1,
    settings=[EXACT, HNSW],
    front=[HNSW],
    chosen=HNSW,
)


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page.split("</style>")[1]).split())


def test_the_report_says_what_was_chosen_for_what_and_from_which_version() -> None:
    text = text_of(render_tuning_report(CONTENT))
    assert "recall@10&gt;=0.99 and p99&lt;=2ms" in text
    assert "the labels of version 3" in text
    assert "hnsw num_neighbors=32, ef_construction=80, ef_search=128" in text
    assert "99.31 ± 0.09 0.396 18.000 1,224 389.0 0.0" in text
    assert "998 queries" in text
    assert "on one thread" in text


def test_the_chosen_row_is_marked_and_the_front_is_bold() -> None:
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", render_tuning_report(CONTENT))
    assert ["✓" in row for row in rows] == [False, True]
    assert ['class="head"' in row for row in rows] == [False, True]


def test_the_page_is_one_well_formed_document_that_loads_nothing() -> None:
    page = render_tuning_report(CONTENT)
    assert "<a>" not in page
    assert "pl&lt;a&gt;ces" in page
    ElementTree.fromstring(re.sub(r"<(meta[^>]*)>", r"<\1/>", page.split("\n", 1)[1]))
    assert re.findall(r"(?:src|href)=\"(?!#)", page) == []
    assert page == render_tuning_report(CONTENT)


def test_settings_are_those_of_the_config_but_for_its_family() -> None:
    assert settings_of(EXACT) == ""
    assert settings_of(HNSW) == "num_neighbors=32, ef_construction=80, ef_search=128"


def points(*recalls: float) -> list[FrontPoint]:
    return [FrontPoint("hnsw", 1.0 + i, recall, i == 0) for i, recall in enumerate(recalls)]


def test_the_line_of_a_chart_joins_what_nothing_cheaper_matches() -> None:
    chart = front_chart(points(0.9, 0.8, 0.99), "latency, ms", smallest_miss=1e-4)
    assert "The best: hnsw 90 % at 1, hnsw 99 % at 3." in chart
    ElementTree.fromstring(chart)


@pytest.mark.parametrize("recalls", [(1.0,), (0.0,), (0.5, 1.0), (0.0, 0.3, 0.99999)])
def test_a_chart_can_show_any_recall(recalls: tuple[float, ...]) -> None:
    chart = front_chart(points(*recalls), "memory, MiB", smallest_miss=1e-4)
    assert "memory, MiB" in chart
    ElementTree.fromstring(chart)


def test_the_goal_is_a_line_of_its_own() -> None:
    with_goal, without = (
        front_chart(points(0.9, 0.99), "cost", smallest_miss=1e-4, goal=goal)
        for goal in (0.95, None)
    )
    assert with_goal.count("stroke-dasharray") == without.count("stroke-dasharray") + 1


def test_a_chart_has_as_many_families_as_there_are() -> None:
    many = [FrontPoint(f"family{i}", 1.0 + i, i / 12, is_chosen=False) for i in range(12)]
    chart = front_chart(many, "cost", smallest_miss=1e-3)
    assert all(f"family{i}" in chart for i in range(12))


def test_a_chart_needs_a_point() -> None:
    with pytest.raises(ValueError, match="one point or more"):
        front_chart([], "cost", smallest_miss=1e-3)
