"""From the server's answers to one result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar, final

import numpy as np

from motherlode.clients.errors import ServerError
from motherlode.clients.question import Question
from motherlode.clients.result import Notice, StageTimings, TopKResult
from motherlode.v1 import retrieval_pb2 as pb

__all__ = ["Answer", "decode", "join"]

Item = TypeVar("Item")

_NOTICE_PREFIX = "NOTICE_KIND_"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The checked answer to one request.

    Attributes:
        message: The answer as it came.
        row_counts: Hits of each query.
    """

    message: pb.TopKResponse
    row_counts: list[int]

    @property
    def source(self) -> tuple[int, str]:
        """Version and digest of the bundle that answered."""
        return self.message.version, self.message.bundle_digest


def decode(message: pb.TopKResponse, *, num_queries: int, question: Question) -> Answer:
    """The answer to `num_queries` queries.

    Raises:
        ServerError: If the columns do not fit each other or the question.
    """
    row_counts = list(message.row_counts)
    num_hits = sum(row_counts)
    columns = {"labels": len(message.labels), "scores": len(message.scores)}
    if "key" in question.label_fields:
        columns["label_keys"] = len(message.label_keys)
    if "text" in question.label_fields:
        columns["label_texts"] = len(message.label_texts)
    wrong = [f"{name} has {length}" for name, length in columns.items() if length != num_hits]
    if len(row_counts) != num_queries:
        wrong.insert(0, f"row_counts has {len(row_counts)} for {num_queries} queries")
    if wrong:
        raise ServerError(f"the answer is broken: {', '.join(wrong)}; {num_hits} hits in all")
    return Answer(message, row_counts)


def join(answers: Sequence[Answer], *, question: Question, round_trip_s: float) -> TopKResult:
    """The answers to the parts of a batch as one result, in order.

    Args:
        answers: At least one; all from one bundle.
        question: What was asked.
        round_trip_s: Seconds from the call to the last answer.
    """
    messages = [answer.message for answer in answers]
    with_keys = "key" in question.label_fields
    with_texts = "text" in question.label_fields
    return TopKResult(
        labels=np.array(_chain(m.labels for m in messages), np.int64),
        scores=np.array(_chain(m.scores for m in messages), np.float32),
        counts=np.array(_chain(answer.row_counts for answer in answers), np.int64),
        keys=_chain(m.label_keys for m in messages) if with_keys else None,
        texts=_chain(m.label_texts for m in messages) if with_texts else None,
        model=messages[0].model,
        version=messages[0].version,
        bundle_digest=messages[0].bundle_digest,
        timings=_sum_timings(messages),
        notices=_merge_notices(answers),
        round_trip_s=round_trip_s,
    )


def _chain(parts: Iterable[Iterable[Item]]) -> list[Item]:
    return list(chain.from_iterable(parts))


def _sum_timings(messages: Sequence[pb.TopKResponse]) -> StageTimings:
    times = [message.timings for message in messages]
    return StageTimings(
        queue_s=sum(t.queue_s for t in times),
        features_s=sum(t.features_s for t in times),
        encode_s=sum(t.encode_s for t in times),
        search_s=sum(t.search_s for t in times),
        rank_s=sum(t.rank_s for t in times),
    )


def _merge_notices(answers: Sequence[Answer]) -> tuple[Notice, ...]:
    """One notice of each kind, with positions in the whole batch."""
    queries_by_kind: dict[str, list[int]] = {}
    first = 0
    for answer in answers:
        for notice in answer.message.notices:
            queries = queries_by_kind.setdefault(_kind_name(notice.kind), [])
            queries.extend(first + position for position in notice.queries)
        first += len(answer.row_counts)
    return tuple(Notice(kind, tuple(queries)) for kind, queries in queries_by_kind.items())


def _kind_name(kind: int) -> str:
    # A server newer than this client may send kinds that have no name here.
    names = dict(zip(pb.NoticeKind.values(), pb.NoticeKind.keys(), strict=True))
    return names.get(kind, f"{_NOTICE_PREFIX}{kind}").removeprefix(_NOTICE_PREFIX).lower()
