"""Some training steps on random data, with settings that take every way through a step."""

from __future__ import annotations

import numpy as np
import torch

from motherlode.core.queries import SparseQueries
from motherlode.trainer.batches import BatchSource
from motherlode.trainer.config import check_config
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.device import CPU
from motherlode.trainer.distributed import Group
from motherlode.trainer.label_tree import new_proposal
from motherlode.trainer.model import Model, new_model
from motherlode.trainer.regularizers import new_regularizer
from motherlode.trainer.step import Step, new_sampler

NUM_LABELS, NUM_FEATURES, NUM_QUERIES, NUM_STEPS = 60, 40, 65, 6

SETTINGS: dict[str, dict[str, object]] = {
    "shared": {},
    "snm": {"negatives": {"num_candidates": 32, "keep": 8}},
    "own": {"negatives": {"num_candidates": 16, "keep": 4, "shared": False}},
    "frequency": {"negatives": {"kind": "frequency", "num_candidates": 40, "keep": 40}},
    "in_batch": {"negatives": {"kind": "in_batch"}},
    "nearest": {"negatives": {"kind": "nearest", "num_candidates": 8, "num_mined": 16}},
    "softmax": {"loss": {"kind": "softmax"}},
    "own-softmax": {
        "loss": {"kind": "softmax"},
        "negatives": {"num_candidates": 16, "keep": 16, "shared": False},
    },
    "owl": {"loss": {"kind": "pairwise_owl"}},
    "adversarial": {
        "loss": {"kind": "regularized_negative_sampling"},
        "negatives": {"kind": "adversarial", "num_candidates": 8},
    },
    "text-shared": {"labels": {"embedding": "text"}},
    "sum-own": {"labels": {"embedding": "sum", "text_encoder": "own"}},
    "glas": {"regularizer": {"kind": "glas"}},
    "dropout": {
        "loop": {"batch_size": 16, "feature_dropout": 0.3},
        "encoder": {"kind": "bag", "width": 8, "head": {"hidden": 8, "dropout": 0.3}},
    },
}


def random_features(rng: np.random.Generator, num_rows: int) -> SparseQueries:
    """Rows of four features each."""
    return SparseQueries(
        np.arange(0, num_rows * 4 + 1, 4, dtype=np.int64),
        rng.integers(NUM_FEATURES, size=num_rows * 4),
        rng.random(num_rows * 4, dtype=np.float32),
        NUM_FEATURES,
    )


def run_steps(
    settings: dict[str, object], group: Group | None = None, device: torch.device = CPU
) -> tuple[Model, list[float]]:
    """The model after some steps, the last of which has a batch of one query, and their losses."""
    rng = np.random.default_rng(0)
    features = random_features(rng, NUM_QUERIES)
    positives = PositiveRows(
        np.arange(0, NUM_QUERIES * 2 + 1, 2, dtype=np.int64),
        rng.integers(NUM_LABELS, size=NUM_QUERIES * 2),
    )
    config = check_config(
        {
            "negatives": {"num_candidates": 32, "keep": 32},
            "encoder": {"kind": "bag", "width": 8, "head": {"hidden": 8}},
            "loop": {"batch_size": 16},
            **settings,
        }
    )
    texts = random_features(rng, NUM_LABELS)
    model = new_model(config, features, positives, NUM_LABELS, label_features=texts)
    # Labels with the same queries start alike: which of them are the hardest would be arbitrary.
    if model.labels is not None:
        model.labels.weights_RD.normal_(generator=torch.Generator().manual_seed(1))
    model.to(device)
    proposal = new_proposal(config.negatives, features, positives, NUM_LABELS, seed=0)
    step = Step(
        model,
        config,
        new_sampler(config, positives.counts(NUM_LABELS), proposal),
        NUM_STEPS,
        regularizer=new_regularizer(config.regularizer, positives, NUM_LABELS),
        group=group,
    )
    source = BatchSource(features, positives, config.loop.batch_size, seed=0)
    assert len(source.batch(4).features) == 1
    losses = [step.run(number, source.batch(number)) for number in range(NUM_STEPS)]
    model.to(CPU)
    return model, losses


def tensors(model: Model) -> list[torch.Tensor]:
    """All that a model has learned."""
    tables = model.tables().values()
    rows = [tensor for table in tables for tensor in (table.weights_RD, table.accumulators_R)]
    return [*rows, *(weight.detach() for weight in model.encoder.head.parameters())]
