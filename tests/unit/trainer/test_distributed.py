"""Several processes give the gradients of one. They are threads here, that speak over gloo."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import cast

import pytest
import torch
import torch.distributed as dist

from motherlode.core.errors import MotherlodeError
from motherlode.trainer.distributed import Group, joined_group
from tests.support.steps import SETTINGS, run_steps, tensors


@pytest.fixture(autouse=True)
def _one_thread_a_process() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gloo_groups(size: int) -> list[Group]:
    """The groups of `size` threads of this process."""
    store, limit = dist.HashStore(), timedelta(seconds=60)

    def join(rank: int) -> Group:
        return Group(rank, size, dist.ProcessGroupGloo(store, rank, size, limit))

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(join, range(size)))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_several_processes_learn_what_one_learns(settings: dict[str, object], size: int) -> None:
    alone, losses = run_steps(settings, Group())
    with ThreadPoolExecutor(size) as threads:
        results = list(threads.map(lambda group: run_steps(settings, group), gloo_groups(size)))
    for model, their_losses in results:
        torch.testing.assert_close(their_losses, losses, rtol=1e-4, atol=1e-6)
        for table, expected in zip(tensors(model), tensors(alone), strict=True):
            torch.testing.assert_close(table, expected, rtol=1e-3, atol=1e-5)
        for table, first in zip(tensors(model), tensors(results[0][0]), strict=True):
            assert table.equal(first), "processes have moved apart"


def test_a_process_that_nobody_else_was_started_with_is_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "many")  # which others than torchrun set too
    with joined_group() as group:
        assert (group.rank, group.size) == (0, 1)


def test_a_process_that_is_gone_is_one_line_of_an_error() -> None:
    class Gone:
        def allreduce(self, _: object) -> None:
            raise RuntimeError("Read error [127.0.0.1]: Connection reset\nmany more lines")

    group = Group(0, 2, cast("dist.ProcessGroup", Gone()))
    with pytest.raises(MotherlodeError) as caught:
        group.add_up(torch.zeros(1))
    message = "another process of this training is gone: Read error [127.0.0.1]: Connection reset"
    assert str(caught.value) == message
