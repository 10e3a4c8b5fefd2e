from __future__ import annotations

import numpy as np
import pytest
import torch

from motherlode.core.errors import ConfigError
from motherlode.core.queries import Features, SparseQueries
from motherlode.trainer.batches import BatchSource
from motherlode.trainer.config import TrainConfig, check_config
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.label_tree import new_proposal
from motherlode.trainer.model import Model, new_model
from motherlode.trainer.negatives import NegativeSampler
from motherlode.trainer.seeds import new_generator
from motherlode.trainer.step import Step, new_sampler, touched

NUM_LABELS, NUM_FEATURES, NUM_QUERIES = 500, 400, 1024


SAMPLERS: dict[str, dict[str, object]] = {
    "uniform": {"num_candidates": 256, "keep": 64},
    "uniform-own": {"num_candidates": 32, "keep": 8, "shared": False},
    "frequency": {"kind": "frequency", "num_candidates": 256, "keep": 256},
    "frequency-own": {"kind": "frequency", "num_candidates": 32, "keep": 32, "shared": False},
    "in_batch": {"kind": "in_batch"},
    "nearest": {"kind": "nearest", "num_candidates": 32, "refresh_steps": 2},
    "adversarial": {"kind": "adversarial", "num_candidates": 32},
}


def fitted_sampler(
    config: TrainConfig, features: Features, positives: PositiveRows, num_labels: int
) -> NegativeSampler:
    proposal = new_proposal(config.negatives, features, positives, num_labels, seed=0)
    return new_sampler(config, positives.counts(num_labels), proposal)


def run_steps(settings: dict[str, object], num_steps: int = 4) -> Model:
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
            "negatives": {"num_candidates": 256, "keep": 64},
            "encoder": {"kind": "bag", "head": {"hidden": 64}},
            **settings,
        }
    )
    model = new_model(config, features, positives, NUM_LABELS)
    step = Step(model, config, fitted_sampler(config, features, positives, NUM_LABELS), 100)
    source = BatchSource(features, positives, 512, seed=0)
    for number in range(num_steps):
        step.run(number, source.batch(number))
    return model


