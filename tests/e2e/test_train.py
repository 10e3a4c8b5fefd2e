"""`motherlode train` as a process: killed for real, resumed, and refused with clear errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.planted import write_planted

TIMEOUT_S = 120.0
SETTINGS = (
    "features.min_count=1",
    "encoder.width=32",
    "negatives.num_candidates=64",
    "negatives.keep=8",
    "loop.epochs=12",
    "loop.batch_size=16",
    "loop.checkpoint_every_s=0.02",
)


def command(data: Path, repository: Path, *more: str) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    where = ["--data", str(data), "--repository", str(repository), "--model", "planted"]
    return [
        *(sys.executable, "-m", "motherlode.cli.main", "train", "default"),
        *(*where, *settings, "--json", *more),
    ]


def digest_of(data: Path, repository: Path, *more: str) -> str:
    done = subprocess.run(
        command(data, repository, *more), capture_output=True, check=True, timeout=TIMEOUT_S
    )
    return str(json.loads(done.stdout)["digest"])


@pytest.mark.timeout(300)
def test_a_run_killed_in_the_middle_and_resumed_gives_the_bundle_of_a_whole_run(
    tmp_path: Path,
) -> None:
    data = write_planted(tmp_path / "data")
    checkpoint = tmp_path / "killed/.training-planted/newest.safetensors"
    process = subprocess.Popen(
        command(data, tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    pause, end = threading.Event(), time.monotonic() + TIMEOUT_S
    while not checkpoint.exists():
        assert process.poll() is None, "the run ended before its first checkpoint"
        assert time.monotonic() < end, "no checkpoint came"
        pause.wait(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed/planted").exists()
    resumed = digest_of(data, tmp_path / "killed", "--resume")
    assert resumed == digest_of(data, tmp_path / "whole")
    assert not checkpoint.exists()


@pytest.mark.timeout(120)
def test_a_wrong_setting_is_one_line_and_the_status_of_wrong_usage(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, tmp_path, "--set", "loop.epoch=3"),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip() == "motherlode: loop.epoch: expected no such key, got 3"


@pytest.mark.timeout(300)
def test_two_processes_train_one_model_as_one_process_does(tmp_path: Path) -> None:
    """Started by torchrun, with early stop: one version is published and nothing is left behind."""
    data = write_planted(tmp_path / "data")
    settings = ("--set", "loop.patience=1", "--set", "loop.epochs=6", "--set", "loop.evaluations=6")
    alone = command(data, tmp_path / "alone", *settings)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    together = command(data, tmp_path / "together", *settings)
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    outcomes = [
        json.loads(
            subprocess.run(
                line, capture_output=True, check=True, timeout=TIMEOUT_S, env=environment
            ).stdout
        )
        for line in (alone, [sys.executable, *launcher, *together[1:]])
    ]
    assert outcomes[0]["num_examples"] == outcomes[1]["num_examples"]
    assert outcomes[1]["figures"] == pytest.approx(outcomes[0]["figures"], abs=5.0)
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == ["planted"]
    published = sorted(path.name for path in (tmp_path / "together/planted").iterdir())
    assert published == [".lock", "000001"]
