"""What a loss makes of how far one score is above another."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

MarginName = Literal["hinge", "squared_hinge", "logistic"]


def margin_loss(name: MarginName, margins: Tensor) -> Tensor:
    """phi(z) of each margin z, non-increasing and convex.

    hinge max(0, 1 - z); squared_hinge max(0, 1 - z)^2; logistic log(1 + exp(-z)).
    """
    if name == "logistic":
        return F.softplus(-margins)
    hinge = (1.0 - margins).clamp_min(0.0)
    return hinge if name == "hinge" else hinge.square()
