"""Label rows meeting queries, with gradients that pass over each table once.

What autograd makes of the same formulas reads and writes the table of touched labels several times
more often; beside matrix products of this size that is not little.

Shapes: B queries in a batch, P positives, N shared negatives, M distinct labels touched, R rows, D
width.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from typing_extensions import override

from motherlode.trainer.device import CPU
from motherlode.trainer.negatives import Negatives

_LEAST_NORM = 1e-12  # as torch.nn.functional.normalize has it
_BLOCK_ROWS = 512


def matmul_dtype(
    name: Literal["float32", "bfloat16", "auto"], device: torch.device = CPU
) -> torch.dtype | None:
    """What `score` is given: None for float32, as the embeddings are.

    Args:
        name: `auto` is bfloat16 where the device multiplies matrices of it.
        device: Where.
    """
    if name == "auto":
        name = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return torch.bfloat16 if name == "bfloat16" else None


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def unit_rows(rows_RD: Tensor) -> Tensor:
    """Rows at length 1, as `torch.nn.functional.normalize` gives them: float [R, D].

    With y = x / |x| and the gradient g of y, that of x is (g - (g . y) y) / |x|. Rows shorter than
    1e-12 are divided by 1e-12. There are no second derivatives.
    """
    result: Tensor = _UnitRows.apply(rows_RD)  # type: ignore[no-untyped-call]
    return result


class _UnitRows(Function):
    """In blocks of rows, each of which stays in the cache of a core for all its operations."""

    @staticmethod
    @override
    def forward(ctx: Any, rows_RD: Tensor) -> Tensor:
        norms_R1 = rows_RD.new_empty(len(rows_RD), 1)
        units_RD = torch.empty_like(rows_RD)
        for block in _blocks(rows_RD):
            torch.linalg.vector_norm(rows_RD[block], dim=1, keepdim=True, out=norms_R1[block])
            norms_R1[block].clamp_min_(_LEAST_NORM)
            torch.div(rows_RD[block], norms_R1[block], out=units_RD[block])
        ctx.save_for_backward(units_RD, norms_R1)
        return units_RD

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, gradients_RD: Tensor) -> Tensor:
        units_RD, norms_R1 = ctx.saved_tensors
        moved_RD = torch.empty_like(gradients_RD)
        for block in _blocks(units_RD):
            along_R1 = (gradients_RD[block] * units_RD[block]).sum(dim=1, keepdim=True)
            # A row at the least norm is divided by a constant.
            along_R1.masked_fill_(norms_R1[block] <= _LEAST_NORM, 0.0)
            moved = moved_RD[block]
            torch.addcmul(gradients_RD[block], units_RD[block], along_R1, value=-1.0, out=moved)
            moved.div_(norms_R1[block])
        return moved_RD


def _blocks(rows_RD: Tensor) -> list[slice]:
    """Parts of a table for a CPU; all of it for a GPU."""
    size = max(1, len(rows_RD)) if rows_RD.is_cuda else _BLOCK_ROWS
    return [slice(start, start + size) for start in range(0, len(rows_RD), size)]


def score(
    queries_BD: Tensor,
    labels_MD: Tensor,
    negatives: Negatives,
    places_P: Tensor,
    rows_P: Tensor,
    *,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Inner products of queries with their positives, and with their negatives.

    Args:
        queries_BD: float32 [B, D].
        labels_MD: float32 [M, D], those of `negatives.labels_N` first.
        negatives: Of the batch.
        places_P: int64 [P], row of each positive in labels_MD.
        rows_P: int64 [P], which query each positive belongs to, ascending.
        dtype: What the matrix products with shared negatives, and those of their gradients, are
            given; None for that of the embeddings. Results are of that of the embeddings.

    Returns:
        float32 [P] and float32 [B, K].
    """
    places_BK = negatives.places_BK
    if places_BK is None or len(places_BK) == 1:
        num_negatives = len(negatives.labels_N)
        scores_P, scores_BN = _SharedScores.apply(  # type: ignore[no-untyped-call]
            queries_BD, labels_MD, num_negatives, places_P, rows_P, dtype
        )
        return scores_P, scores_BN if places_BK is None else scores_BN.index_select(1, places_BK[0])
    positives_PD = labels_MD.index_select(0, places_P)
    scores_P = (queries_BD.index_select(0, rows_P) * positives_PD).sum(dim=1)
    # The gradient of an embedding is added up in half the time that an index_select takes.
    negatives_BKD = F.embedding(places_BK, labels_MD)
    return scores_P, torch.bmm(negatives_BKD, queries_BD[:, :, None]).squeeze(2)


class _SharedScores(Function):
    """Inner products of positives with their queries, and of all queries with shared negatives.

    There are no second derivatives.
    """

    @staticmethod
    @override
    def forward(
        ctx: Any,
        queries_BD: Tensor,
        labels_MD: Tensor,
        num_negatives: int,
        places_P: Tensor,
        rows_P: Tensor,
        dtype: torch.dtype | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(queries_BD, labels_MD, places_P, rows_P)
        ctx.num_negatives, ctx.dtype = num_negatives, dtype
        positives_PD = queries_BD.index_select(0, rows_P)
        positives_PD *= labels_MD.index_select(0, places_P)
        return positives_PD.sum(dim=1), _multiply(queries_BD, labels_MD[:num_negatives].T, dtype)

    @staticmethod
    @override
    @once_differentiable
    def backward(
        ctx: Any, gradients_P: Tensor, gradients_BN: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None, None]:
        queries_BD, labels_MD, places_P, rows_P = ctx.saved_tensors
        num_queries, num_labels, num_negatives = len(queries_BD), len(labels_MD), ctx.num_negatives
        moved_BD = weighted_sums(labels_MD, places_P, rows_P, gradients_P, num_queries)
        if ctx.dtype is not None:
            gradients_BN = gradients_BN.to(ctx.dtype)  # once for both products
        _add_product(moved_BD, gradients_BN, labels_MD[:num_negatives])
        order_P = places_P.argsort(stable=True)
        sorted_P = places_P.index_select(0, order_P)
        rows_P, gradients_P = rows_P.index_select(0, order_P), gradients_P.index_select(0, order_P)
        moved_MD = weighted_sums(queries_BD, rows_P, sorted_P, gradients_P, num_labels)
        _add_product(moved_MD[:num_negatives], gradients_BN.T, queries_BD)
        return moved_BD, moved_MD, None, None, None, None


def _multiply(left: Tensor, right: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None:
        return left @ right
    return (left.to(dtype) @ right.to(dtype)).to(left.dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right, whose operands are rounded as left is."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right.to(left.dtype))


def weighted_sums(
    table_RD: Tensor, rows_P: Tensor, sums_P: Tensor, weights_P: Tensor, num_sums: int
) -> Tensor:
    """The sums of weighted rows of a table, added in the order given: float [num_sums, D].

    Args:
        table_RD: float [R, D].
        rows_P: int64 [P], a row of the table.
        sums_P: int64 [P], the sum that it goes to, ascending.
        weights_P: float [P].
        num_sums: Sums in all; those to which nothing goes are 0.
    """
    if len(rows_P) == 0:
        return table_RD.new_zeros(num_sums, table_RD.shape[1])
    return F.embedding_bag(
        rows_P,
        table_RD,
        torch.searchsorted(sums_P, torch.arange(num_sums + 1, device=sums_P.device)),
        mode="sum",
        per_sample_weights=weights_P,
        include_last_offset=True,
    )
