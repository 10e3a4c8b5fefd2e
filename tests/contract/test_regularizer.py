"""What every regularizer promises, run for every regularizer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from motherlode.trainer.data import PositiveRows
from motherlode.trainer.regularizers import (
    GlasConfig,
    Regularizer,
    SpreadOutConfig,
    new_regularizer,
)

NUM_LABELS = 30
IDS_B = torch.tensor([0, 3, 3, 9, 4, 28])


def new(kind: str, weight: float = 2.0) -> Regularizer:
    rng = np.random.default_rng(0)
    labels = [np.sort(rng.choice(NUM_LABELS, 4, replace=False)) for _ in range(100)]
    positives = PositiveRows(np.arange(0, 401, 4), np.concatenate(labels))
    config = GlasConfig(weight=weight) if kind == "glas" else SpreadOutConfig(weight=weight)
    regularizer = new_regularizer(config, positives, NUM_LABELS)
    assert regularizer is not None
    return regularizer


def table(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(NUM_LABELS, 5, dtype=torch.float64, generator=generator)


pytestmark = pytest.mark.parametrize("kind", ["spread_out", "glas"])


def test_gradients_match_finite_differences(kind: str) -> None:
    regularizer = new(kind)
    assert torch.autograd.gradcheck(
        lambda table_LD: regularizer(table_LD[IDS_B], IDS_B), (table().requires_grad_(),)
    )


def test_the_order_of_the_labels_does_not_matter(kind: str) -> None:
    regularizer, order = new(kind), torch.tensor([4, 1, 5, 0, 3, 2])
    value = regularizer(table()[IDS_B], IDS_B).item()
    assert regularizer(table()[IDS_B[order]], IDS_B[order]).item() == pytest.approx(value)


def test_the_weight_is_a_factor(kind: str) -> None:
    one, ten = (new(kind, weight)(table()[IDS_B], IDS_B).item() for weight in (1.0, 10.0))
    assert one > 0
    assert ten == pytest.approx(10 * one)


def test_a_rotation_of_all_embeddings_changes_nothing(kind: str) -> None:
    rotation, _ = torch.linalg.qr(table(1)[:5])
    value = new(kind)(table()[IDS_B], IDS_B).item()
    assert new(kind)((table() @ rotation)[IDS_B], IDS_B).item() == pytest.approx(value)


def test_one_label_alone_has_nothing_to_be_apart_from(kind: str) -> None:
    labels_BD = torch.tensor([[0.6, 0.8]])
    assert new(kind)(labels_BD, torch.tensor([3])).item() == pytest.approx(0.0, abs=1e-6)
