from __future__ import annotations

from itertools import combinations

import pytest
import torch

from motherlode.trainer.negatives import AliasTable, draw_distinct


def table_probabilities(table: AliasTable) -> torch.Tensor:
    """What a table draws with, added up over all its buckets."""
    probabilities = table.keep_L.clone().index_add_(0, table.alias_L, 1.0 - table.keep_L)
    return probabilities / len(table.keep_L)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_every_set_of_distinct_labels_is_as_likely(count: int) -> None:
    num_rows = 12_000
    draws_RK = draw_distinct(num_rows, count, 6, torch.Generator().manual_seed(count))
    assert draws_RK.shape == (num_rows, count)
    sets, counts = torch.unique(draws_RK, dim=0, return_counts=True)
    assert [tuple(row) for row in sets.tolist()] == list(combinations(range(6), count))
    expected = num_rows / len(sets)
    # Five standard deviations of a count, of at most 20 that are looked at.
    assert (counts - expected).abs().max() <= 5 * expected**0.5


@pytest.mark.parametrize("count", [0, 1, 10, 499, 500, 501, 990, 1000, 5000])
def test_a_row_holds_exactly_as_many_distinct_labels_as_asked_for(count: int) -> None:
    draws_RK = draw_distinct(3, count, 1000, torch.Generator().manual_seed(0))
    assert draws_RK.shape == (3, min(count, 1000))
    assert (draws_RK[:, 1:] > draws_RK[:, :-1]).all()
    assert ((draws_RK >= 0) & (draws_RK < 1000)).all()


def test_draws_out_of_more_labels_than_memory_could_hold_are_possible() -> None:
    draws_RK = draw_distinct(2, 100, 10**15, torch.Generator().manual_seed(0))
    assert draws_RK.max() > 10**14


@pytest.mark.parametrize(
    "weights",
    [
        [1.0],
        [1.0, 1.0, 1.0, 1.0],
        [0.0, 0.0, 5.0, 0.0],
        [0.0, 1.0, 2.0, 3.0, 4.0, 0.0],
        [1e-9, 1.0, 1e9],
        [0.1] * 7,
        [100.0, 1.0, 1.0, 100.0, 1.0],
    ],
    ids=str,
)
def test_an_alias_table_draws_with_exactly_the_given_probabilities(weights: list[float]) -> None:
    weights_L = torch.tensor(weights, dtype=torch.float64)
    table = AliasTable(weights_L)
    torch.testing.assert_close(
        table_probabilities(table), weights_L / weights_L.sum(), rtol=1e-12, atol=1e-16
    )
    assert ((table.keep_L >= 0) & (table.keep_L <= 1)).all()


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_an_alias_table_is_exact_over_many_labels_with_a_long_tail(alpha: float) -> None:
    ranks = torch.arange(1, 100_001, dtype=torch.float64)
    order = torch.randperm(len(ranks), generator=torch.Generator().manual_seed(0))
    weights_L = ranks.pow(-alpha)[order]
    torch.testing.assert_close(
        table_probabilities(AliasTable(weights_L)),
        weights_L / weights_L.sum(),
        rtol=1e-9,
        atol=1e-15,
    )


def test_labels_without_weight_are_never_drawn() -> None:
    weights_L = (torch.arange(50) % 2).double()
    draws = AliasTable(weights_L).draw(10, 1000, torch.Generator().manual_seed(0))
    assert draws.shape == (10, 1000)
    assert set(draws.flatten().tolist()) == set(range(1, 50, 2))
