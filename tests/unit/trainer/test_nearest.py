from __future__ import annotations

import torch

from motherlode.core.index import ExactConfig
from motherlode.core.queries import DenseQueries
from motherlode.trainer.negatives import Batch, NearestConfig, NearestSampler, Negatives
from tests.support.embeddings import TableLabels

NUM_LABELS, WIDTH, NUM_QUERIES = 300, 8, 6


def random_rows(num_rows: int, seed: int) -> torch.Tensor:
    return torch.randn(num_rows, WIDTH, generator=torch.Generator().manual_seed(seed))


QUERIES_BD, LABELS_LD = random_rows(NUM_QUERIES, 0), random_rows(NUM_LABELS, 1)
LABELS = TableLabels(LABELS_LD)


def new_sampler(**options: float) -> NearestSampler:
    config = NearestConfig(index=ExactConfig(), **options)  # type: ignore[arg-type]
    return NearestSampler(config, seed=0)


def sample(sampler: NearestSampler, queries_BD: torch.Tensor = QUERIES_BD) -> Negatives:
    """Negatives of queries that are all of label 0."""
    features = DenseQueries(queries_BD.numpy())
    rows = torch.arange(len(queries_BD))
    batch = Batch(features, torch.zeros_like(rows), rows)
    return sampler.sample(batch, queries_BD, LABELS, torch.Generator().manual_seed(0))


def nearest(labels_LD: torch.Tensor, count: int) -> list[set[int]]:
    order_BK = (QUERIES_BD @ labels_LD.T).topk(count, dim=1).indices
    return [set(row) for row in order_BK.tolist()]


def labels_of(negatives: Negatives) -> list[set[int]]:
    return [set(row) for row in negatives.labels_BK.tolist()]


def test_each_query_gets_the_labels_that_are_nearest_to_it() -> None:
    sampler = new_sampler(num_candidates=10, num_mined=10, uniform_share=0.0)
    sampler.refresh(0, LABELS)
    assert labels_of(sample(sampler)) == nearest(LABELS_LD, 10)


def test_hard_candidates_are_drawn_out_of_the_mined_and_the_rest_out_of_all() -> None:
    sampler = new_sampler(num_candidates=40, num_mined=30, uniform_share=0.75)
    sampler.refresh(0, LABELS)
    negatives = sample(sampler)
    assert negatives.labels_BK.shape == (NUM_QUERIES, 40)
    for drawn, mined in zip(labels_of(negatives), nearest(LABELS_LD, 30), strict=True):
        # 10 for certain, and 30 of 300 labels hit few of the 30 by chance.
        assert 10 <= len(drawn & mined) <= 20


def test_a_label_that_was_mined_and_drawn_counts_once() -> None:
    sampler = new_sampler(num_candidates=400, num_mined=200, uniform_share=0.5)
    sampler.refresh(0, LABELS)
    negatives = sample(sampler)
    for labels_K, mask_K in zip(negatives.labels_BK, negatives.mask_BK, strict=True):
        kept = labels_K[mask_K].tolist()
        assert len(kept) == len(set(kept))
        assert set(kept) == set(labels_K.tolist()) - {0}


def test_the_index_is_of_the_last_refresh_and_refreshes_come_at_multiples() -> None:
    table_LD = LABELS_LD.clone()
    sampler = new_sampler(num_candidates=10, num_mined=10, uniform_share=0.0, refresh_steps=3)
    before, after = nearest(table_LD, 10), nearest(-table_LD, 10)
    labels = TableLabels(table_LD)
    sampler.refresh(0, labels)
    table_LD.neg_()
    found = []
    for step in range(1, 5):
        sampler.refresh(step, labels)
        found.append(labels_of(sample(sampler)))
    assert found == [before, before, after, after]
    assert labels.num_asked == 2
    assert [step for step in range(8) if sampler.resumes_at(step)] == [0, 3, 6]


def test_fewer_labels_than_candidates_are_all_candidates() -> None:
    sampler = new_sampler(num_candidates=1000, num_mined=600)
    sampler.refresh(0, LABELS)
    assert labels_of(sample(sampler)) == [set(range(NUM_LABELS))] * NUM_QUERIES


def test_a_query_of_zeros_gets_the_first_labels() -> None:
    sampler = new_sampler(num_candidates=5, num_mined=5, uniform_share=0.0)
    sampler.refresh(0, LABELS)
    zeros_BD = QUERIES_BD.clone().index_fill_(0, torch.tensor([2]), 0.0)
    assert labels_of(sample(sampler, zeros_BD))[2] == set(range(5))
