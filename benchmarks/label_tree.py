"""Time and memory of fitting the label tree, and time of drawing a batch, on simulated data.

Run `python benchmarks/label_tree.py [--scale 0.1]`; scale 1 is 250,000 labels and 1,000,000 inputs
of 50 sparse features each. Labels lie in clusters and their frequencies fall as in text (Zipf, to
the power of 0.8). Each figure is measured once.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from machine import peak_gib, print_result

from motherlode.core.queries import FloatArray, IntArray, SparseQueries
from motherlode.core.rankers import LabelTree, Whitening
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.label_tree import fit_label_tree
from motherlode.trainer.negatives import AdversarialSampler, Batch, LabelTreeConfig
from motherlode.trainer.whitening import fit_whitening

NUM_LABELS = 250_000
NUM_INPUTS = 1_000_000
NUM_FEATURES = 100_000
FEATURES_EACH = 50
COMPONENTS = 16
BATCH = 512
DRAWS = (1, 8, 32)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.1, help="of labels and inputs")
    scale = parser.parse_args().scale
    num_labels, num_inputs = int(scale * NUM_LABELS), int(scale * NUM_INPUTS)
    rng = np.random.default_rng(0)
    labels_N = draw_labels(rng, num_inputs, num_labels)
    rows: list[list[object]] = []
    sparse = make_sparse(rng, num_inputs)
    start = time.perf_counter()
    whitening = fit_whitening(sparse, COMPONENTS, rng)
    whitening.transform(sparse)
    rows.append(["whitening of sparse features, s", seconds_since(start)])
    projected_NK = make_clustered(rng, labels_N, num_labels)
    positives = PositiveRows(np.arange(num_inputs + 1), labels_N)
    start = time.perf_counter()
    tree = fit_label_tree(projected_NK, positives, num_labels, LabelTreeConfig())
    rows.append(["label tree, s", seconds_since(start)])
    rows.append(["largest memory, GiB", round(peak_gib(), 2)])
    rows += likelihoods(tree, projected_NK, labels_N)
    for draws in DRAWS:
        rows.append([f"a batch of {BATCH} x {draws} draws, ms", draw_ms(tree, sparse, draws)])
    print_result(f"label tree, {num_labels} labels, {num_inputs} inputs", ["what", "value"], rows)


def draw_labels(rng: np.random.Generator, num_inputs: int, num_labels: int) -> IntArray:
    """One label an input; which labels are frequent has nothing to do with where they lie."""
    frequencies_L = 1.0 / np.arange(1, num_labels + 1) ** 0.8
    ranks_N = rng.choice(num_labels, num_inputs, p=frequencies_L / frequencies_L.sum())
    return rng.permutation(num_labels)[ranks_N]


def make_clustered(rng: np.random.Generator, labels_N: IntArray, num_labels: int) -> FloatArray:
    """Whitened inputs around their labels, 25 labels a cluster: float32 [N, K]."""
    centres_CK = rng.standard_normal((max(1, num_labels // 25), COMPONENTS))
    places_LK = centres_CK[rng.integers(len(centres_CK), size=num_labels)]
    places_LK += 0.5 * rng.standard_normal(places_LK.shape)
    inputs_NK = places_LK[labels_N] + 0.7 * rng.standard_normal((len(labels_N), COMPONENTS))
    inputs_NK -= inputs_NK.mean(axis=0)
    inputs_NK /= inputs_NK.std(axis=0)
    return inputs_NK.astype(np.float32)


def make_sparse(rng: np.random.Generator, num_inputs: int) -> SparseQueries:
    """Inputs of 50 features, one of each 2,000, the first of them the most common."""
    width = NUM_FEATURES // FEATURES_EACH
    places_NJ = (width * rng.random((num_inputs, FEATURES_EACH)) ** 3).astype(np.int64)
    indices_NJ = places_NJ + width * np.arange(FEATURES_EACH)
    values = rng.random(indices_NJ.size, np.float32)
    indptr = np.arange(0, indices_NJ.size + 1, FEATURES_EACH)
    return SparseQueries(indptr, indices_NJ.ravel(), values, NUM_FEATURES)


def likelihoods(
    tree: LabelTree, projected_NK: FloatArray, labels_N: IntArray
) -> list[list[object]]:
    """Mean log-probability of the training labels, in nats."""
    part = slice(0, 100_000)
    rows = np.arange(len(labels_N[part]))
    by_tree = tree.log_prob(projected_NK[part], rows, labels_N[part]).mean()
    shares = np.bincount(labels_N, minlength=tree.num_labels) / len(labels_N)
    return [
        ["mean log p_n(y|x)", round(float(by_tree), 2)],
        ["mean log frequency", round(float(np.log(shares[labels_N[part]]).mean()), 2)],
    ]


def draw_ms(tree: LabelTree, sparse: SparseQueries, draws: int) -> float:
    """Milliseconds of a batch, the best of ten: whitening, drawing, masking and log_q."""
    table_FK = np.random.default_rng(0).standard_normal((NUM_FEATURES, COMPONENTS))
    whitening = Whitening(table_FK.astype(np.float32), np.zeros(COMPONENTS, np.float32))
    sampler = AdversarialSampler(whitening, tree, draws, tree.num_labels)
    batch = Batch(sparse.rows(0, BATCH), torch.arange(BATCH), torch.arange(BATCH))
    generator = torch.Generator().manual_seed(0)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        sampler.sample(batch, torch.empty(0), torch.empty(0), generator)
        times.append(time.perf_counter() - start)
    return round(1e3 * min(times), 2)


def seconds_since(start: float) -> float:
    """Wall time since then."""
    return round(time.perf_counter() - start, 1)


if __name__ == "__main__":
    main()
