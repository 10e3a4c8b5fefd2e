"""Several processes give the gradients of one. They are threads here, that speak over gloo."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import cast

import numpy as np
import pytest
import torch
import torch.distributed as dist

from motherlode.core.errors import MotherlodeError
from motherlode.core.queries import SparseQueries
from motherlode.trainer.batches import BatchSource
from motherlode.trainer.config import check_config
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.distributed import Group, joined_group
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


@pytest.fixture(autouse=True)
def _one_thread_a_process() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gloo_groups(size: int) -> list[Group]:
    """The groups of `size` threads of this process."""
    store, limit = dist.HashStore(), timedelta(seconds=60)

    def join(rank: int) -> Group:
        return Group(rank, size, dist.ProcessGroupGloo(store, rank, size, limit))

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(join, range(size)))


def random_features(rng: np.random.Generator, num_rows: int) -> SparseQueries:
    """Rows of four features each."""
    return SparseQueries(
        np.arange(0, num_rows * 4 + 1, 4, dtype=np.int64),
        rng.integers(NUM_FEATURES, size=num_rows * 4),
        rng.random(num_rows * 4, dtype=np.float32),
        NUM_FEATURES,
    )


def run_steps(settings: dict[str, object], group: Group) -> tuple[Model, list[float]]:
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
    return model, [step.run(number, source.batch(number)) for number in range(NUM_STEPS)]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_several_processes_learn_what_one_learns(settings: dict[str, object], size: int) -> None:
    alone, losses = run_steps(settings, Group())
    with ThreadPoolExecutor(size) as threads:
        results = list(threads.map(lambda group: run_steps(settings, group), gloo_groups(size)))
    for model, their_losses in results:
        torch.testing.assert_close(their_losses, losses, rtol=1e-4, atol=1e-6)
        for table, expected in zip(tensors(model), tensors(alone), strict=True):
            torch.testing.assert_close(table, expected, rtol=1e-3, atol=1e-5)
        for table, first in zip(tensors(model), tensors(results[0][0]), strict=True):
            assert table.equal(first), "processes have moved apart"


def tensors(model: Model) -> list[torch.Tensor]:
    tables = model.tables().values()
    rows = [tensor for table in tables for tensor in (table.weights_RD, table.accumulators_R)]
    return [*rows, *(weight.detach() for weight in model.encoder.head.parameters())]


def test_a_process_that_nobody_else_was_started_with_is_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "many")  # which others than torchrun set too
    with joined_group() as group:
        assert (group.rank, group.size) == (0, 1)


def test_a_process_that_is_gone_is_one_line_of_an_error() -> None:
    class Gone:
        def allreduce(self, _: object) -> None:
            raise RuntimeError("Read error [127.0.0.1]: Connection reset\nmany more lines")

    group = Group(0, 2, cast("dist.ProcessGroup", Gone()))
    with pytest.raises(MotherlodeError) as caught:
        group.add_up(torch.zeros(1))
    message = "another process of this training is gone: Read error [127.0.0.1]: Connection reset"
    assert str(caught.value) == message
