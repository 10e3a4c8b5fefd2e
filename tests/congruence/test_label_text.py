"""A step on label texts against one written with dense matrices, by autograd and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from motherlode.core.queries import SparseQueries
from motherlode.trainer.batches import BatchSource
from motherlode.trainer.config import TrainConfig, check_config
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.model import Model, new_model
from motherlode.trainer.optim import EPSILON
from motherlode.trainer.step import Step, new_sampler

NUM_LABELS, NUM_FEATURES, NUM_QUERIES, WIDTH = 30, 40, 12, 8
# All labels are negatives, so that the dense formulation needs no draws.
ALL = {"num_candidates": NUM_LABELS, "keep": NUM_LABELS}
LEARNING_RATE = 0.1


def random_features(num_rows: int, seed: int) -> SparseQueries:
    """Rows of 0 to 4 features; the last row has none."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, num_rows)
    lengths[-1] = 0
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    indices = np.concatenate(
        [np.sort(rng.choice(NUM_FEATURES, n, replace=False)) for n in lengths]
    ).astype(np.int64)
    return SparseQueries(indptr, indices, rng.random(len(indices), np.float32) + 0.1, NUM_FEATURES)


def dense(features: SparseQueries) -> torch.Tensor:
    rows = np.repeat(np.arange(len(features)), np.diff(features.indptr))
    matrix = torch.zeros(len(features), features.num_features)
    matrix[torch.from_numpy(rows), torch.from_numpy(features.indices)] = torch.from_numpy(
        features.values
    )
    return matrix


QUERIES, TEXTS = random_features(NUM_QUERIES, 0), random_features(NUM_LABELS, 1)
# Labels from 20 on are positives of no query; the last one has no text that is known.
POSITIVES = PositiveRows(
    np.arange(0, 2 * NUM_QUERIES + 1, 2, dtype=np.int64),
    np.sort(np.random.default_rng(2).permuted(np.tile(np.arange(20), (12, 1)), axis=1)[:, :2])
    .flatten()
    .astype(np.int64),
)


def config_of(
    embedding: str, text_encoder: str, *, hidden: int = 0, normalize: bool = True
) -> TrainConfig:
    return check_config(
        {
            "encoder": {
                "kind": "bag",
                "width": WIDTH,
                "head": {"hidden": hidden, "normalize": normalize},
            },
            "labels": {
                "embedding": embedding,
                "text_encoder": text_encoder,
                "normalize": normalize,
                "scale": 3.0,
            },
            "negatives": ALL,
            "optimizer": {
                "features_lr": LEARNING_RATE,
                "labels_lr": 2 * LEARNING_RATE,
                "warmup": 0,
            },
        }
    )


def model_of(config: TrainConfig) -> Model:
    model = new_model(config, QUERIES, POSITIVES, NUM_LABELS, label_features=TEXTS)
    # A residual network starts as nothing; here it is to say something.
    generator = torch.Generator().manual_seed(5)
    for weight in model.encoder.head.parameters():
        weight.data.normal_(generator=generator).mul_(0.3)
    return model


def dense_loss(model: Model, config: TrainConfig, tables: dict[str, torch.Tensor]) -> torch.Tensor:
    """The decoupled softmax over all labels, of embeddings made by dense products."""
    is_unit, head = config.labels.normalize, model.encoder.head
    queries_BD = head(dense(QUERIES) @ tables["features"])
    own = config.labels.text_encoder == "own"
    projected_LD = dense(TEXTS) @ tables["label_features" if own else "features"]
    unit_LD = F.normalize(projected_LD, dim=1) if is_unit else projected_LD
    labels_LD = unit_LD if own else head(projected_LD)
    labels_LD = labels_LD * (dense(TEXTS).sum(dim=1) > 0)[:, None]
    if "labels" in tables:
        seen_L = torch.from_numpy(POSITIVES.counts(NUM_LABELS) > 0)
        labels_LD = labels_LD + tables["labels"] * seen_L[:, None]
    if is_unit:
        labels_LD = F.normalize(labels_LD, dim=1)
    scores_BL = config.labels.scale * queries_BD @ labels_LD.T
    rows_P = torch.arange(NUM_QUERIES).repeat_interleave(2)
    positives_P = torch.from_numpy(POSITIVES.indices)
    is_negative_BL = torch.ones(NUM_QUERIES, NUM_LABELS, dtype=torch.bool)
    is_negative_BL[rows_P, positives_P] = False
    negatives_B = scores_BL.masked_fill(~is_negative_BL, -torch.inf).logsumexp(dim=1)
    losses_P = F.softplus(negatives_B[rows_P] - scores_BL[rows_P, positives_P])
    return losses_P.view(NUM_QUERIES, 2).mean(dim=1).mean()


CASES = [
    ("text", "shared", 0, True),
    ("text", "shared", 6, True),
    ("text", "own", 6, True),
    ("sum", "shared", 0, True),
    ("sum", "shared", 6, False),
    ("sum", "own", 0, False),
    ("sum", "own", 6, True),
]


@pytest.mark.parametrize(("embedding", "text_encoder", "hidden", "normalize"), CASES)
def test_a_step_moves_every_table_as_dense_autograd_and_adagrad_by_hand_do(
    embedding: str, text_encoder: str, hidden: int, normalize: bool
) -> None:
    config = config_of(embedding, text_encoder, hidden=hidden, normalize=normalize)
    model = model_of(config)
    before = {name: table.weights_RD.clone() for name, table in model.tables().items()}
    leaves = {name: weights.clone().requires_grad_() for name, weights in before.items()}
    expected_loss = dense_loss(model, config, leaves)
    expected_loss.backward()
    model.encoder.head.zero_grad()

    step = Step(model, config, new_sampler(config, POSITIVES.counts(NUM_LABELS)), 100)
    loss = step.run(0, BatchSource(QUERIES, POSITIVES, NUM_QUERIES, seed=0).batch(0))

    assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
    for name, table in model.tables().items():
        gradient_RD = leaves[name].grad
        assert gradient_RD is not None
        accumulators_R = gradient_RD.square().mean(dim=1)
        torch.testing.assert_close(table.accumulators_R, accumulators_R, rtol=1e-3, atol=1e-9)
        rate = (2 if name == "labels" else 1) * LEARNING_RATE
        moved_RD = gradient_RD / (accumulators_R.sqrt()[:, None] + EPSILON) * rate
        # Where a gradient is all but nothing, its direction is rounding.
        clear_R = accumulators_R > 1e-12
        torch.testing.assert_close(
            table.weights_RD[clear_R], (before[name] - moved_RD)[clear_R], rtol=1e-3, atol=1e-4
        )
        none_R = gradient_RD.eq(0).all(dim=1)
        assert table.weights_RD[none_R].equal(before[name][none_R])


@pytest.mark.parametrize(("embedding", "text_encoder", "hidden", "normalize"), CASES)
def test_the_embeddings_of_a_step_are_those_that_are_published(
    embedding: str, text_encoder: str, hidden: int, normalize: bool
) -> None:
    config = config_of(embedding, text_encoder, hidden=hidden, normalize=normalize)
    model = model_of(config)
    rows_N = torch.arange(3, 25)
    gathered = model.gather_labels(
        torch.tensor([4, 29, 0, 17]), (rows_N, model.features.gather(rows_N))
    )
    published_LD = torch.from_numpy(model.label_embeddings())
    torch.testing.assert_close(gathered.embeddings_MD, published_LD[[4, 29, 0, 17]])
