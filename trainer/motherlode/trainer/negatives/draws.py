"""Draws of labels, each at a cost that does not grow with the number of labels.

Shapes: R rows of draws, K draws in a row, L labels.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

# A shuffle of up to so many labels for each one drawn takes less time than draws that are repeated.
_FEW_TIMES = 16


def draw_distinct(num_rows: int, count: int, num_labels: int, generator: torch.Generator) -> Tensor:
    """Uniform draws without replacement: int64 [R, K], ascending in each row.

    Every set of K labels is as likely as any other, and rows are independent. Time and memory are
    O(K log K) a row, whatever the number of labels; where K is a good part of L, O(L) is less.

    Args:
        num_rows: R.
        count: K, 0 or more; all labels are drawn if there are fewer.
        num_labels: L.
        generator: The only source of randomness.
    """
    if count >= num_labels:
        return torch.arange(num_labels).repeat(num_rows, 1)
    if num_rows == 1 and count * _FEW_TIMES >= num_labels:
        shuffled = torch.randperm(num_labels, generator=generator)
        return shuffled[:count].sort().values[None]
    if 2 * count > num_labels:
        left_out = draw_distinct(num_rows, num_labels - count, num_labels, generator)
        drawn = torch.ones(num_rows, num_labels, dtype=torch.bool).scatter_(1, left_out, False)
        return drawn.nonzero()[:, 1].view(num_rows, count)
    draws_RK = torch.randint(num_labels, (num_rows, count), generator=generator).sort(dim=1).values
    rows = torch.arange(num_rows)
    # Which labels are drawn again depends on their being equal alone, not on which they are, so all
    # sets stay equally likely. Less than half is taken: a round settles most of what is left.
    while len(rows := rows[(draws_RK[rows, 1:] == draws_RK[rows, :-1]).any(dim=1)]):
        draws_RK[rows] = _redraw_repeats(draws_RK[rows], num_labels, generator)
    return draws_RK


def _redraw_repeats(draws_RK: Tensor, num_labels: int, generator: torch.Generator) -> Tensor:
    """Rows with every second and later occurrence of a label drawn again, ascending."""
    repeats_RK = torch.zeros_like(draws_RK, dtype=torch.bool)
    repeats_RK[:, 1:] = draws_RK[:, 1:] == draws_RK[:, :-1]
    fresh = torch.randint(num_labels, (int(repeats_RK.sum()),), generator=generator)
    return draws_RK.masked_scatter(repeats_RK, fresh).sort(dim=1).values


@final
class AliasTable:
    """Independent draws with given probabilities, in constant time each.

    A label is drawn uniformly, and then kept with a probability of its own or exchanged for its
    alias (Walker, 1977). The table is built in one sweep over light and heavy labels, which prefix
    sums do at once for all (Huebschle-Schneider and Sanders, "Parallel weighted random sampling",
    ESA 2019): 16 bytes a label.

    Attributes:
        keep_L: float64 [L], probability of keeping each label.
        alias_L: int64 [L], what it is exchanged for.
    """

    def __init__(self, weights_L: Tensor) -> None:
        """Takes weights.

        Args:
            weights_L: float64 [L], proportional to the probabilities; none negative, one positive.
        """
        # A bucket for each label, each of size 1 and filled by at most two labels.
        sizes_L = weights_L * (len(weights_L) / weights_L.sum())
        is_heavy_L = sizes_L >= 1.0
        is_heavy_L[sizes_L.argmax()] = True  # rounding may leave all of them below 1
        light, heavy = (~is_heavy_L).nonzero()[:, 0], is_heavy_L.nonzero()[:, 0]
        # Each heavy label in turn fills up light ones, until less than 1 of it is left.
        missing = torch.cat([torch.zeros(1, dtype=torch.float64), 1.0 - sizes_L[light]]).cumsum(0)
        spare = (sizes_L[heavy] - 1.0).clamp_min(0.0).cumsum(0)
        self.keep_L = sizes_L.clone()
        self.alias_L = torch.arange(len(weights_L))
        filled_by = torch.searchsorted(spare, missing[:-1], right=True)
        self.alias_L[light] = heavy[filled_by.clamp_max(len(heavy) - 1)]
        # Its last bucket is filled up by the next heavy one, and that of the last one needs none.
        used = missing[torch.searchsorted(missing, spare[:-1]).clamp_max(len(missing) - 1)]
        self.keep_L[heavy[:-1]] = (1.0 + spare[:-1] - used).clamp(0.0, 1.0)
        self.alias_L[heavy[:-1]] = heavy[1:]
        self.keep_L[heavy[-1]] = 1.0

    def draw(self, num_rows: int, count: int, generator: torch.Generator) -> Tensor:
        """int64 [R, K]: independent draws, with replacement."""
        shape = (num_rows, count)
        labels_RK = torch.randint(len(self.keep_L), shape, generator=generator)
        shares_RK = torch.rand(shape, dtype=torch.float64, generator=generator)
        return torch.where(shares_RK < self.keep_L[labels_RK], labels_RK, self.alias_L[labels_RK])
