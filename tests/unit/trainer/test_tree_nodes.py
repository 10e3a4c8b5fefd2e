from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from motherlode.trainer.tree_nodes import Ascent, Nodes, best_split, dominant_split, fit_nodes

LAMBDA = 0.1


def one_node(inputs_XK: NDArray[Any], labels_X: NDArray[Any]) -> Nodes:
    """A node over the labels 0 to M - 1, each with at least one input."""
    inputs_XD = np.hstack([inputs_XK, np.ones((len(inputs_XK), 1))])
    num_labels = int(labels_X.max()) + 1
    sums_MD = np.stack([inputs_XD[labels_X == label].sum(axis=0) for label in range(num_labels)])
    return Nodes(inputs_XD[None, None], labels_X[None], sums_MD[None], np.array([num_labels]))


def random_node(num_labels: int, num_inputs: int, seed: int) -> Nodes:
    rng = np.random.default_rng(seed)
    labels_X = np.concatenate([np.arange(num_labels), rng.integers(num_labels, size=num_inputs)])
    places_MK = 1 + rng.standard_normal((num_labels, 3))
    return one_node(places_MK[labels_X] + rng.standard_normal((len(labels_X), 3)), labels_X)


def objective(nodes: Nodes, parameters_D: NDArray[Any], split_M: NDArray[Any]) -> float:
    """Eq. (8) by the definition."""
    zeta_X = np.where(split_M[nodes.slots_GX[0]], 1.0, -1.0)
    logits_X = nodes.inputs_GTRD[0].reshape(len(zeta_X), -1) @ parameters_D
    likelihood = -np.logaddexp(0.0, -zeta_X * logits_X).sum()
    return float(likelihood - LAMBDA * (parameters_D**2).sum())


def gradient(nodes: Nodes, parameters_D: NDArray[Any], split_M: NDArray[Any]) -> NDArray[Any]:
    zeta_X = np.where(split_M[nodes.slots_GX[0]], 1.0, -1.0)
    inputs_XD = nodes.inputs_GTRD[0].reshape(len(zeta_X), -1)
    wrong_X = np.exp(-np.logaddexp(0.0, zeta_X * (inputs_XD @ parameters_D)))
    slope_D: NDArray[Any] = (zeta_X * wrong_X) @ inputs_XD - 2 * LAMBDA * parameters_D
    return slope_D


def climb(nodes: Nodes, split_M: NDArray[Any]) -> NDArray[Any]:
    """The parameters that maximise eq. (8) for a given split."""
    ascent = Ascent(nodes, split_M[None].copy(), LAMBDA)
    while not ascent.step().all():
        pass
    return ascent.parameters_GD[0]


def test_newton_reaches_a_gradient_of_zero() -> None:
    for seed in range(10):
        nodes = random_node(6, 200, seed)
        parameters_GD, split_GM = fit_nodes(nodes, LAMBDA, 50)
        assert np.abs(gradient(nodes, parameters_GD[0], split_GM[0])).max() < 1e-9


def test_newton_reaches_it_where_labels_are_far_apart_too() -> None:
    # A full step from anywhere would overshoot: inputs are large, and the two sides separable.
    inputs_XK = np.array([[1e3, 0.0], [1.1e3, 50.0], [-2.0, 1.0], [-3e3, -40.0]])
    nodes = one_node(inputs_XK, np.array([0, 0, 1, 1]))
    parameters_D = climb(nodes, np.array([True, False]))
    steepest = np.abs(gradient(nodes, parameters_D, np.array([True, False]))).max()
    assert steepest < 1e-9 * np.abs(inputs_XK).sum()


def test_the_maximum_is_the_maximum_of_eq_8() -> None:
    nodes = random_node(5, 100, 3)
    parameters_GD, split_GM = fit_nodes(nodes, LAMBDA, 50)
    best = objective(nodes, parameters_GD[0], split_GM[0])
    rng = np.random.default_rng(0)
    for size in (1e-3, 0.1, 1.0):
        nearby_D = parameters_GD[0] + size * rng.standard_normal(4)
        assert objective(nodes, nearby_D, split_GM[0]) < best


