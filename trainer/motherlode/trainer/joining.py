"""How much each input of a ranker weighs: fitted such that true hits stand above the others.

Shapes: B queries, C hits of the longest shortlist, N hits in all, J inputs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import softplus

from motherlode.core.queries import FloatArray, IntArray

_L2 = 1e-3
_MAX_ROUNDS = 200


def fit_join(
    inputs_JN: FloatArray, is_true_N: NDArray[np.bool_], counts_B: IntArray
) -> NDArray[np.float64] | None:
    """float64 [J]: the weights of a sum of inputs, or None where there is nothing to tell apart.

    Minimises, over the queries with a true hit and a wrong one, the mean of the decoupled softmax
    of each true hit against all wrong hits of its query, which is convex in the weights; and a
    small multiple of their squares, in units of each input's spread. To judge hits one by one
    instead gave worse recall: what is fitted must rank the hits of a query against each other.

    Args:
        inputs_JN: float32 [J, N].
        is_true_N: bool [N], which hits are true.
        counts_B: int64 [B], hits of each query.
    """
    is_hit_BC = np.arange(counts_B.max(initial=0)) < counts_B[:, None]
    is_true_BC = np.zeros(is_hit_BC.shape, np.bool_)
    is_true_BC[is_hit_BC] = is_true_N
    is_wrong_BC = is_hit_BC & ~is_true_BC
    chosen_B = is_true_BC.any(axis=1) & is_wrong_BC.any(axis=1)
    if not chosen_B.any():
        return None
    spread_J = inputs_JN.std(axis=1, dtype=np.float64)
    spread_J[spread_J == 0] = 1.0
    inputs_BCJ = np.zeros((*is_hit_BC.shape, len(inputs_JN)))
    inputs_BCJ[is_hit_BC] = (inputs_JN / spread_J[:, None]).T
    parts = inputs_BCJ[chosen_B], is_true_BC[chosen_B], is_wrong_BC[chosen_B]
    weights_J: NDArray[np.float64] = _minimize(*map(torch.from_numpy, parts)).numpy() / spread_J
    return weights_J


def _minimize(
    inputs_BCJ: torch.Tensor, is_true_BC: torch.Tensor, is_wrong_BC: torch.Tensor
) -> torch.Tensor:
    """float64 [J]: weights of the inputs."""
    weights_J = torch.zeros(inputs_BCJ.shape[2], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights_J], max_iter=_MAX_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        scores_BC = inputs_BCJ @ weights_J
        wrong_B1 = scores_BC.masked_fill(~is_wrong_BC, -torch.inf).logsumexp(1, keepdim=True)
        losses_BC = softplus(wrong_B1 - scores_BC).masked_fill(~is_true_BC, 0.0)
        mean = (losses_BC.sum(1) / is_true_BC.sum(1)).mean()
        regularized = mean + _L2 * weights_J.square().sum()
        regularized.backward()  # type: ignore[no-untyped-call]
        return regularized

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights_J.detach()
