"""Losses, paths and configuration of the learned index's stages, by hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from motherlode.core.errors import ConfigError
from motherlode.core.index import LearnedConfig
from motherlode.core.queries import DenseQueries
from motherlode.trainer.learned_index.adjacency import balanced_adjacency
from motherlode.trainer.learned_index.config import (
    LearnedIndexConfig,
    Sizes,
    check_moving_parts,
    index_sizes,
)
from motherlode.trainer.learned_index.losses import search_loss, shortlist_loss
from motherlode.trainer.learned_index.paths import (
    EXTRA_CLUSTERS,
    LabelEdges,
    cluster_shares,
    find_shortlist,
    positive_scores,
    training_clusters,
)
from motherlode.trainer.learned_index.stage import are_positives, dropped
from motherlode.trainer.negatives import Batch
from motherlode.trainer.seeds import new_generator

THERE = torch.tensor([[True, True, False]])
TRUE = torch.tensor([[True, False, True]])


def test_the_shortlist_loss_is_the_cross_entropy_of_p():
    # p = sigmoid(0) * 0.5 = 0.25 for the positive, sigmoid(ln 3) * 0.4 = 0.3 for the negative.
    logits, paths = torch.tensor([[0.0, math.log(3), 9.0]]), torch.tensor([[0.5, 0.4, 1.0]])
    expected = -math.log(0.25) - math.log(1 - 0.3)
    assert shortlist_loss(logits, paths, TRUE, THERE).item() == pytest.approx(expected, rel=1e-6)


def test_the_search_loss_is_the_mean_over_queries_of_summed_logarithms():
    assert search_loss(torch.tensor([0.5, 0.25, 1.0]), 2).item() == pytest.approx(
        math.log(8) / 2, rel=1e-6
    )


def test_losses_stay_finite_where_scores_are_extreme():
    logits = torch.tensor([[-1e9, 1e9, 0.0]], requires_grad=True)
    paths = torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)
    loss = shortlist_loss(logits, paths, TRUE, THERE) + search_loss(paths[0], 1)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert paths.grad is not None
    assert logits.grad.isfinite().all()
    assert paths.grad.isfinite().all()
    assert logits.grad[0, 2] == 0


def test_gradients_of_the_losses_are_right():
    generator = new_generator(0)
    logits = torch.randn(3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    paths = torch.rand(3, 4, dtype=torch.float64, generator=generator).mul_(0.8).add_(0.1)
    paths.requires_grad_()
    is_positive = torch.rand(3, 4, generator=generator) < 0.4
    is_there = torch.rand(3, 4, generator=generator) < 0.8

    def loss(logits: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        return shortlist_loss(logits, paths, is_positive, is_there) + search_loss(paths[0], 3)

    assert gradcheck(loss, (logits, paths))


def test_gradients_of_paths_stop_at_edges_that_are_saturated():
    adjacency = balanced_adjacency(np.array([0, 0, 1]), 2)
    logits_CW = adjacency.logits.gather(torch.arange(2))
    # A share of a half each in cluster 0, all of it in cluster 1.
    weights_CW = adjacency.weights(1.5, logits_CW)
    assert weights_CW.tolist() == [[0.75, 0.75], [1.0, 0.0]]
    weights_CW[1, 0].backward()  # type: ignore[no-untyped-call]
    assert logits_CW.grad is not None
    assert not logits_CW.grad[1].nan_to_num().any()


ADJACENCY = balanced_adjacency(np.array([0, 1, 0, 1, 2]), 3)


def test_a_shortlist_holds_the_best_paths_and_their_scores_have_gradients():
    weights_CW = torch.tensor([[0.5, 1.0], [0.6, 0.2], [1.0, 0.0]], requires_grad=True)
    scores_BC = torch.tensor([[0.8, 1.0, 0.3]], requires_grad=True)
    paths = find_shortlist(
        ADJACENCY,
        weights_CW.detach().numpy(),
        np.array([[0.8, 1.0]], np.float32),
        np.array([[0, 1]]),
        5,
    )
    # 0.8 for label 2, 0.6 for label 1, 0.4 for label 0, 0.2 for label 3; label 4 is out of reach.
    assert paths.labels_BK[0, :4].tolist() == [2, 1, 0, 3]
    assert paths.is_there_BK.tolist() == [[True] * 4 + [False]]
    scores_BK = paths.scores(scores_BC, weights_CW)
    torch.testing.assert_close(scores_BK[0, :4], torch.tensor([0.8, 0.6, 0.4, 0.2]))
    scores_BK[0, 1].backward()  # type: ignore[no-untyped-call]
    assert scores_BC.grad is not None
    torch.testing.assert_close(scores_BC.grad, torch.tensor([[0, 0.6, 0]]))


def test_the_score_of_a_positive_is_its_best_over_all_its_clusters():
    labels_CW = np.array([[0, 1], [1, -1]])
    edges = LabelEdges(labels_CW, 2)
    labels_P, rows_P = np.array([0, 1, 1]), torch.tensor([0, 0, 1])
    scores_BC = torch.tensor([[0.5, 0.2], [0.1, 1.0]])
    weights_CW = torch.tensor([[1.0, 0.4], [0.9, 0.0]])
    found_P = positive_scores(edges.of(labels_P), rows_P, scores_BC, weights_CW)
    torch.testing.assert_close(found_P, torch.tensor([0.5, 0.2, 0.9]))


def test_training_looks_into_the_beam_and_the_clusters_of_positives():
    shares_BC = np.linspace(1, 0, 20, dtype=np.float32)[None]
    clusters = training_clusters(shares_BC, np.array([1, 18, 19]), np.array([0, 0, 0]), 3)
    # The beam, then clusters of positives, then the next best: five besides the beam.
    assert EXTRA_CLUSTERS == 5
    assert sorted(clusters[0].tolist()) == [0, 1, 2, 3, 4, 5, 18, 19]


def test_training_takes_no_more_clusters_of_positives_than_there_is_room_for():
    shares_BC = np.linspace(1, 0, 20, dtype=np.float32)[None]
    clusters = training_clusters(shares_BC, np.arange(8, 20), np.zeros(12, np.int64), 2)
    assert sorted(clusters[0].tolist()) == [0, 1, 8, 9, 10, 11, 12]


def test_shares_do_not_depend_on_the_length_of_a_query():
    queries_BD = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    shares_BC = cluster_shares(queries_BD, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(shares_BC[0], torch.softmax(torch.tensor([0.6, 0.8]), 0))
    torch.testing.assert_close(shares_BC[0], shares_BC[1])


def test_positives_of_a_query_are_known_in_its_own_shortlist_alone():
    batch = Batch(
        DenseQueries(np.zeros((2, 1), np.float32)),
        torch.tensor([1, 4, 2]),
        torch.tensor([0, 0, 1]),
    )
    labels_BK = torch.tensor([[4, 2, 1], [4, 2, 1]])
    assert are_positives(labels_BK, batch, 5).tolist() == [
        [True, False, True],
        [False, True, False],
    ]


def test_dropout_is_drawn_from_the_generator():
    ones_BD = torch.ones(20, 50)
    first, again = (dropped(ones_BD, 0.3, new_generator(7)) for _ in range(2))
    assert first.equal(again)
    assert first.mean().item() == pytest.approx(0.7, abs=0.05)
    assert dropped(ones_BD, 0.0, new_generator(7)) is ones_BD


@pytest.mark.parametrize(
    ("index", "num_labels", "field"),
    [
        (LearnedConfig(num_clusters=16), 15, "index.num_clusters"),
        (LearnedConfig(num_clusters=16, labels_per_cluster=6), 100, "index.labels_per_cluster"),
    ],
)
def test_an_index_that_does_not_fit_the_labels_is_refused(index, num_labels, field):
    with pytest.raises(ConfigError) as caught:
        index_sizes(index, LearnedIndexConfig(), num_labels)
    assert caught.value.field == field


def test_sizes_follow_from_the_labels():
    few = index_sizes(LearnedConfig(beam=8), LearnedIndexConfig(), 7)
    assert few.resolved(LearnedConfig(beam=8)).beam == few.num_clusters == 7
    sizes = index_sizes(LearnedConfig(beam=4), LearnedIndexConfig(), 5000)
    assert sizes == Sizes(num_clusters=64, labels_per_cluster=316, beta=2 * 5000 / 64)
    config = sizes.resolved(LearnedConfig(beam=4))
    assert (config.num_clusters, config.labels_per_cluster, config.beam) == (64, 316, 4)


def test_rows_that_queries_and_labels_share_move_for_both_or_for_none():
    moves_labels = LearnedIndexConfig(train_labels=True)
    check_moving_parts(moves_labels, "free")
    with pytest.raises(ConfigError, match=r"learned_index\.train_labels"):
        check_moving_parts(moves_labels, "sum")
