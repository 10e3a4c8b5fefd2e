from __future__ import annotations

import pytest
import torch

from motherlode.trainer.optim import RowTable, join_rows, learning_rate_factor


def table() -> RowTable:
    return RowTable(torch.arange(12, dtype=torch.float32).reshape(4, 3))


def step(table: RowTable, rows: list[int], gradient: list[float], learning_rate: float) -> None:
    rows_N = torch.tensor(rows)
    gathered_ND = table.gather(rows_N)
    (gathered_ND * torch.tensor(gradient)).sum().backward()
    table.step(rows_N, gathered_ND, learning_rate)


def test_rows_that_are_not_touched_stay_as_they_are() -> None:
    moved = table()
    step(moved, [1, 3], [1.0, 1.0, 1.0], 0.5)
    assert moved.weights_RD[[0, 2]].equal(table().weights_RD[[0, 2]])
    assert moved.accumulators_R[[0, 2]].tolist() == [0.0, 0.0]


def test_a_step_is_row_wise_adagrad_computed_by_hand() -> None:
    moved = table()
    step(moved, [1], [3.0, 0.0, 4.0], 0.5)
    # The mean squared gradient is 25 / 3, so that the rate is 0.5 / 2.886751.
    rate = 0.5 / (25 / 3) ** 0.5
    assert moved.accumulators_R[1].item() == pytest.approx(25 / 3)
    assert moved.weights_RD[1].tolist() == pytest.approx([3 - 3 * rate, 4, 5 - 4 * rate])
    step(moved, [1], [3.0, 0.0, 4.0], 0.5)
    assert moved.accumulators_R[1].item() == pytest.approx(50 / 3)


def test_a_row_without_gradient_stays_as_it_is() -> None:
    moved = table()
    step(moved, [2], [0.0, 0.0, 0.0], 0.5)
    assert moved.weights_RD.equal(table().weights_RD)


def test_the_learning_rate_warms_up_then_decays_to_zero() -> None:
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[:10] == sorted(factors[:10])
    assert factors[10] == pytest.approx(1.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.02


def test_no_warm_up_starts_at_the_full_rate() -> None:
    assert learning_rate_factor(0, 1, 0.0) == 1.0


@pytest.mark.parametrize(
    ("known", "wanted", "joined"),
    [
        ([2, 5, 9], [5, 1, 11, 1], [2, 5, 9, 1, 11]),
        ([2, 5], [5, 2], [2, 5]),
        ([], [7, 3, 7], [3, 7]),
        ([4], [], [4]),
    ],
)
def test_joined_rows_stand_known_ones_first_and_every_wanted_one_has_its_place(
    known: list[int], wanted: list[int], joined: list[int]
) -> None:
    wanted_P = torch.tensor(wanted, dtype=torch.int64)
    rows_M, places_P = join_rows(torch.tensor(known, dtype=torch.int64), wanted_P)
    assert rows_M.tolist() == joined
    assert rows_M[places_P].tolist() == wanted
