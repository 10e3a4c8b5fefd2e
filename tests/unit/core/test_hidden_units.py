"""Hidden units of a join."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from motherlode.core.rankers import HiddenUnits, hidden_units
from tests.support.rankers import random_units

UNITS = random_units()


def test_scores_are_those_of_the_formula() -> None:
    inputs = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    units = np.array(UNITS.inner) @ inputs + np.array(UNITS.biases)[:, None]
    expected = np.array(UNITS.outer) @ (units / (1 + np.abs(units)))
    np.testing.assert_allclose(UNITS.scores(inputs), expected, rtol=1e-12)


def test_no_hit_has_no_score() -> None:
    assert UNITS.scores(np.empty((4, 0), np.float32)).shape == (0,)


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_the_bits_of_a_score_depend_on_its_own_inputs_alone(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    inputs = np.random.default_rng(0).standard_normal((4, 40)).astype(np.float32)
    whole = UNITS.scores(inputs)
    monkeypatch.setattr(hidden_units, "_BLOCK_HITS", block)
    np.testing.assert_array_equal(UNITS.scores(inputs), whole)
    for i in range(40):
        np.testing.assert_array_equal(UNITS.scores(inputs[:, i : i + 1]), whole[i : i + 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"biases": (0.0,)}, "expected as many of each, got 5, 1 and 5"),
        ({"inner": (*UNITS.inner[:4], (1.0,))}, r"expected rows of one length, got \[1, 4\]"),
        ({"outer": (), "biases": (), "inner": ()}, "outer"),
        ({"outer": (float("inf"), 0.0, 0.0, 0.0, 0.0)}, "outer"),
    ],
)
def test_units_that_do_not_fit_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HiddenUnits.model_validate(UNITS.model_dump() | change)
