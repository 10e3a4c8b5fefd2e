"""p_n(y|x): a balanced probabilistic binary tree with a label at each leaf.

Bamler and Mandt, "Extreme Classification via Adversarial Softmax Approximation", ICLR 2020,
section 2.3 and eq. (7). The trainer draws negatives from it; the query path ranks with it.

Shapes: B queries, K components of a projected query, L labels, P pairs of a query and a label, S
draws of a query, V inner nodes, E leaves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import FloatArray, IntArray

PADDING_LABEL = -1
# A turn against a bias of this size has the probability exp(-1000), which is zero in float64, and
# no logistic noise that float64 can hold ever takes it.
PADDING_BIAS = 1000.0


@final
class LabelTree:
    """Log p_n(y|x) = sum over the nodes of y's path of log sigmoid(zeta (w x + b)), eq. (7).

    Zeta is +1 where the path turns right and -1 where it turns left. The children of node v are
    2 v + 1 (left) and 2 v + 2 (right). There are 2^ceil(log2 L) leaves; those beyond the L labels
    are padding, each the sibling of a label and of probability zero. May be used by several
    threads at once.

    Args:
        weights_VK: float32 [V, K], V = E - 1.
        biases_V: float32 [V].
        labels_E: int64 [E], the label at each leaf from left to right; -1 for padding.

    Raises:
        InvalidInputError: If the arrays are no such tree; names the one at fault.
    """

    def __init__(self, weights_VK: FloatArray, biases_V: FloatArray, labels_E: IntArray) -> None:
        _check_arrays(weights_VK, biases_V, labels_E)
        _check_leaves(weights_VK, biases_V, labels_E)
        self.weights_VK = weights_VK
        self.biases_V = biases_V
        self.labels_E = labels_E
        is_label_E = labels_E >= 0
        self._leaves_L = np.empty(int(is_label_E.sum()), np.int64)
        self._leaves_L[labels_E[is_label_E]] = np.flatnonzero(is_label_E)

    @property
    def num_labels(self) -> int:
        """L."""
        return len(self._leaves_L)

    @property
    def num_components(self) -> int:
        """K."""
        return int(self.weights_VK.shape[1])

    @property
    def depth(self) -> int:
        """Turns on the way to a label, ceil(log2 L)."""
        return len(self.labels_E).bit_length() - 1

    @property
    def nbytes(self) -> int:
        """Memory of its arrays, in bytes."""
        arrays = (self.weights_VK, self.biases_V, self.labels_E, self._leaves_L)
        return sum(array.nbytes for array in arrays)

    def log_prob(
        self, projected_BK: FloatArray, rows_P: IntArray, labels_P: IntArray
    ) -> FloatArray:
        """Log p_n(y|x) of pairs of a query and a label: float32 [P], O(K log L) a pair.

        The value of a pair has the same bits whatever stands beside it.

        Args:
            projected_BK: float32 [B, K], the queries.
            rows_P: int64 [P], the query of each pair.
            labels_P: int64 [P], the label of each pair.

        Raises:
            InvalidInputError: If a label is not in the tree, or the width is not K.
        """
        self._check_width(projected_BK)
        self._check_labels(labels_P)
        leaves_P = self._leaves_L[labels_P]
        queries_PK = projected_BK[rows_P]
        log_probs_P = np.zeros(len(labels_P))
        for level in range(self.depth):
            below = self.depth - level
            nodes_P = (leaves_P >> below) + (1 << level) - 1
            turns_right_P = (leaves_P >> (below - 1)) & 1 == 1
            logits_P = self._logits(nodes_P, queries_PK)
            log_probs_P += log_sigmoid(np.where(turns_right_P, logits_P, -logits_P))
        return log_probs_P.astype(np.float32)

    def sample(
        self, projected_BK: FloatArray, num_draws: int, generator: np.random.Generator
    ) -> tuple[IntArray, FloatArray]:
        """Independent draws from p_n(.|x), by ancestral sampling: O(K log L) a draw.

        Args:
            projected_BK: float32 [B, K], the queries.
            num_draws: S.
            generator: The only source of randomness.

        Returns:
            int64 [B, S] labels, never padding, and float32 [B, S] their log-probabilities, the same
            bits as `log_prob` gives.

        Raises:
            InvalidInputError: If the width is not K.
        """
        self._check_width(projected_BK)
        shape = len(projected_BK), num_draws
        nodes_BS = np.zeros(shape, np.int64)
        log_probs_BS = np.zeros(shape)
        for _ in range(self.depth):
            logits_BS = self._logits(nodes_BS, projected_BK[:, None])
            # Logistic noise is below z with probability sigmoid(z).
            turns_right_BS = generator.logistic(size=shape) < logits_BS
            log_probs_BS += log_sigmoid(np.where(turns_right_BS, logits_BS, -logits_BS))
            nodes_BS = 2 * nodes_BS + 1 + turns_right_BS
        return self.labels_E[nodes_BS - len(self.biases_V)], log_probs_BS.astype(np.float32)

    def save(self, path: Path) -> None:
        """Writes the arrays as a safetensors file.

        Raises:
            OSError: If the file cannot be written.
        """
        arrays = {"weights": self.weights_VK, "biases": self.biases_V, "labels": self.labels_E}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)

    @classmethod
    def load(cls, path: Path) -> LabelTree:
        """What `save` wrote.

        Raises:
            BundleError: If the file cannot be read or holds no such tree.
        """
        try:
            arrays = load_file(path)
            return cls(arrays["weights"], arrays["biases"], arrays["labels"])
        except (OSError, KeyError, SafetensorError, InvalidInputError) as error:
            raise BundleError(path, f"not a label tree: {error}") from error

    def _logits(self, nodes: IntArray, queries: FloatArray) -> NDArray[np.float64]:
        # One dot product of K terms a pair, so that what stands beside it cannot change its bits.
        dots: FloatArray = np.vecdot(self.weights_VK.take(nodes, axis=0), queries)
        return (dots + self.biases_V[nodes]).astype(np.float64)

    def _check_width(self, projected_BK: FloatArray) -> None:
        if projected_BK.ndim != 2 or projected_BK.shape[1] != self.num_components:
            expected = f"[queries, {self.num_components}]"
            raise InvalidInputError(
                "projected.shape", expected=expected, actual=list(projected_BK.shape)
            )

    def _check_labels(self, labels_P: IntArray) -> None:
        if len(labels_P) and not 0 <= labels_P.min() <= labels_P.max() < self.num_labels:
            place = int(np.flatnonzero((labels_P < 0) | (labels_P >= self.num_labels))[0])
            expected = f"0 to {self.num_labels - 1}, the labels of the tree"
            raise InvalidInputError(f"labels[{place}]", expected=expected, actual=labels_P[place])


def log_sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log(1 / (1 + exp(-z))) of each z, float64, without overflow."""
    values: NDArray[np.float64] = np.minimum(logits, 0.0) - np.log1p(np.exp(-np.abs(logits)))
    return values


