"""Fitting single nodes of the label tree, many at once.

Bamler and Mandt, "Extreme Classification via Adversarial Softmax Approximation", ICLR 2020,
section 2.3 and eqs. (8) and (9), as the paper has it: their released code scores labels by the
initial direction, and without the bias.

Shapes: G nodes, M labels of a node, X pairs of a node (its training inputs, once for each of their
labels in the node), T tiles of R pairs each with T R = X, K components of an input, D = K + 1 with
the bias. Nodes and their labels are padded to the same M and X; a padded pair is a row of zeros and
takes part in nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.queries import IntArray
from motherlode.core.rankers.label_tree import log_sigmoid

# Newton's step from here leads to the maximum in float64; relative to the number of pairs.
_SMALL_DECREMENT = 1e-12
# What a core keeps near itself, of one node.
_TILES_AT_ONCE = 64
_MOST_STEPS = 100
_MOST_HALVINGS = 40
_SUFFICIENT_GAIN = 1e-4

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """What nodes are fitted to.

    Attributes:
        inputs_GTRD: float64 [G, T, R, D], the pairs' inputs, each with a 1 for the bias.
        slots_GX: int32 or int64 [G, X], which of the node's labels each pair has.
        sums_GMD: float64 [G, M, D], S_y and n_y of eq. (9): the sum of the label's inputs.
        counts_G: int64 [G], labels of each node, at least 1; they stand first.
    """

    inputs_GTRD: Doubles
    slots_GX: NDArray[Any]
    sums_GMD: Doubles
    counts_G: IntArray

    def __len__(self) -> int:
        return len(self.counts_G)

    def select(self, chosen: NDArray[Any]) -> Nodes:
        """Some of the nodes."""
        return Nodes(
            self.inputs_GTRD[chosen],
            self.slots_GX[chosen],
            self.sums_GMD[chosen],
            self.counts_G[chosen],
        )


def fit_nodes(nodes: Nodes, regularization: float, max_rounds: int) -> tuple[Doubles, Bools]:
    """Maximises eq. (8) over the parameters and the split of each node, in turns.

    Starts with the split along the dominant direction. Each round is a Newton ascent to the maximum
    over (w, b), then the discrete step of eq. (9) with that (w, b). No turn lowers eq. (8). A node
    is finished when its split does not change.

    Args:
        nodes: What they are fitted to.
        regularization: lambda_n, above 0.
        max_rounds: Splits of a node that are tried at most.

    Returns:
        float64 [G, D], weights and bias, and bool [G, M], which labels go right.
    """
    fitted_GD = np.zeros((len(nodes), nodes.sums_GMD.shape[2]))
    split_GM = np.zeros(nodes.sums_GMD.shape[:2], np.bool_)
    ascent = Ascent(nodes, dominant_split(nodes), regularization)
    places = np.arange(len(nodes))
    is_done = np.zeros(len(nodes), np.bool_)
    while not is_done.all():
        is_at_rest = ascent.step()
        is_changed = ascent.split_again(is_at_rest, max_rounds)
        is_done |= is_at_rest & ~is_changed
        if is_done.sum() * 4 >= len(is_done):
            fitted_GD[places[is_done]] = ascent.parameters_GD[is_done]
            split_GM[places[is_done]] = ascent.split_GM[is_done]
            places, ascent = places[~is_done], ascent.select(~is_done)
            is_done = is_done[~is_done]
    return fitted_GD, split_GM


@final
class Ascent:
    """Nodes on the way to their maximum.

    Attributes:
        nodes: What they are fitted to.
        split_GM: bool [G, M], which labels go right.
        parameters_GD: float64 [G, D], weights and bias.
    """

    def __init__(self, nodes: Nodes, split_GM: Bools, regularization: float) -> None:
        self.nodes = nodes
        self.split_GM = split_GM
        self.parameters_GD = np.zeros((len(nodes), nodes.sums_GMD.shape[2]))
        self._regularization = regularization
        self._zeta_GX = _zeta(nodes, split_GM)
        self._logits_GX = np.zeros(self._zeta_GX.shape)
        self._num_steps_G = np.zeros(len(nodes), np.int64)
        self._num_rounds_G = np.ones(len(nodes), np.int64)

    def select(self, chosen: Bools) -> Ascent:
        """Some of the nodes, as far as they are."""
        part = Ascent(self.nodes.select(chosen), self.split_GM[chosen], self._regularization)
        part.parameters_GD = self.parameters_GD[chosen]
        part._logits_GX = self._logits_GX[chosen]
        part._num_steps_G = self._num_steps_G[chosen]
        part._num_rounds_G = self._num_rounds_G[chosen]
        return part

    def objective(self) -> Doubles:
        """Eq. (8) of each node, up to a constant of its padding: float64 [G]."""
        return self._objective(self.parameters_GD, self._logits_GX)

    def step(self) -> Bools:
        """One step of Newton's method for each node: bool [G], which are now at their maximum."""
        gradient_GD, curvature_GDD = self._derivatives()
        solved_GD1 = np.linalg.solve(curvature_GDD, gradient_GD[:, :, None])
        direction_GD: Doubles = solved_GD1[:, :, 0].astype(np.float64, copy=False)
        decrement_G: Doubles = np.vecdot(gradient_GD, direction_GD)
        self._move(direction_GD, decrement_G)
        self._num_steps_G += 1
        num_pairs_G = self.nodes.sums_GMD[:, :, -1].sum(axis=1)
        is_small_G: Bools = decrement_G <= _SMALL_DECREMENT * (1.0 + num_pairs_G)
        is_small_G |= self._num_steps_G >= _MOST_STEPS
        return is_small_G

    def split_again(self, chosen_G: Bools, max_rounds: int) -> Bools:
        """Eq. (9) for the chosen nodes: bool [G], which have a better split now."""
        places = np.flatnonzero(chosen_G & (self._num_rounds_G < max_rounds))
        is_changed_G = np.zeros(len(chosen_G), np.bool_)
        part = self.nodes.sums_GMD[places]
        delta_GM = np.matmul(part, self.parameters_GD[places, :, None])[:, :, 0]
        split_GM = best_split(delta_GM, self.nodes.counts_G[places])
        # Only where it truly gains: labels that tie, or nearly so, must not go to and fro.
        gain_G = np.where(split_GM, delta_GM, 0.0).sum(axis=1)
        gain_G -= np.where(self.split_GM[places], delta_GM, 0.0).sum(axis=1)
        gains = gain_G > 1e-10 * np.abs(delta_GM).sum(axis=1)
        changed = places[gains]
        is_changed_G[changed] = True
        self.split_GM[changed] = split_GM[gains]
        self._zeta_GX[changed] = _zeta(self.nodes, self.split_GM, changed)
        self._num_steps_G[changed] = 0
        self._num_rounds_G[changed] += 1
        return is_changed_G

    def _derivatives(self) -> tuple[Doubles, Doubles]:
        """The gradient of eq. (8), and its second derivative times -1."""
        tiles = self.nodes.inputs_GTRD.shape[:3]
        wrong_GX = np.exp(log_sigmoid(-self._zeta_GX * self._logits_GX))
        errors_GTR = (self._zeta_GX * wrong_GX).reshape(tiles)
        spread_GTR = (wrong_GX * (1.0 - wrong_GX)).reshape(tiles)
        gradient_GD = np.zeros_like(self.parameters_GD)
        curvature_GDD = np.zeros((*gradient_GD.shape, gradient_GD.shape[1]))
        for start in range(0, tiles[1], _TILES_AT_ONCE):
            part = slice(start, start + _TILES_AT_ONCE)
            inputs = self.nodes.inputs_GTRD[:, part]
            gradient_GD += np.matmul(errors_GTR[:, part, None], inputs).sum(axis=1)[:, 0]
            weighted = (inputs * spread_GTR[:, part, :, None]).swapaxes(2, 3)
            curvature_GDD += np.matmul(weighted, inputs).sum(axis=1)
        gradient_GD -= 2.0 * self._regularization * self.parameters_GD
        curvature_GDD += 2.0 * self._regularization * np.eye(gradient_GD.shape[1])
        return gradient_GD, curvature_GDD

    def _move(self, direction_GD: Doubles, decrement_G: Doubles) -> None:
        """Along the direction: the whole of it, or half as often as it takes to gain."""
        inputs_GTRD = self.nodes.inputs_GTRD
        changes_GX = np.matmul(inputs_GTRD, direction_GD[:, None, :, None])
        changes_GX = changes_GX.reshape(self._logits_GX.shape)
        before_G = self.objective()
        # What rounding alone may take away.
        slack_G = 1e-12 * (1.0 + np.abs(before_G))
        length_G = np.ones(len(direction_GD))
        for _ in range(_MOST_HALVINGS):
            parameters_GD = self.parameters_GD + length_G[:, None] * direction_GD
            logits_GX = self._logits_GX + length_G[:, None] * changes_GX
            gain_G = self._objective(parameters_GD, logits_GX) - before_G
            too_long_G = gain_G < _SUFFICIENT_GAIN * length_G * decrement_G - slack_G
            if not too_long_G.any():
                break
            length_G[too_long_G] /= 2
        self.parameters_GD, self._logits_GX = parameters_GD, logits_GX

    def _objective(self, parameters_GD: Doubles, logits_GX: Doubles) -> Doubles:
        values_G: Doubles = log_sigmoid(self._zeta_GX * logits_GX).sum(axis=1)
        values_G -= self._regularization * np.vecdot(parameters_GD, parameters_GD)
        return values_G


