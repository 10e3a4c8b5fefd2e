"""Which labels a query may find.

Shapes: L labels in all, A labels allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.errors import InvalidQueryError
from motherlode.core.queries import IntArray


@final
@dataclass(frozen=True, slots=True, eq=False)
class LabelFilter:
    """Labels to allow, and no others, or labels to deny.

    Attributes:
        rows: int64 [n], rows of the label table, ascending and each once.
        mode: `allow` or `deny`. To allow no row is to find nothing.

    Raises:
        InvalidQueryError: If the mode is unknown or the rows are not as above.
    """

    rows: IntArray
    mode: Literal["allow", "deny"]

    def __post_init__(self) -> None:
        if self.mode not in ("allow", "deny"):
            raise InvalidQueryError("filter.mode", expected="allow or deny", actual=self.mode)
        if self.rows.ndim != 1 or self.rows.dtype != np.int64:
            actual = f"{self.rows.dtype} {list(self.rows.shape)}"
            raise InvalidQueryError("filter.rows", expected="int64 with one axis", actual=actual)
        if (self.rows[1:] <= self.rows[:-1]).any() or (self.rows[:1] < 0).any():
            expected = "rows from 0, ascending, each once"
            raise InvalidQueryError("filter.rows", expected=expected, actual=self.rows)

    def allowed_rows(self, num_labels: int) -> IntArray:
        """int64 [A], ascending: the rows that may be found among `num_labels`.

        Raises:
            InvalidQueryError: If the filter names a row that is not there.
        """
        if len(self.rows) and self.rows[-1] >= num_labels:
            expected = f"rows below {num_labels}, the number of labels"
            raise InvalidQueryError("filter.rows", expected=expected, actual=self.rows[-1])
        if self.mode == "allow":
            return self.rows
        allowed_L = np.ones(num_labels, np.bool_)
        allowed_L[self.rows] = False
        return np.flatnonzero(allowed_L)


def mask_of(allowed: IntArray | None, num_labels: int) -> NDArray[np.bool_] | None:
    """Bool [L]: true for the rows allowed; None, which allows all, stays so."""
    if allowed is None:
        return None
    mask_L = np.zeros(num_labels, np.bool_)
    mask_L[allowed] = True
    return mask_L


def num_probes(num_wanted: int, num_labels: int, num_allowed: int) -> int:
    """Lists or clusters to look into, in place of those wanted; may be more than there are.

    A filter leaves fewer labels in each of them, and the best of them lie further away.
    """
    return math.ceil(num_wanted * (2 * num_labels / num_allowed - 1))
