"""Work shared out to processes, for what threads cannot share.

What they import is what the work is made of, so keep torch and FAISS away from it: a process would
take three times the memory.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from joblib import Parallel, cpu_count, delayed

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

# A process takes two seconds to start, and should have more than that to do.
_TASKS_OF_PROCESS = 5
_IDLE_S = 5
_LOOK_S = 1.0

logger = logging.getLogger(__name__)


def in_processes(
    work: Callable[[_Task], _Result], tasks: Sequence[_Task], *, most: int
) -> list[_Result]:
    """What the work gives for each task, in their order, by several processes where that pays.

    Where processes cannot be had, or one of them is killed, this one does all the work instead.

    Args:
        work: Can be pickled; large arrays that it holds are shared by a file that is mapped.
        tasks: Each of about a second's work.
        most: Processes at most; nor are there more than processors that this one may use.
    """
    num_processes = min(most, cpu_count(), len(tasks) // _TASKS_OF_PROCESS)
    if num_processes > 1:
        try:
            return _shared_out(work, tasks, num_processes)
        except Exception as error:
            # An error of the work itself comes again below.
            logger.warning("no help from other processes, which takes longer: %s", error)
    return [work(task) for task in tasks]


def _shared_out(
    work: Callable[[_Task], _Result], tasks: Sequence[_Task], num_processes: int
) -> list[_Result]:
    parallel = Parallel(
        num_processes, initializer=end_with, initargs=(os.getpid(),), idle_worker_timeout=_IDLE_S
    )
    results: list[_Result] = parallel(delayed(work)(task) for task in tasks)
    return results


def end_with(parent: int) -> None:
    """Ends this process soon after its parent.

    Else one that is killed leaves processes behind, which wait to be heard, and what they share.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
