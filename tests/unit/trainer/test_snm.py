from __future__ import annotations

import torch

from motherlode.trainer.negatives import keep_hardest


def test_the_highest_unmasked_scores_are_kept() -> None:
    scores_BN = torch.tensor([[1.0, 9.0, 5.0, 7.0], [4.0, 3.0, 2.0, 1.0]])
    mask_BN = torch.tensor([[True, False, True, True], [True, True, True, True]])
    kept_BK, kept_mask_BK = keep_hardest(scores_BN, mask_BN, 2)
    assert [sorted(row) for row in kept_BK.tolist()] == [[5.0, 7.0], [3.0, 4.0]]
    assert kept_mask_BK.all()


def test_a_query_with_too_few_candidates_has_the_rest_masked() -> None:
    mask_BN = torch.tensor([[True, False, False, False]])
    _, kept_mask_BK = keep_hardest(torch.ones(1, 4), mask_BN, 3)
    assert kept_mask_BK.sum() == 1


def test_gradients_reach_the_kept_scores_alone() -> None:
    scores_BN = torch.tensor([[1.0, 9.0, 5.0]], requires_grad=True)
    kept_BK, _ = keep_hardest(scores_BN, torch.ones(1, 3, dtype=torch.bool), 2)
    kept_BK.sum().backward()
    assert scores_BN.grad is not None
    assert scores_BN.grad.tolist() == [[0.0, 1.0, 1.0]]


def test_keeping_at_least_all_changes_nothing() -> None:
    scores_BN, mask_BN = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    assert keep_hardest(scores_BN, mask_BN, 3)[0] is scores_BN