@given(
    st.lists(st.floats(-10, 10), min_size=1, max_size=7),
    st.integers(0, 3),
)
def test_the_split_is_the_best_of_all_halves(deltas: list[float], num_padding: int) -> None:
    num_labels = len(deltas)
    delta_GM = np.array([deltas + [0.0] * num_padding])
    split_M = best_split(delta_GM, np.array([num_labels]))[0]
    assert not split_M[num_labels:].any()
    assert split_M.sum() in {num_labels // 2, (num_labels + 1) // 2}
    gains = [
        sum(deltas[i] for i in chosen)
        for size in {num_labels // 2, (num_labels + 1) // 2}
        for chosen in combinations(range(num_labels), size)
    ]
    assert delta_GM[0][split_M].sum() >= max(gains) - 1e-9


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 9), st.integers(0, 60), st.integers(0, 2**16))
def test_neither_step_ever_lowers_the_objective(
    num_labels: int, num_inputs: int, seed: int
) -> None:
    nodes = random_node(num_labels, num_inputs, seed)
    ascent = Ascent(nodes, dominant_split(nodes), LAMBDA)
    values = [objective(nodes, ascent.parameters_GD[0], ascent.split_GM[0])]
    for _ in range(60):
        is_at_rest = ascent.step()
        values.append(objective(nodes, ascent.parameters_GD[0], ascent.split_GM[0]))
        is_changed = ascent.split_again(is_at_rest, max_rounds=20)
        values.append(objective(nodes, ascent.parameters_GD[0], ascent.split_GM[0]))
        if is_at_rest.all() and not is_changed.any():
            break
    assert np.diff(values).min() >= -1e-9 * (1 + abs(values[0]))
    assert values[-1] == ascent.objective()[0] or np.isclose(values[-1], ascent.objective()[0])


def frequency_trap() -> Nodes:
    """Eight labels on a line far from zero: four common, four rare, in mixed places."""
    rng = np.random.default_rng(0)
    places_M = np.array([-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0])
    counts_M = np.array([100, 150, 100, 100, 150, 100, 150, 150])
    labels_X = np.repeat(np.arange(8), counts_M)
    positions_X = 20 + places_M[labels_X] + 0.2 * rng.standard_normal(len(labels_X))
    return one_node(positions_X[:, None], labels_X)


def test_the_initial_direction_alone_splits_by_frequency_and_eq_9_by_place() -> None:
    # The sums S_y of inputs far from zero follow n_y. The released code of the paper stays there.
    nodes = frequency_trap()
    start_M = dominant_split(nodes)[0]
    assert np.flatnonzero(start_M).tolist() == [1, 4, 6, 7]
    parameters_GD, split_GM = fit_nodes(nodes, LAMBDA, 50)
    assert np.flatnonzero(split_GM[0]).tolist() == [4, 5, 6, 7]
    released = objective(nodes, climb(nodes, start_M), start_M)
    assert objective(nodes, parameters_GD[0], split_GM[0]) > released + 300


def test_delta_without_its_bias_term_would_stay_with_the_frequencies() -> None:
    nodes = frequency_trap()
    start_M = dominant_split(nodes)[0]
    parameters_D = climb(nodes, start_M)
    without_M = best_split(nodes.sums_GMD[:, :, :-1] @ parameters_D[:-1], nodes.counts_G)[0]
    with_M = best_split(nodes.sums_GMD @ parameters_D, nodes.counts_G)[0]
    assert without_M.tolist() == start_M.tolist()
    assert with_M.tolist() != start_M.tolist()
    better = objective(nodes, parameters_D, with_M)
    assert better > objective(nodes, parameters_D, without_M)


def test_nodes_fitted_together_are_fitted_as_if_alone() -> None:
    singles = [random_node(4, 60, seed) for seed in range(6)]
    together = Nodes(
        *(
            np.concatenate([getattr(node, name) for node in singles])
            for name in ("inputs_GTRD", "slots_GX", "sums_GMD", "counts_G")
        )
    )
    parameters_GD, split_GM = fit_nodes(together, LAMBDA, 50)
    for i, node in enumerate(singles):
        alone_GD, alone_GM = fit_nodes(node, LAMBDA, 50)
        np.testing.assert_allclose(parameters_GD[i], alone_GD[0], atol=1e-10)
        np.testing.assert_array_equal(split_GM[i], alone_GM[0])
