from __future__ import annotations

import numpy as np
import pytest

from motherlode.clients import InvalidArgumentError, query_batch
from motherlode.clients.question import Question
from motherlode.v1 import retrieval_pb2 as pb

QUERIES = query_batch(["a"])


def test_a_question_asks_for_keys_and_texts_of_the_serving_version_by_default():
    request = Question(k=4).request(QUERIES)
    assert request.k == 4
    assert list(request.label_fields) == [pb.LABEL_FIELD_KEY, pb.LABEL_FIELD_TEXT]
    assert not request.HasField("model")
    assert not request.HasField("filter")


def test_a_question_names_model_version_and_filter():
    question = Question(k=1, model="geonames", version=7, deny=["a", "b"], label_fields=[])
    request = question.request(QUERIES)
    assert (request.model.name, request.model.version) == ("geonames", 7)
    assert list(request.filter.deny) == ["a", "b"]
    assert not request.label_fields


def test_a_pinned_version_stands_in_for_an_alias():
    question = Question(k=1, model="geonames", alias="stable")
    assert question.request(QUERIES).model.alias == "stable"
    pinned = question.request(QUERIES, pinned_version=5).model
    assert (pinned.WhichOneof("choice"), pinned.version) == ("version", 5)


def test_numbers_may_come_from_numpy():
    request = Question(k=np.int64(4), version=np.int32(2)).request(QUERIES)
    assert (request.k, request.model.version) == (4, 2)


def test_the_stated_fixed_bytes_cover_the_message():
    question = Question(k=3, model="müller", alias="ß" * 50, allow=["東京" * 20] * 10)
    message = question.request(QUERIES)
    assert message.ByteSize() - message.text.ByteSize() <= question.fixed_bytes


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"k": 0}, "k"),
        ({"k": -1}, "k"),
        ({"k": 1.5}, "k"),
        ({"k": True}, "k"),
        ({"k": 2**40}, "k"),
        ({"version": 0}, "model.version"),
        ({"version": 1, "alias": "stable"}, "model"),
        ({"allow": ["a"], "deny": ["b"]}, "filter"),
        ({"allow": "a"}, "filter.allow"),
        ({"deny": [1]}, "filter.deny"),
        ({"allow": []}, "filter.allow"),
        ({"label_fields": ["name"]}, "label_fields"),
    ],
)
def test_a_malformed_question_is_refused_before_anything_is_sent(options, field):
    with pytest.raises(InvalidArgumentError) as caught:
        Question(**{"k": 1} | options)
    assert [violation.field for violation in caught.value.violations] == [field]
