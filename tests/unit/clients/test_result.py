from __future__ import annotations

import numpy as np
import pytest

from motherlode.clients import Hit, Notice, ServerError, StageTimings, TopKResult
from motherlode.clients.answers import decode, join
from motherlode.clients.question import Question
from motherlode.v1 import retrieval_pb2 as pb


def result(**changes) -> TopKResult:
    values = {
        "labels": np.array([4, 2, 9]),
        "scores": np.array([0.5, 0.25, 1.0], np.float32),
        "counts": np.array([2, 0, 1]),
        "keys": ["d", "b", "i"],
        "texts": ["vier", "zwei", "neun"],
        "model": "tiny",
        "version": 1,
        "bundle_digest": "x",
        "timings": StageTimings(),
        "notices": (),
        "round_trip_s": 0.1,
    }
    return TopKResult(**values | changes)


FOUR = Hit(4, "d", "vier", 0.5)
TWO = Hit(2, "b", "zwei", 0.25)
NINE = Hit(9, "i", "neun", 1.0)


def test_a_result_is_a_sequence_of_the_hits_of_each_query():
    assert len(result()) == 3
    assert list(result()) == [[FOUR, TWO], [], [NINE]]
    assert result()[0] == [FOUR, TWO]
    assert result()[-1] == [NINE]
    assert result()[1:] == [[], [NINE]]
    assert result().offsets.tolist() == [0, 2, 2, 3]


def test_a_position_outside_the_batch_raises_an_index_error():
    with pytest.raises(IndexError):
        result()[3]


def test_hits_without_the_fields_that_were_not_asked_for_hold_none():
    assert result(keys=None, texts=None)[2] == [Hit(9, None, None, 1.0)]


def answer_of(**changes) -> pb.TopKResponse:
    values = {
        "row_counts": [1, 0],
        "labels": [4],
        "scores": [0.5],
        "label_keys": ["d"],
        "label_texts": ["vier"],
        "version": 2,
        "timings": pb.StageTimings(search_s=0.25, rank_s=1.0),
        "notices": [pb.Notice(kind=pb.NOTICE_KIND_FEWER_THAN_K, queries=[1])],
    }
    return pb.TopKResponse(**values | changes)


def test_the_parts_of_an_answer_are_joined_in_order_with_positions_in_the_whole():
    question = Question(k=1)
    parts = [decode(answer_of(), num_queries=2, question=question) for _ in range(3)]
    joined = join(parts, question=question, round_trip_s=2.0)
    assert joined.counts.tolist() == [1, 0, 1, 0, 1, 0]
    assert joined.labels.dtype == np.int64
    assert joined.scores.dtype == np.float32
    assert joined.notices == (Notice("fewer_than_k", (1, 3, 5)),)
    assert joined.timings == StageTimings(search_s=0.75, rank_s=3.0)


def test_a_notice_of_a_newer_server_keeps_its_number():
    message = answer_of(notices=[pb.Notice(kind=77, queries=[0])])
    question = Question(k=1)
    parts = [decode(message, num_queries=2, question=question)]
    assert join(parts, question=question, round_trip_s=0).notices == (Notice("77", (0,)),)


@pytest.mark.parametrize(
    "changes",
    [
        {"row_counts": [1]},
        {"row_counts": [1, 1]},
        {"labels": []},
        {"scores": [0.5, 0.5]},
        {"label_keys": []},
        {"label_texts": ["a", "b"]},
    ],
)
def test_an_answer_whose_columns_do_not_fit_is_a_server_error(changes):
    with pytest.raises(ServerError, match="broken"):
        decode(answer_of(**changes), num_queries=2, question=Question(k=1))


def test_columns_that_were_not_asked_for_may_be_missing():
    message = answer_of(label_keys=[], label_texts=[])
    decode(message, num_queries=2, question=Question(k=1, label_fields=[]))
