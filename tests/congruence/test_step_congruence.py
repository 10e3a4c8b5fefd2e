"""What a training step computes by a shorter way, against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from motherlode.core.encoders import BagEncoderConfig, new_encoder
from motherlode.core.queries import SparseQueries
from motherlode.trainer.losses.softmax import log_sum_exp
from motherlode.trainer.negatives import keep_hardest


def random_scores(num_rows: int, num_columns: int) -> tuple[Tensor, Tensor]:
    """Scores of very different sizes, and a mask that leaves nothing of the first row."""
    generator = torch.Generator().manual_seed(0)
    scores_BK = torch.randn(num_rows, num_columns, generator=generator, dtype=torch.float64)
    scores_BK *= torch.logspace(-2, 9, num_rows, dtype=torch.float64)[:, None]
    mask_BK = torch.rand(num_rows, num_columns, generator=generator) < 0.8
    mask_BK[0] = False
    return scores_BK, mask_BK


@pytest.mark.parametrize("num_rows", [1, 32, 75])
def test_log_sum_exp_and_its_gradient_are_those_of_torch(num_rows: int) -> None:
    scores_BK, mask_BK = random_scores(num_rows, 40)
    ours, theirs = scores_BK.clone().requires_grad_(), scores_BK.clone().requires_grad_()
    sums_B = log_sum_exp(ours, mask_BK)
    expected_B = torch.logsumexp(theirs.masked_fill(~mask_BK, -1e300), dim=1)
    torch.testing.assert_close(sums_B[1:], expected_B[1:])
    assert sums_B[0] == torch.finfo(torch.float64).min
    sums_B.sum().backward()  # type: ignore[no-untyped-call]
    expected_B[1:].sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(
        ours.grad, theirs.grad if num_rows > 1 else torch.zeros(1, 40).double()
    )


def test_the_hardest_are_those_of_a_full_sort() -> None:
    scores_BK, mask_BK = random_scores(20, 50)
    kept_BK, kept_mask_BK = keep_hardest(scores_BK, mask_BK, 10)
    lowest = torch.finfo(torch.float64).min
    order_BK = scores_BK.masked_fill(~mask_BK, lowest).argsort(dim=1, descending=True)[:, :10]
    assert kept_mask_BK.equal(mask_BK.gather(1, order_BK))
    expected_BK = scores_BK.gather(1, order_BK).sort(dim=1).values
    assert kept_BK[1:].sort(dim=1).values.equal(expected_BK[1:])


def test_the_gradient_of_a_bag_is_that_of_an_embedding_bag() -> None:
    """With a feature twice in a query, a feature of no query, and a query without any."""
    indptr, indices = np.array([0, 3, 3, 5]), np.array([0, 2, 2, 2, 3])
    values = np.array([1.0, -2.0, 0.5, 3.0, 4.0], np.float32)
    generator = torch.Generator().manual_seed(0)
    table_FD = torch.randn(5, 4, generator=generator)
    gradients_BD = torch.randn(3, 4, generator=generator)
    ours, theirs = table_FD.clone().requires_grad_(), table_FD.clone().requires_grad_()
    encoder = new_encoder(BagEncoderConfig(width=4), table_FD, generator)
    projected_BD = encoder.project(SparseQueries(indptr, indices, values, 5), ours)
    expected_BD = F.embedding_bag(
        torch.from_numpy(indices),
        theirs,
        torch.from_numpy(indptr),
        mode="sum",
        per_sample_weights=torch.from_numpy(values),
        include_last_offset=True,
    )
    assert projected_BD.equal(expected_BD)
    projected_BD.backward(gradients_BD)  # type: ignore[no-untyped-call]
    expected_BD.backward(gradients_BD)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours.grad, theirs.grad)
