"""A layer of hidden units, for what a weighted sum of a hit's inputs cannot say.

Such is that a margin says little of a rare label, and much of a frequent one.

Shapes: I inputs, H hidden units, N hits.
"""

from __future__ import annotations

from functools import cached_property
from typing import Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from motherlode.core.queries import FloatArray

# Memory of the units of one block stays some megabytes, however many hits there are.
_BLOCK_HITS = 1 << 14


@final
class HiddenUnits(BaseModel):
    """The sum over H units of outer * softsign(inner z + bias); softsign(x) = x / (1 + |x|)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inner: tuple[tuple[FiniteFloat, ...], ...] = Field(
        description="a weight of each unit and input"
    )
    biases: tuple[FiniteFloat, ...] = Field(description="of each unit")
    outer: tuple[FiniteFloat, ...] = Field(min_length=1, description="weight of each unit")

    @model_validator(mode="after")
    def _is_of_one_size(self) -> Self:
        if not len(self.inner) == len(self.biases) == len(self.outer):
            sizes = f"{len(self.inner)}, {len(self.biases)} and {len(self.outer)}"
            raise ValueError(f"inner, biases and outer: expected as many of each, got {sizes}")
        if len(widths := {len(weights) for weights in self.inner}) != 1:
            raise ValueError(f"inner: expected rows of one length, got {sorted(widths)}")
        return self

    @property
    def num_inputs(self) -> int:
        """I."""
        return len(self.inner[0])

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """[H, I], [H] and [H]."""
        return np.array(self.inner), np.array(self.biases), np.array(self.outer)

    def scores(self, inputs_IN: FloatArray) -> FloatArray:
        """float64 [N]; the bits of each depend on its own inputs alone.

        Args:
            inputs_IN: float32 [I, N].
        """
        blocks = range(0, inputs_IN.shape[1], _BLOCK_HITS)
        parts = [self._of_block(inputs_IN[:, start : start + _BLOCK_HITS]) for start in blocks]
        return np.concatenate([np.empty(0), *parts])

    def _of_block(self, inputs_IN: FloatArray) -> FloatArray:
        inner_HI, biases_H, outer_H = self._arrays
        units_HN = np.repeat(biases_H[:, None], inputs_IN.shape[1], axis=1)
        for i, input_N in enumerate(inputs_IN):
            units_HN += inner_HI[:, i, None] * input_N
        units_HN /= 1 + np.abs(units_HN)
        units_HN *= outer_H[:, None]
        # Row by row: a sum of a single column would be made pairwise, and round otherwise.
        scores_N: FloatArray = np.add.accumulate(units_HN, axis=0)[-1]
        return scores_N
