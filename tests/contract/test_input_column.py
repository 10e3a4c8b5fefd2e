"""What every collector of inputs promises, run for every kind of input."""

from __future__ import annotations

from typing import Any

import pytest

from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import DenseQueries, SparseQueries, TextQueries
from motherlode.core.records.columns import InputColumn, column_of, foreign_keys

GOOD: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": "Lisbonne"}, {"text": ""}, {"text": "東京"}],
    "sparse": [
        {"indices": [7, 2], "values": [0.5, 1]},
        {"indices": [], "values": []},
        {"indices": [9], "values": [-3.0]},
    ],
    "dense": [{"features": [1, 2.5]}, {"features": [0, 0]}, {"features": [-1.0, 3]}],
}
BAD: dict[str, list[dict[str, Any]]] = {
    "text": [{}, {"text": None}, {"text": 3}, {"text": ["a"]}],
    "sparse": [
        {"indices": [1]},
        {"indices": [1], "values": [1, 2]},
        {"indices": [10], "values": [1]},
        {"indices": [-1], "values": [1]},
        {"indices": [1, 1], "values": [1, 2]},
        {"indices": [1], "values": [1e39]},
        {"indices": ["1"], "values": [1]},
    ],
    "dense": [
        {},
        {"features": 3},
        {"features": [1]},
        {"features": [1, "2"]},
        {"features": [1, True]},
        {"features": [1, 1e39]},
    ],
}


@pytest.fixture(params=GOOD)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def filled(kind: str) -> InputColumn:
    column = column_of(GOOD[kind][0], 10 if kind == "sparse" else None)
    for record in GOOD[kind]:
        column.add(record)
    return column


def shown(queries: object) -> object:
    match queries:
        case TextQueries(texts):
            return list(texts)
        case SparseQueries(indptr, indices, values, num_features):
            return indptr.tolist(), indices.tolist(), values.tolist(), num_features
        case DenseQueries(features_BF):
            return features_BF.tolist()
    raise AssertionError(queries)


EXPECTED = {
    "text": ["Lisbonne", "", "東京"],
    "sparse": ([0, 2, 2, 3], [2, 7, 9], [1.0, 0.5, -3.0], 10),
    "dense": [[1.0, 2.5], [0.0, 0.0], [-1.0, 3.0]],
}


def test_a_batch_holds_the_inputs_in_their_order(kind: str) -> None:
    assert shown(filled(kind).take()) == EXPECTED[kind]


def test_the_next_batch_holds_what_came_after_the_last(kind: str) -> None:
    column = filled(kind)
    column.take()
    for record in GOOD[kind]:
        column.add(record)
    assert shown(column.take()) == EXPECTED[kind]


def test_a_wrong_input_is_refused_with_its_field_and_leaves_the_others(kind: str) -> None:
    column = filled(kind)
    for record in BAD[kind]:
        with pytest.raises(InvalidInputError) as caught:
            column.add(record)
        assert caught.value.field.partition("[")[0] in type(column).keys
    assert shown(column.take()) == EXPECTED[kind]


def test_the_keys_of_other_kinds_are_foreign(kind: str) -> None:
    column = filled(kind)
    others = {key for other in GOOD for key in GOOD[other][0] if other != kind}
    assert foreign_keys(column) == others
