"""Sums over all pairs of a positive and a negative of its query, without an array of all pairs.

A batch has millions of pairs: what is computed of a few positives at a time stays in the cache of a
core, and the gradient computes it again rather than read it from memory.

Shapes: B queries in a batch, P positives of all its queries together, C of them at a time, R
negatives of a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from typing_extensions import override

from motherlode.trainer.losses.margins import MarginName, margin_loss, margin_slope

_BLOCK_PAIRS = 1 << 16


def pairwise_sums(
    margin: MarginName,
    positives_P: Tensor,
    rows_P: Tensor,
    negatives_BR: Tensor,
    weights_BR: Tensor,
) -> Tensor:
    """sum_r w_br phi(s_p - s_br) of each positive p, where b is its query: float [P].

    There are no second derivatives.

    Args:
        margin: phi.
        positives_P: float [P], scores of the positives.
        rows_P: int64 [P], which query each positive belongs to, ascending.
        negatives_BR: float [B, R], scores of the negatives.
        weights_BR: float [B, R], without gradient; 0 for those that take no part.
    """
    sums_P: Tensor = _PairwiseSums.apply(  # type: ignore[no-untyped-call]
        margin, positives_P, rows_P, negatives_BR, weights_BR
    )
    return sums_P


class _PairwiseSums(Function):
    @staticmethod
    @override
    def forward(
        ctx: Any,
        margin: MarginName,
        positives_P: Tensor,
        rows_P: Tensor,
        negatives_BR: Tensor,
        weights_BR: Tensor,
    ) -> Tensor:
        scores = positives_P, rows_P, negatives_BR, weights_BR
        ctx.margin = margin
        ctx.save_for_backward(*scores)
        sums_P = torch.empty_like(positives_P)
        for block, margins_CR, weights_CR in _blocks(*scores):
            sums_P[block] = torch.linalg.vecdot(margin_loss(margin, margins_CR), weights_CR)
        return sums_P

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, gradients_P: Tensor) -> tuple[None, Tensor, None, Tensor, None]:
        positives_P, rows_P, negatives_BR, _ = ctx.saved_tensors
        moved_P, moved_BR = torch.empty_like(positives_P), torch.zeros_like(negatives_BR)
        for block, margins_CR, weights_CR in _blocks(*ctx.saved_tensors):
            slopes_CR = margin_slope(ctx.margin, margins_CR).mul_(weights_CR)
            slopes_CR.mul_(gradients_P[block, None])
            moved_P[block] = slopes_CR.sum(dim=1)
            moved_BR.index_add_(0, rows_P[block], slopes_CR, alpha=-1)
        return None, moved_P, None, moved_BR, None


def _blocks(
    positives_P: Tensor, rows_P: Tensor, negatives_BR: Tensor, weights_BR: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some positives in turn, with their margins over their negatives and the weights of these."""
    step = max(1, _BLOCK_PAIRS // max(1, negatives_BR.shape[1]))
    for start in range(0, len(positives_P), step):
        block = slice(start, start + step)
        margins_CR = positives_P[block, None] - negatives_BR.index_select(0, rows_P[block])
        yield block, margins_CR, weights_BR.index_select(0, rows_P[block])
