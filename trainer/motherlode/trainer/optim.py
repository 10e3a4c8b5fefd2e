"""Tables of rows of which a step touches few.

Shapes: R rows, N rows touched, D embedding width.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from motherlode.trainer.device import CPU

EPSILON = 1e-10


@final
class RowTable:
    """A table learned by row-wise Adagrad; only the rows that a step touches cost anything.

    One accumulator a row holds the sum of the mean squared gradients of the row, so the state is
    1 / D of the table (Duchi et al., JMLR 2011, with one learning rate a row).

    Args:
        weights_RD: float32 [R, D], changed in place.
        accumulators_R: float32 [R], or None for a fresh table.
    """

    def __init__(self, weights_RD: Tensor, accumulators_R: Tensor | None = None) -> None:
        self.weights_RD = weights_RD
        self.accumulators_R = (
            torch.zeros(len(weights_RD)) if accumulators_R is None else accumulators_R
        )
        # What others share with it while it is on a GPU.
        self._at_home: tuple[Tensor, Tensor] | None = None

    def to(self, device: torch.device) -> None:
        """Moves the table to another device; back on the CPU it is in the memory that it was in."""
        if device == self.weights_RD.device:
            return
        if device == CPU:
            assert self._at_home is not None
            home_RD, home_R = self._at_home
            self.weights_RD = home_RD.copy_(self.weights_RD)
            self.accumulators_R = home_R.copy_(self.accumulators_R)
            self._at_home = None
        else:
            self._at_home = self.weights_RD, self.accumulators_R
            self.weights_RD = self.weights_RD.to(device)
            self.accumulators_R = self.accumulators_R.to(device)

    def gather(self, rows_N: Tensor) -> Tensor:
        """A copy of some rows that collects their gradient: float32 [N, D], where the table is.

        Args:
            rows_N: int64 [N], distinct, on the CPU.
        """
        return self.weights_RD.index_select(0, rows_N.to(self.weights_RD.device)).requires_grad_()

    @torch.no_grad()
    def step(self, rows_N: Tensor, gathered_ND: Tensor, learning_rate: float) -> None:
        """Move the rows that `gather` gave, there and in the copy, against their gradient."""
        gradients_ND = gathered_ND.grad
        if gradients_ND is None:
            return
        rows_N = rows_N.to(self.weights_RD.device)
        squares_N = torch.linalg.vector_norm(gradients_ND, dim=1).square_()
        sums_N = self.accumulators_R.index_select(0, rows_N)
        sums_N.add_(squares_N, alpha=1.0 / gradients_ND.shape[1])
        self.accumulators_R.index_copy_(0, rows_N, sums_N)
        rates_N = learning_rate / sums_N.sqrt_().add_(EPSILON)
        # In place: a table of its own would cost as much again.
        gathered_ND.addcmul_(gradients_ND, rates_N[:, None], value=-1.0)
        self.weights_RD.index_copy_(0, rows_N, gathered_ND)


def join_rows(known_N: Tensor, wanted_P: Tensor) -> tuple[Tensor, Tensor]:
    """Known rows with those wanted besides, and the place of each wanted one among them.

    Args:
        known_N: int64 [N], distinct, ascending.
        wanted_P: int64 [P].

    Returns:
        int64 [M]: the known rows first, then the wanted ones that are not among them, both
        ascending; int64 [P].
    """
    distinct, inverse_P = torch.unique(wanted_P, return_inverse=True)
    places = torch.searchsorted(known_N, distinct)
    is_new = torch.ones_like(distinct, dtype=torch.bool)
    if len(known_N):
        torch.ne(known_N[places.clamp_max(len(known_N) - 1)], distinct, out=is_new)
    places[is_new] = torch.arange(len(known_N), len(known_N) + int(is_new.sum()))
    return torch.cat([known_N, distinct[is_new]]), places[inverse_P]


def learning_rate_factor(step: int, num_steps: int, warmup: float) -> float:
    """Linear warm-up over the first part of all steps, then linear decay to zero.

    Args:
        step: From 0.
        num_steps: All steps of the run.
        warmup: Part of them, below 1.
    """
    num_warmup = warmup * num_steps
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    return (num_steps - step) / max(num_steps - num_warmup, 1.0)
