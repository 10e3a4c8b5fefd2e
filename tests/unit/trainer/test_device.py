from __future__ import annotations

import pytest
import torch

from motherlode.core.errors import ConfigError
from motherlode.trainer.device import CPU, training_device
from motherlode.trainer.optim import RowTable
from tests.support.gpus import needs_torch_gpu


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_cpu_trains_unless_a_gpu_is_asked_for() -> None:
    assert training_device("auto") == training_device("cpu") == CPU
    with pytest.raises(
        ConfigError, match=r"loop\.device: expected a GPU that torch sees, got 'cuda'"
    ):
        training_device("cuda")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_taken_where_there_is_one() -> None:
    assert training_device("auto") == training_device("cuda") == torch.device("cuda", 0)
    assert training_device("cpu") == CPU


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("rank", "number"), [("0", 0), ("1", 1), ("2", 0)])
def test_each_process_takes_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, rank: str, number: int
) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert training_device("auto") == torch.device("cuda", number)


@needs_torch_gpu
def test_a_table_comes_back_to_the_memory_that_others_share() -> None:
    weights_RD = torch.zeros(3, 2)
    table = RowTable(weights_RD)
    table.to(torch.device("cuda", 0))
    rows_ND = table.gather(torch.tensor([1]))
    rows_ND.sum().backward()  # type: ignore[no-untyped-call]
    table.step(torch.tensor([1]), rows_ND, 0.5)
    assert not weights_RD.any()
    table.to(CPU)
    assert table.weights_RD is weights_RD
    torch.testing.assert_close(weights_RD, torch.tensor([[0.0, 0.0], [-0.5, -0.5], [0.0, 0.0]]))
