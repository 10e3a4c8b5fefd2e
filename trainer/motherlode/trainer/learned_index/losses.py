"""What the stages minimise: L = L_c + lambda L_s (ELIAS, Gupta et al., NeurIPS 2022, section 4.2).

Shapes: B queries, K labels of a shortlist, P positives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# No score of a path counts as less than this, and no negative's probability as nearer to 1 than it:
# logarithms stay finite.
_LEAST = 1e-6


def shortlist_loss(
    logits_BK: Tensor, paths_BK: Tensor, is_positive_BK: Tensor, is_there_BK: Tensor
) -> Tensor:
    """L_c = -sum [y log p + (1 - y) log(1 - p)] with p = sigmoid(logit) y_hat, mean over queries.

    The paper prints (1 - log p) for the second logarithm; its code has log(1 - p).

    Args:
        logits_BK: float [B, K], of the labels' own scores.
        paths_BK: float [B, K], y_hat, 0 to 1.
        is_positive_BK: bool [B, K], y.
        is_there_BK: bool [B, K]; the others add nothing.
    """
    log_p_BK = F.logsigmoid(logits_BK) + paths_BK.clamp(min=_LEAST).log()
    p_BK = (torch.sigmoid(logits_BK) * paths_BK).clamp(max=1 - _LEAST)
    terms_BK = torch.where(is_positive_BK, log_p_BK, torch.log1p(-p_BK))
    return -terms_BK.masked_fill(~is_there_BK, 0.0).sum() / max(len(logits_BK), 1)


def search_loss(paths_P: Tensor, num_queries: int) -> Tensor:
    """L_s = -sum log y_hat over the positives, mean over queries.

    Args:
        paths_P: float [P], y_hat of the positives.
        num_queries: B.
    """
    return -paths_P.clamp(min=_LEAST).log().sum() / max(num_queries, 1)
