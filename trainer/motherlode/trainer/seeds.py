"""Random number generators from numbers that name them."""

from __future__ import annotations

import numpy as np
import torch


def new_generator(*numbers: int) -> torch.Generator:
    """A generator whose draws depend on every bit of these numbers, such as a seed and a step.

    Of the seed that it is given, PyTorch's generator for CPUs takes the lower 32 bits alone, so the
    numbers are mixed down to as many.

    Args:
        numbers: Each at least 0.
    """
    (seed,) = np.random.SeedSequence(numbers).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(seed))
