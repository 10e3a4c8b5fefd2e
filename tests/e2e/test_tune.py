"""`motherlode tune` as a process: a trained model gets an index that meets targets, or none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from tests.support.planted import small_config, write_planted
from tests.support.training import run

TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, and with version 1 of `planted` trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_planted(folder / "data", num_labels=60, num_queries=800)
    run(data, folder / "repository", small_config(loop={"epochs": 2}))
    return folder


def tune(trained: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = ["--repository", str(trained / "repository"), "--model", "planted"]
    return subprocess.run(
        [sys.executable, "-m", "motherlode.cli.main", "tune", *where, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def queries(trained: Path) -> tuple[str, str]:
    return "--queries", str(trained / "data" / "train.jsonl")


@pytest.mark.timeout(300)
def test_a_tuned_version_is_published_and_serves(trained: Path) -> None:
    families = ("--families", "exact", "ivf_flat")
    done = tune(trained, "--target", "recall@10>=90%", *queries(trained), *families, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["parent"], outcome["version"]) == (1, 2)
    assert outcome["chosen"]["recall@10"] >= 0.9
    assert outcome["chosen"] in outcome["settings"]
    assert {row["family"] for row in outcome["settings"]} == {"exact", "ivf_flat"}
    retriever = Retriever.load(Repository(trained / "repository"), "planted")
    assert retriever.manifest.index.parameters == outcome["chosen"]["config"]
    report = Repository(trained / "repository").path_of("planted", 2) / "report.html"
    assert "Index tuning report" in report.read_text("utf-8")


@pytest.mark.timeout(300)
def test_a_target_out_of_reach_is_status_3_with_the_best_seen(trained: Path) -> None:
    versions = Repository(trained / "repository").versions("planted")
    targets = ("--target", "recall@10>=0.9", "--target", "memory<=1kB")
    done = tune(trained, *targets, *queries(trained), "--families", "exact")
    assert done.returncode == 3
    assert "no index setting meets recall@10>=0.9 and memory<=1kB; exact comes" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("MiB; nothing published")
    assert done.stdout.splitlines()[1].split()[:2] == ["index", "settings"]
    assert Repository(trained / "repository").versions("planted") == versions
