"""Regularizers of label embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from motherlode.core.errors import ConfigError
from motherlode.core.queries import DenseQueries
from motherlode.trainer.config import check_config
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.negatives import Batch
from motherlode.trainer.regularizers import (
    ConditionalFrequencies,
    Glas,
    GlasConfig,
    NoRegularizerConfig,
    Regularizer,
    SpreadOut,
    SpreadOutConfig,
    new_regularizer,
    one_positive_each,
)

NUM_LABELS = 30


def random_truth() -> np.ndarray:
    """float64 [200, 30]: queries with any number of labels; the last label has no query."""
    truth = np.random.default_rng(0).random((200, NUM_LABELS)) < 0.15
    truth[:, -1] = False
    return truth.astype(np.float64)


def positives_of(truth: np.ndarray) -> PositiveRows:
    indptr = np.concatenate([[0], np.cumsum(truth.sum(axis=1))]).astype(np.int64)
    return PositiveRows(indptr, np.nonzero(truth)[1])


def dense_frequencies(truth: np.ndarray) -> np.ndarray:
    """U = (A Z^-1 + Z^-1 A) / 2 as the paper writes it, with A = Y^T Y and Z its diagonal."""
    together = truth.T @ truth
    inverse = np.diag(1 / np.maximum(np.diag(together), 1))
    return (together @ inverse + inverse @ together) / 2


def test_frequencies_are_those_of_the_dense_formula() -> None:
    truth = random_truth()
    ids = np.random.default_rng(1).integers(NUM_LABELS - 1, size=40)

    block_BB = ConditionalFrequencies(positives_of(truth), NUM_LABELS).among(ids)

    np.testing.assert_allclose(block_BB, dense_frequencies(truth)[np.ix_(ids, ids)], rtol=1e-6)


def test_glas_is_the_squared_distance_to_the_frequencies() -> None:
    truth = random_truth()
    ids_B = torch.randint(NUM_LABELS - 1, (16,), generator=torch.Generator().manual_seed(0))
    table_LD = F.normalize(torch.randn(NUM_LABELS, 8, generator=torch.Generator().manual_seed(1)))
    glas = Glas(3.0, ConditionalFrequencies(positives_of(truth), NUM_LABELS))

    labels_BD = table_LD[ids_B].double().numpy()
    wanted_BB = dense_frequencies(truth)[np.ix_(ids_B.numpy(), ids_B.numpy())]
    expected = 3.0 / 16**2 * np.square(labels_BD @ labels_BD.T - wanted_BB).sum()

    assert glas(table_LD[ids_B], ids_B).item() == pytest.approx(expected, rel=1e-5)


def test_spread_out_leaves_out_pairs_of_a_label_with_itself() -> None:
    labels_BD = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]))
    # Only the pairs of label 7 with label 8 count: 4 of 9, each of cos^2 = 1/2.
    value = SpreadOut(9.0)(labels_BD, torch.tensor([7, 7, 8]))
    assert value.item() == pytest.approx(4 * 0.5)


def test_glas_pulls_labels_of_one_query_together_and_others_apart() -> None:
    # Labels 0 and 1 always stand together, label 2 alone.
    truth = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    glas = Glas(1.0, ConditionalFrequencies(positives_of(truth), 3))
    table_LD = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids_B = torch.arange(3)
    optimizer = torch.optim.Adam([table_LD], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        glas(F.normalize(table_LD), ids_B).backward()
        optimizer.step()
    cosines = (F.normalize(table_LD) @ F.normalize(table_LD).T).detach()
    assert cosines[0, 1] > 0.99
    assert cosines[:2, 2].abs().max() < 0.05


@pytest.mark.parametrize(
    ("config", "expected"),
    [(NoRegularizerConfig(), None), (SpreadOutConfig(), SpreadOut), (GlasConfig(), Glas)],
)
def test_a_configuration_names_its_regularizer(
    config: NoRegularizerConfig | SpreadOutConfig | GlasConfig,
    expected: type[Regularizer] | None,
) -> None:
    regularizer = new_regularizer(config, positives_of(random_truth()), NUM_LABELS)
    assert regularizer is None if expected is None else isinstance(regularizer, expected)


def test_each_positive_of_a_query_is_drawn_as_often_as_the_others() -> None:
    # Query 1 has no positives.
    batch = Batch(
        DenseQueries(np.zeros((3, 1), np.float32)),
        torch.tensor([5, 6, 7, 5]),
        torch.tensor([0, 0, 0, 2]),
    )
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([one_positive_each(batch, generator) for _ in range(3000)])
    assert drawn[:, 1].eq(3).all()
    counts = torch.bincount(drawn[:, 0], minlength=4)
    # Five standard deviations of a binomial of 3,000 and 1/3.
    assert (counts[:3] - 1000).abs().max() < 5 * 26
    assert counts[3] == 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "lasso"}, "regularizer.*'none', 'spread_out', 'glas'"),
        ({"kind": "glas", "weight": 0}, "regularizer.weight: expected greater than 0, got 0"),
        ({"kind": "none", "weight": 1}, "regularizer.weight: expected no such key"),
    ],
)
def test_a_wrong_section_is_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config({"regularizer": section})
