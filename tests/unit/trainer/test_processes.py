"""Work shared out to processes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

from motherlode.trainer import processes
from motherlode.trainer.processes import in_processes


def where(offset: int, task: int) -> tuple[int, int]:
    return task + offset, os.getpid()


def ends_elsewhere(home: int, task: int) -> int:
    if os.getpid() != home:
        os._exit(9)
    return 2 * task


def sum_of(array: Any, task: int) -> float:
    return float(array.sum()) + task


@pytest.fixture(autouse=True)
def two_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_TASKS_OF_PROCESS", 2)
    monkeypatch.setattr(processes, "cpu_count", lambda: 2)


def test_results_come_in_the_order_of_the_tasks_from_other_processes() -> None:
    results = in_processes(partial(where, 7), range(20), most=8)
    assert [value for value, _ in results] == list(range(7, 27))
    pids = {pid for _, pid in results}
    assert os.getpid() not in pids
    assert len(pids) <= 2


@pytest.mark.parametrize(("num_tasks", "most", "cores"), [(3, 8, 8), (20, 1, 8), (20, 8, 1)])
def test_few_tasks_and_one_thread_or_core_need_no_other_process(
    num_tasks: int, most: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "cpu_count", lambda: cores)
    results = in_processes(partial(where, 0), range(num_tasks), most=most)
    assert results == [(task, os.getpid()) for task in range(num_tasks)]


def test_where_a_process_is_killed_this_one_does_the_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        results = in_processes(partial(ends_elsewhere, os.getpid()), range(8), most=2)
    assert results == [0, 2, 4, 6, 8, 10, 12, 14]
    assert "no help from other processes" in caplog.text


def test_where_nothing_can_be_shared_this_one_does_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", "/proc/nowhere")
    large = np.ones(1 << 20)
    with caplog.at_level(logging.WARNING):
        results = in_processes(partial(sum_of, large), range(4), most=2)
    assert results == [(1 << 20) + task for task in range(4)]
    assert "no help from other processes" in caplog.text


_WORKER = """
import os, time
from motherlode.trainer.processes import end_with
end_with(os.getppid())
print("ready", flush=True)
time.sleep(20)
print("still there", flush=True)
"""
_TRAINER = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {_WORKER!r}])
time.sleep(60)
"""


def test_a_process_ends_with_a_parent_that_is_killed() -> None:
    trainer = subprocess.Popen([sys.executable, "-c", _TRAINER], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    with trainer.stdout as said:
        assert said.readline() == "ready\n"
        trainer.kill()
        trainer.wait()
        # To the end: nobody but the worker has this open for writing.
        assert said.read() == ""