ALL_DRAWS = {"num_candidates": 256, "keep": 256}
ALL_LABELS = {"num_candidates": NUM_LABELS, "keep": NUM_LABELS}
SNM_WEIGHTS = {"kind": "snm", "num_draws": 256, "keep": 64}
SETTINGS: dict[str, dict[str, object]] = {
    "decoupled_softmax": {"loss": {"kind": "decoupled_softmax"}},
    "pairwise_owl": {"loss": {"kind": "pairwise_owl"}},
    "pointwise_owl": {"loss": {"kind": "pointwise_owl"}},
    "top_k": {"loss": {"kind": "pairwise_owl", "weights": {"kind": "top_k", "k": 8}}},
    "snm": {
        "loss": {"kind": "pointwise_owl", "weights": SNM_WEIGHTS},
        "negatives": ALL_LABELS,
    },
    "bfloat16": {"loop": {"matmul": "bfloat16"}},
    "softmax": {"loss": {"kind": "softmax"}, "negatives": ALL_DRAWS},
    "noise_contrastive": {"loss": {"kind": "noise_contrastive"}, "negatives": ALL_DRAWS},
    **{name: {"negatives": negatives} for name, negatives in SAMPLERS.items()},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_steps_give_the_same_bits_every_time_with_several_threads(
    settings: dict[str, object],
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        first = run_steps(settings)
        for _ in range(2):
            again = run_steps(settings)
            assert again.labels.weights_RD.equal(first.labels.weights_RD)
            assert again.features.weights_RD.equal(first.features.weights_RD)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("weights", "path"),
    [
        ({"kind": "top_k", "k": 65}, "loss.weights.k"),
        ({"kind": "explicit", "values": [1.0] * 65}, "loss.weights.values"),
        ({"kind": "snm", "num_draws": 10, "keep": 5}, "loss.weights.kind"),
    ],
)
def test_weights_for_more_negatives_than_there_are_end_the_run_when_it_is_built(
    weights: dict[str, object], path: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        run_steps({"loss": {"kind": "pairwise_owl", "weights": weights}}, num_steps=0)
    assert caught.value.field == path


def test_only_touched_rows_move() -> None:
    config = check_config({"negatives": {"num_candidates": 8, "keep": 4}})
    features = SparseQueries(
        np.array([0, 2], np.int64), np.array([3, 5], np.int64), np.ones(2, np.float32), 50
    )
    positives = PositiveRows(np.array([0, 1], np.int64), np.array([7], np.int64))
    model = new_model(config, features, positives, 1000)
    labels, table = model.labels.weights_RD.clone(), model.features.weights_RD.clone()
    sampler = new_sampler(config, positives.counts(1000))
    Step(model, config, sampler, 10).run(0, BatchSource(features, positives, 1, seed=0).batch(0))
    moved = (model.features.weights_RD != table).any(dim=1).nonzero().flatten().tolist()
    assert moved == [3, 5]
    moved = (model.labels.weights_RD != labels).any(dim=1).nonzero().flatten().tolist()
    assert 7 in moved
    assert len(moved) <= 9


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


@pytest.mark.parametrize("negatives", SAMPLERS)
@pytest.mark.parametrize("row_lengths", [[2, 0], [0, 0]], ids=["one", "none"])
def test_a_query_without_features_leaves_everything_finite(
    negatives: str, row_lengths: list[int]
) -> None:
    """One query that has no feature, and a batch in which none has."""
    config = check_config({"negatives": SAMPLERS[negatives]})
    indptr = np.cumsum([0, *row_lengths]).astype(np.int64)
    indices, values = np.arange(indptr[-1]), np.ones(indptr[-1], np.float32)
    features = SparseQueries(indptr, indices, values, NUM_FEATURES)
    positives = PositiveRows(np.array([0, 2, 3], np.int64), np.array([1, 4, 9], np.int64))
    model = new_model(config, features, positives, NUM_LABELS)
    step = Step(model, config, fitted_sampler(config, features, positives, NUM_LABELS), 10)
    loss = step.run(0, BatchSource(features, positives, 2, seed=0).batch(0))
    assert np.isfinite(loss)
    assert model.labels.weights_RD.isfinite().all()
    assert model.features.weights_RD.isfinite().all()


@pytest.mark.parametrize("negatives", SAMPLERS)
def test_a_batch_whose_negatives_are_all_positives_moves_nothing(negatives: str) -> None:
    """All four labels are positives of the only query, so no sampler can find a negative."""
    config = check_config({"negatives": SAMPLERS[negatives]})
    features = SparseQueries(
        np.array([0, 1], np.int64), np.array([0], np.int64), np.ones(1, np.float32), NUM_FEATURES
    )
    positives = PositiveRows(np.array([0, 4], np.int64), np.arange(4))
    model = new_model(config, features, positives, 4)
    before = model.labels.weights_RD.clone()
    step = Step(model, config, fitted_sampler(config, features, positives, 4), 10)
    assert step.run(0, BatchSource(features, positives, 1, seed=0).batch(0)) == 0.0
    assert model.labels.weights_RD.equal(before)


def test_a_proposal_that_can_draw_no_label_is_refused() -> None:
    config = check_config({"negatives": {"kind": "frequency", "smoothing": 0}})
    with pytest.raises(ConfigError, match=r"negatives\.smoothing"):
        new_sampler(config, np.zeros(5, np.int64))


def test_another_seed_draws_other_negatives_at_the_same_step() -> None:
    step, seeds = 5, (0, 7, 2**32, 2**62)
    draws = [torch.rand(8, generator=new_generator(seed, step)).tolist() for seed in seeds]
    assert len({tuple(drawn) for drawn in draws}) == len(seeds)
