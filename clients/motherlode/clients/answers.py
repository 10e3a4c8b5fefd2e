"""From the server's answers to one result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import final

import numpy as np

from motherlode.clients.errors import ServerError
from motherlode.clients.question import Question
from motherlode.clients.result import Notice, StageTimings, TopKResult
from motherlode.v1 import retrieval_pb2 as pb

__all__ = ["Answer", "decode", "join"]

_STAGES = tuple(field.name for field in fields(StageTimings))

_NOTICE_PREFIX = "NOTICE_KIND_"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The checked answer to one request.

    Attributes:
        message: The answer as it came.
    """

    message: pb.TopKResponse

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
    return Answer(message)


def join(answers: Sequence[Answer], *, question: Question, round_trip_s: float) -> TopKResult:
    """The answers to the parts of a batch as one result, in order.

    Args:
        answers: At least one; all from one bundle.
        question: What was asked.
        round_trip_s: Seconds from the call to the last answer.
    """
    message = answers[0].message if len(answers) == 1 else _merge(answers)
    with_keys = "key" in question.label_fields
    with_texts = "text" in question.label_fields
    times = message.timings
    return TopKResult(
        labels=np.array(list(message.labels), np.int64),
        scores=np.array(list(message.scores), np.float32),
        counts=np.array(list(message.row_counts), np.int64),
        keys=list(message.label_keys) if with_keys else None,
        texts=list(message.label_texts) if with_texts else None,
        model=message.model,
        version=message.version,
        bundle_digest=message.bundle_digest,
        timings=StageTimings(*(getattr(times, stage) for stage in _STAGES)),
        notices=_merge_notices(answers),
        round_trip_s=round_trip_s,
    )


def _merge(answers: Sequence[Answer]) -> pb.TopKResponse:
    """One message with the columns of all; the times of its stages add up."""
    whole = pb.TopKResponse()
    for answer in answers:
        whole.MergeFrom(answer.message)
    for stage in _STAGES:
        total_s = sum(getattr(answer.message.timings, stage) for answer in answers)
        setattr(whole.timings, stage, total_s)
    return whole


def _merge_notices(answers: Sequence[Answer]) -> tuple[Notice, ...]:
    """One notice of each kind, with positions in the whole batch."""
    queries_by_kind: dict[str, list[int]] = {}
    first = 0
    for answer in answers:
        for notice in answer.message.notices:
            queries = queries_by_kind.setdefault(_kind_name(notice.kind), [])
            queries.extend(first + position for position in notice.queries)
        first += len(answer.message.row_counts)
    return tuple(Notice(kind, tuple(queries)) for kind, queries in queries_by_kind.items())


def _kind_name(kind: int) -> str:
    # A server newer than this client may send kinds that have no name here.
    names = dict(zip(pb.NoticeKind.values(), pb.NoticeKind.keys(), strict=True))
    return names.get(kind, f"{_NOTICE_PREFIX}{kind}").removeprefix(_NOTICE_PREFIX).lower()
