from __future__ import annotations

import numpy as np
import pytest
import torch

from motherlode.core.queries import SparseQueries
from motherlode.trainer.batches import BatchSource
from motherlode.trainer.config import check_config
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.model import Model, new_model
from motherlode.trainer.step import Step, label_rows, touched

NUM_LABELS, NUM_FEATURES, NUM_QUERIES = 500, 400, 1024


def run_steps(loss: str, num_steps: int = 4) -> Model:
    """A model after some steps on random data, large enough for every operation to use threads."""
    rng = np.random.default_rng(0)
    features = SparseQueries(
        np.arange(0, NUM_QUERIES * 8 + 1, 8, dtype=np.int64),
        rng.integers(NUM_FEATURES, size=NUM_QUERIES * 8),
        rng.random(NUM_QUERIES * 8, dtype=np.float32),
        NUM_FEATURES,
    )
    positives = PositiveRows(
        np.arange(0, NUM_QUERIES * 3 + 1, 3, dtype=np.int64),
        rng.integers(NUM_LABELS, size=NUM_QUERIES * 3),
    )
    config = check_config(
        {
            "loss": {"kind": loss},
            "negatives": {"num_candidates": 256, "keep": 64},
            "encoder": {"kind": "bag", "head": {"hidden": 64}},
        }
    )
    model = new_model(config, features, positives, NUM_LABELS)
    step = Step(model, config, 100)
    source = BatchSource(features, positives, 512, seed=0)
    for number in range(num_steps):
        step.run(number, source.batch(number))
    return model


@pytest.mark.parametrize("loss", ["decoupled_softmax", "pairwise_owl", "pointwise_owl"])
def test_steps_give_the_same_bits_every_time_with_several_threads(loss: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        first = run_steps(loss)
        for _ in range(3):
            again = run_steps(loss)
            assert again.labels.weights_RD.equal(first.labels.weights_RD)
            assert again.features.weights_RD.equal(first.features.weights_RD)
    finally:
        torch.set_num_threads(before)


def test_only_touched_rows_move() -> None:
    config = check_config({"negatives": {"num_candidates": 8, "keep": 4}})
    features = SparseQueries(
        np.array([0, 2], np.int64), np.array([3, 5], np.int64), np.ones(2, np.float32), 50
    )
    positives = PositiveRows(np.array([0, 1], np.int64), np.array([7], np.int64))
    model = new_model(config, features, positives, 1000)
    labels, table = model.labels.weights_RD.clone(), model.features.weights_RD.clone()
    Step(model, config, 10).run(0, BatchSource(features, positives, 1, seed=0).batch(0))
    moved = (model.features.weights_RD != table).any(dim=1).nonzero().flatten().tolist()
    assert moved == [3, 5]
    moved = (model.labels.weights_RD != labels).any(dim=1).nonzero().flatten().tolist()
    assert 7 in moved
    assert len(moved) <= 9


def test_label_rows_stand_negatives_first_and_place_every_positive() -> None:
    rows_M, places_P = label_rows(torch.tensor([2, 5, 9]), torch.tensor([5, 1, 11, 1]))
    assert rows_M.tolist() == [2, 5, 9, 1, 11]
    assert rows_M[places_P].tolist() == [5, 1, 11, 1]


def test_touched_features_are_the_same_batch_over_fewer_rows() -> None:
    batch = SparseQueries(
        np.array([0, 2, 3], np.int64),
        np.array([4, 40, 4], np.int64),
        np.array([1, 2, 3], np.float32),
        50,
    )
    local, rows_N = touched(batch)
    assert isinstance(local, SparseQueries)
    assert rows_N[torch.from_numpy(local.indices)].tolist() == [4, 40, 4]
    assert local.num_features == 2
