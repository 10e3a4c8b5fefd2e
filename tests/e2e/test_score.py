"""The command `motherlode score`: what it says, and what is left when it is killed."""

from __future__ import annotations

import itertools
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from motherlode.cli.main import main
from tests.support.bundles import publish_tiny
from tests.support.scoring import contents, part_paths, rows, texts, write_jsonl

KILLED_AFTER = """
import os, signal, sys
from pathlib import Path
from motherlode.scoring import score_file
from tests.support.scoring import request

def kill(done):
    if done.num_rows >= int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

paths = [Path(argument) for argument in sys.argv[1:4]]
score_file(request(*paths, batch_size=4), on_rows=kill)
"""

PEAK_GROWTH = """
import resource, sys
from pathlib import Path
from motherlode.scoring import score_file
from tests.support.scoring import request, texts, write_jsonl

def peak_after(num_rows):
    source = write_jsonl(folder / f"{num_rows}.jsonl", texts(num_rows), filler=" other" * 100)
    score_file(request(repository, source, folder / str(num_rows), k=50, rows_per_part=num_rows))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

repository, folder = map(Path, sys.argv[1:3])
first = peak_after(12_000)
print(peak_after(96_000) - first)
"""


class Done(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository")
    publish_tiny(path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "queries.jsonl", texts(50))


def arguments(repository: Path, source: Path, output: Path, *more: str) -> list[str]:
    """Arguments of the command; those in `more` take the place of the usual ones."""
    options = {
        "--repository": str(repository),
        "--model": "tiny",
        "--input": str(source),
        "--output": str(output),
        "--rows-per-part": "20",
        "-k": "3",
    }
    usual = [word for name, value in options.items() if name not in more for word in (name, value)]
    return ["score", *usual, *more]


def start(*args: Any, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "motherlode.cli.main", *arguments(*args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def run_script(script: str, *args: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command in this process."""

    def call(*args: Any) -> Done:
        status = main(arguments(*args))
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return call


def test_a_scored_file_becomes_parts_and_one_json_document(
    score: Callable[..., Done], repository: Path, source: Path, tmp_path: Path
) -> None:
    done = score(repository, source, tmp_path / "out", "--json")
    assert done.status == 0, done.err
    summary = json.loads(done.out)
    assert (summary["num_rows"], summary["num_parts"], summary["version"]) == (50, 3, 1)
    assert [row["labels"][0] for row in rows(tmp_path / "out")] == list(range(50))


def test_without_json_the_summary_is_a_table_of_one_row(
    score: Callable[..., Done], repository: Path, source: Path, tmp_path: Path
) -> None:
    done = score(repository, source, tmp_path / "out")
    heading, row = done.out.splitlines()
    assert heading.split() == ["output", "model", "bundle", "rows", "hits", "parts"]
    assert row.split()[0] == str(tmp_path / "out")
    assert row.split()[1] == "tiny@1"
    assert row.split()[3:] == ["50", "150", "3"]


def test_a_second_run_says_that_nothing_is_to_be_done(
    score: Callable[..., Done], repository: Path, source: Path, tmp_path: Path
) -> None:
    assert score(repository, source, tmp_path / "out").status == 0
    before = contents(tmp_path / "out")
    done = score(repository, source, tmp_path / "out")
    assert done.status == 0
    assert "Nothing to do" in done.err
    assert contents(tmp_path / "out") == before


def test_a_broken_line_in_the_middle_ends_the_command_with_its_place(
    score: Callable[..., Done], repository: Path, source: Path, tmp_path: Path
) -> None:
    source.write_text(source.read_text() + '{"id": "x", "text": null}\n')
    done = score(repository, source, tmp_path / "out")
    assert done.status == 1
    assert done.err == f"motherlode: {source}:51: text: expected a string, got null\n"
    assert set(contents(tmp_path / "out")) == {
        "_run.json",
        "part-00000.parquet",
        "part-00001.parquet",
    }


def test_other_settings_end_the_command_with_what_differs_until_restart_is_given(
    score: Callable[..., Done], repository: Path, source: Path, tmp_path: Path
) -> None:
    others = (repository, source, tmp_path / "out", "--rows-per-part", "30")
    assert score(repository, source, tmp_path / "out").status == 0
    refused = score(*others)
    assert refused.status == 1
    assert "rows_per_part was 20, is 30; use another folder, or --restart" in refused.err
    assert score(*others, "--restart").status == 0
    assert len(part_paths(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (("-k", "0"), "0"),
        (("--rows-per-part", "0"), "0"),
        (("--model", "a b"), "model: expected"),
        (("--model", "tiny@"), "model: expected"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    score: Callable[..., Done],
    repository: Path,
    source: Path,
    tmp_path: Path,
    wrong: tuple[str, str],
    reason: str,
) -> None:
    done = score(repository, source, tmp_path / "out", *wrong)
    assert done.status == 2
    assert reason in done.err
    assert not (tmp_path / "out").exists()


def test_more_labels_than_there_are_is_said_once(
    score: Callable[..., Done], repository: Path, source: Path, tmp_path: Path
) -> None:
    done = score(repository, source, tmp_path / "out", "-k", "60")
    assert done.err.count("k is 60, but the model has 50 labels in all") == 1


def test_a_pipe_gets_lines_of_progress_at_intervals(
    score: Callable[..., Done],
    repository: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count(step=2.0)
    monkeypatch.setattr("motherlode.cli.score.monotonic", lambda: next(clock))
    done = score(repository, source, tmp_path / "out", "--rows-per-part", "5")
    lines = [line for line in done.err.splitlines() if line.startswith("scored")]
    # Ten batches of two seconds each, and a line when five seconds have passed.
    assert lines == [f"scored {n} of 50 rows, 2 rows/s" for n in (15, 30, 45)]


@pytest.mark.parametrize("num_rows", [4, 32])
def test_a_killed_run_is_completed_by_the_same_command_to_the_same_bytes(
    score: Callable[..., Done], repository: Path, source: Path, tmp_path: Path, num_rows: int
) -> None:
    killed = run_script(KILLED_AFTER, repository, source, tmp_path / "cut", num_rows)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # The part in the making is there, but hidden.
    assert [path.name for path in (tmp_path / "cut").glob(".part-*.tmp")] == [
        f".part-{num_rows // 20:05d}.parquet.tmp"
    ]
    assert len(part_paths(tmp_path / "cut")) == num_rows // 20

    for folder in ("cut", "whole"):
        assert score(repository, source, tmp_path / folder).status == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert [row["query_id"] for row in rows(tmp_path / "cut")] == [f"q{i}" for i in range(50)]


def test_a_command_killed_at_some_moment_is_completed_to_each_row_once(
    score: Callable[..., Done], repository: Path, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "queries.jsonl", texts(3000))
    output = tmp_path / "out"
    with start(repository, source, output, stderr=subprocess.DEVNULL) as running:
        while not (output / "part-00002.parquet").exists():
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(0.01)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    assert not (output / "_SUCCESS.json").exists()

    done = score(repository, source, output, "--json")
    assert json.loads(done.out)["num_rows_before"] >= 60
    assert [row["query_id"] for row in rows(output)] == [f"q{i}" for i in range(3000)]


def test_a_terminal_shows_a_bar_with_rows_per_second(
    repository: Path, source: Path, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "120", "TERM": "xterm"}
    with start(repository, source, tmp_path / "out", stderr=theirs, env=environment) as running:
        os.close(theirs)
        out, _ = running.communicate(timeout=120)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert running.returncode == 0, shown
    assert "50/50" in shown
    assert "rows/s" in shown
    assert "rows/s" not in out


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(repository: Path, tmp_path: Path) -> None:
    done = run_script(PEAK_GROWTH, repository, tmp_path)
    assert done.returncode == 0, done.stderr
    # The second file is 53 MB larger than the first, and all of it is one part.
    assert int(done.stdout) < 25_000_000
