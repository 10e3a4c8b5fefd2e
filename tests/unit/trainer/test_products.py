from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from motherlode.trainer.negatives import Negatives
from motherlode.trainer.products import matmul_dtype, score, unit_rows, weighted_sums

# Labels 0 to 2 are negatives; of the positives one is among them, and one is there twice.
PLACES_P, ROWS_P = torch.tensor([4, 1, 4]), torch.tensor([0, 0, 2])


def random_rows(num_rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("num_rows", [0, 3, 1500])
def test_unit_rows_and_their_gradients_are_those_of_torch_with_zero_rows_among_them(
    num_rows: int,
) -> None:
    rows, gradients = random_rows(num_rows), random_rows(num_rows, seed=1)
    rows[1:2] = 0.0
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    unit_rows(ours).backward(gradients)  # type: ignore[no-untyped-call]
    F.normalize(theirs, dim=1).backward(gradients)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(unit_rows(ours), F.normalize(theirs, dim=1))
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("places", [None, [[0, 2, 2]], [[0, 1], [2, 2], [1, 1]]])
@pytest.mark.parametrize("num_positives", [0, 3])
def test_scores_are_inner_products_and_so_are_their_gradients(
    places: list[list[int]] | None, num_positives: int
) -> None:
    queries_BD, labels_MD = random_rows(3).requires_grad_(), random_rows(5, 1).requires_grad_()
    places_BK = None if places is None else torch.tensor(places)
    chosen = torch.arange(3)[None] if places_BK is None else places_BK
    negatives = Negatives(torch.arange(3), torch.ones(3, chosen.shape[1]).bool(), places_BK)
    places_P, rows_P = PLACES_P[:num_positives], ROWS_P[:num_positives]

    def scores(queries_BD: Tensor, labels_MD: Tensor) -> tuple[Tensor, Tensor]:
        return score(queries_BD, labels_MD, negatives, places_P, rows_P)

    scores_P, scores_BK = scores(queries_BD, labels_MD)
    torch.testing.assert_close(scores_P, (queries_BD[rows_P] * labels_MD[places_P]).sum(dim=1))
    expected = torch.einsum("bd,bkd->bk", queries_BD, labels_MD[chosen.expand(3, -1)])
    torch.testing.assert_close(scores_BK, expected)
    assert torch.autograd.gradcheck(scores, (queries_BD, labels_MD))


def test_products_of_bfloat16_are_near_those_of_float32_and_leave_the_positives_exact() -> None:
    queries_BD, labels_MD = random_rows(3).float(), random_rows(5, 1).float()
    negatives = Negatives(torch.arange(3), torch.ones(3, 3, dtype=torch.bool))
    results: list[list[Tensor]] = []
    for dtype in (None, torch.bfloat16):
        leaves = [queries_BD.clone().requires_grad_(), labels_MD.clone().requires_grad_()]
        scores_P, scores_BK = score(*leaves, negatives, PLACES_P, ROWS_P, dtype=dtype)
        gradients = torch.autograd.grad((scores_P.sum() + scores_BK.square().sum()), leaves)
        results.append([scores_P.detach(), scores_BK.detach(), *gradients])
    exact, rounded = results
    assert rounded[0].equal(exact[0])
    assert not rounded[1].equal(exact[1])
    for ours, expected in zip(rounded[1:], exact[1:], strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected, rtol=0.03, atol=0.05)


def test_weighted_sums_leave_out_nothing_and_are_zero_where_nothing_goes() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    sums = weighted_sums(
        table, torch.tensor([0, 1, 1]), torch.tensor([1, 1, 3]), torch.tensor([2.0, 3.0, 5.0]), 5
    )
    assert sums.tolist() == [[0, 0], [2, 6], [0, 0], [0, 10], [0, 0]]


@pytest.mark.parametrize("has_amx", [False, True])
def test_products_are_in_bfloat16_by_themselves_only_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, has_amx: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has_amx})
    assert matmul_dtype("auto") == (torch.bfloat16 if has_amx else None)
    assert matmul_dtype("float32") is None
    assert matmul_dtype("bfloat16") == torch.bfloat16
