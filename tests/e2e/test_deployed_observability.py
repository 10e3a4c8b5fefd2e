"""Dashboard, alert rules and runbook against the page that a real server exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import publish_tiny
from tests.support.servers import server_process
from tests.support.source import ROOT

FOLDER = ROOT / "deploy" / "observability"
DASHBOARD = FOLDER / "dashboard.json"
RULES = FOLDER / "alerts.yaml"
RUNBOOK = ROOT / "docs" / "runbook.md"
OPERATIONS = ROOT / "docs" / "operations.md"

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
# Grafana's words for units that are used here.
UNITS = {"none", "short", "s", "bytes", "percentunit", "reqps"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What Prometheus reads of a server."""
    folder = tmp_path_factory.mktemp("observed")
    publish_tiny(folder / "repository")
    with server_process(folder / "repository", folder / "ready.json") as server:
        return server.scrape()


@pytest.fixture(scope="module")
def exported(page: str) -> set[str]:
    """Names that a query may have."""
    names = set()
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            parts = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            names |= {name + part for part in parts}
    return names


def promtool(*arguments: str, text: str | None = None) -> str:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=FOLDER,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


def rules() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load(RULES.read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return document


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def names_in(text: str) -> set[str]:
    # Not the part of a name that ends with _, as in `motherlode_search_recall_*`.
    return set(re.findall(r"\b(?:motherlode|process|python)_\w+\b(?!\*)", text)) - {"python_"}


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_page(page: str) -> None:
    promtool("check", "metrics", text=page)


@needs_promtool
def test_promtool_takes_the_rules_and_they_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES.name)
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yaml")


def test_every_rule_has_what_a_reader_of_its_alert_needs() -> None:
    for rule in rules():
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        anchor = rule["annotations"]["runbook"].partition("#")[2]
        assert anchor == rule["alert"].lower()


def test_every_rule_is_tested() -> None:
    tested = set(re.findall(r"alertname: (\w+)", (FOLDER / "alerts.test.yaml").read_text("utf-8")))
    assert {rule["alert"] for rule in rules()} == tested


def test_every_alert_has_an_entry_in_the_runbook_and_the_other_way_round() -> None:
    entries = re.findall(r"^## (Motherlode\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    assert sorted(entries) == sorted(rule["alert"] for rule in rules())


@pytest.mark.parametrize(
    "path", [RULES, DASHBOARD, RUNBOOK, OPERATIONS], ids=lambda path: path.name
)
def test_every_metric_that_is_asked_for_is_exported(path: Path, exported: set[str]) -> None:
    text = path.read_text("utf-8")
    asked = names_in(text)
    assert len(asked) >= 3
    # A histogram is named without its parts in texts.
    families = {name.removesuffix("_bucket") for name in exported}
    assert asked - exported - families == set()


def test_no_two_panels_share_an_id_or_a_place() -> None:
    ids = Counter(panel["id"] for panel in dashboard()["panels"])
    assert max(ids.values()) == 1
    taken: set[tuple[int, int]] = set()
    for cells in map(_cells, dashboard()["panels"]):
        assert taken.isdisjoint(cells)
        taken.update(cells)


def _cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    place = panel["gridPos"]
    assert place["x"] + place["w"] <= 24
    columns = range(place["x"], place["x"] + place["w"])
    return {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}


def test_every_panel_asks_for_something_in_a_known_unit() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(refs) == len(set(refs))
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_the_rows_are_those_that_an_operator_looks_for() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == [
        "Traffic",
        "Latency by stage",
        "Queue and refusals",
        "Versions and reloads",
        "Recall",
        "Memory and process",
    ]


def test_every_variable_of_a_panel_is_defined() -> None:
    defined = {variable["name"] for variable in dashboard()["templating"]["list"]}
    text = json.dumps([panels(), dashboard()["annotations"]])
    used = set(re.findall(r"\$\{?(\w+)\}?", text)) - {"__rate_interval", "__range"}
    assert used == defined


def expressions() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])
    yield from (entry["expr"] for entry in dashboard()["annotations"]["list"])


@needs_promtool
def test_prometheus_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    replaced = [
        expression.replace("$__rate_interval", "5m").replace("$__range", "1h")
        for expression in expressions()
    ]
    records = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(replaced)
    ]
    # JSON is YAML.
    path = tmp_path / "panels.json"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": records}]}), "utf-8")
    assert f"{len(records)} rules found" in promtool("check", "rules", str(path))