def _check_arrays(weights_VK: FloatArray, biases_V: FloatArray, labels_E: IntArray) -> None:
    num_leaves = len(labels_E) if labels_E.ndim == 1 else 0
    if labels_E.dtype != np.int64 or num_leaves < 1 or num_leaves & (num_leaves - 1):
        _fail("labels", "int64 [a power of two]", labels_E)
    if weights_VK.dtype != np.float32 or weights_VK.ndim != 2 or len(weights_VK) != num_leaves - 1:
        _fail("weights", f"float32 [{num_leaves - 1}, components]", weights_VK)
    if biases_V.dtype != np.float32 or biases_V.shape != (num_leaves - 1,):
        _fail("biases", f"float32 [{num_leaves - 1}]", biases_V)
    for name, array in (("weights", weights_VK), ("biases", biases_V)):
        if not np.isfinite(array).all():
            raise InvalidInputError(f"label_tree.{name}", expected="finite numbers", actual=array)


def _check_leaves(weights_VK: FloatArray, biases_V: FloatArray, labels_E: IntArray) -> None:
    """Refuses a tree that lacks a label, has one twice, or could draw padding."""
    found = np.sort(labels_E[labels_E != PADDING_LABEL])
    if not np.array_equal(found, np.arange(len(found))) or 2 * len(found) <= len(labels_E):
        expected = "each of 0 to L - 1 once, and less than half of it -1"
        raise InvalidInputError("label_tree.labels", expected=expected, actual=labels_E)
    padding = np.flatnonzero(labels_E == PADDING_LABEL)
    parents = (padding + len(biases_V) - 1) // 2
    is_right = padding % 2 == 1
    away = np.where(is_right, -biases_V[parents], biases_V[parents])
    if weights_VK[parents].any() or (away < PADDING_BIAS).any():
        expected = f"no weights and a bias of {PADDING_BIAS:g} away from it beside padding"
        raise InvalidInputError("label_tree.biases", expected=expected, actual=biases_V[parents])


def _fail(name: str, expected: str, array: NDArray[Any]) -> None:
    actual = f"{array.dtype} {list(array.shape)}"
    raise InvalidInputError(f"label_tree.{name}", expected=expected, actual=actual)
