"""Training over several processes, each with its part of the queries of every batch.

Every process holds the whole model and all data, draws what one process would draw for the whole
batch, and touches the rows that one process would touch. So only the gradients of these rows are
summed, the loss is the mean over the whole batch, and all processes move alike.

Shapes: B queries in a batch, P positives, N negatives, K negatives of a query, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor

from motherlode.core.errors import MotherlodeError
from motherlode.trainer.negatives import Batch, Negatives


@final
class Group:
    """The processes that train one model together; one alone unless said otherwise.

    Args:
        rank: Of this process, from 0. Only that of rank 0 shows, saves and publishes.
        size: Processes in all.
        processes: How they reach each other; None for one alone.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, processes: dist.ProcessGroup | None = None
    ) -> None:
        self.rank = rank
        self.size = size
        self._processes = processes

    def part(self, batch: Batch) -> Part:
        """The queries of a batch that this process judges; none if there are too few."""
        num_queries = len(batch.features)
        start, stop = (num_queries * rank // self.size for rank in (self.rank, self.rank + 1))
        first, last = torch.searchsorted(batch.rows_P, torch.tensor([start, stop])).tolist()
        return Part(num_queries, slice(start, stop), slice(first, last))

    def whole(self, rows_BD: Tensor, part: Part) -> Tensor:
        """The rows of all processes, without gradients, from those of each: float32 [B, D]."""
        rows_BD = rows_BD.detach()
        if self._processes is None:
            return rows_BD
        whole_BD = rows_BD.new_zeros(part.num_queries, rows_BD.shape[1])
        whole_BD[part.queries] = rows_BD
        self.add_up(whole_BD)
        return whole_BD

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum over all processes, to the same bits in each.

        Raises:
            MotherlodeError: If another process is gone.
        """
        if self._processes is None:
            return
        try:
            self._processes.allreduce([tensor]).wait()
        except RuntimeError as error:
            # What gloo says has many lines; the first one tells what happened.
            reason = str(error).partition("\n")[0]
            raise MotherlodeError(f"another process of this training is gone: {reason}") from error

    def agree(self, answer: bool) -> bool:
        """What the process of rank 0 answers, in all; each waits here until all have come."""
        answers = torch.tensor([float(answer and self.rank == 0)])
        self.add_up(answers)
        return bool(answers)

    def add_up_gradients(self, leaves: Iterable[Tensor]) -> None:
        """Replace the gradients of tensors by their sums over all processes."""
        if self._processes is None:
            return
        for leaf in leaves:
            if leaf.grad is None:
                leaf.grad = torch.zeros_like(leaf)
            self.add_up(leaf.grad)


@final
@dataclass(frozen=True, slots=True)
class Part:
    """What one process judges of a batch.

    Attributes:
        num_queries: B, of the whole batch.
        queries: Places among the B queries.
        positives: Places among the P positives.
    """

    num_queries: int
    queries: slice
    positives: slice

    def __len__(self) -> int:
        return int(self.queries.stop - self.queries.start)

    @property
    def is_whole(self) -> bool:
        """Whether there is no other part."""
        return len(self) == self.num_queries

    def of_batch(self, batch: Batch) -> Batch:
        """This part of the batch."""
        if self.is_whole:
            return batch
        start, stop = self.queries.start, self.queries.stop
        return Batch(
            batch.features.rows(start, stop),
            batch.positives_P[self.positives],
            batch.rows_P[self.positives] - start,
        )

    def of_negatives(self, negatives: Negatives) -> Negatives:
        """The negatives of these queries; their distinct labels stay those of all."""
        if self.is_whole:
            return negatives
        log_q_P = negatives.log_q_P
        return replace(
            negatives,
            mask_BK=negatives.mask_BK[self.queries],
            places_BK=self._own(negatives.places_BK),
            log_q_BK=self._own(negatives.log_q_BK),
            log_q_P=None if log_q_P is None else log_q_P[self.positives],
        )

    def _own(self, values_BK: Tensor | None) -> Tensor | None:
        is_shared = values_BK is None or len(values_BK) == 1
        return values_BK if is_shared or values_BK is None else values_BK[self.queries]


@contextmanager
def joined_group() -> Iterator[Group]:
    """The processes that `torchrun` started, over gloo; this one alone if it started none."""
    if not dist.is_torchelastic_launched():
        yield Group()
        return
    dist.init_process_group("gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), dist.group.WORLD)
    finally:
        dist.destroy_process_group()
