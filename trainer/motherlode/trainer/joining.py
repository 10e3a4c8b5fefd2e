"""How a ranker joins what it knows of a hit: fitted such that true hits stand above the others.

Shapes: B queries, C hits of the longest shortlist, N hits in all, J terms of the sum, I inputs of
the hidden units, H of these.
"""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus, softsign

from motherlode.core.queries import FloatArray, IntArray
from motherlode.core.rankers import HiddenUnits

_NUM_HIDDEN = 16
# Like what two queries say that no input has any weight: the more queries, the less it counts.
_L2_OF_ALL_QUERIES = 1.0
_MAX_ROUNDS = 100


@final
class Join(NamedTuple):
    """Weights of the terms, and the hidden units that are added to their sum."""

    weights: tuple[float, ...]
    hidden: HiddenUnits


class _Standardized(NamedTuple):
    """Inputs of all places of the shortlists, each with mean 0 and spread 1; 0 if it is constant.

    Attributes:
        inputs_BCJ: float32 [B, C, J].
        means_J: float64 [J].
        spreads_J: float64 [J]; infinite for a constant.
    """

    inputs_BCJ: Tensor
    means_J: NDArray[np.float64]
    spreads_J: NDArray[np.float64]


class _Truth(NamedTuple):
    """Which places of the shortlists hold a hit that is true, and one that is wrong.

    Attributes:
        is_true_BC: bool [B, C].
        is_wrong_BC: bool [B, C].
    """

    is_true_BC: Tensor
    is_wrong_BC: Tensor


def fit_join(
    joined_JN: FloatArray,
    inputs_IN: FloatArray,
    is_true_N: NDArray[np.bool_],
    counts_B: IntArray,
    *,
    seed: int,
) -> Join | None:
    """The join of some hits, or None where there is nothing to tell apart.

    Minimises, over the queries with a true hit and a wrong one, the mean of the decoupled softmax
    of each true hit against all wrong hits of its query; and a small multiple of the squares of all
    weights, in units of each input's spread. To judge hits one by one instead gave worse recall:
    what is fitted must rank the hits of a query against each other.

    Args:
        joined_JN: float32 [J, N], the terms of the sum.
        inputs_IN: float32 [I, N], the inputs of the hidden units.
        is_true_N: bool [N], which hits are true.
        counts_B: int64 [B], hits of each query.
        seed: Of the weights that the hidden units start with.
    """
    is_hit_BC = np.arange(counts_B.max(initial=0)) < counts_B[:, None]
    is_true_BC = np.zeros(is_hit_BC.shape, np.bool_)
    is_true_BC[is_hit_BC] = is_true_N
    is_wrong_BC = is_hit_BC & ~is_true_BC
    chosen_B = np.asarray(is_true_BC.any(axis=1) & is_wrong_BC.any(axis=1))
    if not chosen_B.any():
        return None
    truth = _Truth(torch.from_numpy(is_true_BC[chosen_B]), torch.from_numpy(is_wrong_BC[chosen_B]))
    joined = _standardized(joined_JN, is_hit_BC, chosen_B)
    inputs = _standardized(inputs_IN, is_hit_BC, chosen_B)
    network = _Network(len(joined_JN), len(inputs_IN), seed)
    network.fit(joined.inputs_BCJ, inputs.inputs_BCJ, truth)
    return network.join(joined, inputs)


def _standardized(
    inputs_JN: FloatArray, is_hit_BC: NDArray[np.bool_], chosen_B: NDArray[np.bool_]
) -> _Standardized:
    means_J = inputs_JN.mean(axis=1, dtype=np.float64)
    spreads_J = inputs_JN.std(axis=1, dtype=np.float64)
    # What rounding leaves of a constant is none.
    spreads_J[spreads_J <= 1e-6 * np.abs(means_J)] = np.inf
    inputs_BCJ = np.zeros((*is_hit_BC.shape, len(inputs_JN)), np.float32)
    inputs_BCJ[is_hit_BC] = ((inputs_JN.T - means_J) / spreads_J).astype(np.float32)
    return _Standardized(torch.from_numpy(inputs_BCJ[chosen_B]), means_J, spreads_J)


@final
class _Network:
    """The join while it is fitted, of standardized inputs."""

    def __init__(self, num_terms: int, num_inputs: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weights_J = torch.zeros(num_terms)
        self.inner_IH = 0.5 * torch.randn(num_inputs, _NUM_HIDDEN, generator=generator)
        self.biases_H = torch.zeros(_NUM_HIDDEN)
        self.outer_H = torch.zeros(_NUM_HIDDEN)

    def fit(self, joined_BCJ: Tensor, inputs_BCI: Tensor, truth: _Truth) -> None:
        """Minimise the loss."""
        parameters = [self.weights_J, self.inner_IH, self.biases_H, self.outer_H]
        for parameter in parameters:
            parameter.requires_grad_()
        optimizer = torch.optim.LBFGS(
            parameters, max_iter=_MAX_ROUNDS, line_search_fn="strong_wolfe"
        )
        l2 = _L2_OF_ALL_QUERIES / len(joined_BCJ)

        def loss() -> Tensor:
            optimizer.zero_grad()
            squares = sum(parameter.square().sum() for parameter in parameters)
            total = _loss(self._scores(joined_BCJ, inputs_BCI), truth) + l2 * squares
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(loss)  # type: ignore[no-untyped-call]

    def join(self, joined: _Standardized, inputs: _Standardized) -> Join:
        """The same of the inputs as they come."""
        weights_J, inner_IH, biases_H, outer_H = (
            parameter.detach().double().numpy()
            for parameter in (self.weights_J, self.inner_IH, self.biases_H, self.outer_H)
        )
        inner_IH = inner_IH / inputs.spreads_J[:, None]
        hidden = HiddenUnits(
            inner=tuple(map(tuple, inner_IH.T.tolist())),
            biases=tuple((biases_H - inputs.means_J @ inner_IH).tolist()),
            outer=tuple(outer_H.tolist()),
        )
        return Join(tuple((weights_J / joined.spreads_J).tolist()), hidden)

    def _scores(self, joined_BCJ: Tensor, inputs_BCI: Tensor) -> Tensor:
        units_BCH = softsign(inputs_BCI @ self.inner_IH + self.biases_H)
        return joined_BCJ @ self.weights_J + units_BCH @ self.outer_H


def _loss(scores_BC: Tensor, truth: _Truth) -> Tensor:
    wrong_B1 = scores_BC.masked_fill(~truth.is_wrong_BC, -torch.inf).logsumexp(1, keepdim=True)
    losses_BC = softplus(wrong_B1 - scores_BC).masked_fill(~truth.is_true_BC, 0.0)
    return (losses_BC.sum(1) / truth.is_true_BC.sum(1)).mean()
