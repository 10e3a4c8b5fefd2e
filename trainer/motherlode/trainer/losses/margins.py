"""What a loss makes of how far one score is above another."""

from __future__ import annotations

from typing import Literal

import torch
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


def margin_slope(name: MarginName, margins: Tensor) -> Tensor:
    """The derivative phi'(z) of each margin z; where there is none, that to the right of z."""
    if name == "logistic":
        return torch.sigmoid(-margins).neg_()
    if name == "hinge":
        return (margins < 1.0).to(margins.dtype).neg_()
    return (1.0 - margins).clamp_min_(0.0).mul_(-2.0)