def best_split(delta_GM: Doubles, counts_G: IntArray) -> Bools:
    """Eq. (9): the half of each node's labels with the largest Delta goes right, bool [G, M].

    Of an odd number the one in the middle goes right if its Delta is positive, which is the better
    of the two. Ties go by place.

    Args:
        delta_GM: float64 [G, M].
        counts_G: int64 [G], at least 1; the rest of a row is padding.
    """
    is_label_GM = np.arange(delta_GM.shape[1]) < counts_G[:, None]
    order_GM = np.argsort(np.where(is_label_GM, -delta_GM, np.inf), axis=1, kind="stable")
    halves_G = counts_G // 2
    middle_G = np.take_along_axis(order_GM, halves_G[:, None], axis=1)
    is_positive_G = np.take_along_axis(delta_GM, middle_G, axis=1)[:, 0] > 0
    num_right_G = halves_G + ((counts_G % 2 == 1) & is_positive_G)
    split_GM = np.zeros(delta_GM.shape, np.bool_)
    ranked_GM = np.arange(delta_GM.shape[1]) < num_right_G[:, None]
    np.put_along_axis(split_GM, order_GM, ranked_GM, axis=1)
    return split_GM


def dominant_split(nodes: Nodes) -> Bools:
    """The split to start with: Delta_y = w S_y, w the dominant eigenvector of cov(S_y), no bias."""
    sums_GMK = nodes.sums_GMD[:, :, :-1]
    if sums_GMK.shape[1] <= 2:
        # Either of two labels may go right; the likelihood is the same mirrored.
        return best_split(np.zeros(sums_GMK.shape[:2]), nodes.counts_G)
    is_label_GM = np.arange(sums_GMK.shape[1]) < nodes.counts_G[:, None]
    means_GK = sums_GMK.sum(axis=1) / nodes.counts_G[:, None]
    centred_GMK = np.where(is_label_GM[..., None], sums_GMK - means_GK[:, None], 0.0)
    covariance_GKK = np.matmul(centred_GMK.swapaxes(1, 2), centred_GMK)
    direction_GK = np.linalg.eigh(covariance_GKK)[1][:, :, -1]
    # Which of the two signs comes out is up to the library.
    largest_G1 = np.abs(direction_GK).argmax(axis=1)[:, None]
    direction_GK = direction_GK * np.where(
        np.take_along_axis(direction_GK, largest_G1, axis=1) < 0, -1.0, 1.0
    )
    return best_split(np.matmul(sums_GMK, direction_GK[:, :, None])[:, :, 0], nodes.counts_G)


def _zeta(nodes: Nodes, split_GM: Bools, chosen: IntArray | None = None) -> Doubles:
    """+1 for pairs whose label goes right, -1 for the others: float64 [G, X]."""
    slots_GX = nodes.slots_GX if chosen is None else nodes.slots_GX[chosen]
    split_GM = split_GM if chosen is None else split_GM[chosen]
    return np.where(np.take_along_axis(split_GM, slots_GX, axis=1), 1.0, -1.0)
