"""Batches of training queries, in an order that only the seed and the step decide.

Shapes: B queries in a batch, P positives of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import torch

from motherlode.core.queries import Features, IntArray, TextQueries
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.data.rows import take_queries
from motherlode.trainer.negatives import Batch


def take_features(features: Features, rows: IntArray) -> Features:
    """Some rows of a feature matrix, in the given order."""
    taken = take_queries(features, rows)
    assert not isinstance(taken, TextQueries)
    return taken


def row_of_each(positives: PositiveRows) -> IntArray:
    """The query that each positive belongs to: int64 [P]."""
    return np.repeat(np.arange(len(positives)), np.diff(positives.indptr))


def chunks(features: Features, size: int) -> Iterator[tuple[int, Features]]:
    """Consecutive parts of a feature matrix, each with the row it starts at."""
    for start in range(0, len(features), size):
        yield start, features.rows(start, min(start + size, len(features)))


@final
class BatchSource:
    """Every query once an epoch, shuffled; any step can be asked for, so a run can resume.

    Args:
        features: All training queries.
        positives: Their labels; queries without any are left out.
        batch_size: B; the last batch of an epoch may be smaller.
        seed: Decides the order of every epoch.
    """

    def __init__(
        self, features: Features, positives: PositiveRows, batch_size: int, seed: int
    ) -> None:
        self._features = features
        self._positives = positives
        self._batch_size = batch_size
        self._seed = seed
        self._usable = np.flatnonzero(np.diff(positives.indptr) > 0)
        self._epoch = -1
        self._order = self._usable

    @property
    def num_queries(self) -> int:
        """Queries with at least one label."""
        return len(self._usable)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every query once."""
        return -(-self.num_queries // self._batch_size)

    def batch(self, step: int) -> Batch:
        """The batch of a step, from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._usable)
            self._epoch = epoch
        rows = self._order[place * self._batch_size : (place + 1) * self._batch_size]
        positives = self._positives.rows(rows)
        return Batch(
            take_features(self._features, rows),
            torch.from_numpy(positives.indices),
            torch.from_numpy(row_of_each(positives)),
        )
